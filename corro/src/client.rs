//! The HTTP client: one keep-alive connection to a gateway, one request at a time, no retries.

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, HOST};
use hyper::http::request::Builder;
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

/// A gateway answers within its own deadline, which is far below this one.
const DEADLINE: Duration = Duration::from_secs(20);

/// No more of an answer is shown.
const LONGEST_EXCERPT: usize = 200;

/// The content type of JSON.
pub const JSON: (&str, &str) = ("content-type", "application/json");

/// The content type of lines of JSON.
pub const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

// Which gateway a command talks to. Not a doc comment: it would be shown as the help of the command.
#[derive(Args, Debug)]
pub(crate) struct GatewayArgs {
    /// Address of the gateway
    #[arg(long, default_value = "http://localhost:3001", value_name = "URL")]
    pub(crate) url: String,
    /// API token of the gateway
    #[arg(long, alias = "api-token", env = "API_TOKEN", hide_env_values = true, value_name = "TEXT")]
    pub(crate) token: Option<String>,
}

impl GatewayArgs {
    /// # Errors
    /// Where the address is not an `http` address.
    pub(crate) fn endpoint(&self) -> anyhow::Result<Endpoint> {
        Endpoint::parse(&self.url, self.token.as_deref())
    }
}

/// Address of a gateway, and its API token.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) token: Option<String>,
}

impl Endpoint {
    /// A gateway on this machine, without a token.
    pub fn local(port: u16) -> Self {
        Self { host: "127.0.0.1".to_owned(), port, token: None }
    }

    /// From an address such as `http://localhost:3001`.
    ///
    /// # Errors
    /// Where it is not an `http` address.
    pub fn parse(address: &str, token: Option<&str>) -> anyhow::Result<Self> {
        let url = Url::parse(address).with_context(|| format!("{address:?} is not an address"))?;
        ensure!(url.scheme() == "http", "{address:?} is not allowed; allowed: http://host:port");
        let host = url.host_str().with_context(|| format!("{address:?} has no host"))?;
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(), // around an IPv6 address
            port: url.port().unwrap_or(80),
            token: token.map(str::to_owned),
        })
    }

    /// The head of a request.
    pub(crate) fn request(&self, method: Method, path: &str) -> Builder {
        let request = Request::builder().method(method).uri(path).header(HOST, &self.host);
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    /// A connection, for bodies of any kind.
    ///
    /// # Errors
    /// Where there is none.
    pub(crate) async fn connect<B>(&self) -> Result<SendRequest<B>, RequestError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(RequestError::Refused)?;
        stream.set_nodelay(true).map_err(RequestError::Refused)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(RequestError::broken)?;
        tokio::spawn(connection); // it ends with the sender, which has its errors
        Ok(sender)
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// Why a request was refused: the status, and the detail of the problem or the beginning of any other
    /// body.
    pub fn reason(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let problem: Value = serde_json::from_str(&text).unwrap_or_default();
        let detail = problem["detail"].as_str().unwrap_or(&text);
        format!("{}: {}", self.status, detail.chars().take(LONGEST_EXCERPT).collect::<String>())
    }

    /// The body of a successful answer, as JSON.
    ///
    /// # Errors
    /// Where the status is another one, with its reason, or the body is something else.
    pub fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        ensure!(self.status.is_success(), self.reason());
        serde_json::from_slice(&self.body).context("the answer is not understood")
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// There was no connection, so nothing was sent.
    #[error("no connection: {0}")]
    Refused(std::io::Error),
    /// The connection broke: what was sent may have been done.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// No answer came in time: what was sent may have been done.
    #[error("no answer in time")]
    TimedOut,
}

impl RequestError {
    pub(crate) fn broken(error: hyper::Error) -> Self {
        Self::Broken(format!("{:#}", anyhow::Error::from(error)))
    }
}

/// A connection, made when it is needed.
pub struct Client {
    endpoint: Endpoint,
    deadline: Duration,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// Of a gateway, with a deadline of 20 s.
    pub fn new(endpoint: Endpoint) -> Self {
        Self::patient(endpoint, DEADLINE)
    }

    /// With a deadline of its own for the head of an answer, and for each further part of it.
    pub fn patient(endpoint: Endpoint, deadline: Duration) -> Self {
        Self { endpoint, deadline, sender: None }
    }

    /// Sends a request, with JSON if there is any, and reads the answer.
    ///
    /// # Errors
    /// Where there is no answer. The next request has a new connection.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        json: Option<String>,
    ) -> Result<Answer, RequestError> {
        let headers: &[_] = if json.is_some() { &[JSON] } else { &[] };
        self.send_with(method, path, headers, json.unwrap_or_default()).await
    }

    /// Sends a request that expects success and JSON.
    ///
    /// # Errors
    /// Where there is no answer, or another one.
    pub async fn ask<T: DeserializeOwned>(&mut self, method: Method, path: &str) -> anyhow::Result<T> {
        let answer = self.send(method, path, None).await.map_err(anyhow::Error::from);
        answer.and_then(|answer| answer.json()).with_context(|| path.to_owned())
    }

    /// Sends a request with these headers and this body, and reads the answer.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_with(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Result<Answer, RequestError> {
        let (answer, end) = self.send_for_part(method, path, headers, body).await?;
        end.map(|()| answer)
    }

    /// As [`Self::send_with`], but returns what there is of an answer that breaks or stops to come, and how
    /// it ended.
    pub(crate) async fn send_for_part(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Result<(Answer, Result<(), RequestError>), RequestError> {
        let request = headers.iter().fold(self.endpoint.request(method, path), |request, (name, value)| {
            request.header(*name, *value)
        });
        let request = request.body(Full::from(body));
        let request = request.map_err(|error| RequestError::Broken(error.to_string()))?;
        let outcome = self.exchange(request).await;
        if !matches!(outcome, Ok((_, Ok(())))) {
            self.sender = None;
        }
        outcome
    }

    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Answer, Result<(), RequestError>), RequestError> {
        let deadline = self.deadline;
        let response =
            async { self.connected().await?.send_request(request).await.map_err(RequestError::broken) };
        let response = timeout(deadline, response).await.unwrap_or(Err(RequestError::TimedOut))?;
        let (head, mut frames) = response.into_parts();
        let mut body = Vec::new();
        let end = loop {
            match timeout(deadline, frames.frame()).await {
                Ok(Some(Ok(frame))) => body.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                Ok(Some(Err(error))) => break Err(RequestError::broken(error)),
                Ok(None) => break Ok(()),
                Err(_) => break Err(RequestError::TimedOut),
            }
        };
        Ok((Answer { status: head.status, headers: head.headers, body: body.into() }, end))
    }

    /// The connection, which is made where there is none or it was closed since the last answer.
    async fn connected(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, RequestError> {
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
        let error = client.ask::<u64>(Method::GET, "/api/x").await.unwrap_err();
        assert_eq!(
            format!("{error:#}").split(": expected").next(),
            Some("/api/x: the answer is not understood")
        );
    }

    #[tokio::test]
    async fn refused_and_broken_are_different_errors() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let mut client = Client::new(Endpoint::parse(&address, None).unwrap());
        assert!(matches!(client.send(Method::GET, "/", None).await, Err(RequestError::Refused(_))));
        let mut client = Client::new(gateway("HTTP/1.1 200 OK\r\ncontent-le").await);
        assert!(matches!(client.send(Method::GET, "/", None).await, Err(RequestError::Broken(_))));
    }
}
