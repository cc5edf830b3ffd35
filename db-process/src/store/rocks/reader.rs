//! Reading: anywhere, while the database is written to.

use std::sync::{Arc, Mutex};

use protocol::message::replication::LogEntry;
use protocol::{Record, UserId};
use rocksdb::{ColumnFamily, DB};

use super::indexes::Pending;
use super::latest::Latest;
use super::recent_records::RecentRecords;
use super::schema::{META, RECORDS, STATE, decode_meta, decode_record, no_state};
use super::snapshot::RocksSnapshot;
use crate::store::{Meta, Snapshot, StoreError};

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

    /// See [`Store::group_count`](crate::store::Store::group_count).
    ///
    /// # Errors
    /// If the database fails or the number is damaged.
    pub fn group_count(&self, group: i32) -> Result<u64, StoreError> {
        RocksSnapshot::of(self)?.group_count(group)
    }

    /// See [`Store::log_after`](crate::store::Store::log_after).
    ///
    /// # Errors
    /// If the database fails, or an entry is damaged or missing.
    pub fn log_after(&self, sequence: u64, limit: usize) -> Result<Option<Vec<LogEntry>>, StoreError> {
        if let Some(entries) = self.latest.after(sequence, limit) {
            return Ok(Some(entries));
        }
        let snapshot = RocksSnapshot::of(self)?;
        if !snapshot.meta().log_reaches(sequence) {
            return Ok(None);
        }
        snapshot.log(sequence).take(limit).collect::<Result<_, _>>().map(Some)
    }

    /// See [`Store::snapshot`](crate::store::Store::snapshot).
    ///
    /// # Errors
    /// If the database fails or the state is damaged.
    pub fn snapshot(&self) -> Result<impl Snapshot, StoreError> {
        RocksSnapshot::of(self)
    }

    /// Brings to disk what was committed unsynced, as [`Store::sync`](crate::store::Store::sync) does.
    ///
    /// # Errors
    /// If the database fails.
    pub fn sync(&self) -> Result<(), StoreError> {
        Ok(self.db.flush_wal(true)?)
    }
}
