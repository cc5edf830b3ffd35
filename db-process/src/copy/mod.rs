//! A copy: one of the two databases that hold a partition, and the rules by which it changes.
//!
//! Three kinds of things change a copy:
//!
//! * **Writes** ([`Copy::write`]), where the copy leads: each is *decided* against the records as they are
//!   now, the earlier writes of the same batch included. Does the user exist? Does `If-Match` hold? What is
//!   allowed becomes records and, in the same step, entries of the copy's own op-log.
//! * **The other copy's op-log** ([`Copy::apply`]), where it follows: what was decided there is merged here,
//!   and the position moves in the same step. What arrives twice is skipped; a gap is refused, since what
//!   lies in it would be lost.
//! * **States and changes from elsewhere** ([`Copy::merge`], [`Copy::merge_chunk`]): the tail that the
//!   gateway kept for a copy that lacks it, or a full copy of the other's records.
//!
//! All three are merges of registers (see [`protocol::record`]), so they may come in any order and any number
//! of times, and two copies that have exchanged everything are equal. They only gather in memory at first:
//! [`Copy::commit`] writes all that has gathered as one batch, with one fsync if an answer promises that it
//! lasts. Until then no answer may leave. That is the whole of group commit: the worker hands over
//! everything that is waiting, then commits once.
//!
//! An operation may arrive twice: its answer was lost, the leader changed, a link broke. The version is the
//! identity of an operation, so a copy remembers the versions that it applied lately, whether they were
//! decided here or replicated ([`recent`]), also after a restart, and answers a repetition from memory. Where
//! the memory is gone, the record tells: a register with this very version was written by this very
//! operation. And an operation that is older than the birth or the death of the user as the copy knows it is
//! answered as of just before that, a moment at which it was already under way.
//!
//! The **op-log** numbers the writes decided here from 1 on, without gaps. The other copy confirms what it
//! has on disk, and that is trimmed, except for the last entries: they are the memory after a restart. It is
//! bounded: past the bound the oldest entries go, and a copy that still wanted them must be copied in full.
//!
//! A copy is **complete** once it has held its whole partition: from the forming of the ring on, or since it
//! was filled by a full copy. It remembers which copy it was filled from ([`Origin`](crate::store::Origin)),
//! for that one can then follow it without a full copy in return.
//!
//! Beside its records a copy keeps what follows from them: digests, counts and indexes ([`mod@derive`]), in
//! the same batch. And it keeps what its op-log can vouch for: the `floor`, at or below which entries are
//! gone, and the highest `foreign` version, which came from elsewhere (see
//! [`protocol::message::query::ChangesAnswer`]).
//!
//! What a copy does not do: it does not know who leads, whether the other copy is there, or what time it is.
//! It opens no socket, starts no thread and never retries. It checks no field of a user: the gateway has done
//! that. It purges a tombstone by order, and does not know when that is safe. After a [`StoreError`]
//! it must not be used again.
//!
//! * [`decide`]: what a write comes to.
//! * [`mod@derive`]: what follows from the records, stored with each change of one.
//! * [`audit`]: the same from all records, and what differs.
//! * [`asking`]: questions about a whole copy.
//! * [`document`]: the user as a caller gets it.
//! * [`erase`]: what the records do not have any more goes from the op-log.
//! * [`follow`]: following the other copy and being followed.
//! * [`recent`]: the memory of what was applied lately.
//! * [`rollback`]: a copy whose disk has lost something.

use std::mem;

use protocol::message::link::{CopyReport, FlushPoint, Versioned};
use protocol::mutation::{self, Mutation};
use protocol::{Change, Record, UserId, Version};

use crate::store::{Batch, Digests, Durability, Encoded, Meta, Snapshot, Store, StoreError};

pub mod asking;
pub mod audit;
pub mod decide;
mod derive;
pub mod document;
pub mod erase;
pub mod follow;
pub mod recent;
pub mod rollback;
#[cfg(test)]
mod tests;

pub use follow::{FollowError, FollowStart, Gap};
use recent::{Pages, Recent};

