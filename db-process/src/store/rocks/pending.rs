//! Changes of indexes and of the numbers of groups that are on disk, and not yet in the column families where
//! they belong.
//!
//! A new user takes a place in two indexes and adds one to the number of a group: three insertions into
//! memtables, each somewhere else, and each costs as much as that of the record itself. None of them is
//! looked for often. So a batch leaves its changes as one *page* in `meta` instead, where pages follow on
//! each other and cost next to nothing. When [`FOLD`] changes have come together they are put where they
//! belong, all at once, and what changed twice is put once. It is the idea of the buffers of a Bε-tree
//! (Brodal and Fagerberg, 2003), with one buffer. Sorted as they are, the places of an index are a table of
//! RocksDB already, which is taken in as it is ([`tables`](super::tables)), without log, memtable and flush,
//! on a thread of its own.
//!
//! A page is in the same batch as the records that it follows from. The tables are taken in before the batch
//! that drops the pages, and what they hold the pages say as well, so for whoever reads both it makes no
//! difference when that happens. So after every crash, and in every snapshot, the column families together
//! with the pages are what follows from the records. Whoever reads an index lays the pages over it
//! ([`overlaid`]), and whoever asks for a number adds what they say.

use std::collections::{BTreeMap, VecDeque};
use std::iter::Peekable;
use std::ops::RangeInclusive;

use crate::store::{Derived, IndexKey, StoreError};

/// About so many changes ([`Scatter`](super::tables::Scatter)) are folded. Whoever lists a group looks
/// through up to twice as many in memory, which takes a fraction of a millisecond; the database reads them
/// when it is opened.
const FOLD: usize = if cfg!(test) { 8 } else { 32_768 };

/// Where very many come one after the other, so many times as many are: nobody lists that copy, and there are
/// fewer tables to be merged.
const BULK: usize = 2;

/// What the key of a page begins with.
pub(super) const PENDING: &[u8] = b"pending";

/// The key of the number of the last page that was folded.
pub(super) const FOLDED: &[u8] = b"folded";

/// About so many changes are enough for a fold. In bulk one begins when a memtable of the records is frozen:
/// by the time that `meta` is written out without its pages, those of the changes are dropped as well.
pub(super) fn enough(bulk: bool, freezes: bool) -> usize {
    match (bulk, freezes) {
        (false, _) => FOLD,
        (true, true) => FOLD / 2,
        (true, false) => BULK * FOLD,
    }
}

/// Where so many have come together, a writer waits for those before to be folded. At 40 bytes each they take
/// a few MiB, and as much again for those that are being folded.
pub(super) fn most(bulk: bool) -> usize {
    2 * enough(bulk, false)
}

/// The changes of all pages, as the writer knows them.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Number of the last page that was folded.
    folded: u64,
    /// In the order in which they were made.
    index: Vec<(IndexKey, bool)>,
    /// For each page behind that one, where its changes end in `index`.
    ends: VecDeque<usize>,
}

/// What is to be put where it belongs.
#[derive(Debug)]
pub(super) struct Fold {
    /// In the order in which the changes were made.
    pub(super) index: Vec<(IndexKey, bool)>,
    /// The pages that say so.
    pub(super) pages: RangeInclusive<u64>,
}

impl Pending {
    /// As it was left on disk.
    pub(super) fn read(
        folded: u64,
        pages: impl Iterator<Item = Result<Derived, StoreError>>,
    ) -> Result<Self, StoreError> {
        let mut pending = Self { folded, ..Self::default() };
        for page in pages {
            pending.add(&page?);
        }
        Ok(pending)
    }

    /// How many changes there are.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Number of the last page that was folded.
    pub(super) fn last_folded(&self) -> u64 {
        self.folded
    }

    /// The changes of all pages behind `folded` and up to `last`, where that is what is here.
    pub(super) fn between(&self, folded: u64, last: u64) -> Option<&[(IndexKey, bool)]> {
        let pages = last.checked_sub(folded).filter(|_| folded == self.folded)?;
        match pages.checked_sub(1) {
            None => Some(&[]),
            Some(page) => self.ends.get(page as usize).map(|&end| &self.index[..end]),
        }
    }

    /// Number of the page that these changes become; `None` where there are none.
    pub(super) fn page_for(&self, changes: &Derived) -> Option<u64> {
        (!changes.index.is_empty()).then(|| self.last() + 1)
    }

    /// These are the next page.
    pub(super) fn add(&mut self, changes: &Derived) {
        self.index.extend(&changes.index);
        self.ends.push_back(self.index.len());
    }

    /// All of it.
    pub(super) fn fold(&self) -> Fold {
        Fold { index: self.index.clone(), pages: self.folded + 1..=self.last() }
    }

    /// What these pages say is where it belongs.
    pub(super) fn folded(&mut self, pages: &RangeInclusive<u64>) {
        self.folded = *pages.end();
        let end = self.ends.drain(..(pages.end() + 1 - pages.start()) as usize).next_back().unwrap_or(0);
        self.index.drain(..end);
        self.ends.iter_mut().for_each(|later| *later -= end);
    }

    /// Number of the last page.
    fn last(&self) -> u64 {
        self.folded + self.ends.len() as u64
    }
}

