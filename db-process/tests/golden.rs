//! Data directories of earlier programs are read correctly.
//!
//! `tests/golden/` has one folder for each format: a `DATA_DIR` as a killed process leaves it, with data in
//! tables and in the log, and `expected.txt`, which lists all of its content. Each was written by
//! [`write_a_data_directory`], with the program whose format it has, and is never changed. To write another
//! one, after a change of what is on disk:
//!
//! ```console
//! $ CORRO_GOLDEN=db-process/tests/golden/NAME cargo test --release -p db-process --test golden -- --ignored
//! ```
//!
//! `pages-of-records` has records and digests in pages that are not yet in the column family of the records.

use std::fmt::Write as _;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

use db_process::copy::audit::audit;
use db_process::copy::{Copy, Limits, follow};
use db_process::identity::{DataDir, Membership};
use db_process::store::{BlockCache, IndexKey, Listing, MemoryStore, RocksStore, Snapshot, Store, encoding};
use db_process::worker::{self, CopyHandle};
use protocol::message::link::{Ring, Role, Versioned, View, Write};
use protocol::message::query::{CountQuery, Filter, PageQuery};
use protocol::message::replication::LogBatch;
use protocol::{Change, Operation, Outcome, UserId, Version};
use rocksdb::{DB, DBCompressionType, Options};
use tempfile::TempDir;
use tokio::sync::mpsc::unbounded_channel;
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(30);

/// So few that the op-log is trimmed, and pages of applied operations are dropped.
const LIMITS: Limits = Limits { recent: 64, log: 100, trim: 16 };

/// Users of the first phase. Those of the second one have higher numbers.
const USERS: u64 = 120;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn open(folder: &Path, role: Role) -> RocksStore {
    RocksStore::open(&folder.join(role.as_str()), &BlockCache::default()).expect("a database")
}

