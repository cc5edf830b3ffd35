//! The rules of a copy at work: what goes into one round, when it has to be on disk, and what leaves after
//! it.
//!
//! A round stages every job that is queued, commits once, and then completes the jobs. While one round waits
//! for the disk the next one gathers, so the batches grow by themselves as the load does, without a timer. A
//! round whose jobs do not have to last, such as one with replicated entries alone, is committed without an
//! fsync. That follows within [`SYNC_WITHIN`], or with the next round that needs one.
//!
//! [`Rounds`] has no thread and no clock, and works on any [`Store`]. [`super::thread`] drives it.

use std::mem;
use std::thread::yield_now;
use std::time::{Duration, Instant};

use protocol::Version;
use protocol::message::MAX_BATCH;
use protocol::message::link::{CopyReport, FlushPoint, Role, Rollback, Versioned, Write, WriteAnswer};
use protocol::message::replication::{CopyChunk, LogBatch, LogEntry};
use protocol::mutation::{self, Mutation};
use uuid::Uuid;

use crate::copy::{Copy, FollowError, Limits, report, rollback};
use crate::store::{Meta, Store, StoreError};

/// What was replicated is on disk after this time.
const SYNC_WITHIN: Duration = Duration::from_millis(50);

/// A round takes no more jobs once it has this many operations: the first one waits for the last.
const ROUND: usize = 1_024;

/// The same while the copy catches up: no caller waits for such a round, and there is no break while it is
/// committed.
const ROUND_IN_BULK: usize = 512;

/// After this many entries of an op-log, of which very many follow, other threads go first.
const BREAK: usize = 64;

/// State of a copy after a round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CopyState {
    /// State of the copy, all of it readable.
    pub report: CopyReport,
    /// The part of the report's position (its sequence) that is on disk.
    pub durable: u64,
    /// How many batches of the other copy's op-log did not join on to what the copy has, since the start. A
    /// follower has to ask again from the position when this rises.
    pub gaps: u64,
}

/// What the other copy has on disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Confirmed {
    /// Of which op-log.
    incarnation: Uuid,
    /// Of that, up to this entry.
    upto: u64,
    /// Of its own database.
    other: Option<FlushPoint>,
}

impl Confirmed {
    /// The other copy has more on disk of the op-log of that incarnation.
    pub fn advance(&mut self, incarnation: Uuid, upto: u64, other: Option<FlushPoint>) {
        if self.incarnation != incarnation {
            *self = Self { incarnation, ..Self::default() };
        }
        self.upto = self.upto.max(upto);
        if let Some(other) = other {
            FlushPoint::advance(&mut self.other, other);
        }
    }

    /// The last entry of the op-log that it has on disk.
    pub fn upto(&self) -> u64 {
        self.upto
    }
}

/// What is remembered beside a database of what was in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marked {
    /// What was on its disk.
    pub flushed: FlushPoint,
    /// The highest version in it then.
    pub version: Version,
}

/// Something to do for a copy. Completions are called when what they promise holds, with the LSN of the last
/// commit that is on disk; if the copy fails before, they are dropped.
pub enum Job {
    /// Writes to decide; completed on disk.
    Write {
        /// In version order.
        writes: Vec<Write>,
        /// Gets the outcomes.
        done: Box<dyn FnOnce(Vec<WriteAnswer>, u64) + Send>,
    },
    /// Changes that another copy accepted; completed on disk.
    Merge {
        /// In version order.
        changes: Vec<Versioned>,
        /// What is known of that copy's disk.
        other: Option<FlushPoint>,
        /// Completion.
        done: Completion,
    },
    /// Entries of the other copy's op-log.
    Apply(LogBatch),
    /// Part of a full copy; the last part is completed on disk.
    Chunk {
        /// The part.
        chunk: CopyChunk,
        /// Completion.
        done: Completion,
    },
    /// Entries of the own op-log that lose something. Completed with whether anything was replaced in the
    /// copy, by this or before, since it was completed last.
    Strip {
        /// Whose op-log it is.
        incarnation: Uuid,
        /// As they are to be.
        entries: Vec<LogEntry>,
        /// There is no other copy.
        alone: bool,
        /// What the other copy has.
        confirmed: Confirmed,
        /// Completion.
        done: Box<dyn FnOnce(bool) + Send>,
    },
    /// Whether everything is copied once more.
    Recopy(bool),
    /// The copy counts as complete as it is.
    CountAsComplete,
    /// The copy was rolled back.
    MarkRolledBack(Rollback),
    /// The operator accepts a copy that was rolled back; it gets this incarnation.
    AcceptRollback(Uuid),
}

