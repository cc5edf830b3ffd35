//! Through a gateway that is not active: the answers are those of the active one.

use std::net::SocketAddr;

use gateway::http::{HttpSettings, MAX_CONNECTIONS, policy};
use gateway::standing::{ActiveGateway, Standing};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::changes::{Stream, create};
use crate::ring::{ID, PATIENCE, anonymous};
use crate::tcp::{Server, answer, post};
use crate::{bulk, tcp};

const OTHER: &str = "0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6072";

/// The gateway at that address is active in that term.
pub(crate) fn active_at(address: SocketAddr, term: u64) -> Standing {
    let id = Uuid::from_u128(term.into());
    Standing::Standby {
        active: Some(ActiveGateway { id, name: "other".to_owned(), rest: address.to_string(), term }),
    }
}

/// A gateway whose standing the test decides.
pub(crate) async fn follower(
    standing: Standing,
    settings: HttpSettings,
) -> (Server, watch::Sender<Standing>) {
    let (sender, standing) = watch::channel(standing);
    let settings = HttpSettings { standing, ..settings };
    (Server::with(policy(MAX_CONNECTIONS), &settings).await, sender)
}

/// An active gateway, and one that forwards to it.
async fn pair() -> (Server, Server, watch::Sender<Standing>) {
    let active = Server::start().await;
    let (standby, standing) = follower(active_at(active.address, 1), anonymous()).await;
    (active, standby, standing)
}

/// The head of a request, up to the empty line.
pub(crate) async fn head(stream: &mut BufReader<TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = timeout(PATIENCE, stream.read_line(&mut head)).await.expect("no hang");
        assert_ne!(read.expect("no reset"), 0, "an end after {head:?}");
    }
    head
}

