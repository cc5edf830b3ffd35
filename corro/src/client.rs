//! The HTTP client: one keep-alive connection to a gateway, one request at a time, no retries.

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode, redirect};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};
use url::{Host, Url};

use crate::terminal::{REMINDER, complain};
use crate::trust::{Trust, cause_of_tls};

/// A gateway answers within its own deadline, which is far below this one.
const DEADLINE: Duration = Duration::from_secs(20);

/// Far more than a page of a thousand of the largest users; what goes on beyond it is something else.
const LONGEST: usize = 256 << 20;

/// No more of an answer is shown.
const LONGEST_EXCERPT: usize = 200;

/// The content type of JSON.
pub const JSON: (&str, &str) = ("content-type", "application/json");

/// The content type of lines of JSON.
pub const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

/// Address of a gateway, and its API token.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub(crate) base: Url,
    /// The value of the header.
    pub(crate) authorization: Option<HeaderValue>,
    /// With https.
    pub(crate) trust: Trust,
}

impl Endpoint {
    /// A gateway on this machine, without a token.
    pub fn local(port: u16) -> Self {
        let address = format!("http://127.0.0.1:{port}");
        Self {
            base: address.parse().expect("a port makes an address"),
            authorization: None,
            trust: Trust::default(),
        }
    }

    /// This one, with a token.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn with_token(self, token: Option<&str>) -> anyhow::Result<Self> {
        Ok(Self { trust: self.trust, ..Self::parse(self.base.as_str(), token)? })
    }

    /// This one, trusted by the certificates of a file alone, where one is given.
    ///
    /// # Errors
    /// Where it holds none.
    pub fn trusting(self, cacert: Option<&Path>) -> anyhow::Result<Self> {
        match cacert {
            Some(file) => Ok(Self { trust: Trust::of_file(file)?, ..self }),
            None => Ok(self),
        }
    }

    /// From an address such as `http://localhost:3001`, and the text of `API_TOKEN`.
    ///
    /// # Errors
    /// Where one of them cannot be used, or has a part that would not be used.
    pub fn parse(address: &str, token: Option<&str>) -> anyhow::Result<Self> {
        let allowed = "allowed: http://host:port or https://host:port, and a path";
        let base =
            Url::parse(address).with_context(|| format!("--url: {address:?} is no address; {allowed}"))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            bail!("--url: {address:?} is not allowed; {allowed}");
        }
        ensure!(
            base.username().is_empty() && base.password().is_none(),
            "--url: a name and a password are not used; a gateway asks for a token: --token-file or API_TOKEN"
        );
        ensure!(
            base.query().is_none() && base.fragment().is_none(),
            "--url: {address:?} has a query or a fragment, which would not be used; {allowed}"
        );
        // A gateway takes each of several; the text may come from a file, with its line end.
        let token = token.and_then(|token| token.split(',').map(str::trim).find(|token| !token.is_empty()));
        let authorization = token.map(|token| {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .context("API_TOKEN (--token): it has a character that no token has")?;
            value.set_sensitive(true);
            anyhow::Ok(value)
        });
        Ok(Self { base, authorization: authorization.transpose()?, trust: Trust::default() })
    }

    /// The path of the address, without a slash at its end.
    pub(crate) fn prefix(&self) -> &str {
        self.base.path().trim_end_matches('/')
    }

    /// Its port, the usual one where none is named.
    pub(crate) fn port(&self) -> Option<u16> {
        self.base.port_or_known_default()
    }

    /// Whether it is on this machine.
    pub(crate) fn is_local(&self) -> bool {
        match self.base.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.base.as_str().trim_end_matches('/'))
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
    /// Why a request was refused: the status, and the problem or the beginning of any other body.
    pub fn reason(&self) -> String {
        if let Some(to) = self.headers.get(LOCATION).filter(|_| self.status.is_redirection()) {
            return format!("{}: the gateway is at {}", self.status, String::from_utf8_lossy(to.as_bytes()));
        }
        let hint = match self.status {
            StatusCode::UNAUTHORIZED => "; --token-file or API_TOKEN gives one (a demo: FOLDER/token)",
            _ => "",
        };
        match serde_json::from_slice::<Problem>(&self.body) {
            Ok(problem) => format!("{}: {problem}{hint}", self.status),
            Err(_) => {
                let text = String::from_utf8_lossy(&self.body);
                format!("{}: {}", self.status, text.chars().take(LONGEST_EXCERPT).collect::<String>())
            }
        }
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

/// Why a request, or a line of one, was refused (RFC 9457).
#[derive(Debug, Deserialize)]
pub(crate) struct Problem {
    pub(crate) r#type: Option<String>,
    pub(crate) detail: String,
    #[serde(default)]
    pub(crate) errors: Vec<InvalidField>,
}

/// What is wrong with a field.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct InvalidField {
    pointer: String,
    detail: String,
}

