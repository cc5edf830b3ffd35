//! Trying again: how long to wait, and how often to speak of it.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Waits between attempts: 50 to 100 ms first, later 250 to 500 ms, for ever. Random within that, so that
/// processes that lost the same peer do not come back as a crowd.
#[derive(Debug)]
pub struct Waits(ExponentialBackoff);

impl Waits {
    /// As after a first failure.
    pub fn new() -> Self {
        let waits = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(50))
            .with_max_delay(Duration::from_millis(250))
            .without_max_times()
            .with_jitter();
        Self(waits.build())
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        self.0.next().unwrap_or(Duration::from_millis(500))
    }
}

impl Default for Waits {
    fn default() -> Self {
        Self::new()
    }
}

/// Decides whether a line that would come again and again is worth saying once more: when its text is a new
/// one, or after half a minute.
#[derive(Debug, Default)]
pub struct Seldom {
    said: Option<(String, Instant)>,
}

impl Seldom {
    /// Whether to say it now.
    pub fn is_news(&mut self, text: &str, now: Instant) -> bool {
        let old = |(said, at): &(String, Instant)| said == text && now.duration_since(*at) < AGAIN_AFTER;
        let news = !self.said.as_ref().is_some_and(old);
        if news {
            self.said = Some((text.to_owned(), now));
        }
        news
    }

    /// Whether to say something of that kind now, whatever its text.
    pub fn is_time(&mut self, now: Instant) -> bool {
        self.is_news("", now)
    }

    /// What was said is over: the next time is news again.
    pub fn forget(&mut self) {
        self.said = None;
    }
}

const AGAIN_AFTER: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_attempt_follows_quickly_and_none_waits_long() {
        let mut waits = Waits::new();
        let first = waits.next_wait();
        assert!((50..=100).contains(&first.as_millis()), "{first:?}");
        for _ in 0..1000 {
            let wait = waits.next_wait();
            assert!((50..=500).contains(&wait.as_millis()), "{wait:?}");
        }
    }

    #[test]
    fn a_line_is_said_again_when_it_changes_or_after_a_while() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        assert!(seldom.is_news("gone", start));
        assert!(!seldom.is_news("gone", start + Duration::from_secs(29)));
        assert!(seldom.is_news("refused", start + Duration::from_secs(29)));
        assert!(seldom.is_news("refused", start + Duration::from_secs(60)));
        seldom.forget();
        assert!(seldom.is_news("refused", start + Duration::from_secs(60)));
    }
}
