//! What is stored beside the records, on disk: it is what a scan finds, and a scan finds what is not.

use std::time::{Duration, Instant};

use protocol::message::query::Damage;
use protocol::message::replication::{CopyChunk, LogBatch};
use protocol::{Change, Operation};
use rocksdb::{DB, Options};
use tempfile::TempDir;

use super::{SMALL, create, delete, full, group, id, new_copy, run, update, write};
use crate::copy::Copy;
use crate::copy::audit::audit;
use crate::store::derived::{IndexKey, bucket_of, email_hash};
use crate::store::tests::random::{Random, seeds};
use crate::store::{BlockCache, Listing, RocksStore, Snapshot, Store};

const FAMILIES: [&str; 5] = ["records", "oplog", "meta", "by_group", "by_email"];

fn open(folder: &TempDir) -> Copy<RocksStore> {
    let store = RocksStore::open(folder.path(), &BlockCache::default()).expect("a database");
    Copy::open(store, SMALL).expect("a sound database")
}

fn damage(copy: &Copy<RocksStore>) -> Vec<Damage> {
    audit(&copy.store().snapshot().expect("a database"))
}

/// Random writes, entries of another's op-log and restarts; what a killed process leaves is in its log only.
#[test]
fn what_is_kept_on_disk_is_what_a_scan_finds() {
    for seed in seeds(3) {
        println!("CORRO_SEED={seed}");
        let mut random = Random::new(seed);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mut copy, mut other) = (open(&folder), new_copy(77));
        copy.merge_chunk(CopyChunk { end: Some(super::position(77, 0)), ..CopyChunk::default() })
            .expect("a database");
        for version in 1..600 {
            let user = u128::from(random.below(9));
            let operation = match random.below(4) {
                0 | 1 => Operation::Create(full(version % 7)),
                2 => Operation::Update(Change {
                    email: Some(format!("X{}", version % 3)),
                    ..group(version as i32 % 3)
                }),
                _ => Operation::Delete,
            };
            let next = vec![write(version, user, operation)];
            if random.one_in(3) {
                run(&mut other, next);
                let after = copy.meta().position.expect("it follows").sequence;
                let entries = other.store().log_after(after, 9).expect("memory").unwrap_or_default();
                copy.apply(LogBatch { incarnation: id(77), lsn: 1, entries }).expect("entries that join on");
            } else {
                copy.write(next).expect("a database");
            }
            if random.one_in(4) {
                copy.commit().expect("a database");
            }
            if random.one_in(60) {
                copy.commit().expect("a database");
                assert_eq!(damage(&copy), []);
                if random.one_in(2) {
                    copy.store().flush().expect("a database");
                }
                drop(copy);
                copy = open(&folder);
            }
        }
        copy.commit().expect("a database");
        assert_eq!(damage(&copy), []);
        assert!(copy.meta().users > 0 && copy.meta().users < copy.meta().records);
    }
}

#[test]
fn indexes_list_the_living_where_they_are_now() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut copy = open(&folder);
    let email = |email: &str| Change { email: Some(email.to_owned()), ..Change::default() };
    let writes = vec![
        create(5, 3),
        create(6, 1),
        create(7, 2),
        update(8, 1, group(5)),
        update(9, 2, email("5@EXAMPLE.org")),
        update(10, 2, group(-5)),
        update(11, 2, group(5)),
        delete(12, 3),
    ];
    copy.write(writes).expect("a database");
    copy.commit().expect("a database");
    let snapshot = copy.store().snapshot().expect("a database");
    let list = |listing, after| -> Vec<_> {
        snapshot.listed(listing, after).map(|id| id.expect("a database")).collect()
    };
    assert_eq!(list(Listing::Group(5), None), [id(1), id(2)]);
    assert_eq!(list(Listing::Group(5), Some(id(1))), [id(2)]);
    assert!(list(Listing::Group(-5), None).is_empty());
    assert_eq!(list(Listing::Email(email_hash("5@example.ORG")), None), [id(2)], "the first owner is gone");
    let counts: Vec<_> = snapshot.group_counts().map(|count| count.expect("a database")).collect();
    assert_eq!(counts, [(5, 2)]);
    assert_eq!((snapshot.meta().users, snapshot.meta().records), (2, 3));
}

