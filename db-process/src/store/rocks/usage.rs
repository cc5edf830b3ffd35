//! What a database takes of disk and memory.

use rocksdb::properties::{CUR_SIZE_ALL_MEM_TABLES, ESTIMATE_PENDING_COMPACTION_BYTES, PropName};

use super::reader::RocksReader;
use super::schema::FAMILIES;
use crate::store::StoreError;

/// What RocksDB says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DatabaseUsage {
    /// Table files.
    pub table_files: u64,
    /// Their bytes.
    pub table_bytes: u64,
    /// Bytes of the memtables.
    pub memtable_bytes: u64,
    /// Bytes that compaction has yet to rewrite: an estimate.
    pub pending_compaction_bytes: u64,
}

impl RocksReader {
    /// As of now.
    ///
    /// # Errors
    /// If the database fails.
    pub fn usage(&self) -> Result<DatabaseUsage, StoreError> {
        let tables = self.db.live_files()?;
        let of_all = |property: &PropName| -> Result<u64, StoreError> {
            let of_one = |name| self.db.property_int_value_cf(self.family(name), property);
            FAMILIES.into_iter().try_fold(0, |sum, name| Ok(sum + of_one(name)?.unwrap_or_default()))
        };
        Ok(DatabaseUsage {
            table_files: tables.len() as u64,
            table_bytes: tables.iter().map(|table| table.size as u64).sum(),
            memtable_bytes: of_all(CUR_SIZE_ALL_MEM_TABLES)?,
            pending_compaction_bytes: of_all(ESTIMATE_PENDING_COMPACTION_BYTES)?,
        })
    }
}
