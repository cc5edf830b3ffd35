//! A db-process: its life, its disks, what it persists of its ring, and its two copies at work.

use std::time::{Duration, Instant};

use corro::random::Random;
use db_process::copy::{Copy, Limits, report, rollback};
use db_process::identity::Grant;
use db_process::identity::Membership;
use db_process::link::event::{ProcessEvent, SessionId, Work};
use db_process::node::plan::{Plan, Source};
use db_process::store::{MemoryStore, Store};
use db_process::worker::rounds::{Job, Marked};
use protocol::message::link::{
    CopiesChanged, CopyReport, CopyReports, FlushPoint, Peer, PerRole, Position, Ring, Role, View,
};
use protocol::message::query::{EraseQuery, Query};
use protocol::mutation::{self, Mutation};
use uuid::Uuid;

use crate::config::Config;
use crate::link::Link;
use crate::replication::Follower;
use crate::worker::Worker;
use crate::world::{Happening, MILLI, SECOND, Time, Up, World};

/// What a process has to do by itself.
#[derive(Debug)]
pub(crate) enum Todo {
    /// An attempt to connect to the gateway ends.
    Connect(u64),
    /// The link to the gateway looks at the time.
    TickLink(Time),
    /// Another thread answers a question.
    Answer(SessionId, Work, Query),
    /// Another thread takes what is out of date from an op-log.
    Erase(SessionId, Work, EraseQuery),
    /// A grant is on disk.
    GrantPersisted(Grant),
    /// A notice is on disk.
    Persisted(SessionId, Box<Plan>),
    /// A round of a copy begins.
    Round(Role),
    /// What a round came to is published.
    Tell(Role),
    /// What was replicated is brought to disk.
    Sync(Role, Time),
    /// The state of a copy has changed.
    Report(Role),
    /// An attempt to connect to the other copy ends.
    OpenStream(Role, u64, Peer),
    /// A copy that follows looks at the time.
    TickFollower(Role, Time),
    /// A source looks at the time, for the follower of that stream.
    TickSource(u64, Time),
    /// It was asked to stop long enough ago.
    LeaveDeadline,
}

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
    pub(crate) incarnation: Uuid,
    /// On disk.
    pub(crate) grant: Grant,
    pub(crate) membership: Option<Membership>,
    /// The databases of a process that is down.
    pub(crate) disks: PerRole<Option<MemoryStore>>,
    /// What it remembers beside them of what was on disk.
    pub(crate) marks: PerRole<Option<Marked>>,
    /// The copy that is set aside when it ends.
    pub(crate) discard: Option<Role>,
    pub(crate) workers: PerRole<Option<Worker>>,
    pub(crate) following: PerRole<Follower>,
    pub(crate) link: Link,
    pub(crate) leaving: bool,
}

impl Process {
    pub(crate) fn new(place: u16, rng: &mut Random) -> Self {
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
            incarnation: rng.uuid(),
            membership: None,
            grant: Grant::default(),
            disks: PerRole::both(|_| Some(MemoryStore::new(rng.uuid()))),
            marks: PerRole::default(),
            discard: None,
            workers: PerRole::default(),
            following: PerRole::both(|role| Follower::new(place, role, 0)),
            link: Link::new(place, Grant::default(), Instant::now(), 0),
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
        self.workers.get(role).as_ref().map(|worker| worker.rounds.copy())
    }

    /// The database of a copy, whether the process is up or not.
    pub(crate) fn store(&self, role: Role) -> &MemoryStore {
        match (self.copy(role), self.disks.get(role)) {
            (Some(copy), _) => copy.store(),
            (None, disk) => disk.as_ref().expect("a process that is down has both disks"),
        }
    }

    pub(crate) fn reports(&mut self) -> CopyReports {
        let primary = self.worker(Role::Primary).report();
        CopyReports { primary, replica: self.worker(Role::Replica).report() }
    }

    pub(crate) fn view(&self) -> View {
        self.membership.as_ref().map(|kept| kept.view.clone()).unwrap_or_default()
    }

    /// Whether the lead of a copy's partition is being moved.
    pub(crate) fn is_moved(&self, role: Role) -> bool {
        self.membership.as_ref().is_some_and(|kept| kept.moves(self.place, role))
    }

    /// The ring that it keeps, and the epoch of the view.
    pub(crate) fn kept(&self) -> (Option<Ring>, u64) {
        (self.membership.as_ref().map(|kept| kept.ring), self.view().epoch)
    }

