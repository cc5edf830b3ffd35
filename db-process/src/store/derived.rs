//! What follows from the records, and is stored beside them, so that it is known without reading all of them:
//! digests, counts and indexes. It is written in the batch that changes the records, so it fits them after
//! every crash.
//!
//! * **Digests**: the users fall into [`BUCKETS`] buckets by a hash of their id, and each bucket has the
//!   exclusive or of the hashes of its records, live ones and tombstones. A record comes in and goes out by
//!   the same operation, so a change costs two hashes however much is stored; the order of the changes does
//!   not matter, so two copies that hold the same have the same digests however they came to it.
//! * **Indexes**: the live users by group, in id order, and by the hash of their folded email. They hold no
//!   values; a hash is no proof, so a lookup of an email compares it with the record.
//! * **Counts**: of records and live users in all (in [`super::Meta`]), and of live users by group. A place
//!   that is taken or left in the index by group is a user more or less of that group, so a batch says
//!   nothing else of these. A group without live users has no count.
//!
//! What it does not do: it does not decide when to write. [`crate::copy`] turns each change of a record into
//! changes of these, and [`super::rocks`] makes them from nothing for a database that has none yet.

use std::fmt;

use protocol::message::query::BUCKETS;
use protocol::user::fold_email;
use protocol::{Record, UserId};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// One digest a bucket. See the [module](self).
#[derive(Clone, PartialEq, Eq)]
pub struct Digests([u64; BUCKETS]);

impl Digests {
    /// Of no records at all.
    pub fn new() -> Box<Self> {
        Box::new(Self([0; BUCKETS]))
    }

    /// Of these values, one a bucket; `None` where they are more or fewer.
    pub fn from_values(values: &[u64]) -> Option<Box<Self>> {
        values.try_into().ok().map(|values| Box::new(Self(values)))
    }

    /// One value a bucket.
    pub fn values(&self) -> &[u64] {
        &self.0
    }

    /// Changes buckets by the exclusive or of their digests before and after.
    pub fn change(&mut self, changes: &[(u8, u64)]) {
        for (bucket, by) in changes {
            self.0[usize::from(*bucket)] ^= by;
        }
    }

    /// Takes a record in, or out again: both are the same. `bytes` are its encoding.
    pub fn toggle(&mut self, id: &UserId, bytes: &[u8]) {
        let of_id = xxh3_64(id.as_bytes());
        self.0[bucket(of_id)] ^= xxh3_64_with_seed(bytes, of_id);
    }
}

/// The digests say nothing to a reader; whether there are any does.
impl fmt::Debug for Digests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digests({:016x})", self.0.iter().fold(0, |all: u64, one| all.rotate_left(1) ^ one))
    }
}

/// The bucket of a user. A hash decides, since ids that were made one after another have much in common.
pub fn bucket_of(id: &UserId) -> usize {
    bucket(xxh3_64(id.as_bytes()))
}

/// The low byte; `BUCKETS` is the number of its values.
fn bucket(of_id: u64) -> usize {
    of_id as usize % BUCKETS
}

/// What an address is found by: the hash of [`fold_email`].
pub fn email_hash(email: &str) -> u64 {
    xxh3_64(fold_email(email).as_bytes())
}

/// A place in an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum IndexKey {
    /// A live user of a group.
    Group(i32, UserId),
    /// A live user with an address of that [`email_hash`].
    Email(u64, UserId),
}

impl IndexKey {
    /// The user whose place it is.
    pub fn id(&self) -> UserId {
        match self {
            Self::Group(_, id) | Self::Email(_, id) => *id,
        }
    }
}

/// The places of a record, if it is a live user's.
pub fn places(id: UserId, record: &Record) -> Option<[IndexKey; 2]> {
    let group = IndexKey::Group(record.group.1, id);
    record.is_alive().then(|| [group, IndexKey::Email(email_hash(&record.email.1), id)])
}

/// How places change where a record was `before` and is `after`: first what is left, then what is taken, for
/// one index after the other.
pub fn place_changes(
    id: UserId,
    before: Option<&Record>,
    after: Option<&Record>,
) -> impl Iterator<Item = (IndexKey, bool)> {
    let live = [before, after].map(|record| record.filter(|record| record.is_alive()));
    let [was, is] = live.map(|record| record.map(|record| (record.group.1, record.email.1.as_str())));
    let groups = [was, is].map(|record| record.map(|(group, _)| IndexKey::Group(group, id)));
    // Most changes are of something else, and the hash of an address costs as much as that of a record.
    let moves = was.map(|(_, email)| email) != is.map(|(_, email)| email);
    let hashed = |record: Option<(i32, &str)>| Some(IndexKey::Email(email_hash(record?.1), id));
    let emails = if moves { [was, is].map(hashed) } else { [None; 2] };
    let changed = [groups, emails].into_iter().filter(|[left, taken]| left != taken);
    changed.flat_map(|[left, taken]| {
        [(left, false), (taken, true)].into_iter().filter_map(|(place, taken)| Some((place?, taken)))
    })
}

/// What a batch changes of all this.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Derived {
    /// All digests after it; `None` where no record changes.
    pub digests: Option<Box<Digests>>,
    /// Places that are taken (true) or left (false), in this order. What is taken was free, and what is left
    /// was taken.
    pub index: Vec<(IndexKey, bool)>,
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// Two copies may run different versions of this program, so these never change.
    #[test]
    fn hashes_are_pinned() {
        let id = Uuid::from_u128(0x0190_a5b2_7c3d_7e4f_8a1b_2c3d_4e5f_6071);
        let mut digests = Digests::new();
        digests.toggle(&id, b"a record");
        let changed: Vec<_> = digests.values().iter().enumerate().filter(|(_, value)| **value != 0).collect();
        assert_eq!(changed.len(), 1);
        assert_eq!((bucket_of(&id), *changed[0].1), PINNED);
        assert_eq!(email_hash("Ada@Example.org"), email_hash("ada@example.ORG"));
        for email in ["ADA@example.org", "ÅDA@example.org", &"A".repeat(128), &"A".repeat(129)] {
            assert_eq!(email_hash(email), xxh3_64(fold_email(email).as_bytes()));
        }
        digests.toggle(&id, b"a record");
        assert_eq!(digests, Digests::new(), "twice is never");
    }

    /// Computed with another implementation of the hash.
    const PINNED: (usize, u64) = (181, 9_533_184_348_243_683_047);
}