/// What is kept, in order, with newer changes laid over it: `None` is what is kept no more. An error comes
/// first, and is the end.
pub(super) fn overlaid<K: Ord + Copy, V>(
    kept: impl Iterator<Item = Result<(K, V), StoreError>>,
    changes: Result<BTreeMap<K, Option<V>>, StoreError>,
) -> impl Iterator<Item = Result<(K, V), StoreError>> {
    let (changes, error) = match changes {
        Ok(changes) => (changes, None),
        Err(error) => (BTreeMap::new(), Some(error)),
    };
    let kept = error.is_none().then_some(kept).into_iter().flatten();
    error.map(Err).into_iter().chain(overlay(kept, changes.into_iter()))
}

/// The same with changes that can be had without an error, in order.
pub(super) fn overlay<K: Ord + Copy, V>(
    kept: impl Iterator<Item = Result<(K, V), StoreError>>,
    changes: impl Iterator<Item = (K, Option<V>)>,
) -> impl Iterator<Item = Result<(K, V), StoreError>> {
    Overlaid { kept: kept.peekable(), changes: changes.peekable() }
}

struct Overlaid<A: Iterator, B: Iterator> {
    kept: Peekable<A>,
    changes: Peekable<B>,
}

impl<K, V, A, B> Iterator for Overlaid<A, B>
where
    K: Ord + Copy,
    A: Iterator<Item = Result<(K, V), StoreError>>,
    B: Iterator<Item = (K, Option<V>)>,
{
    type Item = Result<(K, V), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let kept = match self.kept.peek() {
                Some(Err(_)) => return self.kept.next(),
                Some(Ok((key, _))) => Some(*key),
                None => None,
            };
            let Some((changed, _)) = self.changes.peek() else { return self.kept.next() };
            match kept {
                Some(key) if key < *changed => return self.kept.next(),
                Some(key) if key == *changed => drop(self.kept.next()),
                _ => {}
            }
            if let Some((key, Some(value))) = self.changes.next() {
                return Some(Ok((key, value)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn changes_lie_over_what_is_kept() {
        let kept = [1, 3, 5, 7].map(|key| Ok((key, 'a')));
        let changes = [(0, Some('b')), (1, None), (2, None), (3, Some('c')), (7, None), (9, Some('d'))];
        let seen: Result<Vec<_>, StoreError> = overlaid(kept.into_iter(), Ok(changes.into())).collect();
        assert_eq!(seen, Ok(vec![(0, 'b'), (3, 'c'), (5, 'a'), (9, 'd')]));
        let kept = [Ok((1, 'a')), Err(StoreError::Poisoned), Ok((5, 'a'))];
        let seen: Vec<_> = overlaid(kept.into_iter(), Ok([(3, Some('c'))].into())).take(2).collect();
        assert_eq!(seen, [Ok((1, 'a')), Err(StoreError::Poisoned)]);
        let seen: Vec<_> = overlaid([Ok((1, 'a'))].into_iter(), Err(StoreError::Poisoned)).collect();
        assert_eq!(seen, [Err(StoreError::Poisoned)], "what lies over it is not known");
    }

    #[test]
    fn what_is_folded_goes_and_what_came_since_stays() {
        let mut pending = Pending::default();
        assert_eq!(pending.page_for(&Derived::default()), None);
        for (n, page) in [(4, 1), (3, 2)] {
            let changes = changes(&[(n, true), (9, page == 1)]);
            assert_eq!(pending.page_for(&changes), Some(page));
            pending.add(&changes);
        }
        let fold = pending.fold();
        let index = [(4, true), (9, true), (3, true), (9, false)].map(|(n, taken)| (place(n), taken));
        assert_eq!((fold.index.as_slice(), &fold.pages, pending.len()), (index.as_slice(), &(1..=2), 4));
        pending.add(&changes(&[(4, false)]));
        pending.folded(&fold.pages);
        let Fold { index, pages } = pending.fold();
        assert_eq!((index, pages, pending.len()), (vec![(place(4), false)], 3..=3, 1));
    }

    #[test]
    fn what_is_behind_a_page_is_known_up_to_each_later_one() {
        let mut pending = Pending { folded: 4, ..Pending::default() };
        assert_eq!(pending.between(4, 4), Some([].as_slice()));
        for n in [1, 2] {
            pending.add(&changes(&[(n, true)]));
        }
        assert_eq!(pending.between(4, 4), Some([].as_slice()));
        assert_eq!(pending.between(4, 5), Some([(place(1), true)].as_slice()));
        assert_eq!(pending.between(4, 6), Some([(place(1), true), (place(2), true)].as_slice()));
        assert_eq!(pending.between(4, 7), None, "not written yet, or by somebody else");
        assert_eq!(pending.between(3, 5), None, "folded since");
        pending.folded(&(5..=5));
        assert_eq!(pending.between(4, 6), None);
        assert_eq!(pending.between(5, 6), Some([(place(2), true)].as_slice()));
    }

    fn place(n: i32) -> IndexKey {
        IndexKey::Group(n, Uuid::nil())
    }

    fn changes(index: &[(i32, bool)]) -> Derived {
        Derived { digests: None, index: index.iter().map(|&(n, taken)| (place(n), taken)).collect() }
    }
}