/// Ids that are spread over the whole range.
fn id(user: u64) -> UserId {
    Uuid::from_u128(u128::from(user).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

fn group(user: u64) -> i32 {
    (user % 7) as i32 - 3
}

fn email(user: u64) -> String {
    format!("User.{user}@example.org")
}

fn write(version: u64, user: u64, operation: Operation) -> Write {
    Write { version: Version(version), id: id(user), operation, condition: None, omit_user: true }
}

fn create(version: u64, user: u64) -> Write {
    let change = Change {
        alive: Some(true),
        name: Some(format!("User {user}")),
        email: Some(email(user)),
        group: Some(group(user)),
        ..Change::default()
    };
    write(version, user, Operation::Create(change))
}

fn move_to(version: u64, user: u64, group: i32) -> Write {
    write(version, user, Operation::Update(Change { group: Some(group), ..Change::default() }))
}

fn rename(version: u64, user: u64) -> Write {
    let change = Change {
        name: Some(format!("Renamed {user}")),
        email: Some(format!("renamed.{user}@example.org")),
        ..Change::default()
    };
    write(version, user, Operation::Update(change))
}

/// Everything that a store holds, in the encodings of the disk.
fn content(store: &impl Store) -> String {
    let mut text = String::new();
    let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let mut line = |what: &str, rest: String| writeln!(text, "{what} {rest}").expect("a text");
    let snapshot = store.snapshot().expect("a sound database");
    let meta = snapshot.meta();
    line("meta", hex(&encoding::meta(&meta)));
    line("digests", hex(&encoding::digests(&snapshot.digests().expect("a sound database"))));
    for item in snapshot.records() {
        let (id, record) = item.expect("a sound record");
        assert_eq!(store.get(&id).expect("a sound record").as_ref(), Some(&record));
        line("record", format!("{id} {}", hex(&encoding::record(&record))));
    }
    for entry in snapshot.log(meta.trimmed) {
        let entry = entry.expect("a sound entry");
        line("log", format!("{} {}", entry.sequence, hex(&encoding::log_entry(&entry))));
    }
    for page in snapshot.applied() {
        let (page, versions) = page.expect("a sound page");
        line("applied", format!("{page} {}", hex(&encoding::applied(&versions))));
    }
    for item in snapshot.group_counts() {
        let (group, users) = item.expect("a sound number");
        assert_eq!(store.group_count(group), Ok(users));
        assert_eq!(snapshot.listed(Listing::Group(group), None).count() as u64, users);
        line("group", format!("{group} {users}"));
    }
    for place in snapshot.index() {
        match place.expect("a sound index") {
            IndexKey::Group(group, id) => line("by-group", format!("{group} {id}")),
            IndexKey::Email(hash, id) => line("by-email", format!("{hash:016x} {id}")),
        }
    }
    text
}

/// Both copies of a data directory, opened as they are.
fn contents(folder: &Path) -> String {
    let of = |role: Role| format!("{}\n{}", role.as_str(), content(&open(folder, role)));
    Role::ALL.map(of).concat()
}

fn copied(from: &Path) -> TempDir {
    fn copy(from: &Path, to: &Path) {
        for item in fs::read_dir(from).expect("a folder") {
            let item = item.expect("a folder");
            let to = to.join(item.file_name());
            if item.file_type().expect("a file").is_dir() {
                fs::create_dir(&to).expect("a temporary folder");
                copy(&item.path(), &to);
            } else {
                fs::copy(item.path(), to).expect("room on the disk");
            }
        }
    }
    let to = tempfile::tempdir().expect("a temporary folder");
    copy(from, to.path());
    to
}

#[test]
fn data_directories_of_earlier_programs_are_read() {
    let mut names = Vec::new();
    for item in fs::read_dir(golden()).expect("golden directories") {
        let item = item.expect("a folder");
        names.push(item.file_name());
        let folder = copied(&item.path());
        let expected = fs::read_to_string(folder.path().join("expected.txt")).expect("what it holds");
        for start in ["the first start", "a second start"] {
            assert_eq!(contents(folder.path()), expected, "{:?} at {start}", item.file_name());
        }
        let data = DataDir::open(folder.path(), &"db-1".parse().expect("a name")).expect("its own folder");
        assert!(data.identity().membership.as_ref().is_some_and(|kept| kept.ring.formed));
        for role in Role::ALL {
            let store = open(folder.path(), role);
            assert_eq!(audit(&store.snapshot().expect("a database")), [], "{}", role.as_str());
        }
        serves_and_writes(&data);
        for role in Role::ALL {
            let store = open(folder.path(), role);
            assert_eq!(audit(&store.snapshot().expect("a database")), [], "{}", role.as_str());
        }
    }
    assert!(names.iter().any(|name| name == "pages-of-records"), "{names:?}");
}

/// The primary copy is not taken for rolled back, answers questions, and accepts writes, which a restart
/// finds.
fn serves_and_writes(data: &DataDir) {
    let (failed, _failures) = unbounded_channel();
    let start = |role| {
        worker::start(role, open_in(data, role), &data.mark(role), failed.clone()).expect("a sound copy")
    };
    let [primary, replica] = Role::ALL.map(start);
    for copy in [&primary, &replica] {
        assert_eq!((copy.report().rollback, copy.report().complete), (None, true));
    }
    assert!(replica.report().position.is_some_and(|position| position.sequence > 0));

    let found = primary.read(&id(1)).expect("a sound database").expect("a user");
    assert!(found.1.get().contains(r#""email":"renamed.1@example.org""#), "{}", found.1.get());
    assert!(primary.read(&id(3)).expect("a sound database").is_none(), "it was deleted");
    let query =
        PageQuery { query: 1, role: Role::Primary, after: None, limit: 100, filter: Filter::Group(77) };
    let listed: Vec<_> =
        primary.page(&query).expect("a sound database").users.into_iter().map(|user| user.0).collect();
    assert!(listed.contains(&id(USERS + 1)), "a user who came last is listed: {listed:?}");
    let count = |group| {
        let query = CountQuery { query: 1, role: Role::Primary, group };
        primary.count(&query).expect("a sound database").count
    };
    assert_eq!(count(Some(77)), listed.len() as u64);

    let (all, version) = (count(None), primary.report().version.0);
    let (answered, answers) = channel();
    let writes = vec![create(version + 1, 900), move_to(version + 2, USERS + 1, 78)];
    primary.write(writes, move |answers, _| answered.send(answers).expect("it is waited for"));
    let answers = answers.recv_timeout(DEADLINE).expect("an answer");
    assert!(answers.iter().all(|answer| answer.outcome == Outcome::Applied), "{answers:?}");
    assert_eq!((count(None), count(Some(78))), (all + 1, 1));
    [primary, replica].iter().for_each(CopyHandle::stop);
}

fn open_in(data: &DataDir, role: Role) -> RocksStore {
    RocksStore::open(&data.copy(role), &BlockCache::default()).expect("a database")
}

/// Writes a data directory with the format of this program. See the module.
#[test]
#[ignore = "writes a folder that is kept"]
fn write_a_data_directory() {
    let target = PathBuf::from(std::env::var_os("CORRO_GOLDEN").expect("CORRO_GOLDEN names the new folder"));
    assert!(!target.exists(), "{} is there already", target.display());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut data = DataDir::open(folder.path(), &"db-1".parse().expect("a name")).expect("a new folder");
    let ring = Ring { id: Uuid::from_u128(7), size: 3, formed: true };
    data.persist(Membership { ring, view: View::first(3) }).expect("room on the disk");

    write_primary(&data);
    write_replica(&data);

    let expected = contents(copied(folder.path()).path());
    keep(folder.path(), &target);
    fs::write(target.join("expected.txt"), expected).expect("room on the disk");
}

/// The copy as a worker leaves it that is stopped in order: all of it is in tables.
fn stopped_in_order(data: &DataDir, role: Role, copy: Copy<RocksStore>) -> Copy<RocksStore> {
    drop(copy);
    let (failed, _failures) = unbounded_channel();
    let worker = worker::start(role, open_in(data, role), &data.mark(role), failed).expect("a sound copy");
    worker.stop();
    drop(worker);
    compact(&data.copy(role));
    Copy::open(open_in(data, role), LIMITS).expect("a sound database")
}

/// Leaves as little as possible in the tables.
fn compact(database: &Path) {
    let mut options = Options::default();
    options.set_compression_type(DBCompressionType::Lz4);
    let families = DB::list_cf(&options, database).expect("a database");
    let open = families.iter().map(|name| (name.as_str(), options.clone()));
    let db = DB::open_cf_with_opts(&options, database, open).expect("a database");
    for name in &families {
        let family = db.cf_handle(name).expect("a column family");
        db.compact_range_cf(family, None::<&[u8]>, None::<&[u8]>);
    }
}

fn write_primary(data: &DataDir) {
    let mut copy = Copy::open(open_in(data, Role::Primary), LIMITS).expect("an empty database");
    let mut version = 0;
    let mut next = || {
        version += 1;
        version
    };
    copy.count_as_complete();
    let created: Vec<_> = (1..=USERS).map(|user| create(next(), user)).collect();
    run(&mut copy, created);
    // Enough changes of the indexes that they leave their pages: each index gets a table.
    let tables = || {
        let files = fs::read_dir(data.copy(Role::Primary)).expect("a database").flatten();
        files.filter(|file| file.path().extension().is_some_and(|kind| kind == "sst")).count()
    };
    for round in 0..200 {
        let moved = (1..=USERS).map(|user| move_to(next(), user, group(user + round % 2 + 1))).collect();
        run(&mut copy, moved);
        std::thread::sleep(Duration::from_millis(10));
        if tables() >= 2 {
            break;
        }
    }
    assert!(tables() >= 2, "nothing is in the indexes");
    run(&mut copy, vec![rename(next(), 1), rename(next(), 2)]);
    run(&mut copy, [3, 4, 5, 6].map(|user| write(next(), user, Operation::Delete)).to_vec());
    let died = copy.meta().version;
    run(&mut copy, vec![write(next(), 4, Operation::Purge(died)), create(next(), 5)]);
    merge(&mut copy, next(), 200);

    let mut copy = stopped_in_order(data, Role::Primary, copy);
    // What a killed process leaves in the log.
    let late: Vec<_> = (1..=9).map(|user| create(next(), USERS + user)).collect();
    run(&mut copy, late);
    run(&mut copy, (1..=9).map(|user| move_to(next(), USERS + user, 77)).collect());
    run(&mut copy, vec![rename(next(), 1), rename(next(), 8), rename(next(), USERS + 2)]);
    run(&mut copy, [9, USERS + 3].map(|user| write(next(), user, Operation::Delete)).to_vec());
    let died = copy.meta().version;
    run(&mut copy, vec![write(next(), USERS + 3, Operation::Purge(died)), create(next(), 6)]);
    merge(&mut copy, next(), 201);
}

/// A copy that was filled from another one, and then followed it.
fn write_replica(data: &DataDir) {
    let mut source = Copy::open(MemoryStore::new(Uuid::from_u128(8)), LIMITS).expect("memory");
    let mut copy = Copy::open(open_in(data, Role::Replica), LIMITS).expect("an empty database");
    source.count_as_complete();
    run(&mut source, (1..=40).map(|user| create(user, user)).collect());
    let snapshot = source.store().snapshot().expect("memory");
    let mut chunks = Vec::new();
    follow::full_copy(&snapshot, LIMITS.recent, |chunk| {
        chunks.push(chunk);
        ControlFlow::Continue(())
    })
    .expect("memory");
    drop(snapshot);
    for chunk in chunks {
        copy.merge_chunk(chunk).expect("a sound database");
        copy.commit().expect("room on the disk");
    }
    run(&mut source, (1..=20).map(|user| rename(100 + user, user)).collect());
    follow_to_head(&mut copy, &source);
    let mut copy = stopped_in_order(data, Role::Replica, copy);
    run(&mut source, (1..=5).map(|user| write(200 + user, user, Operation::Delete)).collect());
    run(
        &mut source,
        vec![create(301, 70), move_to(302, 30, 77), write(303, 2, Operation::Purge(Version(300)))],
    );
    follow_to_head(&mut copy, &source);
    copy.sync().expect("a working disk");
}

fn run<S: Store>(copy: &mut Copy<S>, writes: Vec<Write>) {
    for answer in copy.write(writes).expect("a sound database") {
        assert_eq!(answer.outcome, Outcome::Applied);
    }
    copy.commit().expect("room on the disk");
}

/// A change that another copy accepted.
fn merge(copy: &mut Copy<RocksStore>, version: u64, user: u64) {
    let Write { version, id, operation, .. } = create(version, user);
    let change = Versioned { version, id, change: operation.into_change() };
    copy.merge(vec![change], None).expect("a sound database");
    copy.commit().expect("room on the disk");
}

fn follow_to_head(copy: &mut Copy<RocksStore>, source: &Copy<MemoryStore>) {
    let after = copy.meta().position.expect("it was filled").sequence;
    let entries = source.store().log_after(after, usize::MAX).expect("memory").expect("an op-log");
    let incarnation = source.meta().incarnation;
    copy.apply(LogBatch { incarnation, lsn: source.flushed(), entries }).expect("what follows");
    copy.commit().expect("room on the disk");
}

/// Copies a data directory without what RocksDB only writes.
fn keep(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for item in fs::read_dir(from).expect("a folder") {
        let item = item.expect("a folder");
        let name = item.file_name().into_string().expect("a plain name");
        if item.file_type().expect("a file").is_dir() {
            if name != "trash" {
                keep(&item.path(), &to.join(name));
            }
        } else if !["LOG", "LOCK", "OPTIONS"].iter().any(|unread| name.starts_with(unread)) {
            fs::copy(item.path(), to.join(name)).expect("room on the disk");
        }
    }
}
