//! A small HTTP client: one keep-alive connection, one request at a time.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use protocol::User;
use serde_json::Value;
use tokio::net::TcpStream;
use uuid::Uuid;

/// Nothing that a test asks takes longer, unless it hangs.
const DEADLINE: Duration = Duration::from_secs(20);

/// One connection to a gateway.
pub(crate) struct Client {
    port: u16,
    sender: SendRequest<Full<Bytes>>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: bool,
    /// Version of the user, without the quotes.
    pub(crate) tag: Option<String>,
    pub(crate) body: Bytes,
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
    pub(crate) async fn connect(port: u16) -> Self {
        Self { port, sender: connection(port).await }
    }

    pub(crate) async fn send(&mut self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let body = body.map(|body| ("application/json", body.to_string()));
        self.send_text(method, path, body).await
    }

    /// Posts lines of JSON.
    pub(crate) async fn stream(&mut self, path: &str, lines: String) -> Answer {
        self.send_text(Method::POST, path, Some(("application/x-ndjson", lines))).await
    }

    async fn send_text(&mut self, method: Method, path: &str, body: Option<(&str, String)>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        if let Some((r#type, _)) = &body {
            request = request.header("content-type", *r#type);
        }
        let request = request.body(Full::from(body.map(|(_, text)| text).unwrap_or_default())).unwrap();
        if self.sender.is_closed() {
            self.sender = connection(self.port).await;
        }
        let exchange = async {
            let response = self.sender.send_request(request).await.unwrap();
            let (head, body) = response.into_parts();
            let retry_after = head.headers.contains_key("retry-after");
            let tag = tag_of(&head.headers);
            Answer { status: head.status, retry_after, tag, body: body.collect().await.unwrap().to_bytes() }
        };
        tokio::time::timeout(DEADLINE, exchange).await.expect("no request hangs")
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

/// Sends a request through whatever gateway is there now; `None` where there is none, or the connection
/// breaks.
pub(crate) async fn try_send(
    client: &mut Client,
    method: Method,
    path: &str,
    body: &Value,
) -> Option<Answer> {
    if client.sender.is_closed() {
        let stream = TcpStream::connect(("127.0.0.1", client.port)).await.ok()?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        client.sender = sender;
    }
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    let request =
        request.header("content-type", "application/json").body(Full::from(body.to_string())).unwrap();
    let exchange = async {
        let (head, body) = client.sender.send_request(request).await.ok()?.into_parts();
        let retry_after = head.headers.contains_key("retry-after");
        let tag = tag_of(&head.headers);
        Some(Answer { status: head.status, retry_after, tag, body: body.collect().await.ok()?.to_bytes() })
    };
    tokio::time::timeout(DEADLINE, exchange).await.expect("no request hangs")
}

async fn connection(port: u16) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn tag_of(headers: &hyper::HeaderMap) -> Option<String> {
    headers.get("etag").map(|tag| tag.to_str().unwrap().trim_matches('"').to_owned())
}
