//! Engine: every decision of the gateway, as a plain state machine.
//!
//! Events and the time go in by [`Engine::step`], commands come out; [`Engine::flush`] turns what has
//! queued up into frames. There is no socket, no clock, no runtime and no randomness in here, so a seeded
//! simulation can drive the real thing, and a test is a short script.
//!
//! The state is the ring as the gateway sees it. It persists nothing: when the gateway starts, the
//! db-processes tell what they have.
//!
//! * `members`: who is registered, the forming of the ring, and what each process is told about it.
//! * `session`: one registered process, with its `lane`s, which form batches.
//! * `view`: who leads each partition, and which processes know.
//! * `partition`: who may answer for a partition, which of its users have writes that the other copy may
//!   lack, and the `tail` of acknowledged writes that covers the loss of the lead.
//! * `cut_off`: nothing is heard of any process, so that requests wait.
//! * `pace`: which of the copies of a partition is slow.
//! * `failover`: moving the lead when a process is lost, leaves, is slow or comes back.
//! * `reads` and `writes`: the way of one request.
//! * `question` and `asking`: questions about a whole copy, and their way.
//! * `feed`: the order in which changes are told to subscribers.
//! * `purge`: deleted users are forgotten.
//! * `repair`: what is done about copies that are not what they should be.
//! * `rollback`: copies whose disks have lost something.
//! * `replication`: whether the copies follow each other, for people.
//!
//! What it does not do: it does not expect a second gateway. Several active ones are not part of this design.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use protocol::message::link::{Beat, Ring, View};
use protocol::placement::{Partition as Number, Place};
use protocol::{InstanceName, VersionClock};
use uuid::Uuid;

mod asking;
mod cut_off;
mod event;
mod failover;
mod feed;
mod lane;
mod members;
mod pace;
mod partition;
mod purge;
mod question;
mod reads;
mod repair;
mod replication;
mod rollback;
mod session;
mod tail;
#[cfg(test)]
mod tests;
mod view;
mod waiting;
mod writes;

pub use event::{
    Command, Event, FeedStart, FromProcess, PromotionRefused, Published, RepairRefused, RequestId, RingEvent,
    SessionId, ToProcess, Unserved,
};

pub use question::{Answer, Query, Question};
pub use repair::{HOLD_WITHIN, Repair};

use asking::PendingQuestions;
use feed::Feed;
use partition::{Partition, Phase};
use purge::Purge;
use reads::PendingReads;
use replication::Watch;
use session::Session;

/// What the engine has to know before it starts.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// n, for a ring that has no data yet.
    pub size: u16,
    /// Id for a ring that is formed here.
    pub new_ring: Uuid,
    /// Bound of each partition's unreplicated tail, in bytes.
    pub tail_bytes: usize,
}

/// A process from which nothing was heard for this long is lost, unless nothing was heard of any (see
/// `cut_off`).
const SILENCE: Duration = Duration::from_millis(500);

/// How often each process is asked whether it is there.
const BEAT_INTERVAL: Duration = Duration::from_millis(20);

/// A gateway that has just started lets requests wait for so long, since db-processes come back within a
/// second.
const STARTING: Duration = Duration::from_secs(2);

/// At most this many requests wait for that.
const MAX_EARLY: usize = 16_384;

/// A tick that comes this much late says that the gateway itself stood still, so silence proves nothing.
const STALL: Duration = Duration::from_millis(50);

/// What was served since the gateway started.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) reads_by_replica: u64,
    pub(crate) reads_by_primary: u64,
    /// Reads that were sent to the second copy as well, because the first was slow.
    pub(crate) reads_hedged: u64,
    /// Writes decided.
    pub(crate) writes: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    /// `None` until a ring is formed or found.
    ring: Option<Ring>,
    /// n: as configured until the ring is known.
    size: u16,
    view: View,
    /// Whether it has made a view.
    numbers_views: bool,
    /// By place. Ordered, so that a seeded run repeats.
    sessions: BTreeMap<u16, Session>,
    places: HashMap<SessionId, u16>,
    /// Names last seen at each place, to say who has to come back.
    names: BTreeMap<u16, InstanceName>,
    /// Whether requests are served: everybody has to know that a new ring is formed before it has a user.
    open: bool,
    /// By number, `size` of them.
    partitions: Vec<Partition>,
    /// The same of these.
    purges: Vec<Purge>,
    watch: Watch,
    clock: VersionClock,
    reads: PendingReads,
    questions: PendingQuestions,
    feed: Feed,
    /// Requests that came before anybody could serve them, just after the start.
    early: Vec<Event>,
    counts: Counts,
    /// Frames to and from each place since the start.
    frames: Vec<u64>,
    /// Frames of tails handed over so far; numbers them.
    merges: u64,
    beat: u64,
    beat_sent: Duration,
    ticked: Duration,
    /// When anything was last heard of any registered process.
    heard: Duration,
    /// Since when the gateway takes it that it is cut off.
    cut_off: Option<Duration>,
}

