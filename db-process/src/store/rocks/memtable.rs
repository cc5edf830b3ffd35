//! Changes of records that are on disk as pages and not yet in their column family: memtables of our own, as
//! in a log-structured merge-tree (O'Neil, Cheng, Gawlick and O'Neil, 1996).
//!
//! RocksDB has memtables, too, and keeps every key in a skip list, where each step on the way to a place is a
//! miss of the processor's cache. The changed users of a batch are everywhere, so that was a tenth of all
//! that a change cost. So a batch leaves its records as one *page* in `meta`, where pages follow on each
//! other and cost next to nothing, and the same bytes stay in memory, found through a B-tree: as durable, and
//! several times as fast to change and to read.
//!
//! There is one **active** memtable. When it has pages of [`FLUSH`] bytes it becomes **immutable**, and a
//! thread writes it as a sorted table, which RocksDB takes in as it is ([`tables`](super::tables)). A later
//! batch drops its pages. Until then pages, memtable and table say the same, so it makes no difference when
//! that happens. The memtable itself stays until the next one takes its place: whoever was changed lately is
//! often asked for again.
//!
//! A memtable keeps every change of a user, by page, and not only the last one: so a snapshot, which is the
//! database as of a page, can look at it while it goes on changing ([`View`]).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::ops::{Bound, Range, RangeInclusive};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use protocol::{Record, UserId};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::decode_record;
use super::tables::Scatter;
use crate::store::{DecodeError, StoreError, encoding};

/// A memtable with pages of about so many bytes ([`Scatter`]) is flushed: some 40,000 changes.
const FLUSH: usize = if cfg!(test) { 1 << 10 } else { 4 << 20 };

/// So many users are copied out of a memtable at a time, by whoever goes through all of it: meanwhile nobody
/// can write.
const STEP: usize = if cfg!(test) { 3 } else { 256 };

/// Bits of a [`Filter`]: a dozen for each user of a full memtable, so that it is wrong of one in ten, and
/// fits into the cache of a processor.
const FILTER: usize = 1 << 19;

/// What the key of a page begins with.
pub(super) const CHANGED: &[u8] = b"changed";

/// Pages of changed records, in memory.
#[derive(Debug)]
pub(super) struct Memtable {
    /// Number of the first page.
    first: u64,
    pages: Vec<Vec<u8>>,
    /// Where the last record of each user is; the number is that of the id, so that they are in id order.
    latest: BTreeMap<u128, Place>,
    /// Where those before are.
    earlier: Vec<Place>,
    filter: Filter,
    /// The highest id of all.
    highest: u128,
    /// Of all pages.
    bytes: usize,
    /// With so many it is full.
    capacity: usize,
}

/// Where a record is.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// In which of the pages.
    page: u32,
    offset: u32,
    /// None at all is gone.
    length: u32,
    /// The place before it, if there is one, is so far from the beginning of the earlier ones, counted
    /// from 1.
    before: u32,
}

impl Memtable {
    /// An empty one; its first page will have that number.
    pub(super) fn starting_with(first: u64) -> Self {
        Self {
            first,
            pages: Vec::new(),
            latest: BTreeMap::new(),
            earlier: Vec::new(),
            filter: Filter::default(),
            highest: 0,
            bytes: 0,
            capacity: FLUSH,
        }
    }

    /// Number of the last page; the one before the first where there is none.
    pub(super) fn last(&self) -> u64 {
        self.first + self.pages.len() as u64 - 1
    }

    /// Adds the next page, as [`encoding::changed`] makes it.
    ///
    /// # Errors
    /// If it is no such page.
    pub(super) fn add(&mut self, page: Vec<u8>) -> Result<(), DecodeError> {
        let number = self.pages.len() as u32;
        for (id, Range { start, end }) in encoding::read_changed(&page)? {
            let place = Place { page: number, offset: start as u32, length: (end - start) as u32, before: 0 };
            self.highest = self.highest.max(id.as_u128());
            match self.latest.entry(id.as_u128()) {
                Entry::Vacant(free) => {
                    free.insert(place);
                    self.filter.add(&id);
                }
                Entry::Occupied(mut latest) => {
                    self.earlier.push(*latest.get());
                    latest.insert(Place { before: self.earlier.len() as u32, ..place });
                }
            }
        }
        self.bytes += page.len();
        self.pages.push(page);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.bytes >= self.capacity
    }

