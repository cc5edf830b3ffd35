//! The bytes on disk: one encoding each for records, op-log entries and the state of a copy.
//!
//! The first byte of every value is the number of its format, so that a later program can change the format and still
//! read what an earlier one wrote. Numbers are big endian. `golden.txt` beside this file holds the bytes of some values
//! for ever: a change that breaks the reading of existing databases fails a test.
//!
//! | value | bytes after the format number |
//! |---|---|
//! | record | flags, version of *alive*, then of name, email and group where theirs differ, group, the request with its version where there is one, name, email |
//! | op-log entry | flags, version, id, then the registers that it sets, or up to where it forgets them; its sequence is the key |
//! | state | flags, incarnation, head, trimmed, version, then position and origin where there are any, then users, records, floor, foreign and top, then the last late entry where there is one |
//! | page of applied operations | how many (4 bytes), then the version of each |
//! | page of changed records | how many (4 bytes), each the id, the length of its record (4 bytes) and the record; a length of 0 says that it is gone |
//! | digests | one number a bucket |
//! | number of users of a group | the number |
//! | page of pending changes | how many places (4 bytes), each one byte for its kind and whether it is taken, then the group or the hash, then the id; then how many groups (0) |
//!
//! A state without the part that begins with the number of users was written by an earlier program, which kept nothing of
//! what follows from the records.
//!
//! A text is its length (LEB128) and its UTF-8 bytes. A record that one create wrote, the usual case, costs 16 bytes more
//! than its texts.
//!
//! What it does not do: it finds no flipped bits inside a text. The checksums of RocksDB do that.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use protocol::message::link::Position;
use protocol::message::query::BUCKETS;
use protocol::message::replication::LogEntry;
use protocol::{Change, Fingerprint, Record, Register, UserId, Version};
use thiserror::Error;
use uuid::Uuid;

use super::{Derived, Digests, Encoded, IndexKey, Late, Meta, Origin};

/// Format of everything that this program writes.
const FORMAT: u8 = 1;

/// Why bytes are not a value. They come from a newer program, or they are damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The first byte is none that this program knows.
    #[error("format {0} is unknown to this program")]
    UnknownFormat(u8),
    /// A flag is set that the format does not have.
    #[error("flags {0:#010b} are unknown to this program")]
    UnknownFlags(u8),
    /// The value goes on after the last byte.
    #[error("the value is cut short")]
    Truncated,
    /// The bytes go on after the value.
    #[error("{0} bytes are left over")]
    LeftOver(usize),
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    NotText,
}

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

/// Bytes of an op-log entry, without its sequence: that is the key.
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

/// Reads what [`log_entry`] wrote under the key of `sequence`.
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

mod meta_flags {
    pub(super) const COMPLETE: u8 = 1;
    pub(super) const HAS_POSITION: u8 = 1 << 1;
    pub(super) const HAS_ORIGIN: u8 = 1 << 2;
    pub(super) const HAS_DERIVED: u8 = 1 << 3;
    pub(super) const HAS_LATE: u8 = 1 << 4;
    pub(super) const ALL: u8 = (1 << 5) - 1;
}

/// Bytes of a copy's state.
pub fn meta(meta: &Meta) -> Vec<u8> {
    let flags = meta_flags::HAS_DERIVED
        | flag(meta.late.is_some(), meta_flags::HAS_LATE)
        | flag(meta.complete, meta_flags::COMPLETE)
        | flag(meta.position.is_some(), meta_flags::HAS_POSITION)
        | flag(meta.origin.is_some(), meta_flags::HAS_ORIGIN);
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
    bytes
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
    rest.close()?;
    Ok(meta)
}

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