impl Engine {
    /// A gateway to which nobody has connected yet.
    pub fn new(config: EngineConfig) -> Self {
        let size = config.size;
        let mut engine = Self {
            config,
            ring: None,
            size: 0,
            view: View::default(),
            numbers_views: false,
            sessions: BTreeMap::new(),
            places: HashMap::new(),
            names: BTreeMap::new(),
            open: false,
            partitions: Vec::new(),
            purges: Vec::new(),
            watch: Watch::default(),
            clock: VersionClock::default(),
            reads: PendingReads::default(),
            questions: PendingQuestions::default(),
            feed: Feed::default(),
            early: Vec::new(),
            counts: Counts::default(),
            frames: Vec::new(),
            merges: 0,
            beat: 0,
            beat_sent: Duration::ZERO,
            ticked: Duration::ZERO,
            heard: Duration::ZERO,
            cut_off: None,
        };
        engine.resize(size);
        engine
    }

    /// Takes note of an event at `now`, the time since the gateway started. Appends what is to be done.
    pub fn step(&mut self, now: Duration, event: Event, commands: &mut Vec<Command>) {
        let epoch = self.view.epoch;
        self.happen(now, event, commands);
        // Nobody can keep a view that nobody was told, whatever it was that made it necessary.
        if self.view.epoch != epoch {
            self.notify(commands);
        }
    }

    fn happen(&mut self, now: Duration, event: Event, commands: &mut Vec<Command>) {
        match event {
            // As they came: a write gets its version only when the gateway knows all that went before.
            Event::Read { id, .. } | Event::Write { id, .. } if self.comes_early(self.partition_of(&id)) => {
                self.early.push(event);
            }
            Event::Question { partition, .. } if self.comes_early(usize::from(partition)) => {
                self.early.push(event);
            }
            Event::Size { .. } if !self.open && self.is_early() => self.early.push(event),
            Event::Read { request, id } => self.read(now, request, id, commands),
            Event::Write { request, id, operation, condition, quiet, unix_millis } => {
                let version = self.clock.next(unix_millis);
                let write = protocol::message::link::Write { version, id, operation, condition, quiet };
                self.write(request, write, commands);
            }
            Event::Question { request, partition, question } => {
                self.question(now, request, partition, question, commands);
            }
            Event::Size { request } => commands.push(Command::AnswerSize { request, result: self.size() }),
            Event::Subscribe { request } => self.subscribe(now, request, commands),
            Event::Unheard => self.unheard(),
            Event::Purge { upto } => self.look_for_tombstones(now, upto, commands),
            Event::Register { session, host, register } => {
                self.register(now, session, host, *register, commands);
                self.try_early(now, commands);
            }
            Event::Closed { session } => self.lose(now, session, "its connection ended", commands),
            Event::Message { session, message } => self.message(now, session, message, commands),
            Event::Tick => {
                self.tick(now, commands);
                self.try_early(now, commands);
            }
        }
    }

    /// Sends what has queued up, as far as the windows have room. To be called when no event is waiting.
    pub fn flush(&mut self, commands: &mut Vec<Command>) {
        for (place, session) in &mut self.sessions {
            let before = commands.len();
            reads::depart(session, commands);
            writes::depart(self.ticked, session, commands);
            self.frames[usize::from(*place)] += (commands.len() - before) as u64;
        }
    }