impl Job {
    /// The highest version in it.
    pub fn version(&self) -> Version {
        let highest = match self {
            Self::Write { writes, .. } => writes.iter().map(|write| write.version).max(),
            Self::Merge { changes, .. } => changes.iter().map(|change| change.version).max(),
            Self::Apply(batch) => batch.entries.iter().map(|entry| entry.version).max(),
            Self::Chunk { chunk, .. } => chunk.records.iter().map(|(_, record)| record.version()).max(),
            Self::Strip { .. }
            | Self::Recopy(_)
            | Self::CountAsComplete
            | Self::MarkRolledBack(_)
            | Self::AcceptRollback(_) => None,
        };
        highest.unwrap_or(Version::ZERO)
    }
}

/// Called after the commit, with the LSN of the last commit that is on disk.
pub type Completion = Box<dyn FnOnce(u64) + Send>;

/// See the [module](self).
pub struct Rounds<S> {
    role: Role,
    copy: Copy<S>,
    /// Of this round.
    completions: Vec<Completion>,
    /// Operations of this round.
    taken: usize,
    /// This round works on part of a full copy, or on as many entries of the other copy's op-log as there may
    /// be at once: there is more to come.
    catches_up: bool,
    gaps: u64,
    /// When what is not on disk has to be, at the latest. Set whenever the copy is unsynced.
    sync_at: Option<Instant>,
}

impl<S: Store> Rounds<S> {
    /// Opens the copy in a database. What was `marked` of it is compared with it: a copy that has less was
    /// rolled back. Returns the highest version, too, that is known to have been in it.
    ///
    /// # Errors
    /// If the database cannot be read or written.
    pub fn open(
        role: Role,
        store: S,
        limits: Limits,
        marked: Option<Marked>,
    ) -> Result<(Self, Version), StoreError> {
        let mut copy = Copy::open(store, limits)?;
        let incarnation = copy.meta().incarnation;
        let marked = marked
            .filter(|marked| marked.flushed.incarnation == incarnation)
            .filter(|_| !mutation::is(Mutation::StartNotCompared));
        if let Some(rollback) = rollback::lost(copy.meta(), marked.map(|marked| marked.flushed), None) {
            tracing::warn!(
                copy = role.as_str(), %rollback,
                "the copy was rolled back: its disk has lost something"
            );
            copy.mark_rolled_back(rollback);
            copy.commit()?;
        }
        let version = marked.map_or(Version::ZERO, |marked| marked.version);
        let (completions, taken, catches_up, gaps, sync_at) = (Vec::new(), 0, false, 0, None);
        Ok((Self { role, copy, completions, taken, catches_up, gaps, sync_at }, version))
    }

    /// The copy.
    pub fn copy(&self) -> &Copy<S> {
        &self.copy
    }

    /// Gives the database back; what is staged is gone.
    pub fn into_store(self) -> S {
        self.copy.into_store()
    }

    /// The state after the last commit.
    pub fn state(&self) -> CopyState {
        let report = report(self.copy.meta(), self.copy.flushed());
        CopyState { report, durable: self.copy.durable(), gaps: self.gaps }
    }

    /// What is to be remembered beside the database after a commit or a sync.
    pub fn marked(&self) -> Marked {
        let Meta { incarnation, version, .. } = *self.copy.meta();
        Marked { flushed: FlushPoint { incarnation, lsn: self.copy.flushed() }, version }
    }

    /// Whether the round takes no more jobs.
    pub fn is_full(&self) -> bool {
        self.taken >= if self.catches_up { ROUND_IN_BULK } else { ROUND }
    }

