//! The one source of random choices. A seed repeats a run.

use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};
use uuid::Builder;

/// A sequence of random choices. It depends on the seed alone: the generator is one that `rand` keeps the
/// same on all platforms and in all releases.
#[derive(Clone, Debug)]
pub struct Random(Xoshiro256PlusPlus);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// One of many independent sequences of a seed.
    pub fn stream(seed: u64, number: u64) -> Self {
        Self::new(Self::new(seed).next() ^ number)
    }

    /// Any number.
    #[expect(clippy::should_implement_trait, reason = "it never ends, so it is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// `from` or more, and less than `to`, which must be greater than `from`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        self.0.random_range(from..to)
    }

    /// An index of a collection of that length, which must not be zero.
    pub fn below(&mut self, length: usize) -> usize {
        self.0.random_range(0..length)
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.between(0, 100) < percent
    }

    /// One of several, of which there must be one.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        *choices.choose(&mut self.0).expect("there is something to choose from")
    }

    /// A UUID of version 4.
    pub fn uuid(&mut self) -> uuid::Uuid {
        Builder::from_random_bytes(self.0.random()).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_streams_differ() {
        let sequence = |seed, number| {
            let mut random = Random::stream(seed, number);
            [random.next(), random.next()]
        };
        assert_eq!(sequence(7, 1), sequence(7, 1));
        assert_ne!(sequence(7, 1), sequence(7, 2));
        assert_ne!(sequence(7, 1), sequence(8, 1));
    }

    #[test]
    fn percent_is_a_share() {
        let mut random = Random::new(1);
        let hits = (0..10_000).filter(|_| random.percent(30)).count();
        assert!((2_700..3_300).contains(&hits), "{hits}");
        assert!(!(0..100).any(|_| random.percent(0)) && (0..100).all(|_| random.percent(100)));
    }
}
