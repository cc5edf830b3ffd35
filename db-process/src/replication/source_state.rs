//! The rules of the source: what one follower of a copy is sent, and when.
//!
//! ```text
//! Follow ─→ Declined
//!        ─→ the op-log still has what the follower lacks ─────────→ LogBatch, LogBatch, … while it stays
//!        ─→ it does not: CopyChunk, CopyChunk, …, the last one says where in the op-log it ends ─↗
//! ```
//!
//! At most two frames are unanswered at any time: one is being worked on while the next is on its way, and
//! what piles up behind them forms larger batches. For a follower that is far behind they are four, and
//! another thread reads the op-log. What the follower has on disk may be trimmed from the op-log. If entries
//! were trimmed before the follower had them (the op-log is bounded), it is copied in full again.
//!
//! [`SourceState`] serves one connection. It reads no op-log and sends no message itself: it returns
//! [`Command`]s, and learns by [`Event`]s what came of them. [`super::server`] carries them out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use protocol::message::REVISION;
use protocol::message::link::{FlushPoint, Position, Ring, Role, Rollback};
use protocol::message::replication::{ChunkMerged, Confirmed, Decline, Follow};
use protocol::mutation::{self, Mutation};
use protocol::placement::{Place, replica_of, replicated_at};
use tracing::info;

use crate::copy::rollback::{Comparison, compare, has_nothing_for};
use crate::copy::{FollowStart, follow};
use crate::store::Meta;

/// How much is sent at once, and how often.
#[derive(Debug, Clone)]
pub struct SourceLimits {
    /// Frames that may be unanswered.
    pub window: usize,
    /// The same for a follower that is far behind or copied in full: one for each thread that works on them.
    pub window_behind: usize,
    /// A follower that lacks this many entries is far behind: they are no longer in memory.
    pub far: u64,
    /// While writes continue, a frame leaves no sooner than this after the one before: only reads of the
    /// users in it wait, and the leader answers those meanwhile; and a frame costs three processes the same,
    /// whatever it holds. While a leader is being changed, writes wait for it, so it leaves at once.
    pub pace: Duration,
    /// This many entries leave at once all the same.
    pub at_once: u64,
    /// How often the follower hears something, even if nothing is written.
    pub keep_alive: Duration,
}

impl Default for SourceLimits {
    fn default() -> Self {
        Self {
            window: 2,
            window_behind: 4,
            far: 4_096,
            pace: Duration::from_millis(10),
            at_once: 256,
            keep_alive: Duration::from_millis(500),
        }
    }
}

/// What is known of the source when a follower asks.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// Place of its process.
    pub place: Place,
    /// Ring of its process.
    pub ring: Option<Ring>,
    /// Committed state of the copy that is asked for.
    pub meta: Meta,
}

/// A follower is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declines {
    /// What the follower is answered.
    pub reason: Decline,
    /// What the source learns from the follower: it was rolled back itself.
    pub rollback: Option<Rollback>,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The copy has committed up to this entry of its op-log.
    Head(u64),
    /// Whether the leader of the partition is being changed.
    Moving(bool),
    /// A frame of the op-log was sent, up to this entry.
    LogSent(u64),
    /// The op-log does not reach back to where the follower is.
    Trimmed,
    /// The other thread has read all that it was to read, or failed.
    ReadToEnd,
    /// Part of a full copy was sent.
    ChunkSent {
        /// Its number.
        chunk: u64,
        /// Set in the last one.
        end: Option<Position>,
    },
    /// The follower has applied more.
    Confirmed(Confirmed),
    /// The follower has merged part of a full copy.
    ChunkMerged(ChunkMerged),
    /// The time of [`SourceState::deadline`] has come.
    Tick,
}

