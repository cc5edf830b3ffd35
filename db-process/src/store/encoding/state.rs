//! What there is once, or once a group: the state of a copy, its digests, numbers of users.

use protocol::message::link::{Counted, FlushPoint, Position, Rollback};
use protocol::message::query::BUCKETS;

use super::{DecodeError, FORMAT, Reader, flag};
use crate::store::{Digests, Late, Meta, Origin};

mod meta_flags {
    pub(super) const COMPLETE: u8 = 1;
    pub(super) const HAS_POSITION: u8 = 1 << 1;
    pub(super) const HAS_ORIGIN: u8 = 1 << 2;
    pub(super) const HAS_DERIVED: u8 = 1 << 3;
    pub(super) const HAS_LATE: u8 = 1 << 4;
    pub(super) const HAS_LSN: u8 = 1 << 5;
    pub(super) const ALL: u8 = (1 << 6) - 1;
}

/// Of the byte behind the LSN.
mod disk_flags {
    pub(super) const HAS_OTHER: u8 = 1;
    pub(super) const LOST_COMMITS: u8 = 1 << 1;
    pub(super) const LOST_ENTRIES: u8 = 1 << 2;
    pub(super) const ALL: u8 = (1 << 3) - 1;
}

/// Bytes of a copy's state.
pub fn meta(meta: &Meta) -> Vec<u8> {
    let flags = meta_flags::HAS_DERIVED
        | flag(meta.late.is_some(), meta_flags::HAS_LATE)
        | flag(meta.complete, meta_flags::COMPLETE)
        | flag(meta.position.is_some(), meta_flags::HAS_POSITION)
        | flag(meta.origin.is_some(), meta_flags::HAS_ORIGIN)
        | flag(meta.lsn > 0, meta_flags::HAS_LSN);
    let mut bytes = vec![FORMAT, flags];
    bytes.extend(meta.incarnation.as_bytes());
    for number in [meta.head, meta.trimmed, meta.version.0] {
        bytes.extend(number.to_be_bytes());
    }
    if let Some(position) = meta.position {
        bytes.extend(position.incarnation.as_bytes());
        bytes.extend(position.sequence.to_be_bytes());
    }
    if let Some(origin) = meta.origin {
        bytes.extend(origin.source.as_bytes());
        bytes.extend(origin.head.to_be_bytes());
    }
    for number in [meta.users, meta.records, meta.floor.0, meta.foreign.0, meta.top.0] {
        bytes.extend(number.to_be_bytes());
    }
    if let Some(late) = meta.late {
        bytes.extend(late.sequence.to_be_bytes());
        bytes.extend(late.top.0.to_be_bytes());
    }
    if meta.lsn > 0 {
        put_disk(&mut bytes, meta);
    }
    bytes
}

/// What the copy knows of disks: its LSN and more. Each of that comes with a commit, so there is an LSN.
fn put_disk(bytes: &mut Vec<u8>, Meta { lsn, other, rollback, .. }: &Meta) {
    bytes.extend(lsn.to_be_bytes());
    let lost = rollback.map_or(0, |rollback| match rollback.of {
        Counted::Commit => disk_flags::LOST_COMMITS,
        Counted::Entry => disk_flags::LOST_ENTRIES,
    });
    bytes.push(flag(other.is_some(), disk_flags::HAS_OTHER) | lost);
    if let Some(other) = other {
        bytes.extend(other.incarnation.as_bytes());
        bytes.extend(other.lsn.to_be_bytes());
    }
    if let Some(Rollback { found, known, .. }) = rollback {
        bytes.extend(found.to_be_bytes());
        bytes.extend(known.to_be_bytes());
    }
}

fn read_disk(rest: &mut Reader<'_>, meta: &mut Meta) -> Result<(), DecodeError> {
    meta.lsn = rest.u64()?;
    let flags = rest.u8()?;
    if flags & !disk_flags::ALL != 0 {
        return Err(DecodeError::UnknownFlags(flags));
    }
    if flags & disk_flags::HAS_OTHER != 0 {
        meta.other = Some(FlushPoint { incarnation: rest.id()?, lsn: rest.u64()? });
    }
    let of = match flags & !disk_flags::HAS_OTHER {
        0 => return Ok(()),
        disk_flags::LOST_COMMITS => Counted::Commit,
        _ => Counted::Entry,
    };
    meta.rollback = Some(Rollback { of, found: rest.u64()?, known: rest.u64()? });
    Ok(())
}

/// Reads what [`meta()`] wrote.
///
/// # Errors
/// If the bytes are not the state of a copy.
pub fn read_meta(bytes: &[u8]) -> Result<Meta, DecodeError> {
    let (flags, mut rest) = Reader::open(bytes, meta_flags::ALL)?;
    let incarnation = rest.id()?;
    let (head, trimmed, version) = (rest.u64()?, rest.u64()?, rest.version()?);
    let mut pair = |flag: u8| {
        let present = flags & flag != 0;
        present.then(|| Ok((rest.id()?, rest.u64()?))).transpose()
    };
    let position =
        pair(meta_flags::HAS_POSITION)?.map(|(incarnation, sequence)| Position { incarnation, sequence });
    let origin = pair(meta_flags::HAS_ORIGIN)?.map(|(source, head)| Origin { source, head });
    let complete = flags & meta_flags::COMPLETE != 0;
    let mut meta = Meta { complete, head, trimmed, position, origin, version, ..Meta::new(incarnation) };
    if flags & meta_flags::HAS_DERIVED != 0 {
        (meta.users, meta.records) = (rest.u64()?, rest.u64()?);
        (meta.floor, meta.foreign, meta.top) = (rest.version()?, rest.version()?, rest.version()?);
    }
    if flags & meta_flags::HAS_LATE != 0 {
        meta.late = Some(Late { sequence: rest.u64()?, top: rest.version()? });
    }
    if flags & meta_flags::HAS_LSN != 0 {
        read_disk(&mut rest, &mut meta)?;
    }
    rest.close()?;
    Ok(meta)
}

/// Bytes of the digests.
pub fn digests(digests: &Digests) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 + 8 * digests.values().len());
    bytes.extend([FORMAT, 0]);
    for value in digests.values() {
        bytes.extend(value.to_be_bytes());
    }
    bytes
}

/// Reads what [`digests()`] wrote.
///
/// # Errors
/// If the bytes are not digests.
pub fn read_digests(bytes: &[u8]) -> Result<Box<Digests>, DecodeError> {
    let (_, mut rest) = Reader::open(bytes, 0)?;
    let mut values = [0; BUCKETS];
    for value in &mut values {
        *value = rest.u64()?;
    }
    rest.close()?;
    Digests::from_values(&values).ok_or(DecodeError::Truncated)
}

/// Bytes of a number of users.
pub fn count(count: u64) -> Vec<u8> {
    let mut bytes = vec![FORMAT, 0];
    bytes.extend(count.to_be_bytes());
    bytes
}

/// Reads what [`count()`] wrote.
///
/// # Errors
/// If the bytes are not a number.
pub fn read_count(bytes: &[u8]) -> Result<u64, DecodeError> {
    let (_, mut rest) = Reader::open(bytes, 0)?;
    let count = rest.u64()?;
    rest.close()?;
    Ok(count)
}
