//! The thread of a copy: it takes jobs from the queue and drives [`Rounds`].

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::yield_now;
use std::time::Instant;

use tokio::sync::watch;

use super::Poison;
use super::mark::MarkFile;
use super::rounds::{Confirmed, CopyState, Job, Rounds};
use crate::background::in_background;
use crate::store::{RocksStore, StoreError};

/// What the thread owns.
pub(super) struct Worker {
    pub(super) rounds: Rounds<RocksStore>,
    /// `None` stops it.
    pub(super) queue: Receiver<Option<Job>>,
    pub(super) state: watch::Sender<CopyState>,
    pub(super) poison: Arc<Poison>,
    pub(super) confirmed: Arc<Mutex<Confirmed>>,
    /// What is on disk, remembered beside the database.
    pub(super) mark: MarkFile,
    pub(super) stopping: bool,
}

impl Worker {
    /// Works until it is stopped, every handle is gone, or the database fails.
    pub(super) fn run(mut self) {
        let ended = self.fill().and_then(|()| self.work_while(|_| true)).and_then(|()| self.close());
        if let Err(error) = ended {
            // While all of this is still there: when it is gone, the copy counts as stopped.
            self.poison.set(&error);
        }
    }

    /// Works until the copy is complete. No caller waits for one that is not, so what fills it has background
    /// priority.
    fn fill(&mut self) -> Result<(), StoreError> {
        if self.is_complete() {
            return Ok(());
        }
        let name = format!("fill-{}", self.poison.role.as_str());
        in_background(name, || {
            self.work_while(|worker| {
                yield_now();
                !worker.is_complete()
            })
        })
        .map_err(StoreError::no_thread)?
    }

    fn is_complete(&self) -> bool {
        self.rounds.copy().meta().complete
    }

    /// Works as long as that holds, and it is not stopped.
    fn work_while(&mut self, wanted: impl Fn(&Self) -> bool) -> Result<(), StoreError> {
        while !self.stopping && wanted(self) {
            self.round()?;
        }
        Ok(())
    }

    fn round(&mut self) -> Result<(), StoreError> {
        if let Some(first) = self.next()? {
            // A reader may have found the database failing.
            self.poison.check()?;
            self.rounds.stage(first)?;
            while !self.rounds.is_full() {
                match self.queue.try_recv() {
                    Ok(Some(job)) => self.rounds.stage(job)?,
                    Ok(None) => {
                        self.stopping = true;
                        break;
                    }
                    Err(_) => break,
                }
            }
            let confirmed = *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
            self.rounds.commit(Instant::now(), confirmed)?;
            self.mark.write(&self.rounds.marked());
        }
        // The state first, so that it is there when an answer arrives.
        let now = self.rounds.state();
        self.state.send_if_modified(|state| std::mem::replace(state, now) != now);
        if self.rounds.complete() {
            yield_now();
        }
        Ok(())
    }

    /// Waits for work. `None` when there is none to do: what was left to sync is synced, or it is stopped.
    fn next(&mut self) -> Result<Option<Job>, StoreError> {
        let sync_at = self.rounds.sync_at();
        let received = match sync_at {
            None => self.queue.recv().map_err(RecvTimeoutError::from),
            Some(at) => self.queue.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        // Where work never stops coming the time still comes.
        if sync_at.is_some_and(|at| at <= Instant::now()) {
            self.rounds.sync()?;
            self.mark.write(&self.rounds.marked());
        }
        let job = match received {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => None,
        };
        self.stopping = job.is_none();
        Ok(job)
    }

    /// Leaves everything on disk, with nothing to replay at the next start.
    fn close(&mut self) -> Result<(), StoreError> {
        self.rounds.sync()?;
        self.mark.write(&self.rounds.marked());
        self.rounds.copy().store().flush()
    }
}
