//! What goes on beside the batches of the writer. Records and places of indexes are put where they belong by threads of their own
//! ([`tables`]): that begins after the batch that makes it due, and ends with a later one, which drops their pages.

use std::sync::{Mutex, PoisonError};

use rocksdb::{FlushOptions, WriteBatch};

use super::tables::{Done, Flushing, Folding, Groups, Task};
use super::{FAMILIES, META, RocksStore, changed_key, memtable, pending, tables};
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

    /// The fold whose places are in the indexes by now. It is waited for where too much has come together meanwhile.
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
        self.start_to_fold(pending::enough(bulk, freezes))
    }

    /// Begins to write a memtable out that is full. Returns whether there is one.
    fn start_to_flush(&self) -> Result<bool, StoreError> {
        let Some((table, pages)) = self.memtables.freeze() else { return Ok(false) };
        let flushing = Flushing::start(&self.db, table, pages)?;
        *self.flushing.lock().unwrap_or_else(PoisonError::into_inner) = Some(flushing);
        Ok(true)
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

    /// Writes the memtable of `meta` out where nearly all that it holds is dropped pages: later there would be more to write. So it
    /// is with those of a fold that is under way.
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
