//! A port for processes of the ring, as strangers and members see it.

use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, UPGRADE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::TokioIo;
use process::server::{Policy, serve};
use process::{Addresses, listen};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

/// Becomes an echo.
async fn join(request: Request) -> Response {
    tokio::spawn(async move {
        // There may be too many.
        if let Ok(stream) = hyper::upgrade::on(request).await {
            let (mut from, mut to) = split(TokioIo::new(stream));
            let _ = copy(&mut from, &mut to).await;
        }
    });
    (StatusCode::SWITCHING_PROTOCOLS, [(CONNECTION, "upgrade"), (UPGRADE, "echo")]).into_response()
}

fn start(policy: Policy) -> SocketAddr {
    let router = Router::new()
        .route("/health/live", get(async || "live"))
        .route("/join", get(join))
        .route("/late", get(pending::<()>));
    let listener = listen(&Addresses::loopback(), 0).expect("an open port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(serve(listener, router, policy, CancellationToken::new()));
    address
}

async fn send(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("an open port");
    stream.write_all(bytes).await.expect("sent");
    stream
}

/// All that comes until the connection ends.
async fn rest(mut stream: TcpStream) -> String {
    let mut received = Vec::new();
    // It may be a reset, where it was still sending.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut received)).await.expect("an end");
    String::from_utf8(received).expect("text")
}

/// A member, or the status with which it was refused.
async fn join_at(address: SocketAddr) -> Result<TcpStream, String> {
    let mut stream =
        send(address, b"GET /join HTTP/1.1\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(PATIENCE, stream.read_u8()).await.expect("an answer").expect("no end"));
    }
    let status = String::from_utf8_lossy(&head[9..12]).into_owned();
    if status == "101" { Ok(stream) } else { Err(status) }
}

/// Whether what is said comes back.
async fn echoes(stream: &mut TcpStream) -> bool {
    let said = stream.write_all(b"!").await;
    said.is_ok() && timeout(PATIENCE, stream.read_u8()).await.expect("an answer or an end").is_ok()
}

#[tokio::test]
async fn a_flood_of_strangers_closes_strangers_and_no_member() {
    let address = start(Policy::inner("TEST", 2));
    let mut member = join_at(address).await.unwrap();
    assert!(echoes(&mut member).await);
    let mut flood = Vec::new();
    for sent in [b"".as_slice(), b"GET /health/live"].repeat(150) {
        // What is closed at once takes no bytes.
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(sent).await;
        flood.push(stream);
    }
    assert_eq!(rest(flood.swap_remove(0)).await, "");
    assert!(echoes(&mut member).await);
    let mut another = join_at(address).await.expect("a member comes in while the flood is there");
    assert!(echoes(&mut another).await);
    assert_eq!(join_at(address).await.unwrap_err(), "503", "there are as many as there may be");
    // A flood of requests that are answered late.
    let mut late = Vec::new();
    for _ in 0..150 {
        late.push(send(address, b"GET /late HTTP/1.1\r\nhost: localhost\r\n\r\n").await);
    }
    assert_eq!(rest(late.swap_remove(0)).await, "");
    assert!(echoes(&mut another).await);
    drop(member);
    let joins = async { while join_at(address).await.is_err() {} };
    timeout(PATIENCE, joins).await.expect("the place of a member that has left is free");
}

#[tokio::test]
async fn browsers_and_bodies_are_refused() {
    let address = start(Policy::inner("TEST", 2));
    for (headers, status) in [
        ("connection: close\r\n", 200),
        ("origin: http://localhost\r\n", 403),
        ("origin: null\r\nconnection: upgrade\r\nupgrade: echo\r\n", 403),
        ("content-length: 5\r\n\r\nhello", 413),
        ("transfer-encoding: chunked\r\n\r\n0\r\n", 413),
    ] {
        for path in ["/health/live", "/nothing", "/join"] {
            if status == 200 && path != "/health/live" {
                continue;
            }
            let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
            let answer = rest(send(address, request.as_bytes()).await).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?} {answer:?}");
        }
    }
    let long = format!("GET /health/live HTTP/1.1\r\nlong: {}", "x".repeat(9_000));
    let answer = rest(send(address, long.as_bytes()).await).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer:?}");
}

#[tokio::test]
async fn strangers_have_little_time() {
    let address = start(Policy { idle: Duration::from_millis(50), ..Policy::inner("TEST", 2) });
    for sent in ["", "GET /health/live HTTP/1.1\r\n", "GET /health/live HTTP/1.1\r\n\r\n"] {
        let answer = rest(send(address, sent.as_bytes()).await).await;
        assert_eq!(answer.starts_with("HTTP/1.1 200 "), sent.ends_with("\r\n\r\n"), "{sent:?} {answer:?}");
    }
}