/// Bytes of a page of changed records. Nobody is among both.
pub fn changed(records: &BTreeMap<UserId, Encoded>, gone: &BTreeSet<UserId>) -> Vec<u8> {
    let count = u32::try_from(records.len() + gone.len()).expect("a batch has fewer records");
    let size: usize = records.values().map(|put| put.bytes.len()).sum();
    let mut bytes = Vec::with_capacity(6 + 20 * count as usize + size);
    bytes.extend([FORMAT, 0]);
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

/// Reads what [`changed()`] wrote: each user, and where in these bytes its record is; an empty place says that it is gone.
///
/// # Errors
/// If the bytes are not such a page.
pub fn read_changed(bytes: &[u8]) -> Result<Vec<(UserId, Range<usize>)>, DecodeError> {
    let (_, mut rest) = Reader::open(bytes, 0)?;
    let mut changed = Vec::new();
    for _ in 0..u32::from_be_bytes(rest.take()?) {
        let (id, length) = (rest.id()?, u32::from_be_bytes(rest.take()?) as usize);
        let start = bytes.len() - rest.0.len();
        rest.0 = rest.0.get(length..).ok_or(DecodeError::Truncated)?;
        changed.push((id, start..start + length));
    }
    rest.close()?;
    Ok(changed)
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

fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

fn put_request(bytes: &mut Vec<u8>, request: &Fingerprint) {
    bytes.extend(request.key.to_be_bytes());
    bytes.extend(request.body.to_be_bytes());
}

/// Length as LEB128, then the bytes.
fn put_text(bytes: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend(text.as_bytes());
}

/// What is left of a value. Every step checks that there is enough of it.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Checks the format and the flags.
    fn open(bytes: &'a [u8], known: u8) -> Result<(u8, Self), DecodeError> {
        let mut reader = Self(bytes);
        match reader.take()? {
            [FORMAT] => {}
            [other] => return Err(DecodeError::UnknownFormat(other)),
        }
        let [flags] = reader.take()?;
        if flags & !known != 0 {
            return Err(DecodeError::UnknownFlags(flags));
        }
        Ok((flags, reader))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.take().map(u64::from_be_bytes)
    }

    fn version(&mut self) -> Result<Version, DecodeError> {
        self.u64().map(Version)
    }

    fn request(&mut self) -> Result<Fingerprint, DecodeError> {
        Ok(Fingerprint { key: self.u64()?, body: self.u64()? })
    }

    fn id(&mut self) -> Result<UserId, DecodeError> {
        self.take().map(Uuid::from_bytes)
    }

    fn text(&mut self) -> Result<String, DecodeError> {
        let mut length = 0_usize;
        // Four groups of seven bits: 256 MiB is more than any text here.
        for shift in [0, 7, 14, 21] {
            let [byte] = self.take()?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let (text, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Truncated)?;
                self.0 = rest;
                return std::str::from_utf8(text).map(str::to_owned).map_err(|_| DecodeError::NotText);
            }
        }
        Err(DecodeError::Truncated)
    }

    fn close(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::LeftOver(self.0.len())) }
    }
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;
    use crate::store::suite::Random;

    const GOLDEN: &str = include_str!("golden.txt");

    fn id(n: u128) -> UserId {
        Uuid::from_u128(n)
    }

    fn records() -> Vec<Record> {
        let created = Record::from_change(
            Version(0x0102_0304_0506_0708),
            &Change {
                alive: Some(true),
                name: Some("Ada Lovelace".to_owned()),
                email: Some("ada@example.org".to_owned()),
                group: Some(-7),
                ..Change::default()
            },
        );
        let mut edited = created.clone();
        let change = Change { name: Some("é".repeat(70)), ..Change::default() };
        edited.apply(Version(0x1111_0304_0506_0708), &change);
        edited.apply(Version(0x2222_0304_0506_0708), &Change { group: Some(i32::MAX), ..Change::default() });
        let mut deleted = edited.clone();
        deleted.apply(Version(u64::MAX), &Change { alive: Some(false), ..Change::default() });
        let partial =
            Record::from_change(Version(9), &Change { email: Some(String::new()), ..Change::default() });
        let mut keyed = created.clone();
        let request = Some(Fingerprint { key: 0x0102_0304_0506_0708, body: u64::MAX });
        keyed.apply(Version(0x1111), &Change { request, ..Change::default() });
        vec![created, edited, deleted, partial, keyed]
    }

    fn entries() -> Vec<LogEntry> {
        let entry = |sequence: u64, change: Change| LogEntry {
            sequence,
            version: Version(0x0102_0304_0506_0708 + sequence),
            id: id(0x0190_a5b2_7c3d_7e4f_8a1b_2c3d_4e5f_6071),
            change,
        };
        let create = Change {
            alive: Some(true),
            name: Some("Grace".to_owned()),
            email: Some("grace@example.org".to_owned()),
            group: Some(0),
            ..Change::default()
        };
        let keyed = create.clone();
        vec![
            entry(1, create),
            entry(2, Change { email: Some("g@example.org".to_owned()), ..Change::default() }),
            entry(3, Change { alive: Some(false), ..Change::default() }),
            entry(4, Change { request: Some(Fingerprint { key: 7, body: 8 }), ..keyed }),
            entry(5, Change { purge: Some(Version(0x0102_0304_0506_0708)), ..Change::default() }),
        ]
    }

    fn metas() -> Vec<Meta> {
        let fresh = Meta::new(id(1));
        let used = Meta {
            complete: true,
            head: 1_000_000,
            trimmed: 900_000,
            version: Version(u64::MAX),
            position: Some(Position { incarnation: id(2), sequence: 77 }),
            origin: Some(Origin { source: id(2), head: 5 }),
            users: 300,
            records: 400,
            floor: Version(0x0102_0304_0506_0708),
            foreign: Version(0x0102_0304_0506_0709),
            top: Version(u64::MAX - 1),
            ..fresh
        };
        let late = Late { sequence: 950_000, top: Version(0x1111_0304_0506_0708) };
        vec![fresh, used, Meta { late: Some(late), position: None, origin: None, ..used }]
    }

    fn some_digests() -> Box<Digests> {
        let mut digests = Digests::new();
        for n in 0..600 {
            digests.toggle(&id(n), &record(&records()[0]));
        }
        digests
    }

    fn some_changes() -> Derived {
        let index = vec![
            (IndexKey::Group(-7, id(1)), true),
            (IndexKey::Email(0x0102_0304_0506_0708, id(2)), true),
            (IndexKey::Group(i32::MAX, id(u128::MAX)), false),
            (IndexKey::Email(u64::MAX, id(3)), false),
        ];
        Derived { digests: None, index }
    }

    fn some_changed() -> Vec<u8> {
        let put = records().into_iter().take(2).enumerate();
        let put = put.map(|(n, record)| (id(n as u128), Encoded::from(record)));
        changed(&put.collect(), &BTreeSet::from([id(7), id(u128::MAX)]))
    }

    /// The states that an earlier program wrote.
    const EARLIER: &str = "\
010000000000000000000000000000000001000000000000000000000000000000000000000000000000
01070000000000000000000000000000000100000000000f424000000000000dbba0ffffffffffffffff00000000000000000000000000000002000000000000004d000000000000000000000000000000020000000000000005
";

    #[test]
    fn a_state_of_an_earlier_program_is_read() {
        let bytes = |line: &str| -> Vec<u8> {
            let digits = |at: usize| u8::from_str_radix(&line[at..at + 2], 16).expect("two digits");
            (0..line.len()).step_by(2).map(digits).collect()
        };
        let read: Vec<Meta> = EARLIER.lines().map(|line| read_meta(&bytes(line)).expect("a state")).collect();
        let [fresh, used, _] = metas().try_into().expect("three of them");
        let nothing = Meta::new(fresh.incarnation);
        let Meta { users, records, floor, foreign, top, late, .. } = nothing;
        assert_eq!(read, [fresh, Meta { users, records, floor, foreign, top, late, ..used }]);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn all_encoded() -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        let mut add = |kind: &str, encoded: Vec<Vec<u8>>| {
            all.extend(encoded.into_iter().enumerate().map(|(i, bytes)| (format!("{kind} {i}"), bytes)));
        };
        add("record", records().iter().map(record).collect());
        add("entry", entries().iter().map(log_entry).collect());
        add("meta", metas().iter().map(meta).collect());
        add("applied", vec![applied(&[]), applied(&[Version(0x0102_0304_0506_0708), Version(u64::MAX)])]);
        add("digests", vec![digests(&some_digests())]);
        add("count", vec![count(1), count(u64::MAX)]);
        add("pending", vec![pending(&Derived::default()), pending(&some_changes())]);
        add("changed", vec![changed(&BTreeMap::new(), &BTreeSet::new()), some_changed()]);
        all
    }

    /// Databases in the world hold these bytes. If this test fails, the encoding is wrong, not the file.
    #[test]
    fn the_bytes_are_pinned() {
        let short = |bytes: &[u8]| match bytes.len() {
            ..1_024 => hex(bytes),
            // The digests are numbers in a row; their hash will do.
            length => format!("{length} bytes {:016x}", xxh3_64(bytes)),
        };
        let written: String =
            all_encoded().into_iter().map(|(name, bytes)| format!("{name} {}\n", short(&bytes))).collect();
        assert_eq!(written, GOLDEN);
    }

    #[test]
    fn what_was_written_is_read() {
        for value in records() {
            assert_eq!(read_record(&record(&value)), Ok(value));
        }
        for value in entries() {
            assert_eq!(read_log_entry(value.sequence, &log_entry(&value)), Ok(value));
        }
        for value in metas() {
            assert_eq!(read_meta(&meta(&value)), Ok(value));
        }
        assert_eq!(read_digests(&digests(&some_digests())), Ok(some_digests()));
        assert_eq!(read_count(&count(7)), Ok(7));
        assert_eq!(read_pending(&pending(&some_changes())), Ok(some_changes()));
        let page = some_changed();
        let of = |(id, place)| (id, read_record(&page[place]).ok());
        let read: Vec<_> = read_changed(&page).expect("a page").into_iter().map(of).collect();
        let put = records().into_iter().take(2).enumerate().map(|(n, record)| (id(n as u128), Some(record)));
        assert_eq!(read, put.chain([(id(7), None), (id(u128::MAX), None)]).collect::<Vec<_>>());
        assert_eq!(read_applied(&applied(&[Version(7), Version(6)])), Ok(vec![Version(7), Version(6)]));
    }

    #[test]
    fn a_page_of_an_earlier_program_had_the_numbers_of_groups_as_well() {
        let mut page = pending(&some_changes());
        let end = page.len() - 4;
        page[end..].copy_from_slice(&2_u32.to_be_bytes());
        page.extend([7; 2 * 12]);
        assert_eq!(read_pending(&page), Ok(some_changes()));
        page.pop();
        assert_eq!(read_pending(&page), Err(DecodeError::Truncated));
    }

    /// Reads the bytes as whatever kind they are said to be.
    fn read(kind: &str, bytes: &[u8]) -> Result<(), DecodeError> {
        match kind {
            "record" => read_record(bytes).map(drop),
            "entry" => read_log_entry(1, bytes).map(drop),
            "digests" => read_digests(bytes).map(drop),
            "applied" => read_applied(bytes).map(drop),
            "count" => read_count(bytes).map(drop),
            "pending" => read_pending(bytes).map(drop),
            "changed" => read_changed(bytes).map(drop),
            _ => read_meta(bytes).map(drop),
        }
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let mut random = Random::new(7);
        for (name, bytes) in all_encoded() {
            let kind = name.split(' ').next().expect("a kind and a number");
            for end in 0..bytes.len() {
                assert_eq!(read(kind, &bytes[..end]), Err(DecodeError::Truncated), "{name} cut at {end}");
            }
            let mut longer = bytes.clone();
            longer.push(0);
            assert_eq!(read(kind, &longer), Err(DecodeError::LeftOver(1)), "{name}");
            let mut newer = bytes.clone();
            newer[0] = 2;
            assert_eq!(read(kind, &newer), Err(DecodeError::UnknownFormat(2)), "{name}");
            newer[..2].copy_from_slice(&[FORMAT, 0x80]);
            assert_eq!(read(kind, &newer), Err(DecodeError::UnknownFlags(0x80)), "{name}");
            for _ in 0..2_000 {
                let mut damaged = bytes.clone();
                for _ in 0..=random.below(3) {
                    let at = random.below(damaged.len() as u64) as usize;
                    damaged[at] = random.next() as u8;
                }
                // Some damage gives another valid value; that it returns at all is what counts here.
                let _ = read(kind, &damaged);
            }
        }
        let mut not_text = record(&records()[0]);
        let at = not_text.len() - 1;
        not_text[at] = 0xff;
        assert_eq!(read_record(&not_text), Err(DecodeError::NotText));
    }
}