    /// The record of a user after that page, as bytes; none at all where it is gone, `None` where nothing
    /// changed it.
    fn get(&self, id: &UserId, upto: u64) -> Option<&[u8]> {
        let number = id.as_u128();
        let latest =
            if number <= self.highest && self.filter.may_have(id) { self.latest.get(&number) } else { None };
        self.as_of(latest?, upto)
    }

    /// All users of higher ids with what [`Self::get`] says of them, in id order.
    fn after(&self, after: Option<UserId>, upto: u64) -> impl Iterator<Item = (UserId, &[u8])> {
        let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_u128()));
        let changed = self.latest.range((from, Bound::Unbounded));
        changed.filter_map(move |(id, latest)| Some((Uuid::from_u128(*id), self.as_of(latest, upto)?)))
    }

    /// All users in id order with their last records, none at all where they are gone.
    pub(super) fn all(&self) -> impl Iterator<Item = (UserId, &[u8])> {
        self.after(None, u64::MAX)
    }

    /// The record there, or the one before that was the last one after that page.
    fn as_of(&self, latest: &Place, upto: u64) -> Option<&[u8]> {
        let mut place = latest;
        while self.first + u64::from(place.page) > upto {
            place = &self.earlier[place.before.checked_sub(1)? as usize];
        }
        let Place { page, offset, length, .. } = *place;
        Some(&self.pages[page as usize][offset as usize..][..length as usize])
    }
}

/// Tells of most users that they are not in a memtable, which is cheaper than to look for them: a Bloom
/// filter (Bloom, 1970) with one hash.
struct Filter(Vec<u64>);

impl Default for Filter {
    fn default() -> Self {
        Self(vec![0; FILTER / 64])
    }
}

impl Filter {
    fn add(&mut self, id: &UserId) {
        let (word, bit) = Self::place(id);
        self.0[word] |= bit;
    }

    fn may_have(&self, id: &UserId) -> bool {
        let (word, bit) = Self::place(id);
        self.0[word] & bit != 0
    }

    fn place(id: &UserId) -> (usize, u64) {
        let hash = xxh3_64(id.as_bytes()) as usize % FILTER;
        (hash / 64, 1 << (hash % 64))
    }
}

/// The bits say nothing to a reader.
impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Filter")
    }
}

/// A memtable that readers share. It is read as it is: each page is added in one step.
pub(super) type Shared = Arc<RwLock<Memtable>>;

pub(super) fn read(table: &Shared) -> RwLockReadGuard<'_, Memtable> {
    // A page that could not be added whole is followed by nothing: the copy is not used any more then.
    table.read().unwrap_or_else(PoisonError::into_inner)
}

/// The memtables of a database.
#[derive(Debug)]
pub(super) struct Memtables(RwLock<Stack>);

#[derive(Debug)]
struct Stack {
    active: Shared,
    /// The one before.
    immutable: Option<Shared>,
    /// Whether that is not in the column family yet.
    flushing: bool,
    /// No user with a higher id is in the column family, or about to be.
    kept_upto: u128,
    scatter: Scatter,
}

impl Default for Memtables {
    fn default() -> Self {
        Self::new(Arc::new(RwLock::new(Memtable::starting_with(1))))
    }
}

impl Memtables {
    /// With what was read back.
    pub(super) fn new(active: Shared) -> Self {
        let stack = Stack {
            active,
            immutable: None,
            flushing: false,
            kept_upto: u128::MAX,
            scatter: Scatter::default(),
        };
        Self(RwLock::new(stack))
    }

    /// This is the last user in the column family, where there is any, and whatever gets there from now on is
    /// frozen here first.
    pub(super) fn last_kept(&self, id: Option<UserId>) {
        let mut stack = self.0.write().unwrap_or_else(PoisonError::into_inner);
        stack.kept_upto = id.map_or(0, |id| id.as_u128());
    }

    /// From now on, this decides when one is full.
    pub(super) fn scatter(&self, scatter: Scatter) {
        let mut stack = self.0.write().unwrap_or_else(PoisonError::into_inner);
        stack.scatter = scatter;
        let mut active = stack.active.write().unwrap_or_else(PoisonError::into_inner);
        active.capacity = scatter.bound(FLUSH, active.first);
    }

