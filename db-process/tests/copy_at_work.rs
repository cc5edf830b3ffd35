//! A copy at work on a real database: the thread, group commit, following, full copies, and the end of trust.

use std::ops::Deref;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use db_process::copy::FollowStart;
use db_process::copy::follow::start_for;
use db_process::store::{BlockCache, ReadOnlyStore, RocksStore, Snapshot, StoreError};
use db_process::worker::{self, CopyFailure, CopyHandle, CopyState, Job};
use protocol::message::link::{Found, Position, Role, Versioned, Write, WriteAnswer};
use protocol::message::query::{Damage, DigestQuery, TombstoneQuery};
use protocol::message::replication::{CopyChunk, Follow, LogBatch};
use protocol::message::{MAX_BATCH, REVISION};
use protocol::{Change, Operation, Outcome, Record, UserId, Version};
use tempfile::TempDir;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use uuid::Uuid;

/// Longer than anything here takes on the slowest machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// A copy in a folder of its own.
struct Fixture {
    folder: TempDir,
    copy: AtWork,
    failures: UnboundedReceiver<CopyFailure>,
}

/// Stopped when it is dropped: a database must not be at work any more when the program ends.
struct AtWork(CopyHandle);

impl Deref for AtWork {
    type Target = CopyHandle;

