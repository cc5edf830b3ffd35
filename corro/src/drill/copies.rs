//! Whether both copies of every partition hold the same, record by record, as they are on disk.
//!
//! The writes rest meanwhile; one copy follows the other, so equality is waited for.

use std::time::{Duration, Instant};

use db_process::store::{ReadOnlyStore, Snapshot, StoreError};
use protocol::placement::{Place, replica_of};

use super::driver::DataFolder;

/// A replica that still differs after that much rest does not follow.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks.
const GLANCE: Duration = Duration::from_millis(20);

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
            Ok((records, 0)) => return (records, None),
            Ok((records, differ)) if late => {
                let what = format!("partition {partition}: {differ} of {records} records differ");
                return (records, Some(what));
            }
            Err(error) if late => return (0, Some(format!("partition {partition} cannot be read: {error}"))),
            // The owner of the database may be putting its files in order.
            Ok(_) | Err(_) => std::thread::sleep(GLANCE),
        }
    }
}

/// Walks through both copies, which are in the order of ids. Returns how many records there are, and how many
/// differ.
fn compare_once(data: &DataFolder, partition: u16) -> Result<(u64, u64), StoreError> {
    let primary = ReadOnlyStore::open(&data.copy(partition, "primary"))?;
    let Some(place) = replica_of(partition, data.size) else {
        return Ok((primary.snapshot()?.records().count() as u64, 0));
    };
    let replica = ReadOnlyStore::open(&data.copy(place, "replica"))?;
    let (primary, replica) = (primary.snapshot()?, replica.snapshot()?);
    let (mut left, mut right) = (primary.records(), replica.records());
    let (mut one, mut other) = (left.next().transpose()?, right.next().transpose()?);
    let (mut records, mut differ) = (0, 0);
    while one.is_some() || other.is_some() {
        records += 1;
        let ids = (one.as_ref().map(|(id, _)| *id), other.as_ref().map(|(id, _)| *id));
        let (has_one, has_other) = match ids {
            (Some(a), Some(b)) => (a <= b, b <= a),
            (a, b) => (a.is_some(), b.is_some()),
        };
        differ += u64::from(one != other);
        if has_one {
            one = left.next().transpose()?;
        }
        if has_other {
            other = right.next().transpose()?;
        }
    }
    Ok((records, differ))
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
