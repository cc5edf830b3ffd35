use std::ffi::CStr;
use std::ops::Range;
use std::path::Path;
use std::thread::yield_now;
use std::time::{Duration, Instant};

use protocol::message::link::Write;
use protocol::{Change, Operation, Record, Version};
use rocksdb::properties::{COMPACTION_PENDING, NUM_RUNNING_COMPACTIONS, num_files_at_level};
use rocksdb::statistics::Ticker;
use rocksdb::{DB, IteratorMode, Options};
use uuid::Uuid;

use super::schema::{BY_EMAIL, BY_GROUP, DIGESTS, FAMILIES, GROUP, META, RECORDS, STATE};
use super::*;
use crate::copy::audit::audit;
use crate::copy::{Copy, Limits};
use crate::store::encoding::tests::changed;
use crate::store::{Batch, Digests, Durability, Encoded, IndexKey, Late, Meta, Snapshot, Store, encoding};

fn open(folder: &Path) -> RocksStore {
    RocksStore::open(folder, &BlockCache::default()).expect("a database")
}

fn raw(folder: &Path) -> DB {
    DB::open_cf(&Options::default(), folder, FAMILIES).expect("a database")
}

fn alive(name: &str) -> Change {
    Change { alive: Some(true), name: Some(name.to_owned()), ..Change::default() }
}

fn batch(store: &RocksStore) -> Batch {
    Batch::new(store.meta().expect("a database"))
}

/// No test can cut the power, so this one counts.
#[test]
fn a_batch_costs_one_fsync_where_it_is_asked_for_and_none_otherwise() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache = BlockCache::default();
    let mut options = options::database(&cache);
    options.enable_statistics();
    let mut store =
        RocksStore::open_with(&options, folder.path(), &cache).expect("a folder that can be written");
    let mut batch = batch(&store);
    let mut synced_by = |work: &mut dyn FnMut(&mut RocksStore)| {
        let before = options.get_ticker_count(Ticker::WalFileSynced);
        work(&mut store);
        options.get_ticker_count(Ticker::WalFileSynced) - before
    };
    batch.meta.complete = true;
    let commit = |durability| {
        let batch = &batch;
        move |store: &mut RocksStore| store.commit(batch, durability).expect("room on the disk")
    };
    assert_eq!(synced_by(&mut commit(Durability::Synced)), 1);
    assert_eq!(synced_by(&mut commit(Durability::Unsynced)), 0);
    assert_eq!(synced_by(&mut |store| store.sync().expect("a working disk")), 1);
}

/// A process that is killed while RocksDB ingests a table may leave it under both of its names.
#[test]
fn a_table_that_was_just_ingested_is_not_overwritten_by_the_next_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let take = |store: &mut RocksStore, users: Range<u128>| {
        let mut batch = batch(store);
        batch.derived.index.extend(users.map(|user| (IndexKey::Email(7, Uuid::from_u128(user)), true)));
        store.commit(&batch, Durability::Synced).expect("room on the disk");
        while store.flushes_indexes() {
            yield_now();
        }
    };
    let mut store = open(folder.path());
    take(&mut store, 0..100);
    let files = store.reader().db.live_files().expect("a database");
    let table = files.iter().find(|file| file.column_family_name == BY_EMAIL).expect("a table");
    let name = table.name.trim_start_matches('/');
    std::fs::hard_link(folder.path().join(name), folder.path().join("by_email.table")).expect("a name");
    drop(store);
    let mut store = open(folder.path());
    take(&mut store, 100..120);
    drop(store);
    let store = open(folder.path());
    assert_eq!(store.snapshot().expect("a database").index().filter(Result::is_ok).count(), 120);
}

