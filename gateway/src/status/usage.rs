//! What db-processes use of their machines.

use protocol::message::usage;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a db-process uses of its machine, as it last said.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
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

impl From<&usage::ProcessUsage> for ProcessUsage {
    fn from(usage: &usage::ProcessUsage) -> Self {
        let usage::ProcessUsage { version, memory_bytes, disk_bytes, disk_free_bytes, copies } =
            usage.clone();
        let copies = copies.into_iter().map(Into::into).collect();
        Self { version, memory_bytes, disk_bytes, disk_free_bytes, copies }
    }
}

impl From<usage::CopyUsage> for CopyUsage {
    fn from(usage: usage::CopyUsage) -> Self {
        let usage::CopyUsage {
            users,
            op_log_entries,
            table_files,
            table_bytes,
            memtable_bytes,
            pending_compaction_bytes,
        } = usage;
        Self { users, op_log_entries, table_files, table_bytes, memtable_bytes, pending_compaction_bytes }
    }
}