/// What has to be done, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Send an op-log frame without entries.
    KeepAlive,
    /// Read one frame of the op-log behind this entry and send it. Owes [`Event::LogSent`] unless there is
    /// nothing, or [`Event::Trimmed`].
    SendLog(u64),
    /// Have another thread read the op-log behind this entry. Owes [`Event::LogSent`] for each frame, sent
    /// while [`SourceState::has_room`], and then [`Event::ReadToEnd`].
    ReadToHead(u64),
    /// Have another thread read everything. Owes [`Event::ChunkSent`] for each part, sent while
    /// [`SourceState::has_room`], or [`Event::ReadToEnd`] if that comes before the last part.
    ReadEverything,
    /// Send a full copy of nothing, with this end. Owes no event.
    Adopt(Position),
    /// The copy may trim its op-log up to this entry.
    Trim {
        /// The follower has it on disk.
        upto: u64,
        /// What else it has there.
        other: Option<FlushPoint>,
    },
    /// Close the connection: the follower sent this.
    Close(&'static str),
    /// Close the connection: the copy cannot be read.
    Stop,
}

/// See the [module](self).
#[derive(Debug)]
pub struct SourceState {
    limits: SourceLimits,
    follow: Follow,
    phase: Phase,
    head: u64,
    moving: bool,
    keep_alive_at: Instant,
    /// No frame of the op-log leaves before, unless it hurries.
    rested_at: Instant,
}

#[derive(Debug)]
enum Phase {
    Copying {
        /// Numbers of the parts that are not merged.
        unanswered: VecDeque<u64>,
        /// Set when the last one was sent.
        end: Option<Position>,
    },
    Log {
        /// The last entry that was sent.
        sent: u64,
        /// The last entry of each frame that is not applied.
        unanswered: VecDeque<u64>,
        /// Another thread reads, and began behind this entry.
        reading_from: Option<u64>,
        /// The log says that the follower caught up.
        caught_up: bool,
    },
}

impl Phase {
    fn log_from(sent: u64) -> Self {
        Self::Log { sent, unanswered: VecDeque::new(), reading_from: None, caught_up: false }
    }
}

fn copy_in_full(follow: &Follow, commands: &mut Vec<Command>) -> Phase {
    info!(follower = follow.instance.as_str(), copy = follow.role.as_str(), "copying in full");
    commands.push(Command::ReadEverything);
    Phase::Copying { unanswered: VecDeque::new(), end: None }
}

/// From where a follower is served.
///
/// # Errors
/// If it is not served.
pub fn admit(source: &Source, follow: &Follow) -> Result<FollowStart, Declines> {
    let meta = &source.meta;
    let (reason, rollback) = if follow.revision != REVISION {
        (Decline::Revision, None)
    } else if source.ring.map(|ring| ring.id) != Some(follow.ring) {
        (Decline::AnotherRing, None)
    } else if other_holder(source, follow.role) != Some(follow.instance.place()) {
        (Decline::NotANeighbour, None)
    } else if !meta.complete && meta.rollback.is_none() {
        (Decline::Incomplete, None)
    } else {
        match compare(meta, follow) {
            Comparison::Follower(known) => (Decline::Expects(known), None),
            Comparison::Source(rollback) => (Decline::Incomplete, Some(rollback)),
            Comparison::Sound if has_nothing_for(meta, follow) => (Decline::Incomplete, None),
            Comparison::Sound => return Ok(follow::start_for(meta, follow)),
        }
    };
    Err(Declines { reason, rollback })
}

/// Place of the other copy of the partition.
fn other_holder(source: &Source, role: Role) -> Option<Place> {
    let size = source.ring?.size;
    match role {
        Role::Primary => replica_of(source.place, size),
        Role::Replica => replicated_at(source.place, size),
    }
}

