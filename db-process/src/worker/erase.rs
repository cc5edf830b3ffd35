//! Erasing in a copy at work: what the rules find ([`crate::copy::erase`]) goes through the queue of the
//! copy's thread, and then the files are written anew. It takes as long as that does, on a thread of
//! background priority, one at a time.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{PoisonError, mpsc};
use std::thread::yield_now;

use protocol::message::MAX_BATCH;
use protocol::message::query::EraseQuery;
use protocol::message::replication::LogEntry;

use super::{CopyHandle, Job};
use crate::background::lock;
use crate::copy::erase::{find, is_gone};
use crate::store::StoreError;

/// What is known of what is left to erase.
#[derive(Debug)]
pub(super) struct Erasing {
    /// Something was replaced that may still be in the files.
    replaced: bool,
    /// LSN of a state of the copy in which there is nothing to erase, now or later.
    clean: Option<u64>,
}

impl Default for Erasing {
    fn default() -> Self {
        Self { replaced: true, clean: None }
    }
}

impl CopyHandle {
    /// Erases what is asked for. `done` is called then, with whether it is gone. No client asked for what is
    /// read meanwhile, so an error does not poison the copy.
    ///
    /// # Errors
    /// If the system has no thread.
    pub fn erase(&self, query: EraseQuery, done: impl FnOnce(bool) + Send + 'static) -> io::Result<()> {
        let copy = self.clone();
        self.help("erase", move || {
            let poison = &copy.shared.poison;
            done(match poison.check().and_then(|()| copy.erase_now(&query)) {
                Ok(erased) => erased,
                Err(StoreError::Poisoned) => false,
                Err(_) if copy.shared.stopping.load(Ordering::Relaxed) => false,
                Err(error) => {
                    let role = copy.role().as_str();
                    tracing::warn!(
                        role, %error,
                        "what is out of date is not erased: `corro check --scan` tells more"
                    );
                    false
                }
            });
        })
    }

    fn erase_now(&self, query: &EraseQuery) -> Result<bool, StoreError> {
        let shared = &self.shared;
        let mut erasing = lock(&shared.erasing);
        let lsn = shared.store.meta()?.lsn;
        if query.user.is_none() && erasing.clean == Some(lsn) && !erasing.replaced {
            return Ok(true);
        }
        erasing.clean = None;
        let confirmed = shared.confirmed.lock().unwrap_or_else(PoisonError::into_inner).upto();
        let snapshot = shared.store.snapshot()?;
        let (mut found, mut replaced) = (false, false);
        let later = find(&snapshot, query, confirmed, MAX_BATCH, |entries| {
            found = true;
            replaced |= self.strip(query, entries)?;
            yield_now();
            Ok(())
        })?;
        drop(snapshot);
        // What else was replaced until now.
        erasing.replaced |= replaced | self.strip(query, Vec::new())?;
        if let Some(user) = &query.user
            && !is_gone(&shared.store.snapshot()?, user)?
        {
            return Ok(false);
        }
        if erasing.replaced {
            if !shared.store.scrub(|| !shared.stopping.load(Ordering::Relaxed))? {
                return Ok(false);
            }
            erasing.replaced = false;
        }
        erasing.clean = (!found && !later).then_some(lsn);
        Ok(true)
    }

    /// Has entries rewritten, and waits for that. Returns whether anything was replaced since the last time.
    fn strip(&self, query: &EraseQuery, entries: Vec<LogEntry>) -> Result<bool, StoreError> {
        let shared = &self.shared;
        let confirmed = *shared.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, stripped) = mpsc::channel();
        let incarnation = shared.state.borrow().report.incarnation;
        let done = Box::new(move |replaced| done.send(replaced).unwrap_or_default());
        self.send(Job::Strip { incarnation, entries, alone: query.alone, confirmed, done });
        // It is dropped uncalled if the copy fails, or has been stopped.
        stripped.recv().map_err(|_| StoreError::Poisoned)
    }
}
