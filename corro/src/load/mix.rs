//! Which requests are reads.
//!
//! A connection waits for each answer before it asks for more. So where writes have to wait, every connection
//! that writes now and then is soon among those that wait, and none is left to find out whether reads still
//! succeed. A few connections therefore only read. The others read less for it, so that the whole has the
//! share of reads that was asked for.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::random::Random;

/// Chooses between reading and writing.
pub(super) struct Mix {
    /// Connections with a lower number read and write, the others only read.
    writers: usize,
    /// Wanted share of reads, in percent.
    reads: u64,
    /// Requests so far.
    asked: AtomicU64,
    /// Reads among them.
    read: AtomicU64,
}

impl Mix {
    /// Of so many connections a quarter of the share of reads only reads: 8 of 64, where half of all requests
    /// are to be reads.
    pub(super) fn new(connections: usize, reads: u64) -> Self {
        let readers = connections * reads as usize / 400;
        Self { writers: connections - readers, reads, asked: AtomicU64::new(0), read: AtomicU64::new(0) }
    }

    /// Number of connections that write.
    pub(super) fn writers(&self) -> usize {
        self.writers
    }

    /// Whether the next request of that connection is a read.
    pub(super) fn next_reads(&self, connection: usize, random: &mut Random) -> bool {
        let reads = connection >= self.writers || random.percent(self.chance());
        // The two may be read a request apart: it is a share of thousands.
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.read.fetch_add(u64::from(reads), Ordering::Relaxed);
        reads
    }

    /// Of a read, in percent, on a connection that does both: half of what is wanted, while there were too
    /// many.
    fn chance(&self) -> u64 {
        let (asked, read) = (self.asked.load(Ordering::Relaxed), self.read.load(Ordering::Relaxed));
        if read * 100 > asked * self.reads { self.reads / 2 } else { self.reads }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_only_read_and_the_share_is_kept() {
        let mix = Mix::new(64, 50);
        assert_eq!(mix.writers(), 56);
        let (mut random, mut reads, mut asked) = (Random::new(1), 0, 0);
        for _ in 0..1_000 {
            for connection in 0..64 {
                // A read is answered twice as quickly.
                for _ in 0..1 + usize::from(connection >= 56) {
                    let read = mix.next_reads(connection, &mut random);
                    assert!(read || connection < 56);
                    reads += u64::from(read);
                    asked += 1;
                }
            }
        }
        assert!((49..=51).contains(&(reads * 100 / asked)), "{reads} of {asked}");
    }

    #[test]
    fn all_and_none_are_shares_too() {
        let mut random = Random::new(1);
        for (reads, expected) in [(0, 0), (100, 64)] {
            let mix = Mix::new(64, reads);
            let read = (0..64).filter(|connection| mix.next_reads(*connection, &mut random)).count();
            assert_eq!(read, expected);
        }
        assert_eq!(Mix::new(4, 50).writers(), 4, "too few to spare one");
    }
}
