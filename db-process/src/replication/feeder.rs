//! Serves one follower of one of this process's copies.
//!
//! ```text
//! Follow ─→ Declined
//!        ─→ the op-log still has what the follower lacks ──────────→ LogBatch, LogBatch, … for as long as it stays
//!        ─→ it does not: CopyChunk, CopyChunk, …, the last one says where in the op-log it ends ─↗
//! ```
//!
//! At most two frames are unanswered at any time: one is being worked on while the next is on its way, and
//! what piles up behind them forms larger batches. For a follower that is far behind they are four, and
//! another thread reads the op-log and makes messages of it. What the follower has on disk may go from the
//! op-log. If entries went before the follower had them (the op-log is bounded), it is copied in full again.

use std::collections::VecDeque;
use std::time::Duration;

use protocol::message::link::{CopyReport, FlushPoint, Position, Role};
use protocol::message::replication::{
    ChunkMerged, Confirmed, CopyChunk, Decline, Declined, Follow, LogBatch, LogEntry,
};
use protocol::message::{Message, REVISION};
use protocol::placement::{replica_of, replicated_at};
use socketioxide::extract::SocketRef;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::copy::FollowStart;
use crate::node::Node;
use crate::store::{LATEST_ENTRIES, StoreError};
use crate::worker::CopyHandle;

/// How many frames may be unanswered.
const WINDOW: usize = 2;

/// How many may be for one that is far behind, or copied in full: one for each thread that works on them.
const WINDOW_BEHIND: usize = 4;

/// One that lacks so many entries is far behind: they are not in memory any more.
const FAR: u64 = LATEST_ENTRIES as u64;

/// While writes keep coming, a frame leaves no sooner than this after the one before. Nobody waits for it but
/// reads of the users in it, which the lead answers meanwhile; and a frame costs three processes the same
/// whatever is in it. When the lead is being moved writes wait for it, so it leaves at once.
const PACE: Duration = Duration::from_millis(10);

/// So many entries leave at once all the same.
const AT_ONCE: u64 = 256;

/// How long a follower may take to say what it wants.
const FOLLOW_DEADLINE: Duration = Duration::from_secs(5);

/// How often the follower hears something, even when nothing is written.
const KEEP_ALIVE: Duration = Duration::from_millis(500);

/// What a follower may send.
#[derive(Debug)]
pub(super) enum FromFollower {
    Follow(Follow),
    Confirmed(Confirmed),
    ChunkMerged(ChunkMerged),
}

impl FromFollower {
    /// Reads an event of a follower; `None` if it is none.
    pub(super) fn decode(event: &str, text: &str) -> Option<Self> {
        match event {
            Follow::EVENT => Follow::decode(text).ok().map(Self::Follow),
            Confirmed::EVENT => Confirmed::decode(text).ok().map(Self::Confirmed),
            ChunkMerged::EVENT => ChunkMerged::decode(text).ok().map(Self::ChunkMerged),
            _ => None,
        }
    }
}

/// Why a follower is not served any longer.
#[derive(Debug, Error)]
pub(super) enum Ended {
    #[error("it left")]
    Left,
    #[error("it cannot follow: {0:?}")]
    Declined(Decline),
    #[error("it sent {0}")]
    Nonsense(&'static str),
    #[error("it does not read")]
    Stuck,
    #[error("the copy was closed")]
    Stopped,
    #[error("the op-log is not read for it")]
    Unread,
    #[error("the copy cannot be read: {0}")]
    Copy(#[from] StoreError),
}

/// One follower.
pub(super) struct Feeder<'a> {
    pub(super) node: &'a Node,
    pub(super) socket: &'a SocketRef,
    pub(super) inbox: mpsc::Receiver<FromFollower>,
    /// Cancelled when the follower leaves, or this process stops.
    pub(super) gone: CancellationToken,
}

impl Feeder<'_> {
    /// Serves it until it ends, and says who it was and why it ended.
    pub(super) async fn run(mut self) -> (Option<Follow>, Ended) {
        let first = tokio::select! {
            first = timeout(FOLLOW_DEADLINE, self.inbox.recv()) => first.ok().flatten(),
            () = self.gone.cancelled() => return (None, Ended::Left),
        };
        let Some(FromFollower::Follow(follow)) = first else {
            return (None, Ended::Nonsense("something else than what it wants to follow"));
        };
        let Err(ended) = self.serve(&follow).await;
        (Some(follow), ended)
    }

    async fn serve(self, follow: &Follow) -> Result<std::convert::Infallible, Ended> {
        let copy = self.node.copy(follow.role);
        let start = match admit(self.node, follow) {
            Ok(()) => copy.start_for(follow)?,
            Err(reason) => Err(reason),
        };
        let mut start = match start {
            Ok(start) => start,
            Err(reason) => {
                send(self.socket, &Declined { reason })?;
                return Err(Ended::Declined(reason));
            }
        };
        let mut keep_alive = interval(KEEP_ALIVE);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let Self { node, socket, inbox, gone } = self;
        let mut feed = Feed { node, copy, follow, socket, inbox, gone, keep_alive };
        loop {
            let after = match start {
                FollowStart::Log { after } => after,
                FollowStart::Adopt { end } => feed.adopt(end).await?,
                FollowStart::FullCopy => feed.full_copy().await?,
            };
            feed.log(after).await?;
            info!(follower = %follow.instance, copy = follow.role.as_str(), "op-log trimmed past a follower");
            start = FollowStart::FullCopy;
        }
    }
}

