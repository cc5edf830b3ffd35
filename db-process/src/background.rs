//! Threads, and how those whose work nobody waits for leave the processors to those whom somebody waits for.
//!
//! A low priority alone does not do that. It says how processors are *shared*, over tens of milliseconds;
//! whoever wakes up while such a thread runs may still wait until its turn is over, which takes milliseconds,
//! and a request wakes somebody up four times. So a thread that works for long without a break also makes
//! breaks, in which it goes to the end of the queue ([`let_others_go_first`]).
//!
//! What it does not do: it does not leave such work undone for long. Beside callers who ask as much as they
//! can, a full copy took much longer than alone (`resources/docs/decisions.md`).

use std::io;
use std::mem;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, JoinHandle, scope, yield_now};

/// Starts a thread.
///
/// # Errors
/// If the system has none.
pub(crate) fn spawn<T: Send + 'static>(
    name: String,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name).spawn(body)
}

/// Threads that [give way](give_way) and work on something that must not be closed before they have ended.
#[derive(Debug, Default)]
pub(crate) struct Helpers(Mutex<Vec<JoinHandle<()>>>);

impl Helpers {
    /// Starts one.
    ///
    /// # Errors
    /// If the system has no thread.
    pub(crate) fn start(&self, name: String, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = spawn(name, || {
            give_way();
            work();
        })?;
        let mut threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }

    /// Waits until all have ended, for which they have to have a reason. Returns whether none of them
    /// panicked.
    pub(crate) fn join(&self) -> bool {
        let threads = mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        // All of them, also behind one that panicked.
        let panicked = threads.into_iter().filter_map(|thread| thread.join().err()).count();
        panicked == 0
    }
}

/// Does that on a thread of its own that [gives way](give_way), and waits for it.
///
/// # Errors
/// If the system has no thread.
pub(crate) fn giving_way<T: Send>(name: String, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    scope(|threads| {
        let thread = Builder::new().name(name).spawn_scoped(threads, || {
            give_way();
            work()
        });
        Ok(thread?.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// From now on this thread has a tenth of what any other one of the machine has of a processor, where that is
/// wanted. It cannot be taken back without privileges, and threads that it starts are the same.
fn give_way() {
    // Elsewhere that is of the whole process. A system that refuses has the thread work as any other.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(10);
}

/// Whoever waits for this processor goes first. To be called every few hundred microseconds of long work; it
/// costs less than one.
pub(crate) fn let_others_go_first() {
    yield_now();
}
