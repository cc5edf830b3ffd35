//! What must be true. Each check names the promise that it is about.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use db_process::copy::audit::audit;
use db_process::store::{Digests, MemoryStore, Snapshot, Store};
use gateway::engine::Unserved;
use protocol::message::link::{Role, ToProcess, Versioned, Write, WriteAnswer, WriteAnswers};
use protocol::message::replication::LogEntry;
use protocol::placement::{Partition, partition_of, primary_of, replica_of};
use protocol::{Change, Operation, Outcome, Record, UserId, Version};

use crate::config::{Config, Fault, Mode};
use crate::feed::Feed;
use crate::history::{Asked, Op, is_linearizable};
use crate::world::{MILLI, SECOND, Time, World};

const SOUND: &str = "a store in memory can be read";

/// No read takes longer, whatever goes wrong with one process at a time. A process counts as lost only much
/// later.
const READ_WITHIN: Time = 100 * MILLI;

/// No request waits for a process that has been slow for this time.
const SLOW_AT_MOST: Time = 10 * SECOND;

/// Later requests wait no longer than this, although that process is slow.
const ANSWER_WITHIN: Time = 500 * MILLI;

/// A question that has no answer yet.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) client: usize,
    pub(crate) user: UserId,
    pub(crate) asked: Time,
    pub(crate) op: Op,
}

/// What is remembered in order to check.
#[derive(Debug)]
pub(crate) struct Checks {
    pub(crate) asked: u64,
    pub(crate) refused: u64,
    /// The longest that a read took where one process fails at a time, and the gateway does not.
    pub(crate) slowest_read: Time,
    /// The same of writes; nothing is promised of them in general.
    pub(crate) slowest_write: Time,
    /// The same of all that is asked when a process has been slow for a while.
    pub(crate) slowest_later: Time,
    pub(crate) open: BTreeMap<u64, Question>,
    pub(crate) histories: BTreeMap<UserId, Vec<Op>>,
    /// Which write of a user a version belongs to, as far as any client saw it.
    pub(crate) group_of: BTreeMap<(UserId, Version), i32>,
    pub(crate) versions_of: BTreeMap<UserId, Vec<Version>>,
    /// Everything acknowledged of a user.
    acknowledged: BTreeMap<UserId, Record>,
    /// Up to which version a leader was asked to forget what there was of a user.
    purged: BTreeMap<UserId, Version>,
    /// Batches of writes that were sent: by connection, role and number.
    sent: BTreeMap<(u64, Role, u64), Vec<Write>>,
    /// The applied writes of the answers that the engine is being given.
    pub(crate) arriving: VecDeque<Option<Versioned>>,
    /// What a copy came to for an operation that it applied. A version is given once in a partition: a
    /// gateway that starts with a clock that was set back serves a partition only when it knows the versions
    /// in it, but perhaps no others.
    decided: BTreeMap<(Partition, Version), Decided>,
    /// Requests by which the operator wants a user to be forgotten.
    pub(crate) wanted: BTreeSet<u64>,
    /// Up to which version each copy has been asked to erase what is out of date, and has.
    pub(crate) erased: BTreeMap<(u16, Role), Version>,
    /// Of the gateway that runs, or ran last.
    pub(crate) feed: Feed,
    size: u16,
}

/// What a copy came to when it applied an operation.
#[derive(Debug)]
struct Decided {
    at: Time,
    user: UserId,
    document: Option<String>,
}

