//! A db-process: its link to the gateway, what it keeps of its ring, and its two copies at work.
//!
//! It does what `db_process::link` and `db_process::node` do, with the same decisions, but without sockets.

use std::collections::VecDeque;

use db_process::copy::{Copy, Limits, report, rollback};
use db_process::identity::Membership;
use db_process::node::PerRole;
use db_process::node::plan::{Plan, Source, plan};
use db_process::store::{MemoryStore, Store};
use gateway::routing::{FromProcess, ToProcess};
use protocol::message::REVISION;
use protocol::message::link::{
    self, Applied, Compared, CopiesChanged, CopyReport, CopyReports, Expected, FlushPoint, MergeBatch, Peer,
    Position, ReadAnswers, ReadBatch, Register, ReplicationAddress, Ring, RingNotice, Role, View,
};
use protocol::mutation::{self, Mutation};
use uuid::Uuid;

use crate::config::Config;
use crate::replication::Following;
use crate::rng::Rng;
use crate::worker::{Job, Worker};
use crate::world::{Down, Happening, MILLI, SECOND, Time, Up, World};

/// What a process has to do by itself.
#[derive(Debug)]
pub(crate) enum Todo {
    /// Connect to the gateway and register.
    Connect,
    /// Nothing was heard for long?
    Silence(u64),
    /// A notice is on disk.
    Kept(u64, Box<Plan>),
    /// A round of a copy begins.
    Round(Role),
    /// What a round came to is told.
    Tell(Role),
    /// What was replicated is brought to disk.
    Sync(Role),
    /// The gateway is told what has changed of a copy.
    Report(Role),
    /// Follow the other copy.
    Follow(Role, u64),
    /// Whoever follows by that stream gets another frame.
    Feed(u64),
    /// It was asked to stop long enough ago.
    LeaveDeadline,
}

/// A gateway that says nothing for that long is lost.
const SILENCE: Time = 2 * SECOND;

/// See the module.
pub(crate) struct Process {
    pub(crate) place: u16,
    pub(crate) life: u64,
    pub(crate) up: bool,
    pub(crate) started: Time,
    pub(crate) paused: bool,
    pub(crate) backlog: Vec<Happening>,
    pub(crate) disk_hangs: bool,
    /// Its disk is slow until then, and its link, whether it is restarted meanwhile or not.
    pub(crate) disk_slow_until: Time,
    pub(crate) link_slow_until: Time,
    /// What waits for the disk.
    waiting: Vec<Todo>,
    /// A notice is being kept.
    keeping: bool,
    /// Those that came meanwhile, each with its connection.
    notices: VecDeque<(u64, RingNotice)>,
    pub(crate) incarnation: Uuid,
    /// On disk.
    pub(crate) membership: Option<Membership>,
    /// The databases of a process that is down.
    pub(crate) disks: PerRole<Option<MemoryStore>>,
    /// What it remembers beside them of what was on disk.
    pub(crate) marks: PerRole<Option<FlushPoint>>,
    /// The copy that is set aside when it ends.
    pub(crate) discard: Option<Role>,
    pub(crate) workers: PerRole<Option<Worker>>,
    pub(crate) following: PerRole<Following>,
    pub(crate) link: Link,
    pub(crate) leaving: bool,
}

/// The link to the gateway.
#[derive(Default)]
pub(crate) struct Link {
    pub(crate) connection: Option<u64>,
    pub(crate) registered: bool,
    heard: Time,
    /// What the gateway knows of the copies.
    told: Option<PerRole<CopyReport>>,
    /// The ring, and the epoch of the view, of which it knows that they are kept.
    told_kept: (Option<Ring>, u64),
    /// What it was told of the copies that follow; `None` before anything was.
    told_following: Option<link::Following>,
}

impl Process {
    pub(crate) fn new(place: u16, rng: &mut Rng) -> Self {
        Self {
            place,
            life: 0,
            up: false,
            started: 0,
            paused: false,
            backlog: Vec::new(),
            disk_hangs: false,
            disk_slow_until: 0,
            link_slow_until: 0,
            waiting: Vec::new(),
            keeping: false,
            notices: VecDeque::new(),
            incarnation: rng.uuid(),
            membership: None,
            disks: PerRole::both(|_| Some(MemoryStore::new(rng.uuid()))),
            marks: PerRole::default(),
            discard: None,
            workers: PerRole::default(),
            following: PerRole::default(),
            link: Link::default(),
            leaving: false,
        }
    }

    pub(crate) fn name(place: u16) -> protocol::InstanceName {
        format!("db-{place}").parse().expect("a name with its place")
    }

