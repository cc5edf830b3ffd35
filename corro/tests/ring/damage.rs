//! Copies that are not what was written: found by `corro check`, which names them, and made good while the
//! ring serves.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

use db_process::copy::{Copy, Limits};
use db_process::store::{BlockCache, RocksStore};
use protocol::message::replication::CopyChunk;
use protocol::placement::partition_of;
use protocol::{Change, Record, Version};
use rocksdb::{DB, IteratorMode, Options};
use uuid::Uuid;

use super::copies::until_equal;
use super::lists::{count, create};
use super::load::Load;
use super::processes::Ring;

async fn check(ring: &Ring, flags: &'static [&'static str]) -> (Option<i32>, String) {
    let url = format!("http://127.0.0.1:{}", ring.rest_port);
    let run =
        move || Command::new(env!("CARGO_BIN_EXE_corro")).args(["check", "--url", &url]).args(flags).output();
    let Output { status, stdout, stderr } = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    let said = [stdout, stderr].concat();
    (status.code(), String::from_utf8(said).unwrap())
}

/// The families of a database that is closed.
fn families(folder: &Path) -> Vec<String> {
    DB::list_cf(&Options::default(), folder).unwrap()
}

/// Turns a bit in the middle of the largest file of records.
pub(crate) fn turn_a_bit(folder: &Path) {
    let file = {
        let mut options = Options::default();
        // As its owner does; RocksDB 11.8 crashes without it.
        options.set_track_and_verify_wals_in_manifest(true);
        let db = DB::open_cf_for_read_only(&options, folder, families(folder), false).unwrap();
        let files = db.live_files().unwrap().into_iter().filter(|file| file.column_family_name == "records");
        files.max_by_key(|file| file.size).expect("records are on disk").name
    };
    let path = folder.join(file.trim_start_matches('/'));
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let (at, mut byte) = (file.metadata().unwrap().len() / 3, [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// Writes another name into a record, but not into the digests.
fn rename_somebody(folder: &Path) {
    let db = DB::open_cf(&Options::default(), folder, families(folder)).unwrap();
    let records = db.cf_handle("records").unwrap();
    let (id, record) = db.iterator_cf(records, IteratorMode::Start).nth(7).unwrap().unwrap();
    let at = record.windows(3).position(|bytes| bytes == b"Ana").expect("the name as it is");
    let mut changed = record.to_vec();
    changed[at..at + 3].copy_from_slice(b"Eva");
    db.put_cf(records, id, changed).unwrap();
    db.flush_wal(true).unwrap();
}

/// A block that cannot be read ends the trust in the copy when it is read, and with that the
/// process. A scan tells of it and ends nothing.
#[tokio::test]
async fn a_block_that_cannot_be_read_is_found_and_the_copy_is_filled_anew() {
    let mut ring = Ring::start(3).await;
    create(ring.rest_port, 3_000).await;
    ring.until_ready().await;
    assert_eq!(check(&ring, &["--scan"]).await.0, Some(0));
    // RocksDB merges what a stop has flushed as soon as it starts again. This is about a settled table.
    ring.stop(1);
    ring.start_process(1);
    ring.until_ready().await;
    ring.stop(1);
    turn_a_bit(&ring.data_dir(1).join("primary"));
    ring.start_process(1);
    ring.until_ready().await;

    let (code, said) = check(&ring, &["--scan"]).await;
    assert_eq!(code, Some(1), "{said}\n{}", ring.logs());
    assert!(said.contains("partition 1: damaged is the primary on db-1: unreadable"), "{said}");
    assert!(said.contains("partition 0: equal") && said.contains("partition 2: equal"), "{said}");
    let (code, said) = check(&ring, &["--scan", "--repair"]).await;
    assert_eq!(code, Some(0), "{said}\n{}", ring.logs());
    ring.until_ready().await;
    let (records, _) = until_equal(&ring);
    assert_eq!(records, 3_000);
    assert_eq!(count(&mut ring.client().await, "").await, 3_000);
}

#[tokio::test]
async fn a_record_that_was_changed_on_disk_is_found_and_made_good_under_load() {
    for (place, copy, partition) in [(1, "primary", 1), (0, "replica", 2)] {
        let mut ring = Ring::start(3).await;
        create(ring.rest_port, 1_000).await;
        ring.until_ready().await;
        ring.stop(place);
        rename_somebody(&ring.data_dir(place).join(copy));
        ring.start_process(place);
        ring.until_ready().await;
        assert_eq!(check(&ring, &[]).await.0, Some(0), "the digests are kept, and do not know of it");

        let load = Load::start(ring.rest_port, 8, 200).await;
        let (code, said) = check(&ring, &["--scan"]).await;
        assert_eq!(code, Some(1), "{said}\n{}", ring.logs());
        let named = format!("partition {partition}: damaged is the {copy} on db-{place}: bucket");
        assert_eq!(said.matches("damaged").count(), 1, "{said}");
        assert!(said.contains(&named), "{said}");
        let (code, said) = check(&ring, &["--scan", "--repair"]).await;
        assert_eq!(code, Some(0), "{said}\n{}", ring.logs());
        load.until_more(500, 200).await;
        let seen = load.finish().await;
        seen.assert_nothing_failed(&ring);

        ring.until_ready().await;
        let (records, _) = until_equal(&ring);
        assert_eq!(records, 1_000 + seen.users);
        assert_eq!(count(&mut ring.client().await, "").await, 1_000 + seen.live as u64);
    }
}

#[tokio::test]
async fn copies_that_differ_are_merged() {
    let mut ring = Ring::start(2).await;
    create(ring.rest_port, 200).await;
    ring.until_ready().await;
    // Each copy of partition 0 gets a user that the other never received.
    for (place, copy, tag) in [(0, "primary", 1), (1, "replica", 2)] {
        ring.stop(place);
        let store = RocksStore::open(&ring.data_dir(place).join(copy), &BlockCache::default()).unwrap();
        let mut copy = Copy::open(store, Limits::default()).unwrap();
        let id = (1..).map(|n| Uuid::from_u128(n * 10 + tag)).find(|id| partition_of(id, 2) == 0).unwrap();
        let (name, email) = (Some("Eva".to_owned()), Some("eva@example.org".to_owned()));
        let change = Change { alive: Some(true), name, email, group: Some(1), ..Change::default() };
        let records = vec![(id, Record::from_change(Version(7), &change))];
        copy.merge_chunk(CopyChunk { records, ..CopyChunk::default() }).unwrap();
        copy.commit().unwrap();
        copy.sync().unwrap();
        drop(copy);
        ring.start_process(place);
        ring.until_ready().await;
    }
    let (code, said) = check(&ring, &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("partition 0: the copies differ in 2 of 256 buckets"), "{said}");
    let (code, said) = check(&ring, &["--repair"]).await;
    assert_eq!(code, Some(0), "{said}\n{}", ring.logs());
    let (records, _) = until_equal(&ring);
    assert_eq!(records, 202);
    assert_eq!(count(&mut ring.client().await, "?group=1").await, 2);
    assert_eq!(check(&ring, &["--scan"]).await.0, Some(0));
}