    /// All that is in them by now, and what will be in the active one until it is flushed.
    pub(super) fn view(&self) -> View {
        let stack = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let tables = [Some(&stack.active), stack.immutable.as_ref()];
        View { tables: tables.into_iter().flatten().cloned().collect(), upto: u64::MAX }
    }

    /// Whether the memtable that was active in that view still is.
    pub(super) fn is_active_in(&self, view: &View) -> bool {
        Arc::ptr_eq(&self.0.read().unwrap_or_else(PoisonError::into_inner).active, view.latest())
    }

    /// Looks users up, in their order, as they are now: `None` is not known here, `Some(None)` is nowhere.
    /// That is said of whoever has a higher id than anybody in the column family, too: ids rise with time, so
    /// most new users have, and a copy is filled in the order of the ids.
    ///
    /// # Errors
    /// If a record is damaged.
    pub(super) fn get_many(&self, ids: &[UserId]) -> Result<Vec<Option<Option<Record>>>, StoreError> {
        let stack = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = vec![None; ids.len()];
        look_up(&stack.active, u64::MAX, ids, &mut found)?;
        if let Some(immutable) = &stack.immutable {
            look_up(immutable, u64::MAX, ids, &mut found)?;
        }
        for (id, found) in ids.iter().zip(&mut found) {
            if found.is_none() && id.as_u128() > stack.kept_upto {
                *found = Some(None);
            }
        }
        Ok(found)
    }

    /// Number of the next page.
    pub(super) fn next_page(&self) -> u64 {
        read(&self.0.read().unwrap_or_else(PoisonError::into_inner).active).last() + 1
    }

    /// Adds that page, which is on its way to disk.
    ///
    /// # Errors
    /// If it is no such page.
    pub(super) fn add(&self, page: Vec<u8>) -> Result<(), DecodeError> {
        let active = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).active);
        active.write().unwrap_or_else(PoisonError::into_inner).add(page)
    }

    /// Whether the active one is full, and has to wait for another one to be flushed.
    pub(super) fn is_stalled(&self) -> bool {
        let stack = self.0.read().unwrap_or_else(PoisonError::into_inner);
        stack.flushing && read(&stack.active).is_full()
    }

    /// Makes the active one immutable, if it is full and the one before is flushed. Returns it with its
    /// pages.
    pub(super) fn freeze(&self) -> Option<(Shared, RangeInclusive<u64>)> {
        self.freeze_if(Memtable::is_full)
    }

    /// The same with whatever is in it.
    pub(super) fn freeze_any(&self) -> Option<(Shared, RangeInclusive<u64>)> {
        self.freeze_if(|active| !active.pages.is_empty())
    }

    fn freeze_if(&self, wanted: impl Fn(&Memtable) -> bool) -> Option<(Shared, RangeInclusive<u64>)> {
        let mut stack = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let (pages, highest) = {
            let active = read(&stack.active);
            if stack.flushing || !wanted(&active) {
                return None;
            }
            (active.first..=active.last(), active.highest)
        };
        stack.kept_upto = stack.kept_upto.max(highest);
        let mut next = Memtable::starting_with(pages.end() + 1);
        next.capacity = stack.scatter.bound(FLUSH, next.first);
        let next = Arc::new(RwLock::new(next));
        let full = std::mem::replace(&mut stack.active, next);
        stack.immutable = Some(Arc::clone(&full));
        stack.flushing = true;
        Some((full, pages))
    }

    /// The immutable one is in the column family.
    pub(super) fn flushed(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).flushing = false;
    }
}

/// Some users with the bytes of their records; `None` is gone.
type Step = BTreeMap<UserId, Option<Box<[u8]>>>;

/// What the memtables say as of a page. Whatever they do not know of is in the column family.
#[derive(Debug)]
pub(super) struct View {
    /// The latest first.
    tables: Vec<Shared>,
    upto: u64,
}

impl View {
    /// The memtable with the last pages.
    pub(super) fn latest(&self) -> &Shared {
        self.tables.first().expect("a view begins with the active one, and only more is laid over that")
    }

    /// Number of the last page there is by now.
    pub(super) fn last(&self) -> u64 {
        read(self.latest()).last()
    }

