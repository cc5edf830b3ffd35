//! Whether both copies of every partition hold the same, record by record, as they are on disk.
//!
//! The writes rest meanwhile; one copy follows the other, so equality is waited for.

use std::time::{Duration, Instant};

use db_process::store::{ReadOnlyStore, Snapshot, StoreError};
use protocol::placement::{Place, replica_of};

use crate::demo::DataFolder;

/// A replica that still differs after that much rest does not follow.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(20);

/// What the comparison came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Comparison {
    /// Records of each partition, tombstones among them.
    pub(crate) records: Vec<u64>,
    /// What differs, for a person.
    pub(crate) differ: Vec<String>,
}

impl Comparison {
    /// Records that a process which lost its disk had to get back: both its copies.
    pub(crate) fn held_by(&self, place: Place) -> u64 {
        let size = self.records.len();
        let place = usize::from(place);
        let others = if size > 1 { self.records[(place + size - 1) % size] } else { 0 };
        self.records[place] + others
    }
}

/// Compares all partitions. It blocks.
pub(crate) fn compare(data: &DataFolder) -> Comparison {
    let deadline = Instant::now() + PATIENCE;
    let mut comparison = Comparison::default();
    for partition in 0..data.size {
        let (records, differ) = until_equal(data, partition, deadline);
        comparison.records.push(records);
        comparison.differ.extend(differ);
    }
    comparison
}

fn until_equal(data: &DataFolder, partition: u16, deadline: Instant) -> (u64, Option<String>) {
    loop {
        let late = Instant::now() >= deadline;
        match compare_once(data, partition) {
            Ok((records, true)) => return (records, None),
            Ok((records, false)) if late => {
                return (
                    records,
                    Some(format!("partition {partition}: its copies of {records} records differ")),
                );
            }
            Err(error) if late => return (0, Some(format!("partition {partition} cannot be read: {error}"))),
            // The owner of the database may be putting its files in order.
            Ok(_) | Err(_) => std::thread::sleep(INTERVAL),
        }
    }
}

/// Reads both copies, which are in the order of ids. Returns how many records there are, and whether they are
/// equal.
fn compare_once(data: &DataFolder, partition: u16) -> Result<(u64, bool), StoreError> {
    let primary = ReadOnlyStore::open(&data.copy(partition, "primary"))?;
    let Some(place) = replica_of(partition, data.size) else {
        return Ok((primary.snapshot()?.records().count() as u64, true));
    };
    let replica = ReadOnlyStore::open(&data.copy(place, "replica"))?;
    let (primary, replica) = (primary.snapshot()?, replica.snapshot()?);
    let (mut left, mut right) = (primary.records(), replica.records());
    let (mut records, mut equal) = (0, true);
    loop {
        let (one, other) = (left.next().transpose()?, right.next().transpose()?);
        if one.is_none() && other.is_none() {
            return Ok((records, equal));
        }
        records += 1;
        equal &= one == other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_holds_its_own_partition_and_its_predecessors() {
        let comparison = Comparison { records: vec![1, 10, 100], differ: Vec::new() };
        assert_eq!([0, 1, 2].map(|place| comparison.held_by(place)), [101, 11, 110]);
        assert_eq!(Comparison { records: vec![5], differ: Vec::new() }.held_by(0), 5);
    }
}
