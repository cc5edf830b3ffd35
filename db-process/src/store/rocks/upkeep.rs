//! What goes on beside the batches of the writer. Records and places of indexes are put where they belong by
//! threads of their own ([`tables`]): that begins after the batch that makes it due, and ends with a later
//! one, which drops their pages.

use std::sync::{Mutex, PoisonError};

use rocksdb::{FlushOptions, WriteBatch};

use super::tables::{Done, Flushing, Folding, Groups, Task};
use super::{
    BY_EMAIL, BY_GROUP, FAMILIES, META, RECORDS, RocksStore, changed_key, memtable, options, pending, tables,
};
use crate::store::StoreError;

impl RocksStore {
    /// Writes the memtables out, so that the next start has nothing to replay.
    ///
    /// # Errors
    /// If the database fails.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.end_flush(finished(&self.flushing, true)?)?;
        if let Some((table, pages)) = self.memtables.freeze_any() {
            tables::flush(&self.db, &memtable::read(&table))?;
            self.end_flush(Some(Done { made: (), pages }))?;
        }
        for name in FAMILIES {
            self.db.flush_cf(self.family(name))?;
        }
        Ok(())
    }

    /// The fold whose places are in the indexes by now. It is waited for where too much has come together
    /// meanwhile.
    pub(super) fn finished_fold(&self, bulk: bool) -> Result<Option<Done<Groups>>, StoreError> {
        finished(&self.folding, self.pending().len() >= pending::most(bulk))
    }

    /// The same for the records.
    pub(super) fn finished_flush(&self) -> Result<Option<Done<()>>, StoreError> {
        finished(&self.flushing, self.memtables.is_stalled())
    }

    /// Drops the pages of a memtable that is written out, without a batch of its writer.
    fn end_flush(&self, flushed: Option<Done<()>>) -> Result<(), StoreError> {
        if let Some(Done { pages, .. }) = flushed {
            let mut writes = WriteBatch::default();
            let (first, end) = (changed_key(*pages.start()), changed_key(pages.end() + 1));
            writes.delete_range_cf(self.family(META), first, end);
            if let Some(digests) = self.digests().as_deref() {
                self.put_digests(&mut writes, digests, self.memtables.next_page() - 1);
            }
            self.db.write(writes)?;
            self.memtables.flushed();
        }
        Ok(())
    }

    /// Begins what the batch that was just written makes due.
    ///
    /// # Errors
    /// If the database fails, or the system gives no thread.
    pub(super) fn begin_what_is_due(&mut self, bulk: bool) -> Result<(), StoreError> {
        self.write_meta_out()?;
        let freezes = self.start_to_flush()?;
        if freezes {
            self.merge_later(bulk)?;
        }
        self.start_to_fold(pending::enough(bulk, freezes))
    }

    /// Begins to write a memtable out that is full. Returns whether there is one.
    fn start_to_flush(&self) -> Result<bool, StoreError> {
        let Some((table, pages)) = self.memtables.freeze() else { return Ok(false) };
        let flushing = Flushing::start(&self.db, table, pages)?;
        *self.flushing.lock().unwrap_or_else(PoisonError::into_inner) = Some(flushing);
        Ok(true)
    }

    /// In bulk more tables come together before they are merged: nobody reads a copy that has some way to go,
    /// so what it is merged for can wait until all is there. RocksDB writes its settings to disk each time,
    /// so that changes with a memtable and not with a batch; a database that is opened has the usual ones.
    fn merge_later(&mut self, bulk: bool) -> Result<(), StoreError> {
        if self.merges_later != bulk {
            for name in [RECORDS, BY_GROUP, BY_EMAIL] {
                let tables = options::before_merge(name, bulk).to_string();
                self.db.set_options_cf(self.family(name), &[(options::BEFORE_MERGE, &tables)])?;
            }
            self.merges_later = bulk;
        }
        Ok(())
    }

    /// Begins to put the pending changes where they belong, once they are about so many.
    fn start_to_fold(&self, enough: usize) -> Result<(), StoreError> {
        let mut folding = self.folding.lock().unwrap_or_else(PoisonError::into_inner);
        if folding.is_none() {
            let pending = self.pending();
            if pending.len() >= self.scatter.bound(enough, pending.last_folded()) {
                let fold = pending.fold();
                drop(pending);
                *folding = Some(Folding::start(&self.db, fold)?);
            }
        }
        Ok(())
    }

    /// Whether changes are on their way into the indexes.
    #[cfg(test)]
    pub(crate) fn folds(&self) -> bool {
        let folding = self.folding.lock().unwrap_or_else(PoisonError::into_inner);
        folding.as_ref().is_some_and(|folding| !folding.is_finished())
    }

    /// Writes the memtable of `meta` out where nearly all that it holds is dropped pages: later there would
    /// be more to write. So it is with those of a fold that is under way.
    fn write_meta_out(&mut self) -> Result<(), StoreError> {
        let folds = self.folding.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if self.holds_dropped && !folds {
            let mut options = FlushOptions::default();
            options.set_wait(false);
            self.db.flush_cf_opt(self.family(META), &options)?;
            self.holds_dropped = false;
        }
        Ok(())
    }
}

/// What a task came to that is finished, or is to be waited for.
fn finished<T: Send + 'static>(
    task: &Mutex<Option<Task<T>>>,
    wait: bool,
) -> Result<Option<Done<T>>, StoreError> {
    let mut task = task.lock().unwrap_or_else(PoisonError::into_inner);
    task.take_if(|task| wait || task.is_finished()).map(Task::finish).transpose()
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;
    use std::thread::yield_now;
    use std::time::{Duration, Instant};

    use protocol::{Change, Record, Version};
    use rocksdb::properties::{COMPACTION_PENDING, NUM_RUNNING_COMPACTIONS, num_files_at_level};
    use uuid::Uuid;

    use super::*;
    use crate::store::{Batch, BlockCache, Durability, Store};

    #[test]
    fn in_bulk_tables_are_merged_later() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut store = RocksStore::open(folder.path(), &BlockCache::default()).expect("a database");
        // Each fills a memtable; two are one table where the one before is still being written. And none of
        // the tables lies beside another one.
        let write = |store: &mut RocksStore, bulk| {
            let mut batch = Batch::new(store.meta().expect("a database"));
            for user in [Uuid::nil(), Uuid::max()] {
                let change = Change { alive: Some(true), name: Some("x".repeat(2_000)), ..Change::default() };
                batch.records.insert(user, Record::from_change(Version(1), &change).into());
            }
            batch.bulk = bulk;
            store.commit(&batch, Durability::Unsynced).expect("room on the disk");
        };
        let number = |store: &RocksStore, name: &CStr| {
            let number = store.db.property_int_value_cf(store.family(RECORDS), name);
            number.expect("a database").expect("a number that there is")
        };
        let tables = |store: &RocksStore| number(store, num_files_at_level(0).as_ref());
        for _ in 0..50 {
            if tables(&store) < 16 {
                write(&mut store, true);
            }
        }
        store.flush().expect("a working disk");
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
}
