//! Placement: which partition a user belongs to, and which processes hold a partition.
//!
//! Partition = jump consistent hash (Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm",
//! 2014) of the XXH3 64-bit hash of the sixteen bytes of the id. Partition *p* of *n* has its primary copy on
//! the process at place *p* and its replica on the next one round the ring. Placement is for ever: a test
//! pins it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::user::UserId;

/// Number of a partition, `0..n`.
pub type Partition = u16;

/// Place of a db-process in the ring, `0..n`: the last number of its name.
pub type Place = u16;

/// The partition of a user in a ring of `n` processes.
///
/// # Panics
/// If `n` is zero: a ring has at least one process.
pub fn partition_of(id: &UserId, n: u16) -> Partition {
    assert!(n > 0, "a ring has at least one process");
    jump_hash(xxh3_64(id.as_bytes()), n)
}

/// The place of the primary copy of a partition.
pub fn primary_of(partition: Partition) -> Place {
    partition
}

/// The place of the replica of a partition; `None` in a ring of one, which has no replicas.
pub fn replica_of(partition: Partition, n: u16) -> Option<Place> {
    (n > 1).then(|| (partition + 1) % n)
}

/// The partition whose replica is held at `place`; `None` in a ring of one.
pub fn replicated_at(place: Place, n: u16) -> Option<Partition> {
    (n > 1).then(|| (place + n - 1) % n)
}

/// Figure 1 of the paper, with the same 64-bit linear congruential generator.
fn jump_hash(mut key: u64, buckets: u16) -> u16 {
    let (mut bucket, mut next) = (-1_i64, 0_i64);
    while next < i64::from(buckets) {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((bucket + 1) as f64 * ((1_u64 << 31) as f64 / ((key >> 33) + 1) as f64)) as i64;
    }
    // `bucket` is below `buckets` here and was set at least once, since `buckets` is not zero.
    bucket as u16
}

/// Name of a db-process, such as `db-1`; its last number is its place in the ring.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceName {
    name: String,
    place: Place,
}

impl InstanceName {
    /// The place that the name stands for.
    pub fn place(&self) -> Place {
        self.place
    }

    /// What is in front of the place: `db-` of `db-1`.
    pub fn stem(&self) -> &str {
        self.name.trim_end_matches(|c: char| c.is_ascii_digit())
    }

    /// The name of the process at another place of the same ring: `db-1` and 2 give `db-2`.
    pub fn neighbour(&self, place: Place) -> String {
        format!("{}{place}", self.stem())
    }

    /// The name as configured.
    pub fn as_str(&self) -> &str {
        &self.name
    }
}

/// A name that cannot stand for a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAnInstanceName;

impl fmt::Display for NotAnInstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a name of 1 to 64 letters, digits, '-', '_' and '.' that ends with its place in the ring \
             (db-0, db-1, …, db-999)",
        )
    }
}

impl std::error::Error for NotAnInstanceName {}

impl FromStr for InstanceName {
    type Err = NotAnInstanceName;

    fn from_str(name: &str) -> Result<Self, NotAnInstanceName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        if name.len() > 64 || !name.bytes().all(allowed) || !(1..=3).contains(&digits) {
            return Err(NotAnInstanceName);
        }
        let place = name[name.len() - digits..].parse().map_err(|_| NotAnInstanceName)?;
        Ok(Self { name: name.to_owned(), place })
    }
}

impl TryFrom<String> for InstanceName {
    type Error = NotAnInstanceName;

    fn try_from(name: String) -> Result<Self, NotAnInstanceName> {
        name.parse()
    }
}

impl From<InstanceName> for String {
    fn from(name: InstanceName) -> Self {
        name.name
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// The users of every ring in the world were placed by these values. If this test fails, the hash is
    /// wrong, not the test.
    #[test]
    fn placement_is_pinned() {
        let ids = [
            Uuid::nil(),
            Uuid::max(),
            Uuid::from_u128(1),
            Uuid::from_u128(0x0190_a5b2_7c3d_7e4f_8a1b_2c3d_4e5f_6071),
            Uuid::from_u128(0xdead_beef_dead_4eef_beef_dead_beef_dead),
        ];
        let placed: Vec<[u16; 5]> =
            ids.iter().map(|id| [1, 3, 5, 7, 100].map(|n| partition_of(id, n))).collect();
        assert_eq!(placed, PINNED);
    }

    /// Computed with independent implementations of both hashes.
    const PINNED: [[u16; 5]; 5] =
        [[0, 2, 2, 2, 43], [0, 1, 1, 1, 1], [0, 1, 4, 4, 65], [0, 0, 3, 3, 87], [0, 2, 2, 2, 2]];

    #[test]
    fn partitions_are_even_and_growing_moves_only_what_it_must() {
        let ids: Vec<Uuid> = (0..30_000_u128).map(|i| Uuid::from_u128(i * 0x9e37_79b9_7f4a_7c15)).collect();
        let mut sizes = [0_u32; 3];
        for id in &ids {
            sizes[usize::from(partition_of(id, 3))] += 1;
            let (three, four) = (partition_of(id, 3), partition_of(id, 4));
            assert!(four == three || four == 3, "a user moves to the new partition or not at all");
        }
        assert!(sizes.iter().all(|&size| (9_500..10_500).contains(&size)), "{sizes:?}");
    }

    #[test]
    fn the_replica_is_one_place_on_and_a_ring_of_one_has_none() {
        assert_eq!((primary_of(2), replica_of(2, 3), replicated_at(0, 3)), (2, Some(0), Some(2)));
        assert_eq!((primary_of(0), replica_of(0, 1), replicated_at(0, 1)), (0, None, None));
        for place in 0..5 {
            let partition = replicated_at(place, 5).expect("five processes");
            assert_eq!(replica_of(partition, 5), Some(place));
        }
    }

    #[test]
    fn names_end_with_their_place() {
        let name: InstanceName = "eu.db-12".parse().expect("a good name");
        assert_eq!((name.place(), name.neighbour(3).as_str()), (12, "eu.db-3"));
        for bad in ["", "db", "db-", "db-1a", "db 1", "db-1000", "δb-1", "db-1\n"] {
            assert_eq!(bad.parse::<InstanceName>(), Err(NotAnInstanceName), "{bad:?}");
        }
    }
}
