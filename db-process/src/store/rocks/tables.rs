//! Taking changes in as sorted tables, on a thread of its own: it waits for the disk several times, and
//! nobody should have to wait for that.
//!
//! To write a table takes tens of milliseconds, and whoever does it [gives way](crate::background). To sync
//! the log and to take a table in takes one, but a writer may have to wait for it: so that is done at the
//! priority of a writer.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use protocol::UserId;
use rocksdb::{DB, IngestExternalFileOptions, Options, SstFileWriter};
use uuid::Uuid;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::memtable::{self, Memtable};
use super::pending::Fold;
use super::{BY_EMAIL, BY_GROUP, META, RECORDS, count, group_key, in_group, options, with_email};
use crate::background::{giving_way, let_others_go_first, spawn};
use crate::store::{IndexKey, StoreError};

/// Pages whose changes are being put into their column families. To drop it is to wait for that.
#[derive(Debug)]
pub(super) struct Task<T> {
    pages: RangeInclusive<u64>,
    thread: Option<JoinHandle<Result<T, StoreError>>>,
}

/// Places that are being put into the indexes.
pub(super) type Folding = Task<Groups>;

/// Records that are being put into their column family.
pub(super) type Flushing = Task<()>;

/// The new number of live users of each group in which it changes, in order.
pub(super) type Groups = BTreeMap<i32, u64>;

/// Lets bounds differ, by a quarter at most, from database to database and from time to time. All copies of a
/// ring take about as many writes, so otherwise all of them would write their tables at the same moment,
/// every few seconds, and callers would wait for the lot.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Scatter(u64);

impl Scatter {
    /// Of the database with that incarnation.
    pub(super) fn of(incarnation: &Uuid) -> Self {
        Self(xxh3_64(incarnation.as_bytes()))
    }

    /// Such a bound. The number says which time it is.
    pub(super) fn bound(self, usual: usize, number: u64) -> usize {
        let by = xxh3_64_with_seed(&number.to_be_bytes(), self.0) as usize;
        usual - usual / 4 + by % (usual / 2)
    }
}

/// A table that is written, and the column family that it is for.
type Written = (&'static str, PathBuf);

/// What came of a task, and the pages that are needed no more.
#[derive(Debug)]
pub(super) struct Done<T> {
    pub(super) made: T,
    pub(super) pages: RangeInclusive<u64>,
}

impl Folding {
    /// Begins. There may be no other one meanwhile.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(db: &Arc<DB>, fold: Fold) -> Result<Self, StoreError> {
        let (db, Fold { index, pages }) = (Arc::clone(db), fold);
        Self::spawn("fold", pages, move || fold_in(&db, index))
    }
}

impl Flushing {
    /// Begins. There may be no other one meanwhile.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(
        db: &Arc<DB>,
        table: memtable::Shared,
        pages: RangeInclusive<u64>,
    ) -> Result<Self, StoreError> {
        let db = Arc::clone(db);
        Self::spawn("flush", pages, move || flush(&db, &memtable::read(&table)))
    }
}

impl<T: Send + 'static> Task<T> {
    fn spawn(
        name: &str,
        pages: RangeInclusive<u64>,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Self, StoreError> {
        let thread = spawn(name.to_owned(), work).map_err(StoreError::no_thread)?;
        Ok(Self { pages, thread: Some(thread) })
    }

    /// Whether it would not have to be waited for.
    pub(super) fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the changes are where they belong and on disk.
    ///
    /// # Errors
    /// If the database failed.
    pub(super) fn finish(mut self) -> Result<Done<T>, StoreError> {
        let thread = self.thread.take().expect("only this takes it, and takes the whole with it");
        let made = thread.join().map_err(|_| StoreError::Poisoned)??;
        Ok(Done { made, pages: self.pages.clone() })
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // The pages are still there: what came of it does not matter.
            let _ = thread.join();
        }
    }
}

/// Puts places where they belong, on disk when it returns. What the pages say is not on disk for certain, and
/// no place may be there without its record, so that comes first. Returns what the numbers of the groups
/// become.
fn fold_in(db: &DB, index: Vec<(IndexKey, bool)>) -> Result<Groups, StoreError> {
    let (groups, files) = written("write-fold", || write_fold(db, index))?;
    db.flush_wal(true)?;
    for (name, file) in files {
        take_in(db, name, file)?;
    }
    Ok(groups)
}

/// Writes the tables of both indexes, those that change. Returns with them what the numbers of the groups
/// become.
fn write_fold(db: &DB, index: Vec<(IndexKey, bool)>) -> Result<(Groups, Vec<Written>), StoreError> {
    let meta = db.cf_handle(META).expect("the database was opened with all its column families");
    let mut groups = BTreeMap::new();
    for (group, change) in by_group(&index) {
        let kept = db.get_pinned_cf(meta, group_key(group))?;
        groups.insert(group, count(group, kept.as_deref(), change)?);
    }
    let mut files = Vec::new();
    for (name, places) in [BY_GROUP, BY_EMAIL].into_iter().zip(tables(index)) {
        if !places.is_empty() {
            let file = file(db, name);
            write_places(&file, &places)?;
            files.push((name, file));
        }
    }
    Ok((groups, files))
}

/// What comes of writing tables, by a thread that gives way.
fn written<T: Send>(
    name: &str,
    write: impl FnOnce() -> Result<T, StoreError> + Send,
) -> Result<T, StoreError> {
    giving_way(name.to_owned(), write).map_err(StoreError::no_thread)?
}

