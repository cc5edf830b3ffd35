//! The store on disk: one RocksDB database a copy, with five column families that share one write-ahead log.
//! So a batch that touches all of them is one append, and one fsync where it is asked for.
//!
//! | column family | key | value |
//! |---|---|---|
//! | `records` | the 16 bytes of the id | the record |
//! | `oplog` | the sequence, 8 bytes big endian | the entry |
//! | `meta` | `state` | the state of the copy |
//! | | `digests` | the digests of all records, as of a page of changed records |
//! | | `digested` | the number of that page |
//! | | `applied`, then the number of the page, 8 bytes big endian | versions of operations that were accepted elsewhere |
//! | | `group`, then the group as in `by_group` | the number of its live users |
//! | | `pending`, then the number of the page, 8 bytes big endian | changes that are not yet in the indexes and numbers ([`pending`]) |
//! | | `folded` | number of the last of these pages that is |
//! | | `changed`, then the number of the page, 8 bytes big endian | records that are not yet in `records` ([`memtable`]), and what they change in the digests |
//! | `by_group` | the group, 4 bytes in the order of the numbers, then the id of a live user | nothing |
//! | `by_email` | the hash of the folded email, 8 bytes big endian, then the id of a live user | nothing |
//!
//! The log is verified when the database is opened: its checksums, and that no file of it is missing or
//! short. If it is damaged, the database is opened as of the last commit before that, which the process says.
//!
//! A batch that asks for a sync is visible to readers only once it is on disk: RocksDB writes and syncs the
//! log first and its memtable then, and ours come after that. So whoever reads an op-log entry can rely on
//! its number never meaning something else.
//!
//! The digests are those in `digests` with what the pages behind `digested` change in them. They are written
//! whole in the batch that drops pages.
//!
//! A database without `digests` comes from a program that kept nothing of what follows from the records. It
//! is made from them when the database is opened ([`build`]).
//!
//! The settings ([`options`]) are for small machines. What is replayed when a database is opened is bounded
//! by the memtables, so opening takes a fraction of a second however much is stored. The op-log is trimmed by
//! deleting ranges, and so are the pages of applied operations. Many small ranges would make reads slow, so
//! whoever trims does it in large steps.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::message::replication::LogEntry;
use protocol::{Record, UserId};
use rocksdb::{ColumnFamily, DB, ErrorKind, IteratorMode, Options, WriteBatch, WriteOptions};
use uuid::Uuid;

use super::{Batch, Digests, Durability, Meta, Snapshot, Store, StoreError, encoding};

mod build;
mod latest;
mod look;
mod memtable;
mod merge;
mod options;
mod pending;
mod snapshot;
mod tables;
mod upkeep;

pub use latest::CAPACITY as LATEST_ENTRIES;
use latest::Latest;
pub use look::ReadOnlyStore;
use memtable::{CHANGED, Memtables};
pub use options::BlockCache;
use pending::{FOLDED, PENDING, Pending};
use snapshot::RocksSnapshot;
use tables::{Done, Flushing, Folding, Scatter};

const RECORDS: &str = "records";
const OPLOG: &str = "oplog";
const META: &str = "meta";
const BY_GROUP: &str = "by_group";
const BY_EMAIL: &str = "by_email";
const FAMILIES: [&str; 5] = [RECORDS, OPLOG, META, BY_GROUP, BY_EMAIL];

const STATE: &[u8] = b"state";
const DIGESTS: &[u8] = b"digests";
const DIGESTED: &[u8] = b"digested";
/// What the key of a page of applied operations begins with.
const APPLIED: &[u8] = b"applied";
/// What the key of a group's number begins with.
const GROUP: &[u8] = b"group";

/// A copy's database on disk. Clones share it; it is closed when the last one is dropped.
#[derive(Clone)]
pub struct RocksStore {
    db: Arc<DB>,
    latest: Arc<Latest>,
    memtables: Arc<Memtables>,
    /// As of the last batch; `None` where none are kept yet.
    digests: Arc<Mutex<Option<Box<Digests>>>>,
    /// What is on its way from there into the records.
    flushing: Arc<Mutex<Option<Flushing>>>,
    pending: Arc<Mutex<Pending>>,
    /// What is on its way from there into the indexes.
    folding: Arc<Mutex<Option<Folding>>>,
    /// Pages of changed records were dropped, and the memtable of `meta` still holds them. For the writer
    /// alone.
    holds_dropped: bool,
    /// More tables than usual come together before they are merged. For the writer alone.
    merges_later: bool,
    scatter: Scatter,
}

