//! The same API with TLS: which versions and protocols, what strangers may cost before and during a
//! handshake, and certificates that change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode, Version};
use gateway::http::{policy, tls};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use process::server::Policy;
use process::{Tls, TlsFiles, provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::ring::{ID, PATIENCE, anonymous};
use crate::tcp::{Server, rest};

const NAME: &str = "api.example.org";

/// The files of a certificate.
struct Certificate(TempDir);

impl Certificate {
    fn new() -> Self {
        let made = Self(tempfile::tempdir().expect("a folder"));
        made.renew();
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn renew(&self) {
        let names = [NAME.to_owned(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let write = |name, text: String| std::fs::write(self.path(name), text).expect("a file");
        write("key", made.signing_key.serialize_pem());
        write("cert", made.cert.pem());
    }

    fn files(&self) -> TlsFiles {
        let (cert, key) = (self.path("cert"), self.path("key"));
        TlsFiles::given("TLS", Some(&cert), Some(&key)).expect("both").expect("both")
    }

    fn open(&self) -> Tls {
        tls(self.files()).expect("a certificate and its key")
    }

    fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path("cert")).expect("a certificate")
    }

    /// A client that trusts it, and speaks one protocol in one version of TLS.
    fn client(&self, protocol: &str, version: &'static SupportedProtocolVersion) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.der()).expect("a certificate");
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]);
        let mut config = builder.expect("a version").with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

async fn start(certificate: &Certificate, policy: Policy) -> Server {
    Server::secure(policy, &anonymous(), certificate.open()).await
}

async fn shake_hands(server: &Server, client: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(NAME).expect("a name");
    let stream = client.connect(name, server.connect().await);
    timeout(PATIENCE, stream).await.expect("an end of the handshake")
}

/// A connection over which requests are sent.
enum Sender {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

impl Sender {
    async fn new(stream: TlsStream<TcpStream>) -> Self {
        let two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(stream);
        if two {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), io).await.expect("a connection");
            tokio::spawn(connection);
            Self::Two(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await.expect("a connection");
            tokio::spawn(connection);
            Self::One(sender)
        }
    }

    async fn to(server: &Server, client: &TlsConnector) -> Self {
        Self::new(shake_hands(server, client).await.expect("a handshake")).await
    }

    async fn send(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::One(sender) => timeout(PATIENCE, sender.send_request(request)).await.expect("an answer"),
            Self::Two(sender) => timeout(PATIENCE, sender.send_request(request)).await.expect("an answer"),
        }
    }

    /// With the host where the protocol has it.
    fn request(&self, method: &str, host: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
        let request = Request::builder().method(method).header("content-type", "application/json");
        let request = match self {
            Self::One(_) => request.uri(path).header("host", host),
            Self::Two(_) => request.uri(format!("https://{host}{path}")),
        };
        request.body(body.into()).expect("a request")
    }

    async fn status(&mut self, method: &str, host: &str, path: &str, body: impl Into<Body>) -> StatusCode {
        let request = self.request(method, host, path, body);
        let response = self.send(request).await.expect("an answer");
        let status = response.status();
        timeout(PATIENCE, response.into_body().collect()).await.expect("an end").expect("a whole body");
        status
    }
}

#[tokio::test]
async fn both_versions_and_both_protocols_have_the_same_api() {
    let certificate = Certificate::new();
    let server = start(&certificate, policy(16)).await;
    for (protocol, version) in [
        ("http/1.1", &version::TLS12),
        ("http/1.1", &version::TLS13),
        ("h2", &version::TLS12),
        ("h2", &version::TLS13),
    ] {
        let client = certificate.client(protocol, version);
        let stream = shake_hands(&server, &client).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        let mut sender = Sender::new(stream).await;
        let request = sender.request("GET", "127.0.0.1", "/health/live", Body::empty());
        let response = sender.send(request).await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.version(), if protocol == "h2" { Version::HTTP_2 } else { Version::HTTP_11 });
        assert_eq!(response.headers()["strict-transport-security"], "max-age=31536000");
        let request = sender.request("GET", "localhost:3001", "/health/live", Body::empty());
        let response = sender.send(request).await.expect("an answer");
        assert!(!response.headers().contains_key("strict-transport-security"), "for all ports of a desk");
        let user = format!("/api/user/{ID}");
        let body = format!(r#"{{"id":"{ID}","name":"Ada","email":"ada@example.org"}}"#);
        assert_eq!(sender.status("POST", "localhost", "/api/user", body).await, 201);
        assert_eq!(sender.status("GET", "localhost", &user, Body::empty()).await, 200);
        assert_eq!(sender.status("DELETE", "localhost", &user, Body::empty()).await, 204);
        // As without TLS.
        assert_eq!(sender.status("GET", "evil.example", &user, Body::empty()).await, 421);
        assert_eq!(sender.status("POST", "localhost", "/api/user", " ".repeat(300_000)).await, 413);
        assert_eq!(sender.status("POST", "localhost", "/nowhere", " ".repeat(300_000)).await, 404);
    }
}

#[tokio::test]
async fn requests_of_one_connection_of_http_2_are_answered_together_and_are_limited() {
    let certificate = Certificate::new();
    let server = start(&certificate, policy(16)).await;
    let client = certificate.client("h2", &version::TLS13);
    let Sender::Two(sender) = Sender::to(&server, &client).await else { panic!("not HTTP/2") };
    let ask = |number: usize| {
        let mut sender = Sender::Two(sender.clone());
        async move {
            let path = format!("/api/user/{number:032x}");
            sender.status("GET", "localhost", &path, Body::empty()).await
        }
    };
    assert_eq!(ask(1).await, 404);
    let answers = futures_util::future::join_all((0..200).map(ask)).await;
    assert!(answers.iter().all(|status| *status == 404), "{answers:?}");
    let mut sender = Sender::Two(sender);
    let mut request = sender.request("GET", "localhost", "/health/live", Body::empty());
    request.headers_mut().insert("x-long", "x".repeat(20_000).parse().expect("a header"));
    let refused = sender.send(request).await.map(|response| response.status());
    assert!(refused.is_err() || refused.is_ok_and(|status| status == 431));
}

#[tokio::test]
async fn what_speaks_no_tls_is_told_so() {
    let server = start(&Certificate::new(), policy(16)).await;
    let answer = server.exchange(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"), "{answer:?}");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{answer:?}");
}

/// Bytes that begin a handshake which never ends.
const BEGUN: &[u8] = &[22, 3, 1, 2, 0, 1, 0];

#[tokio::test]
async fn a_handshake_has_its_time() {
    let certificate = Certificate::new();
    let limits = Policy { handshake: Duration::from_millis(300), ..policy(16) };
    let server = start(&certificate, limits).await;
    let mut stream = server.connect().await;
    stream.write_all(BEGUN).await.expect("sent");
    let begun = Instant::now();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end");
    assert!(begun.elapsed() < Duration::from_secs(10), "the idle time of a connection is far longer");
    // Where it says nothing at all, the idle time counts.
    let idle = Policy { idle: Duration::from_millis(300), ..policy(16) };
    let server = start(&certificate, idle).await;
    assert_eq!(rest(&mut server.connect().await).await, "");
}

#[tokio::test]
async fn a_flood_of_handshakes_closes_its_own() {
    let certificate = Certificate::new();
    // Of an address, half of them.
    let server = start(&certificate, policy(16)).await;
    let client = certificate.client("h2", &version::TLS13);
    let mut sender = Sender::to(&server, &client).await;
    let mut flood = Vec::new();
    for _ in 0..40 {
        let mut stream = server.connect().await;
        // It may have lost its place already.
        let _ = stream.write_all(BEGUN).await;
        flood.push(stream);
        assert_eq!(
            Sender::to(&server, &client).await.status("GET", "localhost", "/health/live", "").await,
            200
        );
    }
    // It waited longest.
    let request = sender.request("GET", "localhost", "/health/live", "");
    assert!(sender.send(request).await.is_err());
}

/// Requests go on, on old connections and on new ones, while the files change.
#[tokio::test]
async fn a_new_certificate_breaks_no_connection() {
    let certificate = Certificate::new();
    let (old, tls) = (certificate.der(), certificate.open());
    let server = Server::secure(policy(16), &anonymous(), tls.clone()).await;
    let shutdown = CancellationToken::new();
    let watching = tokio::spawn(tls.watch(shutdown.clone()));
    let ask = async |sender: &mut Sender| {
        assert_eq!(sender.status("GET", "localhost", "/health/live", "").await, 200);
    };
    let before = certificate.client("h2", &version::TLS13);
    let mut kept = Sender::to(&server, &before).await;
    ask(&mut kept).await;
    // Half of a change is none.
    std::fs::write(certificate.path("key"), "nonsense").expect("a file");
    certificate.renew();
    let after = certificate.client("http/1.1", &version::TLS12);
    let deadline = Instant::now() + PATIENCE;
    loop {
        ask(&mut kept).await;
        if let Ok(stream) = shake_hands(&server, &after).await {
            let shown = stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone();
            assert_eq!(shown, certificate.der());
            assert_ne!(shown, old);
            ask(&mut Sender::new(stream).await).await;
            break;
        }
        // Not yet: the old one is still shown.
        if let Ok(stream) = shake_hands(&server, &before).await {
            ask(&mut Sender::new(stream).await).await;
        }
        assert!(Instant::now() < deadline, "the new certificate is not shown");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ask(&mut kept).await;
    shutdown.cancel();
    watching.await.expect("no panic");
}

#[tokio::test]
async fn the_health_check_asks_with_tls() {
    let certificate = Certificate::new();
    let server = start(&certificate, policy(16)).await;
    let port = server.address.port();
    let files = certificate.files();
    let ask = move |tls: bool| {
        let tls = tls.then(|| process::self_trusting(&files).expect("nothing is shown"));
        let addresses = "127.0.0.1".parse().expect("an address");
        process::probe_at(&addresses, port, "/health/live", tls)
    };
    let asked = tokio::task::spawn_blocking(move || (ask(true), ask(false))).await.expect("no panic");
    assert_eq!(asked.0, Ok(()));
    assert!(asked.1.is_err_and(|line| line.contains("400")));
}
