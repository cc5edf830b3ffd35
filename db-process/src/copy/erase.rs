//! Erasing from the op-log what the records do not have any more: old values of fields, and the fields of
//! users that were purged.
//!
//! An entry loses a register if the record has it in another version, or if there is no record. Its number,
//! version and user stay, and so does whether the user was created, deleted or purged: an operation that is
//! sent again is known by its version, and gets the answer of the first time.
//!
//! **Why copies stay equal.** Only entries lose something that the other copy has on disk, so it asks for
//! them again only if its disk goes back, and then it is filled by a full copy. The copy remembers, in the
//! same batch, what was on the other's disk ([`super::rollback`]), as with a trim. A register that is not in
//! the record any more never comes back: registers only get newer, and a user is purged when nothing older
//! can come any more.
//!
//! What is current stays in the op-log as well. So a client that reads changes from there misses nothing but
//! values that were replaced since.
//!
//! It has two halves, as the first takes long: [`find`] reads a snapshot, and may run anywhere; what it finds
//! is staged by [`Copy::strip`], which looks once more whether the entries are still there.

use protocol::message::link::Versioned;
use protocol::message::query::EraseQuery;
use protocol::message::replication::LogEntry;
use protocol::mutation::{self, Mutation};
use protocol::{Change, Record, Register, UserId, Version};
use uuid::Uuid;

use super::Copy;
use crate::store::{Meta, Snapshot, Store, StoreError};

/// Finds the entries up to `confirmed` that have something to lose, and passes them on as they should be, at
/// most `at_once` of them. Returns whether there will be more to erase later, even if nothing is written.
///
/// # Errors
/// If the database cannot be read, or what they were passed on to fails.
pub fn find(
    snapshot: &impl Snapshot,
    query: &EraseQuery,
    confirmed: u64,
    at_once: usize,
    mut pass_on: impl FnMut(Vec<LogEntry>) -> Result<(), StoreError>,
) -> Result<bool, StoreError> {
    let Meta { trimmed, head, .. } = snapshot.meta();
    let all = query.alone || mutation::is(Mutation::EraseUnconfirmed);
    let end = if all { head } else { confirmed };
    let (mut found, mut later) = (Vec::new(), false);
    for entry in snapshot.log(trimmed) {
        let mut entry = entry?;
        if !has_fields(&entry.change) {
            continue;
        }
        let meant = entry.version <= query.upto || Some(entry.id) == query.user;
        if !meant || entry.sequence > end {
            later = true;
            continue;
        }
        let record = snapshot.get(&entry.id)?;
        if strip(&mut entry, record.as_ref()) {
            found.push(entry);
            if found.len() == at_once {
                pass_on(std::mem::take(&mut found))?;
            }
        }
    }
    if !found.is_empty() {
        pass_on(found)?;
    }
    Ok(later)
}

/// Whether there is nothing of a user: neither a record, nor a field in the op-log.
///
/// # Errors
/// If the database cannot be read.
pub fn is_gone(snapshot: &impl Snapshot, user: &UserId) -> Result<bool, StoreError> {
    if snapshot.get(user)?.is_some() {
        return Ok(false);
    }
    for entry in snapshot.log(snapshot.meta().trimmed) {
        let LogEntry { id, change, .. } = entry?;
        if id == *user && has_fields(&change) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes from an entry what is not in the record. Returns whether it had any of that.
fn strip(entry: &mut LogEntry, record: Option<&Record>) -> bool {
    let (version, change) = (entry.version, &mut entry.change);
    let keeps = |at: Option<Version>| at == Some(version) && !mutation::is(Mutation::EraseCurrent);
    let at = |of: fn(&Record) -> Version| keeps(record.map(of));
    let request = record.and_then(|record| record.request.as_ref()).map(|Register(at, _)| *at);
    let stripped = Change {
        alive: change.alive,
        name: change.name.take_if(|_| !at(|record| record.name.0)),
        email: change.email.take_if(|_| !at(|record| record.email.0)),
        group: change.group.take_if(|_| !at(|record| record.group.0)),
        request: change.request.take_if(|_| !keeps(request)),
        purge: change.purge,
    };
    has_fields(&stripped)
}

/// Whether it says more than that a user was created, deleted or purged.
pub fn has_fields(change: &Change) -> bool {
    let Change { alive: _, name, email, group, request, purge: _ } = change;
    name.is_some() || email.is_some() || group.is_some() || request.is_some()
}

/// Whether a change has lost all that a client could learn of it: it is not the death of a user, and either
/// sets nothing, or made a user that is not there any more.
///
/// # Errors
/// If the database cannot be read.
pub(super) fn says_nothing(snapshot: &impl Snapshot, write: &Versioned) -> Result<bool, StoreError> {
    let Versioned { id, change, .. } = write;
    if has_fields(change) || change.alive == Some(false) {
        return Ok(false);
    }
    let lives = |record: Option<Record>| record.is_some_and(|record| record.is_alive());
    Ok(change.alive.is_none() || !lives(snapshot.get(id)?))
}

impl<S: Store> Copy<S> {
    /// Stages that entries of the own op-log are as they were [found](find) to be right, as long as they are
    /// still there and the other copy has them, or there is none. Nothing is promised.
    pub fn strip(&mut self, incarnation: Uuid, entries: Vec<LogEntry>, alone: bool) {
        let Meta { incarnation: own, trimmed, head, .. } = self.staged.meta;
        if incarnation != own {
            return;
        }
        let all = alone || mutation::is(Mutation::EraseUnconfirmed);
        let upto = if all { head } else { self.confirmed };
        let there = |entry: &LogEntry| entry.sequence > trimmed && entry.sequence <= upto;
        let before = self.staged.rewritten.len();
        self.staged.rewritten.extend(entries.into_iter().filter(there));
        if self.staged.rewritten.len() > before {
            self.dirty = true;
            self.replaced = true;
        }
    }

    /// Whether anything was replaced or removed since this was asked last: then the files still have it.
    pub fn take_replaced(&mut self) -> bool {
        std::mem::take(&mut self.replaced)
    }
}
