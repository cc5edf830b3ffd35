//! Short scripts: what happens, and what the engine makes of it.

mod claims;
mod cut_off;
mod failover;
mod feed;
mod members;
mod purge;
mod questions;
mod repair;
mod replication;
mod requests;
mod rollback;
mod slow;

use std::time::Duration;

use protocol::message::REVISION;
use protocol::message::link::{
    Alive, Applied, CopiesChanged, CopyReport, CopyReports, Found, Grant, Leaving, MergeBatch, Merged,
    Position, ReadAnswers, Register, ReplicationAddress, Ring, Role, ToGateway, ToProcess, View, WriteAnswer,
    WriteAnswers,
};
use protocol::message::query::{Answer, ChangesQuery, CountQuery, DigestQuery, Filter, PageQuery, Query};
use protocol::{Change, Operation, Outcome, UserId, Version};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    Command, Engine, EngineConfig, Event, FeedStart, OrderRefused, Published, RequestId, RingEvent,
    SessionId, Unserved,
};

/// A ring of processes that join as real ones do, and answer reads and writes only when the script says so.
struct Script {
    engine: Engine,
    now: Duration,
    requests: u64,
    sessions: u64,
    processes: Vec<Process>,
    /// Messages that the processes have not answered yet, by place.
    inbox: Vec<(u16, ToProcess)>,
    /// What went to connections of none of them.
    strays: Vec<(SessionId, ToProcess)>,
    reads: Vec<(RequestId, Result<Option<Found>, Unserved>)>,
    writes: Vec<(RequestId, Result<WriteAnswer, Unserved>)>,
    answers: Vec<(RequestId, Result<Answer, Unserved>)>,
    sizes: Vec<Result<u16, Unserved>>,
    subscribed: Vec<(RequestId, Result<FeedStart, Unserved>)>,
    /// Where the feed began, and what was published since.
    begun: Option<Version>,
    published: Vec<Published>,
    reports: Vec<RingEvent>,
    /// Whether a copy that gets an empty tail says at once that all it has is on disk.
    syncs: bool,
}

/// What survives a restart of a process.
#[derive(Clone)]
struct Process {
    session: Option<SessionId>,
    incarnation: Uuid,
    ring: Option<Ring>,
    view: View,
    /// Whether it persists notices; false while its disk is slow.
    persists: bool,
    copies: CopyReports,
}

impl Process {
    fn fresh(tag: u128) -> Self {
        let copy = |tag| CopyReport {
            incarnation: Uuid::from_u128(tag),
            complete: false,
            head: 0,
            position: None,
            version: Version::ZERO,
            flushed: 0,
            other: None,
            rollback: None,
        };
        Self {
            session: None,
            incarnation: Uuid::from_u128(tag),
            ring: None,
            view: View::default(),
            persists: true,
            copies: CopyReports { primary: copy(tag + 1), replica: copy(tag + 2) },
        }
    }
}

/// What the wall clock of a gateway shows, in milliseconds.
const WALL: u64 = 1 << 40;

fn gateway(size: u16, new_ring: u128) -> Engine {
    let mut engine = Engine::new(EngineConfig {
        size,
        new_ring: Uuid::from_u128(new_ring),
        tail_bytes: 1 << 20,
        max_clock_offset: Duration::from_secs(60),
    });
    engine.note_wall_clock(WALL);
    engine
}

impl Script {
    fn new(size: u16) -> Self {
        let mut script = Self {
            engine: gateway(size, 0xca11),
            now: Duration::from_secs(10),
            requests: 0,
            sessions: 0,
            processes: (0..size).map(|place| Process::fresh(u128::from(place) * 100 + 100)).collect(),
            inbox: Vec::new(),
            strays: Vec::new(),
            reads: Vec::new(),
            writes: Vec::new(),
            answers: Vec::new(),
            sizes: Vec::new(),
            subscribed: Vec::new(),
            begun: None,
            published: Vec::new(),
            reports: Vec::new(),
            syncs: true,
        };
        // The gateway has been up for a while.
        script.step(Event::Tick);
        script
    }

