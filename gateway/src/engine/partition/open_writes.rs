//! The writes of a partition that are not settled: unanswered, or acknowledged and in the tail.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use protocol::message::link::{Found, Write};
use protocol::{Operation, UserId, Version};

/// Capacity that stays allocated. While the other copy is away there may be hundreds of thousands of users.
const USUAL: usize = 8_192;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct OpenWrites {
    /// Users with a write that the other copy is not known to have. Never iterated.
    unsettled: HashMap<UserId, Unsettled>,
    /// Writes that no leader has answered.
    unanswered: BTreeMap<Version, Unanswered>,
    /// The newest unanswered delete of a user: no answer to a read carries its version. Never iterated.
    deleting: HashMap<UserId, Version>,
}

/// The writes of one user that the other copy is not known to have.
#[derive(Debug, Clone, Copy, Default)]
struct Unsettled {
    unanswered: u32,
    /// How many are in the tail.
    acknowledged: u32,
    /// Op-log entry of the newest one in the tail.
    newest: u64,
}

#[derive(Debug, Clone, Copy)]
struct Unanswered {
    id: UserId,
    /// It was sent to a leader that was lost: the other copy may be the only one that applied it.
    resent: bool,
}

impl OpenWrites {
    pub(super) fn add(&mut self, write: &Write) {
        self.unsettled.entry(write.id).or_default().unanswered += 1;
        self.unanswered.insert(write.version, Unanswered { id: write.id, resent: false });
        if write.operation == Operation::Delete {
            self.deleting.insert(write.id, write.version);
        }
    }

    /// A write was answered, or is given up.
    pub(super) fn answered(&mut self, id: UserId, version: Version) {
        if self.deleting.get(&id) == Some(&version) {
            self.deleting.remove(&id);
        }
        self.unanswered.remove(&version);
    }

    pub(super) fn mark_resent(&mut self, version: Version) {
        if let Some(write) = self.unanswered.get_mut(&version) {
            write.resent = true;
        }
    }

    /// The oldest write that no leader has answered.
    pub(super) fn first_unanswered(&self) -> Option<Version> {
        self.unanswered.keys().next().copied()
    }

    /// The newest unanswered write of the users for which `fits` holds.
    pub(super) fn last_unanswered(&self, fits: impl Fn(&UserId) -> bool) -> Option<Version> {
        self.unanswered.iter().rev().find(|(_, write)| fits(&write.id)).map(|(version, _)| *version)
    }

    /// The unanswered write that an answer of a copy shows, if it shows one that the other copy may lack.
    pub(super) fn shown(&self, id: UserId, found: Option<&Found>, by_leader: bool) -> Option<Version> {
        let version = found.map(|found| found.0).or_else(|| self.deleting.get(&id).copied())?;
        let write = self.unanswered.get(&version)?;
        (by_leader || write.resent).then_some(version)
    }

    /// A write of the user is known to be at the other copy, was not applied, or is given up.
    pub(super) fn settle(&mut self, id: UserId) {
        self.change(id, |writes| writes.unanswered -= 1);
    }

    /// A write of the user was applied as that entry of the op-log, and is in the tail from now on.
    pub(super) fn enters_tail(&mut self, id: UserId, sequence: u64) {
        self.change(id, |writes| {
            writes.unanswered -= 1;
            writes.acknowledged += 1;
            writes.newest = sequence;
        });
    }

    /// A write of the user has left the tail: the other copy has it, or the target covers it.
    pub(super) fn leaves_tail(&mut self, id: UserId) {
        self.change(id, |writes| writes.acknowledged -= 1);
    }

    pub(super) fn is_unsettled(&self, id: &UserId) -> bool {
        self.unsettled.contains_key(id)
    }

    pub(super) fn all_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// Whether the tail has writes of the user beyond that entry.
    pub(super) fn in_tail_beyond(&self, id: &UserId, sequence: u64) -> bool {
        self.unsettled.get(id).is_some_and(|writes| writes.acknowledged > 0 && writes.newest > sequence)
    }

    fn change(&mut self, id: UserId, change: impl FnOnce(&mut Unsettled)) {
        if let Entry::Occupied(mut entry) = self.unsettled.entry(id) {
            let writes = entry.get_mut();
            change(writes);
            if (writes.unanswered, writes.acknowledged) == (0, 0) {
                entry.remove();
                if self.unsettled.is_empty() && self.unsettled.capacity() > USUAL {
                    self.unsettled.shrink_to(USUAL);
                }
            }
        }
    }
}
