//! The memory of what was applied lately, so that an operation that arrives again gets the answer of the
//! first time.
//!
//! It holds accepted operations only. One that was refused changed nothing; decided again, it is answered as
//! of a moment at which it was under way, which is as good.
//!
//! The memory outlives the process. What was accepted here is in the op-log. What was accepted elsewhere and
//! came by replication, with the gateway's tail or with a full copy is written in the batch that applies it,
//! as one *page* of versions ([`Pages`]): 8 bytes for an operation, and one insertion for a batch. More than
//! the version is not needed, since an operation that is sent again is sent whole.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use protocol::{Change, Version};

use crate::store::{Encoded, Snapshot, StoreError};

/// The operations applied last, those of the lowest versions first out.
#[derive(Debug)]
pub struct Recent {
    capacity: usize,
    /// In the order of the versions, in which they come but for a few: so both ends are where all the work
    /// is, and stay in the processor's cache. A sorted map would be twice the size, as one that is filled in
    /// order has nodes that are half full. One that comes late moves those on the shorter side of it, which
    /// takes some 16 µs where all of them are kept.
    known: VecDeque<(Version, Remembered)>,
}

/// What is remembered of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Its entry in the own op-log; `None` where it was accepted by the other copy.
    pub sequence: Option<u64>,
    /// The whole record right after it, in the encoding of the store, which is half the size. `None` where
    /// the operation itself says all of it, the memory was read back, or this copy never was in the state in
    /// which the operation was accepted: it had something newer, or the user as deleted, or got the records
    /// as a whole.
    pub left: Option<Box<[u8]>>,
}

/// What an operation left that has just been merged, with the record as it is `after` that.
pub fn left_by(version: Version, change: &Change, after: &Encoded) -> Option<Box<[u8]>> {
    let deletes = change.alive == Some(false);
    let exact = after.record.version() == version && after.record.is_alive() != deletes;
    let whole = change.name.is_some() && change.email.is_some() && change.group.is_some();
    (exact && !whole).then(|| after.bytes.as_slice().into())
}

/// The pages on disk.
#[derive(Debug, Default)]
pub struct Pages {
    /// Number of the last one; 0 where there was none.
    last: u64,
    /// Those that are there, and how many versions each has.
    kept: VecDeque<(u64, usize)>,
    /// Versions in all of them.
    versions: usize,
}

impl Pages {
    /// Adds a page with so many versions. Returns its number.
    pub fn add(&mut self, versions: usize) -> u64 {
        self.last += 1;
        self.kept.push_back((self.last, versions));
        self.versions += versions;
        self.last
    }

    /// The oldest pages, where more than `capacity` versions are in those behind them. They go when there are
    /// a quarter more than that, since each time leaves a mark in the database.
    pub fn forget(&mut self, capacity: usize) -> Option<RangeInclusive<u64>> {
        if self.versions <= capacity + capacity / 4 {
            return None;
        }
        let mut forgotten = None;
        while let Some(&(page, versions)) = self.kept.front().filter(|(_, n)| self.versions - n >= capacity) {
            self.kept.pop_front();
            self.versions -= versions;
            let first = forgotten.map_or(page, |range: (u64, u64)| range.0);
            forgotten = Some((first, page));
        }
        forgotten.map(|(first, last)| first..=last)
    }
}

/// Reads the memory back: what the op-log holds and what the pages hold, in the order of the versions.
///
/// # Errors
/// If the database cannot be read.
pub fn read(snapshot: &impl Snapshot, capacity: usize) -> Result<(Recent, Pages), StoreError> {
    let (mut known, mut pages) = (Vec::new(), Pages::default());
    let meta = snapshot.meta();
    let start = meta.head.saturating_sub(capacity as u64).max(meta.trimmed);
    for entry in snapshot.log(start) {
        let entry = entry?;
        known.push((entry.version, Some(entry.sequence)));
    }
    for page in snapshot.applied() {
        let (page, versions) = page?;
        pages.last = page.saturating_sub(1);
        pages.add(versions.len());
        known.extend(versions.into_iter().map(|version| (version, None)));
    }
    // The order in which they came is not known any more; what is under way is newer than the rest. Of those
    // that are known in both ways the one in the op-log comes first.
    known.sort_by_key(|(version, sequence)| (*version, sequence.is_none()));
    let mut recent = Recent::new(capacity);
    for (version, sequence) in known {
        recent.remember(version, sequence, None);
    }
    Ok((recent, pages))
}

