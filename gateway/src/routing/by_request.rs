//! A map by the number of a request.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::RequestId;

/// What is kept of each request until it is answered.
///
/// The numbers are counted up here and no caller can choose them, so they need no hash that withstands that,
/// which would cost every request more than the rest of what the map does.
pub(crate) type ByRequest<T> = HashMap<RequestId, T, BuildHasherDefault<Spread>>;

/// Spreads consecutive numbers over all bits (Knuth, The Art of Computer Programming, 6.4).
#[derive(Debug, Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use super::*;

    /// A table goes by the low bits, and compares the seven highest before it compares keys.
    #[test]
    fn consecutive_numbers_lie_apart() {
        let hash = |number| BuildHasherDefault::<Spread>::default().hash_one(RequestId(number));
        for first in [0, 1 << 20, u64::MAX - 128] {
            let hashes = || (first..first + 128).map(hash);
            assert_eq!(hashes().map(|hash| hash & 127).collect::<HashSet<_>>().len(), 128);
            assert!(hashes().map(|hash| hash >> 57).collect::<HashSet<_>>().len() > 64);
        }
    }

    #[test]
    fn what_is_kept_is_found() {
        let mut map = ByRequest::default();
        map.extend((0..10_000).map(|number| (RequestId(number), number)));
        assert!((0..10_000).all(|number| map.remove(&RequestId(number)) == Some(number)));
        assert!(map.is_empty());
    }
}
