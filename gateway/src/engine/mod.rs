//! The engine: every decision of the gateway, as a plain state machine.
//!
//! Events and the time go in by [`Engine::step`], commands come out; [`Engine::flush`] turns what has queued
//! up into frames. There is no socket, clock, runtime or randomness in here, so a seeded simulation can drive
//! the real rules, and a test is a short script.
//!
//! The state is the ring as the gateway sees it. It persists nothing: when the gateway starts, the
//! db-processes report what they have.
//!
//! * `lookup`: short ways to parts of the state.
//! * `members`, `claims` and `notices`: which processes are registered, the forming of the ring, and what
//!   each process learns of it. `session`: one registered process, with its `lane`s, which form batches.
//! * `view`: which copy leads each partition, and which processes have persisted that.
//! * `partition`: what may be answered by which copy, and which writes the other copy may lack.
//! * `failover`, `moves`, `operator`: how the leader of a partition changes. `leaving`, `hanging`, `slow`:
//!   processes that stop, hang or are slow. `cut_off`: nothing is heard of any process.
//! * `reads` and `writes`: the way of one request. `question` and `asking`: questions about a whole copy.
//! * `feed`: the order in which changes are published. `purge`: tombstones. `erasure`: what is out of date in
//!   op-logs and files. `repair`: damaged copies. `rollback`: copies whose disks have lost something.
//! * `replication` and `waiting`: what people read about it.
//!
//! It knows of no second gateway: it lives as long as this one is active (see [`crate::election`]).

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use protocol::message::link::{Beat, PerRole, Ring, ToGateway, ToProcess, View, Write};
use protocol::placement::{Partition as Number, Place};
use protocol::{InstanceName, VersionClock};
use rustc_hash::FxHashMap;
use uuid::Uuid;

mod asking;
mod claims;
mod cut_off;
mod erasure;
mod event;
mod failover;
mod feed;
mod hanging;
mod lane;
mod leaving;
mod lookup;
mod members;
mod moves;
mod notices;
mod operator;
mod partition;
mod purge;
mod question;
mod reads;
mod repair;
mod replication;
mod rollback;
mod session;
mod slow;
#[cfg(test)]
mod tests;
mod view;
mod waiting;
mod writes;

pub use event::{
    Command, Event, FeedStart, OrderRefused, Published, RequestId, RingEvent, SessionId, Unserved,
};
pub use repair::{PAUSE_WITHIN, Repair};

use asking::PendingQuestions;
use claims::Claim;
use erasure::Erasure;
use feed::Feed;
use partition::Partition;
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
    /// How far the data of a process may be ahead of the wall clock.
    pub max_clock_offset: Duration,
}

/// A process from which nothing was heard for this long is lost, unless nothing was heard of any (see
/// `cut_off`).
const SILENCE: Duration = Duration::from_millis(500);

/// How often each process is sent a beat, which it answers.
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
    /// The time of this step, since the gateway started.
    now: Duration,
    /// The time of the last tick.
    ticked: Duration,
    /// What this step has decided so far.
    commands: Vec<Command>,
    /// `None` until a ring is formed or found.
    ring: Option<Ring>,
    /// n: as configured until the ring is known.
    size: u16,
    view: View,
    /// Whether it has made a view.
    numbers_views: bool,
    /// By place. Ordered, so that a seeded run repeats.
    sessions: BTreeMap<Place, Session>,
    places: FxHashMap<SessionId, Place>,
    /// Registrations under the name of a process that is registered, by place.
    claims: BTreeMap<Place, Claim>,
    /// Names last seen at each place, to say which process has to come back.
    names: BTreeMap<Place, InstanceName>,
    /// When the process at each place was registered, or lost.
    changed: BTreeMap<Place, Duration>,
    /// Whether requests are served: every process has to know that a new ring is formed before it has a user.
    open: bool,
    /// By number, `size` of them.
    partitions: Vec<Partition>,
    /// The same of these.
    purges: Vec<Purge>,
    /// And of these.
    erasures: Vec<PerRole<Erasure>>,
    watch: Watch,
    clock: VersionClock,
    /// The latest that the wall clock has shown, in milliseconds since 1970.
    wall_clock: u64,
    reads: PendingReads,
    questions: PendingQuestions,
    feed: Feed,
    /// Requests that came before any copy could serve them, just after the start.
    early: Vec<Event>,
    counts: Counts,
    /// Frames to and from each place since the start.
    frames: Vec<u64>,
    /// Frames of tails sent so far; numbers them.
    merges: u64,
    beat: u64,
    beat_sent: Duration,
    /// When anything was last heard of any registered process.
    heard: Duration,
    /// Since when the gateway takes it that it is cut off.
    cut_off: Option<Duration>,
    /// Whether all db-processes have been there at once since the start.
    was_complete: bool,
    /// Which of them were missing, as it was reported last.
    reported_missing: Option<String>,
}

