//! How RocksDB is set up. The settings are for small machines: a process has two of these databases.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, DBCompactionStyle, DBCompressionType, DBRecoveryMode, Env, LogLevel,
    LruCacheOptions, Options, WriteBufferManager,
};
use xxhash_rust::xxh3::xxh3_64;

use super::schema::{BY_EMAIL, BY_GROUP, META, OPLOG, RECORDS};

const MIB: usize = 1 << 20;

/// Memtables of all databases of a process together. They bound the log that is replayed at a start.
const MEMTABLES: usize = 128 * MIB;

/// So many memtables of records become one table. Insertion into a small one is cheaper, since more of what
/// it looks at is in the processor's cache.
const MEMTABLES_OF_A_TABLE: usize = 4;

/// Memory for blocks read from disk and for memtables, which have the first claim to it. The databases of a
/// process share one.
#[derive(Clone)]
pub struct BlockCache {
    blocks: Cache,
    memtables: WriteBufferManager,
}

impl BlockCache {
    /// Its default size in MiB: what the page cache of the system holds need not be here as well.
    pub const DEFAULT_MIB: u32 = 64;

    /// At most this many bytes.
    pub fn new(bytes: usize) -> Self {
        let mut options = LruCacheOptions::default();
        options.set_capacity(bytes);
        // Memtables are counted 256 KiB at a time, each in one shard: it has to have room for several, and
        // for blocks.
        options.set_num_shard_bits(4);
        let blocks = Cache::new_lru_cache_opts(&options);
        let memtables =
            WriteBufferManager::new_write_buffer_manager_with_cache(MEMTABLES, false, blocks.clone());
        Self { blocks, memtables }
    }
}

impl Default for BlockCache {
    fn default() -> Self {
        Self::new(Self::DEFAULT_MIB as usize * MIB)
    }
}

pub(super) fn database(cache: &BlockCache) -> Options {
    let mut options = Options::default();
    if let Ok(mut env) = Env::new() {
        // Compactions, of all databases of the process: only a writer that is far ahead of them waits for
        // one. Flushes keep the usual priority: a writer may have to wait for one.
        env.lower_thread_pool_cpu_priority();
        options.set_env(&env);
    }
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_write_buffer_manager(&cache.memtables);
    options.set_max_total_wal_size(64 * MIB as u64);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    // There is one writer. Insertions are cheaper if they need not expect others.
    options.set_allow_concurrent_memtable_write(false);
    options.set_max_background_jobs(2);
    // Of both databases together, half of what the process may open.
    let files = process::open_files() / 4;
    options.set_max_open_files(files.clamp(64, 512) as i32);
    options.set_bytes_per_sync(MIB as u64);
    // Of each file of a compaction, of which there may be twenty; the system reads ahead as well.
    options.set_compaction_readahead_size(MIB / 4);
    // RocksDB's own log: little of it, and few old ones.
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(4 * MIB);
    options.set_keep_log_file_num(3);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

/// The same for a database whose log has to be sound, except for a last record that was never finished.
pub(super) fn verifying_log(options: &Options) -> Options {
    let mut options = options.clone();
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options
}

/// Of a column family of the database in that folder.
pub(super) fn family(name: &str, folder: &Path, cache: &BlockCache) -> Options {
    let (mut options, mut table) = match name {
        RECORDS => (records(folder), found_by_key()),
        BY_GROUP | BY_EMAIL => (index(), listed()),
        // It is read from some entry on, so there is no filter.
        OPLOG => (compressed(4 * MIB), BlockBasedOptions::default()),
        META => (compressed(4 * MIB), found_by_key()),
        _ => unreachable!("{name} is none of the column families"),
    };
    table.set_block_cache(&cache.blocks);
    options.set_block_based_table_factory(&table);
    // With two, a writer waits whenever one is full before the other is flushed.
    if name != RECORDS {
        options.set_max_write_buffer_number(4);
    }
    options
}

fn compressed(memtable: usize) -> Options {
    let mut options = Options::default();
    options.set_write_buffer_size(memtable);
    options.set_compression_type(DBCompressionType::Lz4);
    options
}

fn records(folder: &Path) -> Options {
    let mut options = Options::default();
    // All copies of a ring take about as many writes. If their memtables were of one size, all would be
    // flushed at the same moment, and requests would wait for the lot.
    let jitter = xxh3_64(folder.as_os_str().as_encoded_bytes()) as usize % (4 * MIB);
    options.set_write_buffer_size((6 * MIB + jitter) / MEMTABLES_OF_A_TABLE);
    options.set_min_write_buffer_number_to_merge(MEMTABLES_OF_A_TABLE as i32);
    options.set_max_write_buffer_number(4 * MEMTABLES_OF_A_TABLE as i32);
    // Most lookups of a write are for users that are not in it. It takes some 16 bits for each user.
    options.set_memtable_whole_key_filtering(true);
    options.set_memtable_prefix_bloom_ratio(0.01);
    // The tables of level 0 are soon written again.
    let [none, lz4] = [DBCompressionType::None, DBCompressionType::Lz4];
    options.set_compression_per_level(&[none, lz4, lz4, lz4, lz4, lz4, lz4]);
    compact_late(&mut options, tables_before_merge(RECORDS, false));
    options
}

/// Of an index, and of a table that is to be ingested into it.
///
/// No single key is looked up, so there is no filter. Keys that are half hashes do not compress. It is read
/// rarely, so its order may be worse than that of the records, and the work for it less: tables are merged
/// when there are several of a size.
pub(super) fn index() -> Options {
    let mut options = Options::default();
    options.set_block_based_table_factory(&listed());
    options.set_compression_type(DBCompressionType::None);
    options.set_compaction_style(DBCompactionStyle::Universal);
    // Nearly all of it is ingested.
    options.set_write_buffer_size(2 * MIB);
    compact_late(&mut options, tables_before_merge(BY_EMAIL, false));
    options
}

/// Setting of a column family: so many tables come together before they are merged.
pub(super) const COMPACTION_TRIGGER: &str = "level0_file_num_compaction_trigger";

/// Its value for the records, or one of the indexes.
pub(super) fn tables_before_merge(name: &str, bulk: bool) -> i32 {
    let usual = if name == RECORDS { 12 } else { 8 };
    if bulk { 2 * usual } else { usual }
}

/// Tables are small, so more of them may come together before a writer has to wait.
fn compact_late(options: &mut Options, tables: i32) {
    options.set_level_zero_file_num_compaction_trigger(tables);
    options.set_level_zero_slowdown_writes_trigger(40);
    options.set_level_zero_stop_writes_trigger(64);
}

/// A filter says that a table does not have a key.
fn found_by_key() -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_bloom_filter(10.0, false);
    table
}

/// A listing reads many keys in a row, so blocks are large: what leads to them stays in memory.
fn listed() -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_size(16 << 10);
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RocksStore;

    #[test]
    fn memtables_are_part_of_the_cache() {
        let cache = BlockCache::default();
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(cache.memtables.get_usage(), 0);
        let _store = RocksStore::open(folder.path(), &cache).expect("a folder that can be written");
        let taken = cache.memtables.get_usage();
        assert!(taken > 0, "a new store has written its state");
        assert!(cache.blocks.get_usage() >= taken, "{} of {taken} bytes", cache.blocks.get_usage());
    }
}
