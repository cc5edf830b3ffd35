//! The unreplicated tail: acknowledged writes of a partition that its other copy is not known to have.
//!
//! The leader acknowledges when a write is on its own disk; the other copy follows a moment later. Until it
//! has, the gateway keeps the write here. When the leader is lost, the tail is sent to the other copy, which
//! then holds every acknowledged write.
//!
//! The tail is bounded. When it overflows (because the other copy is away), the oldest writes are dropped,
//! and the tail no longer covers what the other copy lacks until that has caught up beyond them.

use std::collections::VecDeque;
use std::time::Duration;

use protocol::UserId;
use protocol::message::link::Versioned;

/// A write, and when it was acknowledged.
#[derive(Debug)]
struct Acknowledged {
    at: Duration,
    write: Versioned,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Tail {
    /// Every acknowledged write with a higher sequence than this is in `entries`: a copy that has applied
    /// this much lacks nothing else.
    base: u64,
    /// In sequence order without gaps, the first one `base + 1`. Each by itself: so the queue can grow to
    /// hundreds of thousands while callers wait, and what it leaves is given back.
    entries: VecDeque<Box<Acknowledged>>,
    /// When the oldest write was acknowledged that was dropped for want of room, and that the other copy is
    /// not known to have.
    dropped_since: Option<Duration>,
    bytes: usize,
    limit: usize,
}

impl Tail {
    /// An empty tail of at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { base: 0, entries: VecDeque::new(), dropped_since: None, bytes: 0, limit }
    }

    /// The sequence up to which a copy must have applied the op-log so that the tail covers the rest.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// The newest sequence that is known to be acknowledged.
    pub(super) fn head(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// When the oldest write was acknowledged that the other copy is not known to have.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.dropped_since.or_else(|| self.entries.front().map(|entry| entry.at))
    }

    /// Forgets everything: a leader has `head` as its last entry, and not all up to there are known here.
    pub(super) fn restart(&mut self, head: u64) -> impl Iterator<Item = UserId> {
        self.base = head;
        self.bytes = 0;
        self.dropped_since = None;
        std::mem::take(&mut self.entries).into_iter().map(|entry| entry.write.id)
    }

    /// Adds a write that was acknowledged at `now`. Returns whose writes had to be dropped to stay within the
    /// bound.
    pub(super) fn push(&mut self, now: Duration, sequence: u64, write: Versioned) -> Vec<UserId> {
        let mut dropped = Vec::new();
        if sequence != self.head() + 1 {
            // Something else was written there: what is missing in between cannot be covered.
            dropped.extend(self.restart(sequence - 1));
        }
        self.bytes += bytes(&write);
        self.entries.push_back(Box::new(Acknowledged { at: now, write }));
        while self.bytes > self.limit {
            self.dropped_since = self.oldest();
            dropped.extend(self.pop());
        }
        dropped
    }

    /// The other copy has applied everything up to `sequence`. Returns whose writes were dropped, once for
    /// each write.
    pub(super) fn release(&mut self, sequence: u64) -> Vec<UserId> {
        let mut released = Vec::new();
        if sequence >= self.base {
            self.dropped_since = None;
        }
        while self.base < sequence {
            // It may know more than was acknowledged.
            let Some(id) = self.pop() else { break };
            released.push(id);
        }
        released
    }

    /// The writes that a copy lacks which has applied everything up to `sequence`, oldest first.
    pub(super) fn after(&self, sequence: u64) -> impl Iterator<Item = &Versioned> {
        let applied = sequence.saturating_sub(self.base).min(self.entries.len() as u64);
        self.entries.range(applied as usize..).map(|entry| &entry.write)
    }

    fn pop(&mut self) -> Option<UserId> {
        let entry = self.entries.pop_front()?;
        self.bytes -= bytes(&entry.write);
        self.base += 1;
        Some(entry.write.id)
    }
}

/// What a write takes in memory, the queue's share included.
fn bytes(Versioned { change, .. }: &Versioned) -> usize {
    let texts = [&change.name, &change.email].into_iter().flatten().map(String::len).sum::<usize>();
    size_of::<Acknowledged>() + size_of::<Box<Acknowledged>>() + texts
}

#[cfg(test)]
mod tests {
    use protocol::{Change, Version};

    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn write(number: u128) -> Versioned {
        let change = Change { name: Some("x".repeat(100)), ..Change::default() };
        Versioned { version: Version(number as u64), id: UserId::from_u128(number), change }
    }

    fn sequences(tail: &Tail, after: u64) -> Vec<u64> {
        tail.after(after).map(|write| write.version.0).collect()
    }

    #[test]
    fn a_write_stays_until_the_other_copy_has_it() {
        let mut tail = Tail::new(1 << 20);
        assert_eq!(tail.restart(10).count(), 0);
        (11..=14).for_each(|n| assert!(tail.push(NOW, n, write(u128::from(n))).is_empty()));
        assert_eq!(tail.release(12), [UserId::from_u128(11), UserId::from_u128(12)]);
        assert_eq!((tail.base(), tail.head(), tail.len()), (12, 14, 2));
        assert_eq!(sequences(&tail, 13), [14]);
        assert_eq!(tail.release(20).len(), 2, "the other copy may know more than was acknowledged");
        assert_eq!((tail.base(), tail.head()), (14, 14));
    }

    #[test]
    fn an_overflow_drops_the_oldest_and_raises_the_base() {
        let mut tail = Tail::new(10 * bytes(&write(1)));
        let dropped: usize = (1..=25).map(|n| tail.push(NOW, n, write(u128::from(n))).len()).sum();
        assert_eq!((dropped, tail.len(), tail.base()), (15, 10, 15));
    }

    #[test]
    fn the_age_of_what_was_dropped_counts_until_the_other_copy_has_it() {
        let mut tail = Tail::new(2 * bytes(&write(1)));
        assert_eq!(tail.oldest(), None);
        (1..=4).for_each(|n| drop(tail.push(Duration::from_secs(n), n, write(u128::from(n)))));
        assert_eq!((tail.base(), tail.oldest()), (2, Some(Duration::from_secs(1))));
        tail.release(1);
        assert_eq!(tail.oldest(), Some(Duration::from_secs(1)), "it may lack the second one");
        tail.release(2);
        assert_eq!(tail.oldest(), Some(Duration::from_secs(3)));
        tail.release(4);
        assert_eq!(tail.oldest(), None);
    }

    #[test]
    fn a_gap_starts_the_tail_anew() {
        let mut tail = Tail::new(1 << 20);
        tail.push(NOW, 1, write(1));
        assert_eq!(tail.push(NOW, 5, write(5)).len(), 1);
        assert_eq!((tail.base(), sequences(&tail, 0)), (4, vec![5]));
    }
}
