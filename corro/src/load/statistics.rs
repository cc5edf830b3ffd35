//! Distributions of durations, in little space.

use std::time::Duration;

/// Steps within each doubling: a value is known to within 1/32 of itself.
const STEPS: u64 = 32;

/// A histogram over microseconds: exact below 32 µs, and with 32 steps in each doubling above that.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram {
    /// Up to the highest that was seen.
    counts: Vec<u32>,
    count: u64,
    max: Duration,
}

impl Histogram {
    pub(crate) fn note(&mut self, duration: Duration) {
        let step = step_of(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        if self.counts.len() <= step {
            self.counts.resize(step + 1, 0);
        }
        self.counts[step] += 1;
        self.count += 1;
        self.max = self.max.max(duration);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The longest, exactly; zero where there is none.
    pub(crate) fn max(&self) -> Duration {
        self.max
    }

    /// The duration that so many of a thousand do not exceed, rounded up to its step; zero where there is
    /// none.
    pub(crate) fn per_mille(&self, share: u64) -> Duration {
        let rank = (self.count * share).div_ceil(1_000);
        let mut seen = 0;
        for (step, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank && seen > 0 {
                return Duration::from_micros(highest_of(step)).min(self.max);
            }
        }
        self.max
    }

    pub(crate) fn clear(&mut self) {
        self.counts.clear();
        self.count = 0;
        self.max = Duration::ZERO;
    }
}

/// The step that a number of microseconds is in.
fn step_of(micros: u64) -> usize {
    let doublings = u64::from((micros | 1).ilog2()).saturating_sub(u64::from(STEPS.ilog2()));
    usize::try_from(doublings * STEPS + (micros >> doublings)).expect("64 doublings of 32 steps")
}

/// The highest number of microseconds in a step.
fn highest_of(step: usize) -> u64 {
    let step = step as u64;
    let doublings = (step / STEPS).saturating_sub(1);
    let mantissa = step - doublings * STEPS;
    ((mantissa + 1) << doublings) - 1
}

/// The middle one; `None` where there is none. Of an even number the lower of both.
pub(crate) fn median(durations: &[Duration]) -> Option<Duration> {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_gapless_and_narrow() {
        let mut before = 0;
        for micros in 0..100_000 {
            let step = step_of(micros);
            assert!(step == before || step == before + 1, "{micros}");
            before = step;
            let highest = highest_of(step);
            assert!(highest >= micros && highest <= micros + micros / STEPS, "{micros}: {highest}");
            assert_eq!(step_of(highest), step);
            assert_ne!(step_of(highest + 1), step);
        }
    }

    #[test]
    fn shares_and_the_longest() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.per_mille(990), histogram.max()), (Duration::ZERO, Duration::ZERO));
        for micros in 1..=1_000 {
            histogram.note(Duration::from_micros(micros));
        }
        assert_eq!(histogram.max(), Duration::from_millis(1));
        let half = histogram.per_mille(500).as_micros();
        assert!((500..=515).contains(&half), "{half}");
        assert_eq!(histogram.per_mille(1_000), Duration::from_millis(1));
        let mut both = Histogram::default();
        both.note(Duration::from_secs(1));
        both.add(&histogram);
        assert_eq!((both.count(), both.max()), (1_001, Duration::from_secs(1)));
        both.clear();
        assert_eq!((both.count(), both.max()), (0, Duration::ZERO));
    }

    #[test]
    fn the_middle_one() {
        let seconds = |all: &[u64]| all.iter().map(|s| Duration::from_secs(*s)).collect::<Vec<_>>();
        assert_eq!(median(&[]), None);
        assert_eq!(median(&seconds(&[3, 1, 2])), Some(Duration::from_secs(2)));
        assert_eq!(median(&seconds(&[4, 1, 2, 3])), Some(Duration::from_secs(2)));
    }
}
