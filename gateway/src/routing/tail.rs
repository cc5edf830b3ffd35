//! The unreplicated tail: acknowledged writes of a partition that its other copy is not known to have.
//!
//! The lead acknowledges when a write is on its own disk; the other copy follows a moment later. Until it has, the
//! gateway keeps the write here. When the lead is lost, the tail is handed to the other copy, which then holds every
//! acknowledged write.
//!
//! The tail is bounded. When it overflows (because the other copy is away), the oldest writes are let go, and the tail
//! no longer covers what the other copy lacks until that has caught up beyond them.

use std::collections::VecDeque;

use protocol::UserId;
use protocol::message::link::Versioned;

/// See the module.
#[derive(Debug)]
pub(super) struct Tail {
    /// Every acknowledged write with a higher sequence than this is in `entries`: a copy that has applied this much
    /// lacks nothing else.
    base: u64,
    /// In sequence order without gaps, the first one `base + 1`. Each by itself: so the queue can grow to hundreds of thousands while
    /// callers wait, and what it leaves is given back.
    entries: VecDeque<Box<Versioned>>,
    bytes: usize,
    limit: usize,
}

impl Tail {
    /// An empty tail of at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { base: 0, entries: VecDeque::new(), bytes: 0, limit }
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

    /// Forgets everything: a lead has registered with `head` as its last entry, and nobody here knows all of them.
    pub(super) fn restart(&mut self, head: u64) -> impl Iterator<Item = UserId> {
        self.base = head;
        self.bytes = 0;
        std::mem::take(&mut self.entries).into_iter().map(|write| write.id)
    }

    /// Adds an acknowledged write. Returns whom the tail had to let go to stay within its bound.
    pub(super) fn push(&mut self, sequence: u64, write: Versioned) -> Vec<UserId> {
        let mut dropped = Vec::new();
        if sequence != self.head() + 1 {
            // Something else was written there: what is missing in between cannot be covered.
            dropped.extend(self.restart(sequence - 1));
        }
        self.bytes += bytes(&write);
        self.entries.push_back(Box::new(write));
        while self.bytes > self.limit {
            dropped.extend(self.pop());
        }
        dropped
    }

    /// The other copy has applied everything up to `sequence`. Returns whose writes were let go, once for each write.
    pub(super) fn release(&mut self, sequence: u64) -> Vec<UserId> {
        let mut released = Vec::new();
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
        self.entries.range(applied as usize..).map(AsRef::as_ref)
    }

    fn pop(&mut self) -> Option<UserId> {
        let write = self.entries.pop_front()?;
        self.bytes -= bytes(&write);
        self.base += 1;
        Some(write.id)
    }
}

/// What a write takes in memory, the queue's share included.
fn bytes(Versioned { change, .. }: &Versioned) -> usize {
    let texts = [&change.name, &change.email].into_iter().flatten().map(String::len).sum::<usize>();
    size_of::<Versioned>() + size_of::<Box<Versioned>>() + texts
}

#[cfg(test)]
mod tests {
    use protocol::{Change, Version};

    use super::*;

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
        (11..=14).for_each(|n| assert!(tail.push(n, write(u128::from(n))).is_empty()));
        assert_eq!(tail.release(12), [UserId::from_u128(11), UserId::from_u128(12)]);
        assert_eq!((tail.base(), tail.head(), tail.len()), (12, 14, 2));
        assert_eq!(sequences(&tail, 13), [14]);
        assert_eq!(tail.release(20).len(), 2, "the other copy may know more than was acknowledged");
        assert_eq!((tail.base(), tail.head()), (14, 14));
    }

    #[test]
    fn an_overflow_lets_the_oldest_go_and_raises_the_base() {
        let mut tail = Tail::new(10 * bytes(&write(1)));
        let dropped: usize = (1..=25).map(|n| tail.push(n, write(u128::from(n))).len()).sum();
        assert_eq!((dropped, tail.len(), tail.base()), (15, 10, 15));
    }

    #[test]
    fn a_gap_starts_the_tail_anew() {
        let mut tail = Tail::new(1 << 20);
        tail.push(1, write(1));
        assert_eq!(tail.push(5, write(5)).len(), 1);
        assert_eq!((tail.base(), sequences(&tail, 0)), (4, vec![5]));
    }
}
