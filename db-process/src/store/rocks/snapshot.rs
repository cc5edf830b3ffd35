//! The database at one moment.

use std::collections::BTreeMap;

use protocol::message::replication::LogEntry;
use protocol::{Record, UserId, Version};
use rocksdb::{DB, DBIteratorWithThreadMode, Direction, IteratorMode, ReadOptions, SnapshotWithThreadMode};
use uuid::Uuid;

use super::memtable::{self, CHANGED, Memtable, View};
use super::pending::{self, Pending};
use super::{
    APPLIED, BY_EMAIL, BY_GROUP, DIGESTED, DIGESTS, FOLDED, GROUP, META, OPLOG, PENDING, RECORDS, RocksStore,
    STATE, changed_key, count, decode_meta, decode_record, group_key, group_of, in_group, no_state,
    pending_key, record_key, tables, with_email,
};
use crate::store::{Derived, Digests, IndexKey, Listing, Meta, Snapshot, StoreError, encoding};

/// Read ahead of a pass over everything.
const READAHEAD: usize = 1 << 20;

/// See the module.
pub(super) struct RocksSnapshot<'a> {
    store: &'a RocksStore,
    inner: SnapshotWithThreadMode<'a, DB>,
    meta: Meta,
    /// What lies over the records.
    changed: View,
}

impl<'a> RocksSnapshot<'a> {
    pub(super) fn of(store: &'a RocksStore) -> Result<Self, StoreError> {
        // The memtables first: what leaves them meanwhile is in this as well. But where one was filled and
        // flushed behind these, they would hide what is newer.
        let (changed, known, inner) = loop {
            let changed = store.memtables.view();
            let known = changed.last();
            let inner = store.db.snapshot();
            if store.memtables.is_active_in(&changed) {
                break (changed, known, inner);
            }
        };
        let bytes = inner.get_pinned_cf(store.family(META), STATE)?.ok_or_else(no_state)?;
        let meta = decode_meta(&bytes)?;
        drop(bytes);
        let mut snapshot = Self { store, inner, meta, changed };
        let last = snapshot.last_page(CHANGED, 0)?;
        let missing = if last > known { snapshot.changed_after(known)? } else { None };
        snapshot.changed = snapshot.changed.up_to(last, missing);
        Ok(snapshot)
    }

    /// The pages of changed records behind that one.
    fn changed_after(&self, page: u64) -> Result<Option<Memtable>, StoreError> {
        let mut table: Option<Memtable> = None;
        for changed in self.changed_pages(page) {
            let (number, value) = changed?;
            let table = table.get_or_insert_with(|| Memtable::starting_with(number));
            if number != table.last() + 1 {
                let missing = format!("page {} of changed records is missing", table.last() + 1);
                return Err(StoreError::Inconsistent(missing));
            }
            let added = table.add(value.into());
            added.map_err(StoreError::unreadable(format_args!("page {number} of changed records")))?;
        }
        Ok(table)
    }

    /// These pages with their numbers, in order.
    fn changed_pages(&self, after: u64) -> impl Iterator<Item = Result<(u64, Box<[u8]>), StoreError>> {
        let items = self.items(META, once(), Some(&changed_key(after + 1)));
        let ours = items.take_while(|item| item.as_ref().map_or(true, |(key, _)| key.starts_with(CHANGED)));
        ours.map(|item| {
            let (key, value) = item?;
            Ok((page_in(&key, CHANGED)?, value))
        })
    }

    /// Number of the page as of which the digests were written whole; 0 where they are as of all pages that
    /// there are.
    pub(super) fn digested(&self) -> Result<u64, StoreError> {
        self.page_number(DIGESTED, "the number of the page of the digests")
    }

    /// The number of a page that is kept under that key; 0 where there is none.
    fn page_number(&self, key: &[u8], what: &str) -> Result<u64, StoreError> {
        let bytes = self.inner.get_pinned_cf(self.store.family(META), key)?;
        let number = bytes.map(|bytes| encoding::read_count(&bytes)).transpose();
        Ok(number.map_err(StoreError::unreadable(what))?.unwrap_or(0))
    }

