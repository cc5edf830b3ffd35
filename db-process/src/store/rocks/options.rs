//! How RocksDB is set up. The settings are for small machines: a process has two of these databases.

use rocksdb::{
    BlockBasedOptions, Cache, DBCompactionStyle, DBCompressionType, DBRecoveryMode, Env, LogLevel,
    LruCacheOptions, Options, WriteBufferManager,
};

use super::{BY_EMAIL, BY_GROUP, META, OPLOG, RECORDS};

const MIB: usize = 1 << 20;

/// RocksDB's memtables of all databases of a process together. With them goes the log that is replayed at a
/// start.
const WRITTEN: usize = 128 * MIB;

/// Memory for blocks read from disk and for RocksDB's memtables, which have the first claim to it; the
/// databases of a process share one.
#[derive(Clone)]
pub struct BlockCache {
    blocks: Cache,
    memtables: WriteBufferManager,
}

impl BlockCache {
    /// Its size in MiB where nobody says another one: what the page cache of the system holds beside it need
    /// not be here.
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
            WriteBufferManager::new_write_buffer_manager_with_cache(WRITTEN, false, blocks.clone());
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
        // Compactions, of all databases of the process: nobody waits for one but a writer that is far ahead
        // of them. Flushes keep the usual priority: a writer may have to wait for one, and it would wait for
        // compactions.
        env.lower_thread_pool_cpu_priority();
        options.set_env(&env);
    }
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_write_buffer_manager(&cache.memtables);
    options.set_max_total_wal_size(64 * MIB as u64);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    // There is one writer. Without others to look out for, an insertion is cheaper.
    options.set_allow_concurrent_memtable_write(false);
    options.set_max_background_jobs(2);
    options.set_max_open_files(512);
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

/// The same for a database whose log has to be sound, but for a last record that was never finished.
pub(super) fn verifying_log(options: &Options) -> Options {
    let mut options = options.clone();
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options
}

pub(super) fn family(name: &str, cache: &BlockCache) -> Options {
    let (mut options, mut table) = match name {
        RECORDS => (records(), found_by_key()),
        BY_GROUP | BY_EMAIL => (index(), listed()),
        // It is read from some entry on, so there is no filter.
        OPLOG => (Options::default(), BlockBasedOptions::default()),
        META => (Options::default(), found_by_key()),
        _ => unreachable!("{name} is none of the column families"),
    };
    table.set_block_cache(&cache.blocks);
    options.set_block_based_table_factory(&table);
    // With two, a writer waits whenever the one is full before the other is written out.
    options.set_max_write_buffer_number(4);
    options.set_write_buffer_size(match name {
        // Their tables are written at once, so there is next to nothing in memory.
        RECORDS | BY_GROUP | BY_EMAIL => 2 * MIB,
        OPLOG => 4 * MIB,
        // It is written out when most of it is dropped, which is sooner.
        _ => 16 * MIB,
    });
    if matches!(name, RECORDS | OPLOG | META) {
        options.set_compression_type(DBCompressionType::Lz4);
    }
    options
}

/// A filter tells of a table that it does not have a key.
fn found_by_key() -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_bloom_filter(10.0, false);
    table
}

/// Name of the setting of a column family that says how many tables come together before they are merged.
pub(super) const BEFORE_MERGE: &str = "level0_file_num_compaction_trigger";

/// So many are it for the records, or one of the indexes; in bulk twice as many.
pub(super) fn before_merge(name: &str, bulk: bool) -> i32 {
    let usual = if name == RECORDS { 12 } else { 8 };
    if bulk { 2 * usual } else { usual }
}

/// Whoever lists reads many keys in a row, so blocks are large: what leads to them stays in memory.
fn listed() -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_size(16 << 10);
    table
}

/// Of the records, and of a table that is to be taken into them: it is soon written again, and not compressed
/// before.
pub(super) fn records() -> Options {
    let mut options = Options::default();
    options.set_block_based_table_factory(&found_by_key());
    options.set_compression_type(DBCompressionType::None);
    // As many records as usual come together before those of the next level are written again: the tables are
    // smaller.
    options.set_level_zero_file_num_compaction_trigger(before_merge(RECORDS, false));
    options.set_level_zero_slowdown_writes_trigger(40);
    options.set_level_zero_stop_writes_trigger(64);
    options
}

/// Of an index, and of a table that is to be taken into it.
///
/// Nobody looks for a single key, so there is no filter; keys that are half hashes do not get shorter; and
/// few look at all, so the order may be worse than that of the records, and the work for it less: tables are
/// merged when there are several of a size.
pub(super) fn index() -> Options {
    let mut options = Options::default();
    options.set_block_based_table_factory(&listed());
    options.set_compression_type(DBCompressionType::None);
    options.set_compaction_style(DBCompactionStyle::Universal);
    options.set_level_zero_file_num_compaction_trigger(before_merge(BY_EMAIL, false));
    // The tables are small, so there may be many of them before a writer has to wait.
    options.set_level_zero_slowdown_writes_trigger(40);
    options.set_level_zero_stop_writes_trigger(64);
    options
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