/// Whether the sender may follow that copy of this process.
fn admit(node: &Node, follow: &Follow) -> Result<(), Decline> {
    if follow.revision != REVISION {
        return Err(Decline::Revision);
    }
    let ring = node.ring().filter(|ring| ring.id == follow.ring).ok_or(Decline::AnotherRing)?;
    if other_holder(node.name().place(), follow.role, ring.size) != Some(follow.instance.place()) {
        return Err(Decline::NotANeighbour);
    }
    let report = node.copy(follow.role).report();
    if report.complete || report.rollback.is_some() { Ok(()) } else { Err(Decline::Incomplete) }
}

/// Place of the other copy of the partition whose copy at `place` has that role.
fn other_holder(place: u16, role: Role, size: u16) -> Option<u16> {
    match role {
        Role::Primary => replica_of(place, size),
        Role::Replica => replicated_at(place, size),
    }
}

/// A follower that was admitted.
struct Feed<'a> {
    node: &'a Node,
    copy: &'a CopyHandle,
    follow: &'a Follow,
    socket: &'a SocketRef,
    inbox: mpsc::Receiver<FromFollower>,
    gone: CancellationToken,
    keep_alive: Interval,
}

impl Feed<'_> {
    /// The next message of the follower, to whom this side stays alive meanwhile. Nothing is lost if it is
    /// dropped.
    async fn heard(&mut self) -> Result<FromFollower, Ended> {
        loop {
            tokio::select! {
                biased;
                () = self.gone.cancelled() => return Err(Ended::Left),
                _ = self.keep_alive.tick() => self.send_log(Vec::new())?,
                message = self.inbox.recv() => return message.ok_or(Ended::Left),
            }
        }
    }

    fn send_log(&self, entries: Vec<LogEntry>) -> Result<(), Ended> {
        let CopyReport { incarnation, flushed: lsn, .. } = self.copy.report();
        send(self.socket, &LogBatch { incarnation, lsn, entries })
    }

    /// Tells the follower, which has everything up to `end` without knowing it, that it has. Returns where
    /// that is.
    async fn adopt(&mut self, end: Position) -> Result<u64, Ended> {
        let lsn = self.copy.report().flushed;
        send(self.socket, &CopyChunk { end: Some(end), lsn, ..CopyChunk::default() })?;
        while !matches!(self.heard().await?, FromFollower::ChunkMerged(ChunkMerged { chunk: 0 })) {}
        Ok(end.sequence)
    }

    /// Sends everything. Returns where in the op-log that ends, once the follower has it.
    async fn full_copy(&mut self) -> Result<u64, Ended> {
        let (follower, copy) = (self.follow.instance.as_str(), self.follow.role.as_str());
        info!(follower, copy, "copying in full");
        let (sender, mut chunks) = mpsc::channel(1);
        // To make a message of a chunk takes milliseconds, in which this thread has reads to answer.
        self.copy.full_copy(|chunk| (chunk.chunk, chunk.end, chunk.encode()), sender);
        let (mut unanswered, mut end) = (VecDeque::new(), None);
        loop {
            tokio::select! {
                chunk = chunks.recv(), if unanswered.len() < WINDOW_BEHIND && end.is_none() => {
                    // Without an end, whoever reads the database has failed.
                    let (chunk, ends, text) = chunk.ok_or(Ended::Stopped)?;
                    end = ends;
                    send_text::<CopyChunk>(self.socket, &text)?;
                    unanswered.push_back(chunk);
                }
                message = self.heard() => if let FromFollower::ChunkMerged(ChunkMerged { chunk }) = message?
                    && unanswered.pop_front() != Some(chunk)
                {
                    return Err(Ended::Nonsense("an answer to a chunk that it was not sent"));
                }
            }
            if let Some(end) = end.filter(|_| unanswered.is_empty()) {
                info!(follower, copy, sequence = end.sequence, "copied in full");
                return Ok(end.sequence);
            }
        }
    }

    /// Sends the op-log after that entry, as it grows. Returns when it does not reach back that far any more.
    async fn log(&mut self, after: u64) -> Result<(), Ended> {
        let (mut state, mut moving) = (self.copy.state(), self.node.moving(self.follow.role));
        let mut sent = Sent { upto: after, unanswered: VecDeque::new() };
        let mut caught_up = false;
        let mut rested = Instant::now();
        loop {
            // Before the op-log is read: what is written after that wakes this task again.
            let head = state.borrow_and_update().report.head;
            let hurries = *moving.borrow_and_update();
            if head >= sent.upto + FAR {
                match self.log_to_head(&mut sent).await? {
                    true => continue,
                    false => return Ok(()),
                }
            }
            if hurries || head >= sent.upto + AT_ONCE || rested <= Instant::now() {
                while sent.unanswered.len() < WINDOW {
                    let Some(entries) = self.copy.log_after(sent.upto)? else { return Ok(()) };
                    let Some(last) = entries.last() else { break };
                    sent.add(last.sequence);
                    self.send_log(entries)?;
                    rested = Instant::now() + PACE;
                }
            }
            if sent.unanswered.is_empty() && !caught_up {
                caught_up = true;
                let (follower, copy) = (self.follow.instance.as_str(), self.follow.role.as_str());
                info!(follower, copy, sequence = sent.upto, "caught up");
            }
            let has_room = sent.unanswered.len() < WINDOW;
            tokio::select! {
                message = self.heard() => self.take(&message?, &mut sent)?,
                changed = state.changed(), if has_room => changed.map_err(|_| Ended::Stopped)?,
                Ok(()) = moving.changed() => {}
                () = sleep_until(rested), if head > sent.upto && has_room => {}
            }
        }
    }

    /// Sends the op-log as it is now to a follower that is far behind. To read it and to make messages of it
    /// takes milliseconds, in which this thread has reads to answer. Returns whether it reaches back that
    /// far.
    async fn log_to_head(&mut self, sent: &mut Sent) -> Result<bool, Ended> {
        let (sender, mut frames) = mpsc::channel(1);
        let CopyReport { incarnation, flushed: lsn, .. } = self.copy.report();
        let message = move |entries: Vec<LogEntry>| {
            let last = entries.last().map(|last| last.sequence);
            (last, LogBatch { incarnation, lsn, entries }.encode())
        };
        self.copy.log_to_head(sent.upto, message, sender);
        let before = sent.upto;
        loop {
            tokio::select! {
                frame = frames.recv(), if sent.unanswered.len() < WINDOW_BEHIND => match frame {
                    Some((last, text)) => {
                        sent.add(last.expect("no frame is empty"));
                        send_text::<LogBatch>(self.socket, &text)?;
                    }
                    None if sent.upto > before => return Ok(true),
                    None if self.copy.log_after(before)?.is_none() => return Ok(false),
                    None => return Err(Ended::Unread),
                },
                message = self.heard() => self.take(&message?, sent)?,
            }
        }
    }

    /// Takes note of how far the follower is.
    fn take(&self, message: &FromFollower, sent: &mut Sent) -> Result<(), Ended> {
        if let FromFollower::Confirmed(Confirmed { applied, durable, lsn }) = *message {
            // Trimming what the follower cannot have would lose it. One that had frames of an earlier
            // connection in its queue follows anew, from where it is then.
            if applied > sent.upto || durable > applied {
                return Err(Ended::Nonsense("a confirmation of what it was not sent"));
            }
            sent.applied(applied);
            let incarnation = self.follow.incarnation;
            self.copy.trim(durable, (!incarnation.is_nil()).then_some(FlushPoint { incarnation, lsn }));
        }
        Ok(())
    }
}