impl SourceState {
    /// Of a follower that was [admitted](admit).
    pub fn new(
        limits: SourceLimits,
        follow: Follow,
        start: FollowStart,
        now: Instant,
        commands: &mut Vec<Command>,
    ) -> Self {
        // The follower learns at once whose op-log it is.
        commands.push(Command::KeepAlive);
        let phase = match start {
            FollowStart::Log { after } => Phase::log_from(after),
            FollowStart::Adopt { end } => {
                commands.push(Command::Adopt(end));
                Phase::Copying { unanswered: VecDeque::from([0]), end: Some(end) }
            }
            FollowStart::FullCopy => copy_in_full(&follow, commands),
        };
        let keep_alive_at = now + limits.keep_alive;
        Self { limits, follow, phase, head: 0, moving: false, keep_alive_at, rested_at: now }
    }

    /// Takes note of what happened, and says what has to be done.
    pub fn step(&mut self, now: Instant, event: Event, commands: &mut Vec<Command>) {
        match (event, &mut self.phase) {
            (Event::Head(head), _) => self.head = head,
            (Event::Moving(moving), _) => self.moving = moving,
            (Event::LogSent(last), Phase::Log { sent, unanswered, .. }) => {
                *sent = last;
                unanswered.push_back(last);
                if last >= self.head {
                    self.rested_at = now + self.limits.pace;
                }
            }
            (Event::ReadToEnd, Phase::Copying { end: None, .. }) => commands.push(Command::Stop),
            (Event::ReadToEnd, Phase::Log { sent, reading_from, .. }) => {
                let began = reading_from.take();
                if began == Some(*sent) {
                    // Nothing was read: here it shows why.
                    return commands.push(Command::SendLog(*sent));
                }
            }
            (Event::Trimmed, phase) => {
                let (follower, copy) = (self.follow.instance.as_str(), self.follow.role.as_str());
                info!(follower, copy, "op-log trimmed past a follower");
                *phase = copy_in_full(&self.follow, commands);
            }
            (Event::ChunkSent { chunk, end: last }, Phase::Copying { unanswered, end }) => {
                unanswered.push_back(chunk);
                *end = last;
            }
            (Event::ChunkMerged(ChunkMerged { chunk }), Phase::Copying { unanswered, end }) => {
                if unanswered.pop_front() != Some(chunk) {
                    return commands.push(Command::Close("an answer to a chunk that it was not sent"));
                }
                if let Some(end) = end.filter(|_| unanswered.is_empty()) {
                    let (follower, copy) = (self.follow.instance.as_str(), self.follow.role.as_str());
                    info!(follower, copy, sequence = end.sequence, "copied in full");
                    self.phase = Phase::log_from(end.sequence);
                }
            }
            (Event::Confirmed(confirmed), Phase::Log { sent, unanswered, .. }) => {
                let Confirmed { applied, durable, lsn } = confirmed;
                // Trimming what the follower cannot have would lose it. A follower that had frames of an
                // earlier connection in its queue connects again, and asks from where it is then.
                if applied > *sent || durable > applied {
                    return commands.push(Command::Close("a confirmation of what it was not sent"));
                }
                while unanswered.front().is_some_and(|last| *last <= applied) {
                    unanswered.pop_front();
                }
                let incarnation = self.follow.incarnation;
                let other = (!incarnation.is_nil()).then_some(FlushPoint { incarnation, lsn });
                commands.push(Command::Trim { upto: durable, other });
            }
            (Event::Tick, _) if now >= self.keep_alive_at => {
                self.keep_alive_at = now + self.limits.keep_alive;
                commands.push(Command::KeepAlive);
            }
            // What belongs to an earlier phase: the position of a follower that is copied in full meanwhile.
            _ => {}
        }
        self.send_log(now, commands);
    }

