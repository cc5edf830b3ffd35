//! Versions: when a write happened, as one 64-bit number that orders all writes of a ring.
//!
//! A version is a hybrid logical clock value (Kulkarni, Demirbas et al., "Logical Physical Clocks", 2014):
//! the upper 48 bits are milliseconds since 1970, the lower 16 bits count the writes within one millisecond.
//! The gateway gives every write a version that is greater than any before it, so a version is three things
//! at once: the identity of the operation, its place in the order of its partition, and the user's `ETag`.
//!
//! The clock never goes back. A wall clock that is set back makes it count on from where it was, and a
//! restarted gateway learns at registration the highest version that any copy holds
//! ([`VersionClock::observe`]).
//!
//! What it does not do: it says nothing about the order of writes of two gateways that are active at once.
//! The ring has one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Identity and order of a write. Zero is "before every write".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// Before every write; no operation ever has it.
    pub const ZERO: Self = Self(0);

    /// The last millisecond that a clock may show; it is in the year 6429. Beyond it there is as much room
    /// again, so that no counting on overflows.
    pub const LAST_MILLIS: u64 = (1 << 47) - 1;

    /// Before every write of that millisecond since 1970, [`Self::LAST_MILLIS`] at most.
    pub fn at_unix_millis(millis: u64) -> Self {
        Self(millis.min(Self::LAST_MILLIS) << COUNTER_BITS)
    }

    /// The time of the write in milliseconds since 1970, as the gateway's clock had it (or later, never
    /// earlier).
    pub fn unix_millis(self) -> u64 {
        self.0 >> COUNTER_BITS
    }
}

/// Sixteen lower-case hexadecimal digits, as in an `ETag` (without the quotes).
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A text that is not sixteen hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAVersion;

impl FromStr for Version {
    type Err = NotAVersion;

    /// Reads what [`fmt::Display`] writes; upper case, signs and other lengths are refused, so that one
    /// version has one spelling.
    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let canonical = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !canonical {
            return Err(NotAVersion);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| NotAVersion)
    }
}

/// How many low bits count the writes within a millisecond.
const COUNTER_BITS: u32 = 16;

/// The source of versions. Time is an argument: the caller reads the wall clock.
#[derive(Debug, Default)]
pub struct VersionClock {
    /// The greatest version given or observed so far.
    last: Version,
}

impl VersionClock {
    /// A version greater than all that this clock gave or observed, and not before `unix_millis` of the wall
    /// clock.
    pub fn next(&mut self, unix_millis: u64) -> Version {
        let counted = self.last.0.checked_add(1).expect("nothing beyond the last millisecond is observed");
        self.last = Version::at_unix_millis(unix_millis).max(Version(counted));
        self.last
    }

    /// The greatest version given or observed so far.
    pub fn last(&self) -> Version {
        self.last
    }

    /// Learns that `version` exists: the next one will be greater. The caller has verified that it is not
    /// far ahead of the wall clock.
    pub fn observe(&mut self, version: Version) {
        debug_assert!(version.unix_millis() <= Version::LAST_MILLIS, "{version} is implausible");
        self.last = self.last.max(version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_rise_when_the_wall_clock_stands_or_goes_back() {
        let mut clock = VersionClock::default();
        let first = clock.next(1_000);
        let second = clock.next(1_000);
        let third = clock.next(10);
        assert_eq!(first.unix_millis(), 1_000);
        assert!(first < second && second < third);
        assert_eq!(clock.next(2_000), Version(2_000 << COUNTER_BITS));
    }

    #[test]
    fn an_observed_version_is_never_given_again() {
        let mut clock = VersionClock::default();
        let last = Version((Version::LAST_MILLIS << COUNTER_BITS) + 0xffff);
        clock.observe(last);
        assert!(clock.next(5) > last && clock.next(u64::MAX) > last);
    }

    #[test]
    fn no_clock_reaches_the_end_of_time() {
        let mut clock = VersionClock::default();
        let first = clock.next(u64::MAX);
        assert_eq!(first.unix_millis(), Version::LAST_MILLIS);
        assert!(clock.next(u64::MAX) > first);
        assert!(Version::at_unix_millis(1 << 48) > Version::at_unix_millis(1), "nothing is shifted out");
    }

    #[test]
    fn a_counter_that_overflows_runs_ahead_of_the_wall_clock() {
        let mut clock = VersionClock::default();
        let mut last = Version::ZERO;
        for _ in 0..200_000 {
            let next = clock.next(1);
            assert!(next > last);
            last = next;
        }
        assert_eq!(last.unix_millis(), 4);
    }

    #[test]
    fn text_form_has_one_spelling() {
        let version = Version(0x0123_4567_89ab_cdef);
        assert_eq!(version.to_string(), "0123456789abcdef");
        assert_eq!("0123456789abcdef".parse(), Ok(version));
        for bad in ["", "0123456789ABCDEF", "+123456789abcdef", "123", "0123456789abcdef0"] {
            assert_eq!(bad.parse::<Version>(), Err(NotAVersion), "{bad}");
        }
    }
}