impl Checks {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            asked: 0,
            refused: 0,
            slowest_read: 0,
            slowest_write: 0,
            slowest_later: 0,
            open: BTreeMap::new(),
            histories: BTreeMap::new(),
            group_of: BTreeMap::new(),
            versions_of: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            purged: BTreeMap::new(),
            sent: BTreeMap::new(),
            arriving: VecDeque::new(),
            decided: BTreeMap::new(),
            wanted: BTreeSet::new(),
            erased: BTreeMap::new(),
            feed: Feed::default(),
            size: config.size,
        }
    }

    /// Whether `ours` is a record, or something newer of each of its registers; what is purged need not be
    /// there.
    fn holds(&self, ours: Option<&Record>, user: &UserId, record: &Record) -> bool {
        let mut record = record.clone();
        let purge = Change { purge: self.purged.get(user).copied(), ..Change::default() };
        record.apply(Version::ZERO, &purge);
        record.is_nothing() || ours.is_some_and(|ours| !ours.clone().merge(&record))
    }

    /// Whether no write of the user is acknowledged after which it lives.
    pub(crate) fn is_deleted(&self, user: &UserId) -> bool {
        self.acknowledged.get(user).is_none_or(|record| !record.is_alive())
    }

    fn acknowledged_of(&self, partition: Partition) -> impl Iterator<Item = (&UserId, &Record)> {
        self.acknowledged.iter().filter(move |(id, _)| partition_of(id, self.size) == partition)
    }
}

impl World {
    /// Invariants 1 and 2: a copy that is asked to decide writes holds every acknowledged write of the
    /// partition, on disk.
    pub(crate) fn check_sent(&mut self, id: u64, message: &ToProcess) {
        let ToProcess::WriteBatch(batch) = message else { return };
        self.checks.sent.insert((id, batch.role, batch.batch), batch.writes.clone());
        for write in &batch.writes {
            if let Operation::Purge(of) = write.operation {
                let upto = self.checks.purged.entry(write.id).or_default();
                *upto = of.max(*upto);
            }
        }
        let connection = &self.connections[&id];
        let process = &self.processes[usize::from(connection.place)];
        if !process.up || process.life != connection.life {
            return;
        }
        let partition = partition_of(&batch.writes[0].id, self.config.size);
        let store = process.store(batch.role);
        for (user, record) in self.checks.acknowledged_of(partition) {
            assert!(
                self.checks.holds(store.synced_record(user), user, record),
                "the {:?} of {} leads without an acknowledged write of user {} on disk: has {:?}, \
                 acknowledged {record:?}",
                batch.role,
                connection.place,
                user.as_u128(),
                store.get(user),
            );
        }
    }

    /// The engine is given these outcomes; for each that it passes on, a write is acknowledged.
    pub(crate) fn expect_answers(&mut self, id: u64, answers: &WriteAnswers) {
        let writes = self.checks.sent.get(&(id, answers.role, answers.batch)).cloned().unwrap_or_default();
        let applied = writes.into_iter().zip(&answers.results).map(|(write, answer)| {
            let Write { version, id, operation, .. } = write;
            let change = operation.into_change();
            (answer.outcome == Outcome::Applied).then_some(Versioned { version, id, change })
        });
        self.checks.arriving = applied.collect();
    }

    /// A write is answered. Returns its version, if it was applied.
    pub(crate) fn acknowledged(&mut self, user: UserId, answer: &WriteAnswer) -> Option<Version> {
        let written = self.checks.arriving.pop_front().expect("an answer comes from a copy");
        let Some(Versioned { version, id, change }) = written else {
            assert_ne!(answer.outcome, Outcome::Applied, "no copy applied that");
            return None;
        };
        assert_eq!((id, answer.outcome), (user, Outcome::Applied), "answers are in the order of the writes");
        self.checks.feed.acknowledge(Versioned { version, id, change: change.clone() });
        match self.checks.acknowledged.get_mut(&id) {
            Some(record) => drop(record.apply(version, &change)),
            None => drop(self.checks.acknowledged.insert(id, Record::from_change(version, &change))),
        }
        Some(version)
    }

    /// The engine has had a tombstone purged, or not.
    pub(crate) fn purged(&mut self, result: &Result<WriteAnswer, Unserved>) {
        if result.is_ok()
            && let Some(Versioned { version, id, change }) =
                self.checks.arriving.pop_front().expect("an answer comes from a copy")
        {
            self.note(|| format!("user {} is forgotten by {version}", id.as_u128()));
            if let Some(record) = self.checks.acknowledged.get_mut(&id) {
                record.apply(version, &change);
            }
        }
    }

