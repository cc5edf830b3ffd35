//! The rules of the follower: which neighbour one copy follows, and what it reports back.
//!
//! It asks for everything after its own position, and the source decides whether its op-log still reaches
//! back that far or a full copy is needed. What arrives goes to the copy; how far the copy has applied it,
//! and how far that is on disk, is confirmed as it gets there, never before. Whenever something is odd, the
//! connection is dropped, and the copy's own position is the starting point again.
//!
//! [`FollowerState`] lives as long as the process. It opens no connection and changes no copy itself: it
//! returns [`Command`]s, and learns by [`Event`]s what came of them. [`super::client`] carries them out.

use std::mem;
use std::time::{Duration, Instant};

use process::LogThrottle;
use protocol::message::REVISION;
use protocol::message::link::{FlushPoint, Peer, Role};
use protocol::message::replication::{ChunkMerged, Confirmed, Decline, Follow};
use protocol::mutation::{self, Mutation};
use protocol::{InstanceName, message::link::Position};
use tracing::{info, warn};
use uuid::Uuid;

use crate::link::retry::Backoff;
use crate::worker::CopyState;

/// A neighbour that says nothing for that long is lost; it says something twice a second.
const SILENCE: Duration = Duration::from_secs(3);

/// What came of a message of the source.
#[derive(Debug)]
pub enum Read {
    /// Part of the op-log is queued at the copy.
    Log {
        /// Of the copy whose op-log it is.
        source: Uuid,
        /// Number of entries.
        entries: usize,
    },
    /// Part of a full copy is merged, and the last part is on disk.
    Merged {
        /// What the source waits for.
        answer: ChunkMerged,
        /// Whether it was the last part.
        last: bool,
        /// Whether it was the last part of a copy that held anything.
        filled: bool,
    },
    /// It cannot be decoded.
    Unreadable,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The neighbour to follow has changed.
    Peer(Option<Peer>),
    /// The connection is open.
    Connected {
        /// Ring of this process.
        ring: Uuid,
        /// State of the copy.
        copy: CopyState,
    },
    /// The connection could not be opened, or is over.
    Lost(String),
    /// Part of the op-log or of a full copy has arrived.
    Heard,
    /// What came of it.
    Read(Read),
    /// The source cannot be followed now.
    Declined(Decline),
    /// State of the copy has changed.
    Copy(CopyState),
    /// Whether everything is to be copied once more.
    Recopy(bool),
    /// The time of [`FollowerState::deadline`] has come.
    Tick,
}

/// What has to be done, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Open a connection. Owes [`Event::Connected`] or [`Event::Lost`].
    Connect(Peer),
    /// Close it, or give up opening it. Whatever is still read from it is dropped.
    Disconnect,
    /// Send the first message.
    Follow(Box<Follow>),
    /// Send the answer to part of a full copy.
    ChunkMerged(ChunkMerged),
    /// Send how far the copy is.
    Confirm(Confirmed),
    /// Compare the copy with what is known of its disk.
    Compare(FlushPoint),
    /// Whether the copy follows has changed.
    Follows(bool),
    /// Everything has been copied once more.
    Recopied,
}

/// See the [module](self).
#[derive(Debug)]
pub struct FollowerState {
    name: InstanceName,
    /// Of the copy that follows.
    role: Role,
    peer: Option<Peer>,
    /// Everything is to be copied once more.
    recopy: bool,
    phase: Phase,
    backoff: Backoff,
    throttle: LogThrottle,
}

#[derive(Debug)]
enum Phase {
    /// There is no neighbour to follow.
    Idle,
    /// The next attempt is then.
    Waiting(Instant),
    Connecting,
    Following(Box<Session>),
}

/// An open connection.
#[derive(Debug)]
struct Session {
    copy: CopyState,
    /// Gaps that the copy had met when the connection was opened.
    gaps: u64,
    heard: Instant,
    /// The source has sent something of its copy.
    follows: bool,
    /// Incarnation of the source's copy.
    source: Option<Uuid>,
    /// What was reported last: applied and durable.
    confirmed: Option<(u64, u64)>,
    /// It asked for everything once more.
    recopies: bool,
}

