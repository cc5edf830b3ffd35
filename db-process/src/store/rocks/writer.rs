//! Writing: on the one thread that owns the database.

use std::path::Path;

use protocol::message::replication::LogEntry;
use protocol::{Record, UserId};
use rocksdb::{ColumnFamily, IteratorMode, Options, WriteBatch, WriteOptions};
use uuid::Uuid;

use super::index_flush::{FlushJitter, Flushed, IndexFlush};
use super::open::open_database;
use super::options::{self, BlockCache};
use super::reader::RocksReader;
use super::schema::{
    APPLIED, BY_EMAIL, BY_GROUP, DIGESTS, FOLDED, META, OPLOG, PENDING, RECORDS, STATE, group_key, page_key,
};
use super::snapshot::RocksSnapshot;
use super::{indexes, upgrade};
use crate::background::lock;
use crate::store::{Batch, Derived, Digests, Durability, Meta, Snapshot, Store, StoreError, encoding};

/// A copy's database on disk, owned by whatever writes to it. Others [read](Self::reader).
pub struct RocksStore {
    reader: RocksReader,
    index_flush: Option<IndexFlush>,
    jitter: FlushJitter,
    /// More tables than usual come together before they are merged.
    compaction_trigger_raised: bool,
}

impl RocksStore {
    /// Opens the database in that folder, or makes it with a new incarnation. Meanwhile no other process can
    /// open it.
    ///
    /// # Errors
    /// If it is in use, or cannot be read or written.
    pub fn open(path: &Path, cache: &BlockCache) -> Result<Self, StoreError> {
        Self::open_with(&options::database(cache), path, cache)
    }

    pub(super) fn open_with(options: &Options, path: &Path, cache: &BlockCache) -> Result<Self, StoreError> {
        let reader = RocksReader::of(open_database(options, path, cache)?);
        let jitter = FlushJitter::default();
        let mut store = Self { reader, index_flush: None, jitter, compaction_trigger_raised: false };
        match store.reader.read_meta()? {
            Some(meta) => store.read_back(meta)?,
            None => store.initialize()?,
        }
        store.jitter = FlushJitter::of(&store.meta()?.incarnation);
        // What a killed process left unsynced is visible from now on, so it has to stay.
        store.sync()?;
        Ok(store)
    }

    /// Takes over what an earlier process left, in the format of this program.
    fn read_back(&mut self, meta: Meta) -> Result<(), StoreError> {
        upgrade::move_records(&self.reader)?;
        if self.reader.db.get_pinned_cf(self.family(META), DIGESTS)?.is_none() {
            return upgrade::derive(&self.reader(), self, meta);
        }
        let pending = RocksSnapshot::of(&self.reader)?.read_pending()?;
        *lock(&self.reader.pending) = pending;
        Ok(())
    }

    fn initialize(&mut self) -> Result<(), StoreError> {
        if self.reader.db.iterator_cf(self.family(RECORDS), IteratorMode::Start).next().is_some() {
            let error = "there are records, and no state of the copy";
            return Err(StoreError::Inconsistent(error.to_owned()));
        }
        let mut batch = Batch::new(Meta::new(Uuid::new_v4()));
        batch.derived.digests = Some(Digests::new());
        self.commit(&batch, Durability::Synced)
    }

    /// The same database, to be read elsewhere.
    pub fn reader(&self) -> RocksReader {
        self.reader.clone()
    }

    /// Flushes all memtables, so that the next start has nothing to replay.
    ///
    /// # Errors
    /// If the database fails.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.reader.flush()
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.reader.family(name)
    }
}

/// The parts of a commit.
impl RocksStore {
    fn put_records(&self, writes: &mut WriteBatch, batch: &Batch) {
        let records = self.family(RECORDS);
        // In the order of the ids, which makes insertions into a memtable cheaper.
        for (id, put) in &batch.records {
            writes.put_cf(records, id.as_bytes(), &put.bytes);
        }
        for id in &batch.gone {
            writes.delete_cf(records, id.as_bytes());
        }
        if let Some(digests) = &batch.derived.digests {
            writes.put_cf(self.family(META), DIGESTS, encoding::digests(digests));
        }
    }

    fn put_log(&self, writes: &mut WriteBatch, batch: &Batch) {
        let oplog = self.family(OPLOG);
        for entry in batch.rewritten.iter().chain(&batch.log) {
            writes.put_cf(oplog, entry.sequence.to_be_bytes(), encoding::log_entry(entry));
        }
        if let Some(trim) = &batch.trim {
            writes.delete_range_cf(oplog, trim.start().to_be_bytes(), (trim.end() + 1).to_be_bytes());
        }
    }

    fn put_applied(&self, writes: &mut WriteBatch, batch: &Batch) {
        let meta = self.family(META);
        if let Some((page, versions)) = &batch.applied {
            writes.put_cf(meta, page_key(APPLIED, *page), encoding::applied(versions));
        }
        if let Some(pages) = &batch.forget {
            writes.delete_range_cf(
                meta,
                page_key(APPLIED, *pages.start()),
                page_key(APPLIED, pages.end() + 1),
            );
        }
    }

