//! Records, and the op-log's entries.

use super::{DecodeError, FORMAT, Reader, flag, put_request, put_text};
use crate::record::{Change, LogEntry, Record, Register};

mod record_flags {
    pub(super) const ALIVE: u8 = 1;
    pub(super) const OWN_NAME_VERSION: u8 = 1 << 1;
    pub(super) const OWN_EMAIL_VERSION: u8 = 1 << 2;
    pub(super) const OWN_GROUP_VERSION: u8 = 1 << 3;
    pub(super) const HAS_REQUEST: u8 = 1 << 4;
    pub(super) const ALL: u8 = (1 << 5) - 1;
}

/// Bytes of a record.
pub fn record(record: &Record) -> Vec<u8> {
    let alive = record.alive.0;
    let flags = flag(record.alive.1, record_flags::ALIVE)
        | flag(record.name.0 != alive, record_flags::OWN_NAME_VERSION)
        | flag(record.email.0 != alive, record_flags::OWN_EMAIL_VERSION)
        | flag(record.group.0 != alive, record_flags::OWN_GROUP_VERSION)
        | flag(record.request.is_some(), record_flags::HAS_REQUEST);
    let mut bytes = Vec::with_capacity(66 + record.name.1.len() + record.email.1.len());
    bytes.extend([FORMAT, flags]);
    bytes.extend(alive.0.to_be_bytes());
    for version in [record.name.0, record.email.0, record.group.0] {
        if version != alive {
            bytes.extend(version.0.to_be_bytes());
        }
    }
    bytes.extend(record.group.1.to_be_bytes());
    if let Some(Register(version, request)) = &record.request {
        bytes.extend(version.0.to_be_bytes());
        put_request(&mut bytes, request);
    }
    put_text(&mut bytes, &record.name.1);
    put_text(&mut bytes, &record.email.1);
    bytes
}

/// Reads what [`record()`] wrote.
///
/// # Errors
/// If the bytes are not a record.
pub fn read_record(bytes: &[u8]) -> Result<Record, DecodeError> {
    let (flags, mut rest) = Reader::open(bytes, record_flags::ALL)?;
    let alive = rest.version()?;
    let mut version_of = |own: u8| if flags & own == 0 { Ok(alive) } else { rest.version() };
    let name = version_of(record_flags::OWN_NAME_VERSION)?;
    let email = version_of(record_flags::OWN_EMAIL_VERSION)?;
    let group = version_of(record_flags::OWN_GROUP_VERSION)?;
    let record = Record {
        alive: Register(alive, flags & record_flags::ALIVE != 0),
        group: Register(group, i32::from_be_bytes(rest.take()?)),
        request: (flags & record_flags::HAS_REQUEST != 0)
            .then(|| Ok(Register(rest.version()?, rest.request()?)))
            .transpose()?,
        name: Register(name, rest.text()?),
        email: Register(email, rest.text()?),
    };
    rest.close()?;
    Ok(record)
}

mod entry_flags {
    pub(super) const SETS_ALIVE: u8 = 1;
    pub(super) const ALIVE: u8 = 1 << 1;
    pub(super) const SETS_NAME: u8 = 1 << 2;
    pub(super) const SETS_EMAIL: u8 = 1 << 3;
    pub(super) const SETS_GROUP: u8 = 1 << 4;
    pub(super) const SETS_REQUEST: u8 = 1 << 5;
    pub(super) const PURGES: u8 = 1 << 6;
    pub(super) const ALL: u8 = (1 << 7) - 1;
}

/// Bytes of an op-log entry, without its sequence.
pub fn log_entry(entry: &LogEntry) -> Vec<u8> {
    let change = &entry.change;
    let flags = flag(change.alive.is_some(), entry_flags::SETS_ALIVE)
        | flag(change.alive == Some(true), entry_flags::ALIVE)
        | flag(change.name.is_some(), entry_flags::SETS_NAME)
        | flag(change.email.is_some(), entry_flags::SETS_EMAIL)
        | flag(change.group.is_some(), entry_flags::SETS_GROUP)
        | flag(change.request.is_some(), entry_flags::SETS_REQUEST)
        | flag(change.purge.is_some(), entry_flags::PURGES);
    let texts = [&change.name, &change.email];
    let mut bytes =
        Vec::with_capacity(36 + texts.iter().map(|text| text.as_ref().map_or(0, String::len)).sum::<usize>());
    bytes.extend([FORMAT, flags]);
    bytes.extend(entry.version.0.to_be_bytes());
    bytes.extend(entry.id.as_bytes());
    if let Some(group) = change.group {
        bytes.extend(group.to_be_bytes());
    }
    if let Some(request) = &change.request {
        put_request(&mut bytes, request);
    }
    if let Some(upto) = change.purge {
        bytes.extend(upto.0.to_be_bytes());
    }
    for text in texts.into_iter().flatten() {
        put_text(&mut bytes, text);
    }
    bytes
}

/// Reads what [`log_entry`] wrote of the entry with that sequence.
///
/// # Errors
/// If the bytes are not an op-log entry.
pub fn read_log_entry(sequence: u64, bytes: &[u8]) -> Result<LogEntry, DecodeError> {
    let (flags, mut rest) = Reader::open(bytes, entry_flags::ALL)?;
    let sets = |flag: u8| flags & flag != 0;
    let version = rest.version()?;
    let id = rest.id()?;
    let group = sets(entry_flags::SETS_GROUP).then(|| rest.take().map(i32::from_be_bytes)).transpose()?;
    let request = sets(entry_flags::SETS_REQUEST).then(|| rest.request()).transpose()?;
    let purge = sets(entry_flags::PURGES).then(|| rest.version()).transpose()?;
    let name = sets(entry_flags::SETS_NAME).then(|| rest.text()).transpose()?;
    let email = sets(entry_flags::SETS_EMAIL).then(|| rest.text()).transpose()?;
    rest.close()?;
    let alive = sets(entry_flags::SETS_ALIVE).then_some(sets(entry_flags::ALIVE));
    let change = Change { alive, name, email, group, request, purge };
    Ok(LogEntry { sequence, version, id, change })
}