    /// Invariant 1: what is answered as applied is on disk. Invariant 4: an operation that is repeated gets
    /// the same answer, as far as the gateway will hear it: a process that was taken for lost may be in the
    /// middle of a full copy.
    pub(crate) fn check_on_disk(
        &mut self,
        place: u16,
        role: Role,
        writes: &[Write],
        answers: &WriteAnswers,
        is_heard: bool,
    ) {
        let process = &self.processes[usize::from(place)];
        let (store, started) = (process.store(role), process.started);
        for (write, answer) in writes.iter().zip(&answers.results) {
            let partition = partition_of(&write.id, self.config.size);
            let document = answer.user.as_ref().map(|found| found.1.get().to_owned());
            let first = self.checks.decided.get(&(partition, write.version));
            if let Some(first) = first.filter(|_| is_heard) {
                assert_eq!(first.user, write.id, "version {} belongs to two users", write.version);
                assert_eq!(
                    answer.outcome,
                    Outcome::Applied,
                    "{place} decides {} of user {} anew",
                    write.version,
                    write.id.as_u128()
                );
                // What it showed is remembered as long as the process runs, by copies that decided it or
                // followed it.
                let remembers = matches!(self.config.mode, Mode::Calm | Mode::Single) && first.at > started;
                if remembers {
                    assert_eq!(
                        document,
                        first.document,
                        "{place} shows {} of user {} otherwise than before",
                        write.version,
                        write.id.as_u128()
                    );
                }
            }
            if answer.outcome != Outcome::Applied {
                continue;
            }
            let written = Record::from_change(write.version, &write.operation.change());
            assert!(
                self.checks.holds(store.synced_record(&write.id), &write.id, &written),
                "{place} answers {} of user {}, which is not on disk",
                write.version,
                write.id.as_u128()
            );
            let decided = Decided { at: self.now, user: write.id, document };
            self.checks.decided.entry((partition, write.version)).or_insert(decided);
        }
    }

    /// Whatever goes wrong with one process, the other copy answers reads long before that counts as lost.
    pub(crate) fn check_time(&mut self, question: &Question) {
        let gateway = |kind: &Fault| matches!(kind, Fault::Gateway | Fault::GatewayPause);
        let single = self.config.mode == Mode::Single && !self.config.kinds.iter().any(gateway);
        if !single || self.faults.cut_off_last || question.asked < self.faults.well_since {
            return;
        }
        let took = self.now - question.asked;
        if let Some(since) = self.faults.slow_since.filter(|since| question.asked > since + SLOW_AT_MOST) {
            let slow = (self.now - since) / MILLI;
            assert!(
                took <= ANSWER_WITHIN,
                "{:?} takes {} ms when a process has been slow for {slow} ms",
                question.op.asked,
                took / MILLI
            );
            self.checks.slowest_later = self.checks.slowest_later.max(took);
        }
        if self.faults.slow_since.is_some() || question.asked < self.faults.slow_until {
            return;
        }
        if question.op.asked != Asked::Read {
            self.checks.slowest_write = self.checks.slowest_write.max(took);
            return;
        }
        assert!(took <= READ_WITHIN, "a read takes {} ms although one process failed at most", took / MILLI);
        self.checks.slowest_read = self.checks.slowest_read.max(took);
    }

    /// Invariant 3, in the end: what all clients saw fits one order.
    pub(crate) fn check_histories(&self) {
        for (user, history) in &self.checks.histories {
            let mut history = history.clone();
            history.extend(
                self.checks.open.values().filter(|open| open.user == *user).map(|open| open.op.clone()),
            );
            if !is_linearizable(&history) {
                history.sort_by_key(|op| op.called);
                let lines: Vec<String> = history.iter().map(|op| format!("{op:?}")).collect();
                panic!("the history of user {} is not linearizable:\n{}", user.as_u128(), lines.join("\n"));
            }
        }
    }

    /// Where the copies of a partition are.
    fn stores_of(&self, partition: u16) -> [(u16, Role); 2] {
        let replica = replica_of(partition, self.config.size).expect("more than one process");
        [(primary_of(partition), Role::Primary), (replica, Role::Replica)]
    }