    /// Puts the changes of indexes and counts onto a page.
    fn put_index_changes(&self, writes: &mut WriteBatch, changes: &Derived) {
        if let Some(page) = lock(&self.reader.pending).page_for(changes) {
            writes.put_cf(self.family(META), page_key(PENDING, page), encoding::pending(changes));
        }
    }

    /// Puts the counts of a finished flush, and drops its pages.
    fn put_counts(&self, writes: &mut WriteBatch, Flushed { counts, pages }: &Flushed) {
        let meta = self.family(META);
        for (group, users) in counts {
            match users {
                0 => writes.delete_cf(meta, group_key(*group)),
                users => writes.put_cf(meta, group_key(*group), encoding::count(*users)),
            }
        }
        for page in pages.clone() {
            writes.delete_cf(meta, page_key(PENDING, page));
        }
        writes.put_cf(meta, FOLDED, encoding::count(*pages.end()));
    }

    /// Adds to what is in memory what was written.
    fn remember(&self, batch: &Batch, flushed: Option<Flushed>) {
        let mut pending = lock(&self.reader.pending);
        if let Some(Flushed { pages, .. }) = flushed {
            pending.flushed(&pages);
        }
        if pending.page_for(&batch.derived).is_some() {
            pending.add(&batch.derived);
        }
        drop(pending);
        self.reader.recent.add(batch);
        self.reader.latest.rewrite(&batch.rewritten);
        self.reader.latest.add(&batch.log);
        if let Some(trim) = &batch.trim {
            self.reader.latest.trim(*trim.end());
        }
    }

    /// The flush of the indexes, if it has ended. The writer waits for it where too many changes have come
    /// together meanwhile.
    fn finished_index_flush(&mut self, bulk: bool) -> Result<Option<Flushed>, StoreError> {
        let waits = lock(&self.reader.pending).changes().len() >= indexes::most(bulk);
        let finished = self.index_flush.take_if(|flush| waits || flush.is_finished());
        finished.map(IndexFlush::finish).transpose()
    }

    /// Begins a flush of the indexes, if there are enough changes.
    fn schedule_index_flush(&mut self, bulk: bool) -> Result<(), StoreError> {
        if self.index_flush.is_none() {
            let pending = lock(&self.reader.pending);
            let (changes, pages) = (pending.changes(), pending.pages());
            if changes.len() >= self.jitter.apply(indexes::enough(bulk), *pages.start()) {
                let changes = changes.to_vec();
                drop(pending);
                self.index_flush = Some(IndexFlush::start(self.reader(), changes, pages)?);
                self.raise_compaction_trigger(bulk)?;
            }
        }
        Ok(())
    }

    /// In bulk more tables come together before they are merged: a copy that is far behind is not read, so
    /// that can wait until all is there. RocksDB writes its settings to disk each time, so this changes with
    /// a flush and not with a batch. A database that is opened has the usual ones.
    fn raise_compaction_trigger(&mut self, bulk: bool) -> Result<(), StoreError> {
        if self.compaction_trigger_raised != bulk {
            for name in [RECORDS, BY_GROUP, BY_EMAIL] {
                let tables = options::tables_before_merge(name, bulk).to_string();
                let setting = [(options::COMPACTION_TRIGGER, tables.as_str())];
                self.reader.db.set_options_cf(self.family(name), &setting)?;
            }
            self.compaction_trigger_raised = bulk;
        }
        Ok(())
    }

    /// Whether changes are on their way into the indexes.
    #[cfg(test)]
    pub(crate) fn flushes_indexes(&self) -> bool {
        self.index_flush.as_ref().is_some_and(|flush| !flush.is_finished())
    }
}

impl Store for RocksStore {
    fn get(&self, id: &UserId) -> Result<Option<Record>, StoreError> {
        self.reader.get(id)
    }

    fn get_many(&self, ids: &[UserId]) -> Result<Vec<Option<Record>>, StoreError> {
        self.reader.get_many(ids)
    }

    fn meta(&self) -> Result<Meta, StoreError> {
        self.reader.meta()
    }

    fn group_count(&self, group: i32) -> Result<u64, StoreError> {
        self.reader.group_count(group)
    }

    fn log_after(&self, sequence: u64, limit: usize) -> Result<Option<Vec<LogEntry>>, StoreError> {
        self.reader.log_after(sequence, limit)
    }

    fn snapshot(&self) -> Result<impl Snapshot, StoreError> {
        self.reader.snapshot()
    }

    fn commit(&mut self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        let flushed = self.finished_index_flush(batch.bulk)?;
        let mut writes = WriteBatch::default();
        self.put_records(&mut writes, batch);
        self.put_log(&mut writes, batch);
        self.put_applied(&mut writes, batch);
        self.put_index_changes(&mut writes, &batch.derived);
        if let Some(flushed) = &flushed {
            self.put_counts(&mut writes, flushed);
        }
        writes.put_cf(self.family(META), STATE, encoding::meta(&batch.meta));

        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Synced);
        self.reader.db.write_opt(writes, &options)?;

        self.remember(batch, flushed);
        self.schedule_index_flush(batch.bulk)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.reader.sync()
    }
}
