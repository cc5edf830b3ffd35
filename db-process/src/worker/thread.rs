//! The thread of a copy. It works in rounds: take everything that is queued, let the copy decide and stage
//! it, commit once, tell the new state, then call the closures. While one round waits for the disk the next
//! one gathers, so the batches grow by themselves as the load does, and nobody waits for a timer.
//!
//! A round that nobody was promised anything of, such as one with replicated entries alone, is committed
//! without an fsync. That follows within [`SYNC_WITHIN`], or with the next round that needs one.

use std::mem;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use protocol::message::MAX_BATCH;
use protocol::message::link::{FlushPoint, Rollback, Versioned, Write, WriteAnswer};
use protocol::message::replication::{CopyChunk, LogBatch};
use tokio::sync::watch;
use uuid::Uuid;

use super::mark::Mark;
use super::{Confirmed, CopyState, Trust};
use crate::background::{giving_way, let_others_go_first};
use crate::copy::{Copy, FollowError, report};
use crate::store::{Meta, RocksStore, StoreError};

/// What was replicated is on disk after this time.
const SYNC_WITHIN: Duration = Duration::from_millis(50);

/// A round takes no more jobs once it has this many operations: the first one waits for the last.
const ROUND: usize = 1_024;

/// The same while the copy catches up: nobody waits for such a round, and there is no break while it is
/// committed.
const ROUND_IN_BULK: usize = 512;

/// After so many entries of an op-log, of which very many follow, others go first.
const BREAK: usize = 64;

/// Something to do for the thread.
pub(super) enum Job {
    Write { writes: Vec<Write>, done: Box<dyn FnOnce(Vec<WriteAnswer>, u64) + Send> },
    Merge { changes: Vec<Versioned>, other: Option<FlushPoint>, done: Box<dyn FnOnce(u64) + Send> },
    Apply(LogBatch),
    Chunk { chunk: CopyChunk, done: Box<dyn FnOnce() + Send> },
    Recopy(bool),
    CountAsComplete,
    MarkRolledBack(Rollback),
    AcceptRollback(Uuid),
    Stop,
}

/// Somebody to tell after the commit.
enum Promise {
    Answers(Box<dyn FnOnce(Vec<WriteAnswer>, u64) + Send>, Vec<WriteAnswer>),
    Merged(Box<dyn FnOnce(u64) + Send>),
    Done(Box<dyn FnOnce() + Send>),
}

/// What the thread owns.
pub(super) struct Worker {
    copy: Copy<RocksStore>,
    queue: Receiver<Job>,
    state: watch::Sender<CopyState>,
    trust: Arc<Trust>,
    confirmed: Arc<Mutex<Confirmed>>,
    /// What is on disk, remembered beside the database.
    mark: Mark,
    promises: Vec<Promise>,
    gaps: u64,
    /// This round works on part of a full copy, or on as many entries of the other copy's op-log as there may
    /// be at once: there is some way to go.
    catches_up: bool,
    /// When what is not on disk has to be, at the latest. Set whenever the copy is unsynced.
    sync_at: Option<Instant>,
    stopping: bool,
}

impl Worker {
    pub(super) fn new(
        copy: Copy<RocksStore>,
        queue: Receiver<Job>,
        trust: Arc<Trust>,
        confirmed: Arc<Mutex<Confirmed>>,
        mark: Mark,
    ) -> (Self, watch::Receiver<CopyState>) {
        let first =
            CopyState { report: report(copy.meta(), copy.flushed()), durable: copy.durable(), gaps: 0 };
        let (state, receiver) = watch::channel(first);
        let promises = Vec::new();
        let worker = Self {
            copy,
            queue,
            state,
            trust,
            confirmed,
            mark,
            promises,
            gaps: 0,
            catches_up: false,
            sync_at: None,
            stopping: false,
        };
        (worker, receiver)
    }

    /// Works until it is stopped, every handle is gone, or the database fails.
    pub(super) fn run(mut self) {
        let ended = self.fill().and_then(|()| self.work_while(|_| true)).and_then(|()| self.close());
        if let Err(error) = ended {
            // While all of this is still there: whoever finds it gone takes it that the copy was stopped.
            self.trust.end(&error);
        }
    }

    /// Works until the copy is complete. Nobody asks one that is not for anything, so what fills it gives
    /// way.
    fn fill(&mut self) -> Result<(), StoreError> {
        if self.copy.meta().complete {
            return Ok(());
        }
        let name = format!("fill-{}", self.trust.role.as_str());
        giving_way(name, || {
            self.work_while(|copy| {
                let_others_go_first();
                !copy.meta().complete
            })
        })
        .map_err(StoreError::no_thread)?
    }

    /// Works as long as that holds, and nobody stops it.
    fn work_while(&mut self, wanted: impl Fn(&Copy<RocksStore>) -> bool) -> Result<(), StoreError> {
        while !self.stopping && wanted(&self.copy) {
            self.round()?;
        }
        Ok(())
    }

