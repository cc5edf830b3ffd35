//! Creates with an `Idempotency-Key`, as a careful caller makes them: sent again after any trouble until they
//! are answered.
//!
//! A few connections make one user after the other, without choosing ids, all of them in one group that
//! nobody else uses. What got no answer is sent again with its key, and so is every fourth one that did: the
//! second answer has to be the first one, byte for byte. While nothing is under way the number of users in
//! the group, as the ring counts them, has to be the number of keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::client::{Answer, Client, Endpoint};

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

/// Connections that create with keys: at rest, or the tasks that they are at work in.
pub(crate) struct Retries {
    group: i32,
    stop: Arc<AtomicBool>,
    resting: Vec<Connection>,
    working: JoinSet<Connection>,
}

struct Connection {
    client: Client,
    group: i32,
    retried: Retried,
    /// Everyone that was made.
    made: Vec<Uuid>,
}

#[derive(Deserialize)]
struct Made {
    id: Uuid,
}

#[derive(Deserialize)]
struct Count {
    count: u64,
}

impl Retries {
    /// So many connections, at rest. The group is for them alone.
    pub(crate) fn new(endpoint: &Endpoint, connections: usize, group: i32) -> Self {
        let connection = || Connection {
            client: Client::new(endpoint.clone()),
            group,
            retried: Retried::default(),
            made: Vec::new(),
        };
        let resting = (0..connections).map(|_| connection()).collect();
        Self { group, stop: Arc::default(), resting, working: JoinSet::new() }
    }

    /// Sets the connections to work.
    pub(crate) fn start(&mut self) {
        self.stop.store(false, Ordering::Relaxed);
        for connection in self.resting.drain(..) {
            self.working.spawn(connection.work(Arc::clone(&self.stop)));
        }
    }

    /// When this returns, every create has its answer, or is given up.
    pub(crate) async fn pause(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(connection) = self.working.join_next().await {
            self.resting.push(connection.expect("a connection neither panics nor is cancelled"));
        }
    }

    /// Compares the number of users with the number of keys. It must be paused.
    ///
    /// # Errors
    /// Where the ring does not count.
    pub(crate) async fn check(&mut self) -> anyhow::Result<()> {
        let keys: u64 = self.resting.iter().map(|connection| connection.made.len() as u64).sum();
        let Some(connection) = self.resting.first_mut() else { return Ok(()) };
        let path = format!("/api/user/count?group={}", self.group);
        let answer = connection.client.send(Method::GET, &path, None).await.context("no count")?;
        ensure!(answer.status == StatusCode::OK, "{path}: {}", answer.status);
        let Count { count } = serde_json::from_slice(&answer.body).context("no count")?;
        if count != keys {
            connection.retried.is_wrong(format!("{keys} keys made {count} users"));
        }
        Ok(())
    }

    /// Deletes what was created. It must be paused.
    pub(crate) async fn clean_up(&mut self) {
        for mut connection in self.resting.drain(..) {
            self.working.spawn(async move {
                for id in connection.made.drain(..) {
                    let _ = connection.client.send(Method::DELETE, &format!("/api/user/{id}"), None).await;
                }
                connection
            });
        }
        self.pause().await;
    }

    /// What came of all.
    pub(crate) fn retried(&self) -> Retried {
        let mut sum = Retried::default();
        for Connection { retried, .. } in &self.resting {
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
                Ok(Made { id }) => self.made.push(id),
                Err(_) => self.retried.is_wrong("a create was answered without a user".to_owned()),
            }
            if number.is_multiple_of(AGAIN)
                && let Some(second) = self.until_answered(&key, &body).await
                && (&second.body, &second.etag) != (&first.body, &first.etag)
            {
                self.retried.is_wrong("a create that was sent again has another answer".to_owned());
            }
        }
        self
    }

    /// Sends a create until it is answered; `None` where that is given up, which is noted.
    async fn until_answered(&mut self, key: &str, body: &str) -> Option<Answer> {
        for attempt in 0..ATTEMPTS {
            self.retried.sent += 1;
            self.retried.retried += u64::from(attempt == 1);
            match self.client.create(key, body.to_owned()).await {
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