    pub(crate) fn changes(&mut self) -> CopiesChanged {
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

    pub(crate) fn todo_at(&mut self, place: u16, at: Time, todo: Todo) {
        let life = self.process(place).life;
        self.at(at, Happening::Process(place, life, todo));
    }

    pub(crate) fn start_process(&mut self, place: u16) {
        let Config { recent, log, trim, .. } = self.config;
        let limits = Limits { recent, log, trim };
        let (now, seeds, link_seed) = (self.now, [self.rng.next(), self.rng.next()], self.rng.next());
        let begins = self.instant() + Duration::from_micros(self.rng.between(1, 50 * MILLI));
        let process = self.process(place);
        if process.up {
            return;
        }
        process.up = true;
        process.started = now;
        process.paused = false;
        process.leaving = false;
        process.life += 1;
        process.link = Link::new(place, process.grant.clone(), begins, link_seed);
        let [primary, replica] = seeds;
        process.following = PerRole {
            primary: Follower::new(place, Role::Primary, primary),
            replica: Follower::new(place, Role::Replica, replica),
        };
        for role in Role::ALL {
            let store = process.disks.get_mut(role).take().expect("a process that is down has both disks");
            let marked = *process.marks.get(role);
            *process.workers.get_mut(role) = Some(Worker::open(role, store, limits, marked));
        }
        self.note(|| format!("{place} starts"));
        Role::ALL.into_iter().for_each(|role| self.report_copy(place, role));
    }

    /// The process ends. Without `power` the kernel ends its connections in order.
    pub(crate) fn end_process(&mut self, place: u16, power: bool) {
        let now = self.instant();
        let process = self.process(place);
        if !process.up {
            return;
        }
        process.up = false;
        process.paused = false;
        process.backlog.clear();
        process.disk_hangs = false;
        process.waiting.clear();
        process.discard = None;
        process.link = Link::new(place, Grant::default(), now, 0);
        let life = process.life;
        self.note(|| format!("{place} {}", if power { "loses power" } else { "ends" }));
        for role in Role::ALL {
            let worker = self.process(place).workers.get_mut(role).take().expect("it was up");
            let store = worker.rounds.into_store();
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
            self.happen_here(happening);
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
            && matches!(
                todo,
                Todo::GrantPersisted(_)
                    | Todo::Persisted(..)
                    | Todo::Round(_)
                    | Todo::Tell(_)
                    | Todo::Sync(..)
            )
        {
            return process.waiting.push(todo);
        }
        match todo {
            Todo::Connect(attempt) => self.connect_process(place, attempt),
            Todo::TickLink(at) => self.tick_link(place, at),
            Todo::Answer(session, work, query) => self.answer_question(place, session, work, &query),
            Todo::Erase(session, work, query) => self.erase(place, session, work, query),
            Todo::GrantPersisted(grant) => self.grant_persisted(place, grant),
            Todo::Persisted(session, plan) => self.persisted(place, session, *plan),
            Todo::Round(role) => self.round(place, role),
            Todo::Tell(role) => self.tell(place, role),
            Todo::Sync(role, at) => self.sync(place, role, at),
            Todo::Report(role) => self.report_copy(place, role),
            Todo::OpenStream(role, attempt, peer) => self.open_follower(place, role, attempt, &peer),
            Todo::TickFollower(role, at) => self.tick_follower(place, role, at),
            Todo::TickSource(id, at) => self.tick_source(place, id, at),
            Todo::LeaveDeadline => self.exit(place),
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
        let meta = self.process(place).store(role).meta().expect("a store in memory can be read");
        let lost = rollback::lost(&meta, flushed, followed);
        if let Some(rollback) = lost {
            self.note(|| format!("{place} {role:?}: {rollback}"));
            self.give(place, role, Job::MarkRolledBack(rollback));
        }
        lost.or(meta.rollback).is_none()
    }

    pub(crate) fn carry_plan_out(&mut self, place: u16, plan: Plan) {
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
                Source::Nothing => None,
                Source::Peer(peer) => Some(peer),
            };
            self.set_peer(place, role, peer);
        }
    }

    /// SIGTERM.
    pub(crate) fn ask_to_leave(&mut self, place: u16) {
        self.note(|| format!("{place} is asked to leave"));
        self.process(place).leaving = true;
        self.todo(place, 3 * SECOND, 3 * SECOND + 1, Todo::LeaveDeadline);
        self.step_links(place, ProcessEvent::Leave);
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
