//! Trying again: how long to wait, and how often to log it.

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

/// Decides whether a line that would come again and again is logged once more: when its text is another one,
/// or after half a minute.
#[derive(Debug, Default)]
pub struct LogThrottle {
    last: Option<(String, Instant)>,
}

impl LogThrottle {
    /// Whether to log that text now.
    pub fn allows(&mut self, text: &str, now: Instant) -> bool {
        let old = |(last, at): &(String, Instant)| last == text && now.duration_since(*at) < AGAIN_AFTER;
        let allows = !self.last.as_ref().is_some_and(old);
        if allows {
            self.last = Some((text.to_owned(), now));
        }
        allows
    }

    /// Whether to log something of that kind now, whatever its text.
    pub fn is_time(&mut self, now: Instant) -> bool {
        self.allows("", now)
    }

    /// What was logged is over: the next line is logged.
    pub fn reset(&mut self) {
        self.last = None;
    }
}

/// Waits until then, or for ever.
pub(crate) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

const AGAIN_AFTER: Duration = Duration::from_secs(30);

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

    #[test]
    fn a_line_is_logged_again_when_it_changes_or_after_a_while() {
        let (mut throttle, start) = (LogThrottle::default(), Instant::now());
        assert!(throttle.allows("gone", start));
        assert!(!throttle.allows("gone", start + Duration::from_secs(29)));
        assert!(throttle.allows("refused", start + Duration::from_secs(29)));
        assert!(throttle.allows("refused", start + Duration::from_secs(60)));
        throttle.reset();
        assert!(throttle.allows("refused", start + Duration::from_secs(60)));
    }
}
