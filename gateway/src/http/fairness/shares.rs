//! Places, of which one client has a part.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntCounter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::client::Client;
use crate::http::kind::Kind;
use crate::http::problem::Problem;

/// What each client may have of something. All clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Shares(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Of one client.
    most: usize,
    /// What a refusal says.
    detail: &'static str,
    refused: IntCounter,
    /// Only of clients that have a place, or wait for one: each of them has a connection.
    clients: Mutex<HashMap<Client, Places>>,
}

#[derive(Debug)]
struct Places {
    free: Arc<Semaphore>,
    /// How many have a place, or wait for one.
    users: usize,
}

impl Shares {
    pub(crate) fn new(most: usize, detail: &'static str, refused: IntCounter) -> Self {
        Self(Arc::new(Inner { most, detail, refused, clients: Mutex::default() }))
    }

    /// A place, if there is one.
    ///
    /// # Errors
    /// 429.
    pub(crate) fn take(&self, client: &Client) -> Result<Share, Problem> {
        let visit = self.enter(client);
        let permit = Arc::clone(&visit.free).try_acquire_owned();
        permit.map(|permit| Share { _permit: permit, _visit: visit }).map_err(|_| self.refusal())
    }

    /// A place, as soon as there is one.
    pub(crate) async fn wait(&self, client: &Client) -> Share {
        let visit = self.enter(client);
        let permit = Arc::clone(&visit.free).acquire_owned().await;
        Share { _permit: permit.expect("these semaphores are never closed"), _visit: visit }
    }

    /// What a client is answered that has as many as it may have.
    pub(crate) fn refusal(&self) -> Problem {
        self.0.refused.inc();
        Problem::new(Kind::TooManyStreams, self.0.detail)
    }

    fn enter(&self, client: &Client) -> Visit {
        let mut clients = self.0.clients();
        let free = || Arc::new(Semaphore::new(self.0.most));
        let places = clients.entry(client.clone()).or_insert_with(|| Places { free: free(), users: 0 });
        places.users += 1;
        Visit { client: client.clone(), free: Arc::clone(&places.free), inner: Arc::clone(&self.0) }
    }

    /// How many clients are remembered.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.clients().len()
    }
}

impl Inner {
    fn clients(&self) -> MutexGuard<'_, HashMap<Client, Places>> {
        // Each change is whole before anything that can panic.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    _permit: OwnedSemaphorePermit,
    _visit: Visit,
}

/// One that has a place or waits for one. The last of a client takes its entry away.
#[derive(Debug)]
struct Visit {
    client: Client,
    free: Arc<Semaphore>,
    inner: Arc<Inner>,
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut clients = self.inner.clients();
        if let Some(places) = clients.get_mut(&self.client) {
            places.users -= 1;
            if places.users == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn each_client_has_its_places_and_none_is_remembered() {
        let refused = IntCounter::new("refused", "Refused.").expect("a name");
        let shares = Shares::new(2, "Enough.", refused.clone());
        let [a, b] = ["a", "b"].map(|name| Client::Token(Arc::from(name)));
        let of_a = [(); 2].map(|()| shares.take(&a).expect("a place"));
        assert_eq!(shares.take(&a).expect_err("enough").kind(), Kind::TooManyStreams);
        let of_b = shares.take(&b).expect("a place of another client");
        assert_eq!((shares.len(), refused.get()), (2, 1));
        let mut waiting = Box::pin(shares.wait(&a));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(of_a);
        let late = waiting.now_or_never().expect("it has waited for this place");
        drop(of_b);
        assert_eq!(shares.len(), 1);
        drop(late);
        assert_eq!(shares.len(), 0);
    }
}
