//! Pages: what a batch leaves to be put into its place later, or to be remembered for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use protocol::{UserId, Version};

use super::{DecodeError, FORMAT, Reader, flag};
use crate::store::{Derived, DigestChange, Encoded, IndexKey};

/// Bytes of a page of applied operations.
pub fn applied(versions: &[Version]) -> Vec<u8> {
    let count = u32::try_from(versions.len()).expect("a batch has fewer operations");
    let mut bytes = Vec::with_capacity(6 + 8 * versions.len());
    bytes.extend([FORMAT, 0]);
    bytes.extend(count.to_be_bytes());
    for version in versions {
        bytes.extend(version.0.to_be_bytes());
    }
    bytes
}

/// Reads what [`applied()`] wrote.
///
/// # Errors
/// If the bytes are not such a page.
pub fn read_applied(bytes: &[u8]) -> Result<Vec<Version>, DecodeError> {
    let (_, mut rest) = Reader::open(bytes, 0)?;
    let count = u32::from_be_bytes(rest.take()?);
    let versions = (0..count).map(|_| rest.version()).collect::<Result<_, _>>()?;
    rest.close()?;
    Ok(versions)
}

mod changed_flags {
    pub(super) const HAS_DIGESTS: u8 = 1;
    pub(super) const ALL: u8 = 1;
}

/// Bytes of a page of changed records, and of what that changes in the digests. Nobody is both put and gone.
pub fn changed(
    records: &BTreeMap<UserId, Encoded>,
    gone: &BTreeSet<UserId>,
    digests: &[DigestChange],
) -> Vec<u8> {
    let count = u32::try_from(records.len() + gone.len()).expect("a batch has fewer records");
    let size: usize = records.values().map(|put| put.bytes.len()).sum();
    let mut bytes = Vec::with_capacity(10 + 9 * digests.len() + 20 * count as usize + size);
    bytes.extend([FORMAT, flag(!digests.is_empty(), changed_flags::HAS_DIGESTS)]);
    if !digests.is_empty() {
        let buckets = u32::try_from(digests.len()).expect("there are fewer buckets");
        bytes.extend(buckets.to_be_bytes());
        for DigestChange { bucket, by } in digests {
            bytes.push(*bucket);
            bytes.extend(by.to_be_bytes());
        }
    }
    bytes.extend(count.to_be_bytes());
    let put = records.iter().map(|(id, put)| (id, put.bytes.as_slice()));
    for (id, record) in put.chain(gone.iter().map(|id| (id, [].as_slice()))) {
        let length = u32::try_from(record.len()).expect("a record has some hundred bytes");
        bytes.extend(id.as_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend(record);
    }
    bytes
}

/// Reads of what [`changed()`] wrote each user, and where in these bytes its record is; an empty place says
/// that it is gone.
///
/// # Errors
/// If the bytes are not such a page.
pub fn read_changed(bytes: &[u8]) -> Result<Vec<(UserId, Range<usize>)>, DecodeError> {
    let (_, mut rest) = open_changed(bytes)?;
    let mut changed = Vec::new();
    for _ in 0..u32::from_be_bytes(rest.take()?) {
        let (id, record) = (rest.id()?, rest.sized()?);
        let end = bytes.len() - rest.left();
        changed.push((id, end - record.len()..end));
    }
    rest.close()?;
    Ok(changed)
}

/// Reads of what [`changed()`] wrote what changes in the digests: nothing where an earlier program wrote it.
///
/// # Errors
/// If the bytes do not begin like such a page.
pub fn read_digest_changes(bytes: &[u8]) -> Result<Vec<DigestChange>, DecodeError> {
    open_changed(bytes).map(|(digests, _)| digests)
}

fn open_changed(bytes: &[u8]) -> Result<(Vec<DigestChange>, Reader<'_>), DecodeError> {
    let (flags, mut rest) = Reader::open(bytes, changed_flags::ALL)?;
    let mut digests = Vec::new();
    if flags & changed_flags::HAS_DIGESTS != 0 {
        for _ in 0..u32::from_be_bytes(rest.take()?) {
            let [bucket] = rest.take()?;
            digests.push(DigestChange { bucket, by: rest.u64()? });
        }
    }
    Ok((digests, rest))
}

mod place_flags {
    pub(super) const TAKEN: u8 = 1;
    pub(super) const EMAIL: u8 = 1 << 1;
    pub(super) const ALL: u8 = (1 << 2) - 1;
}

/// Bytes of a page of pending changes: of all but the digests.
pub fn pending(changes: &Derived) -> Vec<u8> {
    let places = u32::try_from(changes.index.len()).expect("a page has fewer places");
    let mut bytes = Vec::with_capacity(10 + 25 * changes.index.len());
    bytes.extend([FORMAT, 0]);
    bytes.extend(places.to_be_bytes());
    for (key, taken) in &changes.index {
        let taken = flag(*taken, place_flags::TAKEN);
        let id = match key {
            IndexKey::Group(group, id) => {
                bytes.push(taken);
                bytes.extend(group.to_be_bytes());
                id
            }
            IndexKey::Email(hash, id) => {
                bytes.push(taken | place_flags::EMAIL);
                bytes.extend(hash.to_be_bytes());
                id
            }
        };
        bytes.extend(id.as_bytes());
    }
    bytes.extend(0_u32.to_be_bytes());
    bytes
}

/// Reads what [`pending()`] wrote.
///
/// # Errors
/// If the bytes are not such a page.
pub fn read_pending(bytes: &[u8]) -> Result<Derived, DecodeError> {
    let (_, mut rest) = Reader::open(bytes, 0)?;
    let mut changes = Derived::default();
    for _ in 0..u32::from_be_bytes(rest.take()?) {
        let [flags] = rest.take()?;
        if flags & !place_flags::ALL != 0 {
            return Err(DecodeError::UnknownFlags(flags));
        }
        let key = match flags & place_flags::EMAIL {
            0 => IndexKey::Group(i32::from_be_bytes(rest.take()?), rest.id()?),
            _ => IndexKey::Email(rest.u64()?, rest.id()?),
        };
        changes.index.push((key, flags & place_flags::TAKEN != 0));
    }
    for _ in 0..u32::from_be_bytes(rest.take()?) {
        // An earlier program wrote here what follows from the places.
        let _: ([u8; 4], u64) = (rest.take()?, rest.u64()?);
    }
    rest.close()?;
    Ok(changes)
}