    fn contents_of(&self, partition: u16) -> [Content; 2] {
        self.stores_of(partition).map(|(place, role)| content(self.processes[usize::from(place)].store(role)))
    }

    /// Whether no purge is still to come that passed one copy by, in a full copy.
    pub(crate) fn is_purged(&self) -> bool {
        let same = |partition| {
            let [primary, replica] = self.contents_of(partition);
            primary == replica
        };
        self.config.purge_after.is_none() || (0..self.config.size).all(same)
    }

    /// Invariant 5, in the end: both copies of each partition are equal, and know it.
    pub(crate) fn check_copies(&self) {
        for partition in 0..self.config.size {
            let stores = self.stores_of(partition);
            let [primary, replica] = self.contents_of(partition);
            assert_eq!(primary, replica, "the copies of partition {partition} differ");
            for (place, role) in stores {
                let store = self.processes[usize::from(place)].store(role);
                let snapshot = store.snapshot().expect("a store in memory can be read");
                assert_eq!(audit(&snapshot), [], "the {role:?} of {place} miscounted");
            }
            let [primary, replica] = stores.map(|(place, role)| self.report_of(place, role));
            for (reader, source) in [(primary, replica), (replica, primary)] {
                let at = reader.position.filter(|at| at.incarnation == source.incarnation);
                let at = at.map_or(0, |at| at.sequence);
                assert_eq!(at, source.head, "the positions of partition {partition} disagree");
            }
            for (user, record) in self.checks.acknowledged_of(partition) {
                let store = self.processes[usize::from(primary_of(partition))].store(Role::Primary);
                let ours = store.get(user).expect("a store in memory can be read");
                assert!(
                    self.checks.holds(ours.as_ref(), user, record),
                    "an acknowledged write of {} is lost",
                    user.as_u128()
                );
            }
        }
    }
}

/// In the end: the op-logs of both copies have what is current, and once all was erased nothing else.
impl World {
    pub(crate) fn check_op_logs(&self) {
        for partition in 0..self.config.size {
            let stores = self.stores_of(partition);
            let stores = stores.map(|(place, role)| self.processes[usize::from(place)].store(role));
            let floor = stores.map(|store| store.meta().expect(SOUND).floor).into_iter().max();
            let records: BTreeMap<UserId, Record> = content(stores[0]).2.into_iter().collect();
            let mut logged = BTreeSet::new();
            for store in stores {
                let snapshot = store.snapshot().expect(SOUND);
                for entry in snapshot.log(snapshot.meta().trimmed) {
                    let LogEntry { version, id, change, .. } = entry.expect(SOUND);
                    let current = registers(records.get(&id));
                    let has = [change.name.is_some(), change.email.is_some(), change.group.is_some()];
                    for (register, (has, at)) in (0..).zip(has.into_iter().zip(current)) {
                        assert!(
                            !has || at == version || self.config.purge_after.is_none(),
                            "{version} of user {} is out of date, and still in the op-log: {change:?}",
                            id.as_u128()
                        );
                        logged.extend(has.then_some((id, register, version)));
                    }
                }
            }
            for (id, record) in &records {
                for (register, at) in (0..).zip(registers(Some(record))) {
                    assert!(
                        Some(at) <= floor || logged.contains(&(*id, register, at)),
                        "{at} of user {} is current, and in no op-log",
                        id.as_u128()
                    );
                }
            }
        }
    }
}

/// The versions of name, email and group.
fn registers(record: Option<&Record>) -> [Version; 3] {
    record.map_or([Version::ZERO; 3], |record| [record.name.0, record.email.0, record.group.0])
}

/// Digests, counts and records of a copy.
type Content = (Box<Digests>, [u64; 2], Vec<(UserId, Record)>);

/// What the gateway compares of two copies, and what it stands for.
fn content(store: &MemoryStore) -> Content {
    let snapshot = store.snapshot().expect("a store in memory can be read");
    let records = snapshot.records().map(|record| record.expect("a store in memory can be read")).collect();
    let digests = snapshot.digests().expect("a store in memory can be read");
    (digests, [snapshot.meta().users, snapshot.meta().records], records)
}