    /// As of that page, and no later. `missing` are the last pages, where they are not in memory yet.
    pub(super) fn up_to(mut self, upto: u64, missing: Option<Memtable>) -> Self {
        self.upto = upto;
        self.tables.splice(0..0, missing.map(|table| Arc::new(RwLock::new(table))));
        self
    }

    /// Looks a user up: `None` is not known here, `Some(None)` is gone.
    ///
    /// # Errors
    /// If the record is damaged.
    pub(super) fn get(&self, id: &UserId) -> Result<Option<Option<Record>>, StoreError> {
        let mut found = [None];
        for table in &self.tables {
            look_up(table, self.upto, std::slice::from_ref(id), &mut found)?;
        }
        let [found] = found;
        Ok(found)
    }

    /// All users of higher ids that are known here, in id order, with the bytes of their records; `None` is
    /// gone.
    pub(super) fn after(&self, after: Option<UserId>) -> impl Iterator<Item = (UserId, Option<Box<[u8]>>)> {
        let mut after = Some(after);
        let steps = std::iter::from_fn(move || {
            let (step, next) = self.step_after(after?);
            after = next.map(Some);
            Some(step)
        });
        steps.flatten()
    }

    /// The next ones, and behind whom it goes on, if it does.
    fn step_after(&self, after: Option<UserId>) -> (Step, Option<UserId>) {
        let mut step = Step::new();
        let mut end: Option<UserId> = None;
        for table in &self.tables {
            let table = read(table);
            let mut last = None;
            let mut taken = 0;
            for (id, bytes) in table.after(after, self.upto).take(STEP) {
                step.entry(id).or_insert_with(|| (!bytes.is_empty()).then(|| bytes.into()));
                last = Some(id);
                taken += 1;
            }
            // Of this one there may be more, so behind its last user not all is known.
            if taken == STEP {
                end = [end, last].into_iter().flatten().min();
            }
        }
        if let Some(end) = end {
            step.retain(|id, _| *id <= end);
        }
        (step, end)
    }
}

/// Looks those up that are not found yet.
fn look_up(
    table: &Shared,
    upto: u64,
    ids: &[UserId],
    found: &mut [Option<Option<Record>>],
) -> Result<(), StoreError> {
    let table = read(table);
    for (id, found) in ids.iter().zip(found).filter(|(_, found)| found.is_none()) {
        *found = table.get(id, upto).map(|bytes| decode(id, bytes)).transpose()?;
    }
    Ok(())
}

fn decode(id: &UserId, bytes: &[u8]) -> Result<Option<Record>, StoreError> {
    (!bytes.is_empty()).then(|| decode_record(id, bytes)).transpose()
}

#[cfg(test)]
mod tests {
    use protocol::{Change, Version};

    use super::*;
    use crate::store::{Batch, Meta};

    fn id(n: u128) -> UserId {
        Uuid::from_u128(n << 60)
    }

    fn record(version: u64) -> Record {
        Record::from_change(Version(version), &Change { alive: Some(true), ..Change::default() })
    }

    /// A page that puts these users, in that version, and removes those.
    fn page(version: u64, put: &[u128], gone: &[u128]) -> Vec<u8> {
        let mut batch = Batch::new(Meta::new(Uuid::nil()));
        batch.records.extend(put.iter().map(|&n| (id(n), record(version).into())));
        batch.gone.extend(gone.iter().map(|&n| id(n)));
        encoding::changed(&batch.records, &batch.gone, &[])
    }

    fn versions(view: &View, ids: &[u128]) -> Vec<Option<Option<u64>>> {
        let found = ids.iter().map(|&n| view.get(&id(n)).expect("a sound page"));
        found.map(|found| found.map(|record| record.map(|record| record.version().0))).collect()
    }

    fn listed(view: &View, after: Option<u128>) -> Vec<(UserId, bool)> {
        view.after(after.map(id)).map(|(id, record)| (id, record.is_some())).collect()
    }

