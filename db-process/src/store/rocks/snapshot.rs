//! The database at one moment.

use std::collections::BTreeMap;

use protocol::message::replication::LogEntry;
use protocol::{Record, UserId, Version};
use rocksdb::{DB, DBIteratorWithThreadMode, Direction, IteratorMode, ReadOptions, SnapshotWithThreadMode};

use super::indexes::{Pending, counts, overlay};
use super::reader::RocksReader;
use super::schema::{
    APPLIED, BY_EMAIL, BY_GROUP, DIGESTS, FOLDED, GROUP, META, OPLOG, PENDING, RECORDS, STATE, count,
    decode_meta, decode_record, group_in, group_key, no_state, page_key, page_number, place_in, place_key,
    record_key,
};
use crate::background::lock;
use crate::store::{Derived, Digests, IndexKey, Listing, Meta, Snapshot, StoreError, encoding};

/// Read ahead of a pass over everything.
const READAHEAD: usize = 1 << 20;

type KeyValue = (Box<[u8]>, Box<[u8]>);

pub(super) struct RocksSnapshot<'a> {
    reader: &'a RocksReader,
    inner: SnapshotWithThreadMode<'a, DB>,
    meta: Meta,
}

/// What is read from a snapshot.
impl RocksReader {
    /// See [`Store::group_count`](crate::store::Store::group_count).
    ///
    /// # Errors
    /// If the database fails or the number is damaged.
    pub fn group_count(&self, group: i32) -> Result<u64, StoreError> {
        RocksSnapshot::of(self)?.group_count(group)
    }

    /// See [`Store::log_after`](crate::store::Store::log_after).
    ///
    /// # Errors
    /// If the database fails, or an entry is damaged or missing.
    pub fn log_after(&self, sequence: u64, limit: usize) -> Result<Option<Vec<LogEntry>>, StoreError> {
        if let Some(entries) = self.latest.after(sequence, limit) {
            return Ok(Some(entries));
        }
        let snapshot = RocksSnapshot::of(self)?;
        if !snapshot.meta().log_reaches(sequence) {
            return Ok(None);
        }
        snapshot.log(sequence).take(limit).collect::<Result<_, _>>().map(Some)
    }

    /// See [`Store::snapshot`](crate::store::Store::snapshot).
    ///
    /// # Errors
    /// If the database fails or the state is damaged.
    pub fn snapshot(&self) -> Result<impl Snapshot, StoreError> {
        RocksSnapshot::of(self)
    }
}

impl<'a> RocksSnapshot<'a> {
    pub(super) fn of(reader: &'a RocksReader) -> Result<Self, StoreError> {
        let inner = reader.db.snapshot();
        let bytes = inner.get_pinned_cf(reader.family(META), STATE)?.ok_or_else(no_state)?;
        let meta = decode_meta(&bytes)?;
        drop(bytes);
        Ok(Self { reader, inner, meta })
    }

    /// All keys of a family from one on, or from the first.
    fn items(
        &self,
        family: &str,
        options: ReadOptions,
        from: Option<&[u8]>,
    ) -> DBIteratorWithThreadMode<'_, DB> {
        let mode = from.map_or(IteratorMode::Start, |key| IteratorMode::From(key, Direction::Forward));
        self.inner.iterator_cf_opt(self.reader.family(family), options, mode)
    }

    /// All keys of `meta` that begin with `kind`, from one on.
    fn items_of<'s>(
        &'s self,
        kind: &'static [u8],
        options: ReadOptions,
        from: &[u8],
    ) -> impl Iterator<Item = Result<KeyValue, StoreError>> + use<'s> {
        let items = self.items(META, options, Some(from));
        items.map_while(move |item| match item {
            Ok((key, _)) if !key.starts_with(kind) => None,
            item => Some(item.map_err(StoreError::from)),
        })
    }

    /// The records of higher ids.
    fn all_records(
        &self,
        options: ReadOptions,
        after: Option<UserId>,
    ) -> impl Iterator<Item = Result<(UserId, Record), StoreError>> {
        let items = self.items(RECORDS, options, after.as_ref().map(|id| id.as_bytes().as_slice()));
        let records = items.map(|item| {
            let (key, value) = item?;
            let id = record_key(&key)?;
            Ok((id, decode_record(&id, &value)?))
        });
        records.skip_while(move |item| matches!(item, Ok((id, _)) if Some(*id) == after))
    }
}

