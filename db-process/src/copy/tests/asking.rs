//! Questions about a whole copy, answered alike in memory and on disk.

use protocol::message::MAX_FRAME_BYTES;
use protocol::message::Message;
use protocol::message::link::{Role, Write};
use protocol::message::query::{ChangesAnswer, ChangesQuery, Filter, MAX_PAGE, PageAnswer, PageQuery};
use protocol::user::fold_email;
use protocol::{Change, Operation, UserId, Version};

use super::{create, delete, full, group, id, update, write};
use crate::copy::asking::{changes, page};
use crate::copy::{Copy, Limits};
use crate::store::tests::random::{Random, seeds};
use crate::store::{BlockCache, Late, MemoryStore, RocksStore, Snapshot, Store};

fn ask(store: &impl Store, after: Option<UserId>, limit: u32, filter: Filter) -> PageAnswer {
    let query = PageQuery { query: 5, role: Role::Primary, after, limit, filter };
    page(&store.snapshot().expect("a sound store"), &query).expect("a sound store")
}

fn changed(store: &impl Store, after: u64, upto: u64) -> ChangesAnswer {
    let query = ChangesQuery { query: 6, role: Role::Primary, after: Version(after), upto: Version(upto) };
    changes(&store.snapshot().expect("a sound store"), &query).expect("a sound store")
}

fn versions(answer: &ChangesAnswer) -> Vec<u64> {
    answer.changes.iter().map(|change| change.version.0).collect()
}

/// Reads all pages; each but the last must be as long as was asked for.
fn walk(store: &impl Store, limit: u32, filter: &Filter) -> Vec<UserId> {
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let PageAnswer { users, more, .. } = ask(store, after, limit, filter.clone());
        ids.extend(users.iter().map(|listed| listed.0));
        assert!(users.len() <= limit as usize && (!more || users.len() == limit as usize));
        if !more {
            return ids;
        }
        after = ids.last().copied();
    }
}

fn do_all(copy: &mut Copy<impl Store>, writes: Vec<Write>) {
    copy.write(writes).expect("a sound store");
    copy.commit().expect("a sound store");
}

fn email(email: &str) -> Change {
    Change { email: Some(email.to_owned()), ..Change::default() }
}

/// Whatever was written: the pages hold what a look at every record finds.
#[test]
fn pages_hold_what_they_should() {
    for seed in seeds(4) {
        println!("CORRO_SEED={seed}");
        let mut random = Random::new(seed);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let disk = RocksStore::open(folder.path(), &BlockCache::default()).expect("a database");
        let mut disk = Copy::open(disk, Limits::default()).expect("a database");
        let mut memory = Copy::open(MemoryStore::new(id(1)), Limits::default()).expect("memory");
        for round in 0..8 {
            let writes = (1..60).map(|n| {
                let user = u128::from(random.below(40)) << 100 | u128::from(random.below(2));
                let operation = match random.below(7) {
                    0..3 => Operation::Create(full(n % 9)),
                    3 => Operation::Update(email(
                        ["Ä@example.org", "ä@Example.org", "b@example.org"][n as usize % 3],
                    )),
                    4 => Operation::Update(group(n as i32 % 3 - 1)),
                    _ => Operation::Delete,
                };
                write(round * 100 + n, user, operation)
            });
            let writes: Vec<Write> = writes.collect();
            do_all(&mut disk, writes.clone());
            do_all(&mut memory, writes);
            if random.one_in(3) {
                disk.store().flush().expect("a database");
            }
            let records: Vec<_> =
                memory.store().snapshot().expect("memory").records().map(Result::unwrap).collect();
            let at_e = "ä@example.org".to_owned();
            for filter in [
                Filter::All,
                Filter::Group(0),
                Filter::Group(-1),
                Filter::Group(77),
                Filter::Email(at_e.clone()),
                Filter::Email("nobody@example.org".to_owned()),
                Filter::Both(at_e.clone(), 1),
            ] {
                let expected = records.iter().filter(|(_, record)| {
                    let (group, email) = (record.group.1, fold_email(&record.email.1));
                    record.is_alive()
                        && match &filter {
                            Filter::All => true,
                            Filter::Group(wanted) => group == *wanted,
                            Filter::Email(wanted) => email == *wanted,
                            Filter::Both(wanted, in_group) => email == *wanted && group == *in_group,
                        }
                });
                let expected: Vec<UserId> = expected.map(|(id, _)| *id).collect();
                let limit = 1 + random.below(12) as u32;
                assert_eq!(walk(memory.store(), limit, &filter), expected, "{filter:?}");
                assert_eq!(walk(disk.store(), limit, &filter), expected, "{filter:?} on disk");
            }
        }
    }
}

