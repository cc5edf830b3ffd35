//! The server's side of the handshake, in front of the router of an inner port.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use tracing::warn;

use super::{CHALLENGE_PATH, Challenger, Link, Proven, Rejected};
use crate::secret::Secret;
use crate::server::Caller;
use crate::throttle::LogThrottle;

/// How long a client that failed waits for the answer: twice as long after each further failure.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// Failures of an address are forgotten after so long without another.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// Where socketioxide serves.
const SOCKET_PATH: &str = "/socket.io/";

/// Addresses whose failures are counted.
const ADDRESSES: usize = 1024;

/// Clients that wait for the answer to a failure. Further ones do not wait, so that they cost nothing.
const WAITING: usize = 64;

/// Lets only clients through that have proven to know the secret. Cheap to clone.
#[derive(Clone)]
pub struct Admission(Arc<Inner>);

struct Inner {
    started: Instant,
    challenger: Mutex<Challenger>,
    failures: Mutex<Failures>,
    waiting: Semaphore,
    throttle: Mutex<LogThrottle>,
}

impl Admission {
    /// For the server of that name.
    pub fn new(secret: Secret, link: Link, name: &str) -> Self {
        Self(Arc::new(Inner {
            started: Instant::now(),
            challenger: Mutex::new(Challenger::new(secret, link, name)),
            failures: Mutex::default(),
            waiting: Semaphore::new(WAITING),
            throttle: Mutex::default(),
        }))
    }

    /// The router behind this admission, all that it has until now; of it only socket.io is reached. A
    /// request that gets there has a [`Proven`] in its extensions.
    pub fn guard<S: Clone + Send + Sync + 'static>(self, router: Router<S>) -> Router<S> {
        router.layer(from_fn_with_state(self, admit))
    }
}

async fn admit(State(admission): State<Admission>, mut request: Request, next: Next) -> Response {
    let inner = &*admission.0;
    let now = inner.started.elapsed();
    if request.uri().path() == CHALLENGE_PATH {
        let challenged = lock(&inner.challenger).challenge(now, request.headers());
        return match challenged {
            Ok(challenge) => with_headers(StatusCode::NO_CONTENT.into_response(), challenge.headers),
            Err(rejected) => {
                let introduction = lock(&inner.challenger).introduction();
                let answer = (StatusCode::BAD_REQUEST, format!("{rejected}\n")).into_response();
                with_headers(answer, introduction)
            }
        };
    }
    if request.uri().path() != SOCKET_PATH {
        return StatusCode::NOT_FOUND.into_response();
    }
    let admitted = lock(&inner.challenger).admit(now, request.headers());
    let caller = request.extensions().get::<Caller>();
    let admitted = admitted.and_then(|proven| match caller {
        Some(caller) if !caller.may_be(&proven.name) => Err(Rejected::OtherCertificate),
        _ => Ok(proven),
    });
    match admitted {
        Ok(proven) => {
            request.extensions_mut().insert::<Proven>(proven);
            next.run(request).await
        }
        Err(rejected) => {
            let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
            inner.reject(address, rejected).await
        }
    }
}

impl Inner {
    async fn reject(&self, address: Option<SocketAddr>, rejected: Rejected) -> Response {
        let now = Instant::now();
        let address = address.map(|address| address.ip().to_canonical());
        if lock(&self.throttle).is_time(now) {
            let address = address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
            warn!(address, reason = %rejected, "connection refused");
        }
        let delay = address.map(|address| lock(&self.failures).count(address, now));
        if let (Some(delay), Ok(_permit)) = (delay, self.waiting.try_acquire()) {
            tokio::time::sleep(delay).await;
        }
        (StatusCode::UNAUTHORIZED, format!("{rejected}\n")).into_response()
    }
}

fn with_headers(
    mut response: Response,
    headers: impl IntoIterator<Item = (&'static str, String)>,
) -> Response {
    for (name, value) in headers {
        let value = HeaderValue::from_str(&value).expect("names and base64 are visible ASCII");
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
    response
}

/// How often addresses have failed lately.
#[derive(Default)]
struct Failures(HashMap<IpAddr, (u32, Instant)>);

impl Failures {
    /// Counts a failure, and says how long the answer to it waits.
    fn count(&mut self, address: IpAddr, now: Instant) -> Duration {
        if self.0.len() >= ADDRESSES && !self.0.contains_key(&address) {
            self.0.retain(|_, (_, last)| now.duration_since(*last) < FORGET_AFTER);
            if self.0.len() >= ADDRESSES {
                return FIRST_DELAY;
            }
        }
        let (count, last) = self.0.entry(address).or_insert((0, now));
        if now.duration_since(*last) >= FORGET_AFTER {
            *count = 0;
        }
        let delay = FIRST_DELAY.saturating_mul(1 << (*count).min(16)).min(LONGEST_DELAY);
        (*count, *last) = (count.saturating_add(1), now);
        delay
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each is whole after every single call, so a panic elsewhere cannot harm it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_grows_with_each_failure_of_an_address_and_is_forgotten_after_a_while() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        let [one, other] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        let delays: Vec<_> = (0..8).map(|_| failures.count(one, start).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(failures.count(other, start), FIRST_DELAY);
        assert_eq!(failures.count(one, start + FORGET_AFTER), FIRST_DELAY);
    }

    #[test]
    fn a_flood_from_many_addresses_fills_a_bounded_table() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        for number in 0..5000_u32 {
            failures.count(IpAddr::from(number.to_be_bytes()), start);
        }
        assert_eq!(failures.0.len(), ADDRESSES);
        failures.count(IpAddr::from([255; 4]), start + FORGET_AFTER);
        assert_eq!(failures.0.len(), 1);
    }
}
