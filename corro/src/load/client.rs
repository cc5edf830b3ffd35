//! One keep-alive connection to a gateway: one request at a time, no retries.

use std::time::Duration;

use anyhow::{Context, ensure};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HOST, HeaderValue};
use hyper::http::request::Builder;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use url::Url;

/// A gateway answers within its own deadline, which is far below this one.
const DEADLINE: Duration = Duration::from_secs(20);

/// Where a gateway is, and what it wants to be shown.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    host: String,
    port: u16,
    authorization: Option<String>,
}

impl Endpoint {
    /// # Errors
    /// Where it is no `http` address.
    pub(crate) fn parse(address: &str, token: Option<&str>) -> anyhow::Result<Self> {
        let url = Url::parse(address).with_context(|| format!("{address:?} is no address"))?;
        ensure!(url.scheme() == "http", "{address:?} is not allowed; allowed: http://host:port");
        let host = url.host_str().with_context(|| format!("{address:?} names no host"))?;
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(), // around an IPv6 address
            port: url.port().unwrap_or(80),
            authorization: token.map(|token| format!("Bearer {token}")),
        })
    }

    /// The head of a request.
    pub(crate) fn request(&self, method: Method, path: &str) -> Builder {
        let request = Request::builder().method(method).uri(path).header(HOST, &self.host);
        match &self.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization),
            None => request,
        }
    }

    /// A connection, for bodies of any kind.
    ///
    /// # Errors
    /// Where there is none.
    pub(crate) async fn connect<B>(&self) -> Result<SendRequest<B>, Trouble>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(Trouble::Refused)?;
        stream.set_nodelay(true).map_err(Trouble::Refused)?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| Trouble::Broken(in_full(&error)))?;
        tokio::spawn(connection); // it ends with the sender, and its trouble is the sender's
        Ok(sender)
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) etag: Option<HeaderValue>,
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// There was no connection, so nothing was sent.
    #[error("no connection: {0}")]
    Refused(std::io::Error),
    /// The connection broke: what was sent may have been done.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// Nothing came in time: what was sent may have been done.
    #[error("no answer in time")]
    Late,
}

/// One connection, made when it is needed.
pub(crate) struct Client {
    endpoint: Endpoint,
    deadline: Duration,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self::patient(endpoint, DEADLINE)
    }

    /// One for questions that may take longer.
    pub(crate) fn patient(endpoint: Endpoint, deadline: Duration) -> Self {
        Self { endpoint, deadline, sender: None }
    }

    /// Sends a request and reads the answer. After any trouble the next request has a new connection.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        json: Option<String>,
    ) -> Result<Answer, Trouble> {
        self.send_keyed(method, path, json, None).await
    }

    /// Creates a user with an `Idempotency-Key`.
    pub(crate) async fn create(&mut self, key: &str, json: String) -> Result<Answer, Trouble> {
        self.send_keyed(Method::POST, "/api/user", Some(json), Some(key)).await
    }

    async fn send_keyed(
        &mut self,
        method: Method,
        path: &str,
        json: Option<String>,
        key: Option<&str>,
    ) -> Result<Answer, Trouble> {
        let exchange = tokio::time::timeout(self.deadline, self.exchange(method, path, json, key)).await;
        let outcome = exchange.unwrap_or(Err(Trouble::Late));
        if outcome.is_err() {
            self.sender = None;
        }
        outcome
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        json: Option<String>,
        key: Option<&str>,
    ) -> Result<Answer, Trouble> {
        let mut request = self.endpoint.request(method, path);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if json.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::from(json.unwrap_or_default()));
        let request = request.map_err(|error| Trouble::Broken(error.to_string()))?;
        let broken = |error: hyper::Error| Trouble::Broken(in_full(&error));
        let response = self.connected().await?.send_request(request).await.map_err(broken)?;
        let (mut head, body) = response.into_parts();
        let etag = head.headers.remove(ETAG);
        Ok(Answer { status: head.status, etag, body: body.collect().await.map_err(broken)?.to_bytes() })
    }

    /// The connection, which is made where there is none or it was closed since the last answer.
    async fn connected(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, Trouble> {
        let usable = match &mut self.sender {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            self.sender = None;
            self.sender = Some(self.endpoint.connect().await?);
        }
        Ok(self.sender.as_mut().expect("it was made just now, or is usable"))
    }
}

/// An error with its causes.
pub(crate) fn in_full(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn an_address_is_understood_or_refused() {
        let endpoint = Endpoint::parse("http://localhost:3001/", None).unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port), ("localhost", 3001));
        assert_eq!(Endpoint::parse("http://[::1]", None).unwrap().host, "::1");
        for bad in ["localhost:3001", "https://localhost", "nonsense"] {
            assert!(Endpoint::parse(bad, None).is_err(), "{bad}");
        }
    }

    /// A gateway that answers each connection with the same text and closes it.
    async fn gateway(text: &'static str) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(text.as_bytes()).await;
            }
        });
        Endpoint::parse(&format!("http://127.0.0.1:{port}"), Some("sesame")).unwrap()
    }

    #[tokio::test]
    async fn an_answer_is_read_and_a_closed_connection_is_made_anew() {
        let text = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
        let mut client = Client::new(gateway(text).await);
        for _ in 0..2 {
            let answer = client.send(Method::GET, "/", None).await.unwrap();
            assert_eq!((answer.status, answer.body.as_ref()), (StatusCode::OK, b"hi".as_slice()));
        }
    }

    #[tokio::test]
    async fn refused_and_broken_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let mut client = Client::new(Endpoint::parse(&nobody, None).unwrap());
        assert!(matches!(client.send(Method::GET, "/", None).await, Err(Trouble::Refused(_))));
        let mut client = Client::new(gateway("HTTP/1.1 200 OK\r\ncontent-le").await);
        assert!(matches!(client.send(Method::GET, "/", None).await, Err(Trouble::Broken(_))));
    }
}
