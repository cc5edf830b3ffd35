//! Scrubbing: after this the files of a database have no value that was replaced or deleted before.
//!
//! RocksDB writes a new value beside the old one. The old one goes when a compaction meets both, which may
//! take for ever, and the log has what was written until it is flushed. So everything is flushed, which ends
//! the log, and all tables are written anew, at the low priority of RocksDB's compactions. A compaction keeps
//! what a snapshot may still read. So all snapshots that are older have to end first, and with them whatever
//! RocksDB began to write while there were any.
//!
//! It is not believed that it worked: every file that was there has to be gone.
//!
//! What it leaves alone: the indexes. They have groups, ids and hashes of addresses. The disk itself may keep
//! blocks of files that were removed.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rocksdb::{BottommostLevelCompaction, CompactOptions};

use super::reader::RocksReader;
use super::schema::{META, OPLOG, RECORDS};
use crate::store::StoreError;

/// The column families with fields of users. Earlier programs had some in [`META`].
const FIELDS: [&str; 3] = [RECORDS, OPLOG, META];

/// Readers have ended after this time, or it is tried again later. Most take milliseconds; a scan or a full
/// copy may take longer.
const READERS: Duration = Duration::from_secs(20);

/// Between two looks at what has to end.
const GLANCE: Duration = Duration::from_millis(20);

impl RocksReader {
    /// Writes the database anew, as long as `goes_on`. Returns whether all is gone that was replaced or
    /// deleted before.
    ///
    /// # Errors
    /// If the database fails.
    pub(crate) fn scrub(&self, goes_on: impl Fn() -> bool) -> Result<bool, StoreError> {
        let upto = self.db.latest_sequence_number();
        let waits = |done: &dyn Fn() -> Result<bool, StoreError>| wait(&goes_on, done);
        if !waits(&|| self.nothing_reads_before(upto))? {
            return Ok(false);
        }
        let old = self.files_with_fields()?;
        self.flush()?;
        for name in FIELDS {
            if !goes_on() {
                return Ok(false);
            }
            let mut options = CompactOptions::default();
            options.set_exclusive_manual_compaction(false);
            options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
            self.db.compact_range_cf_opt(self.family(name), None::<&[u8]>, None::<&[u8]>, &options);
        }
        waits(&|| Ok(!old.iter().any(|file| file.exists())))
    }

    /// Whether no reader, and nothing that RocksDB writes, has an older state of the database.
    fn nothing_reads_before(&self, upto: u64) -> Result<bool, StoreError> {
        let number = |name: &str| Ok::<_, StoreError>(self.db.property_int_value(name)?.unwrap_or_default());
        let oldest = number("rocksdb.oldest-snapshot-sequence")?;
        let busy = number("rocksdb.num-running-compactions")? + number("rocksdb.num-running-flushes")?;
        Ok(busy == 0 && (oldest == 0 || oldest >= upto))
    }

    /// The tables of these column families, and the logs that are not empty.
    fn files_with_fields(&self) -> Result<BTreeSet<PathBuf>, StoreError> {
        let folder = self.db.path();
        let tables = self.db.live_files()?.into_iter();
        let tables = tables.filter(|table| FIELDS.contains(&table.column_family_name.as_str()));
        let mut files: BTreeSet<PathBuf> =
            tables.map(|table| folder.join(table.name.trim_start_matches('/'))).collect();
        for file in fs::read_dir(folder).map_err(|error| StoreError::file(folder, &error))? {
            let file = file.map_err(|error| StoreError::file(folder, &error))?;
            let is_log = file.path().extension().is_some_and(|kind| kind == "log");
            if is_log && file.metadata().is_ok_and(|known| known.len() > 0) {
                files.insert(file.path());
            }
        }
        Ok(files)
    }
}