impl std::fmt::Display for Problem {
    /// The fields say more than the detail, which is the same for all of them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.errors.is_empty() {
            return f.write_str(&self.detail);
        }
        let field = |InvalidField { pointer, detail }: &InvalidField| match pointer.as_str() {
            "" => format!("it {detail}"),
            pointer => format!("{pointer} {detail}"),
        };
        f.write_str(&self.errors.iter().map(field).collect::<Vec<_>>().join("; "))
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// There was no connection, so nothing was sent: to which address, and why.
    #[error("no connection to {0}")]
    Refused(String),
    /// The connection broke: what was sent may have been done.
    #[error("the connection broke to {0}")]
    Broken(String),
    /// No answer came in time: what was sent may have been done.
    #[error("no answer from {0} within {1:?}")]
    TimedOut(String, Duration),
}

/// A connection, made when it is needed.
pub struct Client {
    http: reqwest::Client,
    endpoint: Endpoint,
    deadline: Duration,
    /// Whether to say what is waited for, while that takes long.
    says: bool,
}

impl Client {
    /// Of a gateway, with a deadline of 20 s.
    pub fn new(endpoint: Endpoint) -> Self {
        Self::patient(endpoint, DEADLINE)
    }

    /// With a deadline of its own for the head of an answer, and for each further part of it.
    pub fn patient(endpoint: Endpoint, deadline: Duration) -> Self {
        let mut http = reqwest::Client::builder()
            .connect_timeout(deadline)
            .read_timeout(deadline)
            .redirect(redirect::Policy::none())
            .http1_only()
            .pool_max_idle_per_host(1)
            .user_agent(concat!("corro/", env!("CARGO_PKG_VERSION")))
            .use_preconfigured_tls(endpoint.trust.connector());
        if endpoint.is_local() {
            http = http.no_proxy();
        }
        let http = http.build().expect("nothing of it depends on the system");
        Self { http, endpoint, deadline, says: false }
    }

    /// Says on standard error what it waits for, while that takes long.
    pub(crate) fn that_says(self) -> Self {
        Self { says: true, ..self }
    }

    /// Sends a request, with JSON if there is any, and reads the answer.
    ///
    /// # Errors
    /// Where there is no answer. The next request has a new connection.
    pub async fn send(
        &self,
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
    pub async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> anyhow::Result<T> {
        // Where there is none, the error names the address.
        let answer = self.send(method, path, None).await?;
        answer.json().with_context(|| format!("{}{path}", self.endpoint))
    }

    /// Sends a request with these headers and this body, and reads the answer.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_with(
        &self,
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
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Result<(Answer, Result<(), RequestError>), RequestError> {
        let mut request = self.http.request(method, format!("{}{path}", self.endpoint));
        if let Some(authorization) = &self.endpoint.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_empty() {
            request = request.body(body);
        }
        let mut response = self.patiently(request.send()).await.map_err(|error| self.why(error))?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let mut body = Vec::new();
        let end = loop {
            match self.patiently(response.chunk()).await {
                Ok(Some(_)) if body.len() > LONGEST => {
                    break Err(RequestError::Broken(format!("the answer is longer than {LONGEST} bytes")));
                }
                Ok(Some(data)) => body.extend_from_slice(&data),
                Ok(None) => break Ok(()),
                Err(error) => break Err(self.why(error)),
            }
        };
        Ok((Answer { status, headers, body: body.into() }, end))
    }

    /// Waits, and says now and then what for.
    async fn patiently<T>(&self, answer: impl Future<Output = T>) -> T {
        let (begun, mut answer) = (Instant::now(), pin!(answer));
        if !self.says {
            return answer.await;
        }
        loop {
            match timeout(REMINDER, &mut answer).await {
                Ok(answer) => return answer,
                Err(_) => {
                    let waited = begun.elapsed().as_secs();
                    complain(&format!("Waiting for {} for {waited} s …", self.endpoint));
                }
            }
        }
    }

    fn why(&self, error: reqwest::Error) -> RequestError {
        let (no_connection, late) = (error.is_connect(), error.is_timeout());
        let cause = cause(&anyhow::Error::from(error));
        let address = self.endpoint.to_string();
        match (no_connection, late) {
            (true, _) => RequestError::Refused(format!("{address}: {cause}")),
            (false, true) => RequestError::TimedOut(address, self.deadline),
            (false, false) => RequestError::Broken(format!("{address}: {cause}")),
        }
    }
}

/// Why there is no answer, for people: what is around the cause names the address again, and the libraries.
fn cause(error: &anyhow::Error) -> String {
    let of_tls = error.chain().map(ToString::to_string).find(|text| text.contains("SSL routines"));
    of_tls.map_or_else(|| error.root_cause().to_string(), |text| cause_of_tls(&text))
}

/// How many users there are, as a gateway counts.
#[derive(Deserialize)]
pub(crate) struct Count {
    pub(crate) count: u64,
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn an_address_is_used_as_it_is_or_refused() {
        let parse = |address| Endpoint::parse(address, None).map(|endpoint| endpoint.to_string());
        for (address, used) in [
            ("http://localhost:3001/", "http://localhost:3001"),
            ("http://[::1]", "http://[::1]"),
            ("https://users.example:8443/corro/", "https://users.example:8443/corro"),
        ] {
            assert_eq!(parse(address).unwrap(), used);
        }
        for bad in [
            "localhost:3001",
            "ftp://localhost",
            "nonsense",
            "http://ada:secret@localhost",
            "http://ada@localhost",
            "http://localhost?x=1",
            "http://localhost#x",
            "",
        ] {
            let error = format!("{:#}", parse(bad).unwrap_err());
            assert!(error.starts_with("--url: ") && !error.contains("secret"), "{bad}: {error}");
        }
    }