/// How much a copy keeps beyond its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Operations remembered, and op-log entries kept for that even though the other copy has them: at least
    /// as many as can be in flight.
    pub recent: usize,
    /// The op-log never grows past this many entries.
    pub log: u64,
    /// The op-log is trimmed by at least so many entries at once, since each trim leaves a mark in the
    /// database.
    pub trim: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { recent: 65_536, log: 1_000_000, trim: 4_096 }
    }
}

/// One copy of a partition. See the [module](self) for the rules.
#[derive(Debug)]
pub struct Copy<S> {
    store: S,
    limits: Limits,
    /// What was applied lately, staged or committed.
    recent: Recent,
    /// Of that, what was accepted elsewhere and is not committed.
    applied: Vec<Version>,
    /// And what is.
    pages: Pages,
    /// Changes that are decided and not yet committed; its `meta` is the state after them.
    staged: Batch,
    /// Of all records, with those that are staged.
    digests: Box<Digests>,
    /// Whether `staged` differs from what the store has.
    dirty: bool,
    /// Whether an answer promises that what is staged, and all before it, will be on disk.
    promised: bool,
    /// Whether the store holds batches that were committed without a sync.
    unsynced: bool,
    /// The part of the position's sequence that is on disk.
    durable: u64,
    /// LSN of the last commit that is on disk.
    flushed: u64,
    /// The other copy has the own op-log on disk up to here.
    confirmed: u64,
    /// Everything is being copied from the other copy once more.
    recopies: bool,
    /// Something was replaced or removed, also by an earlier process as far as is known.
    replaced: bool,
}