    fn deref(&self) -> &CopyHandle {
        &self.0
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Fixture {
    fn new() -> Self {
        Self::open(tempfile::tempdir().expect("a temporary folder"))
    }

    fn open(folder: TempDir) -> Self {
        let store =
            RocksStore::open(&folder.path().join("primary"), &BlockCache::default()).expect("a database");
        let (failed, failures) = mpsc::unbounded_channel();
        let mark = folder.path().join("primary.mark");
        let copy = worker::start(Role::Primary, store, &mark, failed).expect("a sound database");
        Self { folder, copy: AtWork(copy), failures }
    }

    fn restart(self) -> Self {
        let Self { folder, copy, .. } = self;
        drop(copy);
        Self::open(folder)
    }

    fn send(&self, writes: Vec<Write>) -> Receiver<Vec<WriteAnswer>> {
        let (answered, answers) = channel();
        self.copy.write(writes, move |answers, _| answered.send(answers).expect("a receiver"));
        answers
    }

    fn write(&self, writes: Vec<Write>) -> Vec<WriteAnswer> {
        self.send(writes).recv_timeout(DEADLINE).expect("an answer")
    }

    async fn wait_for(&self, what: &str, holds: impl FnMut(&CopyState) -> bool) -> CopyState {
        let mut state = self.copy.state();
        let waited = tokio::time::timeout(DEADLINE, state.wait_for(holds)).await;
        *waited.unwrap_or_else(|_| panic!("{what} does not happen")).expect("a copy that works")
    }

    fn log(&self, after: u64) -> LogBatch {
        let entries =
            self.copy.log_after(after).expect("a sound database").expect("an op-log that reaches back");
        LogBatch { incarnation: self.copy.report().incarnation, lsn: 1, entries }
    }

    fn merge_chunk(&self, chunk: CopyChunk) {
        let (merged, done) = channel();
        self.copy.merge_chunk(chunk, move || merged.send(()).expect("a receiver"));
        done.recv_timeout(DEADLINE).expect("the chunk is merged");
    }

    /// Everything in the database, as a tool sees it.
    fn records(&self) -> Vec<(UserId, Record)> {
        let store = ReadOnlyStore::open(&self.folder.path().join("primary")).expect("a database");
        let snapshot = store.snapshot().expect("a sound database");
        snapshot.records().map(|record| record.expect("a sound database")).collect()
    }
}

fn id(n: u64) -> UserId {
    Uuid::from_u128(u128::from(n))
}

fn create(version: u64) -> Write {
    let change = Change {
        alive: Some(true),
        name: Some(format!("name {version}")),
        email: Some(format!("{version}@example.org")),
        group: Some(7),
        ..Change::default()
    };
    Write {
        version: Version(version),
        id: id(version),
        operation: Operation::Create(change),
        condition: None,
        omit_user: false,
    }
}

fn delete(version: u64, user: u64) -> Write {
    let operation = Operation::Delete;
    Write { version: Version(version), id: id(user), operation, condition: None, omit_user: false }
}

fn text(found: Option<Found>) -> Option<(u64, String)> {
    found.map(|Found(version, user)| (version.0, user.get().to_owned()))
}

#[test]
fn what_was_answered_is_read_at_once_and_after_a_restart() {
    let fixture = Fixture::new();
    let answers = fixture.write(vec![create(1), create(2), create(1), delete(4, 2)]);
    let outcomes: Vec<_> = answers.iter().map(|answer| (answer.outcome, answer.sequence)).collect();
    let expected =
        [(Outcome::Applied, 1), (Outcome::Applied, 2), (Outcome::Applied, 1), (Outcome::Applied, 3)];
    assert_eq!(outcomes, expected, "the third repeats the first");

    let user =
        r#"{"id":"00000000-0000-0000-0000-000000000001","name":"name 1","email":"1@example.org","group":7}"#;
    let before = fixture.copy.report();
    assert_eq!((before.head, before.version), (3, Version(4)), "the state is there before the answer");
    let check = |fixture: &Fixture| {
        let read = |n| text(fixture.copy.read(&id(n)).expect("a sound database"));
        assert_eq!(read(1), Some((1, user.to_owned())));
        assert_eq!((read(2), read(3)), (None, None), "neither the deleted nor the unknown");
        assert_eq!(fixture.copy.report(), before);
    };
    check(&fixture);
    let fixture = fixture.restart();
    check(&fixture);
    let again = fixture.write(vec![create(1)]);
    assert_eq!((again[0].outcome, again[0].sequence), (Outcome::Applied, 1), "it is remembered");
}

/// A gateway that starts gives no version below it, or the write that is queued would undo a later one.
#[test]
fn the_report_tells_of_versions_that_are_still_queued() {
    let fixture = Fixture::new();
    let answers = fixture.send((1..=500).map(create).collect());
    let queued = fixture.copy.report();
    assert_eq!(queued.version, Version(500), "while {} of 500 are written", queued.head);
    answers.recv_timeout(DEADLINE).expect("an answer");
    assert_eq!((fixture.copy.report().head, fixture.copy.report().version), (500, Version(500)));
    let merged = Versioned { version: Version(900), id: id(1), change: create(900).operation.into_change() };
    fixture.copy.merge(vec![merged], None, |_| ());
    assert_eq!(fixture.copy.report().version, Version(900));
}

#[test]
fn a_hundred_creates_of_one_user_make_one() {
    let fixture = Fixture::new();
    let waiting: Vec<_> =
        (1..=100).map(|version| fixture.send(vec![Write { id: id(1), ..create(version) }])).collect();
    let answers =
        waiting.iter().map(|answers| answers.recv_timeout(DEADLINE).expect("an answer").remove(0).outcome);
    let answers: Vec<_> = answers.collect();
    assert_eq!(answers[0], Outcome::Applied);
    assert!(answers[1..].iter().all(|outcome| *outcome == Outcome::Exists));
}

#[tokio::test]
async fn a_copy_follows_another_and_has_it_on_disk_soon_after() {
    let (source, follower) = (Fixture::new(), Fixture::new());
    source.copy.send(Job::CountAsComplete);
    source.wait_for("completeness", |state| state.report.complete).await;
    let (send, mut chunks) = mpsc::channel(1);
    source.copy.full_copy(|chunk| chunk, send);
    let only = chunks.recv().await.expect("a chunk");
    assert_eq!((only.records.len(), chunks.recv().await.is_none()), (0, true));
    let end = only.end;
    follower.merge_chunk(only);
    let report = follower.copy.report();
    assert_eq!((report.complete, report.position), (true, end));

    let total = MAX_BATCH as u64 + 10;
    source.write((1..=total).map(create).collect());
    let batches = [source.log(0), source.log(MAX_BATCH as u64), source.log(total)];
    assert_eq!(batches.each_ref().map(|batch| batch.entries.len()), [MAX_BATCH, 10, 0]);
    let [first, second, _] = batches;
    follower.copy.apply(second.clone());
    let state = follower.wait_for("the gap", |state| state.gaps == 1).await;
    assert_eq!(state.report.position, end, "entries that do not join on move nothing");
    follower.copy.apply(first);
    follower.copy.apply(second);
    let end = Some(Position { incarnation: source.copy.report().incarnation, sequence: total });
    let state = follower.wait_for("catching up", |state| state.report.position == end).await;
    assert_eq!(state.gaps, 1);
    follower.wait_for("the fsync that no job needs", |state| state.durable == total).await;
    assert_eq!(follower.records(), source.records());

    let ask = |position| Follow {
        revision: REVISION,
        ring: Uuid::nil(),
        instance: "db-1".parse().expect("a name"),
        role: Role::Primary,
        incarnation: follower.copy.report().incarnation,
        position,
        flushed: follower.copy.report().flushed,
        other: None,
    };
    let meta = source.copy.meta().expect("a sound database");
    assert_eq!(start_for(&meta, &ask(end)), FollowStart::Log { after: total });
    assert_eq!(start_for(&meta, &ask(None)), FollowStart::FullCopy);
}

#[tokio::test]
async fn a_full_copy_comes_in_chunks_and_merges() {
    let (source, target) = (Fixture::new(), Fixture::new());
    for batch in 0..40 {
        source.write((1..=500).map(|n| create(batch * 500 + n)).collect());
    }
    let (send, mut chunks) = mpsc::channel(1);
    source.copy.full_copy(|chunk| chunk, send);
    let mut count = 0;
    while let Some(chunk) = chunks.recv().await {
        assert_eq!((chunk.chunk, target.copy.report().complete), (count, false));
        count += 1;
        target.merge_chunk(chunk);
    }
    assert!(count > 3, "{count} chunks");
    let report = target.copy.report();
    assert_eq!((report.complete, report.version), (true, Version(20_000)));
    assert_eq!(target.records(), source.records());

    let (send, mut chunks) = mpsc::channel(1);
    source.copy.full_copy(|chunk| chunk, send.clone());
    chunks.recv().await.expect("a chunk");
    drop(chunks);
    tokio::time::timeout(DEADLINE, send.closed()).await.expect("it ends without a receiver");
}

#[tokio::test]
async fn merged_changes_are_there_when_that_is_confirmed() {
    let fixture = Fixture::new();
    let changes = (1..=3).map(|version| {
        let Write { id, operation, .. } = create(version);
        Versioned { version: Version(version), id, change: operation.change() }
    });
    let (merged, done) = channel();
    fixture.copy.merge(changes.collect(), None, move |_| merged.send(()).expect("a receiver"));
    done.recv_timeout(DEADLINE).expect("the changes are merged");
    assert!(fixture.copy.read(&id(3)).expect("a sound database").is_some());
    assert_eq!((fixture.copy.report().head, fixture.copy.report().version), (0, Version(3)));
}

/// A record that cannot be read ends the trust in the whole copy: once, loudly, and for good.
#[tokio::test]
async fn a_copy_whose_database_fails_never_answers_again() {
    for writing in [true, false] {
        let fixture = Fixture::new();
        fixture.write(vec![create(1), create(2)]);
        fixture.copy.stop();
        let Fixture { folder, copy, .. } = fixture;
        drop(copy);
        let families = ["records", "oplog", "meta", "by_group", "by_email"];
        let raw = rocksdb::DB::open_cf(&rocksdb::Options::default(), folder.path().join("primary"), families)
            .expect("a database");
        let records = raw.cf_handle("records").expect("a column family");
        raw.put_cf(records, id(1).as_bytes(), b"not a record").expect("a working disk");
        drop(raw);

        let mut fixture = Fixture::open(folder);
        let scan = DigestQuery { query: 1, role: Role::Primary, scan: true };
        let scanned = fixture.copy.digests(&scan).expect("an answer");
        assert!(matches!(scanned.damage.as_slice(), [Damage::Unreadable(_)]), "{:?}", scanned.damage);
        let old = TombstoneQuery { query: 1, role: Role::Primary, after: None, upto: Version(u64::MAX) };
        assert_eq!(fixture.copy.tombstones(&old).expect("an answer").tombstones, []);
        let read = fixture.copy.read(&id(2)).expect("a sound record");
        assert!(read.is_some(), "neither a scan nor a look for tombstones ends the trust");
        let refused = if writing {
            let promised = fixture.send(vec![create(3), delete(4, 1)]);
            promised.recv_timeout(DEADLINE).is_err()
        } else {
            matches!(fixture.copy.read(&id(1)), Err(StoreError::Unreadable { .. }))
        };
        assert!(refused);
        let failure =
            tokio::time::timeout(DEADLINE, fixture.failures.recv()).await.expect("a failure is reported");
        let failure = failure.expect("a failure");
        assert!(matches!(failure.error, StoreError::Unreadable { .. }), "{failure:?}");
        assert_eq!(failure.role, Role::Primary);

        assert_eq!(fixture.copy.read(&id(2)).err(), Some(StoreError::Poisoned));
        assert_eq!(fixture.copy.log_after(0), Err(StoreError::Poisoned));
        assert!(
            fixture.send(vec![create(5)]).recv_timeout(DEADLINE).is_err(),
            "no answer, and the promise is dropped"
        );
        fixture.copy.stop();
        assert!(fixture.failures.try_recv().is_err(), "it is reported once");
        let head = ReadOnlyStore::open(&fixture.folder.path().join("primary"))
            .expect("a database")
            .snapshot()
            .expect("a state")
            .meta()
            .head;
        assert_eq!(head, 2, "nothing of the failed round was written");
    }
}
