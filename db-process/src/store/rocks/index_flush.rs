//! Flushing the [indexes](super::indexes): changes become sorted tables that RocksDB ingests. It waits for
//! the disk several times, so it has a thread of its own.
//!
//! To write a table takes tens of milliseconds, and has background priority. To sync the log and to ingest a
//! table takes one, but the writer may have to wait for it: that has the priority of the writer.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::thread::{JoinHandle, yield_now};

use rocksdb::{IngestExternalFileOptions, SstFileWriter};
use uuid::Uuid;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::indexes::{PlaceChange, counts};
use super::options;
use super::reader::RocksReader;
use super::schema::{BY_EMAIL, BY_GROUP, META, count, group_key, place_key};
use crate::background::{in_background, spawn};
use crate::store::{IndexKey, StoreError};

/// Pages whose changes are being flushed. To drop it is to wait for that.
#[derive(Debug)]
pub(super) struct IndexFlush {
    pages: RangeInclusive<u64>,
    thread: Option<JoinHandle<Result<Counts, StoreError>>>,
}

/// The new number of live users of each group in which it changes, in order.
type Counts = BTreeMap<i32, u64>;

/// What came of a flush.
#[derive(Debug)]
pub(super) struct Flushed {
    pub(super) counts: Counts,
    /// Their changes are in the indexes, and with the counts they are needed no more.
    pub(super) pages: RangeInclusive<u64>,
}

impl IndexFlush {
    /// Begins. There may be no other one meanwhile.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(
        reader: RocksReader,
        changes: Vec<PlaceChange>,
        pages: RangeInclusive<u64>,
    ) -> Result<Self, StoreError> {
        let thread = spawn("index-flush".to_owned(), move || flush(&reader, changes));
        Ok(Self { pages, thread: Some(thread.map_err(StoreError::no_thread)?) })
    }

    /// Whether [`Self::finish`] would not block.
    pub(super) fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the changes are where they belong, and on disk.
    ///
    /// # Errors
    /// If the database failed.
    pub(super) fn finish(mut self) -> Result<Flushed, StoreError> {
        let thread = self.thread.take().expect("only this takes it, and takes the whole with it");
        let counts = thread.join().map_err(|_| StoreError::Poisoned)??;
        Ok(Flushed { counts, pages: self.pages.clone() })
    }
}

impl Drop for IndexFlush {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // The pages are still there: what came of it does not matter.
            let _ = thread.join();
        }
    }
}

/// Lets the size of a flush differ, by a quarter at most, from database to database and from time to time.
/// All copies of a ring take about as many writes, so otherwise all of them would write their tables at the
/// same moment, and requests would wait for the lot.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FlushJitter(u64);

impl FlushJitter {
    /// Of the database with that incarnation.
    pub(super) fn of(incarnation: &Uuid) -> Self {
        Self(xxh3_64(incarnation.as_bytes()))
    }

    /// The size of the flush with that number.
    pub(super) fn apply(self, usual: usize, number: u64) -> usize {
        let by = xxh3_64_with_seed(&number.to_be_bytes(), self.0) as usize;
        usual - usual / 4 + by % (usual / 2)
    }
}

/// Puts changes where they belong, on disk when it returns. The records that they follow from may not be on
/// disk, and no place may be there without its record: so the log is synced before the tables are ingested.
fn flush(reader: &RocksReader, changes: Vec<PlaceChange>) -> Result<Counts, StoreError> {
    let write = || -> Result<_, StoreError> {
        let counts = new_counts(reader, &changes)?;
        Ok((counts, write_tables(reader.db.path(), changes)?))
    };
    let (counts, tables) =
        in_background("write-indexes".to_owned(), write).map_err(StoreError::no_thread)??;
    reader.sync()?;
    for (family, file) in tables {
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        reader.db.ingest_external_file_cf_opts(reader.family(family), &options, vec![file])?;
    }
    Ok(counts)
}

fn new_counts(reader: &RocksReader, changes: &[PlaceChange]) -> Result<Counts, StoreError> {
    let new = |(group, change)| {
        let stored = reader.db.get_pinned_cf(reader.family(META), group_key(group))?;
        Ok((group, count(group, stored.as_deref(), change)?))
    };
    counts(changes).into_iter().map(new).collect()
}

/// A table, and the column family that it is for.
type Table = (&'static str, PathBuf);

/// Writes the tables of the indexes that change.
fn write_tables(folder: &Path, changes: Vec<PlaceChange>) -> Result<Vec<Table>, StoreError> {
    let mut tables = Vec::new();
    for (family, places) in [BY_GROUP, BY_EMAIL].into_iter().zip(sorted(changes)) {
        if !places.is_empty() {
            let file = folder.join(family).with_extension("table");
            write_table(&file, &places)?;
            tables.push((family, file));
        }
    }
    Ok(tables)
}

/// The changes of the index by group and of the one by email: each in order, and one for each place.
fn sorted(mut changes: Vec<PlaceChange>) -> [Vec<PlaceChange>; 2] {
    sort_throttled(&mut changes);
    changes.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            earlier.1 = later.1;
        }
        same
    });
    let groups = changes.partition_point(|(key, _)| matches!(key, IndexKey::Group(..)));
    let by_email = changes.split_off(groups);
    [changes, by_email]
}

/// Sorts by place. Of several changes of a place the last one stays the last.
///
/// All at once that would take tens of milliseconds. So it yields between runs, and sorts longer and longer
/// ones: what is sorted already the standard library only merges (driftsort).
fn sort_throttled(changes: &mut [PlaceChange]) {
    let mut run = 2_048;
    loop {
        for run in changes.chunks_mut(run) {
            run.sort_by_key(|(key, _)| *key);
            yield_now();
        }
        if run >= changes.len() {
            return;
        }
        run *= 2;
    }
}

fn write_table(file: &Path, places: &[PlaceChange]) -> Result<(), StoreError> {
    // To ingest a table, RocksDB gives it another name and then removes this one. A process that was killed
    // in between has left a second name of what is a table of the database by now: it must not be
    // overwritten.
    if let Err(error) = fs::remove_file(file)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(StoreError::file(file, &error));
    }
    let options = options::index();
    let mut table = SstFileWriter::create(&options);
    table.open(file)?;
    for places in places.chunks(256) {
        for (place, taken) in places {
            match taken {
                true => table.put(place_key(place), [])?,
                false => table.delete(place_key(place))?,
            }
        }
        yield_now();
    }
    Ok(table.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_differ_by_a_quarter_at_most() {
        let databases = [1, 2].map(|n| FlushJitter::of(&Uuid::from_u128(n)));
        let sizes: Vec<_> = databases.iter().flat_map(|one| (0..99).map(|n| one.apply(1_000, n))).collect();
        assert!(sizes.iter().all(|size| (750..1_250).contains(size)), "{sizes:?}");
        assert!(sizes[..99] != sizes[99..] && sizes.iter().max() > sizes.iter().min());
    }

    #[test]
    fn tables_are_in_order_with_the_last_change_of_each_place() {
        let group = |n| IndexKey::Group(n, Uuid::nil());
        let email = |n| IndexKey::Email(n, Uuid::nil());
        let made =
            [(group(4), true), (email(7), true), (group(9), true), (group(-3), true), (group(9), false)];
        let [by_group, by_email] = sorted(made.to_vec());
        assert_eq!(by_group, [(group(-3), true), (group(4), true), (group(9), false)]);
        assert_eq!(by_email, [(email(7), true)]);
    }
}
