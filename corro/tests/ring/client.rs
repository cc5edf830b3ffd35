//! The library's client, for tests: a request without an answer fails the test.

use corro::client::{Endpoint, NDJSON, RequestError};
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use protocol::User;
use serde_json::Value;
use uuid::Uuid;

/// One connection to a gateway.
pub(crate) struct Client(corro::client::Client);

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: bool,
    /// Version of the user, without the quotes.
    pub(crate) tag: Option<String>,
    pub(crate) body: Bytes,
}

impl From<corro::client::Answer> for Answer {
    fn from(corro::client::Answer { status, headers, body }: corro::client::Answer) -> Self {
        let tag = headers.get("etag").map(|tag| tag.to_str().unwrap().trim_matches('"').to_owned());
        Self { status, retry_after: headers.contains_key("retry-after"), tag, body }
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn user(&self) -> User {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Client {
    pub(crate) fn new(port: u16) -> Self {
        Self(corro::client::Client::new(Endpoint::local(port)))
    }

    pub(crate) async fn send(&mut self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.0.send(method, path, body.map(Value::to_string)).await.unwrap().into()
    }

    /// Sends a request to a gateway that may have ended; `None` where there is no answer.
    pub(crate) async fn try_send(&mut self, method: Method, path: &str, body: &Value) -> Option<Answer> {
        match self.0.send(method, path, Some(body.to_string())).await {
            Ok(answer) => Some(answer.into()),
            Err(RequestError::TimedOut(..)) => panic!("no request hangs"),
            Err(_) => None,
        }
    }

    /// Posts lines of JSON.
    pub(crate) async fn stream(&mut self, path: &str, lines: String) -> Answer {
        self.0.send_with(Method::POST, path, &[NDJSON], lines).await.unwrap().into()
    }

    pub(crate) async fn get(&mut self, id: Uuid) -> Answer {
        self.send(Method::GET, &format!("/api/user/{id}"), None).await
    }

    pub(crate) async fn post(&mut self, user: &Value) -> Answer {
        self.send(Method::POST, "/api/user", Some(user)).await
    }

    pub(crate) async fn put(&mut self, user: &Value) -> Answer {
        self.send(Method::PUT, "/api/user", Some(user)).await
    }

    pub(crate) async fn cluster(&mut self) -> Value {
        self.send(Method::GET, "/api/cluster", None).await.json()
    }
}
