//! Reads a whole copy and compares what follows from its records with what is stored beside them.
//!
//! It takes no memory to speak of, however large the copy is: for what is too large to be held, it compares
//! sums of hashes, which do not depend on the order of what goes into them.

use protocol::message::query::{BUCKETS, Damage};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::store::derived::{Digests, IndexKey, places};
use crate::store::{Encoded, Snapshot, StoreError};

/// What is wrong with the copy: nothing, if it is sound. Where it cannot be read to its end that is all that
/// is said.
pub fn audit(snapshot: &impl Snapshot) -> Vec<Damage> {
    let compared = read_applied(snapshot).and_then(|()| compare(snapshot, &found(snapshot)?));
    compared.unwrap_or_else(|error| vec![Damage::Unreadable(error.to_string())])
}

/// What all records come to.
struct Found {
    digests: Box<Digests>,
    records: u64,
    users: u64,
    /// Of the places that the users should have.
    index: Sum,
    /// Of the groups, each as often as it has users.
    groups: Sum,
}

/// The sum of the hashes of what goes into it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum(u64);

impl Sum {
    fn add(&mut self, times: u64, hash: u64) {
        self.0 = self.0.wrapping_add(hash.wrapping_mul(times));
    }

    fn add_place(&mut self, place: IndexKey) {
        let (kind, value) = match place {
            IndexKey::Group(group, _) => (0, u64::from(group.cast_unsigned())),
            IndexKey::Email(hash, _) => (1, hash),
        };
        let seed = xxh3_64_with_seed(&value.to_be_bytes(), kind);
        self.add(1, xxh3_64_with_seed(place.id().as_bytes(), seed));
    }

    fn add_group(&mut self, users: u64, group: i32) {
        self.add(users, xxh3_64(&group.to_be_bytes()));
    }
}

fn found(snapshot: &impl Snapshot) -> Result<Found, StoreError> {
    let (index, groups) = (Sum::default(), Sum::default());
    let mut found = Found { digests: Digests::new(), records: 0, users: 0, index, groups };
    for item in snapshot.records() {
        let (id, record) = item?;
        found.records += 1;
        if let Some(places) = places(id, &record) {
            found.users += 1;
            found.groups.add_group(1, record.group.1);
            places.into_iter().for_each(|place| found.index.add_place(place));
        }
        found.digests.toggle(&id, &Encoded::from(record).bytes);
    }
    Ok(found)
}

/// Whether the pages can be read: nothing else says what should be on them.
fn read_applied(snapshot: &impl Snapshot) -> Result<(), StoreError> {
    snapshot.applied().try_for_each(|page| page.map(drop))
}

fn compare(snapshot: &impl Snapshot, found: &Found) -> Result<Vec<Damage>, StoreError> {
    let mut damage = Vec::new();
    let stored = snapshot.digests()?;
    for bucket in (0..BUCKETS).filter(|&bucket| stored.values()[bucket] != found.digests.values()[bucket]) {
        damage.push(Damage::Bucket(u8::try_from(bucket).expect("there are 256 buckets")));
    }
    let (mut users, mut groups) = (0_u64, Sum::default());
    let mut empty = false;
    for item in snapshot.group_counts() {
        let (group, count) = item?;
        users = users.wrapping_add(count);
        empty |= count == 0;
        groups.add_group(count, group);
    }
    let meta = snapshot.meta();
    let counted = (meta.records, meta.users, users, &groups, empty);
    if counted != (found.records, found.users, found.users, &found.groups, false) {
        damage.push(Damage::Count);
    }
    let (mut places, mut index) = (0, Sum::default());
    for place in snapshot.index() {
        index.add_place(place?);
        places += 1;
    }
    if (places, &index) != (2 * found.users, &found.index) {
        damage.push(Damage::Index);
    }
    Ok(damage)
}
