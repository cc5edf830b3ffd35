//! Taking changes of the indexes in as sorted tables, on a thread of its own: it waits for the disk several times, and nobody
//! should have to wait for that.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use rocksdb::{DB, IngestExternalFileOptions, SstFileWriter};

use super::pending::Fold;
use super::{BY_EMAIL, BY_GROUP, META, count, group_key, in_group, options, with_email};
use crate::store::{IndexKey, StoreError};

/// A fold whose places are being put into the indexes. To drop it is to wait for that.
#[derive(Debug)]
pub(super) struct Folding {
    pages: RangeInclusive<u64>,
    thread: Option<JoinHandle<Result<Groups, StoreError>>>,
}

/// The new number of live users of each group in which it changes, in order.
type Groups = BTreeMap<i32, u64>;

/// What is left to write of a fold whose places are in the indexes.
#[derive(Debug)]
pub(super) struct Folded {
    pub(super) groups: Groups,
    /// Pages that are needed no more.
    pub(super) pages: RangeInclusive<u64>,
}

impl Folding {
    /// Begins. There may be no other one meanwhile.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(db: &Arc<DB>, fold: Fold) -> Result<Self, StoreError> {
        let (db, Fold { index, pages }) = (Arc::clone(db), fold);
        let thread = std::thread::Builder::new().name("fold".to_owned()).spawn(move || take_in(&db, index));
        let thread = thread.map_err(|error| StoreError::NoThread(error.kind()))?;
        Ok(Self { pages, thread: Some(thread) })
    }

    /// Whether it would not have to be waited for.
    pub(super) fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the places are in the indexes and on disk.
    ///
    /// # Errors
    /// If the database failed.
    pub(super) fn finish(mut self) -> Result<Folded, StoreError> {
        let thread = self.thread.take().expect("only this takes it, and takes the whole with it");
        let groups = thread.join().map_err(|_| StoreError::Poisoned)??;
        Ok(Folded { groups, pages: self.pages.clone() })
    }
}

impl Drop for Folding {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // The pages are still there: what came of it does not matter.
            let _ = thread.join();
        }
    }
}

/// Puts places where they belong, on disk when it returns. What the pages say is not on disk for certain, and no place may be
/// there without its record, so that comes first. Returns what the numbers of the groups become.
fn take_in(db: &DB, index: Vec<(IndexKey, bool)>) -> Result<Groups, StoreError> {
    let family = |name| db.cf_handle(name).expect("the database was opened with all its column families");
    let mut groups = BTreeMap::new();
    for (group, change) in by_group(&index) {
        let kept = db.get_pinned_cf(family(META), group_key(group))?;
        groups.insert(group, count(group, kept.as_deref(), change)?);
    }
    let tables = tables(index);
    db.flush_wal(true)?;
    let mut taken_in = IngestExternalFileOptions::default();
    taken_in.set_move_files(true);
    for (name, places) in [BY_GROUP, BY_EMAIL].into_iter().zip(tables) {
        if !places.is_empty() {
            let file = db.path().join(name).with_extension("table");
            write(&file, &places)?;
            db.ingest_external_file_cf_opts(family(name), &taken_in, vec![file])?;
        }
    }
    Ok(groups)
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
    // Stable, so that of several changes of a place the last one stays the last.
    index.sort_by_key(|(key, _)| *key);
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

/// Writes a table as RocksDB has them. What an interrupted attempt left is overwritten.
fn write(file: &Path, places: &[(IndexKey, bool)]) -> Result<(), StoreError> {
    let options = options::index();
    let mut table = SstFileWriter::create(&options);
    table.open(file)?;
    for (key, taken) in places {
        match (key, taken) {
            (IndexKey::Group(group, id), true) => table.put(in_group(*group, id), [])?,
            (IndexKey::Group(group, id), false) => table.delete(in_group(*group, id))?,
            (IndexKey::Email(hash, id), true) => table.put(with_email(*hash, id), [])?,
            (IndexKey::Email(hash, id), false) => table.delete(with_email(*hash, id))?,
        }
    }
    Ok(table.finish()?)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

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
