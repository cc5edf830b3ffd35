//! How often a line is logged that would come again and again.

use std::time::{Duration, Instant};

const AGAIN_AFTER: Duration = Duration::from_secs(30);

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

#[cfg(test)]
mod tests {
    use super::*;

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