/// What has to be equal: the status, all headers but the date in any order, and the body; with a word for
/// the tag, which the time decides.
fn comparable(answer: &str) -> (Vec<String>, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}"));
    let mut lines: Vec<&str> = head.split("\r\n").filter(|line| !line.starts_with("date: ")).collect();
    lines[1..].sort_unstable();
    let tag = lines.iter().find_map(|line| line.strip_prefix("etag: "));
    let tag = tag.map_or("no tag", |tag| tag.trim_matches('"'));
    (lines.iter().map(|line| line.replace(tag, "TAG")).collect(), body.replace(tag, "TAG"))
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-request-id: same\r\n\
         content-length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn every_answer_is_that_of_the_active_gateway() {
    let direct = Server::start().await;
    let (_active, standby, _standing) = pair().await;
    let user = format!("/api/user/{ID}");
    let json = "content-type: application/json\r\n";
    let with = |id: &str, name: &str| format!(r#"{{"id":"{id}","name":"{name}","email":"a@example.org"}}"#);
    let create = with(ID, "Ada");
    let mut tags = [String::new(), String::new()];
    for (method, path, headers, body) in [
        ("POST", "/api/user", json, create.as_str()),
        ("POST", "/api/user/", json, &create),
        ("POST", "/api/user", &format!("{json}x-forwarded-prefix: /corro\r\n"), &with(OTHER, "Grace")),
        ("POST", "/api/user", "", &create),
        ("POST", "/api/user", json, r#"{"name":7}"#),
        ("POST", "/api/user", json, "{"),
        ("GET", &user, "", ""),
        ("HEAD", &user, "", ""),
        ("GET", &user, "if-none-match: TAG\r\n", ""),
        ("HEAD", &user, "if-none-match: TAG\r\n", ""),
        ("GET", &user, "if-match: \"0000000000000000\"\r\n", ""),
        ("PATCH", &user, &format!("{json}if-match: TAG\r\n"), r#"{"group":7}"#),
        ("PATCH", &user, &format!("{json}if-match: TAG\r\n"), r#"{"group":8}"#),
        ("PATCH", &user, "content-type: application/merge-patch+json\r\n", r#"{"group":9}"#),
        ("PUT", &user, json, &with(ID, "Lovelace")),
        ("PUT", "/api/user", json, &with(ID, "Byron")),
        ("PUT", &user, "content-type: text/plain\r\n", "x"),
        ("GET", "/api/user?limit=1", "", ""),
        ("GET", "/api/user?limit=1", "x-forwarded-prefix: /corro\r\n", ""),
        ("HEAD", "/api/user?limit=1", "", ""),
        ("GET", "/api/user?name=byron", "", ""),
        ("GET", "/api/user?nothing=1", "", ""),
        ("GET", "/api/user/count", "", ""),
        ("GET", "/api/cluster", "", ""),
        ("GET", "/api/cluster/check", "", ""),
        ("POST", "/api/cluster/promote/1", "", ""),
        ("POST", "/api/cluster/repair/1", "", ""),
        ("GET", "/api/cluster/promote/1", "", ""),
        ("HEAD", "/api/user/changes", "", ""),
        ("POST", "/api/user/changes", "", ""),
        ("GET", "/api/user/no-id", "", ""),
        ("GET", "/api/nothing", "", ""),
        ("BREW", &user, "", ""),
        ("TRACE", &user, "", ""),
        ("OPTIONS", &user, "origin: http://localhost:5173\r\naccess-control-request-method: PUT\r\n", ""),
        ("OPTIONS", &user, "", ""),
        ("GET", &user, "origin: http://localhost:5173\r\nsec-fetch-site: cross-site\r\n", ""),
        ("GET", &user, "origin: http://other.example\r\n", ""),
        ("GET", "/socket.io/?EIO=3&transport=polling", "", ""),
        ("POST", "/api/user/bulk", "", "{}"),
        ("DELETE", &user, "if-match: *\r\n", ""),
        ("DELETE", &user, "", ""),
        ("GET", &user, "", ""),
        ("HEAD", &user, "", ""),
        ("POST", &format!("/api/user/{OTHER}/erase"), "", ""),
        ("GET", "/nothing", "", ""),
        ("GET", "/health/live", "", ""),
        ("GET", "/openapi.json", "", ""),
    ] {
        let mut answers = Vec::new();
        for (server, tag) in [&direct, &standby].into_iter().zip(&mut tags) {
            let sent = request(method, path, &headers.replace("TAG", tag), body);
            let answer = server.exchange(sent.as_bytes()).await;
            if let Some((_, rest)) = answer.split_once("etag: ") {
                *tag = rest.split("\r\n").next().unwrap_or_default().to_owned();
            }
            answers.push(answer);
        }
        let [expected, answer] = [&answers[0], &answers[1]].map(|answer| comparable(answer));
        assert_eq!(answer, expected, "{method} {path} {headers}");
    }
}

#[tokio::test]
async fn an_old_client_is_served() {
    let (active, standby, _standing) = pair().await;
    create(&active.api).await;
    for headers in ["", "host: localhost\r\n", "connection: keep-alive\r\n"] {
        for method in ["GET", "HEAD"] {
            let sent = format!("{method} /api/user/{ID} HTTP/1.0\r\nx-request-id: same\r\n{headers}\r\n");
            let mut answers = Vec::new();
            for server in [&active, &standby] {
                let mut stream = server.connect().await;
                stream.write_all(sent.as_bytes()).await.expect("sent");
                stream.shutdown().await.expect("the end");
                answers.push(tcp::rest(&mut stream).await);
            }
            assert!(answers[0].contains(" 200 OK"), "{answers:?}");
            assert_eq!(comparable(&answers[1]), comparable(&answers[0]));
        }
    }
}

#[tokio::test]
async fn lines_and_results_flow_at_the_same_time() {
    let (_active, standby, _standing) = pair().await;
    let (lines, mut response) = bulk::open(&standby.api).await;
    for number in 1..=3 {
        let line = "{\"op\":\"create\",\"name\":\"Ada\",\"email\":\"ada@example.org\"}\n";
        lines.send(line).await.expect("the body is read");
        let results = bulk::next(&mut response).await.expect("a result before the end of the body");
        assert_eq!((&results[0]["line"], &results[0]["status"]), (&number.into(), &201.into()));
    }
    drop(lines);
    assert!(bulk::next(&mut response).await.is_none(), "the end");
}

#[tokio::test]
async fn changes_come_as_they_happen_until_another_term_or_the_end() {
    let (active, standby, standing) = pair().await;
    let mut stream = Stream::open(&standby.api, "/api/user/changes", None).await;
    let tag = create(&standby.api).await;
    assert!(stream.event().await.starts_with(&format!("event: created\nid: {tag}\n")));
    standing.send_replace(active_at(active.address, 2));
    stream.end().await;
    let mut stream = Stream::open(&standby.api, "/api/user/changes", Some(&tag)).await;
    active.api.json("PATCH", &format!("/api/user/{ID}"), r#"{"group":1}"#).await;
    assert!(stream.event().await.starts_with("event: updated\n"));
}

#[tokio::test]
async fn streams_end_when_this_gateway_stops() {
    let active = Server::start().await;
    let closing = CancellationToken::new();
    let settings = HttpSettings { closing: closing.clone(), ..anonymous() };
    let (standby, _standing) = follower(active_at(active.address, 1), settings).await;
    let stream = Stream::open(&standby.api, "/api/user/changes", None).await;
    closing.cancel();
    stream.end().await;
}

/// The next text frame of a server that is no ping.
async fn frame(stream: &mut BufReader<TcpStream>) -> String {
    loop {
        let text = any_frame(stream).await;
        if text != "2" {
            return text;
        }
    }
}

/// One short text frame of a server.
async fn any_frame(stream: &mut BufReader<TcpStream>) -> String {
    let mut begin = [0; 2];
    timeout(PATIENCE, stream.read_exact(&mut begin)).await.expect("a frame").expect("no end");
    assert_eq!(begin[0], 0x81, "a whole text");
    let length = match begin[1] {
        126 => usize::from(stream.read_u16().await.expect("a length")),
        short => usize::from(short),
    };
    let mut text = vec![0; length];
    stream.read_exact(&mut text).await.expect("all of it");
    String::from_utf8(text).expect("text")
}

#[tokio::test]
async fn a_websocket_goes_through() {
    let (active, standby, standing) = pair().await;
    let mut stream = BufReader::new(standby.connect().await);
    let request = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: localhost\r\n\
                   connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    stream.get_mut().write_all(request.as_bytes()).await.expect("sent");
    let head = head(&mut stream).await.to_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: websocket"), "{head}");
    assert!(frame(&mut stream).await.starts_with("0{"), "engine.io begins");
    let join = b"40/changes,";
    let mut sent = vec![0x81, 0x80 | u8::try_from(join.len()).expect("short"), 0, 0, 0, 0];
    sent.extend_from_slice(join);
    stream.get_mut().write_all(&sent).await.expect("sent");
    assert!(frame(&mut stream).await.starts_with("40/changes,{"), "the namespace is joined");
    assert!(frame(&mut stream).await.starts_with("42/changes,[\"subscribed\""));
    create(&active.api).await;
    let event = frame(&mut stream).await;
    assert!(event.starts_with("42/changes,[\"created\""), "{event}");
    standing.send_replace(Standing::Active { term: 2 });
    let mut rest = Vec::new();
    // How it ends says nothing to the client, which connects again.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("an end");
}

#[tokio::test]
async fn the_active_gateway_learns_who_asks() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound listener");
    let (standby, _standing) = follower(active_at(address, 1), anonymous()).await;
    let sent = "GET /api/user/count HTTP/1.1\r\nhost: localhost:80\r\nconnection: close, x-secret\r\n\
                x-secret: 1\r\nte: trailers\r\nupgrade: h2c\r\nx-request-id: mine\r\n\
                authorization: Bearer t\r\n\
                origin: http://localhost:5173\r\nforwarded: for=10.0.0.7\r\n\r\n";
    let seeing = async {
        let mut stream = BufReader::new(listener.accept().await.expect("a connection").0);
        let seen = head(&mut stream).await;
        let answer = "HTTP/1.1 200 OK\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
                      x-request-id: other\r\ncontent-length: 2\r\n\r\nhi";
        stream.get_mut().write_all(answer.as_bytes()).await.expect("sent");
        (seen, stream)
    };
    let (answer, (seen, _stream)) = tokio::join!(standby.exchange(sent.as_bytes()), seeing);
    for line in [
        "GET /api/user/count HTTP/1.1",
        &format!("host: {address}"),
        "x-request-id: mine",
        "authorization: Bearer t",
        "corro-forwarded: 1",
        "forwarded: for=10.0.0.7",
        "forwarded: for=127.0.0.1;host=\"localhost:80\";proto=http",
    ] {
        assert!(seen.split("\r\n").any(|seen| seen == line), "{line} is not in {seen}");
    }
    for name in ["x-secret", "te:", "upgrade", "origin", "connection"] {
        assert!(!seen.contains(name), "{name} is in {seen}");
    }
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nhi"), "{answer}");
    assert!(!answer.contains("x-hop") && !answer.contains("keep-alive"), "{answer}");
    assert_eq!(answer.matches("x-request-id: ").count(), 1, "{answer}");
    assert!(answer.contains("x-request-id: mine\r\n"), "{answer}");
    assert!(answer.contains("access-control-allow-origin: http://localhost:5173\r\n"), "{answer}");
}

#[tokio::test]
async fn a_body_is_asked_for_only_where_the_active_gateway_wants_it() {
    let (_active, standby, _standing) = pair().await;
    let body = r#"{"name":"Ada","email":"ada@example.org"}"#;
    let headers = format!("expect: 100-continue\r\ncontent-length: {}\r\n", body.len());
    let mut stream = BufReader::new(standby.connect().await);
    stream.get_mut().write_all(&post(&headers, "")).await.expect("sent");
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 100 "));
    stream.get_mut().write_all(body.as_bytes()).await.expect("sent");
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 201 "));

    let refused = standby.exchange(&post("expect: 100-continue\r\ncontent-length: 1000000\r\n", "")).await;
    assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
}

#[tokio::test]
async fn refusals_of_large_bodies_are_answered() {
    let (_active, standby, _standing) = pair().await;
    for (length, chunked) in [(10, true), (100_000, true), (3_000_000, false), (12_000_000, false)] {
        let mut stream = BufReader::new(standby.connect().await);
        let framing = match chunked {
            true => "transfer-encoding: chunked".to_owned(),
            false => format!("content-length: {length}"),
        };
        let body = " ".repeat(length);
        let body = if chunked { format!("{length:x}\r\n{body}\r\n0\r\n\r\n") } else { body };
        let sent = format!("POST /api/user HTTP/1.1\r\nhost: localhost\r\n{framing}\r\n\r\n{body}");
        stream.get_mut().write_all(sent.as_bytes()).await.unwrap_or_else(|error| panic!("{length}: {error}"));
        let (head, _) = timeout(PATIENCE, answer(&mut stream)).await.expect("an answer");
        assert!(head.starts_with("HTTP/1.1 415 "), "{length}: {head}");
    }
    let broken = format!("{:x}\r\n{{\r\nnot a length\r\n", 1);
    let answer = standby.exchange(&post("transfer-encoding: chunked\r\n", &broken)).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("problem:malformed-body"), "{answer:?}");
}

#[tokio::test]
async fn forwarded_requests_are_counted() {
    let (_active, standby, _standing) = pair().await;
    for _ in 0..2 {
        standby.api.bare("GET", "/api/user/count").await;
    }
    let text = String::from_utf8(standby.api.bare("GET", "/metrics").await.body).expect("text");
    assert!(text.contains("corro_forwarded_requests_total{outcome=\"answered\"} 2\n"), "{text}");
}