    /// Whether it is up, and nothing is wrong with it.
    pub(crate) fn is_well(&self) -> bool {
        self.up && !self.paused && !self.disk_hangs && !self.leaving
    }

    /// A process listens on another port each time.
    pub(crate) fn port(&self) -> u16 {
        1_000 + (self.life as u16 % 100) * 10 + self.place
    }

    pub(crate) fn worker(&mut self, role: Role) -> &mut Worker {
        self.workers.get_mut(role).as_mut().expect("a process that is up has both copies")
    }

    pub(crate) fn copy(&self, role: Role) -> Option<&Copy<MemoryStore>> {
        self.workers.get(role).as_ref().map(|worker| &worker.copy)
    }

    /// The database of a copy, whether the process is up or not.
    pub(crate) fn store(&self, role: Role) -> &MemoryStore {
        match (self.copy(role), self.disks.get(role)) {
            (Some(copy), _) => copy.store(),
            (None, disk) => disk.as_ref().expect("a process that is down has both disks"),
        }
    }

    fn reports(&mut self) -> CopyReports {
        let primary = self.worker(Role::Primary).report();
        CopyReports { primary, replica: self.worker(Role::Replica).report() }
    }

    fn view(&self) -> View {
        self.membership.as_ref().map(|kept| kept.view.clone()).unwrap_or_default()
    }

    /// Whether the lead of a copy's partition is being moved.
    pub(crate) fn is_moved(&self, role: Role) -> bool {
        self.membership.as_ref().is_some_and(|kept| kept.moves(self.place, role))
    }

    /// The ring that it keeps, and the epoch of the view.
    fn kept(&self) -> (Option<Ring>, u64) {
        (self.membership.as_ref().map(|kept| kept.ring), self.view().epoch)
    }

    fn changes(&mut self) -> CopiesChanged {
        let (ring, epoch) = self.kept();
        CopiesChanged { ring, epoch, copies: self.reports() }
    }
}

impl World {
    pub(crate) fn process(&mut self, place: u16) -> &mut Process {
        &mut self.processes[usize::from(place)]
    }

    pub(crate) fn todo(&mut self, place: u16, from: Time, to: Time, todo: Todo) {
        let life = self.process(place).life;
        self.after(from, to, Happening::Process(place, life, todo));
    }

    pub(crate) fn start_process(&mut self, place: u16) {
        let Config { recent, log, trim, .. } = self.config;
        let limits = Limits { recent, log, trim };
        let now = self.now;
        let process = self.process(place);
        if process.up {
            return;
        }
        process.up = true;
        process.started = now;
        process.paused = false;
        process.leaving = false;
        process.life += 1;
        process.link = Link::default();
        process.following = PerRole::default();
        for role in Role::ALL {
            let store = process.disks.get_mut(role).take().expect("a process that is down has both disks");
            let mut copy = Copy::open(store, limits).expect("a store in memory can be read");
            let mark = process.marks.get(role).filter(|_| !mutation::is(Mutation::StartNotCompared));
            if let Some(rollback) = rollback::lost(copy.meta(), mark, None) {
                copy.mark_rolled_back(rollback);
                copy.commit().expect("a store in memory does not fail");
            }
            *process.workers.get_mut(role) = Some(Worker::new(copy));
        }
        self.note(|| format!("{place} starts"));
        self.todo(place, 1, 50 * MILLI, Todo::Connect);
    }