    /// The memtable with the last pages: with all that there are, where none was in memory.
    pub(super) fn latest_memtable(&self) -> memtable::Shared {
        self.changed.latest().clone()
    }

    /// All keys of a family from one on, or from the first.
    fn items(
        &self,
        family: &str,
        options: ReadOptions,
        from: Option<&[u8]>,
    ) -> DBIteratorWithThreadMode<'_, DB> {
        let mode = from.map_or(IteratorMode::Start, |key| IteratorMode::From(key, Direction::Forward));
        self.inner.iterator_cf_opt(self.store.family(family), options, mode)
    }
}

impl RocksSnapshot<'_> {
    /// Number of the last page of pending changes that was folded.
    fn folded(&self) -> Result<u64, StoreError> {
        self.page_number(FOLDED, "the number of the last page that was folded")
    }

    /// The pages behind that one, in order.
    fn pages(&self, folded: u64) -> impl Iterator<Item = Result<Derived, StoreError>> {
        let items = self.items(META, once(), Some(&pending_key(folded + 1)));
        let ours = items.take_while(|item| item.as_ref().map_or(true, |(key, _)| key.starts_with(PENDING)));
        ours.zip(folded + 1..).map(|(item, expected)| {
            let (key, value) = item?;
            if *key != pending_key(expected) {
                let missing = format!("page {expected} of pending changes is missing");
                return Err(StoreError::Inconsistent(missing));
            }
            let changes = encoding::read_pending(&value);
            changes.map_err(StoreError::unreadable(format_args!("page {expected} of pending changes")))
        })
    }

    /// Number of the last page of that kind behind that one, or its own.
    fn last_page(&self, kind: &[u8], behind: u64) -> Result<u64, StoreError> {
        let mut options = once();
        options.set_iterate_lower_bound([kind, &(behind + 1).to_be_bytes()].concat());
        let beyond = [kind, &u64::MAX.to_be_bytes()].concat();
        let mode = IteratorMode::From(&beyond, Direction::Reverse);
        let mut items = self.inner.iterator_cf_opt(self.store.family(META), options, mode);
        items.next().map_or(Ok(behind), |item| page_in(&item?.0, kind))
    }

    /// All that is pending.
    pub(super) fn read_pending(&self) -> Result<Pending, StoreError> {
        let folded = self.folded()?;
        Pending::read(folded, self.pages(folded))
    }

    /// What is pending, of what is wanted, in the order in which it was changed.
    fn pending<T>(&self, wanted: impl Fn(IndexKey, bool) -> Option<T>) -> Result<Vec<T>, StoreError> {
        let wanted = |(key, taken)| wanted(key, taken);
        let folded = self.folded()?;
        // The writer has them in memory, as long as it has not folded since.
        let last = self.last_page(PENDING, folded)?;
        if let Some(changes) = self.store.pending().between(folded, last) {
            return Ok(changes.iter().copied().filter_map(wanted).collect());
        }
        let mut found = Vec::new();
        for page in self.pages(folded) {
            found.extend(page?.index.into_iter().filter_map(wanted));
        }
        Ok(found)
    }

    /// What is pending in the indexes, of what is asked for: by what it is found, and whether it is there.
    fn pending_places<K: Ord>(
        &self,
        wanted: impl Fn(IndexKey) -> Option<K>,
    ) -> Result<BTreeMap<K, Option<()>>, StoreError> {
        let found = self.pending(|key, taken| Some((wanted(key)?, if taken { Some(()) } else { None })))?;
        Ok(found.into_iter().collect())
    }

    /// The numbers of users of the groups of which anything is pending; `None` is none.
    fn pending_groups(&self) -> Result<BTreeMap<i32, Option<u64>>, StoreError> {
        let changes = self.pending(|key, taken| Some((key, taken)))?;
        let groups = tables::by_group(&changes).into_iter();
        groups
            .map(|(group, change)| Ok((group, Some(self.count(group, change)?).filter(|&n| n > 0))))
            .collect()
    }

    /// The number of live users of a group.
    pub(super) fn group_count(&self, wanted: i32) -> Result<u64, StoreError> {
        let changes = self.pending(|key, taken| match key {
            IndexKey::Group(group, _) if group == wanted => Some(if taken { 1 } else { -1 }),
            _ => None,
        })?;
        self.count(wanted, changes.into_iter().sum())
    }

    /// The number of live users of a group where `pending` more are.
    fn count(&self, group: i32, pending: i64) -> Result<u64, StoreError> {
        let kept = self.inner.get_pinned_cf(self.store.family(META), group_key(group))?;
        count(group, kept.as_deref(), pending)
    }
}