impl<S: Store> Copy<S> {
    /// Takes the database over. What it holds must be on disk.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn open(store: S, limits: Limits) -> Result<Self, StoreError> {
        let meta = store.meta()?;
        if meta.trimmed > meta.head {
            let (trimmed, head) = (meta.trimmed, meta.head);
            return Err(StoreError::Inconsistent(format!(
                "the op-log is trimmed to {trimmed} and ends at {head}"
            )));
        }
        let snapshot = store.snapshot()?;
        let (recent, pages) = recent::read(&snapshot, limits.recent)?;
        let digests = snapshot.digests()?;
        drop(snapshot);
        Ok(Self {
            store,
            limits,
            recent,
            applied: Vec::new(),
            pages,
            digests,
            staged: Batch::new(meta),
            dirty: false,
            promised: false,
            unsynced: false,
            durable: position_sequence(&meta),
            flushed: meta.lsn,
            confirmed: 0,
            recopies: false,
            replaced: true,
        })
    }

    /// The state, with what is staged.
    pub fn meta(&self) -> &Meta {
        &self.staged.meta
    }

    /// The part of the position's sequence that is on disk: what may be confirmed to the other copy for
    /// trimming.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// LSN of the last commit that is on disk.
    pub fn flushed(&self) -> u64 {
        self.flushed
    }

    /// Whether a power cut could take back something that was committed.
    pub fn unsynced(&self) -> bool {
        self.unsynced
    }

    /// The database.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Gives the database back; what is staged is gone.
    pub fn into_store(self) -> S {
        self.store
    }

    /// Merges changes that another copy accepted and this one may lack. They will be on disk after the next
    /// commit. Where there are none, that commit writes and syncs all the same: so the gateway finds out
    /// whether the disk does that, and how fast. `other` is what is known of that copy's disk.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn merge(&mut self, changes: Vec<Versioned>, other: Option<FlushPoint>) -> Result<(), StoreError> {
        self.dirty |= changes.is_empty();
        if let Some(other) = other {
            FlushPoint::advance(&mut self.staged.meta.other, other);
            self.dirty = true;
        }
        for Versioned { version, id, change } in changes {
            let before = self.record(&id)?;
            self.put_change(id, before, version, &change, None)?;
        }
        self.promised = true;
        Ok(())
    }

    /// Everything is copied from the other copy once more, from now on or no more. Meanwhile nothing is
    /// purged: what is on its way may be older.
    pub fn recopy(&mut self, recopies: bool) {
        self.recopies = recopies;
    }

    /// What is staged until the next commit is some of very many that come one after the other.
    pub fn in_bulk(&mut self) {
        self.staged.bulk = true;
    }

    /// The copy may count as complete as it is: the ring is being formed.
    pub fn count_as_complete(&mut self) {
        if !self.staged.meta.complete {
            self.staged.meta.complete = true;
            self.dirty = true;
            self.promised = true;
        }
    }

    /// The other copy has the op-log on disk up to here, so that it may go. What goes, goes with a later
    /// commit, and with it stays what the other copy had on its disk then.
    pub fn confirm(&mut self, upto: u64, other: Option<FlushPoint>) {
        self.confirmed = self.confirmed.max(upto.min(self.staged.meta.head));
        if let Some(other) = other {
            FlushPoint::advance(&mut self.staged.meta.other, other);
        }
    }

    /// Writes everything staged as one batch, and syncs if that was promised. Afterwards answers may
    /// leave.
    ///
    /// # Errors
    /// If the database fails. The copy must not be used again then, and no answer may leave.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        self.stage_trim()?;
        self.stage_applied();
        let sync = mem::take(&mut self.promised);
        if mutation::is(Mutation::PositionApart) && self.dirty && self.staged.log.is_empty() {
            self.store.commit(&Batch::new(self.staged.meta), Durability::Unsynced)?;
        }
        if mem::take(&mut self.dirty) {
            self.staged.meta.lsn += 1;
            let lasts = sync && !mutation::is(Mutation::AnswerBeforeSync);
            let durability = if lasts { Durability::Synced } else { Durability::Unsynced };
            if !self.staged.records.is_empty() || !self.staged.gone.is_empty() {
                self.staged.derived.digests = Some(self.digests.clone());
            }
            self.store.commit(&self.staged, durability)?;
            self.staged = Batch::new(self.staged.meta);
            self.unsynced = true;
        } else if sync && self.unsynced {
            self.store.sync()?;
        }
        if sync {
            self.synced();
        }
        Ok(())
    }

    /// Brings to disk what was committed without a sync.
    ///
    /// # Errors
    /// As for [`Copy::commit`].
    pub fn sync(&mut self) -> Result<(), StoreError> {
        if self.unsynced {
            self.store.sync()?;
            // What is staged is not in the store yet, so the position on disk is the committed one.
            assert!(!self.dirty, "a sync comes after a commit");
            self.synced();
        }
        Ok(())
    }

    fn synced(&mut self) {
        self.unsynced = false;
        self.durable = position_sequence(&self.staged.meta);
        self.flushed = self.staged.meta.lsn;
    }

    /// Puts what was applied onto a page, and lets go of the oldest pages.
    fn stage_applied(&mut self) {
        if !self.applied.is_empty() {
            let versions = mem::take(&mut self.applied);
            self.staged.applied = Some((self.pages.add(versions.len()), versions));
            self.staged.forget = self.pages.forget(self.limits.recent);
            self.dirty = true;
        }
    }

    /// Remembers an operation that was accepted elsewhere.
    fn remember_applied(&mut self, version: Version, left: Option<Box<[u8]>>) {
        if self.recent.remember(version, None, left) {
            self.applied.push(version);
        }
    }

    /// Lets go of the oldest op-log entries, where enough of them are confirmed or there are too many.
    fn stage_trim(&mut self) -> Result<(), StoreError> {
        let Meta { head, trimmed, .. } = self.staged.meta;
        let Limits { recent, log, trim, .. } = self.limits;
        let spare = self.confirmed.min(head.saturating_sub(recent as u64));
        let upto = if head - trimmed > log {
            (head - log).max((trimmed + trim).min(head))
        } else if spare >= trimmed + trim {
            spare
        } else {
            return Ok(());
        };
        assert!(
            trimmed < upto && upto <= head,
            "a trim from {trimmed} to {upto} of an op-log that ends at {head}"
        );
        let floor = self.highest_upto(upto)?;
        self.staged.trim = Some(trimmed + 1..=upto);
        self.staged.meta.trimmed = upto;
        self.staged.meta.floor = self.staged.meta.floor.max(floor);
        self.dirty = true;
        self.replaced = true;
        Ok(())
    }

    /// No entry of the op-log up to this one, which is still there, has a higher version.
    fn highest_upto(&self, sequence: u64) -> Result<Version, StoreError> {
        let meta = &self.staged.meta;
        match meta.late {
            Some(late) if sequence <= late.sequence => return Ok(late.top),
            // Behind the last late one versions rise.
            _ => {}
        }
        if let Some(staged) = self.staged.log.iter().find(|entry| entry.sequence == sequence) {
            return Ok(staged.version);
        }
        let entry = self.store.log_after(sequence - 1, 1)?.and_then(|entries| entries.into_iter().next());
        let entry =
            entry.ok_or_else(|| StoreError::Inconsistent(format!("op-log entry {sequence} is missing")))?;
        Ok(entry.version)
    }

    /// The record as it is with everything staged, where the store has it as `stored`.
    fn with_staged(&self, id: &UserId, stored: Option<Record>) -> Option<Record> {
        match self.staged.records.get(id) {
            Some(staged) => Some(staged.record.clone()),
            None if self.staged.gone.contains(id) => None,
            None => stored,
        }
    }

    /// The record as it is with everything staged.
    fn record(&self, id: &UserId) -> Result<Option<Record>, StoreError> {
        let staged = self.staged.records.contains_key(id) || self.staged.gone.contains(id);
        Ok(self.with_staged(id, if staged { None } else { self.store.get(id)? }))
    }

    /// Stages the state of a record that follows on `before`, and what follows from that.
    fn put(&mut self, id: UserId, before: Option<&Record>, after: Encoded) -> Result<(), StoreError> {
        let (was, version) = (before.map(Record::version), after.record.version());
        assert!(was <= Some(version), "the version of {id} fell from {was:?} to {version}");
        self.derive(id, before, Some(&after))?;
        self.staged.meta.version = self.staged.meta.version.max(version);
        self.staged.gone.remove(&id);
        self.staged.records.insert(id, after);
        self.dirty = true;
        self.replaced |= before.is_some();
        Ok(())
    }

    /// Stages that nothing is known any more of a user.
    fn remove(&mut self, id: UserId, before: &Record) -> Result<(), StoreError> {
        self.derive(id, Some(before), None)?;
        self.staged.records.remove(&id);
        self.staged.gone.insert(id);
        self.dirty = true;
        self.replaced = true;
        Ok(())
    }

    /// Remembers that something of that version did not come by the own op-log.
    fn came_from_elsewhere(&mut self, version: Version) {
        if version > self.staged.meta.foreign {
            self.staged.meta.foreign = version;
            self.dirty = true;
        }
    }

    /// Stages one accepted operation, decided here or elsewhere, and remembers it. `before` is the record as
    /// it is with everything staged.
    fn put_change(
        &mut self,
        id: UserId,
        before: Option<Record>,
        version: Version,
        change: &Change,
        sequence: Option<u64>,
    ) -> Result<(), StoreError> {
        let mut record = before.clone();
        let changed = record.as_mut().is_none_or(|record| record.apply(version, change));
        let record = record.unwrap_or_else(|| Record::from_change(version, change));
        let after = Encoded::from(record);
        if sequence.is_none() && self.recent.get(version).is_none_or(|known| known.sequence.is_none()) {
            self.came_from_elsewhere(version);
        }
        let left = recent::left_by(version, change, &after);
        match sequence {
            None => self.remember_applied(version, left),
            Some(_) => drop(self.recent.remember(version, sequence, left)),
        }
        match before {
            _ if !changed => {}
            Some(before) if after.record.is_nothing() => self.remove(id, &before)?,
            None if after.record.is_nothing() => {}
            before => self.put(id, before.as_ref(), after)?,
        }
        if change.purge.is_some() {
            // No record tells of it, and no version is given twice.
            self.staged.meta.version = self.staged.meta.version.max(version);
            self.dirty = true;
        }
        Ok(())
    }
}

/// How far the other copy's op-log is applied; 0 where it was never followed.
fn position_sequence(meta: &Meta) -> u64 {
    meta.position.map_or(0, |position| position.sequence)
}

/// What the process reports of a copy in that state, of which the commits up to `flushed` are on disk.
pub fn report(meta: &Meta, flushed: u64) -> CopyReport {
    let Meta { incarnation, complete, head, position, version, other, rollback, .. } = *meta;
    let complete = complete && (rollback.is_none() || mutation::is(Mutation::RollbackServes));
    CopyReport { incarnation, complete, head, position, version, flushed, other, rollback }
}
