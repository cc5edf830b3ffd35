//! The tests that every store passes, and the comparison of one with another.

use std::collections::BTreeSet;

use protocol::message::link::Position;
use protocol::message::replication::LogEntry;
use protocol::{Change, Record, UserId, Version};
use uuid::Uuid;

use super::random::{Random, seeds};
use crate::store::{
    Batch, BlockCache, Digests, Durability, IndexKey, Late, Listing, MemoryStore, Meta, Origin,
    ReadOnlyStore, RocksStore, Snapshot, Store, StoreError,
};

fn id(n: u128) -> UserId {
    Uuid::from_u128(n)
}

fn change(tag: u64) -> Change {
    Change {
        alive: Some(!tag.is_multiple_of(5)),
        name: Some(format!("name {tag}")),
        email: Some(format!("{tag}@example.org")),
        group: Some(tag as i32),
        ..Change::default()
    }
}

fn entry(sequence: u64) -> LogEntry {
    let user = id(u128::from(sequence % 7));
    LogEntry { sequence, version: Version(sequence), id: user, change: change(sequence) }
}

/// A batch with the next `count` writes after `meta`.
fn writes(meta: Meta, count: u64) -> Batch {
    let mut batch = Batch::new(Meta { head: meta.head + count, ..meta });
    for sequence in meta.head + 1..=meta.head + count {
        let entry = entry(sequence);
        batch.records.insert(entry.id, Record::from_change(entry.version, &entry.change).into());
        batch.log.push(entry);
    }
    batch.meta.version = Version(batch.meta.head);
    batch
}

fn trim(meta: Meta, upto: u64) -> Batch {
    let mut batch = Batch::new(Meta { trimmed: upto, ..meta });
    batch.trim = Some(meta.trimmed + 1..=upto);
    batch
}

fn log(store: &impl Store, after: u64, limit: usize) -> Option<Vec<u64>> {
    let entries = store.log_after(after, limit).expect("a sound store");
    entries.map(|entries| entries.iter().map(|entry| entry.sequence).collect())
}

/// Some changes of what follows from records; the stores do not ask whether they do. `taken` are the places
/// that are taken.
fn derived(random: &mut Random, taken: &mut BTreeSet<IndexKey>, batch: &mut Batch) {
    let mut digests = Digests::new();
    (0..9).for_each(|n| digests.toggle(&id(n), &random.next().to_be_bytes()));
    batch.derived.digests = random.one_in(2).then_some(digests);
    for _ in 0..random.below(3) {
        let user = id(u128::from(random.below(9)));
        for key in [IndexKey::Group(group(random), user), IndexKey::Email(random.below(3), user)] {
            let takes = taken.insert(key);
            if takes || random.one_in(2) && taken.remove(&key) {
                batch.derived.index.push((key, takes));
            }
        }
    }
}

fn group(random: &mut Random) -> i32 {
    [i32::MIN, -1, 0, 7, i32::MAX][random.below(5) as usize]
}

/// Everything that can be seen of a store.
#[derive(Debug, PartialEq)]
struct Seen {
    meta: Meta,
    records: Vec<(UserId, Record)>,
    log: Vec<LogEntry>,
    digests: Box<Digests>,
    groups: Vec<(i32, u64)>,
    index: Vec<IndexKey>,
    applied: Vec<(u64, Vec<Version>)>,
}

fn content(store: &impl Store) -> Seen {
    content_of(&store.snapshot().expect("a sound store"))
}

fn content_of(snapshot: &impl Snapshot) -> Seen {
    const SOUND: &str = "a sound store";
    let meta = snapshot.meta();
    Seen {
        meta,
        records: snapshot.records().map(|record| record.expect(SOUND)).collect(),
        log: snapshot.log(meta.trimmed).map(|entry| entry.expect(SOUND)).collect(),
        digests: snapshot.digests().expect(SOUND),
        groups: snapshot.group_counts().map(|count| count.expect(SOUND)).collect(),
        index: snapshot.index().map(|key| key.expect(SOUND)).collect(),
        applied: snapshot.applied().map(|page| page.expect(SOUND)).collect(),
    }
}