impl Engine {
    /// A gateway to which no process has connected yet.
    pub fn new(config: EngineConfig) -> Self {
        let size = config.size;
        let mut engine = Self {
            config,
            now: Duration::ZERO,
            ticked: Duration::ZERO,
            commands: Vec::new(),
            ring: None,
            size: 0,
            view: View::default(),
            numbers_views: false,
            sessions: BTreeMap::new(),
            places: FxHashMap::default(),
            claims: BTreeMap::new(),
            names: BTreeMap::new(),
            changed: BTreeMap::new(),
            open: false,
            partitions: Vec::new(),
            purges: Vec::new(),
            erasures: Vec::new(),
            watch: Watch::default(),
            clock: VersionClock::default(),
            wall_clock: 0,
            reads: PendingReads::default(),
            questions: PendingQuestions::default(),
            feed: Feed::default(),
            early: Vec::new(),
            counts: Counts::default(),
            frames: Vec::new(),
            merges: 0,
            beat: 0,
            beat_sent: Duration::ZERO,
            heard: Duration::ZERO,
            cut_off: None,
            was_complete: false,
            reported_missing: None,
        };
        engine.resize(size);
        engine
    }

    /// Forgets all partitions: the ring has another size than configured.
    fn resize(&mut self, size: u16) {
        self.size = size;
        self.frames = vec![0; usize::from(size)];
        self.view = View::first(size);
        self.partitions = (0..size).map(|_| Partition::new(size > 1, self.config.tail_bytes)).collect();
        self.purges = (0..size).map(|_| Purge::new()).collect();
        self.erasures = (0..size).map(|_| PerRole::default()).collect();
        self.watch = Watch::new(size);
    }

    /// Takes note of the wall clock, in milliseconds since 1970; to be called before the first event and now
    /// and then. One that is set back changes nothing: versions go on from where they were.
    pub fn note_wall_clock(&mut self, unix_millis: u64) {
        self.wall_clock = self.wall_clock.max(unix_millis);
    }

    /// Takes note of an event at `now`, the time since the gateway started. Appends what is to be done.
    pub fn step(&mut self, now: Duration, event: Event, commands: &mut Vec<Command>) {
        self.decide(now, commands, |engine| engine.handle(event));
    }

