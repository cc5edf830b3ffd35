//! Changes of indexes and of the numbers of groups that are on disk, and not yet in the column families where they belong.
//!
//! A new user takes a place in two indexes and adds one to the number of a group: three insertions into memtables, each
//! somewhere else, and each costs as much as that of the record itself. So a batch leaves its changes as one *page* in `meta`
//! instead, where pages follow on each other and cost next to nothing. When [`FOLD`] changes have come together they are put
//! where they belong, all at once and in order, which takes a fraction of the time for each; what changed twice is put once. It
//! is the idea of the buffers of a Bε-tree (Brodal and Fagerberg, 2003), with one buffer.
//!
//! A page is in the same batch as the records that it follows from, and pages go in the batch that folds them. So after every crash, and
//! in every snapshot, the column families together with the pages are what follows from the records. Whoever reads an index
//! lays the pages over it ([`overlaid`]); a number is looked up in memory first ([`Pending::users`]).

use std::collections::{BTreeMap, HashMap};
use std::iter::Peekable;
use std::ops::RangeInclusive;

use crate::store::{Derived, IndexKey, StoreError};

/// So many changes are folded. Whoever lists a group reads up to as many, which takes a fraction of a millisecond; so does the
/// database, when it is opened.
pub(super) const FOLD: usize = if cfg!(test) { 8 } else { 2_048 };

/// What the key of a page begins with.
pub(super) const PENDING: &[u8] = b"pending";

/// The key of the number of the last page that was folded.
pub(super) const FOLDED: &[u8] = b"folded";

/// The changes of all pages, as the writer knows them.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Number of the last page that was folded.
    folded: u64,
    /// Number of the last page.
    last: u64,
    /// In the order in which they were made.
    index: Vec<(IndexKey, bool)>,
    /// The newest number of each group that has one here.
    groups: HashMap<i32, u64>,
}

/// What is to be written with a batch.
pub(super) enum Step {
    /// Nothing has changed.
    Nothing,
    /// The changes of the batch, as the page of that number.
    Page(u64),
    /// All changes, and that all pages are gone.
    Fold {
        /// In order, one for each place.
        index: Vec<(IndexKey, bool)>,
        /// In order.
        groups: Vec<(i32, u64)>,
        /// The pages that are there.
        pages: RangeInclusive<u64>,
    },
}

impl Pending {
    /// As it was left on disk.
    pub(super) fn read(
        folded: u64,
        pages: impl Iterator<Item = Result<(u64, Derived), StoreError>>,
    ) -> Result<Self, StoreError> {
        let mut pending = Self { folded, last: folded, ..Self::default() };
        for page in pages {
            let (number, changes) = page?;
            pending.last = number;
            pending.add(&changes);
        }
        Ok(pending)
    }

    /// The number of live users of a group, where it is here.
    pub(super) fn users(&self, group: i32) -> Option<u64> {
        self.groups.get(&group).copied()
    }

    /// What has to be written with these changes.
    pub(super) fn step(&self, changes: &Derived) -> Step {
        let count = changes.index.len() + changes.groups.len();
        if count == 0 {
            return Step::Nothing;
        }
        if self.index.len() + self.groups.len() + count < FOLD {
            return Step::Page(self.last + 1);
        }
        let mut index = [self.index.as_slice(), &changes.index].concat();
        // Stable, so that of several changes of a place the last one stays the last.
        index.sort_by_key(|(key, _)| *key);
        index.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                earlier.1 = later.1;
            }
            same
        });
        let mut groups: BTreeMap<i32, u64> =
            self.groups.iter().map(|(&group, &users)| (group, users)).collect();
        groups.extend(&changes.groups);
        Step::Fold { index, groups: groups.into_iter().collect(), pages: self.folded + 1..=self.last }
    }

    /// That was written.
    pub(super) fn stepped(&mut self, step: &Step, changes: &Derived) {
        match step {
            Step::Nothing => {}
            Step::Page(number) => {
                self.last = *number;
                self.add(changes);
            }
            Step::Fold { pages, .. } => {
                self.folded = *pages.end();
                self.index.clear();
                self.groups.clear();
            }
        }
    }

    fn add(&mut self, changes: &Derived) {
        self.index.extend(&changes.index);
        self.groups.extend(&changes.groups);
    }
}

/// What is kept, in order, with newer changes laid over it: `None` is what is kept no more. An error comes first, and is the
/// end.
pub(super) fn overlaid<K: Ord + Copy, V>(
    kept: impl Iterator<Item = Result<(K, V), StoreError>>,
    changes: Result<BTreeMap<K, Option<V>>, StoreError>,
) -> impl Iterator<Item = Result<(K, V), StoreError>> {
    let (changes, error) = match changes {
        Ok(changes) => (changes, None),
        Err(error) => (BTreeMap::new(), Some(error)),
    };
    let kept = error.is_none().then_some(kept).into_iter().flatten();
    let overlaid = Overlaid { kept: kept.peekable(), changes: changes.into_iter().peekable() };
    error.map(Err).into_iter().chain(overlaid)
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
    fn a_fold_has_the_last_change_of_each_place() {
        let place = |n| IndexKey::Group(n, Uuid::nil());
        let changes = |index: &[(i32, bool)], groups: &[(i32, u64)]| Derived {
            digests: None,
            groups: groups.iter().copied().collect(),
            index: index.iter().map(|&(n, taken)| (place(n), taken)).collect(),
        };
        let mut pending = Pending::default();
        assert!(matches!(pending.step(&Derived::default()), Step::Nothing));
        for (n, page) in [(4, 1), (3, 2)] {
            let changes = changes(&[(n, true), (9, page == 1)], &[(n, 1)]);
            let step = pending.step(&changes);
            assert!(matches!(step, Step::Page(number) if number == page));
            pending.stepped(&step, &changes);
        }
        assert_eq!((pending.users(4), pending.users(5)), (Some(1), None));
        let changes = changes(&[(4, false), (1, true)], &[(4, 0)]);
        let step = pending.step(&changes);
        let Step::Fold { index, groups, pages } = &step else { panic!("there are nine changes") };
        assert_eq!(
            *index,
            [(1, true), (3, true), (4, false), (9, false)].map(|(n, taken)| (place(n), taken))
        );
        assert_eq!((groups.as_slice(), pages), ([(3, 1), (4, 0)].as_slice(), &(1..=2)));
        pending.stepped(&step, &changes);
        assert_eq!((pending.users(4), pending.folded, pending.last), (None, 2, 2));
    }
}