impl RocksSnapshot<'_> {
    /// The records of higher ids, what is in the column family with what lies over it.
    fn all_records(
        &self,
        options: ReadOptions,
        after: Option<UserId>,
    ) -> impl Iterator<Item = Result<(UserId, Record), StoreError>> {
        let from = after.as_ref().map(|id| id.as_bytes().as_slice());
        let kept = self.items(RECORDS, options, from).map(|item| {
            let (key, value) = item?;
            Ok((record_key(&key)?, value))
        });
        let kept = kept.skip_while(move |item| matches!(item, Ok((id, _)) if Some(*id) == after));
        let records = pending::overlay(kept, self.changed.after(after));
        records.map(|item| item.and_then(|(id, bytes)| Ok((id, decode_record(&id, &bytes)?))))
    }
}

/// What is read once should not push out what callers read again and again.
fn once() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options
}

fn pass() -> ReadOptions {
    let mut options = once();
    options.set_readahead_size(READAHEAD);
    options.set_total_order_seek(true);
    options
}

/// The id at the end of a key of an index, where the key has that length.
fn id_in(key: &[u8], length: usize) -> Result<UserId, StoreError> {
    let id = (key.len() == length).then(|| key.last_chunk()).flatten();
    let id = id.ok_or_else(|| StoreError::Inconsistent("a place in an index has another form".to_owned()))?;
    Ok(Uuid::from_bytes(*id))
}

fn first<const N: usize>(key: &[u8]) -> [u8; N] {
    *key.first_chunk().expect("a key whose length was checked")
}

/// The number of a page of that kind, by its key.
fn page_in(key: &[u8], kind: &[u8]) -> Result<u64, StoreError> {
    let number = key.strip_prefix(kind).and_then(|number| number.try_into().ok());
    let none = || StoreError::Inconsistent(format!("a page of {} has no number", kind.escape_ascii()));
    number.map(u64::from_be_bytes).ok_or_else(none)
}