/// How much of the op-log a follower was sent.
struct Sent {
    upto: u64,
    /// The last entry of each frame that it has not applied.
    unanswered: VecDeque<u64>,
}

impl Sent {
    fn add(&mut self, last: u64) {
        self.upto = last;
        self.unanswered.push_back(last);
    }

    fn applied(&mut self, upto: u64) {
        while self.unanswered.front().is_some_and(|last| *last <= upto) {
            self.unanswered.pop_front();
        }
    }
}

fn send<M: Message>(socket: &SocketRef, message: &M) -> Result<(), Ended> {
    send_text::<M>(socket, &message.encode())
}

/// The same for a message that is encoded already.
fn send_text<M: Message>(socket: &SocketRef, text: &String) -> Result<(), Ended> {
    // It fails when the session is closed, or so many messages wait in it that nobody can be reading them.
    socket.emit(M::EVENT, text).map_err(|_| Ended::Stuck)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_copies_of_a_partition_find_each_other() {
        for size in 2..5 {
            for place in 0..size {
                for role in Role::ALL {
                    let other = other_holder(place, role, size).unwrap();
                    assert_eq!(
                        other_holder(other, role.other(), size),
                        Some(place),
                        "{place} of {size}, {role:?}"
                    );
                }
            }
        }
        assert_eq!(other_holder(1, Role::Primary, 3), Some(2));
        assert_eq!(other_holder(1, Role::Replica, 3), Some(0));
        assert_eq!(other_holder(0, Role::Primary, 1), None);
    }

    #[test]
    fn only_what_a_follower_sends_is_understood() {
        let confirmed = Confirmed { applied: 2, durable: 1, lsn: 3 };
        let decoded = FromFollower::decode(Confirmed::EVENT, &confirmed.encode());
        assert!(matches!(decoded, Some(FromFollower::Confirmed(got)) if got == confirmed));
        assert!(FromFollower::decode(Confirmed::EVENT, "{}").is_none());
        assert!(FromFollower::decode(LogBatch::EVENT, "{}").is_none());
    }
}
