//! Creates with an `Idempotency-Key`, as a careful caller makes them: sent again after any error until they
//! are answered.
//!
//! A few connections make one user after the other, without choosing ids, all of them in one group that no
//! other user is in. What got no answer is sent again with its key, and so is every fourth one that did: the
//! second answer has to be the first one, byte for byte. While nothing is under way the number of users in
//! the group, as the ring counts them, has to be the number of keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use protocol::User;
use reqwest::header::ETAG;
use reqwest::{Method, StatusCode};
use serde::Serialize;
use uuid::Uuid;

use super::Crew;
use crate::client::{Answer, Client, Count, Endpoint, JSON};

/// A create that got no answer is sent again after this time.
const PAUSE: Duration = Duration::from_millis(10);

/// A create that is still not answered after so many attempts has failed.
const ATTEMPTS: u64 = 3_000;

/// Every so many creates one that was answered is sent again.
const AGAIN: u64 = 4;

/// No more of these is kept: they are alike.
const KEPT: usize = 10;

/// What came of the creates.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Retried {
    /// Users made, one for each key.
    pub(crate) keys: u64,
    /// Requests that it took.
    pub(crate) sent: u64,
    /// Keys that were sent again because there was no answer, or one that says to try again.
    pub(crate) retried: u64,
    /// What was not as promised.
    pub(crate) wrong: Vec<String>,
}

impl Retried {
    fn is_wrong(&mut self, what: String) {
        if self.wrong.len() < KEPT {
            self.wrong.push(what);
        }
    }
}

/// Connections that create with keys.
pub(crate) struct Retries {
    group: i32,
    stop: Arc<AtomicBool>,
    connections: Crew<Connection>,
}

struct Connection {
    client: Client,
    group: i32,
    retried: Retried,
    /// All users that it has made.
    made: Vec<Uuid>,
}

impl Retries {
    /// So many connections, at rest.
    pub(crate) fn new(endpoint: &Endpoint, connections: usize) -> Self {
        // No other user is in that group, in all probability.
        let group = i32::from_ne_bytes(Uuid::new_v4().as_fields().0.to_ne_bytes());
        let connection = |_| Connection {
            client: Client::new(endpoint.clone()),
            group,
            retried: Retried::default(),
            made: Vec::new(),
        };
        let connections = Crew::new((0..connections).map(connection).collect());
        Self { group, stop: Arc::default(), connections }
    }

    /// Sets the connections to work.
    pub(crate) fn start(&mut self) {
        self.stop.store(false, Ordering::Relaxed);
        self.connections.start(|_, connection| connection.work(Arc::clone(&self.stop)));
    }

    /// When this returns, every create has its answer, or is given up.
    pub(crate) async fn pause(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.connections.rest().await;
    }

    /// Compares the number of users with the number of keys. It must be paused.
    ///
    /// # Errors
    /// Where the ring does not count.
    pub(crate) async fn check(&mut self) -> anyhow::Result<()> {
        let resting = &mut self.connections.resting;
        let keys: u64 = resting.iter().map(|connection| connection.made.len() as u64).sum();
        let Some(connection) = resting.first_mut() else { return Ok(()) };
        let path = format!("/api/user/count?group={}", self.group);
        let Count { count } = connection.client.ask(Method::GET, &path).await?;
        if count != keys {
            connection.retried.is_wrong(format!("{keys} keys made {count} users"));
        }
        Ok(())
    }

    /// Deletes what was created. It must be paused.
    pub(crate) async fn clean_up(&mut self) {
        self.connections.start(|_, mut connection| async move {
            for id in connection.made.drain(..) {
                let _ = connection.client.send(Method::DELETE, &format!("/api/user/{id}"), None).await;
            }
            connection
        });
        self.connections.rest().await;
    }

    /// What came of all.
    pub(crate) fn retried(&self) -> Retried {
        let mut sum = Retried::default();
        for Connection { retried, .. } in &self.connections.resting {
            sum.keys += retried.keys;
            sum.sent += retried.sent;
            sum.retried += retried.retried;
            retried.wrong.iter().for_each(|wrong| sum.is_wrong(wrong.clone()));
        }
        sum
    }
}

impl Connection {
    async fn work(mut self, stop: Arc<AtomicBool>) -> Self {
        while !stop.load(Ordering::Relaxed) {
            let key = Uuid::new_v4().to_string();
            let number = self.retried.keys;
            let body =
                format!(r#"{{"name":"retry {number}","email":"retry@example.org","group":{}}}"#, self.group);
            let Some(first) = self.until_answered(&key, &body).await else { continue };
            self.retried.keys += 1;
            match serde_json::from_slice(&first.body) {
                Ok(User { id, .. }) => self.made.push(id),
                Err(_) => self.retried.is_wrong("a create was answered without a user".to_owned()),
            }
            if number.is_multiple_of(AGAIN)
                && let Some(second) = self.until_answered(&key, &body).await
                && (&second.body, second.headers.get(ETAG)) != (&first.body, first.headers.get(ETAG))
            {
                self.retried.is_wrong("a create that was sent again has another answer".to_owned());
            }
        }
        self
    }

    /// Sends a create until it is answered; `None` where that is given up, which is noted.
    async fn until_answered(&mut self, key: &str, body: &str) -> Option<Answer> {
        let headers = [JSON, ("idempotency-key", key)];
        for attempt in 0..ATTEMPTS {
            self.retried.sent += 1;
            self.retried.retried += u64::from(attempt == 1);
            match self.client.send_with(Method::POST, "/api/user", &headers, body.to_owned()).await {
                Ok(answer) if answer.status == StatusCode::CREATED => return Some(answer),
                Ok(answer) if answer.status.is_server_error() => {}
                Ok(answer) => {
                    self.retried.is_wrong(format!("a create with a key: {}", answer.status));
                    return None;
                }
                Err(_) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.retried.is_wrong(format!("a create has no answer after {ATTEMPTS} attempts"));
        None
    }
}
