//! What only a real connection shows.

use gateway::http::{HttpSettings, MAX_CONNECTIONS, policy};
use process::server::{Policy, serve};
use process::{Listener, Tls};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::ring::{Api, PATIENCE, anonymous};

/// The API on a port of its own.
pub(crate) struct Server {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) api: Api,
    /// Ends the server.
    pub(crate) shutdown: CancellationToken,
    /// Ends when the server has.
    pub(crate) serving: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(policy(MAX_CONNECTIONS), &anonymous()).await
    }

    pub(crate) async fn with(policy: Policy, settings: &HttpSettings) -> Self {
        Self::open(policy, settings, None).await
    }

    pub(crate) async fn secure(policy: Policy, settings: &HttpSettings, tls: Tls) -> Self {
        Self::open(policy, settings, Some(tls)).await
    }

    async fn open(policy: Policy, settings: &HttpSettings, tls: Option<Tls>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener");
        let api = Api::with(settings);
        let shutdown = CancellationToken::new();
        let listener = Listener::from(listener).with_tls(tls);
        let serving = tokio::spawn(serve(listener, api.router.clone(), policy, shutdown.clone()));
        Self { address, api, shutdown, serving }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the server listens")
    }

    /// Sends the bytes on a new connection, and returns all that comes back until the server closes it.
    pub(crate) async fn exchange(&self, sent: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(sent).await.expect("the server reads all of it");
        rest(&mut stream).await
    }
}

/// All that still comes until the server closes the connection.
pub(crate) async fn rest(stream: &mut TcpStream) -> String {
    let mut received = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut received)).await.expect("an end").expect("no reset");
    String::from_utf8(received).expect("text")
}

pub(crate) fn post(headers: &str, body: &str) -> Vec<u8> {
    let head = "POST /api/user HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                connection: close\r\n";
    format!("{head}{headers}\r\n{body}").into_bytes()
}