    #[test]
    fn of_a_list_of_tokens_the_first_is_used() {
        let header = |token| {
            let endpoint = Endpoint::parse("http://localhost", Some(token)).unwrap();
            endpoint.authorization.map(|value| value.to_str().unwrap().to_owned())
        };
        for token in ["sesame", "sesame\n", " sesame , other", ",sesame"] {
            assert_eq!(header(token).as_deref(), Some("Bearer sesame"), "{token:?}");
        }
        assert_eq!((header(""), header(" ,\n")), (None, None));
        assert!(Endpoint::parse("http://localhost", Some("a\nb")).is_err());
    }

    /// A gateway that answers each connection with the same text and closes it. It hands on what it is asked.
    async fn gateway(
        host: &str,
        text: &'static str,
    ) -> (Endpoint, tokio::sync::mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, asked) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap_or(0);
                let _ = sender.send(String::from_utf8_lossy(&request[..length]).into_owned());
                let _ = stream.write_all(text.as_bytes()).await;
            }
        });
        (Endpoint::parse(&format!("http://{address}/below/"), Some("sesame")).unwrap(), asked)
    }

    const HI: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";

    #[tokio::test]
    async fn an_answer_is_read_and_a_closed_connection_is_made_anew() {
        let client = Client::new(gateway("127.0.0.1", HI).await.0);
        for _ in 0..2 {
            let answer = client.send(Method::GET, "/", None).await.unwrap();
            assert_eq!((answer.status, answer.body.as_ref()), (StatusCode::OK, b"hi".as_slice()));
        }
        let error = format!("{:#}", client.ask::<u64>(Method::GET, "/api/x").await.unwrap_err());
        assert!(error.contains("/below/api/x: the answer is not understood"), "{error}");
    }

    #[tokio::test]
    async fn path_host_port_and_token_are_sent() {
        for host in ["127.0.0.1", "::1"] {
            let (endpoint, mut asked) = gateway(host, HI).await;
            let port = endpoint.base.port().unwrap();
            Client::new(endpoint).send(Method::GET, "/api/user", None).await.unwrap();
            let asked = asked.recv().await.unwrap().to_lowercase();
            let host = if host == "::1" { format!("[::1]:{port}") } else { format!("{host}:{port}") };
            assert!(asked.starts_with("get /below/api/user http/1.1\r\n"), "{asked}");
            assert!(asked.contains(&format!("host: {host}\r\n")), "{asked}");
            assert!(asked.contains("authorization: bearer sesame\r\n"), "{asked}");
        }
    }

    #[tokio::test]
    async fn refused_broken_and_late_are_different_errors() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = Endpoint::local(listener.local_addr().unwrap().port());
        let client = Client::patient(silent.clone(), Duration::from_millis(50));
        let get = async |client: &Client| client.send(Method::GET, "/", None).await;
        assert!(matches!(get(&client).await, Err(RequestError::TimedOut(..))));
        drop(listener);
        assert!(matches!(get(&Client::new(silent)).await, Err(RequestError::Refused(_))));
        let client = Client::new(gateway("127.0.0.1", "HTTP/1.1 200 OK\r\ncontent-le").await.0);
        assert!(matches!(get(&client).await, Err(RequestError::Broken(_))));
    }

    #[test]
    fn a_refusal_names_the_fields_or_where_to_go() {
        let answer = |status, headers, body: &'static str| Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: body.into(),
        };
        let wrong = r#"{"type":"t","detail":"d","errors":[{"pointer":"/name","detail":"is required"}]}"#;
        let reason = answer(422, HeaderMap::new(), wrong).reason();
        assert_eq!(reason, "422 Unprocessable Entity: /name is required");
        assert_eq!(answer(502, HeaderMap::new(), "<html>").reason(), "502 Bad Gateway: <html>");
        let to = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static("https://other/"))]);
        assert!(answer(301, to, "").reason().ends_with("the gateway is at https://other/"));
    }
}
