//! The last entries of the op-log, in memory: a follower that keeps up asks for nothing older, so it costs no
//! search on disk.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use protocol::message::replication::LogEntry;

/// So many entries are remembered: more than can be in flight to a follower. At 150 bytes each they take
/// little memory.
pub const CAPACITY: usize = 4_096;

/// The last entries, without gaps. Those of the last batch that was written are there, or nothing is.
#[derive(Debug, Default)]
pub(super) struct Latest(Mutex<VecDeque<LogEntry>>);

impl Latest {
    /// Adds what was written.
    pub(super) fn add(&self, entries: &[LogEntry]) {
        if entries.is_empty() {
            return;
        }
        let entries = &entries[entries.len().saturating_sub(CAPACITY)..];
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.back().is_some_and(|last| last.sequence + 1 != entries[0].sequence) {
            latest.clear();
        }
        let room = CAPACITY - entries.len();
        let spare = latest.len().saturating_sub(room);
        latest.drain(..spare);
        latest.extend(entries.iter().cloned());
    }

    /// Entries that were written anew are as they are now.
    pub(super) fn rewrite(&self, entries: &[LogEntry]) {
        if entries.is_empty() {
            return;
        }
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(first) = latest.front().map(|entry| entry.sequence) else { return };
        for entry in entries {
            let place = entry.sequence.checked_sub(first).and_then(|place| usize::try_from(place).ok());
            if let Some(known) = place.and_then(|place| latest.get_mut(place)) {
                known.clone_from(entry);
            }
        }
    }

    /// Forgets what was trimmed.
    pub(super) fn trim(&self, upto: u64) {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let trimmed = latest.iter().take_while(|entry| entry.sequence <= upto).count();
        latest.drain(..trimmed);
    }

    /// Entries after that one, at most `limit`; `None` where that is not known here.
    pub(super) fn after(&self, sequence: u64, limit: usize) -> Option<Vec<LogEntry>> {
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, last) = (latest.front()?.sequence, latest.back()?.sequence);
        if !(first - 1..=last).contains(&sequence) {
            return None;
        }
        let skipped = (sequence + 1 - first) as usize;
        Some(latest.iter().skip(skipped).take(limit).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Change, Version};
    use uuid::Uuid;

    use super::*;

    fn entries(sequences: std::ops::RangeInclusive<u64>) -> Vec<LogEntry> {
        let entry = |sequence| LogEntry {
            sequence,
            version: Version(sequence),
            id: Uuid::nil(),
            change: Change { group: Some(1), ..Change::default() },
        };
        sequences.map(entry).collect()
    }

    fn after(latest: &Latest, sequence: u64, limit: usize) -> Option<Vec<u64>> {
        let found = latest.after(sequence, limit)?;
        Some(found.iter().map(|entry| entry.sequence).collect())
    }

    #[test]
    fn the_last_entries_are_known_and_nothing_else() {
        let latest = Latest::default();
        assert_eq!(after(&latest, 0, 9), None, "an empty memory knows nothing");
        latest.add(&entries(5..=8));
        latest.add(&[]);
        latest.add(&entries(9..=9));
        assert_eq!(after(&latest, 3, 9), None, "entry 4 may exist");
        assert_eq!(after(&latest, 4, 3), Some(vec![5, 6, 7]));
        assert_eq!(after(&latest, 8, 9), Some(vec![9]));
        assert_eq!(after(&latest, 9, 9), Some(vec![]), "the head");
        assert_eq!(after(&latest, 10, 9), None, "nothing was written there");
        let end = 9 + CAPACITY as u64;
        latest.add(&entries(10..=end));
        assert_eq!(after(&latest, 8, 1), None);
        assert_eq!(after(&latest, 9, 1), Some(vec![10]));
        latest.add(&entries(end + 1..=end + 2 * CAPACITY as u64));
        assert_eq!(after(&latest, end + CAPACITY as u64, 1), Some(vec![end + CAPACITY as u64 + 1]));
        assert_eq!(latest.0.lock().unwrap().len(), CAPACITY);
        let second = end + CAPACITY as u64 + 2;
        latest.rewrite(&[9, second].map(|sequence| LogEntry {
            change: Change::default(),
            ..entries(sequence..=sequence).remove(0)
        }));
        let found: [LogEntry; 3] = latest.after(second - 2, 3).unwrap().try_into().unwrap();
        assert_eq!(found.map(|entry| entry.change.group), [Some(1), None, Some(1)]);
        latest.trim(end + CAPACITY as u64 + 1);
        assert_eq!(after(&latest, end + CAPACITY as u64, 1), None, "what was trimmed");
        assert_eq!(after(&latest, end + CAPACITY as u64 + 1, 1), Some(vec![end + CAPACITY as u64 + 2]));
    }
}
