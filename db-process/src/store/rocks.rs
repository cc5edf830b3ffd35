//! The store on disk: one RocksDB database a copy, with three column families that share one write-ahead log. So a batch
//! that touches all three is one append, and one fsync where it is asked for.
//!
//! | column family | key | value |
//! |---|---|---|
//! | `records` | the 16 bytes of the id | the record |
//! | `oplog` | the sequence, 8 bytes big endian | the entry |
//! | `meta` | `state` | the state of the copy |
//!
//! A batch that asks for a sync is visible to readers only once it is on disk: RocksDB writes and syncs the log first and
//! its memtable then. So whoever reads an op-log entry can rely on its number never meaning something else.
//!
//! The settings are for small machines. What is replayed when a database is opened is bounded by the memtables, so
//! opening takes a fraction of a second however much is stored. The op-log is trimmed by deleting ranges. Many small
//! ranges would make reads slow, so whoever trims does it in large steps.

use std::path::Path;
use std::sync::Arc;

use protocol::message::replication::LogEntry;
use protocol::{Record, UserId};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, DB, DBCompressionType, Direction, IteratorMode, LogLevel,
    Options, ReadOptions, SnapshotWithThreadMode, WriteBatch, WriteOptions,
};
use uuid::Uuid;

use super::{Batch, Durability, Meta, Snapshot, Store, StoreError, encoding};

const RECORDS: &str = "records";
const OPLOG: &str = "oplog";
const META: &str = "meta";
const STATE: &[u8] = b"state";

const MIB: usize = 1 << 20;

/// Memory for blocks read from disk; the databases of a process share one.
#[derive(Clone)]
pub struct BlockCache(Cache);

impl BlockCache {
    /// At most this many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Cache::new_lru_cache(bytes))
    }
}

/// 64 MiB: what the page cache of the system holds beside it need not be here.
impl Default for BlockCache {
    fn default() -> Self {
        Self::new(64 * MIB)
    }
}

/// A copy's database on disk. Clones share it; it is closed when the last one is dropped.
#[derive(Clone)]
pub struct RocksStore {
    db: Arc<DB>,
}

impl RocksStore {
    /// Opens the database in that folder, or makes it with a new incarnation. Whoever has it open keeps others out.
    ///
    /// # Errors
    /// If it is in use, or cannot be read or written.
    pub fn open(path: &Path, cache: &BlockCache) -> Result<Self, StoreError> {
        Self::open_with(&database_options(), path, cache)
    }

    fn open_with(options: &Options, path: &Path, cache: &BlockCache) -> Result<Self, StoreError> {
        let families = [(RECORDS, 24 * MIB), (OPLOG, 8 * MIB), (META, MIB)];
        let families = families.map(|(name, memtable)| (name, family_options(cache, memtable)));
        let db = DB::open_cf_with_opts(options, path, families).map_err(cannot_open(path))?;
        let mut store = Self { db: Arc::new(db) };
        if store.read_meta()?.is_none() {
            if store.db.iterator_cf(store.family(RECORDS), IteratorMode::Start).next().is_some() {
                return Err(StoreError::Inconsistent(
                    "there are records, and no state of the copy".to_owned(),
                ));
            }
            store.commit(&Batch::new(Meta::new(Uuid::new_v4())), Durability::Synced)?;
        }
        // What a killed process left unsynced is seen by readers from now on, so it has to stay.
        store.sync()?;
        Ok(store)
    }

    /// Writes the memtables out, so that the next start has nothing to replay.
    ///
    /// # Errors
    /// If the database fails.
    pub fn flush(&self) -> Result<(), StoreError> {
        for name in [RECORDS, OPLOG, META] {
            self.db.flush_cf(self.family(name))?;
        }
        Ok(())
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("the database was opened with all its column families")
    }

    fn read_meta(&self) -> Result<Option<Meta>, StoreError> {
        let bytes = self.db.get_pinned_cf(self.family(META), STATE)?;
        bytes.map(|bytes| decode_meta(&bytes)).transpose()
    }
}

impl Store for RocksStore {
    fn get(&self, id: &UserId) -> Result<Option<Record>, StoreError> {
        let bytes = self.db.get_pinned_cf(self.family(RECORDS), id.as_bytes())?;
        bytes.map(|bytes| decode_record(id, &bytes)).transpose()
    }

    fn meta(&self) -> Result<Meta, StoreError> {
        self.read_meta()?.ok_or_else(no_state)
    }