    #[test]
    fn a_view_stays_as_of_its_page() {
        let tables = Memtables::default();
        assert_eq!((tables.next_page(), listed(&tables.view(), None)), (1, vec![]));
        tables.add(page(10, &[1, 2], &[])).expect("a page");
        tables.add(page(20, &[2, 3], &[])).expect("a page");
        let [first, second] = [1, 2].map(|upto| tables.view().up_to(upto, None));
        tables.add(page(30, &[], &[2])).expect("a page");
        assert_eq!(versions(&first, &[1, 2, 3]), [Some(Some(10)), Some(Some(10)), None]);
        assert_eq!(versions(&second, &[1, 2, 3]), [Some(Some(10)), Some(Some(20)), Some(Some(20))]);
        assert_eq!(versions(&tables.view(), &[2, 9]), [Some(None), None], "gone, and unknown");
        assert_eq!(
            versions(&tables.view().up_to(0, None), &[1]),
            [None],
            "all of it is in the column family"
        );
        assert_eq!(listed(&first, None), [(id(1), true), (id(2), true)]);
        assert_eq!(listed(&tables.view(), Some(1)), [(id(2), false), (id(3), true)]);

        let mut missing = Memtable::starting_with(4);
        missing.add(page(40, &[1, 4], &[])).expect("a page");
        let ahead = tables.view().up_to(4, Some(missing));
        assert_eq!(versions(&ahead, &[1, 2, 4]), [Some(Some(40)), Some(None), Some(Some(40))]);
        assert_eq!(listed(&ahead, None).len(), 4);
    }

    #[test]
    fn a_full_one_is_flushed_while_the_next_one_fills() {
        let tables = Memtables::default();
        assert!(tables.freeze().is_none());
        let all: Vec<u128> = (1..=FLUSH as u128).collect();
        tables.add(page(1, &all, &[])).expect("a page");
        let (full, pages) = tables.freeze().expect("it is full");
        assert_eq!((pages, read(&full).all().count(), tables.next_page()), (1..=1, FLUSH, 2));
        tables.add(page(2, &all[..5], &[6])).expect("a page");
        assert_eq!((tables.is_stalled(), tables.freeze().is_none()), (false, true));
        let view = tables.view();
        assert_eq!(versions(&view, &[5, 6, 7]), [Some(Some(2)), Some(None), Some(Some(1))]);
        let listed_then: Vec<_> = all.iter().map(|&n| (id(n), n != 6)).collect();
        assert_eq!(listed(&view, None), listed_then);
        tables.add(page(3, &all, &[])).expect("a page");
        assert!(tables.is_stalled());
        tables.flushed();
        assert!(tables.is_active_in(&view));
        assert_eq!(
            versions(&view.up_to(2, None), &[5, 7]),
            [Some(Some(2)), Some(Some(1))],
            "who looks at it keeps it"
        );
        assert_eq!(
            versions(&tables.view().up_to(2, None), &[7]),
            [Some(Some(1))],
            "until another one is full"
        );
        let before = tables.view();
        assert_eq!(tables.freeze().expect("it is full").1, 2..=3);
        assert!(
            !tables.is_active_in(&before),
            "what follows may be in the column family before it is asked for"
        );
        assert_eq!(versions(&tables.view().up_to(2, None), &[5, 7]), [Some(Some(2)), None]);
    }

    #[test]
    fn whoever_is_beyond_all_that_was_flushed_is_nowhere() {
        let tables = Memtables::default();
        let known = |ids: &[u128]| {
            let ids: Vec<_> = ids.iter().map(|&n| id(n)).collect();
            let found = tables.get_many(&ids).expect("a sound page");
            found.into_iter().map(|found| found.map(|record| record.is_some())).collect::<Vec<_>>()
        };
        assert_eq!(known(&[1, 9]), [None, None], "what is in the column family is not known yet");
        tables.last_kept(Some(id(5)));
        tables.add(page(1, &[3, 7], &[])).expect("a page");
        assert_eq!(
            known(&[3, 4, 5, 6, 7, 9]),
            [Some(true), None, None, Some(false), Some(true), Some(false)]
        );
        tables.freeze_any().expect("there is a page");
        tables.flushed();
        assert_eq!(known(&[6, 7, 9]), [None, Some(true), Some(false)], "6 may be there by now");
        tables.add(page(2, &[11], &[])).expect("a page");
        tables.freeze_any().expect("there is a page");
        assert_eq!(known(&[7, 9, 11, 12]), [None, None, Some(true), Some(false)], "7 is there for certain");
    }

    #[test]
    fn a_damaged_page_is_an_error() {
        let mut table = Memtable::starting_with(1);
        let mut damaged = page(1, &[1], &[]);
        damaged.pop();
        assert_eq!(table.add(damaged), Err(DecodeError::Truncated));
    }
}