    /// A formed ring, all up, each replica having followed its primary's empty op-log.
    fn formed(size: u16) -> Self {
        let mut script = Self::new(size);
        (0..size).for_each(|place| script.connect(place));
        script.follow_all();
        assert!(script.engine.status().ready);
        script
    }

    /// The same processes with a gateway that has just started.
    fn restart_gateway(&mut self) {
        let size = self.processes.len() as u16;
        self.engine = gateway(size, 0xca12);
        self.inbox.clear();
        self.processes.iter_mut().for_each(|process| process.session = None);
        self.step(Event::Tick);
    }

    fn step(&mut self, event: Event) {
        let mut commands = Vec::new();
        self.engine.step(self.now, event, &mut commands);
        self.engine.flush(&mut commands);
        for command in commands {
            match command {
                Command::StepDown => unreachable!("there is no election here"),
                Command::Send { session, message } => self.receive(session, message),
                Command::AnswerRead { request, result } => self.reads.push((request, result)),
                Command::AnswerWrite { request, result, .. } => self.writes.push((request, result)),
                Command::AnswerQuestion { request, result } => self.answers.push((request, result)),
                Command::AnswerSize { result, .. } => self.sizes.push(result),
                Command::AnswerSubscribe { request, result } => self.subscribed.push((request, result)),
                Command::BeginFeed { after } => {
                    self.begun = Some(after);
                    self.published.clear();
                }
                Command::Publish(news) => self.published.extend(news),
                Command::Report(event) => self.reports.push(event),
            }
        }
    }

    /// Joining is done at once, as a real process does; the rest waits for the script.
    fn receive(&mut self, session: SessionId, message: ToProcess) {
        let Some(place) = self.processes.iter().position(|process| process.session == Some(session)) else {
            return self.strays.push((session, message));
        };
        let process = &mut self.processes[place];
        if let ToProcess::RingNotice(notice) = &message {
            process.copies.primary.complete |= notice.primary == Grant::Empty;
            process.copies.replica.complete |= notice.replica == Grant::Empty;
            let news = process.ring != Some(notice.ring) || process.view.epoch < notice.view.epoch;
            if news && process.persists {
                process.ring = Some(notice.ring);
                process.view = notice.view.clone();
                self.copies_changed(place as u16);
            }
        }
        if let ToProcess::MergeBatch(batch) = &message
            && batch.changes.is_empty()
            && self.syncs
        {
            return self.message(
                place as u16,
                ToGateway::Merged(Merged { batch: batch.batch, role: batch.role, lsn: 0 }),
            );
        }
        self.inbox.push((place as u16, message));
    }

    fn message(&mut self, place: u16, message: ToGateway) {
        let session = self.processes[usize::from(place)].session.expect("connected");
        self.step(Event::Message { session, message });
    }

    fn copies_changed(&mut self, place: u16) {
        let Process { ring, view, copies, .. } = self.processes[usize::from(place)].clone();
        self.message(
            place,
            ToGateway::CopiesChanged(Box::new(CopiesChanged { ring, epoch: view.epoch, copies })),
        );
    }

    fn register_message(&self, place: u16) -> Register {
        let process = &self.processes[usize::from(place)];
        Register {
            revision: REVISION,
            instance: format!("db-{place}").parse().expect("a name"),
            incarnation: process.incarnation,
            ring: process.ring,
            view: process.view.clone(),
            replication: ReplicationAddress { host: None, port: 4000 + place },
            copies: process.copies,
        }
    }

    fn connect(&mut self, place: u16) {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        self.processes[usize::from(place)].session = Some(session);
        let register = Box::new(self.register_message(place));
        self.step(Event::Register { session, host: "127.0.0.1".to_owned(), register });
    }

    fn kill(&mut self, place: u16) {
        let session = self.processes[usize::from(place)].session.take().expect("connected");
        self.inbox.retain(|(to, _)| *to != place);
        self.step(Event::Closed { session });
    }