impl Snapshot for RocksSnapshot<'_> {
    fn meta(&self) -> Meta {
        self.meta
    }

    fn get(&self, id: &UserId) -> Result<Option<Record>, StoreError> {
        if let Some(found) = self.changed.get(id)? {
            return Ok(found);
        }
        let bytes = self.inner.get_pinned_cf(self.store.family(RECORDS), id.as_bytes())?;
        bytes.map(|bytes| decode_record(id, &bytes)).transpose()
    }

    fn records(&self) -> impl Iterator<Item = Result<(UserId, Record), StoreError>> {
        self.all_records(pass(), None)
    }

    fn records_after(
        &self,
        after: Option<UserId>,
    ) -> impl Iterator<Item = Result<(UserId, Record), StoreError>> {
        self.all_records(once(), after)
    }

    fn log(&self, after: u64) -> impl Iterator<Item = Result<LogEntry, StoreError>> {
        let missing = |sequence| Err(StoreError::Inconsistent(format!("op-log entry {sequence} is missing")));
        let mut items = self.items(OPLOG, once(), Some(&(after + 1).to_be_bytes()));
        (after + 1..=self.meta.head).map(move |expected| {
            let Some(item) = items.next() else { return missing(expected) };
            let (key, value) = item?;
            if *key != expected.to_be_bytes() {
                return missing(expected);
            }
            let entry = encoding::read_log_entry(expected, &value);
            entry.map_err(StoreError::unreadable(format_args!("op-log entry {expected}")))
        })
    }

    fn applied(&self) -> impl Iterator<Item = Result<(u64, Vec<Version>), StoreError>> {
        let items = self.items(META, pass(), Some(APPLIED));
        let ours = items.take_while(|item| item.as_ref().map_or(true, |(key, _)| key.starts_with(APPLIED)));
        ours.map(|item| {
            let (key, value) = item?;
            let page = <[u8; 8]>::try_from(&key[APPLIED.len()..]);
            let page = page.map_err(|_| {
                StoreError::Inconsistent("a page of applied operations has no number".to_owned())
            })?;
            let page = u64::from_be_bytes(page);
            let versions = encoding::read_applied(&value);
            Ok((
                page,
                versions.map_err(StoreError::unreadable(format!("page {page} of applied operations")))?,
            ))
        })
    }

    fn digests(&self) -> Result<Box<Digests>, StoreError> {
        let bytes = self.inner.get_pinned_cf(self.store.family(META), DIGESTS)?;
        let bytes = bytes.ok_or_else(|| StoreError::Inconsistent("the digests are missing".to_owned()))?;
        let mut digests = encoding::read_digests(&bytes).map_err(StoreError::unreadable("the digests"))?;
        for changed in self.changed_pages(self.digested()?) {
            let (number, page) = changed?;
            let changes = encoding::read_digest_changes(&page);
            let what = format_args!("page {number} of changed records");
            digests.change(&changes.map_err(StoreError::unreadable(what))?);
        }
        Ok(digests)
    }

    fn group_counts(&self) -> impl Iterator<Item = Result<(i32, u64), StoreError>> {
        let items = self.items(META, pass(), Some(GROUP));
        let ours = items.take_while(|item| item.as_ref().map_or(true, |(key, _)| key.starts_with(GROUP)));
        let kept = ours.map(|item| {
            let (key, value) = item?;
            let group = <[u8; 4]>::try_from(&key[GROUP.len()..]);
            let group = group.map_err(|_| StoreError::Inconsistent("a number is of no group".to_owned()))?;
            let group = group_of(group);
            Ok((group, count(group, Some(&value), 0)?))
        });
        pending::overlaid(kept, self.pending_groups())
    }

    fn index(&self) -> impl Iterator<Item = Result<IndexKey, StoreError>> {
        let by_group = self.items(BY_GROUP, pass(), None).map(|item| {
            let (key, _) = item?;
            let id = id_in(&key, 20)?;
            Ok((IndexKey::Group(group_of(first(&key)), id), ()))
        });
        let by_email = self.items(BY_EMAIL, pass(), None).map(|item| {
            let (key, _) = item?;
            let id = id_in(&key, 24)?;
            Ok((IndexKey::Email(u64::from_be_bytes(first(&key)), id), ()))
        });
        let places = pending::overlaid(by_group.chain(by_email), self.pending_places(Some));
        places.map(|place| place.map(|(key, ())| key))
    }

    fn listed(
        &self,
        listing: Listing,
        after: Option<UserId>,
    ) -> impl Iterator<Item = Result<UserId, StoreError>> {
        let key = |id: UserId| match listing {
            Listing::Group(group) => (BY_GROUP, 4, in_group(group, &id).to_vec()),
            Listing::Email(hash) => (BY_EMAIL, 8, with_email(hash, &id).to_vec()),
        };
        let (family, prefix, from) = key(after.unwrap_or(Uuid::nil()));
        let items = self.items(family, once(), Some(&from));
        let listed = move |key: &[u8]| key.get(..prefix) == from.get(..prefix);
        let length = prefix + 16;
        let kept = items
            .map(move |item| item.map(|(key, _)| key).map_err(StoreError::from))
            .take_while(move |key| key.as_ref().map_or(true, |key| listed(key)))
            .map(move |key| Ok((id_in(&key?, length)?, ())));
        let changes = self.pending_places(|key| match (key, listing) {
            (IndexKey::Group(group, id), Listing::Group(wanted)) if group == wanted => Some(id),
            (IndexKey::Email(hash, id), Listing::Email(wanted)) if hash == wanted => Some(id),
            _ => None,
        });
        let ids = pending::overlaid(kept, changes).map(|id| id.map(|(id, ())| id));
        // What is kept begins there, what is pending before that.
        ids.skip_while(move |id| matches!(id, Ok(id) if Some(*id) <= after))
    }
}
