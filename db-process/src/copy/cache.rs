//! Records that were changed lately, in memory: whoever is changed is often changed again, and to find a record here costs a
//! fraction of a search through the memtables and files of a database.
//!
//! It is a direct-mapped cache: each user has one place in it, which the last one of those takes who share it. So there is no
//! list to keep in order, and no more than one look. Only what was changed after it was created is put here; most records never
//! are, and would drive out those that are.
//!
//! All changes of a copy go through [`super::Copy::commit`], which keeps this in step with the store. Readers do not come here.

use protocol::UserId;
use xxhash_rust::xxh3::xxh3_64;

use crate::store::Encoded;

/// Longer ones are not kept, so that the memory has a bound.
const LONGEST: usize = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct Cache {
    /// The encoded record in each place; one that is empty is none.
    places: Vec<(UserId, Vec<u8>)>,
}

impl Cache {
    /// With so many places; at most 300 bytes each.
    pub(super) fn new(places: usize) -> Self {
        Self { places: vec![(UserId::nil(), Vec::new()); places] }
    }

    fn place(&self, id: &UserId) -> Option<usize> {
        (xxh3_64(id.as_bytes()) as usize).checked_rem(self.places.len())
    }

    /// The encoding of a user's record, if it is here.
    pub(super) fn get(&self, id: &UserId) -> Option<&[u8]> {
        let (holder, bytes) = &self.places[self.place(id)?];
        (holder == id && !bytes.is_empty()).then_some(bytes)
    }

    /// The record of a user is on its way to the store. It is kept if it was changed after it was created, or was here before.
    pub(super) fn put(&mut self, id: &UserId, Encoded { record, bytes }: &Encoded) {
        let Some(place) = self.place(id) else { return };
        let (holder, kept) = &mut self.places[place];
        let was_changed = record.version() > record.alive.0;
        if was_changed || holder == id {
            *holder = *id;
            kept.clear();
            if bytes.len() <= LONGEST {
                kept.extend_from_slice(bytes);
            }
        }
    }

    /// Nothing is known of a user any more.
    pub(super) fn remove(&mut self, id: &UserId) {
        if let Some(place) = self.place(id)
            && self.places[place].0 == *id
        {
            self.places[place].1.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Change, Record, Version};
    use uuid::Uuid;

    use super::*;

    fn created(version: u64, name: &str) -> Record {
        let change = Change {
            alive: Some(true),
            name: Some(name.to_owned()),
            email: Some("ada@example.org".to_owned()),
            group: Some(1),
            ..Change::default()
        };
        Record::from_change(Version(version), &change)
    }

    fn changed(version: u64, name: &str) -> Encoded {
        let mut record = created(1, "Ada");
        record.apply(Version(version), &Change { name: Some(name.to_owned()), ..Change::default() });
        record.into()
    }

    #[test]
    fn what_was_changed_lately_is_here() {
        let mut cache = Cache::new(1);
        let [ada, bob] = [1, 2].map(Uuid::from_u128);
        assert_eq!((cache.get(&ada), cache.get(&Uuid::nil())), (None, None), "an empty place is nobody's");
        cache.put(&ada, &created(1, "Ada").into());
        assert_eq!(cache.get(&ada), None, "it may never be changed");
        let second = changed(2, "Augusta Ada");
        cache.put(&ada, &second);
        assert_eq!(cache.get(&ada), Some(second.bytes.as_slice()));
        cache.put(&bob, &created(3, "Bob").into());
        assert_eq!(cache.get(&ada), Some(second.bytes.as_slice()), "who is new drives out nobody");
        let deleted = Record::from_change(Version(4), &Change { alive: Some(false), ..Change::default() });
        cache.put(&ada, &deleted.clone().into());
        assert_eq!(cache.get(&ada), Some(Encoded::from(deleted).bytes.as_slice()), "the old one is no more");
        let third = changed(5, "Bob");
        cache.put(&bob, &third);
        assert_eq!((cache.get(&ada), cache.get(&bob)), (None, Some(third.bytes.as_slice())), "they share it");
        cache.remove(&ada);
        assert!(cache.get(&bob).is_some());
        cache.put(&bob, &changed(6, &"n".repeat(LONGEST)));
        assert_eq!(cache.get(&bob), None, "too long, and the old one is no more");
        cache.put(&bob, &third);
        cache.remove(&bob);
        assert_eq!(cache.get(&bob), None);
        let mut none = Cache::new(0);
        none.put(&bob, &third);
        none.remove(&bob);
        assert_eq!(none.get(&bob), None);
    }
}
