//! Looking at a database that another process may have open.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use protocol::{Record, UserId};
use rocksdb::{DB, Options};

use super::{FAMILIES, RocksStore, cannot_open};
use crate::store::{Snapshot, Store, StoreError};

/// Refuses a folder that holds what a database left, though not the file by which RocksDB finds it.
///
/// # Errors
/// If so. Where the folder cannot be read, RocksDB says why.
pub(super) fn check_complete(path: &Path) -> Result<(), StoreError> {
    let Ok(files) = fs::read_dir(path) else { return Ok(()) };
    let names: Vec<_> = files.flatten().map(|file| file.file_name()).collect();
    // A database that was never finished has a manifest, and neither of these.
    let has_data =
        |name: &OsString| Path::new(name).extension().is_some_and(|kind| kind == "sst" || kind == "log");
    if names.iter().any(has_data) && !names.iter().any(|name| name == "CURRENT") {
        return Err(StoreError::Incomplete { path: path.to_owned() });
    }
    Ok(())
}

/// A copy's database as it was when it was opened, for tools that look at it: it takes no lock and writes
/// nothing, so the process that owns it may be running.
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
        // Its owner verifies its log. RocksDB 11.8 crashes where a database that it verified is opened
        // without that, to read only.
        options.set_track_and_verify_wals_in_manifest(true);
        // The owner may drop a file while it is being opened here; the next attempt sees what replaced it.
        let mut attempts = 0;
        let db = loop {
            attempts += 1;
            let families = ["default"].into_iter().chain(FAMILIES);
            match DB::open_cf_for_read_only(&options, path, families, false) {
                Ok(db) => break db,
                Err(error) if attempts == 5 => return Err(cannot_open(path)(error)),
                Err(_) => {}
            }
        };
        let mut store = RocksStore::of(db);
        if store.read_meta()?.is_some() {
            store.read_memtables()?;
        }
        Ok(Self(store))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, BlockCache, Durability};

    /// Such a database lists its finished log files, which RocksDB compares when it is opened.
    #[test]
    fn a_database_whose_log_is_verified_can_be_looked_at() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut store = RocksStore::open(folder.path(), &BlockCache::default()).expect("a database");
        for lsn in 1..=3 {
            let mut batch = Batch::new(store.meta().expect("a database"));
            batch.meta.lsn = lsn;
            store.commit(&batch, Durability::Synced).expect("room on the disk");
            // It begins another file of the log.
            store.flush().expect("room on the disk");
            store.commit(&batch, Durability::Synced).expect("room on the disk");
            let look = ReadOnlyStore::open(folder.path()).expect("a database");
            assert_eq!(look.snapshot().expect("a database").meta().lsn, lsn);
        }
    }
}