    /// Sends more of the op-log, if there is more, the window has room, and it is time.
    fn send_log(&mut self, now: Instant, commands: &mut Vec<Command>) {
        let (due, window) = (self.is_due(now), self.has_window());
        let Phase::Log { sent, unanswered, reading_from, caught_up } = &mut self.phase else { return };
        if reading_from.is_some() {
            return;
        }
        if self.head >= *sent + self.limits.far {
            *reading_from = Some(*sent);
            return commands.push(Command::ReadToHead(*sent));
        }
        if self.head > *sent && due && window {
            return commands.push(Command::SendLog(*sent));
        }
        if unanswered.is_empty() && !std::mem::replace(caught_up, true) {
            let (follower, copy) = (self.follow.instance.as_str(), self.follow.role.as_str());
            info!(follower, copy, sequence = *sent, "caught up");
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let Phase::Log { sent, .. } = self.phase else { return false };
        self.moving || self.head >= sent + self.limits.at_once || now >= self.rested_at
    }

    /// Whether a frame of the op-log may leave: until then nothing that the copy commits matters here.
    pub fn has_window(&self) -> bool {
        let Phase::Log { unanswered, reading_from, .. } = &self.phase else { return false };
        reading_from.is_none()
            && (unanswered.len() < self.limits.window || mutation::is(Mutation::WindowIgnored))
    }

    /// Whether to send what the other thread has read next.
    pub fn has_room(&self) -> bool {
        let unanswered = match &self.phase {
            Phase::Copying { unanswered, end: None } => unanswered,
            Phase::Log { unanswered, reading_from: Some(_), .. } => unanswered,
            _ => return false,
        };
        unanswered.len() < self.limits.window_behind || mutation::is(Mutation::WindowIgnored)
    }

    /// When to send [`Event::Tick`], if nothing else happens before.
    pub fn deadline(&self) -> Instant {
        match self.phase {
            Phase::Log { sent, .. } if self.head > sent && self.has_window() => {
                self.keep_alive_at.min(self.rested_at)
            }
            _ => self.keep_alive_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_two_copies_of_a_partition_find_each_other() {
        let holder = |place, role, size| {
            let ring = Some(Ring { id: Uuid::nil(), size, formed: true });
            other_holder(&Source { place, ring, meta: Meta::new(Uuid::nil()) }, role)
        };
        for size in 2..5 {
            for place in 0..size {
                for role in Role::ALL {
                    let other = holder(place, role, size).unwrap();
                    assert_eq!(holder(other, role.other(), size), Some(place), "{place} of {size}, {role:?}");
                }
            }
        }
        assert_eq!(holder(1, Role::Primary, 3), Some(2));
        assert_eq!(holder(1, Role::Replica, 3), Some(0));
        assert_eq!(holder(0, Role::Primary, 1), None);
    }

    const COPY: Uuid = Uuid::from_u128(1);
    const FOLLOWER: Uuid = Uuid::from_u128(2);

    /// A source and its time.
    struct Script {
        state: SourceState,
        now: Instant,
        begun: Vec<Command>,
    }

    impl Script {
        fn new(start: FollowStart) -> Self {
            let follow = Follow {
                revision: REVISION,
                ring: Uuid::nil(),
                instance: "db-1".parse().unwrap(),
                role: Role::Primary,
                incarnation: FOLLOWER,
                position: None,
                flushed: 0,
                other: None,
            };
            let (now, mut begun) = (Instant::now(), Vec::new());
            let state = SourceState::new(SourceLimits::default(), follow, start, now, &mut begun);
            Self { state, now, begun }
        }

        fn step(&mut self, event: Event) -> Vec<Command> {
            let mut commands = Vec::new();
            self.state.step(self.now, event, &mut commands);
            commands
        }

        fn after_millis(&mut self, millis: u64) -> Vec<Command> {
            self.now += Duration::from_millis(millis);
            self.step(Event::Tick)
        }

        fn confirm(&mut self, applied: u64, durable: u64) -> Vec<Command> {
            self.step(Event::Confirmed(Confirmed { applied, durable, lsn: 9 }))
        }
    }

    fn trim(upto: u64) -> Command {
        Command::Trim { upto, other: Some(FlushPoint { incarnation: FOLLOWER, lsn: 9 }) }
    }

    #[test]
    fn two_frames_are_unanswered_and_only_what_is_durable_is_trimmed() {
        let mut source = Script::new(FollowStart::Log { after: 10 });
        assert_eq!(source.begun, [Command::KeepAlive]);
        assert_eq!(source.step(Event::Head(11)), [Command::SendLog(10)]);
        assert_eq!(source.step(Event::LogSent(11)), []);
        assert_eq!(source.step(Event::Head(12)), [], "it rests");
        assert_eq!(source.after_millis(10), [Command::SendLog(11)]);
        assert_eq!(source.step(Event::LogSent(12)), []);
        assert_eq!(source.step(Event::Head(13)), []);
        assert_eq!(source.after_millis(10), [], "the window is full");
        assert_eq!(source.confirm(11, 10), [trim(10), Command::SendLog(12)]);
        assert!(matches!(source.confirm(14, 10)[..], [Command::Close(_)]), "it was not sent that");
        assert!(matches!(source.confirm(11, 12)[..], [Command::Close(_)]));
    }

    #[test]
    fn a_frame_leaves_at_once_when_the_leader_changes_or_it_is_large() {
        let mut source = Script::new(FollowStart::Log { after: 0 });
        source.step(Event::Head(1));
        source.step(Event::LogSent(1));
        assert_eq!(source.step(Event::Head(1 + 255)), []);
        assert_eq!(source.step(Event::Head(1 + 256)), [Command::SendLog(1)]);
        source.step(Event::LogSent(257));
        source.confirm(257, 0);
        assert_eq!(source.step(Event::Head(258)), []);
        assert_eq!(source.step(Event::Moving(true)), [Command::SendLog(257)]);
    }

    #[test]
    fn the_op_log_is_read_by_another_thread_for_a_follower_that_is_far_behind() {
        let mut source = Script::new(FollowStart::Log { after: 0 });
        assert_eq!(source.step(Event::Head(5_000)), [Command::ReadToHead(0)]);
        for frame in 1..=4 {
            assert!(source.state.has_room());
            source.step(Event::LogSent(frame * 512));
        }
        assert!(!source.state.has_room(), "four are unanswered");
        assert_eq!(source.confirm(512, 0), [trim(0)]);
        assert!(source.state.has_room());
        source.confirm(2_048, 0);
        assert_eq!(source.step(Event::ReadToEnd), [Command::SendLog(2_048)], "it is not far behind any more");
        assert_eq!(source.step(Event::Trimmed), [Command::ReadEverything]);
    }

    #[test]
    fn a_full_copy_ends_with_the_op_log_from_there() {
        let mut source = Script::new(FollowStart::FullCopy);
        assert_eq!(source.begun, [Command::KeepAlive, Command::ReadEverything]);
        source.step(Event::Head(8));
        let end = Some(Position { incarnation: COPY, sequence: 7 });
        source.step(Event::ChunkSent { chunk: 0, end: None });
        source.step(Event::ChunkSent { chunk: 1, end });
        assert!(!source.state.has_room(), "there is no more");
        assert_eq!(source.confirm(3, 3), [], "of an earlier full copy");
        assert_eq!(source.step(Event::ChunkMerged(ChunkMerged { chunk: 0 })), []);
        assert_eq!(source.step(Event::ChunkMerged(ChunkMerged { chunk: 1 })), [Command::SendLog(7)]);
        let mut source = Script::new(FollowStart::FullCopy);
        let wrong = source.step(Event::ChunkMerged(ChunkMerged { chunk: 0 }));
        assert!(matches!(wrong[..], [Command::Close(_)]));
    }

    #[test]
    fn the_follower_hears_something_twice_a_second() {
        let mut source = Script::new(FollowStart::Log { after: 0 });
        assert_eq!(source.after_millis(499), []);
        assert_eq!(source.state.deadline(), source.now + Duration::from_millis(1));
        assert_eq!(source.after_millis(1), [Command::KeepAlive]);
    }
}