/// Puts records where they belong, on disk when it returns. Here, too, what the pages say has to be on disk
/// first.
pub(super) fn flush(db: &DB, table: &Memtable) -> Result<(), StoreError> {
    let file = file(db, RECORDS);
    written("write-flush", || write_records(&file, table.all()))?;
    db.flush_wal(true)?;
    take_in(db, RECORDS, file)
}

/// The file of a table that is to be taken into a column family.
fn file(db: &DB, family: &str) -> PathBuf {
    db.path().join(family).with_extension("table")
}

/// RocksDB makes the file its own.
fn take_in(db: &DB, name: &str, file: PathBuf) -> Result<(), StoreError> {
    let mut taken_in = IngestExternalFileOptions::default();
    taken_in.set_move_files(true);
    let family = db.cf_handle(name).expect("the database was opened with all its column families");
    Ok(db.ingest_external_file_cf_opts(family, &taken_in, vec![file])?)
}

/// How many users more or less each group has by these changes.
pub(super) fn by_group(index: &[(IndexKey, bool)]) -> BTreeMap<i32, i64> {
    let mut groups = BTreeMap::new();
    for (key, taken) in index {
        if let IndexKey::Group(group, _) = key {
            *groups.entry(*group).or_default() += if *taken { 1 } else { -1 };
        }
    }
    groups
}

/// The changes of the index by group and of the one by email: each in order, and one for each place.
fn tables(mut index: Vec<(IndexKey, bool)>) -> [Vec<(IndexKey, bool)>; 2] {
    sort_gently(&mut index);
    index.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            earlier.1 = later.1;
        }
        same
    });
    let groups = index.partition_point(|(key, _)| matches!(key, IndexKey::Group(..)));
    let by_email = index.split_off(groups);
    [index, by_email]
}

/// Puts changes in the order of the places. Of several changes of a place the last one stays the last.
///
/// All at once that would take tens of milliseconds. So others may go first between runs that are sorted at
/// once, and then between longer and longer ones: what is sorted already the standard library only merges
/// (driftsort).
fn sort_gently(index: &mut [(IndexKey, bool)]) {
    let mut run = 2_048;
    loop {
        for run in index.chunks_mut(run) {
            run.sort_by_key(|(key, _)| *key);
            let_others_go_first();
        }
        if run >= index.len() {
            return;
        }
        run *= 2;
    }
}

/// Writes a table of an index.
fn write_places(file: &Path, places: &[(IndexKey, bool)]) -> Result<(), StoreError> {
    write(file, &options::index(), |table| {
        gently(places.iter()).try_for_each(|(key, taken)| match (key, taken) {
            (IndexKey::Group(group, id), true) => table.put(in_group(*group, id), []),
            (IndexKey::Group(group, id), false) => table.delete(in_group(*group, id)),
            (IndexKey::Email(hash, id), true) => table.put(with_email(*hash, id), []),
            (IndexKey::Email(hash, id), false) => table.delete(with_email(*hash, id)),
        })
    })
}

/// Writes a table of records; none at all is gone.
fn write_records<'a>(
    file: &Path,
    records: impl Iterator<Item = (UserId, &'a [u8])>,
) -> Result<(), StoreError> {
    write(file, &options::records(), |table| {
        gently(records).try_for_each(|(id, record)| match record {
            [] => table.delete(id.as_bytes()),
            record => table.put(id.as_bytes(), record),
        })
    })
}

/// The same items, between which whoever waits for this processor goes first: a table takes tens of
/// milliseconds to write.
fn gently<T>(items: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    items.enumerate().map(|(n, item)| {
        if n % 256 == 255 {
            let_others_go_first();
        }
        item
    })
}

/// Writes a table as RocksDB has them.
fn write(
    file: &Path,
    options: &Options,
    fill: impl FnOnce(&mut SstFileWriter<'_>) -> Result<(), rocksdb::Error>,
) -> Result<(), StoreError> {
    // To take a table in, RocksDB gives it another name and then removes this one. A process that was killed
    // in between has left a second name of what is a table of the database by now: it must not be
    // overwritten.
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(StoreError::LeftOver { path: file.to_owned(), kind: error.kind() });
        }
        _ => {}
    }
    let mut table = SstFileWriter::create(options);
    table.open(file)?;
    fill(&mut table)?;
    Ok(table.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_differ_by_a_quarter_at_most() {
        let databases = [1, 2].map(|n| Scatter::of(&Uuid::from_u128(n)));
        let bounds: Vec<_> = databases.iter().flat_map(|one| (0..99).map(|n| one.bound(1_000, n))).collect();
        assert!(bounds.iter().all(|bound| (750..1_250).contains(bound)), "{bounds:?}");
        assert!(bounds[..99] != bounds[99..] && bounds.iter().max() > bounds.iter().min());
    }

    #[test]
    fn tables_are_in_order_with_the_last_change_of_each_place() {
        let group = |n| IndexKey::Group(n, Uuid::nil());
        let email = |n| IndexKey::Email(n, Uuid::nil());
        let made =
            [(group(4), true), (email(7), true), (group(9), true), (group(-3), true), (group(9), false)];
        let [by_group, by_email] = tables(made.to_vec());
        assert_eq!(by_group, [(group(-3), true), (group(4), true), (group(9), false)]);
        assert_eq!(by_email, [(email(7), true)]);
        let changes =
            [(group(1), true), (group(2), true), (group(2), false), (group(3), false), (email(3), true)];
        assert_eq!(super::by_group(&changes), BTreeMap::from([(1, 1), (2, 0), (3, -1)]));
    }
}
