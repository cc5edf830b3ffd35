use std::collections::{BTreeMap, BTreeSet};

use protocol::message::link::{Counted, FlushPoint, Position, Rollback};
use protocol::message::replication::LogEntry;
use protocol::{Change, Fingerprint, Record, UserId, Version};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::store::tests::random::Random;
use crate::store::{Derived, Digests, Encoded, IndexKey, Late, Meta, Origin};

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
    let late = Meta { late: Some(late), position: None, origin: None, ..used };
    let rolled_back = Meta {
        lsn: 0x0102_0304_0506_070a,
        other: Some(FlushPoint { incarnation: id(3), lsn: 99 }),
        rollback: Some(Rollback { of: Counted::Entry, found: 7, known: 8 }),
        ..late
    };
    vec![fresh, used, late, rolled_back]
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

fn some_digest_changes() -> [(u8, u64); 2] {
    [(0, 0x0102_0304_0506_0708), (255, u64::MAX)]
}

/// A page of changed records, as an earlier program wrote it.
pub(crate) fn changed(
    records: &BTreeMap<UserId, Encoded>,
    gone: &BTreeSet<UserId>,
    digests: &[(u8, u64)],
) -> Vec<u8> {
    let length = |items: usize| u32::try_from(items).expect("a page has fewer").to_be_bytes();
    let mut bytes = vec![FORMAT, u8::from(!digests.is_empty())];
    if !digests.is_empty() {
        bytes.extend(length(digests.len()));
    }
    for (bucket, by) in digests {
        bytes.push(*bucket);
        bytes.extend(by.to_be_bytes());
    }
    bytes.extend(length(records.len() + gone.len()));
    let put = records.iter().map(|(id, put)| (id, put.bytes.as_slice()));
    for (id, record) in put.chain(gone.iter().map(|id| (id, [].as_slice()))) {
        bytes.extend(id.as_bytes());
        bytes.extend(length(record.len()));
        bytes.extend(record);
    }
    bytes
}

fn some_changed(digests: &[(u8, u64)]) -> Vec<u8> {
    let put = records().into_iter().take(2).enumerate();
    let put = put.map(|(n, record)| (id(n as u128), Encoded::from(record)));
    changed(&put.collect(), &BTreeSet::from([id(7), id(u128::MAX)]), digests)
}

/// The states that an earlier program wrote.
const EARLIER: [&str; 2] = [
    "010000000000000000000000000000000001000000000000000000000000000000000000000000000000",
    concat!(
        "01070000000000000000000000000000000100000000000f424000000000000dbba0ffffffffffffffff000000000000",
        "00000000000000000002000000000000004d000000000000000000000000000000020000000000000005",
    ),
];

#[test]
fn a_state_of_an_earlier_program_is_read() {
    let bytes = |line: &str| -> Vec<u8> {
        let digits = |at: usize| u8::from_str_radix(&line[at..at + 2], 16).expect("two digits");
        (0..line.len()).step_by(2).map(digits).collect()
    };
    let read: Vec<Meta> = EARLIER.iter().map(|line| read_meta(&bytes(line)).expect("a state")).collect();
    let [fresh, used, ..] = metas().try_into().map(|metas: [Meta; 4]| metas).expect("four of them");
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
    let nothing = changed(&BTreeMap::new(), &BTreeSet::new(), &[]);
    add("changed", vec![nothing, some_changed(&[]), some_changed(&some_digest_changes())]);
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
    for digests in [[].as_slice(), &some_digest_changes()] {
        let page = some_changed(digests);
        let changed = read_changed(&page).expect("a page");
        let of = |(id, record)| (id, read_record(record).ok());
        let read: Vec<_> = changed.records.into_iter().map(of).collect();
        let put = records().into_iter().take(2).enumerate();
        let put = put.map(|(n, record)| (id(n as u128), Some(record)));
        assert_eq!(read, put.chain([(id(7), None), (id(u128::MAX), None)]).collect::<Vec<_>>());
        assert_eq!(changed.digests, digests);
    }
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
