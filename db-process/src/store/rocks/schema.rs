//! Column families and keys.
//!
//! | column family | key | value |
//! |---|---|---|
//! | `records` | the 16 bytes of the id | the record |
//! | `oplog` | the sequence, 8 bytes big endian | the entry |
//! | `meta` | `state` | the state of the copy |
//! | | `digests` | the digests of all records |
//! | | `applied`, then the page, 8 bytes big endian | versions of operations accepted elsewhere |
//! | | `group`, then the group as in `by_group` | the number of its live users |
//! | | `pending`, then the page, 8 bytes big endian | changes not yet in indexes and counts |
//! | | `folded` | the last of these pages that is |
//! | `by_group` | the group, 4 bytes in numerical order, then the id of a live user | nothing |
//! | `by_email` | hash of the folded email, 8 bytes big endian, then the id of a live user | nothing |
//!
//! Earlier programs wrote two more kinds of keys into `meta` ([`upgrade`](super::upgrade)).

use protocol::{Record, UserId};
use uuid::Uuid;

use crate::store::{IndexKey, Meta, StoreError, encoding};

pub(super) const RECORDS: &str = "records";
pub(super) const OPLOG: &str = "oplog";
pub(super) const META: &str = "meta";
pub(super) const BY_GROUP: &str = "by_group";
pub(super) const BY_EMAIL: &str = "by_email";
pub(super) const FAMILIES: [&str; 5] = [RECORDS, OPLOG, META, BY_GROUP, BY_EMAIL];

pub(super) const STATE: &[u8] = b"state";
pub(super) const DIGESTS: &[u8] = b"digests";
pub(super) const FOLDED: &[u8] = b"folded";
/// Prefixes of keys.
pub(super) const APPLIED: &[u8] = b"applied";
pub(super) const GROUP: &[u8] = b"group";
pub(super) const PENDING: &[u8] = b"pending";

/// The key of a page of that kind.
pub(super) fn page_key(kind: &[u8], page: u64) -> Vec<u8> {
    [kind, &page.to_be_bytes()].concat()
}

/// The number of a page of that kind, by its key.
pub(super) fn page_number(kind: &[u8], key: &[u8]) -> Result<u64, StoreError> {
    let number = key.strip_prefix(kind).and_then(|number| number.try_into().ok());
    let none = || StoreError::Inconsistent(format!("a page of {} has no number", kind.escape_ascii()));
    number.map(u64::from_be_bytes).ok_or_else(none)
}

/// The key of the number of users of a group.
pub(super) fn group_key(group: i32) -> Vec<u8> {
    [GROUP, &ordered(group)].concat()
}

/// The group of such a key.
pub(super) fn group_in(key: &[u8]) -> Result<i32, StoreError> {
    let group = key.strip_prefix(GROUP).and_then(|group| group.try_into().ok()).map(group_of);
    group.ok_or_else(|| StoreError::Inconsistent("a number is of no group".to_owned()))
}

/// Four bytes that are in the order of the groups.
fn ordered(group: i32) -> [u8; 4] {
    (group.cast_unsigned() ^ (1 << 31)).to_be_bytes()
}

fn group_of(bytes: [u8; 4]) -> i32 {
    (u32::from_be_bytes(bytes) ^ (1 << 31)).cast_signed()
}

/// The key of a user's place in an index. The column family follows from the kind of the place.
pub(super) fn place_key(place: &IndexKey) -> Vec<u8> {
    match place {
        IndexKey::Group(group, id) => [&ordered(*group), id.as_bytes().as_slice()].concat(),
        IndexKey::Email(hash, id) => [&hash.to_be_bytes(), id.as_bytes().as_slice()].concat(),
    }
}

/// The place of a key in that index.
pub(super) fn place_in(family: &str, key: &[u8]) -> Result<IndexKey, StoreError> {
    let place = key.split_last_chunk().and_then(|(value, id)| {
        let id = Uuid::from_bytes(*id);
        Some(match family {
            BY_GROUP => IndexKey::Group(group_of(value.try_into().ok()?), id),
            _ => IndexKey::Email(u64::from_be_bytes(value.try_into().ok()?), id),
        })
    });
    place.ok_or_else(|| StoreError::Inconsistent("a place in an index has another form".to_owned()))
}

/// The user whose record has that key.
pub(super) fn record_key(key: &[u8]) -> Result<UserId, StoreError> {
    Uuid::from_slice(key).map_err(|_| StoreError::Inconsistent("the key of a record is not an id".to_owned()))
}

pub(super) fn decode_record(id: &UserId, bytes: &[u8]) -> Result<Record, StoreError> {
    encoding::read_record(bytes).map_err(StoreError::unreadable(format_args!("the record of {id}")))
}

pub(super) fn decode_meta(bytes: &[u8]) -> Result<Meta, StoreError> {
    encoding::read_meta(bytes).map_err(StoreError::unreadable("the state of the copy"))
}

pub(super) fn no_state() -> StoreError {
    StoreError::Inconsistent("the state of the copy is missing".to_owned())
}

/// The number of users of a group: what is stored, if anything is, and `change` more of them.
pub(super) fn count(group: i32, stored: Option<&[u8]>, change: i64) -> Result<u64, StoreError> {
    let stored = stored.map_or(Ok(0), encoding::read_count);
    let stored =
        stored.map_err(StoreError::unreadable(format_args!("the number of users of group {group}")))?;
    let fewer = || StoreError::Inconsistent(format!("more users have left group {group} than were in it"));
    stored.checked_add_signed(change).ok_or_else(fewer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_in_the_order_of_their_numbers() {
        let groups = [i32::MIN, -7, -1, 0, 1, 8, i32::MAX];
        assert!(groups.map(ordered).is_sorted());
        assert_eq!(groups.map(|group| group_of(ordered(group))), groups);
    }
}
