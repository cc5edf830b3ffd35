//! Pages: what a batch leaves to be put into its place later, or to be remembered for a while.

use protocol::{UserId, Version};

use super::{DecodeError, FORMAT, Reader, flag};
use crate::store::{Derived, IndexKey};

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

/// A page of changed records, as an earlier program wrote it.
#[derive(Debug, PartialEq, Eq)]
pub struct Changed<'a> {
    /// Users with the bytes of their records, which are empty if nothing is known any more.
    pub records: Vec<(UserId, &'a [u8])>,
    /// What changes in the digests: a bucket, and the exclusive or of its digest before and after.
    pub digests: Vec<(u8, u64)>,
}

/// Reads such a page.
///
/// # Errors
/// If the bytes are no such page.
pub fn read_changed(bytes: &[u8]) -> Result<Changed<'_>, DecodeError> {
    let (flags, mut rest) = Reader::open(bytes, changed_flags::ALL)?;
    let mut changed = Changed { records: Vec::new(), digests: Vec::new() };
    if flags & changed_flags::HAS_DIGESTS != 0 {
        for _ in 0..u32::from_be_bytes(rest.take()?) {
            let [bucket] = rest.take()?;
            changed.digests.push((bucket, rest.u64()?));
        }
    }
    for _ in 0..u32::from_be_bytes(rest.take()?) {
        changed.records.push((rest.id()?, rest.sized()?));
    }
    rest.close()?;
    Ok(changed)
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
