//! Changes of indexes and group counts that are on disk, and not yet in the column families where they
//! belong.
//!
//! A new user takes a place in two indexes and adds one to the count of a group: three insertions into
//! memtables, each somewhere else, and each as expensive as that of the record itself. They are read rarely.
//! So a batch leaves its changes as one *page* in `meta`. Pages follow on each other and cost next to
//! nothing. When [`FLUSH`] changes have come together, they are put where they belong, all at once, and what
//! changed twice is put once. It is the idea of the buffers of a Bε-tree (Brodal and Fagerberg, 2003), with
//! one buffer. Sorted, the places of an index are a table of RocksDB already, which is ingested without log,
//! memtable and flush ([`index_flush`](super::index_flush)).
//!
//! A page is in the same batch as the records that it follows from. The tables are ingested before the batch
//! that drops the pages, and say what the pages say. So after every crash, and in every snapshot, the column
//! families together with the pages are what follows from the records. A reader lays the pages over what is
//! stored ([`overlay`]).

use std::collections::{BTreeMap, VecDeque};
use std::iter;
use std::ops::RangeInclusive;

use crate::store::{Derived, IndexKey, StoreError};

/// A place that is taken (true) or left.
pub(super) type PlaceChange = (IndexKey, bool);

/// About so many changes are flushed. A reader of an index looks through up to twice as many in memory, which
/// takes a fraction of a millisecond; the database reads them when it is opened.
const FLUSH: usize = if cfg!(test) { 8 } else { 32_768 };

/// So many changes are enough for a flush. In bulk twice as many are: there are fewer tables to be merged,
/// and no one lists that copy.
pub(super) fn enough(bulk: bool) -> usize {
    if bulk { 2 * FLUSH } else { FLUSH }
}

/// With so many, a writer waits for those before to be flushed. At 40 bytes each they take a few MiB, and as
/// much again for those that are being flushed.
pub(super) fn most(bulk: bool) -> usize {
    2 * enough(bulk)
}

/// The changes of all pages, as the writer knows them.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// The last page that was flushed.
    flushed_upto: u64,
    /// In the order in which they were made.
    index: Vec<PlaceChange>,
    /// For each page after that one, where its changes end in `index`.
    ends: VecDeque<usize>,
}

impl Pending {
    /// As it is on disk.
    pub(super) fn read(
        flushed_upto: u64,
        pages: impl Iterator<Item = Result<Derived, StoreError>>,
    ) -> Result<Self, StoreError> {
        let mut pending = Self { flushed_upto, ..Self::default() };
        for page in pages {
            pending.add(&page?);
        }
        Ok(pending)
    }

    /// All changes, in the order in which they were made.
    pub(super) fn changes(&self) -> &[PlaceChange] {
        &self.index
    }

    /// The pages that they are on.
    pub(super) fn pages(&self) -> RangeInclusive<u64> {
        self.flushed_upto + 1..=self.last()
    }

    /// The changes of all pages after `flushed_upto` and up to `last`, where that is what is here.
    pub(super) fn between(&self, flushed_upto: u64, last: u64) -> Option<&[PlaceChange]> {
        let pages = last.checked_sub(flushed_upto).filter(|_| flushed_upto == self.flushed_upto)?;
        match pages.checked_sub(1) {
            None => Some(&[]),
            Some(page) => self.ends.get(page as usize).map(|&end| &self.index[..end]),
        }
    }

    /// The page that these changes become; `None` where there are none.
    pub(super) fn page_for(&self, changes: &Derived) -> Option<u64> {
        (!changes.index.is_empty()).then(|| self.last() + 1)
    }

    /// These are the next page.
    pub(super) fn add(&mut self, changes: &Derived) {
        self.index.extend(&changes.index);
        self.ends.push_back(self.index.len());
    }

    /// What these pages say is where it belongs.
    pub(super) fn flushed(&mut self, pages: &RangeInclusive<u64>) {
        self.flushed_upto = *pages.end();
        let end = self.ends.drain(..(pages.end() + 1 - pages.start()) as usize).next_back().unwrap_or(0);
        self.index.drain(..end);
        self.ends.iter_mut().for_each(|later| *later -= end);
    }

    fn last(&self) -> u64 {
        self.flushed_upto + self.ends.len() as u64
    }
}

/// How many users more or less each group has by these changes.
pub(super) fn counts(changes: &[PlaceChange]) -> BTreeMap<i32, i64> {
    let mut groups = BTreeMap::new();
    for (key, taken) in changes {
        if let IndexKey::Group(group, _) = key {
            *groups.entry(*group).or_default() += if *taken { 1 } else { -1 };
        }
    }
    groups
}

