//! Two copies that follow each other under random writes, duplicates, delays, lost links, crashes and emptied
//! disks: what was answered is never lost, what comes again is answered alike, and in the end both are equal.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

use protocol::message::REVISION;
use protocol::message::link::{Position, Role, Write, WriteAnswer};
use protocol::message::query::TombstoneQuery;
use protocol::message::replication::{CopyChunk, Follow, LogBatch};
use protocol::{Change, Condition, Operation, Outcome, Record, UserId, Version};
use uuid::Uuid;

use crate::copy::asking::tombstones;
use crate::copy::audit::audit;
use crate::copy::follow::{full_copy, start_for};
use crate::copy::{Copy, FollowError, FollowStart, Limits};
use crate::store::tests::random::{Random, seeds};
use crate::store::{MemoryStore, Snapshot, Store};

const LIMITS: Limits = Limits { recent: 60, log: 120, trim: 7 };
const USERS: u64 = 12;

/// What travels from one copy to the other.
enum Frame {
    Log(LogBatch),
    Chunk(CopyChunk),
}

/// Two copies, and the two links on which each follows the other.
struct Pair {
    random: Random,
    copies: [Option<Copy<MemoryStore>>; 2],
    /// On the way to each copy, in order. Chunks that are left when a connection ends are never delivered.
    links: [VecDeque<Frame>; 2],
    /// Entries that were overtaken, and may come at any time or never.
    late: [Vec<LogBatch>; 2],
    /// What each copy has been sent of the other's op-log; `None` where it has not asked yet.
    sent: [Option<u64>; 2],
    /// Incarnations made so far.
    made: u128,
    version: u64,
    /// Accepted writes, with where and what was answered.
    accepted: Vec<(usize, Write, WriteAnswer)>,
    /// Up to which version users were purged.
    purged: BTreeMap<UserId, Version>,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let mut pair = Self {
            random: Random::new(seed),
            copies: [None, None],
            links: [VecDeque::new(), VecDeque::new()],
            late: [Vec::new(), Vec::new()],
            sent: [None, None],
            made: 0,
            version: 0,
            accepted: Vec::new(),
            purged: BTreeMap::new(),
        };
        for place in 0..2 {
            let mut copy = pair.empty_copy();
            copy.count_as_complete();
            copy.commit().expect("memory");
            pair.copies[place] = Some(copy);
        }
        pair
    }

    fn empty_copy(&mut self) -> Copy<MemoryStore> {
        self.made += 1;
        Copy::open(MemoryStore::new(Uuid::from_u128(self.made)), LIMITS).expect("memory")
    }

    fn copy(&mut self, place: usize) -> &mut Copy<MemoryStore> {
        self.copies[place].as_mut().expect("both are there between two steps")
    }

    fn step(&mut self) {
        let place = self.random.below(2) as usize;
        match self.random.below(100) {
            0..=34 => self.write(place),
            35..=39 => self.write_again(place),
            40..=86 => self.exchange(place),
            87..=89 => self.deliver_late(place),
            90..=93 => self.copy(place).sync().expect("memory"),
            94..=97 => self.disconnect(place),
            98 => self.crash(place),
            _ if self.random.one_in(3) => self.purge(place),
            _ if self.random.one_in(4) => self.lose_disk(place),
            _ => {}
        }
        self.check_derived();
    }

    /// After every batch, and after every crash: what is stored beside the records is what follows from them,
    /// and the op-log has all that it vouches for.
    fn check_derived(&self) {
        for (place, copy) in self.copies.iter().enumerate() {
            let copy = copy.as_ref().expect("there");
            let snapshot = copy.store().snapshot().expect("memory");
            assert_eq!(audit(&snapshot), [], "place {place}");
            let meta = snapshot.meta();
            assert_eq!(snapshot.digests().expect("memory"), copy.digests);
            let log: Vec<Version> =
                snapshot.log(meta.trimmed).map(|entry| entry.expect("memory").version).collect();
            let here = self.accepted.iter().filter(|(at, ..)| *at == place);
            let vouched = |version: &Version| meta.complete && *version > meta.floor;
            for version in here.map(|(_, write, _)| write.version).filter(vouched) {
                assert!(log.contains(&version), "{version} is above the floor, and not in the op-log");
            }
        }
    }

    /// A batch of writes, decided by one copy.
    fn write(&mut self, place: usize) {
        if !self.copy(place).meta().complete {
            return;
        }
        let writes: Vec<Write> = (0..=self.random.below(4)).map(|_| self.random_write()).collect();
        let copy = self.copy(place);
        let before = copy.meta().head;
        let answers = copy.write(writes.clone()).expect("memory");
        copy.commit().expect("memory");
        assert!(!copy.unsynced(), "what is answered is on disk");
        let accepted = writes.into_iter().zip(answers).map(|(write, answer)| (place, write, answer));
        let accepted: Vec<_> = accepted.filter(|(.., answer)| answer.outcome == Outcome::Applied).collect();
        let mut numbered = accepted.iter().zip(before + 1..);
        assert!(numbered.all(|((.., answer), expected)| answer.sequence == expected));
        self.accepted.extend(accepted);
    }

    fn random_write(&mut self) -> Write {
        self.version += 1 + self.random.below(3);
        let version = self.version;
        let operation = match self.random.below(6) {
            0 | 1 => Operation::Create(Change {
                alive: Some(true),
                name: Some(format!("n{version}")),
                email: Some(format!("e{version}")),
                group: Some((version % 4) as i32 - 1),
                ..Change::default()
            }),
            2 => Operation::Update(Change { name: Some(format!("n{version}")), ..Change::default() }),
            3 => Operation::Update(Change { email: Some(format!("E{}", version % 40)), ..Change::default() }),
            4 => Operation::Update(Change { group: Some((version % 5) as i32 - 2), ..Change::default() }),
            _ => Operation::Delete,
        };
        let condition = self.random.one_in(9).then_some(Condition::Any);
        let id = Uuid::from_u128(u128::from(self.random.below(USERS)));
        Write { version: Version(version), id, operation, condition, omit_user: false }
    }

    /// An accepted operation comes again: to the copy that decided it, or to the other one if that has it.
    fn write_again(&mut self, place: usize) {
        let lately = self.accepted.len().min(10) as u64;
        if lately == 0 {
            return;
        }
        let (_, write, first) =
            self.accepted[self.accepted.len() - 1 - self.random.below(lately) as usize].clone();
        if self.purged.get(&write.id).is_some_and(|upto| write.version <= *upto) {
            return;
        }
        let copy = self.copy(place);
        let Some(known) = copy.recent.get(write.version).cloned() else {
            return;
        };
        let head = copy.meta().head;
        let again = copy.write(vec![write]).expect("memory").remove(0);
        copy.commit().expect("memory");
        assert_eq!((again.outcome, copy.meta().head), (Outcome::Applied, head), "it is not decided twice");
        assert!(!copy.unsynced());
        assert_eq!(again.sequence, known.sequence.unwrap_or(head));
        let user =
            |answer: &WriteAnswer| answer.user.as_ref().map(|found| (found.0, found.1.get().to_owned()));
        let version = |answer: &WriteAnswer| answer.user.as_ref().map(|found| found.0);
        assert!(version(&again) >= version(&first), "it shows what there was at one time, not before it");
        if known.sequence.is_some() && known.left.is_some() {
            assert_eq!(user(&again), user(&first));
        }
    }

    /// One copy asks, is sent something, or takes what was sent.
    fn exchange(&mut self, to: usize) {
        let from = 1 - to;
        if self.sent[to].is_none() {
            self.connect(to);
        } else if self.links[to].is_empty() || (self.links[to].len() < 2 && self.random.one_in(2)) {
            let after = self.sent[to].expect("it has asked");
            let limit = 1 + self.random.below(9) as usize;
            let source = self.copy(from);
            let incarnation = source.meta().incarnation;
            match source.store().log_after(after, limit).expect("memory") {
                None => self.disconnect(to),
                Some(entries) => {
                    self.sent[to] = Some(after + entries.len() as u64);
                    self.links[to].push_back(Frame::Log(LogBatch { incarnation, lsn: 0, entries }));
                }
            }
        } else if let Some(frame) = self.links[to].pop_front() {
            if let Frame::Log(batch) = &frame
                && self.random.one_in(20)
            {
                self.late[to].push(batch.clone());
                return;
            }
            self.deliver(to, &frame);
            if self.random.one_in(5) {
                self.deliver(to, &frame);
            }
            let target = self.copy(to).meta().position.filter(|_| self.sent[to].is_some());
            let durable = self.copy(to).durable();
            if target.is_some_and(|target| {
                target.incarnation == self.copies[from].as_ref().expect("there").meta().incarnation
            }) {
                self.copy(from).confirm(durable, None);
                self.copy(from).commit().expect("memory");
            }
        }
    }

    fn connect(&mut self, to: usize) {
        let from = 1 - to;
        let meta = *self.copy(to).meta();
        let source = self.copies[from].as_ref().expect("there");
        if !source.meta().complete {
            return;
        }
        let follow = Follow {
            revision: REVISION,
            ring: Uuid::nil(),
            instance: "db-0".parse().expect("a name"),
            role: Role::Primary,
            incarnation: meta.incarnation,
            position: meta.position,
            flushed: meta.lsn,
            other: meta.other,
        };
        let (source, link) = (source.meta(), &mut self.links[to]);
        link.clear();
        let after = match start_for(source, &follow) {
            FollowStart::Log { after } => after,
            FollowStart::Adopt { end } => {
                link.push_back(Frame::Chunk(CopyChunk { end: Some(end), ..CopyChunk::default() }));
                end.sequence
            }
            FollowStart::FullCopy => {
                let copy = self.copies[from].as_mut().expect("there");
                copy.sync().expect("memory");
                full_copy(&copy.store().snapshot().expect("memory"), LIMITS.recent, |chunk| {
                    link.push_back(Frame::Chunk(chunk));
                    ControlFlow::Continue(())
                })
                .expect("memory");
                copy.meta().head
            }
        };
        self.sent[to] = Some(after);
    }

    fn deliver(&mut self, to: usize, frame: &Frame) {
        let copy = self.copy(to);
        let applied = match frame {
            Frame::Log(batch) => copy.apply(batch.clone()),
            Frame::Chunk(chunk) => copy.merge_chunk(chunk.clone()).map_err(FollowError::from),
        };
        copy.commit().expect("memory");
        match applied {
            Ok(()) => {}
            Err(FollowError::Gap(_)) => self.disconnect(to),
            Err(FollowError::Store(error)) => panic!("memory does not fail: {error}"),
        }
    }

    fn deliver_late(&mut self, to: usize) {
        let count = self.late[to].len() as u64;
        if count > 0 {
            let batch = self.late[to].swap_remove(self.random.below(count) as usize);
            self.deliver(to, &Frame::Log(batch));
        }
    }

    /// Some tombstones go, when each copy has all of the other and nothing is on its way.
    fn purge(&mut self, place: usize) {
        self.quiesce();
        self.disconnect(0);
        self.disconnect(1);
        let upto = Version(self.random.below(self.version + 1));
        let query = TombstoneQuery { query: 0, role: Role::Primary, after: None, upto };
        let found = tombstones(&self.copy(place).store().snapshot().expect("memory"), &query);
        let writes: Vec<Write> = found
            .expect("memory")
            .tombstones
            .into_iter()
            .map(|(id, of)| {
                self.version += 1;
                let upto = self.purged.entry(id).or_default();
                *upto = of.max(*upto);
                let operation = Operation::Purge(of);
                Write { version: Version(self.version), id, operation, condition: None, omit_user: true }
            })
            .collect();
        let copy = self.copy(place);
        let answers = copy.write(writes.clone()).expect("memory");
        copy.commit().expect("memory");
        assert!(answers.iter().all(|answer| answer.outcome == Outcome::Applied));
        for write in &writes {
            assert_eq!(self.copy(place).store().get(&write.id), Ok(None));
        }
        self.accepted.extend(writes.into_iter().zip(answers).map(|(write, answer)| (place, write, answer)));
    }

    fn disconnect(&mut self, to: usize) {
        self.links[to].clear();
        self.sent[to] = None;
    }

    /// A power cut: of what was not on disk a part is gone.
    fn crash(&mut self, place: usize) {
        let store = self.copies[place].take().expect("there").into_store();
        let survivors = self.random.below(store.unsynced() as u64 + 1) as usize;
        self.copies[place] = Some(Copy::open(store.crash(survivors), LIMITS).expect("memory"));
        self.disconnect(0);
        self.disconnect(1);
    }

    /// The disk of one copy is lost, at a moment when the other one has all that it held on its own.
    fn lose_disk(&mut self, place: usize) {
        self.quiesce();
        self.copy(1 - place).sync().expect("memory");
        self.copies[place] = Some(self.empty_copy());
        self.disconnect(0);
        self.disconnect(1);
    }

    /// Lets both follow until neither lacks anything.
    fn quiesce(&mut self) {
        for attempt in 0..10_000 {
            if self.equal_heads() {
                return;
            }
            // Nothing shows that the last entries are lost, so ask again now and then.
            if attempt % 200 == 0 {
                self.disconnect(0);
                self.disconnect(1);
            }
            self.exchange(0);
            self.exchange(1);
        }
        panic!(
            "the copies do not catch up: {:?}",
            self.copies.iter().flatten().map(Copy::meta).collect::<Vec<_>>()
        );
    }

    fn equal_heads(&mut self) -> bool {
        let [first, second] = [0, 1].map(|place| *self.copy(place).meta());
        let head =
            |meta: crate::store::Meta| Some(Position { incarnation: meta.incarnation, sequence: meta.head });
        first.position == head(second) && second.position == head(first)
    }

    fn records(&mut self, place: usize) -> Vec<(UserId, Record)> {
        let snapshot = self.copy(place).store().snapshot().expect("memory");
        snapshot.records().map(|record| record.expect("memory")).collect()
    }

    fn check(&mut self) {
        let [first, second] = [0, 1].map(|place| self.records(place));
        assert_eq!(first, second, "two copies that exchanged everything are equal");
        let [one, other] = [0, 1].map(|place| self.copies[place].as_ref().expect("there"));
        assert_eq!(one.digests, other.digests);
        let numbers = [one, other].map(|copy| (copy.meta().users, copy.meta().records));
        assert_eq!(numbers[0], numbers[1]);
        for (at, write, _) in &self.accepted {
            let foreign = [other, one][*at].meta().foreign;
            assert!(foreign >= write.version, "{} came from elsewhere", write.version);
            let change = write.operation.change();
            let gone = self.purged.get(&write.id).is_some_and(|upto| write.version <= *upto);
            if gone || change.purge.is_some() {
                continue;
            }
            let (_, record) = first.iter().find(|(id, _)| *id == write.id).expect("a user that was written");
            let kept = |set: bool, register: Version| !set || register >= write.version;
            let all = kept(change.alive.is_some(), record.alive.0)
                && kept(change.name.is_some(), record.name.0)
                && kept(change.email.is_some(), record.email.0)
                && kept(change.group.is_some(), record.group.0);
            assert!(all, "{write:?} was accepted, and is not in {record:?}");
        }
    }
}

#[test]
fn copies_that_follow_each_other_end_equal_and_lose_nothing() {
    let mut accepted = 0;
    for seed in seeds(60) {
        println!("CORRO_SEED={seed}");
        let mut pair = Pair::new(seed);
        for _ in 0..3 {
            for _ in 0..500 {
                pair.step();
            }
            pair.quiesce();
            pair.check();
        }
        accepted += pair.accepted.len();
    }
    assert!(accepted > 100, "{accepted} writes were accepted");
}
