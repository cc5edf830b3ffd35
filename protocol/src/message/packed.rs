//! Lists of records and of op-log entries within a message: the bytes of all of them ([`crate::encoding`]),
//! one behind the other, as one text in Base64 (RFC 4648, section 4, without padding).
//!
//! A neighbour that becomes whole again is sent hundreds of thousands of them a second. As objects they would
//! be longer, and names, numbers and quotes would be written and read one by one. It is for `#[serde(with =
//! "…")]`.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;

use crate::encoding::{DecodeError, Reader};

/// Length of the text that so many bytes become, at most.
pub const fn text_length(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// Records with the ids of their users.
pub(super) mod records {
    use super::{Deserializer, Serializer, read, write};
    use crate::encoding::{read_record, record};
    use crate::{Record, UserId};

    pub(in super::super) fn serialize<S: Serializer>(
        records: &[(UserId, Record)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        write(serializer, records, |bytes, (id, of)| {
            bytes.extend(id.as_bytes());
            record(of)
        })
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(UserId, Record)>, D::Error> {
        read(deserializer, |rest| Ok((rest.id()?, read_record(rest.sized()?)?)))
    }
}

/// Entries of an op-log with their sequences.
pub(super) mod entries {
    use super::{Deserializer, Serializer, read, write};
    use crate::encoding::{log_entry, read_log_entry};
    use crate::record::LogEntry;

    pub(in super::super) fn serialize<S: Serializer>(
        entries: &[LogEntry],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        write(serializer, entries, |bytes, entry| {
            bytes.extend(entry.sequence.to_be_bytes());
            log_entry(entry)
        })
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<LogEntry>, D::Error> {
        read(deserializer, |rest| read_log_entry(rest.u64()?, rest.sized()?))
    }
}

/// Writes each item as what `begin` puts in front, then the length and the bytes that it returns.
fn write<T, S: Serializer>(
    serializer: S,
    items: &[T],
    begin: impl Fn(&mut Vec<u8>, &T) -> Vec<u8>,
) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::new();
    for item in items {
        let value = begin(&mut bytes, item);
        bytes.extend((value.len() as u32).to_be_bytes());
        bytes.extend(value);
    }
    serializer.serialize_str(&STANDARD_NO_PAD.encode(bytes))
}

/// Reads one item after the other.
fn read<'de, T, D: Deserializer<'de>>(
    deserializer: D,
    item: impl Fn(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, D::Error> {
    let bytes = deserializer.deserialize_str(Base64)?;
    let (mut rest, mut items) = (Reader::over(&bytes), Vec::new());
    while rest.left() > 0 {
        items.push(item(&mut rest).map_err(de::Error::custom)?);
    }
    Ok(items)
}

struct Base64;

impl Visitor<'_> for Base64 {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text in Base64")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        STANDARD_NO_PAD.decode(text).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use crate::message::Message;
    use crate::message::link::Position;
    use crate::message::replication::{CopyChunk, LogBatch, LogEntry};
    use crate::{Change, Record, Version};

    fn change(name: &str) -> Change {
        Change { alive: Some(true), name: Some(name.to_owned()), group: Some(-1), ..Change::default() }
    }

    fn batch() -> LogBatch {
        let entry = |sequence| LogEntry {
            sequence,
            version: Version(sequence << 20),
            id: Uuid::from_u128(sequence.into()),
            change: change(&"'\"\u{1e}é".repeat(sequence as usize)),
        };
        LogBatch { incarnation: Uuid::from_u128(7), lsn: 9, entries: (0..40).map(entry).collect() }
    }

    #[test]
    fn what_is_packed_comes_out_as_it_was() {
        let record = |n: u64| (Uuid::from_u128(n.into()), Record::from_change(Version(n), &change("Ada")));
        let end = Some(Position { incarnation: Uuid::max(), sequence: u64::MAX });
        let (records, applied) = ((1..9).map(record).collect(), vec![Version(5)]);
        let chunk = CopyChunk { chunk: 3, records, applied, end, lsn: 7 };
        assert_eq!(CopyChunk::decode(&chunk.encode()).unwrap(), chunk);
        assert_eq!(CopyChunk::decode(&CopyChunk::default().encode()).unwrap(), CopyChunk::default());
        assert_eq!(LogBatch::decode(&batch().encode()).unwrap(), batch());
        let empty = LogBatch { entries: Vec::new(), ..batch() };
        assert_eq!(LogBatch::decode(&empty.encode()).unwrap(), empty);
    }

    #[test]
    fn what_is_no_such_list_is_refused() {
        let incarnation = Uuid::nil();
        let json = |entries: &str| format!(r#"{{"incarnation":"{incarnation}","entries":{entries}}}"#);
        assert!(LogBatch::decode(&json(r#""""#)).unwrap().entries.is_empty());
        let whole = serde_json::to_value(batch()).unwrap()["entries"].as_str().unwrap().to_owned();
        assert!(LogBatch::decode(&json(&format!("{whole:?}"))).is_ok());
        let (cut, longer) = (&whole[..whole.len() - 4], format!("{whole}AAAA"));
        for other in ["[]", "7", r#""?""#, r#""AAAA""#, &format!("{cut:?}"), &format!("{longer:?}")] {
            assert!(LogBatch::decode(&json(other)).is_err(), "{other}");
        }
    }
}