impl FollowerState {
    /// Of one of the copies of the process of that name; it follows no neighbour yet.
    pub fn new(name: InstanceName, role: Role, backoff: Backoff) -> Self {
        let (phase, throttle) = (Phase::Idle, LogThrottle::default());
        Self { name, role, peer: None, recopy: false, phase, backoff, throttle }
    }

    /// Takes note of what happened, and says what has to be done.
    pub fn step(&mut self, now: Instant, event: Event, commands: &mut Vec<Command>) {
        match event {
            Event::Peer(peer) if peer != self.peer => {
                self.disconnect(commands);
                (self.peer, self.phase) = (peer, Phase::Idle);
                self.backoff.reset();
                self.throttle.reset();
                self.connect(commands);
            }
            Event::Recopy(recopy) => {
                self.recopy = recopy;
                if recopy && matches!(self.phase, Phase::Following(_)) {
                    self.lost(now, "everything is to be copied once more", commands);
                }
            }
            Event::Lost(reason) => self.lost(now, &reason, commands),
            Event::Connected { ring, copy } if matches!(self.phase, Phase::Connecting) => {
                commands.push(Command::Follow(Box::new(self.follow(ring, &copy))));
                self.phase = Phase::Following(Box::new(Session {
                    gaps: copy.gaps,
                    copy,
                    heard: now,
                    follows: false,
                    source: None,
                    confirmed: None,
                    recopies: self.recopy,
                }));
            }
            Event::Declined(reason) => {
                if let Decline::Expects(known) = reason {
                    commands.push(Command::Compare(known));
                }
                self.lost(now, &format!("it cannot be followed now: {reason:?}"), commands);
            }
            Event::Tick if matches!(self.phase, Phase::Waiting(at) if at <= now) => self.connect(commands),
            event => {
                if let Err(reason) = self.follow_on(now, event, commands) {
                    self.lost(now, &reason, commands);
                }
            }
        }
    }

    /// When to send [`Event::Tick`], if nothing else happens before.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Idle | Phase::Connecting => None,
            Phase::Waiting(at) => Some(*at),
            Phase::Following(session) => Some(session.heard + SILENCE),
        }
    }

    fn follow(&self, ring: Uuid, copy: &CopyState) -> Follow {
        let report = &copy.report;
        Follow {
            revision: REVISION,
            ring,
            instance: self.name.clone(),
            role: self.role.other(),
            incarnation: if self.recopy { Uuid::nil() } else { report.incarnation },
            position: report.position.filter(|_| !self.recopy),
            flushed: report.flushed,
            other: report.other,
        }
    }

    /// Something happened on the open connection. An error ends it.
    fn follow_on(&mut self, now: Instant, event: Event, commands: &mut Vec<Command>) -> Result<(), String> {
        let Phase::Following(session) = &mut self.phase else { return Ok(()) };
        let (copy, of) = (self.role.as_str(), self.peer.as_ref().map(|peer| peer.instance.as_str()));
        match event {
            Event::Heard => {
                session.heard = now;
                if !mem::replace(&mut session.follows, true) {
                    commands.push(Command::Follows(true));
                }
            }
            Event::Read(Read::Log { source, entries }) => {
                if session.source.is_some_and(|other| other != source) {
                    return Err("it sent the op-log of two copies on one connection".to_owned());
                }
                if session.source.replace(source).is_none() {
                    info!(copy, of, incarnation = %source, "follows");
                }
                if mutation::is(Mutation::ConfirmUnapplied)
                    && let Some(at) = &mut session.copy.report.position
                {
                    at.sequence += entries as u64;
                }
            }
            Event::Read(Read::Merged { answer, last, filled }) => {
                commands.push(Command::ChunkMerged(answer));
                if last {
                    // What the source heard of before belongs to the full copy.
                    session.confirmed = None;
                }
                if last && session.recopies {
                    commands.push(Command::Recopied);
                }
                if filled {
                    info!(copy, of, "copied in full");
                }
            }
            Event::Read(Read::Unreadable) => return Err("it sent a message that cannot be read".to_owned()),
            Event::Copy(copy) if copy.gaps != session.gaps => {
                return Err("it sent an op-log with a gap".to_owned());
            }
            Event::Copy(copy) => session.copy = copy,
            Event::Tick if now >= session.heard + SILENCE => {
                return Err(format!("nothing heard for {SILENCE:?}"));
            }
            _ => {}
        }
        session.confirm(commands);
        Ok(())
    }

    fn connect(&mut self, commands: &mut Vec<Command>) {
        if let Some(peer) = &self.peer {
            commands.push(Command::Connect(peer.clone()));
            self.phase = Phase::Connecting;
        }
    }

    fn disconnect(&self, commands: &mut Vec<Command>) {
        if matches!(&self.phase, Phase::Following(session) if session.follows) {
            commands.push(Command::Follows(false));
        }
        if matches!(self.phase, Phase::Connecting | Phase::Following(_)) {
            commands.push(Command::Disconnect);
        }
    }

    fn lost(&mut self, now: Instant, reason: &str, commands: &mut Vec<Command>) {
        self.disconnect(commands);
        let (copy, of) = (self.role.as_str(), self.peer.as_ref().map(|peer| peer.instance.as_str()));
        match &self.phase {
            Phase::Idle | Phase::Waiting(_) => return,
            Phase::Following(session) if session.source.is_some() => {
                warn!(copy, of, reason, "no longer follows");
                self.backoff.reset();
                self.throttle.reset();
            }
            Phase::Connecting | Phase::Following(_) if self.throttle.allows(reason, now) => {
                info!(copy, of, reason, "cannot follow yet; trying on");
            }
            Phase::Connecting | Phase::Following(_) => {}
        }
        self.phase = Phase::Waiting(now + self.backoff.next_delay());
    }
}