/// What is found by looking for something; it depends on what is looked for.
fn found(
    store: &impl Store,
    random: &mut Random,
) -> (Option<Record>, Vec<UserId>, Vec<UserId>, u64, Vec<LogEntry>) {
    const SOUND: &str = "a sound store";
    let snapshot = store.snapshot().expect(SOUND);
    let after = (!random.one_in(4)).then(|| id(u128::from(random.below(9))));
    let group = group(random);
    let listing = if random.one_in(2) { Listing::Group(group) } else { Listing::Email(random.below(3)) };
    let meta = snapshot.meta();
    let from = meta.trimmed + random.below(meta.head - meta.trimmed + 1);
    (
        snapshot.get(&after.unwrap_or_default()).expect(SOUND),
        snapshot.records_after(after).take(3).map(|record| record.expect(SOUND).0).collect(),
        snapshot.listed(listing, after).map(|id| id.expect(SOUND)).collect(),
        store.group_count(group).expect(SOUND),
        snapshot.log(from).take(3).map(|entry| entry.expect(SOUND)).collect(),
    )
}

/// What holds for every store; `store` is empty, `reopen` closes it and opens it again.
fn every_store<S: Store>(mut store: S, reopen: impl Fn(S) -> S) {
    let fresh = store.meta().expect("the state of an empty store");
    assert_eq!(fresh, Meta::new(fresh.incarnation));
    assert_eq!(store.get(&id(1)), Ok(None));
    assert_eq!(log(&store, 0, 10), Some(vec![]), "at the head there is nothing more");
    assert_eq!(log(&store, 1, 10), None, "beyond the head there is no place to go on from");

    store.commit(&writes(fresh, 20), Durability::Synced).expect("room on the disk");
    assert_eq!(
        store.get(&id(3)),
        Ok(Some(Record::from_change(Version(17), &change(17)))),
        "the last put counts"
    );
    assert_eq!(log(&store, 0, 3), Some(vec![1, 2, 3]));
    assert_eq!(log(&store, 18, 3), Some(vec![19, 20]));
    assert_eq!(log(&store, 20, 3), Some(vec![]));
    assert_eq!(log(&store, 21, 3), None);
    let entries = store.log_after(4, 2).expect("a sound store").expect("entries");
    assert_eq!(entries, [entry(5), entry(6)], "entries come back as they were written");
    let stripped = LogEntry { change: Change::default(), ..entry(6) };
    let meta = store.meta().expect("a sound store");
    let batch = Batch { rewritten: vec![stripped.clone()], ..Batch::new(meta) };
    store.commit(&batch, Durability::Unsynced).expect("room on the disk");
    let entries = store.log_after(4, 3).expect("a sound store").expect("entries");
    assert_eq!(entries, [entry(5), stripped, entry(7)], "or as they were written anew");

    let meta = store.meta().expect("a sound store");
    store.commit(&trim(meta, 12), Durability::Unsynced).expect("room on the disk");
    assert_eq!(log(&store, 11, 3), None, "what was trimmed is not offered");
    assert_eq!(log(&store, 12, 3), Some(vec![13, 14, 15]));

    // A snapshot is one moment, and its state is of that moment.
    let before = content(&store);
    let meta = store.meta().expect("a sound store");
    let used = Meta {
        complete: true,
        position: Some(Position { incarnation: id(8), sequence: 9 }),
        origin: Some(Origin { source: id(8), head: 3 }),
        users: 4,
        records: 7,
        floor: Version(5),
        foreign: Version(6),
        top: Version(7),
        late: Some(Late { sequence: 3, top: Version(5) }),
        ..meta
    };
    let mut batch = writes(used, 5);
    let keys = [
        IndexKey::Email(1, id(1)),
        IndexKey::Group(-5, id(2)),
        IndexKey::Group(-5, id(1)),
        IndexKey::Group(3, id(4)),
        IndexKey::Group(3, id(3)),
        IndexKey::Group(0, id(2)),
    ];
    batch.derived.index.extend(keys.map(|key| (key, true)));
    batch.derived.index.extend([keys[1], keys[5]].map(|key| (key, false)));
    batch.applied = Some((256, vec![Version(9), Version(u64::MAX)]));
    store.commit(&batch, Durability::Unsynced).expect("room on the disk");
    let pages = [(255, vec![Version(4)]), (257, vec![]), (258, vec![Version(1)])];
    for page in pages.clone() {
        let meta = store.meta().expect("a sound store");
        let batch = Batch { applied: Some(page), ..Batch::new(meta) };
        store.commit(&batch, Durability::Unsynced).expect("room on the disk");
    }
    let after = content(&store);
    assert_ne!(before, after);
    assert!(after.records.is_sorted_by_key(|(id, _)| *id), "records come in id order");
    assert_eq!(after.records.len(), 7, "tombstones are listed too");
    assert_eq!(after.groups, [(-5, 1), (3, 2)], "a group without users has no number");
    assert_eq!(after.index, [keys[2], keys[4], keys[3], keys[0]], "by group, then by email");
    let numbers: Vec<u64> = after.applied.iter().map(|(page, _)| *page).collect();
    assert_eq!(numbers, [255, 256, 257, 258], "in the order of the numbers");
    assert_eq!(after.applied[1].1, [Version(9), Version(u64::MAX)]);

    store.sync().expect("a working disk");
    let mut store = reopen(store);
    assert_eq!(content(&store), after, "what was synced is there after a restart");
    let mut all = trim(after.meta, after.meta.head);
    all.forget = Some(255..=257);
    store.commit(&all, Durability::Synced).expect("room on the disk");
    let store = reopen(store);
    assert_eq!(content(&store).applied, pages[2..]);
    assert_eq!(log(&store, 25, 9), Some(vec![]), "a position at the head stays good when all is trimmed");
    assert_eq!(log(&store, 24, 9), None);
}