#[test]
fn in_bulk_tables_are_merged_later() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut store = open(folder.path());
    let mut next = 0;
    // Each leaves a table, and none of the tables lies beside another one. So many places are enough for a
    // flush of the indexes, with which it changes how much is merged.
    let mut write = |store: &mut RocksStore, bulk| {
        let mut batch = batch(store);
        for user in [Uuid::nil(), Uuid::max()] {
            batch.records.insert(user, Record::from_change(Version(1), &alive("x")).into());
        }
        batch
            .derived
            .index
            .extend((next..next + 40).map(|group| (IndexKey::Group(group, Uuid::nil()), true)));
        next += 40;
        batch.bulk = bulk;
        store.commit(&batch, Durability::Unsynced).expect("room on the disk");
        store.flush().expect("a working disk");
    };
    let number = |store: &RocksStore, name: &CStr| {
        let reader = store.reader();
        let number = reader.db.property_int_value_cf(reader.family(RECORDS), name);
        number.expect("a database").expect("a number that there is")
    };
    let tables = |store: &RocksStore| number(store, num_files_at_level(0).as_ref());
    for _ in 0..50 {
        if tables(&store) < 16 {
            write(&mut store, true);
        }
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    // It counts those of all column families.
    while number(&store, NUM_RUNNING_COMPACTIONS.as_ref()) > 0 {
        assert!(Instant::now() < deadline, "a compaction does not end");
        yield_now();
    }
    assert!(tables(&store) >= 16, "{}", tables(&store));
    assert_eq!(number(&store, COMPACTION_PENDING.as_ref()), 0);

    while tables(&store) > 12 {
        assert!(Instant::now() < deadline, "{} tables are not merged", tables(&store));
        write(&mut store, false);
        yield_now();
    }
}

/// Such a database lists its finished log files, which RocksDB compares when it is opened.
#[test]
fn a_database_whose_log_is_verified_can_be_looked_at() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut store = open(folder.path());
    for lsn in 1..=3 {
        let mut batch = batch(&store);
        batch.meta.lsn = lsn;
        store.commit(&batch, Durability::Synced).expect("room on the disk");
        // It begins another file of the log.
        store.flush().expect("room on the disk");
        store.commit(&batch, Durability::Synced).expect("room on the disk");
        let look = ReadOnlyStore::open(folder.path()).expect("a database");
        assert_eq!(look.snapshot().expect("a database").meta().lsn, lsn);
    }
}

/// The pages of such a program have what changes in the digests; those of an earlier one do not: it wrote all
/// digests in each batch, and numbered its pages from 1 on after an orderly stop.
#[test]
fn pages_of_records_of_earlier_programs_are_moved() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let record = |version| Encoded::from(Record::from_change(Version(version), &alive("Ana")));
    let user = |n| Uuid::from_u128(n);
    let mut store = open(folder.path());
    let mut first = batch(&store);
    first.records.extend((1..=3).map(|n| (user(n), record(1))));
    let mut digests = Digests::new();
    first.records.iter().for_each(|(id, put)| digests.toggle(id, &put.bytes));
    first.derived.digests = Some(digests.clone());
    store.commit(&first, Durability::Synced).expect("room on the disk");
    drop(store);

    let page = |put: &[u128], gone: &[u128], digests: &[(u8, u64)]| {
        let put = put.iter().map(|&n| (user(n), record(2))).collect();
        changed(&put, &gone.iter().map(|&n| user(n)).collect(), digests)
    };
    let put = |db: &DB, key: &[u8], value: &[u8]| {
        db.put_cf(db.cf_handle(META).expect("a column family"), key, value).expect("a working disk");
    };
    let db = raw(folder.path());
    put(&db, &schema::page_key(b"changed", 4), &page(&[1, 4], &[], &[(7, 1)]));
    put(&db, &schema::page_key(b"changed", 5), &page(&[5], &[2], &[(7, 2), (9, 4)]));
    put(&db, &schema::page_key(b"changed", 6), &page(&[], &[5], &[(9, 8)]));
    put(&db, b"digested", &encoding::count(4));
    drop(db);
    let refused = ReadOnlyStore::open(folder.path());
    assert!(matches!(refused.err(), Some(crate::store::StoreError::Inconsistent(_))), "not converted");
    let seen = |store: &RocksStore| {
        let snapshot = store.snapshot().expect("a database");
        let records = snapshot.records().map(|record| record.expect("a database"));
        let records: Vec<_> = records.map(|(id, record)| (id.as_u128(), record.version().0)).collect();
        (records, snapshot.digests().expect("digests"))
    };
    digests.change(&[(7, 2), (9, 4), (9, 8)]);
    assert_eq!(seen(&open(folder.path())), (vec![(1, 2), (3, 1), (4, 2)], digests.clone()));
    assert!(ReadOnlyStore::open(folder.path()).is_ok());

    let db = raw(folder.path());
    put(&db, &schema::page_key(b"changed", 1), &page(&[3], &[], &[]));
    put(&db, b"digested", &encoding::count(9));
    drop(db);
    assert_eq!(seen(&open(folder.path())), (vec![(1, 2), (3, 2), (4, 2)], digests));

    let db = raw(folder.path());
    put(&db, &schema::page_key(b"changed", 7), &page(&[3], &[], &[]));
    put(&db, &schema::page_key(b"changed", 9), &page(&[3], &[], &[]));
    drop(db);
    let refused = RocksStore::open(folder.path(), &BlockCache::default()).err();
    assert!(matches!(refused, Some(crate::store::StoreError::Inconsistent(_))), "page 8 is missing");
}

