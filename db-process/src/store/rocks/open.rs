//! Opening a database: to own it, or to look at one that another process may have open.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use protocol::{Record, UserId};
use rocksdb::{DB, ErrorKind, Options};

use super::options::{self, BlockCache};
use super::reader::RocksReader;
use super::schema::FAMILIES;
use super::upgrade;
use crate::store::{Snapshot, StoreError};

/// Opens a database whose log is sound, or that ends before the place where it is damaged: then a WARN line
/// says so. A power cut may damage what was never synced; what was lost behind that place is found by the
/// number of the last commit (see [`crate::copy::rollback`]).
pub(super) fn open_database(options: &Options, path: &Path, cache: &BlockCache) -> Result<DB, StoreError> {
    check_complete(path)?;
    let open = |options: &Options| {
        let families = FAMILIES.map(|name| (name, options::family(name, path, cache)));
        DB::open_cf_with_opts(options, path, families)
    };
    let strict = match open(&options::verifying_log(options)) {
        Err(error) if error.kind() == ErrorKind::Corruption => error,
        opened => return opened.map_err(cannot_open(path)),
    };
    match open(options) {
        Ok(db) => {
            let folder = path.display();
            tracing::warn!(
                %folder, error = %strict,
                "the end of the database's log is damaged: it is opened without it"
            );
            Ok(db)
        }
        Err(error) if error.as_ref().contains("ahead of WAL") => {
            Err(StoreError::LogDamaged { path: path.into(), source: strict })
        }
        Err(error) => Err(cannot_open(path)(error)),
    }
}

fn cannot_open(path: &Path) -> impl FnOnce(rocksdb::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Open { path, source }
}

/// Refuses a folder that holds what a database left, though not the file by which RocksDB finds it. If the
/// folder cannot be read, RocksDB says why.
fn check_complete(path: &Path) -> Result<(), StoreError> {
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

/// A copy's database as it was when it was opened, for tools: it takes no lock and writes nothing, so the
/// process that owns it may be running.
pub struct ReadOnlyStore(RocksReader);

impl ReadOnlyStore {
    /// Opens what is in that folder.
    ///
    /// # Errors
    /// If there is no database, it cannot be read, or an earlier program left it in a format that only its
    /// owner converts.
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
        let reader = RocksReader::of(db);
        upgrade::check_converted(&reader)?;
        Ok(Self(reader))
    }

    /// The record of one user.
    ///
    /// # Errors
    /// If the database fails or the record is damaged.
    pub fn get(&self, id: &UserId) -> Result<Option<Record>, StoreError> {
        self.0.get(id)
    }

    /// All records and the state.
    ///
    /// # Errors
    /// If the database fails or the state is damaged.
    pub fn snapshot(&self) -> Result<impl Snapshot, StoreError> {
        self.0.snapshot()
    }
}