#[test]
fn a_scan_finds_what_is_not_what_was_written() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut copy = open(&folder);
    run_on_disk(&mut copy);
    // Of the records nothing is left in memory.
    copy.store().flush().expect("a working disk");
    drop(copy);
    let damaged = |wanted: &[Damage], harm: &dyn Fn(&DB)| {
        let raw = || DB::open_cf(&Options::default(), folder.path(), FAMILIES).expect("a database");
        let copied = tempfile::tempdir().expect("a temporary folder");
        drop(raw());
        for file in std::fs::read_dir(folder.path()).expect("the database") {
            let file = file.expect("a file");
            std::fs::copy(file.path(), copied.path().join(file.file_name())).expect("room on the disk");
        }
        let db = DB::open_cf(&Options::default(), copied.path(), FAMILIES).expect("a database");
        harm(&db);
        drop(db);
        assert_eq!(damage(&open(&copied)), wanted);
    };
    let family =
        |db: &DB, name: &str, work: &dyn Fn(&rocksdb::ColumnFamily) -> Result<(), rocksdb::Error>| {
            work(db.cf_handle(name).expect("a column family")).expect("a working disk");
        };
    let (user, bucket) = (id(3), Damage::Bucket(bucket_of(&id(3)) as u8));
    damaged(&[], &|_| {});
    damaged(&[bucket.clone(), Damage::Count, Damage::Index], &|db| {
        family(db, "records", &|records| db.delete_cf(records, user.as_bytes()));
    });
    damaged(&[bucket], &|db| {
        family(db, "records", &|records| {
            let mut bytes = db.get_cf(records, user.as_bytes())?.expect("the record of user 3");
            // Within the name: everything that the indexes rest on stays.
            bytes[17] ^= 1;
            db.put_cf(records, user.as_bytes(), bytes)
        });
    });
    damaged(&[Damage::Index], &|db| {
        family(db, "by_email", &|index| {
            let key = db.iterator_cf(index, rocksdb::IteratorMode::Start).next().expect("a place")?.0;
            db.delete_cf(index, key)
        });
    });
    damaged(&[Damage::Index], &|db| {
        family(db, "by_group", &|index| db.put_cf(index, [7; 20], []));
    });
    damaged(&[Damage::Count], &|db| {
        family(db, "meta", &|meta| db.delete_cf(meta, [b"group".as_slice(), &[0x80, 0, 0, 3]].concat()));
    });
    let unreadable = "the record of 00000000-0000-0000-0000-000000000003 in the database cannot be read: \
                      the value is cut short";
    damaged(&[Damage::Unreadable(unreadable.to_owned())], &|db| {
        family(db, "records", &|records| db.put_cf(records, user.as_bytes(), [1, 0, 7]));
    });
}

fn run_on_disk(copy: &mut Copy<RocksStore>) {
    // What the first batch changes is in the indexes once the second one is written, and what that changes is
    // not yet.
    for users in [1..9, 9..10] {
        copy.write(users.map(|n| create(n, u128::from(n))).collect()).expect("a database");
        copy.commit().expect("a database");
        let deadline = Instant::now() + Duration::from_secs(10);
        while copy.store().flushes_indexes() {
            assert!(Instant::now() < deadline, "the changes do not get into the indexes");
            std::thread::yield_now();
        }
    }
    assert_eq!(damage(copy), []);
    let places: Vec<_> = copy.store().snapshot().expect("a database").index().collect();
    assert!(places.len() == 18 && places.contains(&Ok(IndexKey::Group(3, id(3)))));
}
