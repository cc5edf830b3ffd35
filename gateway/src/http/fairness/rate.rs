//! How many requests a client may begin in a second.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use governor::clock::DefaultClock;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use prometheus::IntCounter;

use super::client::Client;
use crate::http::kind::Kind;
use crate::http::problem::Problem;

/// So many clients are counted each by itself. With more, networks are counted in [`CROWDS`].
const MAX_CLIENTS: usize = 32_768;

const CROWDS: u16 = 1_024;

/// After so many requests it is seen which clients may be forgotten. So there are never many more than
/// [`MAX_CLIENTS`], and a request pays for few of them.
const LOOK_AFTER: u64 = 1_024;

/// What a client may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests in a second, in the long run.
    pub per_second: NonZeroU32,
    /// Requests at once, after a pause.
    pub burst: NonZeroU32,
}

/// The requests of all clients.
#[derive(Debug)]
pub(crate) struct RateLimit {
    limiter: RateLimiter<Client, HashMapStateStore<Client>, DefaultClock>,
    requests: AtomicU64,
    crowded: AtomicBool,
    /// Which crowd a network is in is not known outside.
    hasher: RandomState,
    refused: IntCounter,
}

impl RateLimit {
    pub(crate) fn new(rate: Rate, refused: IntCounter) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        Self {
            limiter: RateLimiter::hashmap(quota),
            requests: AtomicU64::new(0),
            crowded: AtomicBool::new(false),
            hasher: RandomState::new(),
            refused,
        }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// 429. At one request a second or more, another one may begin a second later.
    pub(crate) fn admit(&self, mut client: Client) -> Result<(), Problem> {
        if self.requests.fetch_add(1, Relaxed) % LOOK_AFTER == LOOK_AFTER - 1 {
            self.limiter.retain_recent();
            self.crowded.store(self.limiter.len() >= MAX_CLIENTS, Relaxed);
        }
        if self.crowded.load(Relaxed)
            && let Client::Network(network) = client
        {
            client = Client::Crowd((self.hasher.hash_one(network) % u64::from(CROWDS)) as u16);
        }
        self.limiter.check_key(&client).map_err(|_| {
            self.refused.inc();
            Problem::new(Kind::TooManyRequests, "Nothing was done: this token or address asks too often.")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    use super::*;

    fn limit(per_second: u32, burst: u32) -> RateLimit {
        let number = |number| NonZeroU32::new(number).expect("not 0");
        let rate = Rate { per_second: number(per_second), burst: number(burst) };
        RateLimit::new(rate, IntCounter::new("refused", "Refused.").expect("a name"))
    }

    fn network(number: u32) -> Client {
        Client::Network(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    #[test]
    fn a_burst_is_admitted_and_then_no_more_of_that_client() {
        let limit = limit(1, 5);
        let token = || Client::Token(Arc::from("ci"));
        let admitted = |client: fn() -> Client| (0..9).filter(|_| limit.admit(client()).is_ok()).count();
        // A test that is held up for a second sees one more.
        assert!((5..=6).contains(&admitted(|| network(1))));
        assert!((5..=6).contains(&admitted(|| network(2))));
        assert_eq!(limit.admit(network(1)).expect_err("enough").kind(), Kind::TooManyRequests);
        assert!(limit.admit(token()).is_ok(), "tokens are others");
        assert!(limit.refused.get() >= 7);
    }

    #[test]
    fn a_flood_of_addresses_is_not_remembered_and_harms_no_token() {
        let limit = limit(1, 1);
        let mut admitted = 0;
        for number in 0..200_000 {
            admitted += usize::from(limit.admit(network(number)).is_ok());
        }
        let known = limit.limiter.len();
        let most = MAX_CLIENTS + LOOK_AFTER as usize + usize::from(CROWDS);
        assert!(known <= most, "{known} are remembered");
        assert!(admitted < 200_000, "the others are counted as crowds");
        assert!(limit.admit(Client::Token(Arc::from("ci"))).is_ok());
    }

    #[test]
    #[ignore = "a measurement"]
    fn what_a_request_pays() {
        const REQUESTS: u32 = 5_000_000;
        let limit = limit(1_000_000_000, 1_000_000_000);
        let start = std::time::Instant::now();
        for number in 0..REQUESTS {
            std::hint::black_box(limit.admit(network(number % 1_000)).is_ok());
        }
        println!("{} ns a request", start.elapsed().as_nanos() / u128::from(REQUESTS));
    }
}
