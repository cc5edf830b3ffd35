//! The records that were written last, in memory: they are often asked for again, and a lookup in RocksDB's
//! memtable costs several times as much.
//!
//! Only the writer adds to it, when a batch is in the database. So what is found here is what the last
//! commits left, and what is not found is as of now in the database.

use std::collections::HashMap;
use std::mem;
use std::sync::{PoisonError, RwLock};

use protocol::{Record, UserId};

use super::schema::decode_record;
use crate::store::{Batch, StoreError};

/// There are two generations of so many records, of some 150 bytes each. When the younger one is full, the
/// older one goes.
const GENERATION: usize = if cfg!(test) { 8 } else { 24_576 };

/// Users with the bytes of their records; `None` if nothing is known any more.
type Generation = HashMap<UserId, Option<Box<[u8]>>>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct RecentRecords(RwLock<[Generation; 2]>);

impl RecentRecords {
    /// Adds what was written.
    pub(super) fn add(&self, batch: &Batch) {
        let mut generations = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let [young, old] = &mut *generations;
        young.extend(batch.records.iter().map(|(id, put)| (*id, Some(put.bytes.as_slice().into()))));
        young.extend(batch.gone.iter().map(|id| (*id, None)));
        if young.len() >= GENERATION {
            let oldest = mem::replace(old, mem::take(young));
            // It takes a while to free, which readers need not wait for.
            drop(generations);
            drop(oldest);
        }
    }

    /// Looks users up, in their order: `None` is not known here, `Some(None)` is nothing known any more.
    ///
    /// # Errors
    /// If a record is damaged.
    pub(super) fn get_many(&self, ids: &[UserId]) -> Result<Vec<Option<Option<Record>>>, StoreError> {
        let generations = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let [young, old] = &*generations;
        let find = |id: &UserId| -> Result<_, StoreError> {
            let Some(bytes) = young.get(id).or_else(|| old.get(id)) else { return Ok(None) };
            bytes.as_ref().map(|bytes| decode_record(id, bytes)).transpose().map(Some)
        };
        ids.iter().map(find).collect()
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Change, Version};
    use uuid::Uuid;

    use super::*;
    use crate::store::Meta;

    #[test]
    fn the_last_records_are_known_and_the_oldest_go() {
        let recent = RecentRecords::default();
        let ids: Vec<_> = (0..40).map(Uuid::from_u128).collect();
        let add = |version, put: std::ops::Range<usize>, gone: &[usize]| {
            let mut batch = Batch::new(Meta::new(Uuid::nil()));
            let change = Change { alive: Some(true), ..Change::default() };
            batch.records =
                put.map(|n| (ids[n], Record::from_change(Version(version), &change).into())).collect();
            batch.gone = gone.iter().map(|&n| ids[n]).collect();
            recent.add(&batch);
        };
        let known = |wanted: &[usize]| -> Vec<_> {
            let wanted: Vec<_> = wanted.iter().map(|&n| ids[n]).collect();
            let found = recent.get_many(&wanted).expect("sound records").into_iter();
            found.map(|found| found.map(|record| record.map(|record| record.version().0))).collect()
        };
        add(1, 0..GENERATION, &[]);
        add(2, 3..4, &[5]);
        assert_eq!(known(&[2, 3, 5, 30]), [Some(Some(1)), Some(Some(2)), Some(None), None]);
        add(3, 10..10 + GENERATION, &[]);
        assert_eq!(known(&[2, 3, 5, 10]), [None, Some(Some(2)), Some(None), Some(Some(3))]);
    }
}
