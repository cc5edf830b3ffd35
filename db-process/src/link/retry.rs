//! Trying again: how long to wait.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Delays between attempts: 50 to 100 ms first, later 250 to 500 ms, for ever. Random within that, so that
/// processes that lost the same peer do not come back at once.
#[derive(Debug)]
pub struct Backoff {
    settings: ExponentialBuilder,
    delays: ExponentialBackoff,
}

impl Backoff {
    /// With delays that repeat exactly.
    pub fn with_jitter_seed(seed: u64) -> Self {
        Self::of(settings().with_jitter_seed(seed))
    }

    fn of(settings: ExponentialBuilder) -> Self {
        Self { settings, delays: settings.build() }
    }

    /// The next delay.
    pub fn next_delay(&mut self) -> Duration {
        self.delays.next().expect("there is no last attempt")
    }

    /// The next delay is that after a first failure.
    pub fn reset(&mut self) {
        self.delays = self.settings.build();
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::of(settings())
    }
}

fn settings() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_millis(250))
        .without_max_times()
        .with_jitter()
}

/// Waits until then, or for ever.
pub(crate) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_attempt_follows_quickly_and_none_waits_long() {
        for mut backoff in [Backoff::default(), Backoff::with_jitter_seed(7)] {
            for _ in 0..2 {
                let first = backoff.next_delay();
                assert!((50..=100).contains(&first.as_millis()), "{first:?}");
                for _ in 0..1000 {
                    let delay = backoff.next_delay();
                    assert!((50..=500).contains(&delay.as_millis()), "{delay:?}");
                }
                backoff.reset();
            }
        }
    }
}