fn create(n: u64) -> Write {
    let change = Change {
        alive: Some(!n.is_multiple_of(5)),
        name: Some(format!("name {n}")),
        email: Some(format!("{n}@example.org")),
        group: Some((n % 30) as i32 - 9),
        ..Change::default()
    };
    let id = Uuid::from_u128(u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
    Write { version: Version(n), id, operation: Operation::Create(change), condition: None, omit_user: false }
}

/// The state as it was written before anything was stored beside the records.
fn earlier_state(meta: &Meta) -> Vec<u8> {
    let mut bytes = encoding::meta(&Meta { late: None, lsn: 0, ..*meta });
    bytes.truncate(bytes.len() - 5 * 8);
    bytes[1] &= 0b111;
    assert_eq!(encoding::read_meta(&bytes).expect("a state").head, meta.head);
    bytes
}

#[test]
fn a_database_of_an_earlier_program_gets_what_follows_from_its_records() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut copy = Copy::open(open(folder.path()), Limits::default()).expect("a sound database");
    copy.write((1..9_000).map(create).collect()).expect("a database");
    copy.commit().expect("a database");
    let expected = *copy.meta();
    let stored: Vec<_> = copy.store().snapshot().expect("a database").index().collect();
    assert!((expected.users, expected.records, stored.len()) == (7_200, 8_999, 14_400));
    drop(copy);

    // Once as the earlier program left it, once as an interrupted attempt left it.
    for interrupted in [false, true] {
        let db = raw(folder.path());
        let family = |name: &str| db.cf_handle(name).expect("a column family");
        db.delete_cf(family(META), DIGESTS).expect("a working disk");
        if interrupted {
            db.put_cf(family(BY_EMAIL), [3; 24], []).expect("a working disk");
            db.put_cf(family(META), [GROUP, &[1; 4]].concat(), encoding::count(3)).expect("a working disk");
        } else {
            db.put_cf(family(META), STATE, earlier_state(&expected)).expect("a working disk");
            for name in [BY_GROUP, BY_EMAIL] {
                for item in db.iterator_cf(family(name), IteratorMode::Start) {
                    db.delete_cf(family(name), item.expect("a working disk").0).expect("a working disk");
                }
            }
        }
        drop(db);

        let store = open(folder.path());
        let snapshot = store.snapshot().expect("a database");
        assert_eq!(audit(&snapshot), []);
        assert!(stored.iter().cloned().eq(snapshot.index()));
        let version = expected.version;
        let late = Some(Late { sequence: expected.head, top: version });
        let unknown = Meta { floor: version, foreign: version, late, lsn: 0, ..expected };
        assert_eq!(snapshot.meta(), unknown, "what the op-log vouches for is not known any more");
    }
    assert_eq!(audit(&open(folder.path()).snapshot().expect("a database")), [], "and it stays");
}