    fn message(&mut self, now: Duration, from: SessionId, message: FromProcess, commands: &mut Vec<Command>) {
        // A connection that was given up may still have something to say; it counts no longer.
        let Some(&place) = self.places.get(&from) else {
            return;
        };
        self.hear(now);
        if let Some(session) = self.sessions.get_mut(&place) {
            session.heard = now;
        }
        self.frames[usize::from(place)] += 1;
        match message {
            FromProcess::Read(answers) => self.read_answered(now, place, answers, commands),
            FromProcess::Written(answers) => self.write_answered(now, place, answers, commands),
            FromProcess::Answer(answer) => self.question_answered(now, place, answer, commands),
            FromProcess::Merged(merged) => self.merged(now, place, merged, commands),
            FromProcess::Applied(applied) => self.applied(now, place, applied, commands),
            FromProcess::Compared(compared) => self.compared(now, place, compared, commands),
            FromProcess::Copies(changed) => self.copies_changed(now, place, *changed, commands),
            FromProcess::Following(following) => self.follow(place, following),
            FromProcess::Leaving => self.leave(now, place),
            FromProcess::Alive => {
                if let Some(session) = self.sessions.get_mut(&place) {
                    session.unanswered_beats = session.unanswered_beats.saturating_sub(1);
                }
            }
        }
    }

    fn tick(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let stall = now.saturating_sub(self.ticked);
        self.ticked = now;
        if stall > STALL {
            self.stood_still(stall, now);
            self.excuse_replication(stall, now);
            self.partitions.iter_mut().for_each(|partition| partition.pace.excuse(stall, now));
        }
        self.notice_cut_off(now, commands);
        if !self.is_cut_off(now) {
            self.lose_silent(now, commands);
            self.give_hanging_up(now, commands);
        }
        self.end_waits(now, commands);
        if now.saturating_sub(self.beat_sent) >= BEAT_INTERVAL {
            self.beat_sent = now;
            self.beat += 1;
            self.sessions.values_mut().for_each(|session| session.unanswered_beats += 1);
            let message = ToProcess::Beat(Beat { beat: self.beat });
            commands.extend(
                self.sessions
                    .values()
                    .map(|session| Command::Send { session: session.id, message: message.clone() }),
            );
        }
        self.compare_paces(now, commands);
        self.look_after(now, commands);
        self.hedge(now, commands);
        self.hedge_questions(now, commands);
        self.look_after_feed(now, commands);
        self.end_holds(now);
        self.purge(now, commands);
        self.watch_replication(now, commands);
    }

    fn lose_silent(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let silent: Vec<SessionId> = self
            .sessions
            .values()
            .filter(|session| now.saturating_sub(session.heard) > SILENCE)
            .map(|session| session.id)
            .collect();
        for session in silent {
            self.void(session, commands);
            self.lose(now, session, "it is silent", commands);
        }
    }

    /// When something happened, for whoever measures: where the gateway stood still, the tick that says so is
    /// yet to come.
    fn credible(&self, now: Duration) -> Duration {
        now.min(self.ticked + STALL)
    }

    /// Whether a request should wait because the gateway has just started, and its partition may be up in a
    /// moment.
    fn comes_early(&self, partition: usize) -> bool {
        let phase = self.partitions.get(partition).map(|partition| partition.phase);
        self.is_early() && matches!(phase, None | Some(Phase::Down))
    }

    fn is_early(&self) -> bool {
        self.ticked < STARTING && self.early.len() < MAX_EARLY
    }

    /// n, once the ring is known: before, it is only what was configured.
    fn size(&self) -> Result<u16, Unserved> {
        if self.open {
            Ok(self.size)
        } else {
            Err(Unserved::Unavailable { partition: 0, waiting_for: self.waiting_for(0) })
        }
    }

    /// Tries again what came early.
    fn try_early(&mut self, now: Duration, commands: &mut Vec<Command>) {
        for event in std::mem::take(&mut self.early) {
            self.step(now, event, commands);
        }
    }

    fn partition_of(&self, id: &protocol::UserId) -> usize {
        usize::from(protocol::placement::partition_of(id, self.size))
    }

    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// The ring, once it serves requests.
    pub(crate) fn open_ring(&self) -> Option<Ring> {
        self.ring.filter(|_| self.open)
    }

    pub(crate) fn partition(&self, number: Number) -> &Partition {
        &self.partitions[usize::from(number)]
    }

    pub(crate) fn session_at(&self, place: Place) -> Option<&Session> {
        self.sessions.get(&place)
    }

    pub(crate) fn frames(&self, place: Place) -> u64 {
        self.frames[usize::from(place)]
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// The time of the last tick.
    pub(crate) fn now(&self) -> Duration {
        self.ticked
    }
}