    fn log_after(&self, sequence: u64, limit: usize) -> Result<Option<Vec<LogEntry>>, StoreError> {
        let snapshot = RocksSnapshot::of(self)?;
        if !snapshot.meta.log_reaches(sequence) {
            return Ok(None);
        }
        let wanted = snapshot.meta.head - sequence;
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX).min(limit);
        let mut entries = Vec::with_capacity(wanted);
        let start = (sequence + 1).to_be_bytes();
        let from = IteratorMode::From(&start, Direction::Forward);
        let values = snapshot.inner.iterator_cf(self.family(OPLOG), from);
        for (expected, item) in (sequence + 1..).zip(values.take(wanted)) {
            let (key, value) = item?;
            if *key != expected.to_be_bytes() {
                return Err(StoreError::Inconsistent(format!("op-log entry {expected} is missing")));
            }
            let entry = encoding::read_log_entry(expected, &value);
            entries.push(entry.map_err(StoreError::unreadable(format!("op-log entry {expected}")))?);
        }
        if entries.len() < wanted {
            let missing = sequence + 1 + entries.len() as u64;
            return Err(StoreError::Inconsistent(format!("op-log entry {missing} is missing")));
        }
        Ok(Some(entries))
    }

    fn snapshot(&self) -> Result<impl Snapshot, StoreError> {
        RocksSnapshot::of(self)
    }

    fn commit(&mut self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        let (records, oplog) = (self.family(RECORDS), self.family(OPLOG));
        let mut writes = WriteBatch::default();
        for (id, record) in &batch.records {
            writes.put_cf(records, id.as_bytes(), encoding::record(record));
        }
        for entry in &batch.log {
            writes.put_cf(oplog, entry.sequence.to_be_bytes(), encoding::log_entry(entry));
        }
        if let Some(trim) = &batch.trim {
            writes.delete_range_cf(oplog, trim.start().to_be_bytes(), (trim.end() + 1).to_be_bytes());
        }
        writes.put_cf(self.family(META), STATE, encoding::meta(&batch.meta));
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Synced);
        Ok(self.db.write_opt(writes, &options)?)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        Ok(self.db.flush_wal(true)?)
    }
}

/// The database at one moment.
struct RocksSnapshot<'a> {
    store: &'a RocksStore,
    inner: SnapshotWithThreadMode<'a, DB>,
    meta: Meta,
}

impl<'a> RocksSnapshot<'a> {
    fn of(store: &'a RocksStore) -> Result<Self, StoreError> {
        let inner = store.db.snapshot();
        let bytes = inner.get_pinned_cf(store.family(META), STATE)?.ok_or_else(no_state)?;
        let meta = decode_meta(&bytes)?;
        drop(bytes);
        Ok(Self { store, inner, meta })
    }
}

impl Snapshot for RocksSnapshot<'_> {
    fn meta(&self) -> Meta {
        self.meta
    }

    fn records(&self) -> impl Iterator<Item = Result<(UserId, Record), StoreError>> {
        let mut options = ReadOptions::default();
        // A pass over everything must not push out what callers read.
        options.fill_cache(false);
        options.set_readahead_size(MIB);
        let items = self.inner.iterator_cf_opt(self.store.family(RECORDS), options, IteratorMode::Start);
        items.map(|item| {
            let (key, value) = item?;
            let id = Uuid::from_slice(&key)
                .map_err(|_| StoreError::Inconsistent("the key of a record is not an id".to_owned()))?;
            Ok((id, decode_record(&id, &value)?))
        })
    }
}

/// A copy's database as it was when it was opened, for tools that look at it: it takes no lock and writes nothing, so the
/// process that owns it may be running.
pub struct ReadOnlyStore(RocksStore);

impl ReadOnlyStore {
    /// Opens what is in that folder.
    ///
    /// # Errors
    /// If there is no database, or it cannot be read.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        // Every database has this file. Without it RocksDB would make the folder, even to read only.
        if !path.join("CURRENT").exists() {
            return Err(StoreError::Missing { path: path.to_owned() });
        }
        let mut options = Options::default();
        options.set_max_open_files(64);
        // The owner may drop a file while it is being opened here; the next attempt sees what replaced it.
        let mut attempts = 0;
        let db = loop {
            attempts += 1;
            match DB::open_cf_for_read_only(&options, path, ["default", RECORDS, OPLOG, META], false) {
                Ok(db) => break db,
                Err(error) if attempts == 5 => return Err(cannot_open(path)(error)),
                Err(_) => {}
            }
        };
        Ok(Self(RocksStore { db: Arc::new(db) }))
    }

    /// The record of one user.
    ///
    /// # Errors
    /// As for [`Store::get`].
    pub fn get(&self, id: &UserId) -> Result<Option<Record>, StoreError> {
        self.0.get(id)
    }

    /// All records and the state.
    ///
    /// # Errors
    /// As for [`Store::snapshot`].
    pub fn snapshot(&self) -> Result<impl Snapshot, StoreError> {
        self.0.snapshot()
    }
}

fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // All memtables together, and with them the log that is replayed at a start.
    options.set_db_write_buffer_size(64 * MIB);
    options.set_max_total_wal_size(64 * MIB as u64);
    options.set_max_background_jobs(2);
    options.set_max_open_files(512);
    options.set_bytes_per_sync(MIB as u64);
    // RocksDB's own log: little of it, and few old ones.
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(4 * MIB);
    options.set_keep_log_file_num(3);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

fn family_options(cache: &BlockCache, memtable: usize) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&cache.0);
    table.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(memtable);
    options
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
    encoding::read_record(bytes).map_err(StoreError::unreadable(format!("the record of {id}")))
}

#[cfg(test)]
mod tests {
    use rocksdb::statistics::Ticker;

    use super::*;

    /// No test can cut the power, so this one counts.
    #[test]
    fn a_batch_costs_one_fsync_where_it_is_asked_for_and_none_otherwise() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut options = database_options();
        options.enable_statistics();
        let cache = BlockCache::default();
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
}