fn open(folder: &tempfile::TempDir) -> RocksStore {
    RocksStore::open(folder.path(), &BlockCache::default()).expect("a folder that can be written")
}

#[test]
fn the_store_in_memory_is_a_store() {
    every_store(MemoryStore::new(id(1)), |store| store.crash(0));
}

#[test]
fn the_store_on_disk_is_a_store() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    every_store(open(&folder), |store| {
        drop(store);
        open(&folder)
    });
}

#[test]
fn a_crash_takes_back_a_suffix_of_what_was_not_synced() {
    let mut store = MemoryStore::new(id(1));
    store.commit(&writes(Meta::new(id(1)), 2), Durability::Synced).expect("memory");
    for _ in 0..3 {
        let meta = store.meta().expect("memory");
        store.commit(&writes(meta, 1), Durability::Unsynced).expect("memory");
    }
    let head_after = |survivors| store.clone().crash(survivors).meta().expect("memory").head;
    assert_eq!([0, 1, 2, 3, 9].map(head_after), [2, 3, 4, 5, 5]);
    let mut synced = store.clone();
    synced.sync().expect("memory");
    assert_eq!(content(&synced.crash(0)), content(&store));
}

/// The same random batches to both, with restarts: they do not differ.
#[test]
fn the_stores_do_not_differ() {
    for seed in seeds(3) {
        println!("CORRO_SEED={seed}");
        let mut random = Random::new(seed);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut disk = open(&folder);
        let incarnation = disk.meta().expect("a sound store").incarnation;
        let mut memory = MemoryStore::new(incarnation);
        let mut taken = BTreeSet::new();
        for step in 0..400 {
            let meta = memory.meta().expect("memory");
            let mut batch = writes(meta, random.below(6));
            for _ in 0..random.below(4) {
                let (user, version) = (id(u128::from(random.below(40))), random.below(99));
                batch.records.insert(user, Record::from_change(Version(version), &change(version)).into());
            }
            if random.one_in(3) {
                let user = id(u128::from(random.below(40)));
                batch.records.remove(&user);
                batch.gone.insert(user);
            }
            derived(&mut random, &mut taken, &mut batch);
            let versions = (0..random.below(4)).map(Version).collect();
            batch.applied = random.one_in(2).then_some((step, versions));
            batch.forget =
                random.one_in(9).then(|| step.saturating_sub(30)..=step.saturating_sub(1 + step % 7));
            if random.one_in(5) && meta.head > meta.trimmed {
                let sequence = meta.trimmed + 1 + random.below(meta.head - meta.trimmed);
                let stripped = LogEntry { change: Change::default(), ..entry(sequence) };
                batch.rewritten.push(stripped);
            }
            if random.one_in(8) && batch.meta.head > meta.trimmed {
                let upto = meta.trimmed + 1 + random.below(batch.meta.head - meta.trimmed);
                batch.trim = Some(meta.trimmed + 1..=upto);
                batch.meta.trimmed = upto;
            }
            let durability = if random.one_in(10) { Durability::Synced } else { Durability::Unsynced };
            disk.commit(&batch, durability).expect("room on the disk");
            memory.commit(&batch, durability).expect("memory");
            if random.one_in(40) {
                disk.flush().expect("a working disk");
            }
            if random.one_in(50) {
                drop(disk);
                disk = open(&folder);
                memory = memory.crash(usize::MAX);
            }
            let (after, limit) = (random.below(batch.meta.head + 3), random.below(9) as usize);
            assert_eq!(log(&disk, after, limit), log(&memory, after, limit), "step {step}");
            let user = id(u128::from(random.below(45)));
            assert_eq!(disk.get(&user), memory.get(&user), "step {step}");
            let looks = Random::new(random.next());
            let [on_disk, in_memory] = [found(&disk, &mut looks.clone()), found(&memory, &mut looks.clone())];
            assert_eq!(on_disk, in_memory, "step {step}");
            if random.one_in(20) {
                assert_eq!(content(&disk), content(&memory), "step {step}");
            }
        }
        assert_eq!(content(&disk), content(&memory));
    }
}

