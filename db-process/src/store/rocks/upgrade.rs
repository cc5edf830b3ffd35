//! Databases of earlier programs.
//!
//! * One program put the records of a batch, and what they change in the digests, onto a *page* in `meta`:
//!   its key is `changed`, then the number of the page. `digested` is the page as of which the digests were
//!   written whole. [`move_records`] puts records and digests where they belong.
//! * An earlier one had no digests, counts and indexes. [`derive()`] makes them from the records. It goes
//!   through all records once and writes as it goes, so it needs no memory to speak of. The digests are
//!   written last and on disk: as long as they are missing, whatever else is there is what an interrupted
//!   attempt left, and is removed first.
//!
//! The database is not in use meanwhile.

use std::time::Instant;

use rocksdb::{Direction, IteratorMode, WriteBatch, WriteOptions};
use tracing::info;

use super::reader::RocksReader;
use super::schema::{
    BY_EMAIL, BY_GROUP, DIGESTS, FOLDED, GROUP, META, PENDING, RECORDS, page_key, page_number,
};
use crate::store::derived::{Digests, places};
use crate::store::{Batch, Durability, Encoded, Late, Meta, Snapshot, Store, StoreError, encoding};

const CHANGED: &[u8] = b"changed";
const DIGESTED: &[u8] = b"digested";

/// So many changes of indexes are written at once.
const BATCH: usize = 8_192;

/// Greater than every key of an index.
const END: [u8; 25] = [0xff; 25];

/// Puts the records of all pages into their column family, and the digests whole, in one batch.
///
/// # Errors
/// If the database fails, or a page is damaged or missing.
pub(super) fn move_records(reader: &RocksReader) -> Result<(), StoreError> {
    let (meta, records) = (reader.family(META), reader.family(RECORDS));
    let read_count = |bytes: rocksdb::DBPinnableSlice<'_>| encoding::read_count(&bytes);
    let digested = reader.db.get_pinned_cf(meta, DIGESTED)?.map(read_count).transpose();
    let digested = digested.map_err(StoreError::unreadable("the number of the page of the digests"))?;
    let stored =
        reader.db.get_pinned_cf(meta, DIGESTS)?.map(|bytes| encoding::read_digests(&bytes)).transpose();
    let mut digests = stored.map_err(StoreError::unreadable("the digests"))?;

    let mut writes = WriteBatch::default();
    let mut last = None;
    for item in pages(reader) {
        let (number, page) = item?;
        if last.is_some_and(|last| number != last + 1) {
            let missing = format!("a page of changed records before page {number} is missing");
            return Err(StoreError::Inconsistent(missing));
        }
        last = Some(number);
        let changed = encoding::read_changed(&page);
        let changed =
            changed.map_err(StoreError::unreadable(format_args!("page {number} of changed records")))?;
        for (id, record) in changed.records {
            match record {
                [] => writes.delete_cf(records, id.as_bytes()),
                record => writes.put_cf(records, id.as_bytes(), record),
            }
        }
        if let Some(digests) = digests.as_deref_mut().filter(|_| number > digested.unwrap_or(0)) {
            digests.change(&changed.digests);
        }
    }
    if let Some(last) = last {
        writes.delete_range_cf(meta, page_key(CHANGED, 0), page_key(CHANGED, last + 1));
        if let Some(digests) = digests {
            writes.put_cf(meta, DIGESTS, encoding::digests(&digests));
        }
    }
    if last.is_some() || digested.is_some() {
        writes.delete_cf(meta, DIGESTED);
        let mut options = WriteOptions::default();
        options.set_sync(true);
        reader.db.write_opt(writes, &options)?;
    }
    Ok(())
}

/// Refuses a database that [`move_records`] would change.
///
/// # Errors
/// If so, or if the database fails.
pub(super) fn check_converted(reader: &RocksReader) -> Result<(), StoreError> {
    match pages(reader).next().transpose()? {
        None => Ok(()),
        Some(_) => Err(StoreError::Inconsistent(
            "an earlier program left it, and a db-process has to open it first".to_owned(),
        )),
    }
}

/// The pages of changed records with their numbers, in order.
fn pages(reader: &RocksReader) -> impl Iterator<Item = Result<(u64, Box<[u8]>), StoreError>> {
    let from = IteratorMode::From(CHANGED, Direction::Forward);
    let items = reader.db.iterator_cf(reader.family(META), from);
    items.map_while(|item| match item {
        Ok((key, _)) if !key.starts_with(CHANGED) => None,
        Ok((key, page)) => Some(page_number(CHANGED, &key).map(|number| (number, page))),
        Err(error) => Some(Err(error.into())),
    })
}

/// Makes digests, counts and indexes from the records, and commits them to the `store` that `reader` belongs
/// to. `meta` is the state that was found.
///
/// # Errors
/// If the database fails or a record is damaged.
pub(super) fn derive(reader: &RocksReader, store: &mut impl Store, meta: Meta) -> Result<(), StoreError> {
    let started = Instant::now();
    for family in [BY_GROUP, BY_EMAIL] {
        reader.db.delete_range_cf(reader.family(family), [].as_slice(), &END)?;
    }
    for begin in [GROUP, PENDING] {
        reader.db.delete_range_cf(reader.family(META), begin, &[begin, &END].concat())?;
    }
    reader.db.delete_cf(reader.family(META), FOLDED)?;

    let mut batch = Batch::new(unknown_before(meta));
    let mut digests = Digests::new();
    for item in reader.snapshot()?.records() {
        let (id, record) = item?;
        let places = places(id, &record);
        batch.meta.records += 1;
        batch.meta.users += u64::from(places.is_some());
        batch.derived.index.extend(places.into_iter().flatten().map(|place| (place, true)));
        digests.toggle(&id, &Encoded::from(record).bytes);
        if batch.derived.index.len() >= BATCH {
            store.commit(&batch, Durability::Unsynced)?;
            batch = Batch::new(batch.meta);
        }
    }
    batch.derived.digests = Some(digests);
    store.commit(&batch, Durability::Synced)?;
    let Meta { records, users, .. } = batch.meta;
    if records > 0 {
        let took = started.elapsed();
        info!(records, users, ?took, "digests, counts and indexes were made from the records");
    }
    Ok(())
}

/// The state, with what is not known any more taken at its worst.
fn unknown_before(meta: Meta) -> Meta {
    let Meta { head, version, .. } = meta;
    let late = (head > 0).then_some(Late { sequence: head, top: version });
    Meta { users: 0, records: 0, floor: version, foreign: version, top: version, late, ..meta }
}