#[tokio::test]
async fn what_is_no_http_is_refused_and_harms_no_other_caller() {
    let server = Server::start().await;
    for nonsense in [
        "\r\n\r\n\r\nnonsense\r\n\r\n",
        "GET /health/live\r\n\r\n",
        "GET /health/live HTTP/9.9\r\n\r\n",
        "GET /health/live HTTP/1.1\r\nhost: localhost\r\nno colon\r\n\r\n",
        "POST /api/user HTTP/1.1\r\nhost: localhost\r\ncontent-length: many\r\n\r\n",
        "POST /api/user HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
    ] {
        let answer = server.exchange(nonsense.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{nonsense:?} gave {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "nothing else is answered: {answer:?}");
    }
    let answer =
        server.exchange(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
}

/// Requests may be sent before the answers to those before them have come. What is no request is answered in
/// its turn.
#[tokio::test]
async fn nonsense_behind_a_request_is_refused_after_the_answer() {
    let server = Server::start().await;
    let user = format!("/api/user/{}", crate::ring::ID);
    for (method, path, status) in [
        ("GET", "/health/live", 200),
        ("GET", user.as_str(), 404), // the ring is asked, so that the answer comes later
        ("HEAD", user.as_str(), 404),
        ("DELETE", user.as_str(), 404),
    ] {
        for repeated in [1, 3, 40] {
            let good = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").repeat(repeated);
            for nonsense in ["nonsense\r\n\r\n", "GET /\r\nhost: localhost\r\n\r\n"] {
                let answer = server.exchange(format!("{good}{nonsense}").as_bytes()).await;
                assert_eq!(answer.matches(&format!("HTTP/1.1 {status} ")).count(), repeated, "{answer:?}");
                assert_eq!(answer.matches("HTTP/1.1 400 ").count(), 1, "{answer:?}");
                assert_eq!(answer.matches("x-request-id: ").count(), repeated, "{answer:?}");
                let (_, last) = answer.split_once("HTTP/1.1 400 ").expect("a refusal");
                assert!(!last.contains("HTTP/1.1"), "it comes after the answers: {answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_body_in_chunks_is_read_up_to_the_limit() {
    let server = Server::start().await;
    let user = r#"{"name":"Ada","email":"ada@example.org"}"#;
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let chunks: String = user.split_inclusive(',').map(chunk).collect();
    let answer =
        server.exchange(&post("transfer-encoding: chunked\r\n", &format!("{chunks}0\r\n\r\n"))).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer:?}");

    let large = chunk(&" ".repeat(1_000)).repeat(300);
    let answer = server.exchange(&post("transfer-encoding: chunked\r\n", &format!("{large}0\r\n\r\n"))).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("problem:body-too-large"), "{answer:?}");

    let broken = format!("{}not a length\r\n", chunk("{"));
    let answer = server.exchange(&post("transfer-encoding: chunked\r\n", &broken)).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("problem:malformed-body"), "{answer:?}");
}

/// A caller that sends everything before it reads gets the answer, not a reset connection.
#[tokio::test]
async fn a_large_body_is_refused_with_an_answer() {
    let server = Server::start().await;
    let body = " ".repeat(2 << 20);
    let answer = server.exchange(&post(&format!("content-length: {}\r\n", body.len()), &body)).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("problem:body-too-large"), "{answer:?}");
}

/// One answer, by its `Content-Length`.
pub(crate) async fn answer(stream: &mut BufReader<TcpStream>) -> (String, String) {
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let start = head.len();
        assert_ne!(stream.read_line(&mut head).await.expect("no reset"), 0, "an end after {head:?}");
        if let Some(number) = head[start..].to_lowercase().strip_prefix("content-length: ") {
            length = number.trim().parse().expect("a number");
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("a whole body");
    (head, String::from_utf8(body).expect("text"))
}

/// A caller that sends all of its body before it reads gets every refusal, and goes on with the connection
/// unless it is closed, which is said.
#[tokio::test]
async fn what_is_refused_before_the_body_is_read_is_answered() {
    let guarded = HttpSettings::default();
    let (open, guarded) = (Server::start().await, Server::with(policy(9), &guarded).await);
    let user = format!("/api/user/{}", crate::ring::ID);
    for (server, method, path, status) in [
        (&open, "POST", "/nowhere", 404),
        (&open, "PATCH", "/api/user", 405),
        (&open, "POST", "/api/user", 415),
        (&open, "PATCH", "/api/user/no-id", 400),
        (&open, "POST", "/api/user/bulk", 415),
        (&open, "POST", "/api/user?x=1", 400),
        (&open, "DELETE", &user, 404),
        (&open, "GET", "/health/live", 200),
        (&open, "POST", "/socket.io/?EIO=3&transport=polling", 400),
        (&guarded, "POST", "/api/user", 401),
        (&guarded, "POST", "/api/nothing", 401),
    ] {
        for (length, chunked) in
            [(1, false), (10, true), (100_000, true), (3_000_000, false), (12_000_000, false)]
        {
            let mut stream = BufReader::new(server.connect().await);
            for round in 0..3 {
                let framing = match chunked {
                    true => "transfer-encoding: chunked".to_owned(),
                    false => format!("content-length: {length}"),
                };
                let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{framing}\r\n\r\n");
                let body = " ".repeat(length);
                let body = if chunked { format!("{length:x}\r\n{body}\r\n0\r\n\r\n") } else { body };
                let sent = stream.get_mut().write_all(format!("{head}{body}").as_bytes()).await;
                sent.unwrap_or_else(|error| panic!("{method} {path} {length} {round}: {error}"));
                let (head, body) = answer(&mut stream).await;
                assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path} {length}: {head}");
                assert!(!body.is_empty(), "{head}");
                let closes = head.to_lowercase().contains("connection: close");
                assert_eq!(closes, length > 8 << 20, "{method} {path} {length}: {head}");
                if closes {
                    assert_eq!(rest(stream.get_mut()).await, "");
                    break;
                }
            }
        }
    }
}

/// A caller that waits for the answer before it sends more gets it, and one that has not begun to send is not
/// asked to.
#[tokio::test]
async fn a_refusal_does_not_wait_for_a_body_that_does_not_come() {
    let server = Server::start().await;
    for (headers, sent) in [
        ("expect: 100-continue\r\ncontent-length: 100\r\n", ""),
        ("transfer-encoding: chunked\r\n", "2\r\n{}\r\n"),
        ("content-length: 100\r\n", "{"),
    ] {
        let request = format!("POST /nowhere HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n{sent}");
        let answer = server.exchange(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("connection: close"), "{answer:?}");
    }
}

#[tokio::test]
async fn hosts_and_framings_are_checked_on_the_wire() {
    let server = Server::start().await;
    for (headers, status) in [
        ("", 400),
        ("host: a\r\nhost: b\r\n", 400),
        ("host: localhost\r\ntransfer-encoding: gzip, chunked\r\n", 501),
        ("host: localhost\r\ntransfer-encoding: gzip\r\n", 400),
    ] {
        let request = format!("POST /api/user HTTP/1.1\r\n{headers}connection: close\r\n\r\n0\r\n\r\n");
        let answer = server.exchange(request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{headers:?} {answer:?}");
    }
}

#[tokio::test]
async fn a_large_body_that_is_announced_is_refused_before_it_is_sent() {
    let server = Server::start().await;
    let headers = "expect: 100-continue\r\ncontent-length: 1000000\r\n";
    let answer = server.exchange(&post(headers, "")).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer:?}");
}

#[tokio::test]
async fn head_has_the_headers_and_no_body() {
    let server = Server::start().await;
    let user =
        r#"{"id":"0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071","name":"Ada","email":"ada@example.org","group":0}"#;
    let created = server.exchange(&post(&format!("content-length: {}\r\n", user.len()), user)).await;
    assert!(created.starts_with("HTTP/1.1 201 "), "{created:?}");
    let ask = |method: &str, path: &str| {
        format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nx-request-id: same\r\nconnection: close\r\n\r\n"
        )
        .into_bytes()
    };
    for path in [
        "/api/user/0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071",
        "/api/user/00000000-0000-0000-0000-000000000000",
        "/api/user/no-id",
        "/nothing",
    ] {
        let get = server.exchange(&ask("GET", path)).await;
        let head = server.exchange(&ask("HEAD", path)).await;
        let (headers, body) = get.split_once("\r\n\r\n").expect("headers end");
        assert_eq!(head, format!("{headers}\r\n\r\n"), "the same headers, and nothing after them");
        assert!(headers.contains(&format!("content-length: {}", body.len())), "{headers}");
    }
}