/// Whatever is written, written out and compacted behind it.
#[test]
fn a_snapshot_stays_as_it_is() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut disk = open(&folder);
    let reader = disk.reader();
    let (mut random, mut taken) = (Random::new(1), BTreeSet::new());
    let mut commit = |disk: &mut RocksStore| {
        let mut batch = writes(disk.meta().expect("a sound store"), random.below(6));
        let (user, version) = (id(u128::from(random.below(40))), random.next());
        batch.records.insert(user, Record::from_change(Version(version), &change(version)).into());
        let gone = id(u128::from(random.below(40)));
        batch.records.remove(&gone);
        batch.gone.insert(gone);
        derived(&mut random, &mut taken, &mut batch);
        disk.commit(&batch, Durability::Unsynced).expect("room on the disk");
    };
    let mut earlier = Vec::new();
    for step in 0..200 {
        commit(&mut disk);
        if step % 10 == 0 {
            let snapshot = reader.snapshot().expect("a sound store");
            earlier.push((content_of(&snapshot), snapshot));
        }
        if step == 150 {
            disk.flush().expect("a working disk");
        }
    }
    for (then, snapshot) in &earlier {
        assert_eq!(content_of(snapshot), *then);
        for n in 0..45 {
            let found = then.records.iter().find(|(user, _)| *user == id(n)).map(|(_, record)| record);
            assert_eq!(snapshot.get(&id(n)).expect("a sound store").as_ref(), found);
        }
    }
}

#[test]
fn a_database_is_looked_at_while_it_is_open_and_belongs_to_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut store = open(&folder);
    let meta = store.meta().expect("a sound store");
    store.commit(&writes(meta, 9), Durability::Unsynced).expect("room on the disk");

    let look = ReadOnlyStore::open(folder.path()).expect("a database");
    let snapshot = look.snapshot().expect("a sound store");
    let records: Vec<_> = snapshot.records().map(|record| record.expect("a sound store")).collect();
    assert_eq!((snapshot.meta(), records), (content(&store).meta, content(&store).records));
    assert_eq!(look.get(&id(3)), store.get(&id(3)));

    let second = RocksStore::open(folder.path(), &BlockCache::default());
    assert!(matches!(second.err(), Some(StoreError::Open { .. })), "there is one writer");
    drop(store);
    assert_eq!(open(&folder).meta().expect("a sound store").head, 9);
    let missing = ReadOnlyStore::open(&folder.path().join("nothing"));
    assert!(matches!(missing.err(), Some(StoreError::Missing { .. })));
    assert!(!folder.path().join("nothing").exists(), "looking makes no database");
}

#[test]
fn a_damaged_database_is_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut store = open(&folder);
    let meta = store.meta().expect("a sound store");
    store.commit(&writes(meta, 9), Durability::Synced).expect("room on the disk");
    store.flush().expect("a working disk");
    drop(store);

    let families = ["records", "oplog", "meta", "by_group", "by_email"];
    let raw =
        rocksdb::DB::open_cf(&rocksdb::Options::default(), folder.path(), families).expect("a database");
    let family = |name: &str| raw.cf_handle(name).expect("a column family");
    raw.put_cf(family("records"), id(3).as_bytes(), [1, 0, 7]).expect("a working disk");
    raw.delete_cf(family("oplog"), 4_u64.to_be_bytes()).expect("a working disk");
    raw.put_cf(family("oplog"), 8_u64.to_be_bytes(), [99]).expect("a working disk");
    drop(raw);

    let store = open(&folder);
    assert!(matches!(store.get(&id(3)), Err(StoreError::Unreadable { .. })));
    assert!(matches!(store.log_after(2, 9), Err(StoreError::Inconsistent(_))), "a hole");
    assert!(matches!(store.log_after(4, 9), Err(StoreError::Unreadable { .. })));
    assert_eq!(log(&store, 4, 3), Some(vec![5, 6, 7]));
    drop(store);

    let raw =
        rocksdb::DB::open_cf(&rocksdb::Options::default(), folder.path(), families).expect("a database");
    raw.delete_cf(raw.cf_handle("meta").expect("a column family"), b"state").expect("a working disk");
    drop(raw);
    let opened = RocksStore::open(folder.path(), &BlockCache::default());
    assert!(matches!(opened.err(), Some(StoreError::Inconsistent(_))), "records without a state");
}