/// Waits until that holds, as long as `goes_on`, and not for ever. Returns whether it does.
fn wait(
    goes_on: &impl Fn() -> bool,
    done: &dyn Fn() -> Result<bool, StoreError>,
) -> Result<bool, StoreError> {
    let deadline = Instant::now() + READERS;
    loop {
        if done()? {
            return Ok(true);
        }
        if !goes_on() || Instant::now() >= deadline {
            return Ok(false);
        }
        sleep(GLANCE);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use protocol::message::replication::LogEntry;
    use protocol::{Change, Record, Version};
    use uuid::Uuid;

    use super::*;
    use crate::store::{Batch, BlockCache, Durability, RocksStore, Snapshot, Store};

    /// Incompressible, so that it is found in a compressed table.
    const OLD: &str = "kq7Zx0Wm3TnVb9Ls";
    const NEW: &str = "Jd5RfPu8Hy2CgXe1";

    fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
        let files = fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path());
        let has = |file: &PathBuf| {
            let bytes = fs::read(file).expect("a file that can be read");
            bytes.windows(text.len()).any(|found| found == text.as_bytes())
        };
        files.filter(has).collect()
    }

    /// Writes a user of that name, with an entry of the op-log.
    fn write(store: &mut RocksStore, sequence: u64, name: &str) {
        let mut batch = Batch::new(store.meta().expect("a database"));
        let (id, version) = (Uuid::from_u128(7), Version(sequence));
        let change = Change { alive: Some(true), name: Some(name.to_owned()), ..Change::default() };
        batch.records.insert(id, Record::from_change(version, &change).into());
        batch.log.push(LogEntry { sequence, version, id, change });
        batch.meta.head = sequence;
        store.commit(&batch, Durability::Synced).expect("room on the disk");
    }

    /// Strips the first entry.
    fn strip(store: &mut RocksStore) {
        let mut batch = Batch::new(store.meta().expect("a database"));
        let mut entries = store.log_after(0, 1).expect("a database").expect("the op-log from its beginning");
        entries[0].change.name = None;
        batch.rewritten = entries;
        store.commit(&batch, Durability::Unsynced).expect("room on the disk");
    }

    #[test]
    fn what_was_replaced_is_in_no_file_afterwards_and_the_rest_is() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path();
        let mut store = RocksStore::open(path, &BlockCache::default()).expect("a database");
        write(&mut store, 1, OLD);
        // In a table of the last level, in one of the first, and in the log.
        assert!(store.reader().scrub(|| true).expect("a working disk"));
        assert!(!files_with(path, OLD).is_empty(), "it is current");
        write(&mut store, 2, NEW);
        store.flush().expect("a working disk");
        strip(&mut store);
        assert!(!files_with(path, OLD).is_empty());
        assert!(store.reader().scrub(|| true).expect("a working disk"));
        assert_eq!(files_with(path, OLD), Vec::<PathBuf>::new());
        assert!(!files_with(path, NEW).is_empty());
        drop(store);
        let store = RocksStore::open(path, &BlockCache::default()).expect("a database");
        let names: Vec<_> = store.log_after(0, 9).expect("a database").expect("both entries");
        assert_eq!(
            names.iter().map(|entry| entry.change.name.as_deref()).collect::<Vec<_>>(),
            [None, Some(NEW)]
        );
    }

    #[test]
    fn what_a_reader_still_sees_is_not_said_to_be_gone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut store = RocksStore::open(folder.path(), &BlockCache::default()).expect("a database");
        write(&mut store, 1, OLD);
        let reader = store.reader();
        let snapshot = reader.snapshot().expect("a database");
        write(&mut store, 2, NEW);
        assert!(!reader.scrub(|| false).expect("a working disk"), "a snapshot has the old name");
        assert_eq!(snapshot.meta().head, 1);
        drop(snapshot);
        strip(&mut store);
        assert!(reader.scrub(|| true).expect("a working disk"));
        assert_eq!(files_with(folder.path(), OLD), Vec::<PathBuf>::new());
    }
}