impl RocksStore {
    /// Opens the database in that folder, or makes it with a new incarnation. Whoever has it open keeps
    /// others out.
    ///
    /// # Errors
    /// If it is in use, or cannot be read or written.
    pub fn open(path: &Path, cache: &BlockCache) -> Result<Self, StoreError> {
        look::check_complete(path)?;
        Self::open_with(&options::database(cache), path, cache)
    }

    fn open_with(options: &Options, path: &Path, cache: &BlockCache) -> Result<Self, StoreError> {
        let mut store = Self::of(open_database(options, path, cache)?);
        match store.read_meta()? {
            Some(meta) => {
                store.read_memtables()?;
                if store.db.get_pinned_cf(store.family(META), DIGESTS)?.is_none() {
                    build::derived(&mut store, meta)?;
                } else {
                    let snapshot = RocksSnapshot::of(&store)?;
                    let (pending, digests, digested) =
                        (snapshot.read_pending()?, snapshot.digests()?, snapshot.digested()?);
                    drop(snapshot);
                    *store.pending() = pending;
                    *store.digests() = Some(digests);
                    store.count_pages_from(digested)?;
                }
            }
            None => {
                if store.last_kept()?.is_some() {
                    return Err(StoreError::Inconsistent(
                        "there are records, and no state of the copy".to_owned(),
                    ));
                }
                store.memtables.last_kept(None);
                let mut batch = Batch::new(Meta::new(Uuid::new_v4()));
                batch.derived.digests = Some(Digests::new());
                store.commit(&batch, Durability::Synced)?;
            }
        }
        store.scatter = Scatter::of(&store.meta()?.incarnation);
        store.memtables.scatter(store.scatter);
        // What a killed process left unsynced is seen by readers from now on, so it has to stay.
        store.sync()?;
        Ok(store)
    }

    /// With nothing of what it holds in memory yet.
    fn of(db: DB) -> Self {
        Self {
            db: Arc::new(db),
            latest: Arc::default(),
            memtables: Arc::default(),
            digests: Arc::default(),
            flushing: Arc::default(),
            pending: Arc::default(),
            folding: Arc::default(),
            holds_dropped: false,
            merges_later: false,
            scatter: Scatter::default(),
        }
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("the database was opened with all its column families")
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // It is changed in single steps, after what they stand for was written, so a panic elsewhere cannot
        // harm it.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn digests(&self) -> MutexGuard<'_, Option<Box<Digests>>> {
        // The same holds here.
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_meta(&self) -> Result<Option<Meta>, StoreError> {
        let bytes = self.db.get_pinned_cf(self.family(META), STATE)?;
        bytes.map(|bytes| decode_meta(&bytes)).transpose()
    }
}

impl RocksStore {
    /// Takes the pages that an earlier process left into memory.
    fn read_memtables(&mut self) -> Result<(), StoreError> {
        let latest = RocksSnapshot::of(self)?.latest_memtable();
        self.memtables = Arc::new(Memtables::new(latest));
        self.memtables.last_kept(self.last_kept()?);
        Ok(())
    }

    /// The last user in the column family of the records.
    fn last_kept(&self) -> Result<Option<UserId>, StoreError> {
        let last = self.db.iterator_cf(self.family(RECORDS), IteratorMode::End).next();
        last.map(|item| record_key(&item?.0)).transpose()
    }

    /// Pages are numbered behind the last one that is there, and from 1 on where there is none. So `digested`
    /// may be the number of a page that is yet to come.
    fn count_pages_from(&self, digested: u64) -> Result<(), StoreError> {
        let last = self.memtables.next_page() - 1;
        if digested > last {
            self.db.put_cf(self.family(META), DIGESTED, encoding::count(last))?;
        }
        Ok(())
    }

    /// Writes all digests, as of that page.
    fn put_digests(&self, writes: &mut WriteBatch, digests: &Digests, page: u64) {
        writes.put_cf(self.family(META), DIGESTS, encoding::digests(digests));
        writes.put_cf(self.family(META), DIGESTED, encoding::count(page));
    }
}

impl Store for RocksStore {
    fn get(&self, id: &UserId) -> Result<Option<Record>, StoreError> {
        if let Some(found) = self.memtables.get_many(std::slice::from_ref(id))?.pop().flatten() {
            return Ok(found);
        }
        let bytes = self.db.get_pinned_cf(self.family(RECORDS), id.as_bytes())?;
        bytes.map(|bytes| decode_record(id, &bytes)).transpose()
    }

