//! What a db-process uses of its machine, for people and for monitoring. It decides nothing.

use serde::{Deserialize, Serialize};

// db-process → gateway, after the registration and then at a fixed interval; the newest counts.
/// What a db-process uses of its machine, as it last said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct ProcessUsage {
    /// Version of its program.
    pub version: String,
    /// Memory that it holds.
    pub memory_bytes: u64,
    /// What its data directory takes on disk.
    pub disk_bytes: u64,
    /// What is left on that disk.
    pub disk_free_bytes: u64,
    /// Its primary, then its replica.
    pub copies: Vec<CopyUsage>,
}

/// One copy, and what RocksDB says of its database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct CopyUsage {
    /// Live users in it.
    pub users: u64,
    /// Entries of its op-log.
    pub op_log_entries: u64,
    /// Table files (SST).
    pub table_files: u64,
    /// Size of these.
    pub table_bytes: u64,
    /// Memory of the memtables.
    pub memtable_bytes: u64,
    /// What compaction has yet to rewrite, as RocksDB estimates it.
    pub pending_compaction_bytes: u64,
}
