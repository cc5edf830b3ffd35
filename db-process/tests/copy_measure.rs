//! What a copy does in a second, and how long a large one takes to open. Run it with
//! `cargo test --release -p db-process --test copy_measure -- --ignored --nocapture`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use db_process::store::{BlockCache, RocksStore};
use db_process::worker::{self, CopyHandle};
use protocol::message::link::{Position, Role, Write};
use protocol::message::query::{DigestQuery, Filter, MAX_PAGE, PageQuery};
use protocol::message::replication::LogBatch;
use protocol::{Change, Operation, Version};
use tempfile::TempDir;
use tokio::sync::mpsc;
use uuid::Uuid;

const USERS: u64 = 1_000_000;
const BATCH: u64 = 64;

/// Into how many groups the users fall.
static GROUPS: AtomicU64 = AtomicU64::new(10);

fn open(folder: &TempDir) -> CopyHandle {
    let store = RocksStore::open(&folder.path().join("primary"), &BlockCache::default()).expect("a database");
    let mark = folder.path().join("primary.mark");
    worker::start(Role::Primary, store, &mark, mpsc::unbounded_channel().0).expect("a sound database")
}

/// As random as the ids of users are, and the same in every run.
fn id(n: u64) -> Uuid {
    Uuid::from_u128(u128::from(n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

fn create(n: u64) -> Write {
    let change = Change {
        alive: Some(true),
        name: Some(format!("Ada Lovelace the {n}th of her name")),
        email: Some(format!("ada.lovelace.{n}@example.org")),
        group: Some((n % GROUPS.load(Ordering::Relaxed)) as i32),
        ..Change::default()
    };
    let operation = Operation::Create(change);
    Write { version: Version(n + 1), id: id(n), operation, condition: None, omit_user: false }
}

/// Writes users in batches, at most `window` of them unanswered. Returns how long it took.
fn write(copy: &CopyHandle, users: Range<u64>, batch: u64, window: usize) -> Duration {
    let started = Instant::now();
    let (answered, answers) = channel();
    let mut waiting = 0;
    for first in users.clone().step_by(batch as usize) {
        let answered = answered.clone();
        let writes = (first..(first + batch).min(users.end)).map(create).collect();
        copy.write(writes, move |_, _| answered.send(()).expect("a receiver"));
        waiting += 1;
        while waiting >= window {
            answers.recv().expect("an answer");
            waiting -= 1;
        }
    }
    for _ in 0..waiting {
        answers.recv().expect("an answer");
    }
    started.elapsed()
}

fn rate(what: &str, count: u64, took: Duration) {
    println!("{what}: {:.0}/s ({count} in {took:.1?})", count as f64 / took.as_secs_f64());
}

/// From nothing to a copy that answers.
fn time_to_open(folder: &TempDir) -> Duration {
    let started = Instant::now();
    let copy = open(folder);
    assert!(copy.read(&id(USERS / 2)).expect("a sound database").is_some());
    let took = started.elapsed();
    assert_eq!(copy.report().head, USERS);
    copy.stop();
    took
}

/// The highest memory that this process ever had resident, in MiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a line of the kernel");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") >> 10
}

/// Writes alone, to be compared with those of another build by running both in turns. The users are spread
/// over this many groups: `CORRO_GROUPS`, 10 by default.
#[test]
#[ignore = "a measurement: it takes half a minute"]
fn measure_writes() {
    let groups = std::env::var("CORRO_GROUPS").map_or(10, |groups| groups.parse().expect("a number"));
    GROUPS.store(groups, Ordering::Relaxed);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = open(&folder);
    rate("writes, one at a time", 2_000, write(&copy, 0..2_000, 1, 1));
    rate("writes, batches of 64, one in flight", 48_000, write(&copy, 2_000..50_000, BATCH, 1));
    rate("writes, batches of 64, four in flight", 250_000, write(&copy, 50_000..300_000, BATCH, 4));
    println!("{} MiB resident at most", resident());
    copy.stop();
}

/// Reads all users that match, a thousand at once.
fn pages(copy: &CopyHandle, filter: &Filter) {
    let (mut times, mut users, mut after) = (Vec::new(), 0, None);
    loop {
        let query =
            PageQuery { query: 1, role: Role::Primary, after, limit: MAX_PAGE, filter: filter.clone() };
        let started = Instant::now();
        let page = copy.page(&query).expect("a sound database");
        times.push(started.elapsed());
        users += page.users.len();
        after = page.users.last().map(|listed| listed.0);
        if !page.more {
            break;
        }
    }
    times.sort_unstable();
    let (median, late) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("pages of 1,000, {filter:?}: median {median:.1?}, p99 {late:.1?} ({users} users)");
}

/// Copies a database that is open. Returns whether its files stayed the same meanwhile.
fn copy_files(from: &TempDir, to: &TempDir) -> bool {
    let files = || -> BTreeSet<OsString> {
        let files = std::fs::read_dir(from.path()).expect("the database");
        files.map(|file| file.expect("a file").file_name()).collect()
    };
    let before = files();
    let copied =
        before.iter().all(|name| std::fs::copy(from.path().join(name), to.path().join(name)).is_ok());
    copied && files() == before
}

/// How much is in tables, and how much in the write-ahead log.
fn sizes(folder: &TempDir) -> String {
    let size_of = |ending: &str| {
        let files = std::fs::read_dir(folder.path().join("primary"))
            .expect("the database")
            .map(|file| file.expect("a file"));
        let ours = files.filter(|file| file.path().extension().is_some_and(|found| found == ending));
        ours.map(|file| file.metadata().map_or(0, |data| data.len())).sum::<u64>() >> 20
    };
    format!("{} MiB of tables, {} MiB of log", size_of("sst"), size_of("log"))
}

#[tokio::test]
#[ignore = "a measurement: it takes a minute"]
async fn measure() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = open(&folder);
    rate("writes, one at a time, fsync each", 500, write(&copy, 0..500, 1, 1));
    rate("writes, batches of 64, one in flight, fsync each", 20_000, write(&copy, 500..20_500, BATCH, 1));
    let rest = USERS - 20_500;
    rate("writes, batches of 64, four in flight", rest, write(&copy, 20_500..USERS, BATCH, 4));

    // What a killed process leaves is what its files are now, once nothing is being tidied up any more.
    let killed = loop {
        let killed = tempfile::tempdir().expect("a temporary folder");
        if copy_files(&folder, &killed) {
            break killed;
        }
    };
    let before = sizes(&killed);
    println!("opened after a kill in {:.0?}: {before}", time_to_open(&killed));
    copy.stop();
    drop(copy);
    let before = sizes(&folder);
    println!("opened after a stop in {:.0?}: {before}", time_to_open(&folder));
    let copy = open(&folder);

    let reads = 400_000;
    let started = Instant::now();
    for n in 0..reads {
        let found = copy.read(&id(n * 7_919 % USERS)).expect("a sound database");
        assert!(found.is_some());
    }
    rate("reads, all over the database, one thread", reads, started.elapsed());
    let started = Instant::now();
    for n in 0..reads {
        assert!(copy.read(&id(n * 31 % 1_000)).expect("a sound database").is_some());
    }
    rate("reads of the same 1,000 users, one thread", reads, started.elapsed());

    for filter in [Filter::All, Filter::Group(3)] {
        pages(&copy, &filter);
    }
    let started = Instant::now();
    let scan = DigestQuery { query: 1, role: Role::Primary, scan: true };
    assert!(copy.digests(&scan).expect("a sound database").damage.is_empty());
    rate("scan, records", USERS, started.elapsed());

    let other = tempfile::tempdir().expect("a temporary folder");
    let follower = open(&other);
    let started = Instant::now();
    let (send, mut chunks) = mpsc::channel(2);
    copy.full_copy(|chunk| chunk, send);
    let (merged, done) = channel();
    while let Some(chunk) = chunks.recv().await {
        let merged = merged.clone();
        follower.merge_chunk(chunk, move || merged.send(()).expect("a receiver"));
        done.recv().expect("the chunk is merged");
    }
    rate("full copy, records", USERS, started.elapsed());

    let more = 200_000;
    write(&copy, USERS..USERS + more, BATCH, 4);
    let started = Instant::now();
    let report = copy.report();
    let mut after = USERS;
    while after < report.head {
        let entries = copy.log_after(after).expect("a sound database").expect("an op-log that reaches back");
        after += entries.len() as u64;
        follower.apply(LogBatch { incarnation: report.incarnation, lsn: 1, entries });
    }
    let end = Some(Position { incarnation: report.incarnation, sequence: report.head });
    let mut state = follower.state();
    state
        .wait_for(|state| state.report.position == end && state.durable == report.head)
        .await
        .expect("a state");
    rate("op-log entries followed, to disk", more, started.elapsed());
    follower.stop();
    copy.stop();
}
