//! Distributions of durations.

use std::time::Duration;

use hdrhistogram::Histogram;

/// A distribution of durations in microseconds, to three digits.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u32>,
    /// Exactly.
    max: Duration,
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new(3).expect("three digits are supported");
        Self { histogram, max: Duration::ZERO }
    }
}

impl Latencies {
    pub(crate) fn record(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.histogram.record(micros).expect("it grows as it needs to");
        self.max = self.max.max(duration);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("it grows as it needs to");
        self.max = self.max.max(other.max);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The longest, exactly; zero where there is none.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// The duration that this share of all, such as 0.99, does not exceed; zero where there is none.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.histogram.value_at_quantile(share)).min(self.max)
    }

    pub(crate) fn clear(&mut self) {
        self.histogram.reset();
        self.max = Duration::ZERO;
    }
}

/// The middle figure; of an even number of them the mean of both; `None` of none.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = figures.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_the_longest() {
        let mut latencies = Latencies::default();
        assert_eq!((latencies.quantile(0.99), latencies.max()), (Duration::ZERO, Duration::ZERO));
        for micros in 1..=1_000 {
            latencies.record(Duration::from_micros(micros));
        }
        assert_eq!(latencies.max(), Duration::from_millis(1));
        assert_eq!(latencies.quantile(0.5), Duration::from_micros(500));
        assert_eq!(latencies.quantile(1.0), Duration::from_millis(1));
        let mut both = Latencies::default();
        both.record(Duration::from_secs(1));
        both.add(&latencies);
        assert_eq!((both.count(), both.max()), (1_001, Duration::from_secs(1)));
        both.clear();
        assert_eq!((both.count(), both.max()), (0, Duration::ZERO));
    }

    #[test]
    fn the_middle_of_some() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0]), Some(2.5));
    }
}