    /// Lets the copy decide and stage a job.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn stage(&mut self, job: Job) -> Result<(), StoreError> {
        match job {
            Job::Write { writes, done } => {
                self.taken += writes.len();
                let answers = self.copy.write(writes)?;
                self.completions.push(Box::new(move |lsn| done(answers, lsn)));
            }
            Job::Merge { changes, other, done } => {
                self.taken += changes.len();
                self.copy.merge(changes, other)?;
                self.completions.push(done);
            }
            Job::Apply(batch) => {
                self.taken += batch.entries.len();
                self.catches_up |= batch.entries.len() >= MAX_BATCH;
                if batch.entries.len() > MAX_BATCH {
                    self.apply_in_bulk(batch)?;
                } else {
                    self.apply(batch)?;
                }
            }
            Job::Chunk { chunk, done } => {
                self.taken += chunk.records.len();
                self.catches_up = true;
                self.copy.in_bulk();
                self.copy.merge_chunk(chunk)?;
                self.completions.push(done);
            }
            Job::Strip { incarnation, entries, alone, confirmed, done } => {
                self.taken += entries.len();
                self.confirm(confirmed);
                self.copy.strip(incarnation, entries, alone);
                let replaced = self.copy.take_replaced();
                self.completions.push(Box::new(move |_| done(replaced)));
            }
            Job::Recopy(recopies) => self.copy.recopy(recopies),
            Job::CountAsComplete => self.copy.count_as_complete(),
            Job::MarkRolledBack(rollback) => {
                if self.copy.meta().rollback.is_none() {
                    let copy = self.role.as_str();
                    tracing::warn!(copy, %rollback, "the copy was rolled back: its disk has lost something");
                }
                self.copy.mark_rolled_back(rollback);
            }
            Job::AcceptRollback(incarnation) => self.copy.accept_rollback(incarnation),
        }
        Ok(())
    }

    /// Applies a frame as they are sent to a copy that is far behind.
    fn apply_in_bulk(&mut self, batch: LogBatch) -> Result<(), StoreError> {
        let LogBatch { incarnation, lsn, entries } = batch;
        self.copy.in_bulk();
        let mut left = entries.into_iter();
        while left.len() > 0
            && self.apply(LogBatch { incarnation, lsn, entries: left.by_ref().take(BREAK).collect() })?
        {
            yield_now();
        }
        Ok(())
    }

    /// Returns whether the entries join on.
    fn apply(&mut self, batch: LogBatch) -> Result<bool, StoreError> {
        match self.copy.apply(batch) {
            Ok(()) => Ok(true),
            Err(FollowError::Store(error)) => Err(error),
            Err(FollowError::Gap(gap)) => {
                tracing::warn!(role = self.role.as_str(), %gap, "replicated entries were refused");
                self.gaps += 1;
                Ok(false)
            }
        }
    }

    /// What is known of another op-log says nothing: that of a copy that was rolled back began anew when it
    /// was accepted.
    fn confirm(&mut self, confirmed: Confirmed) {
        if confirmed.incarnation == self.copy.meta().incarnation {
            self.copy.confirm(confirmed.upto, confirmed.other);
        }
    }

    /// Commits what is staged.
    ///
    /// # Errors
    /// If the database fails. The copy must not be used again then, and no answer may leave.
    pub fn commit(&mut self, now: Instant, confirmed: Confirmed) -> Result<(), StoreError> {
        self.confirm(confirmed);
        self.copy.commit()?;
        self.sync_at = self.copy.unsynced().then(|| self.sync_at.unwrap_or(now + SYNC_WITHIN));
        Ok(())
    }

    /// When the copy has to be [synced](Self::sync), if it does.
    pub fn sync_at(&self) -> Option<Instant> {
        self.sync_at
    }

    /// Brings to disk what was committed without a sync. Nothing may be staged.
    ///
    /// # Errors
    /// As for [`Self::commit`].
    pub fn sync(&mut self) -> Result<(), StoreError> {
        self.copy.sync()?;
        self.sync_at = None;
        Ok(())
    }

    /// Completes the jobs of the round, whose [state](Self::state) should be known everywhere by now. Returns
    /// whether there is more to come for a copy that catches up.
    pub fn complete(&mut self) -> bool {
        let flushed = self.copy.flushed();
        self.completions.drain(..).for_each(|done| done(flushed));
        self.taken = 0;
        mem::take(&mut self.catches_up)
    }
}
