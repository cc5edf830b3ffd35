//! Reading: anywhere, while the database is written to.

use std::sync::{Arc, Mutex};

use protocol::{Record, UserId};
use rocksdb::{ColumnFamily, DB};

use super::indexes::Pending;
use super::latest::Latest;
use super::recent_records::RecentRecords;
use super::schema::{FAMILIES, META, RECORDS, STATE, decode_meta, decode_record, no_state};
use crate::store::{Meta, StoreError};

/// A copy's database, to be read. Clones share it; it is closed when the last one is dropped, and its
/// [writer](super::RocksStore).
#[derive(Clone)]
pub struct RocksReader {
    pub(super) db: Arc<DB>,
    pub(super) latest: Arc<Latest>,
    pub(super) recent: Arc<RecentRecords>,
    pub(super) pending: Arc<Mutex<Pending>>,
}

impl RocksReader {
    /// With nothing of what it holds in memory yet.
    pub(super) fn of(db: DB) -> Self {
        let db = Arc::new(db);
        Self { db, latest: Arc::default(), recent: Arc::default(), pending: Arc::default() }
    }

    pub(super) fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("the database was opened with all its column families")
    }

    pub(super) fn read_meta(&self) -> Result<Option<Meta>, StoreError> {
        let bytes = self.db.get_pinned_cf(self.family(META), STATE)?;
        bytes.map(|bytes| decode_meta(&bytes)).transpose()
    }

    /// See [`Store::get`](crate::store::Store::get).
    ///
    /// # Errors
    /// If the database fails or the record is damaged.
    pub fn get(&self, id: &UserId) -> Result<Option<Record>, StoreError> {
        Ok(self.get_many(std::slice::from_ref(id))?.pop().flatten())
    }

    /// See [`Store::get_many`](crate::store::Store::get_many).
    ///
    /// # Errors
    /// If the database fails or one of the records is damaged.
    pub fn get_many(&self, ids: &[UserId]) -> Result<Vec<Option<Record>>, StoreError> {
        let mut found = self.recent.get_many(ids)?;
        let unknown: Vec<_> = ids.iter().zip(&mut found).filter(|(_, found)| found.is_none()).collect();
        if !unknown.is_empty() {
            let keys = unknown.iter().map(|(id, _)| id.as_bytes());
            let stored = self.db.batched_multi_get_cf(self.family(RECORDS), keys, false);
            for ((id, found), bytes) in unknown.into_iter().zip(stored) {
                *found = Some(bytes?.map(|bytes| decode_record(id, &bytes)).transpose()?);
            }
        }
        Ok(found.into_iter().map(Option::flatten).collect())
    }

    /// See [`Store::meta`](crate::store::Store::meta).
    ///
    /// # Errors
    /// If the database fails or the state is damaged.
    pub fn meta(&self) -> Result<Meta, StoreError> {
        self.read_meta()?.ok_or_else(no_state)
    }

    /// Brings to disk what was committed unsynced, as [`Store::sync`](crate::store::Store::sync) does.
    ///
    /// # Errors
    /// If the database fails.
    pub fn sync(&self) -> Result<(), StoreError> {
        Ok(self.db.flush_wal(true)?)
    }

    /// Gives up what RocksDB does in the background, for good: the database is about to be closed.
    pub fn cancel_background_work(&self) {
        self.db.cancel_all_background_work(true);
    }

    /// Flushes all memtables, so that nothing of the log is needed any more.
    ///
    /// # Errors
    /// If the database fails.
    pub fn flush(&self) -> Result<(), StoreError> {
        for name in FAMILIES {
            self.db.flush_cf(self.family(name))?;
        }
        Ok(())
    }
}