impl Session {
    /// Reports how far the copy is, where that is news. Its LSN rises with every write that it decides
    /// itself, which is no news to the source.
    fn confirm(&mut self, commands: &mut Vec<Command>) {
        let CopyState { report, durable, .. } = self.copy;
        let Some(Position { incarnation, sequence: applied }) = report.position else { return };
        if Some(incarnation) == self.source && self.confirmed != Some((applied, durable)) {
            self.confirmed = Some((applied, durable));
            commands.push(Command::Confirm(Confirmed { applied, durable, lsn: report.flushed }));
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::Version;
    use protocol::message::link::CopyReport;

    use super::*;

    const SOURCE: Uuid = Uuid::from_u128(1);

    fn peer() -> Peer {
        Peer { instance: "db-1".parse().unwrap(), host: "::1".to_owned(), port: 1 }
    }

    /// A copy that has applied the source's op-log up to there, and has it on disk up to there.
    fn copy(applied: u64, durable: u64) -> CopyState {
        let report = CopyReport {
            incarnation: Uuid::from_u128(2),
            complete: true,
            head: 0,
            position: Some(Position { incarnation: SOURCE, sequence: applied }),
            version: Version::ZERO,
            flushed: 5,
            other: None,
            rollback: None,
        };
        CopyState { report, durable, gaps: 0 }
    }

    /// A follower and its time.
    struct Script {
        state: FollowerState,
        now: Instant,
    }

    impl Script {
        fn new() -> Self {
            let state =
                FollowerState::new("db-0".parse().unwrap(), Role::Replica, Backoff::with_jitter_seed(1));
            Self { state, now: Instant::now() }
        }

        /// It follows, and has heard from the source.
        fn following() -> Self {
            let mut script = Self::new();
            assert_eq!(script.step(Event::Peer(Some(peer()))), [Command::Connect(peer())]);
            let asked = script.step(Event::Connected { ring: Uuid::nil(), copy: copy(7, 6) });
            let [Command::Follow(follow)] = &asked[..] else { panic!("{asked:?}") };
            assert_eq!(follow.position.map(|at| at.sequence), Some(7));
            assert_eq!(script.step(Event::Heard), [Command::Follows(true)]);
            script
        }

        fn step(&mut self, event: Event) -> Vec<Command> {
            let mut commands = Vec::new();
            self.state.step(self.now, event, &mut commands);
            commands
        }

        fn at_deadline(&mut self) -> Vec<Command> {
            self.now = self.state.deadline().unwrap();
            self.step(Event::Tick)
        }
    }

    fn confirm(applied: u64, durable: u64) -> Command {
        Command::Confirm(Confirmed { applied, durable, lsn: 5 })
    }

    fn log(source: Uuid) -> Event {
        Event::Read(Read::Log { source, entries: 2 })
    }

    #[test]
    fn what_is_confirmed_was_applied_and_is_news() {
        let mut follower = Script::following();
        assert_eq!(follower.step(log(SOURCE)), [confirm(7, 6)], "once it is known whose op-log it is");
        assert_eq!(follower.step(Event::Heard), []);
        assert_eq!(follower.step(log(SOURCE)), [], "it is only queued");
        assert_eq!(follower.step(Event::Copy(copy(9, 6))), [confirm(9, 6)]);
        assert_eq!(follower.step(Event::Copy(copy(9, 9))), [confirm(9, 9)]);
        assert_eq!(follower.step(Event::Copy(copy(9, 9))), []);
    }

    #[test]
    fn what_came_with_a_full_copy_is_confirmed_behind_it() {
        let mut follower = Script::following();
        assert_eq!(follower.step(log(SOURCE)), [confirm(7, 6)]);
        let answer = ChunkMerged { chunk: 0 };
        let part = |last| Event::Read(Read::Merged { answer, last, filled: last });
        assert_eq!(follower.step(part(false)), [Command::ChunkMerged(answer)]);
        assert_eq!(follower.step(part(true)), [Command::ChunkMerged(answer), confirm(7, 6)]);
    }

    #[test]
    fn an_odd_source_is_left_and_tried_again() {
        let ends = [
            Event::Lost("closed".to_owned()),
            log(Uuid::from_u128(3)),
            Event::Read(Read::Unreadable),
            Event::Copy(CopyState { gaps: 1, ..copy(7, 6) }),
            Event::Recopy(true),
            Event::Declined(Decline::Incomplete),
        ];
        for end in ends {
            let mut follower = Script::following();
            follower.step(log(SOURCE));
            let name = format!("{end:?}");
            assert_eq!(follower.step(end), [Command::Follows(false), Command::Disconnect], "{name}");
            assert_eq!(follower.at_deadline(), [Command::Connect(peer())], "{name}");
        }
    }

    #[test]
    fn silence_is_noticed_and_every_sound_counts() {
        let mut follower = Script::following();
        follower.now += SILENCE - Duration::from_millis(1);
        follower.step(Event::Heard);
        assert_eq!(follower.state.deadline(), Some(follower.now + SILENCE));
        assert_eq!(follower.at_deadline(), [Command::Follows(false), Command::Disconnect]);
    }

    #[test]
    fn a_copy_that_the_source_knows_more_of_is_compared() {
        let mut follower = Script::following();
        let known = FlushPoint { incarnation: Uuid::from_u128(2), lsn: 9 };
        let commands = follower.step(Event::Declined(Decline::Expects(known)));
        assert_eq!(commands, [Command::Compare(known), Command::Follows(false), Command::Disconnect]);
    }

    #[test]
    fn another_neighbour_is_followed_at_once() {
        let mut follower = Script::following();
        let other = Peer { port: 2, ..peer() };
        let commands = follower.step(Event::Peer(Some(other.clone())));
        assert_eq!(commands, [Command::Follows(false), Command::Disconnect, Command::Connect(other)]);
        assert_eq!(follower.step(Event::Peer(None)), [Command::Disconnect]);
        assert_eq!(follower.step(Event::Lost("late".to_owned())), []);
        assert_eq!(follower.state.deadline(), None);
    }

    #[test]
    fn a_copy_that_differs_asks_for_everything_once() {
        let mut follower = Script::new();
        follower.step(Event::Recopy(true));
        follower.step(Event::Peer(Some(peer())));
        let asked = follower.step(Event::Connected { ring: Uuid::nil(), copy: copy(7, 6) });
        let [Command::Follow(follow)] = &asked[..] else { panic!("{asked:?}") };
        assert_eq!((follow.incarnation, follow.position), (Uuid::nil(), None));
        let answer = ChunkMerged { chunk: 3 };
        let commands = follower.step(Event::Read(Read::Merged { answer, last: true, filled: true }));
        assert_eq!(commands, [Command::ChunkMerged(answer), Command::Recopied]);
    }
}