/// Indexes and counts, with what is not in them yet.
impl RocksSnapshot<'_> {
    /// The last page of pending changes that is in indexes and counts.
    fn folded(&self) -> Result<u64, StoreError> {
        let bytes = self.inner.get_pinned_cf(self.reader.family(META), FOLDED)?;
        let number = bytes.map(|bytes| encoding::read_count(&bytes)).transpose();
        Ok(number.map_err(StoreError::unreadable("the number of the last page in the indexes"))?.unwrap_or(0))
    }

    /// The pages after that one, in order.
    fn pages(&self, folded: u64) -> impl Iterator<Item = Result<Derived, StoreError>> {
        let items = self.items_of(PENDING, once(), &page_key(PENDING, folded + 1));
        items.zip(folded + 1..).map(|(item, expected)| {
            let (key, value) = item?;
            if *key != *page_key(PENDING, expected) {
                let missing = format!("page {expected} of pending changes is missing");
                return Err(StoreError::Inconsistent(missing));
            }
            let changes = encoding::read_pending(&value);
            changes.map_err(StoreError::unreadable(format_args!("page {expected} of pending changes")))
        })
    }

    /// The last page; `folded` where there is none after that.
    fn last_page(&self, folded: u64) -> Result<u64, StoreError> {
        let mut options = once();
        options.set_iterate_lower_bound(page_key(PENDING, folded + 1));
        let beyond = page_key(PENDING, u64::MAX);
        let mode = IteratorMode::From(&beyond, Direction::Reverse);
        let mut items = self.inner.iterator_cf_opt(self.reader.family(META), options, mode);
        items.next().map_or(Ok(folded), |item| page_number(PENDING, &item?.0))
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
        // The writer has them in memory, unless they are in the indexes by now.
        let last = self.last_page(folded)?;
        if let Some(changes) = lock(&self.reader.pending).between(folded, last) {
            return Ok(changes.iter().copied().filter_map(wanted).collect());
        }
        let mut found = Vec::new();
        for page in self.pages(folded) {
            found.extend(page?.index.into_iter().filter_map(wanted));
        }
        Ok(found)
    }

    /// What is pending of the places that are wanted: whether each is taken.
    fn pending_places(
        &self,
        wanted: impl Fn(IndexKey) -> bool,
    ) -> Result<BTreeMap<IndexKey, Option<()>>, StoreError> {
        let found = self.pending(|key, taken| wanted(key).then_some((key, taken.then_some(()))))?;
        Ok(found.into_iter().collect())
    }

    /// The counts of the groups of which anything is pending; `None` is none.
    fn pending_counts(&self) -> Result<BTreeMap<i32, Option<u64>>, StoreError> {
        let changes = self.pending(|key, taken| Some((key, taken)))?;
        let counted = |(group, change)| Ok((group, Some(self.count(group, change)?).filter(|&n| n > 0)));
        counts(&changes).into_iter().map(counted).collect()
    }

    /// The number of live users of a group.
    pub(super) fn group_count(&self, wanted: i32) -> Result<u64, StoreError> {
        let changes = self.pending(|key, taken| match key {
            IndexKey::Group(group, _) if group == wanted => Some(if taken { 1 } else { -1 }),
            _ => None,
        })?;
        self.count(wanted, changes.into_iter().sum())
    }

    fn count(&self, group: i32, pending: i64) -> Result<u64, StoreError> {
        let stored = self.inner.get_pinned_cf(self.reader.family(META), group_key(group))?;
        count(group, stored.as_deref(), pending)
    }

    /// The places of an index from that key on, as they are stored.
    fn places<'s>(
        &'s self,
        family: &'static str,
        options: ReadOptions,
        from: Option<&[u8]>,
    ) -> impl Iterator<Item = Result<(IndexKey, ()), StoreError>> + use<'s> {
        self.items(family, options, from).map(move |item| Ok((place_in(family, &item?.0)?, ())))
    }
}

/// What is read once should not evict what is read again and again.
fn once() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options
}

/// For a pass over everything.
fn pass() -> ReadOptions {
    let mut options = once();
    options.set_readahead_size(READAHEAD);
    options.set_total_order_seek(true);
    options
}

impl Snapshot for RocksSnapshot<'_> {
    fn meta(&self) -> Meta {
        self.meta
    }

    fn get(&self, id: &UserId) -> Result<Option<Record>, StoreError> {
        let bytes = self.inner.get_pinned_cf(self.reader.family(RECORDS), id.as_bytes())?;
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
        self.items_of(APPLIED, pass(), APPLIED).map(|item| {
            let (key, value) = item?;
            let page = page_number(APPLIED, &key)?;
            let versions = encoding::read_applied(&value);
            let unreadable = StoreError::unreadable(format!("page {page} of applied operations"));
            Ok((page, versions.map_err(unreadable)?))
        })
    }

    fn digests(&self) -> Result<Box<Digests>, StoreError> {
        let bytes = self.inner.get_pinned_cf(self.reader.family(META), DIGESTS)?;
        let bytes = bytes.ok_or_else(|| StoreError::Inconsistent("the digests are missing".to_owned()))?;
        encoding::read_digests(&bytes).map_err(StoreError::unreadable("the digests"))
    }

    fn group_counts(&self) -> impl Iterator<Item = Result<(i32, u64), StoreError>> {
        let stored = self.items_of(GROUP, pass(), GROUP).map(|item| {
            let (key, value) = item?;
            let group = group_in(&key)?;
            Ok((group, count(group, Some(&value), 0)?))
        });
        overlay(stored, self.pending_counts())
    }

    fn index(&self) -> impl Iterator<Item = Result<IndexKey, StoreError>> {
        let stored = self.places(BY_GROUP, pass(), None).chain(self.places(BY_EMAIL, pass(), None));
        overlay(stored, self.pending_places(|_| true)).map(|place| place.map(|(key, ())| key))
    }

    fn listed(
        &self,
        listing: Listing,
        after: Option<UserId>,
    ) -> impl Iterator<Item = Result<UserId, StoreError>> {
        let family = match listing {
            Listing::Group(_) => BY_GROUP,
            Listing::Email(_) => BY_EMAIL,
        };
        let from = place_key(&listing.place(after.unwrap_or_default()));
        let stored = self.places(family, once(), Some(&from));
        let listed = move |place: IndexKey| listing.place(place.id()) == place;
        let stored = stored.take_while(move |item| item.as_ref().map_or(true, |&(place, ())| listed(place)));
        let places = overlay(stored, self.pending_places(listed));
        let ids = places.map(|place| place.map(|(place, ())| place.id()));
        // What is stored begins there, what is pending before that.
        ids.skip_while(move |id| matches!(id, Ok(id) if Some(*id) <= after))
    }
}