    fn get_many(&self, ids: &[UserId]) -> Result<Vec<Option<Record>>, StoreError> {
        // The memtables first: what leaves them meanwhile is found behind them.
        let mut found = self.memtables.get_many(ids)?;
        let unknown: Vec<_> = ids.iter().zip(&mut found).filter(|(_, found)| found.is_none()).collect();
        if !unknown.is_empty() {
            let keys = unknown.iter().map(|(id, _)| id.as_bytes());
            let looked_up = self.db.batched_multi_get_cf(self.family(RECORDS), keys, false);
            for ((id, found), bytes) in unknown.into_iter().zip(looked_up) {
                *found = Some(bytes?.map(|bytes| decode_record(id, &bytes)).transpose()?);
            }
        }
        Ok(found.into_iter().map(Option::flatten).collect())
    }

    fn meta(&self) -> Result<Meta, StoreError> {
        self.read_meta()?.ok_or_else(no_state)
    }

    fn group_count(&self, group: i32) -> Result<u64, StoreError> {
        RocksSnapshot::of(self)?.group_count(group)
    }

    fn log_after(&self, sequence: u64, limit: usize) -> Result<Option<Vec<LogEntry>>, StoreError> {
        if let Some(entries) = self.latest.after(sequence, limit) {
            return Ok(Some(entries));
        }
        let snapshot = RocksSnapshot::of(self)?;
        if !snapshot.meta().log_reaches(sequence) {
            return Ok(None);
        }
        snapshot.log(sequence).take(limit).collect::<Result<_, _>>().map(Some)
    }

    fn snapshot(&self) -> Result<impl Snapshot, StoreError> {
        RocksSnapshot::of(self)
    }

