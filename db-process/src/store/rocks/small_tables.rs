//! Merging of small tables that RocksDB leaves alone.
//!
//! What is replayed when a database is opened becomes a table, and so does what an orderly stop flushes.
//! Where its keys are above all others, as those of the op-log are, and those of records whose ids rise,
//! RocksDB moves it to the last level as it is, and does not look at it again before that level is full.
//! After three hundred starts there were three hundred tables, each an open file. So they are merged once
//! after a start, when the copy serves already.

use rocksdb::{BottommostLevelCompaction, CompactOptions, LiveFile};

use super::reader::RocksReader;
use super::schema::{META, OPLOG, RECORDS};
use crate::store::StoreError;

/// A table below this is small: a memtable of the op-log or of records comes to more.
const SMALL: usize = 1 << 20;

/// So many small ones, one after the other, are merged.
const MANY: usize = 8;

/// No more than these at once, and so many times: a stop waits for it.
const AT_ONCE: usize = 32;
const TIMES: usize = 4;

impl RocksReader {
    /// Merges small tables that lie one after the other. RocksDB does it, at the low priority of its
    /// compactions, and has ended on return.
    ///
    /// # Errors
    /// If the database cannot be read. Where a table cannot, its copy is poisoned with the next batch.
    pub(crate) fn merge_small_tables(&self) -> Result<(), StoreError> {
        // The tables of an index are merged by their number (universal compaction), wherever they lie.
        for name in [OPLOG, RECORDS, META] {
            let mut tables = self.db.live_files()?;
            tables.retain(|table| table.column_family_name == name);
            for (first, last) in small_runs(tables).into_iter().take(TIMES) {
                let mut options = CompactOptions::default();
                options.set_exclusive_manual_compaction(false);
                options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
                self.db.compact_range_cf_opt(self.family(name), Some(first), Some(last), &options);
            }
        }
        Ok(())
    }
}

/// The first and the last key of many small tables that lie one after the other. Those of level 0 are not
/// settled yet.
fn small_runs(mut tables: Vec<LiveFile>) -> Vec<(Vec<u8>, Vec<u8>)> {
    tables.retain(|table| table.level > 0);
    tables.sort_by(|one, other| (one.level, &one.start_key).cmp(&(other.level, &other.start_key)));
    let together = |one: &LiveFile, other: &LiveFile| {
        one.level == other.level && (one.size < SMALL) == (other.size < SMALL)
    };
    tables
        .chunk_by(together)
        .filter(|run| run.len() >= MANY && run[0].size < SMALL)
        .flat_map(|run| run.chunks(AT_ONCE))
        .filter_map(|run| Some((run.first()?.start_key.clone()?, run.last()?.end_key.clone()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use protocol::message::replication::LogEntry;
    use protocol::{Change, Record, Version};
    use uuid::Uuid;

    use super::*;
    use crate::store::{Batch, BlockCache, Durability, RocksStore, Snapshot, Store};

    const WRITES: u64 = 5;

    fn open(folder: &Path) -> RocksStore {
        RocksStore::open(folder, &BlockCache::default()).expect("a database")
    }

    /// Waits until RocksDB has moved down what it moves by itself, which takes a while on a busy machine.
    fn settle(store: &RocksStore) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let unsettled = || {
            let mut tables = store.reader().db.live_files().expect("a database");
            tables.retain(|table| table.level == 0);
            [OPLOG, RECORDS].map(|name| tables.iter().filter(|file| file.column_family_name == name).count())
        };
        while unsettled().iter().any(|&tables| tables >= 12) {
            assert!(Instant::now() < deadline, "{:?} at level 0", unsettled());
            sleep(Duration::from_millis(5));
        }
    }

    /// What a process leaves that wrote a little and was killed, or stopped in order.
    fn run(folder: &Path, number: u64, stopped: bool, merges: bool) {
        let mut store = open(folder);
        if merges {
            settle(&store);
            store.reader().merge_small_tables().expect("a database");
        }
        let mut batch = Batch::new(store.meta().expect("a database"));
        for sequence in number * WRITES + 1..=(number + 1) * WRITES {
            // Ids that rise, as those do that the gateway makes.
            let (id, version) = (Uuid::from_u128(u128::from(sequence)), Version(sequence));
            let change = Change { alive: Some(true), name: Some("Ana".to_owned()), ..Change::default() };
            batch.records.insert(id, Record::from_change(version, &change).into());
            batch.log.push(LogEntry { sequence, version, id, change });
            batch.meta.head = sequence;
        }
        store.commit(&batch, Durability::Synced).expect("room on the disk");
        if stopped {
            store.flush().expect("room on the disk");
        }
    }

    /// How many tables of the op-log and of records there are.
    fn tables(folder: &Path) -> [usize; 2] {
        let files = open(folder).reader().db.live_files().expect("a database");
        [OPLOG, RECORDS].map(|name| files.iter().filter(|file| file.column_family_name == name).count())
    }

    #[test]
    fn tables_do_not_come_together_over_many_starts() {
        for stopped in [false, true] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            for number in 0..40 {
                run(folder.path(), number, stopped, false);
            }
            let before = tables(folder.path());
            assert!(before.iter().all(|tables| *tables > 30), "RocksDB merges them itself: {before:?}");
            // The first starts merge what was there; some of it is at level 0 until RocksDB moves it down.
            // From then on none leaves more than a few.
            for number in 40..70 {
                run(folder.path(), number, stopped, true);
                let left = tables(folder.path());
                let few = left.iter().all(|tables| *tables < 30);
                assert!(few || number < 45, "{left:?} after {number} starts");
            }
            let store = open(folder.path());
            let snapshot = store.snapshot().expect("a database");
            assert_eq!(snapshot.log(0).filter(Result::is_ok).count() as u64, 70 * WRITES);
            assert_eq!(snapshot.records().filter(Result::is_ok).count() as u64, 70 * WRITES);
        }
    }

    #[test]
    fn only_many_small_ones_side_by_side_are_merged() {
        let table = |level, number: u8, size| LiveFile {
            column_family_name: OPLOG.to_owned(),
            name: String::new(),
            size,
            level,
            start_key: Some(vec![number]),
            end_key: Some(vec![number, 1]),
            num_entries: 1,
            num_deletions: 0,
        };
        let side_by_side =
            |level, numbers: std::ops::Range<u8>| numbers.map(move |number| table(level, number, 9));
        assert_eq!(small_runs(side_by_side(6, 0..7).collect()), []);
        assert_eq!(small_runs(side_by_side(0, 0..20).collect()), []);
        assert_eq!(small_runs(side_by_side(6, 0..8).collect()), [(vec![0], vec![7, 1])]);
        let large = table(6, 20, SMALL);
        let mixed = side_by_side(6, 10..20)
            .chain([large])
            .chain(side_by_side(6, 21..30))
            .chain(side_by_side(5, 0..5));
        let mut mixed: Vec<_> = mixed.collect();
        mixed.reverse();
        assert_eq!(small_runs(mixed), [(vec![10], vec![19, 1]), (vec![21], vec![29, 1])]);
        let many = small_runs(side_by_side(6, 0..40).collect());
        assert_eq!(many, [(vec![0], vec![31, 1]), (vec![32], vec![39, 1])]);
    }
}