    /// Ticks for so long, in steps of ten milliseconds, with every live process answering its beats.
    fn pass(&mut self, millis: u64, silent: &[u16]) {
        for _ in 0..millis / 10 {
            self.now += Duration::from_millis(10);
            self.step(Event::Tick);
            for place in 0..self.processes.len() as u16 {
                if self.processes[usize::from(place)].session.is_some() && !silent.contains(&place) {
                    let beats = self.inbox.iter().rev().find_map(|(to, message)| match message {
                        ToProcess::Beat(beat) if *to == place => Some(beat.beat),
                        _ => None,
                    });
                    self.message(place, ToGateway::Alive(Alive { beat: beats.unwrap_or(0) }));
                }
            }
        }
    }

    fn read(&mut self, id: UserId) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.step(Event::Read { request, id });
        request
    }

    fn create(&mut self, id: UserId) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        let change = Change { alive: Some(true), name: Some("n".into()), ..Change::default() };
        let operation = Operation::Create(change);
        self.step(Event::Write { request, id, operation, condition: None, omit_user: false, unix_millis: 5 });
        request
    }

    /// The copies that reads under way were sent to: place and role.
    fn asked(&self) -> Vec<(u16, Role)> {
        let mut asked = Vec::new();
        for (place, message) in &self.inbox {
            if let ToProcess::ReadBatch(batch) = message {
                asked.extend(batch.primary.iter().map(|_| (*place, Role::Primary)));
                asked.extend(batch.replica.iter().map(|_| (*place, Role::Replica)));
            }
        }
        asked
    }

    /// A process answers all the reads that it has: users whose id is even exist.
    fn answer_reads(&mut self, place: u16) {
        for message in self.take(place, |message| matches!(message, ToProcess::ReadBatch(_))) {
            let ToProcess::ReadBatch(batch) = message else { unreachable!("only reads were taken") };
            let ids = batch.primary.iter().chain(&batch.replica);
            let user = || RawValue::from_string("{}".to_owned()).expect("valid JSON");
            let results = ids.map(|id| (id.as_u128() % 2 == 0).then(|| Found(Version(1), user()))).collect();
            self.message(place, ToGateway::ReadAnswers(ReadAnswers { batch: batch.batch, results }));
        }
    }

    /// A process answers all the reads that it has with a user of that version, or with none.
    fn answer_reads_with(&mut self, place: u16, version: Option<Version>) {
        for message in self.take(place, |message| matches!(message, ToProcess::ReadBatch(_))) {
            let ToProcess::ReadBatch(batch) = message else { unreachable!("only reads were taken") };
            let user = || RawValue::from_string("{}".to_owned()).expect("valid JSON");
            let ids = batch.primary.iter().chain(&batch.replica);
            let results = ids.map(|_| version.map(|version| Found(version, user()))).collect();
            self.message(place, ToGateway::ReadAnswers(ReadAnswers { batch: batch.batch, results }));
        }
    }

    /// A leader refuses all the writes that it has.
    fn refuse_writes(&mut self, place: u16, role: Role) {
        for message in self.take(place, |message| matches!(message, ToProcess::WriteBatch(_))) {
            let ToProcess::WriteBatch(batch) = message else { unreachable!("only writes were taken") };
            let refused = WriteAnswer { outcome: Outcome::Exists, sequence: 0, user: None };
            let results = vec![refused; batch.writes.len()];
            self.message(
                place,
                ToGateway::WriteAnswers(WriteAnswers { batch: batch.batch, role, lsn: 0, results }),
            );
        }
    }

    /// A leader applies all the writes that it has, and answers them. Returns their versions.
    fn apply_writes(&mut self, place: u16, role: Role) -> Vec<Version> {
        let mut versions = Vec::new();
        for message in
            self.take(place, |message| matches!(message, ToProcess::WriteBatch(batch) if batch.role == role))
        {
            let ToProcess::WriteBatch(batch) = message else { unreachable!("only writes were taken") };
            let copy = self.processes[usize::from(place)].copies.get_mut(role);
            copy.flushed += 1;
            let (head, lsn) = (&mut copy.head, copy.flushed);
            let results = batch
                .writes
                .iter()
                .map(|write| {
                    versions.push(write.version);
                    *head += 1;
                    WriteAnswer { outcome: Outcome::Applied, sequence: *head, user: None }
                })
                .collect();
            let answers = WriteAnswers { batch: batch.batch, role: batch.role, lsn, results };
            self.message(place, ToGateway::WriteAnswers(answers));
        }
        versions
    }

    /// The replica of a partition applies the primary's op-log up to `sequence`.
    fn follow(&mut self, partition: u16, sequence: u64) {
        let place = (usize::from(partition) + 1) % self.processes.len();
        let incarnation = self.processes[usize::from(partition)].copies.primary.incarnation;
        self.has_applied(place as u16, Role::Replica, Position { incarnation, sequence });
    }

    /// The primary of a partition applies the replica's op-log up to `sequence`.
    fn follow_back(&mut self, partition: u16, sequence: u64) {
        let place = (usize::from(partition) + 1) % self.processes.len();
        let incarnation = self.processes[place].copies.replica.incarnation;
        self.has_applied(partition, Role::Primary, Position { incarnation, sequence });
    }

    fn has_applied(&mut self, place: u16, role: Role, position: Position) {
        self.processes[usize::from(place)].copies.get_mut(role).position = Some(position);
        self.message(place, ToGateway::Applied(Applied { role, position }));
    }

    fn follow_all(&mut self) {
        if self.processes.len() > 1 {
            for partition in 0..self.processes.len() as u16 {
                let head = self.processes[usize::from(partition)].copies.primary.head;
                self.follow(partition, head);
                self.follow_back(partition, 0);
            }
        }
    }

    /// The replica at a place confirms the frames of a tail; returns how many writes they had.
    fn confirm_merges(&mut self, place: u16) -> usize {
        let mut changes = 0;
        for message in self.take(place, |message| matches!(message, ToProcess::MergeBatch(_))) {
            let ToProcess::MergeBatch(batch) = message else { unreachable!("only merges were taken") };
            changes += batch.changes.len();
            self.message(place, ToGateway::Merged(Merged { batch: batch.batch, role: batch.role, lsn: 0 }));
        }
        changes
    }

    fn take(&mut self, place: u16, wanted: impl Fn(&ToProcess) -> bool) -> Vec<ToProcess> {
        let (taken, rest) = std::mem::take(&mut self.inbox)
            .into_iter()
            .partition(|(to, message)| *to == place && wanted(message));
        self.inbox = rest;
        let taken: Vec<(u16, ToProcess)> = taken;
        taken.into_iter().map(|(_, message)| message).collect()
    }

    fn last_notice(&self, place: u16) -> &protocol::message::link::RingNotice {
        let notices = self.inbox.iter().rev().filter(|(to, _)| *to == place);
        notices
            .filter_map(|(_, message)| match message {
                ToProcess::RingNotice(notice) => Some(notice),
                _ => None,
            })
            .next()
            .expect("a notice")
    }

    fn read_result(&self, request: RequestId) -> Option<&Result<Option<Found>, Unserved>> {
        let mut results = self.reads.iter().filter(|(answered, _)| *answered == request);
        let result = results.next();
        assert!(results.next().is_none(), "a question is answered once");
        result.map(|(_, result)| result)
    }

    fn write_result(&self, request: RequestId) -> Option<&Result<WriteAnswer, Unserved>> {
        let mut results = self.writes.iter().filter(|(answered, _)| *answered == request);
        let result = results.next();
        assert!(results.next().is_none(), "a question is answered once");
        result.map(|(_, result)| result)
    }
}

/// A user of a partition, and others of it with higher `nth`.
fn user_of(partition: u16, size: u16, nth: usize) -> UserId {
    (2_u128..)
        .step_by(2)
        .map(UserId::from_u128)
        .filter(|id| protocol::placement::partition_of(id, size) == partition)
        .nth(nth)
        .expect("there are many users")
}