    fn commit(&mut self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        let (oplog, meta) = (self.family(OPLOG), self.family(META));
        let mut writes = WriteBatch::default();
        let flushed = self.finished_flush()?;
        if let Some(Done { pages, .. }) = &flushed {
            writes.delete_range_cf(meta, changed_key(*pages.start()), changed_key(pages.end() + 1));
        }
        let (number, mut kept) = (self.memtables.next_page(), self.digests());
        let changes = !batch.records.is_empty() || !batch.gone.is_empty();
        let changed = changes.then(|| {
            let (before, after) = (kept.as_deref(), batch.derived.digests.as_deref());
            let digests = before.zip(after).map(|(before, after)| after.since(before));
            encoding::changed(&batch.records, &batch.gone, &digests.unwrap_or_default())
        });
        if let Some(changed) = &changed {
            writes.put_cf(meta, changed_key(number), changed);
        }
        let told_by_the_page = changes && kept.is_some();
        let whole = flushed.is_some() || (batch.derived.digests.is_some() && !told_by_the_page);
        if let Some(digests) = batch.derived.digests.as_ref().or(kept.as_ref()).filter(|_| whole) {
            self.put_digests(&mut writes, digests, if changes { number } else { number - 1 });
        }
        for entry in &batch.log {
            writes.put_cf(oplog, entry.sequence.to_be_bytes(), encoding::log_entry(entry));
        }
        if let Some(trim) = &batch.trim {
            writes.delete_range_cf(oplog, trim.start().to_be_bytes(), (trim.end() + 1).to_be_bytes());
        }
        if let Some((page, versions)) = &batch.applied {
            writes.put_cf(meta, page_key(*page), encoding::applied(versions));
        }
        if let Some(forget) = &batch.forget {
            writes.delete_range_cf(meta, page_key(*forget.start()), page_key(forget.end() + 1));
        }
        let folded = self.finished_fold(batch.bulk)?;
        if let Some(folded) = &folded {
            for (group, users) in &folded.made {
                match users {
                    0 => writes.delete_cf(meta, group_key(*group)),
                    users => writes.put_cf(meta, group_key(*group), encoding::count(*users)),
                }
            }
            for page in folded.pages.clone() {
                writes.delete_cf(meta, pending_key(page));
            }
            writes.put_cf(meta, FOLDED, encoding::count(*folded.pages.end()));
        }
        let page = self.pending().page_for(&batch.derived);
        if let Some(page) = page {
            writes.put_cf(meta, pending_key(page), encoding::pending(&batch.derived));
        }
        writes.put_cf(meta, STATE, encoding::meta(&batch.meta));
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Synced);
        self.db.write_opt(writes, &options)?;
        if let Some(digests) = &batch.derived.digests {
            *kept = Some(digests.clone());
        }
        drop(kept);
        if folded.is_some() || page.is_some() {
            let mut pending = self.pending();
            if let Some(folded) = folded {
                pending.folded(&folded.pages);
            }
            if page.is_some() {
                pending.add(&batch.derived);
            }
        }
        if let Some(changed) = changed {
            self.memtables.add(changed).map_err(StoreError::unreadable("a page of changed records"))?;
        }
        if flushed.is_some() {
            self.memtables.flushed();
            self.holds_dropped = true;
        }
        self.begin_what_is_due(batch.bulk)?;
        self.latest.add(&batch.log);
        if let Some(trim) = &batch.trim {
            self.latest.trim(*trim.end());
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        Ok(self.db.flush_wal(true)?)
    }
}

/// Four bytes that are in the order of the numbers.
fn ordered(group: i32) -> [u8; 4] {
    (group.cast_unsigned() ^ (1 << 31)).to_be_bytes()
}

fn group_of(bytes: [u8; 4]) -> i32 {
    (u32::from_be_bytes(bytes) ^ (1 << 31)).cast_signed()
}

/// The key of a group's number.
fn group_key(group: i32) -> [u8; GROUP.len() + 4] {
    joined(GROUP, &ordered(group))
}

/// The key of a page of applied operations.
fn page_key(page: u64) -> [u8; APPLIED.len() + 8] {
    joined(APPLIED, &page.to_be_bytes())
}

/// The key of a page of pending changes.
fn pending_key(page: u64) -> [u8; PENDING.len() + 8] {
    joined(PENDING, &page.to_be_bytes())
}

/// The key of a page of changed records.
fn changed_key(page: u64) -> [u8; CHANGED.len() + 8] {
    joined(CHANGED, &page.to_be_bytes())
}

/// The place of a user in the index by group.
fn in_group(group: i32, id: &UserId) -> [u8; 20] {
    joined(&ordered(group), id.as_bytes())
}

/// The place of a user in the index by email.
fn with_email(hash: u64, id: &UserId) -> [u8; 24] {
    joined(&hash.to_be_bytes(), id.as_bytes())
}

/// One after the other; together they are `N` bytes.
fn joined<const N: usize>(first: &[u8], second: &[u8]) -> [u8; N] {
    let mut key = [0; N];
    key[..first.len()].copy_from_slice(first);
    key[first.len()..].copy_from_slice(second);
    key
}

/// Opens a database whose log is sound, or that ends before the place where it is damaged: then the log of
/// the process says so. What was lost behind that place is found out by the number of the last commit (see
/// [`crate::copy::rollback`]): a power cut may damage what was never synced.
fn open_database(options: &Options, path: &Path, cache: &BlockCache) -> Result<DB, StoreError> {
    let open = |options: &Options| {
        let families = FAMILIES.map(|name| (name, options::family(name, cache)));
        DB::open_cf_with_opts(options, path, families)
    };
    let strict = match open(&options::verifying_log(options)) {
        Err(error) if error.kind() == ErrorKind::Corruption => error,
        opened => return opened.map_err(cannot_open(path)),
    };
    match open(options) {
        Ok(db) => {
            let folder = path.display();
            tracing::warn!(%folder, error = %strict, "the end of the database's log is damaged: it is opened without it");
            Ok(db)
        }
        Err(error) if error.as_ref().contains("ahead of WAL") => {
            Err(StoreError::LogDamaged { path: path.into(), source: strict })
        }
        Err(error) => Err(cannot_open(path)(error)),
    }
}

/// The user whose record has that key.
fn record_key(key: &[u8]) -> Result<UserId, StoreError> {
    Uuid::from_slice(key).map_err(|_| StoreError::Inconsistent("the key of a record is not an id".to_owned()))
}

fn cannot_open(path: &Path) -> impl FnOnce(rocksdb::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Open { path, source }
}

fn no_state() -> StoreError {
    StoreError::Inconsistent("the state of the copy is missing".to_owned())
}

fn decode_meta(bytes: &[u8]) -> Result<Meta, StoreError> {
    encoding::read_meta(bytes).map_err(StoreError::unreadable("the state of the copy"))
}

fn decode_record(id: &UserId, bytes: &[u8]) -> Result<Record, StoreError> {
    encoding::read_record(bytes).map_err(StoreError::unreadable(format_args!("the record of {id}")))
}

/// The number of users of a group, from what is kept, if anything is, and what is pending.
fn count(group: i32, kept: Option<&[u8]>, pending: i64) -> Result<u64, StoreError> {
    let kept = kept.map_or(Ok(0), encoding::read_count);
    let kept = kept.map_err(StoreError::unreadable(format_args!("the number of users of group {group}")))?;
    let fewer = || StoreError::Inconsistent(format!("more users have left group {group} than were in it"));
    kept.checked_add_signed(pending).ok_or_else(fewer)
}

#[cfg(test)]
mod tests {
    use protocol::{Change, Version};
    use rocksdb::statistics::Ticker;