    /// The process ends. Without `power` the kernel ends its connections in order.
    pub(crate) fn end_process(&mut self, place: u16, power: bool) {
        let process = self.process(place);
        if !process.up {
            return;
        }
        process.up = false;
        process.paused = false;
        process.backlog.clear();
        process.disk_hangs = false;
        process.waiting.clear();
        process.keeping = false;
        process.discard = None;
        process.notices.clear();
        process.link = Link::default();
        let life = process.life;
        self.note(|| format!("{place} {}", if power { "loses power" } else { "ends" }));
        for role in Role::ALL {
            let worker = self.process(place).workers.get_mut(role).take().expect("it was up");
            let store = worker.copy.into_store();
            let survivors =
                if power { self.rng.next() as usize % (store.unsynced() + 1) } else { usize::MAX };
            *self.process(place).disks.get_mut(role) = Some(store.crash(survivors));
            // The file is not synced by itself.
            if power && self.rng.percent(50) {
                *self.process(place).marks.get_mut(role) = None;
            }
        }
        let connections: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, each)| each.place == place && each.life == life && each.process_open)
            .map(|(id, _)| *id)
            .collect();
        for id in connections {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.process_open = false;
            }
            if power { self.cut(id, false) } else { self.send_up(id, Up::End) }
        }
        self.end_streams(place, life, power);
    }

    pub(crate) fn resume_process(&mut self, place: u16) {
        let process = self.process(place);
        if !std::mem::take(&mut process.paused) {
            return;
        }
        let backlog = std::mem::take(&mut process.backlog);
        self.note(|| format!("{place} goes on"));
        for happening in backlog {
            self.happen(happening);
        }
    }

    pub(crate) fn resume_disk(&mut self, place: u16, life: u64) {
        let process = self.process(place);
        if process.life != life {
            return;
        }
        if process.paused {
            return process.backlog.push(Happening::ResumeDisk(place, life));
        }
        process.disk_hangs = false;
        let waiting = std::mem::take(&mut process.waiting);
        self.note(|| format!("the disk of {place} goes on"));
        for todo in waiting {
            self.process_does(place, todo);
        }
    }

    /// How long its disk takes to sync, while that is slow.
    pub(crate) fn disk_takes(&mut self, place: u16) -> Option<(Time, Time)> {
        let slow = self.now < self.process(place).disk_slow_until;
        slow.then_some((300 * MILLI, 1_900 * MILLI))
    }

    pub(crate) fn process_does(&mut self, place: u16, todo: Todo) {
        let process = self.process(place);
        if process.disk_hangs
            && matches!(todo, Todo::Kept(..) | Todo::Round(_) | Todo::Tell(_) | Todo::Sync(_))
        {
            return process.waiting.push(todo);
        }
        match todo {
            Todo::Connect => self.connect_process(place),
            Todo::Silence(id) => self.listen(place, id),
            Todo::Kept(id, plan) => self.kept(place, id, *plan),
            Todo::Round(role) => self.round(place, role),
            Todo::Tell(role) => self.tell(place, role),
            Todo::Sync(role) => self.sync(place, role),
            Todo::Report(role) => self.report_copy(place, role),
            Todo::Follow(role, attempt) => self.follow(place, role, attempt),
            Todo::Feed(id) => self.feed_again(place, id),
            Todo::LeaveDeadline => self.exit(place),
        }
    }

    fn connect_process(&mut self, place: u16) {
        if self.process(place).link.connection.is_some() {
            return;
        }
        if !self.gateway.is_up() || self.unreachable {
            return self.todo(place, 50 * MILLI, 400 * MILLI, Todo::Connect);
        }
        // What an earlier connection sent comes first.
        if Role::ALL.into_iter().any(|role| self.process(place).worker(role).writes()) {
            return self.todo(place, MILLI, 2 * MILLI, Todo::Connect);
        }
        let id = self.connect(place);
        let now = self.now;
        let process = self.process(place);
        let copies = process.reports();
        process.link = Link {
            connection: Some(id),
            heard: now,
            told: Some(PerRole { primary: copies.primary, replica: copies.replica }),
            told_kept: process.kept(),
            ..Link::default()
        };
        let register = Register {
            revision: REVISION,
            instance: Process::name(place),
            incarnation: process.incarnation,
            ring: process.membership.as_ref().map(|kept| kept.ring),
            view: process.view(),
            replication: ReplicationAddress { host: None, port: process.port() },
            copies,
        };
        self.send_up(id, Up::Register(Box::new(register)));
        self.todo(place, SILENCE, SILENCE + 1, Todo::Silence(id));
    }

    fn listen(&mut self, place: u16, id: u64) {
        let now = self.now;
        let link = &self.process(place).link;
        if link.connection != Some(id) {
            return;
        }
        if link.heard + SILENCE > now {
            let left = link.heard + SILENCE - now;
            return self.todo(place, left, left + 1, Todo::Silence(id));
        }
        self.note(|| format!("{place} hears nothing of the gateway"));
        self.hang_up(place);
    }

    /// The process gives its connection to the gateway up, and tries again.
    fn hang_up(&mut self, place: u16) {
        let process = self.process(place);
        let Some(id) = process.link.connection.take() else { return };
        process.link = Link::default();
        let leaving = process.leaving;
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.process_open = false;
            if !connection.cut {
                self.send_up(id, Up::End);
            }
        }
        if leaving {
            // There is nobody to tell.
            self.exit(place);
        } else {
            self.todo(place, 50 * MILLI, 400 * MILLI, Todo::Connect);
        }
    }

    pub(crate) fn arrive_at_process(&mut self, id: u64, message: Down) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (place, life) = (connection.place, connection.life);
        let lost = connection.cut && !matches!(message, Down::End);
        let now = self.now;
        let process = self.process(place);
        if lost || process.life != life || !process.up {
            return;
        }
        if process.paused {
            return process.backlog.push(Happening::ToProcess(id, message));
        }
        if process.link.connection != Some(id) {
            return;
        }
        process.link.heard = now;
        match message {
            Down::End => {
                self.note(|| format!("{place} #{id}: the gateway hung up"));
                self.hang_up(place);
            }
            Down::Message(message) => self.handle(place, id, message),
        }
    }

    fn handle(&mut self, place: u16, id: u64, message: ToProcess) {
        if !matches!(message, ToProcess::Beat(_)) {
            self.note(|| format!("{place} #{id} ← {message:?}"));
        }
        match message {
            ToProcess::Registered(_) => {
                self.process(place).link.registered = true;
                Role::ALL.into_iter().for_each(|role| self.report_copy(place, role));
                self.tell_following(place);
                if self.process(place).leaving {
                    self.send_up(id, Up::Message(FromProcess::Leaving));
                }
            }
            ToProcess::Refused(refused) => {
                assert!(!refused.reason.is_final(), "refused for good: {:?}", refused.reason);
                self.hang_up(place);
            }
            ToProcess::Expected(Expected { role, flushed, followed }) => {
                if self.compare_disk(place, role, flushed, followed) {
                    self.send_up(id, Up::Message(FromProcess::Compared(Compared { role })));
                } else {
                    self.hang_up(place);
                }
            }
            ToProcess::Ring(notice) => self.take_notice(place, id, notice),
            ToProcess::Reads(batch) => self.look_up(place, id, &batch),
            ToProcess::Writes(batch) => {
                let job = Job::Write { connection: id, batch: batch.batch, writes: batch.writes.clone() };
                self.give(place, batch.role, job);
            }
            ToProcess::Merge(batch) => {
                let MergeBatch { batch, role, changes, other } = batch;
                self.give(place, role, Job::Merge { connection: id, batch, changes, other });
            }
            ToProcess::Query(query) => self.answer_query(place, id, &query),
            ToProcess::Renew(_) => unreachable!("nobody asks for a repair"),
            ToProcess::Released(_) => self.exit(place),
            ToProcess::Beat(_) => self.send_up(id, Up::Message(FromProcess::Alive)),
        }
    }

    /// Compares a copy with what is known of its disk. Returns whether it is sound.
    pub(crate) fn compare_disk(
        &mut self,
        place: u16,
        role: Role,
        flushed: Option<FlushPoint>,
        followed: Option<Position>,
    ) -> bool {
        let meta = *self.process(place).worker(role).copy.meta();
        let lost = rollback::lost(&meta, flushed, followed);
        if let Some(rollback) = lost {
            self.note(|| format!("{place} {role:?}: {rollback}"));
            self.give(place, role, Job::MarkRolledBack(rollback));
        }
        lost.or(meta.rollback).is_none()
    }

    fn look_up(&mut self, place: u16, id: u64, batch: &ReadBatch) {
        let process = self.process(place);
        let mut results = Vec::new();
        for (role, ids) in [(Role::Primary, &batch.primary), (Role::Replica, &batch.replica)] {
            for id in ids {
                let record = process.store(role).get(id).expect("a store in memory can be read");
                results.push(record.and_then(|record| db_process::copy::document::live(*id, record)));
            }
        }
        self.send_up(id, Up::Message(FromProcess::Read(ReadAnswers { batch: batch.batch, results })));
    }

    fn take_notice(&mut self, place: u16, id: u64, notice: RingNotice) {
        let process = self.process(place);
        if process.keeping {
            return process.notices.push_back((id, notice));
        }
        let reports = process.reports();
        let planned = plan(process.membership.as_ref(), &reports, notice);
        let plan = planned.unwrap_or_else(|contradiction| panic!("{place} is told: {contradiction}"));
        if plan.keep.is_some() {
            process.keeping = true;
            let (least, most) = self.disk_takes(place).unwrap_or((20, 5 * MILLI));
            return self.todo(place, least, most, Todo::Kept(id, Box::new(plan)));
        }
        self.carry_plan_out(place, plan);
        self.tell_kept(place, id);
    }

    /// The ring or the view of a notice is on disk.
    fn kept(&mut self, place: u16, id: u64, mut plan: Plan) {
        let process = self.process(place);
        if let Some(membership) = plan.keep.take() {
            process.membership = Some(membership);
        }
        for role in Role::ALL {
            if self.process(place).is_moved(role) {
                self.feed_followers(place, role);
            }
        }
        self.carry_plan_out(place, plan);
        self.tell_kept(place, id);
        self.process(place).keeping = false;
        while !self.process(place).keeping
            && let Some((id, notice)) = self.process(place).notices.pop_front()
        {
            self.take_notice(place, id, notice);
        }
    }

    /// Tells the gateway what is kept now, if that is news there.
    fn tell_kept(&mut self, place: u16, id: u64) {
        let process = self.process(place);
        let kept = process.kept();
        if process.link.connection == Some(id) && std::mem::replace(&mut process.link.told_kept, kept) != kept
        {
            let changes = process.changes();
            self.send_up(id, Up::Message(FromProcess::Copies(Box::new(changes))));
        }
    }

    fn carry_plan_out(&mut self, place: u16, plan: Plan) {
        for role in plan.count_as_complete {
            self.give(place, role, Job::CountAsComplete);
        }
        for role in plan.accept {
            let incarnation = self.rng.uuid();
            self.give(place, role, Job::AcceptRollback(incarnation));
        }
        if let Some(role) = plan.discard
            && self.process(place).discard.is_none()
        {
            self.process(place).discard = Some(role);
            if !self.process(place).leaving {
                self.ask_to_leave(place);
            }
        }
        for (role, source) in plan.follow.into_pairs() {
            let peer: Option<Peer> = match source {
                Source::AsBefore => continue,
                Source::Nobody => None,
                Source::Peer(peer) => Some(peer),
            };
            self.set_peer(place, role, peer);
        }
    }

    /// Tells the gateway what has changed of a copy, if it is something that matters there.
    fn report_copy(&mut self, place: u16, role: Role) {
        let process = self.process(place);
        let (Some(id), true) = (process.link.connection, process.link.registered) else { return };
        let now = process.worker(role).state.report;
        let Some(told) = process.link.told.as_mut().map(|told| told.get_mut(role)) else { return };
        let told = std::mem::replace(told, now);
        if told.complete && !now.complete {
            return self.hang_up(place);
        }
        if (told.complete, told.incarnation) != (now.complete, now.incarnation) {
            let changes = process.changes();
            self.send_up(id, Up::Message(FromProcess::Copies(Box::new(changes))));
        } else if let Some(position) = now.position.filter(|_| told.position != now.position) {
            self.send_up(id, Up::Message(FromProcess::Applied(Applied { role, position })));
        }
    }

    /// Tells the gateway which copies follow, if that is news there.
    pub(crate) fn tell_following(&mut self, place: u16) {
        let process = self.process(place);
        let (Some(id), true) = (process.link.connection, process.link.registered) else { return };
        let follows = |role| process.following.get(role).follows;
        let now = link::Following { primary: follows(Role::Primary), replica: follows(Role::Replica) };
        if process.link.told_following.replace(now) != Some(now) {
            self.send_up(id, Up::Message(FromProcess::Following(now)));
        }
    }

    /// SIGTERM.
    pub(crate) fn ask_to_leave(&mut self, place: u16) {
        self.note(|| format!("{place} is asked to leave"));
        let process = self.process(place);
        process.leaving = true;
        let link = &process.link;
        match link.connection {
            Some(id) if link.registered => {
                self.send_up(id, Up::Message(FromProcess::Leaving));
                self.todo(place, 3 * SECOND, 3 * SECOND + 1, Todo::LeaveDeadline);
            }
            _ => self.exit(place),
        }
    }

    /// Ends in order: what is queued is done, and everything is on disk.
    pub(crate) fn exit(&mut self, place: u16) {
        self.note(|| format!("{place} exits"));
        for role in Role::ALL {
            self.finish(place, role);
        }
        let discard = self.process(place).discard;
        self.end_process(place, false);
        if let Some(role) = discard {
            self.note(|| format!("{place} sets its {role:?} aside"));
            let incarnation = if mutation::is(Mutation::IncarnationKept) {
                self.report_of(place, role).incarnation
            } else {
                self.rng.uuid()
            };
            *self.process(place).disks.get_mut(role) = Some(MemoryStore::new(incarnation));
        }
        self.after(50 * MILLI, 2 * SECOND, Happening::RestartProcess(place));
    }

    /// State of a copy as it is, for checks.
    pub(crate) fn report_of(&self, place: u16, role: Role) -> CopyReport {
        let meta =
            self.processes[usize::from(place)].store(role).meta().expect("a store in memory can be read");
        report(&meta, meta.lsn)
    }
}
