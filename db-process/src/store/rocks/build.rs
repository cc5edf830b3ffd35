//! Makes what follows from the records, for a database that has records and nothing of it.
//!
//! It goes through all records once and writes as it goes, so it needs no memory to speak of. The digests are
//! written last and on disk: as long as they are missing, whatever else is there is what an attempt that was
//! cut short left, and is removed first. The database is not in use meanwhile.

use std::time::Instant;

use protocol::Version;
use tracing::info;

use super::{BY_EMAIL, BY_GROUP, FOLDED, GROUP, META, PENDING, RocksStore};
use crate::store::derived::{Digests, places};
use crate::store::{Batch, Durability, Encoded, Late, Meta, Snapshot, Store, StoreError};

/// As many changes are written at once.
const BATCH: usize = 8_192;

/// Beyond every key of an index.
const END: [u8; 25] = [0xff; 25];

/// See the module. `meta` is the state that was found.
pub(super) fn derived(store: &mut RocksStore, meta: Meta) -> Result<(), StoreError> {
    let started = Instant::now();
    for family in [BY_GROUP, BY_EMAIL] {
        store.db.delete_range_cf(store.family(family), [].as_slice(), &END)?;
    }
    for begin in [GROUP, PENDING] {
        store.db.delete_range_cf(store.family(META), begin, &[begin, &END].concat())?;
    }
    store.db.delete_cf(store.family(META), FOLDED)?;

    let mut batch = Batch::new(unknown_before(meta));
    let mut digests = Digests::new();
    let reader = store.clone();
    for item in reader.snapshot()?.records() {
        let (id, record) = item?;
        let places = places(id, &record);
        batch.meta.records += 1;
        batch.meta.users += u64::from(places.is_some());
        batch.derived.index.extend(places.into_iter().flatten().map(|place| (place, true)));
        digests.toggle(&id, &Encoded::from(record).bytes);
        commit_if_large(store, &mut batch)?;
    }
    commit(store, &mut batch)?;
    batch.derived.digests = Some(digests);
    store.commit(&batch, Durability::Synced)?;
    let Meta { records, users, .. } = batch.meta;
    if records > 0 {
        info!(records, users, took = ?started.elapsed(), "digests, counts and indexes were made from the records");
    }
    Ok(())
}

/// The state, with what cannot be known any more taken at its worst.
fn unknown_before(meta: Meta) -> Meta {
    let Meta { head, version, .. } = meta;
    let late = (head > 0).then_some(Late { sequence: head, top: version });
    let unknown = Meta { users: 0, records: 0, floor: version, foreign: version, top: version, late, ..meta };
    if version == Version::ZERO { Meta { users: 0, records: 0, ..meta } } else { unknown }
}

fn commit_if_large(store: &mut RocksStore, batch: &mut Batch) -> Result<(), StoreError> {
    if batch.derived.index.len() >= BATCH { commit(store, batch) } else { Ok(()) }
}

fn commit(store: &mut RocksStore, batch: &mut Batch) -> Result<(), StoreError> {
    store.commit(batch, Durability::Unsynced)?;
    batch.derived.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use protocol::message::link::Write;
    use protocol::{Change, Operation};
    use rocksdb::{DB, IteratorMode, Options};
    use uuid::Uuid;

    use super::super::{DIGESTS, FAMILIES, STATE};
    use super::*;
    use crate::copy::audit::audit;
    use crate::copy::{Copy, Limits};
    use crate::store::{BlockCache, encoding};

    fn create(n: u64) -> Write {
        let change = Change {
            alive: Some(!n.is_multiple_of(5)),
            name: Some(format!("name {n}")),
            email: Some(format!("{n}@example.org")),
            group: Some((n % 30) as i32 - 9),
            ..Change::default()
        };
        let id = Uuid::from_u128(u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        Write { version: Version(n), id, operation: Operation::Create(change), condition: None, quiet: false }
    }

    fn open(folder: &tempfile::TempDir) -> RocksStore {
        RocksStore::open(folder.path(), &BlockCache::default()).expect("a database")
    }

    /// The state as it was written before anything was kept beside the records.
    fn earlier_state(meta: &Meta) -> Vec<u8> {
        let mut bytes = encoding::meta(&Meta { late: None, lsn: 0, ..*meta });
        bytes.truncate(bytes.len() - 5 * 8);
        bytes[1] &= 0b111;
        assert_eq!(encoding::read_meta(&bytes).expect("a state").head, meta.head);
        bytes
    }

    #[test]
    fn a_database_of_an_earlier_program_gets_what_follows_from_its_records() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut copy = Copy::open(open(&folder), Limits::default()).expect("a sound database");
        copy.write((1..9_000).map(create).collect()).expect("a database");
        copy.commit().expect("a database");
        let expected = *copy.meta();
        let kept: Vec<_> = copy.store().snapshot().expect("a database").index().collect();
        assert!((expected.users, expected.records, kept.len()) == (7_200, 8_999, 14_400));
        drop(copy);

        // Once as the earlier program left it, once as an attempt left it that was cut short.
        for cut_short in [false, true] {
            let raw = DB::open_cf(&Options::default(), folder.path(), FAMILIES).expect("a database");
            let family = |name: &str| raw.cf_handle(name).expect("a column family");
            raw.delete_cf(family(META), DIGESTS).expect("a working disk");
            if cut_short {
                raw.put_cf(family(BY_EMAIL), [3; 24], []).expect("a working disk");
                raw.put_cf(family(META), [GROUP, &[1; 4]].concat(), encoding::count(3))
                    .expect("a working disk");
            } else {
                raw.put_cf(family(META), STATE, earlier_state(&expected)).expect("a working disk");
                for name in [BY_GROUP, BY_EMAIL] {
                    for item in raw.iterator_cf(family(name), IteratorMode::Start) {
                        raw.delete_cf(family(name), item.expect("a working disk").0).expect("a working disk");
                    }
                }
            }
            drop(raw);

            let store = open(&folder);
            let snapshot = store.snapshot().expect("a database");
            assert_eq!(audit(&snapshot), []);
            assert!(kept.iter().cloned().eq(snapshot.index()));
            let version = expected.version;
            let late = Some(Late { sequence: expected.head, top: version });
            let unknown = Meta { floor: version, foreign: version, late, lsn: 0, ..expected };
            assert_eq!(snapshot.meta(), unknown, "what the op-log vouches for is not known any more");
        }
        assert_eq!(audit(&open(&folder).snapshot().expect("a database")), [], "and it stays");
    }
}