    use super::*;

    /// No test can cut the power, so this one counts.
    #[test]
    fn a_batch_costs_one_fsync_where_it_is_asked_for_and_none_otherwise() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cache = BlockCache::default();
        let mut options = options::database(&cache);
        options.enable_statistics();
        let mut store =
            RocksStore::open_with(&options, folder.path(), &cache).expect("a folder that can be written");
        let mut batch = Batch::new(store.meta().expect("a sound store"));
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

    /// Such a program wrote all digests in each batch, and numbered its pages from 1 on after an orderly
    /// stop.
    #[test]
    fn digests_of_an_earlier_program_are_taken_as_they_are() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let open = || RocksStore::open(folder.path(), &BlockCache::default()).expect("a database");
        let kept = |store: &RocksStore| store.snapshot().expect("a database").digests().expect("digests");
        let record = || Record::from_change(Version(1), &Change { alive: Some(true), ..Change::default() });
        let mut digests = Digests::new();
        let mut put = |store: &mut RocksStore, user: u128| {
            let mut batch = Batch::new(store.meta().expect("a database"));
            batch.records.insert(Uuid::from_u128(user), record().into());
            digests.toggle(&Uuid::from_u128(user), &user.to_be_bytes());
            batch.derived.digests = Some(digests.clone());
            store.commit(&batch, Durability::Synced).expect("room on the disk");
            (encoding::changed(&batch.records, &batch.gone, &[]), digests.clone())
        };
        let mut store = open();
        for user in 1..=5 {
            put(&mut store, user);
        }
        store.flush().expect("a working disk");
        let (page, whole) = put(&mut store, 6);
        drop(store);

        let raw = DB::open_cf(&Options::default(), folder.path(), FAMILIES).expect("a database");
        let family = raw.cf_handle(META).expect("a column family");
        raw.delete_cf(family, changed_key(6)).expect("a working disk");
        raw.put_cf(family, changed_key(1), page).expect("a working disk");
        raw.put_cf(family, DIGESTS, encoding::digests(&whole)).expect("a working disk");
        drop(raw);

        let mut store = open();
        assert_eq!(kept(&store), whole);
        let (_, whole) = put(&mut store, 7);
        assert_eq!(kept(&store), whole);
        drop(store);
        assert_eq!(kept(&open()), whole);
    }

    /// A process that is killed while RocksDB takes a table in may leave it under both of its names.
    #[test]
    fn a_table_that_was_just_taken_in_is_not_overwritten_by_the_next_one() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let open = || RocksStore::open(folder.path(), &BlockCache::default()).expect("a database");
        let put = |store: &mut RocksStore, users: std::ops::Range<u128>| {
            let mut batch = Batch::new(store.meta().expect("a database"));
            for user in users {
                let change = Change { alive: Some(true), ..Change::default() };
                batch.records.insert(Uuid::from_u128(user), Record::from_change(Version(1), &change).into());
            }
            store.commit(&batch, Durability::Synced).expect("room on the disk");
            store.flush().expect("a working disk");
        };
        let mut store = open();
        put(&mut store, 0..100);
        let files = store.db.live_files().expect("a database");
        let table = files.iter().find(|file| file.column_family_name == RECORDS).expect("a table of records");
        let name = table.name.trim_start_matches('/');
        std::fs::hard_link(folder.path().join(name), folder.path().join("records.table")).expect("a name");
        drop(store);
        let mut store = open();
        put(&mut store, 100..110);
        drop(store);
        let store = open();
        let records = store.snapshot().expect("a database").records().filter(Result::is_ok).count();
        assert_eq!(records, 110);
    }

    #[test]
    fn groups_are_in_the_order_of_their_numbers() {
        let groups = [i32::MIN, -7, -1, 0, 1, 8, i32::MAX];
        assert!(groups.map(ordered).is_sorted());
        assert_eq!(groups.map(|group| group_of(ordered(group))), groups);
    }
}