/// What is stored, in order, with newer changes laid over it: `None` is removed. An error of the changes
/// comes first, and is the end.
pub(super) fn overlay<K: Ord + Copy, V>(
    stored: impl Iterator<Item = Result<(K, V), StoreError>>,
    changes: Result<BTreeMap<K, Option<V>>, StoreError>,
) -> impl Iterator<Item = Result<(K, V), StoreError>> {
    let (changes, error) = changes.map_or_else(|error| (BTreeMap::new(), Some(error)), |it| (it, None));
    let mut stored = error.is_none().then_some(stored).into_iter().flatten().peekable();
    let mut changes = changes.into_iter().peekable();
    let merged = iter::from_fn(move || {
        loop {
            let Some((changed, _)) = changes.peek() else { return stored.next() };
            match stored.peek() {
                Some(Err(_)) => return stored.next(),
                Some(Ok((key, _))) if key < changed => return stored.next(),
                Some(Ok((key, _))) if key == changed => drop(stored.next()),
                _ => {}
            }
            if let Some((key, Some(value))) = changes.next() {
                return Some(Ok((key, value)));
            }
        }
    });
    error.map(Err).into_iter().chain(merged)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn changes_lie_over_what_is_stored() {
        let stored = [1, 3, 5, 7].map(|key| Ok((key, 'a')));
        let changes = [(0, Some('b')), (1, None), (2, None), (3, Some('c')), (7, None), (9, Some('d'))];
        let seen: Result<Vec<_>, StoreError> = overlay(stored.into_iter(), Ok(changes.into())).collect();
        assert_eq!(seen, Ok(vec![(0, 'b'), (3, 'c'), (5, 'a'), (9, 'd')]));
        let stored = [Ok((1, 'a')), Err(StoreError::Poisoned), Ok((5, 'a'))];
        let seen: Vec<_> = overlay(stored.into_iter(), Ok([(3, Some('c'))].into())).take(2).collect();
        assert_eq!(seen, [Ok((1, 'a')), Err(StoreError::Poisoned)]);
        let seen: Vec<_> = overlay([Ok((1, 'a'))].into_iter(), Err(StoreError::Poisoned)).collect();
        assert_eq!(seen, [Err(StoreError::Poisoned)], "the changes are not known");
    }

    #[test]
    fn what_is_flushed_goes_and_what_came_since_stays() {
        let mut pending = Pending::default();
        assert_eq!(pending.page_for(&Derived::default()), None);
        for (n, page) in [(4, 1), (3, 2)] {
            let changes = changes(&[(n, true), (9, page == 1)]);
            assert_eq!(pending.page_for(&changes), Some(page));
            pending.add(&changes);
        }
        let index = [(4, true), (9, true), (3, true), (9, false)].map(|(n, taken)| (place(n), taken));
        assert_eq!((pending.changes(), pending.pages()), (index.as_slice(), 1..=2));
        pending.add(&changes(&[(4, false)]));
        pending.flushed(&(1..=2));
        assert_eq!((pending.changes(), pending.pages()), ([(place(4), false)].as_slice(), 3..=3));
    }

    #[test]
    fn what_is_behind_a_page_is_known_up_to_each_later_one() {
        let mut pending = Pending { flushed_upto: 4, ..Pending::default() };
        assert_eq!(pending.between(4, 4), Some([].as_slice()));
        for n in [1, 2] {
            pending.add(&changes(&[(n, true)]));
        }
        assert_eq!(pending.between(4, 4), Some([].as_slice()));
        assert_eq!(pending.between(4, 5), Some([(place(1), true)].as_slice()));
        assert_eq!(pending.between(4, 6), Some([(place(1), true), (place(2), true)].as_slice()));
        assert_eq!(pending.between(4, 7), None, "not written yet, or by another program");
        assert_eq!(pending.between(3, 5), None, "flushed since");
        pending.flushed(&(5..=5));
        assert_eq!(pending.between(4, 6), None);
        assert_eq!(pending.between(5, 6), Some([(place(2), true)].as_slice()));
    }

    #[test]
    fn the_last_change_of_a_group_counts() {
        let changes = [(1, true), (2, true), (2, false), (3, false)].map(|(n, taken)| (place(n), taken));
        assert_eq!(counts(&changes), BTreeMap::from([(1, 1), (2, 0), (3, -1)]));
    }

    fn place(n: i32) -> IndexKey {
        IndexKey::Group(n, Uuid::nil())
    }

    fn changes(index: &[(i32, bool)]) -> Derived {
        Derived { digests: None, index: index.iter().map(|&(n, taken)| (place(n), taken)).collect() }
    }
}