impl Recent {
    /// Remembers at most `capacity` operations.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, known: VecDeque::new() }
    }

    /// Remembers an operation. Where it is known already, what was remembered first stands. Returns whether
    /// it is news, and is not the oldest of too many.
    pub fn remember(&mut self, version: Version, sequence: Option<u64>, left: Option<Box<[u8]>>) -> bool {
        let Err(mut place) = self.place(version) else { return false };
        if self.known.len() >= self.capacity {
            if place == 0 {
                return false;
            }
            self.known.pop_front();
            place -= 1;
        }
        self.known.insert(place, (version, Remembered { sequence, left }));
        true
    }

    /// Remembers all of it as accepted elsewhere from now on. Returns the versions of what was accepted here.
    pub fn forget_sequences(&mut self) -> Vec<Version> {
        let known = self.known.iter_mut();
        known.filter_map(|(version, known)| known.sequence.take().map(|_| *version)).collect()
    }

    /// All that are remembered, the oldest first.
    pub fn versions(self) -> Vec<Version> {
        self.known.into_iter().map(|(version, _)| version).collect()
    }

    /// What is remembered of that operation.
    pub fn get(&self, version: Version) -> Option<&Remembered> {
        self.place(version).ok().map(|place| &self.known[place].1)
    }

    /// Where that operation is; where it belongs, if it is not known.
    fn place(&self, version: Version) -> Result<usize, usize> {
        match self.known.back() {
            Some((last, _)) if *last < version => Err(self.known.len()),
            _ => self.known.binary_search_by_key(&version, |(known, _)| *known),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_and_the_first_memory_stands() {
        let mut recent = Recent::new(2);
        let left = |byte: u8| Some([byte].as_slice().into());
        assert!(recent.remember(Version(1), Some(1), left(1)));
        assert!(recent.remember(Version(2), None, left(2)));
        assert!(!recent.remember(Version(2), Some(9), left(9)));
        assert_eq!(recent.get(Version(2)), Some(&Remembered { sequence: None, left: left(2) }));
        assert_eq!(recent.get(Version(1)), Some(&Remembered { sequence: Some(1), left: left(1) }));
        recent.remember(Version(3), Some(2), left(3));
        let known = [1, 2, 3].map(|version| recent.get(Version(version)).is_some());
        assert_eq!(known, [false, true, true]);
    }

    #[test]
    fn what_comes_late_gets_its_place_unless_it_is_the_oldest_of_too_many() {
        let mut recent = Recent::new(3);
        let mut remembered = |version| recent.remember(Version(version), Some(version), None);
        assert_eq!([10, 30, 20].map(&mut remembered), [true; 3]);
        assert_eq!([5, 20, 25].map(remembered), [false, false, true]);
        let sequences = [5, 10, 20, 25, 30].map(|version| recent.get(Version(version))?.sequence);
        assert_eq!(sequences, [None, None, Some(20), Some(25), Some(30)]);
        assert_eq!(recent.versions(), [20, 25, 30].map(Version));
        assert!(!Recent::new(0).remember(Version(1), None, None));
    }

    #[test]
    fn pages_go_in_large_steps_and_enough_stay() {
        let mut pages = Pages::default();
        let mut forgotten = 0;
        for page in 1..=40 {
            assert_eq!(pages.add(2), page);
            if let Some(range) = pages.forget(20) {
                assert_eq!(*range.start(), forgotten + 1, "without gaps");
                assert!(range.clone().count() >= 3, "{range:?}");
                forgotten = *range.end();
            }
            let left = 2 * (page - forgotten);
            assert!((20..=25).contains(&left) || page < 10, "{left} are left after page {page}");
        }
        assert!(forgotten > 20);
        pages.add(100);
        assert_eq!(pages.forget(20), Some(forgotten + 1..=40), "a page stays whole");
        assert_eq!(Pages::default().forget(0), None);
    }
}
