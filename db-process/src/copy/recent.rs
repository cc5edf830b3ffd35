//! The memory of what was applied lately, so that an operation that arrives again gets the answer of the first time.
//!
//! It holds accepted operations only. One that was refused changed nothing; decided again, it is answered as of a moment at
//! which it was under way, which is as good.

use std::collections::{HashMap, VecDeque};

use protocol::{Change, Version};

use crate::store::Encoded;

/// The operations applied last, oldest first out.
#[derive(Debug)]
pub struct Recent {
    capacity: usize,
    /// In the order in which they were remembered; the same versions as in `known`.
    order: VecDeque<Version>,
    /// Never iterated, so its order does not matter.
    known: HashMap<Version, Remembered>,
}

/// What is remembered of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Its entry in the own op-log; `None` where it was accepted by the other copy.
    pub sequence: Option<u64>,
    /// What a caller may be shown.
    pub left: Left,
}

/// What an operation left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// The whole record right after it, in the encoding of the store, which is half the size.
    Record(Box<[u8]>),
    /// Only what it set: the memory was read back from the op-log, or this copy was not in the state in which the operation
    /// was accepted: it had something newer, or the user as deleted.
    Change(Box<Change>),
}

impl Left {
    /// What an operation left that has just been merged, with the record as it is `after` that.
    pub fn by(version: Version, change: &Change, after: &Encoded) -> Self {
        let deletes = change.alive == Some(false);
        if after.record.version() == version && after.record.is_alive() != deletes {
            Self::Record(after.bytes.as_slice().into())
        } else {
            Self::Change(Box::new(change.clone()))
        }
    }
}

impl Recent {
    /// Remembers at most `capacity` operations.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, order: VecDeque::new(), known: HashMap::new() }
    }

    /// Remembers an operation. Where it is known already, what was remembered first stands.
    pub fn remember(&mut self, version: Version, sequence: Option<u64>, left: Left) {
        if self.capacity == 0 || self.known.contains_key(&version) {
            return;
        }
        if self.order.len() == self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(version);
        self.known.insert(version, Remembered { sequence, left });
        assert_eq!(self.order.len(), self.known.len(), "each version is remembered once");
    }

    /// What is remembered of that operation.
    pub fn get(&self, version: Version) -> Option<&Remembered> {
        self.known.get(&version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_and_the_first_memory_stands() {
        let mut recent = Recent::new(2);
        let left = |group| Left::Change(Box::new(Change { group: Some(group), ..Change::default() }));
        recent.remember(Version(1), Some(1), left(1));
        recent.remember(Version(2), None, left(2));
        recent.remember(Version(2), Some(9), left(9));
        assert_eq!(recent.get(Version(2)), Some(&Remembered { sequence: None, left: left(2) }));
        assert_eq!(recent.get(Version(1)), Some(&Remembered { sequence: Some(1), left: left(1) }));
        recent.remember(Version(3), Some(2), left(3));
        let known = [1, 2, 3].map(|version| recent.get(Version(version)).is_some());
        assert_eq!(known, [false, true, true]);
    }
}
