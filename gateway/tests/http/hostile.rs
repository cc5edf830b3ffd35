//! Callers that are slow, many, or never end.

use std::time::{Duration, Instant};

use gateway::http::{HttpSettings, policy};
use process::server::Policy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::ring::{ID, Mood, PATIENCE, anonymous};
use crate::tcp::{Server, post, rest};

const LIVE: &[u8] = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Limits that a test can wait for.
fn short() -> Policy {
    Policy { idle: Duration::from_millis(300), ..policy(16) }
}

fn impatient() -> HttpSettings {
    HttpSettings { deadline: Duration::from_millis(100), ..anonymous() }
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_given_up() {
    let server = Server::with(short(), &anonymous()).await;
    let (mut reader, mut writer) = server.connect().await.into_split();
    let dripping = tokio::spawn(async move {
        // Nothing but the end of the connection ends this.
        while writer.write_all(b"G").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut answer = Vec::new();
    // It may end with a reset: the last bytes that it sent were never read.
    let _ = timeout(PATIENCE, reader.read_to_end(&mut answer)).await.expect("an end");
    assert_eq!(String::from_utf8(answer).expect("text"), "");
    timeout(PATIENCE, dripping).await.expect("an end").expect("no panic");
}

#[tokio::test]
async fn the_second_head_of_a_connection_has_its_time_too() {
    let server = Server::with(short(), &anonymous()).await;
    let mut stream = server.connect().await;
    stream.write_all(LIVE).await.expect("sent");
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200");
    stream.write_all(b"GET /health").await.expect("sent");
    let answer = rest(&mut stream).await;
    assert!(!answer.contains("HTTP/1.1"), "no second answer: {answer:?}");
}

#[tokio::test]
async fn an_unused_connection_is_closed_without_an_answer() {
    let server = Server::with(short(), &anonymous()).await;
    assert_eq!(rest(&mut server.connect().await).await, "");
    let answer = server.exchange(LIVE).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("408"), "{answer:?}");
}

#[tokio::test]
async fn a_body_that_stops_is_answered_and_its_connection_closed() {
    let server = Server::with(policy(16), &impatient()).await;
    let answer = server.exchange(&post("content-length: 100\r\n", "{\"name\":")).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("problem:body-too-slow"), "{answer:?}");
}

#[tokio::test]
async fn a_body_without_an_end_is_refused_after_a_while() {
    let server = Server::start().await;
    let (mut reader, mut writer) = server.connect().await.into_split();
    let sending = tokio::spawn(async move {
        writer.write_all(&post("transfer-encoding: chunked\r\n", "")).await.expect("a head");
        let chunk = [b"10000\r\n", [b' '; 0x10000].as_slice(), b"\r\n"].concat();
        let mut sent = 0_u64;
        while writer.write_all(&chunk).await.is_ok() {
            sent += 0x10000;
        }
        sent
    });
    let mut answer = [0; 12];
    timeout(PATIENCE, reader.read_exact(&mut answer)).await.expect("in time").expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 413");
    let sent = timeout(PATIENCE, sending).await.expect("the connection is closed").expect("no panic");
    // What the kernel of both sides buffers comes on top of the 8 MiB that are thrown away.
    assert!(sent < 64 << 20, "{sent} bytes were taken");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = Server::start().await;
    let long = "x".repeat(20_000);
    let many = "a: b\r\n".repeat(200);
    for (head, status) in [
        (format!("GET /health/live HTTP/1.1\r\nhost: localhost\r\nlong: {long}\r\n\r\n"), 431),
        (format!("GET /health/live HTTP/1.1\r\nhost: localhost\r\n{many}\r\n"), 431),
        (format!("GET /{long}{long}{long}{long} HTTP/1.1\r\nhost: localhost\r\n\r\n"), 431),
    ] {
        let mut stream = server.connect().await;
        // It may be refused before all of it is sent.
        let _ = stream.write_all(head.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end");
        let answer = String::from_utf8(answer).expect("text");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer:?}");
    }
}

/// As many connections as there may be, all of them of this machine.
fn few(connections: usize) -> Policy {
    Policy { per_address: connections, ..policy(connections) }
}

#[tokio::test]
async fn one_connection_too_many_is_refused_where_all_have_a_request_at_work() {
    let settings = HttpSettings { deadline: PATIENCE, ..anonymous() };
    let server = Server::with(few(3), &settings).await;
    server.api.set(Mood::Silent);
    let mut busy = Vec::new();
    for _ in 0..3 {
        let mut stream = server.connect().await;
        // The second one waits until the first is answered: this shows that the first has its place.
        let requests = format!(
            "GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\nGET /api/user/{ID} HTTP/1.1\r\n\
                                host: localhost\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(requests.as_bytes()).await.expect("sent");
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.expect("an answer");
        assert_eq!(&status, b"HTTP/1.1 200");
        busy.push(stream);
    }
    let answer = server.exchange(LIVE).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("problem:overloaded"), "{answer:?}");
    assert!(answer.contains("retry-after: 1\r\n"), "{answer:?}");
    drop(busy.pop());
    let start = Instant::now();
    loop {
        let answer = server
            .exchange(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await;
        if answer.starts_with("HTTP/1.1 200 ") {
            break;
        }
        // A caller may close its side and read on, so the place is free when its request is given up.
        assert!(start.elapsed() < 2 * PATIENCE, "the free place is not taken: {answer:?}");
    }
}

/// Silent ones, unfinished heads, and bodies that do not come lose their places; what is at work goes on.
#[tokio::test]
async fn a_flood_of_unfinished_requests_closes_its_own_connections() {
    let settings = HttpSettings { deadline: PATIENCE, ..anonymous() };
    for sent in [Vec::new(), b"GET /health".to_vec(), post("content-length: 100\r\n", "{\"name\":")] {
        let server = Server::with(few(20), &settings).await;
        server.api.set(Mood::Silent);
        let mut busy = server.connect().await;
        let request = format!(
            "GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\nGET /api/user/{ID} HTTP/1.1\r\n\
                               host: localhost\r\nconnection: close\r\n\r\n"
        );
        busy.write_all(request.as_bytes()).await.expect("sent");
        let mut status = [0; 12];
        busy.read_exact(&mut status).await.expect("an answer");
        let mut flood = Vec::new();
        for _ in 0..100 {
            let mut stream = server.connect().await;
            // It may have been closed already.
            let _ = stream.write_all(&sent).await;
            flood.push(stream);
        }
        let live = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let answer = server.exchange(live).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
        // The first of them was closed, the last was not.
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, flood[0].read_to_end(&mut answer)).await.expect("the first is closed");
        assert!(timeout(Duration::from_millis(1), flood[99].read(&mut [0])).await.is_err());
        assert!(timeout(Duration::from_millis(1), busy.read_to_end(&mut Vec::new())).await.is_err());
    }
}

#[tokio::test]
async fn unfinished_requests_that_are_too_large_together_are_closed() {
    let settings = HttpSettings { deadline: PATIENCE, ..anonymous() };
    let server = Server::with(Policy { unfinished: 100_000, ..few(50) }, &settings).await;
    let head = format!("GET /health/live HTTP/1.1\r\nhost: localhost\r\nlong: {}", "x".repeat(10_000));
    let body = post("content-length: 60000\r\n", &" ".repeat(10_000));
    let mut streams = Vec::new();
    for sent in [head.as_bytes(), &body].repeat(10) {
        let mut stream = server.connect().await;
        stream.write_all(sent).await.expect("sent");
        streams.push(stream);
    }
    let mut answer = Vec::new();
    // It may be a reset: it was still sending.
    let _ = timeout(PATIENCE, streams[0].read_to_end(&mut answer)).await.expect("the first is closed");
    assert!(answer.is_empty(), "{answer:?}");
    let answer = server.exchange(&post("content-length: 2\r\n", "{}")).await;
    assert!(answer.starts_with("HTTP/1.1 422 "), "{answer:?}");
}

/// A caller that asks and asks and reads nothing holds no more than the buffers, and not for ever.
#[tokio::test]
async fn a_caller_that_does_not_read_its_answers_is_cut_off() {
    let server = Server::with(short(), &anonymous()).await;
    let (_reader, mut writer) = server.connect().await.into_split();
    let asking = async {
        let requests = LIVE.repeat(1_000);
        while writer.write_all(&requests).await.is_ok() {}
    };
    timeout(PATIENCE, asking).await.expect("the connection is closed");
}

/// The deadline of its request bounds a handler; a scan of all records may take minutes without a byte.
#[tokio::test]
async fn a_connection_whose_handler_works_is_not_idle() {
    let policy = Policy { idle: Duration::from_millis(100), ..policy(16) };
    let settings = HttpSettings { deadline: Duration::from_secs(1), ..anonymous() };
    let server = Server::with(policy, &settings).await;
    server.api.set(Mood::Silent);
    let request = format!("GET /api/user/{ID} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let answer = server.exchange(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 504 ") && answer.contains("problem:no-answer"), "{answer:?}");
}

#[tokio::test]
async fn a_request_in_flight_at_the_end_is_answered_and_idle_connections_are_closed() {
    let server = Server::with(policy(16), &impatient()).await;
    server.api.set(Mood::Silent);
    let (mut unused, mut idle, mut busy) =
        (server.connect().await, server.connect().await, server.connect().await);
    idle.write_all(LIVE).await.expect("sent");
    let mut status = [0; 12];
    idle.read_exact(&mut status).await.expect("an answer");
    busy.write_all(format!("GET /api/user/{ID} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())
        .await
        .expect("sent");
    // Once another request was answered, the one before has been taken up.
    assert!(
        server
            .exchange(&[LIVE.strip_suffix(b"\r\n").expect("an end"), b"connection: close\r\n\r\n"].concat())
            .await
            .contains(" 200 ")
    );
    server.shutdown.cancel();
    let answer = rest(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 504 ") && answer.contains("connection: close"), "{answer:?}");
    assert!(!rest(&mut idle).await.contains("HTTP/1.1"), "nothing more is said");
    assert_eq!(rest(&mut unused).await, "");
    timeout(PATIENCE, server.serving).await.expect("an end").expect("no panic");
}