    /// Decides something at `now`. Appends what is to be done.
    fn decide<T>(
        &mut self,
        now: Duration,
        commands: &mut Vec<Command>,
        decide: impl FnOnce(&mut Self) -> T,
    ) -> T {
        self.now = now;
        let epoch = self.view.epoch;
        mem::swap(&mut self.commands, commands);
        let decided = decide(self);
        // A view can be persisted only by processes that have received it, whatever made it necessary.
        if self.view.epoch != epoch {
            self.notify();
        }
        mem::swap(&mut self.commands, commands);
        decided
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

    fn handle(&mut self, event: Event) {
        match event {
            // As they came: a write gets its version only when the gateway knows all that went before.
            Event::Read { id, .. } | Event::Write { id, .. } if self.comes_early(self.partition_of(&id)) => {
                self.early.push(event);
            }
            Event::Question { partition, .. } if self.comes_early(partition) => self.early.push(event),
            Event::Size { .. } if !self.open && self.is_early() => self.early.push(event),
            Event::Read { request, id } => self.read(request, id),
            Event::Write { request, id, operation, condition, omit_user, unix_millis } => {
                let version = self.clock.next(unix_millis);
                self.write(request, Write { version, id, operation, condition, omit_user });
            }
            Event::Question { request, partition, query } => self.question(request, partition, query),
            Event::Size { request } => {
                let result = if self.open { Ok(self.size) } else { Err(self.unavailable(0)) };
                self.commands.push(Command::AnswerSize { request, result });
            }
            Event::Subscribe { request } => self.subscribe(request),
            Event::Unheard => self.feed.stop(),
            Event::Purge { upto } => self.begin_purges(upto),
            Event::EraseOld { upto, every } => self.erase_old(upto, every),
            Event::PurgeUser { request, id } => self.purge_user(request, id),
            Event::EraseInCopy { request, id, role } => self.erase_in_copy(request, id, role),
            // That concerns the election.
            Event::Hello { .. } => {}
            Event::Register { session, host, register } => {
                self.register(session, host, register);
                self.retry_early();
            }
            Event::Closed { session } => {
                self.drop_claim(session);
                self.lose(session, "its connection ended");
            }
            Event::Message { session, message } => self.message(session, message),
            Event::Tick => {
                self.tick();
                self.retry_early();
            }
        }
    }

    fn message(&mut self, from: SessionId, message: ToGateway) {
        // A connection that was given up may still send something; it counts no longer.
        let Some(&place) = self.places.get(&from) else { return };
        self.hear();
        self.frames[usize::from(place)] += 1;
        let Some(session) = self.sessions.get_mut(&place) else { return };
        session.heard = self.now;
        match message {
            ToGateway::ReadAnswers(answers) => self.read_answered(place, answers),
            ToGateway::WriteAnswers(answers) => self.write_answered(place, answers),
            ToGateway::Answer(answer) => self.question_answered(place, answer),
            ToGateway::Merged(merged) => self.merged(place, merged),
            ToGateway::Applied(applied) => self.applied(place, applied),
            ToGateway::Compared(compared) => self.compared(place, compared),
            ToGateway::CopiesChanged(changed) => self.copies_changed(place, *changed),
            ToGateway::Following(following) => session.following = Some(following),
            ToGateway::ProcessUsage(usage) => session.usage = Some(usage),
            // These concern the election.
            ToGateway::Granted(_) | ToGateway::TermReport(_) | ToGateway::Kept(_) => {}
            ToGateway::Leaving(_) => {
                session.leaving.get_or_insert(self.now);
            }
            ToGateway::Alive(alive) => {
                session.unanswered_beats = session.unanswered_beats.saturating_sub(1);
                self.answered_beat(place, alive.beat);
            }
        }
    }

    fn tick(&mut self) {
        let stall = self.now.saturating_sub(self.ticked);
        self.ticked = self.now;
        if stall > STALL {
            self.stood_still(stall);
        }
        self.detect_cut_off();
        if !self.is_cut_off() {
            self.evict_silent();
            self.evict_hanging();
        }
        self.tick_claims();
        self.end_waits();
        self.report_missing_members();
        self.send_beats();
        self.compare_paces();
        self.tick_partitions();
        self.release_leaving();
        self.tick_reads();
        self.tick_questions();
        self.tick_feed();
        self.end_pauses();
        self.advance_purges();
        self.watch_replication();
    }

    /// The gateway itself stood still for so long: neither silence nor a late answer says anything.
    fn stood_still(&mut self, stall: Duration) {
        let now = self.now;
        self.sessions.values_mut().for_each(|session| session.extend_deadlines(stall, now));
        self.partitions.iter_mut().for_each(|partition| partition.extend_deadlines(stall, now));
        self.watch.extend_deadlines(stall, now);
        self.extend_claims(stall);
        let times = self.cut_off.iter_mut().chain([&mut self.heard]);
        times.for_each(|time| *time = (*time + stall).min(now));
    }

    fn evict_silent(&mut self) {
        let silent = |session: &&Session| self.now.saturating_sub(session.heard) > SILENCE;
        let silent: Vec<SessionId> =
            self.sessions.values().filter(silent).map(|session| session.id).collect();
        for session in silent {
            self.evict(session, "it is silent");
        }
    }

    fn send_beats(&mut self) {
        if self.now.saturating_sub(self.beat_sent) >= BEAT_INTERVAL {
            self.beat_sent = self.now;
            self.beat += 1;
            for session in self.sessions.values_mut() {
                session.unanswered_beats += 1;
                let message = ToProcess::Beat(Beat { beat: self.beat });
                self.commands.push(Command::Send { session: session.id, message });
            }
        }
    }

    /// When something happened, as far as it is measured: where the gateway stood still, the tick that says
    /// so is yet to come.
    fn credible_now(&self) -> Duration {
        self.now.min(self.ticked + STALL)
    }

    /// Whether a request should wait because the gateway has just started, and its partition may be up in a
    /// moment.
    fn comes_early(&self, number: Number) -> bool {
        self.is_early() && self.partitions.get(usize::from(number)).is_none_or(Partition::is_down)
    }

    fn is_early(&self) -> bool {
        self.ticked < STARTING && self.early.len() < MAX_EARLY
    }

    fn retry_early(&mut self) {
        for event in mem::take(&mut self.early) {
            self.handle(event);
        }
    }
}
