//! The time, as far as it is known without asking the system.
//!
//! To ask takes some 50 ns, which is much for what every request does twice. But the time does not matter to the
//! nanosecond there, and between two waits of its runtime a process works through many small pieces of work. So the time is
//! taken when a wait is over (see [`crate::run`]), and at every sixteenth look. What is told is behind by what a few
//! requests take: microseconds where there is little to do, some hundred where there is much.
//!
//! It is not meant for deadlines, nor for anything that must not be wrong.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The moment that all others are counted from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds from then until the time was last taken.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Looks since the process began. Two threads may count one look for two, which does no harm.
static LOOKS: AtomicU64 = AtomicU64::new(0);

/// So many looks see the same time at most, but that many threads may each see it once more.
const LOOKS_AT_ONE: u64 = 16;

/// How long ago the process first looked, as of a moment ago. It never goes back on one thread.
pub fn recently() -> Duration {
    let looks = LOOKS.load(Relaxed).wrapping_add(1);
    LOOKS.store(looks, Relaxed);
    if looks.is_multiple_of(LOOKS_AT_ONE) {
        take();
    }
    Duration::from_nanos(TAKEN.load(Relaxed))
}

/// Takes the time.
pub(crate) fn take() {
    TAKEN.fetch_max(START.elapsed().as_nanos() as u64, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_with_every_sixteenth_look_at_the_latest() {
        // The first time that is taken is the one that all others are counted from.
        take();
        let before = recently();
        std::thread::sleep(Duration::from_millis(2));
        // Twice as many, since the other test looks, too.
        let looks: Vec<Duration> = (0..2 * LOOKS_AT_ONE).map(|_| recently()).collect();
        assert!(looks.is_sorted() && before <= looks[0]);
        let last = looks[looks.len() - 1];
        assert!(last >= before + Duration::from_millis(2), "{last:?} after {before:?}");
    }

    #[test]
    fn time_is_taken_when_a_wait_is_over() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().on_thread_unpark(take).build();
        take();
        let passed = runtime.expect("a runtime").block_on(async {
            let before = recently();
            tokio::time::sleep(Duration::from_millis(2)).await;
            recently() - before
        });
        assert!(passed >= Duration::from_millis(2), "{passed:?}");
    }
}
