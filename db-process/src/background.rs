//! Threads, and background priority for work that no request waits for.
//!
//! A low priority alone is not enough. It says how processors are *shared*, over tens of milliseconds. A
//! thread that wakes up while such a thread runs may still wait until its time slice is over, which takes
//! milliseconds, and a request wakes a thread up four times. So a background thread that works for long also
//! calls [`yield_now`](std::thread::yield_now) every few hundred microseconds. That costs less than one.
//!
//! What it does not do: it does not defer such work for long. Beside clients that send as many requests as
//! they can, a full copy took much longer than alone (`resources/docs/decisions.md`).

use std::io;
use std::mem;
use std::panic::resume_unwind;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle, scope};

/// Locks what is only changed in single steps, so that a panic elsewhere cannot harm it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

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

/// Threads of background priority that use something which must not be closed before they have ended.
#[derive(Debug, Default)]
pub(crate) struct Helpers(Mutex<Vec<JoinHandle<()>>>);

impl Helpers {
    /// Starts one.
    ///
    /// # Errors
    /// If the system has no thread.
    pub(crate) fn start(&self, name: String, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = spawn(name, || {
            lower_priority();
            work();
        })?;
        let mut threads = lock(&self.0);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }

    /// Waits until all have ended, for which they have to have a reason. Returns whether none of them
    /// panicked.
    pub(crate) fn join(&self) -> bool {
        let threads = mem::take(&mut *lock(&self.0));
        // All of them, also after one that panicked.
        let panicked = threads.into_iter().filter_map(|thread| thread.join().err()).count();
        panicked == 0
    }
}

/// Does that on a thread of background priority, and waits for it.
///
/// # Errors
/// If the system has no thread.
pub(crate) fn in_background<T: Send>(name: String, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    scope(|threads| {
        let thread = Builder::new().name(name).spawn_scoped(threads, || {
            lower_priority();
            work()
        });
        Ok(thread?.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// From now on this thread gets a tenth of the share of any other thread, where processors are contended. It
/// cannot be taken back without privileges, and threads that it starts inherit it.
fn lower_priority() {
    // Elsewhere that is of the whole process. If the system refuses, the thread works like any other.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(10);
}