#[test]
fn a_page_shows_users_as_a_read_does_and_fits_a_frame() {
    let mut copy = Copy::open(MemoryStore::new(id(1)), Limits::default()).expect("memory");
    do_all(&mut copy, vec![create(3, 1), create(4, 2), delete(5, 1), update(6, 2, group(8))]);
    let answer = ask(copy.store(), None, 9, Filter::All);
    let [listed] = answer.users.as_slice() else { panic!("{answer:?}") };
    let document = super::document(2, "name 4", "4@example.org", 8);
    assert_eq!((listed.0, listed.1, listed.2.get()), (id(2), Version(6), document.as_str()));
    assert!(!answer.more && answer.query == 5);
    assert_eq!(ask(copy.store(), None, 0, Filter::All).users.len(), 1, "a limit of none is one");

    let large = |n: u64| {
        let change = Change { name: Some("\u{1f}".repeat(2_000)), ..full(n) };
        write(10 + n, 10 + u128::from(n), Operation::Create(change))
    };
    do_all(&mut copy, (0..200).map(large).collect());
    let (mut seen, mut after, mut frames) = (0, None, 0);
    loop {
        let answer = ask(copy.store(), after, MAX_PAGE, Filter::All);
        assert!(answer.encode().len() <= MAX_FRAME_BYTES && !answer.users.is_empty());
        (seen, frames) = (seen + answer.users.len(), frames + 1);
        after = answer.users.last().map(|listed| listed.0);
        if !answer.more {
            break;
        }
    }
    assert_eq!((seen, frames), (201, 3), "as many as fit, and no user twice or never");
}

#[test]
fn changes_are_found_by_version() {
    let mut copy = Copy::open(MemoryStore::new(id(1)), super::SMALL).expect("memory");
    assert!(changed(copy.store(), 0, 99).changes.is_empty());
    do_all(&mut copy, (1..=10).map(|n| create(n * 10, u128::from(n))).collect());
    let all: Vec<u64> = (1..=10).map(|n| n * 10).collect();
    for after in 0..=105 {
        for upto in [0, 10, 55, 60, 100, 200] {
            let expected: Vec<u64> = all.iter().copied().filter(|&v| v > after && v <= upto).collect();
            let answer = changed(copy.store(), after, upto);
            assert_eq!((versions(&answer), answer.more), (expected, false), "({after}, {upto}]");
        }
    }
    let answer = changed(copy.store(), 90, 100);
    assert_eq!((answer.changes[0].id, answer.changes[0].change.clone()), (id(10), full(100)));
    assert_eq!((answer.floor, answer.foreign), (Version::ZERO, Version::ZERO));

    // What was trimmed is below the floor.
    copy.confirm(10, None);
    copy.commit().expect("memory");
    let answer = changed(copy.store(), 0, 99);
    assert_eq!((versions(&answer), answer.floor), (vec![70, 80, 90], Version(60)));
}

/// An operation that was under way for long is accepted late: it is listed in its place all the same.
#[test]
fn what_came_late_is_in_its_place() {
    for seed in seeds(20) {
        println!("CORRO_SEED={seed}");
        let mut random = Random::new(seed);
        let mut copy =
            Copy::open(MemoryStore::new(id(1)), Limits { recent: 0, log: 40, trim: 3 }).expect("memory");
        let (mut accepted, mut next) = (Vec::new(), 0);
        for _ in 0..60 {
            next += 1 + random.below(3);
            let version = if random.one_in(12) { 1 + random.below(next) } else { next };
            if accepted.contains(&version) {
                continue;
            }
            // Each creates a user of its own, so all are accepted.
            do_all(&mut copy, vec![create(version, u128::from(version))]);
            accepted.push(version);
            let gone = accepted.len() - (copy.meta().head - copy.meta().trimmed) as usize;
            let highest = accepted[..gone].iter().max().copied().unwrap_or_default();
            let floor = copy.meta().floor;
            assert!(floor >= Version(highest), "{floor} is above what was trimmed, {highest}");
            let (after, upto) = (random.below(next + 2), random.below(next + 2));
            let mut expected: Vec<u64> =
                accepted[gone..].iter().copied().filter(|&v| v > after && v <= upto).collect();
            expected.sort_unstable();
            assert_eq!(versions(&changed(copy.store(), after, upto)), expected, "({after}, {upto}]");
        }
        let late: Option<Late> = copy.meta().late;
        assert!(accepted.is_sorted() == late.is_none());
    }
}

#[test]
fn changes_come_in_frames() {
    let mut copy = Copy::open(MemoryStore::new(id(1)), Limits::default()).expect("memory");
    let name = "\u{1f}".repeat(256);
    let large =
        |n: u64| write(n, u128::from(n), Operation::Create(Change { name: Some(name.clone()), ..full(n) }));
    // The last is late, so that both ways through the op-log are gone.
    do_all(&mut copy, (2..1_500).chain([1]).chain(1_500..3_000).map(large).collect());
    let (mut all, mut after, mut frames) = (Vec::new(), 0, 0);
    loop {
        let answer = changed(copy.store(), after, 2_900);
        assert!(answer.encode().len() <= MAX_FRAME_BYTES && !answer.changes.is_empty());
        frames += 1;
        all.extend(versions(&answer));
        after = *all.last().expect("some changes");
        if !answer.more {
            break;
        }
    }
    assert!(frames > 2 && all.iter().copied().eq(1..=2_900), "{frames} frames");
}