    fn round(&mut self) -> Result<(), StoreError> {
        if let Some(first) = self.next()? {
            // A reader may have found the database failing.
            self.trust.check()?;
            let mut taken = self.stage(first)?;
            while taken < self.most() && !self.stopping {
                let Ok(job) = self.queue.try_recv() else { break };
                taken += self.stage(job)?;
            }
            let Confirmed { upto, other } = *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
            self.copy.confirm(upto, other);
            self.copy.commit()?;
            self.remember_flushed();
            self.sync_at = match self.sync_at {
                _ if !self.copy.unsynced() => None,
                None => Some(Instant::now() + SYNC_WITHIN),
                at => at,
            };
        }
        self.tell();
        if mem::take(&mut self.catches_up) {
            let_others_go_first();
        }
        Ok(())
    }

    /// With so many operations the round is full.
    fn most(&self) -> usize {
        if self.catches_up { ROUND_IN_BULK } else { ROUND }
    }

    /// Waits for work. `None` when there is none to do: what was left to sync is synced, or everything is
    /// over.
    fn next(&mut self) -> Result<Option<Job>, StoreError> {
        let received = match self.sync_at {
            None => self.queue.recv().map_err(RecvTimeoutError::from),
            Some(at) => self.queue.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        // Where work never stops coming the time still comes.
        let due = self.sync_at.is_some_and(|at| at <= Instant::now());
        if due || received.is_err() {
            self.copy.sync()?;
            self.remember_flushed();
            self.sync_at = None;
        }
        match received {
            Ok(job) => Ok(Some(job)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                self.stopping = true;
                Ok(None)
            }
        }
    }

    /// Lets the copy decide and stage a job. Returns how many operations it was.
    fn stage(&mut self, job: Job) -> Result<usize, StoreError> {
        Ok(match job {
            Job::Write { writes, done } => {
                let answers = self.copy.write(writes)?;
                let count = answers.len();
                self.promises.push(Promise::Answers(done, answers));
                count
            }
            Job::Merge { changes, other, done } => {
                let count = changes.len();
                self.copy.merge(changes, other)?;
                self.promises.push(Promise::Merged(done));
                count
            }
            Job::Apply(batch) => {
                let count = batch.entries.len();
                self.catches_up |= count >= MAX_BATCH;
                if count > MAX_BATCH {
                    self.apply_in_bulk(batch)?;
                } else {
                    self.apply(batch)?;
                }
                count
            }
            Job::Chunk { chunk, done } => {
                let count = chunk.records.len();
                self.catches_up = true;
                self.copy.in_bulk();
                self.copy.merge_chunk(chunk)?;
                self.promises.push(Promise::Done(done));
                count
            }
            Job::Recopy(recopies) => {
                self.copy.recopy(recopies);
                0
            }
            Job::CountAsComplete => {
                self.copy.count_as_complete();
                0
            }
            Job::MarkRolledBack(rollback) => {
                if self.copy.meta().rollback.is_none() {
                    let copy = self.trust.role.as_str();
                    tracing::warn!(copy, %rollback, "the copy was rolled back: its disk has lost something");
                }
                self.copy.mark_rolled_back(rollback);
                0
            }
            Job::AcceptRollback(incarnation) => {
                self.copy.accept_rollback(incarnation);
                0
            }
            Job::Stop => {
                self.stopping = true;
                0
            }
        })
    }

    /// Applies a frame as they are sent to a copy that is far behind.
    fn apply_in_bulk(&mut self, batch: LogBatch) -> Result<(), StoreError> {
        let LogBatch { incarnation, lsn, entries } = batch;
        self.copy.in_bulk();
        let mut left = entries.into_iter();
        while left.len() > 0
            && self.apply(LogBatch { incarnation, lsn, entries: left.by_ref().take(BREAK).collect() })?
        {
            let_others_go_first();
        }
        Ok(())
    }

    /// Returns whether the entries join on.
    fn apply(&mut self, batch: LogBatch) -> Result<bool, StoreError> {
        match self.copy.apply(batch) {
            Ok(()) => Ok(true),
            Err(FollowError::Store(error)) => Err(error),
            Err(FollowError::Gap(gap)) => {
                tracing::warn!(role = self.trust.role.as_str(), %gap, "replicated entries were refused");
                self.gaps += 1;
                Ok(false)
            }
        }
    }

    /// Remembers beside the database what is on disk.
    fn remember_flushed(&mut self) {
        let Meta { incarnation, version, .. } = *self.copy.meta();
        self.mark.keep(incarnation, self.copy.flushed(), version);
    }

    /// Tells what the round came to: the state first, so that whoever gets an answer finds it there.
    fn tell(&mut self) {
        let flushed = self.copy.flushed();
        let report = report(self.copy.meta(), flushed);
        let now = CopyState { report, durable: self.copy.durable(), gaps: self.gaps };
        self.state.send_if_modified(|state| mem::replace(state, now) != now);
        for promise in self.promises.drain(..) {
            match promise {
                Promise::Answers(done, answers) => done(answers, flushed),
                Promise::Merged(done) => done(flushed),
                Promise::Done(done) => done(),
            }
        }
    }

    /// Leaves everything on disk, with nothing to replay at the next start.
    fn close(&mut self) -> Result<(), StoreError> {
        self.copy.sync()?;
        self.remember_flushed();
        self.copy.store().flush()
    }
}
