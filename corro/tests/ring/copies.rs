//! Compares the copies of a ring, record by record, as they are on disk.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use db_process::store::{ReadOnlyStore, Snapshot};
use protocol::{Record, UserId};

use super::processes::{DEADLINE, Ring};

/// All records of one copy, live ones and tombstones.
pub(crate) fn records(ring: &Ring, place: u16, role: &str) -> BTreeMap<UserId, Record> {
    let store = ReadOnlyStore::open(&ring.data_dir(place).join(role)).unwrap();
    store.snapshot().unwrap().records().map(Result::unwrap).collect()
}

/// Waits until both copies of every partition hold the same records. Returns how many records the primaries
/// hold together, and how long it took.
pub(crate) fn until_equal(ring: &Ring) -> (usize, Duration) {
    let start = Instant::now();
    let mut total = 0;
    for partition in 0..ring.size {
        loop {
            let primary = records(ring, partition, "primary");
            let replica = records(ring, (partition + 1) % ring.size, "replica");
            if primary == replica {
                total += primary.len();
                break;
            }
            let differ = primary.iter().filter(|(id, record)| replica.get(id) != Some(record)).count()
                + replica.keys().filter(|id| !primary.contains_key(id)).count();
            assert!(
                start.elapsed() < DEADLINE,
                "{differ} of {} records of partition {partition} differ after {DEADLINE:?}\n{}",
                primary.len(),
                ring.logs()
            );
        }
    }
    (total, start.elapsed())
}
