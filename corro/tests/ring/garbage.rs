//! Whatever reaches the socket port: it changes nothing but a log line.

use futures_util::{SinkExt, StreamExt};
use hyper::StatusCode;
use process::handshake::{CHALLENGE_PATH, Credentials, GATEWAY, Hello, Link, NotProven};
use protocol::message::Message as _;
use protocol::message::REVISION;
use protocol::message::link::{
    Claim, CopyReport, CopyReports, Granted, Hello as Greeting, ReadAnswers, Refusal, Refused, Register,
    Registered, ReplicationAddress, TermReport, View,
};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use uuid::Uuid;

use super::load::Load;
use super::processes::{DEADLINE, Ring, SECRET};

/// A client of WebSocket and perhaps of socket.io.
struct Stranger {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Stranger {
    /// Opens a session of engine.io with a request that has these headers; or the status that it gets.
    async fn connect(port: u16, headers: Vec<(&'static str, String)>) -> Result<Self, StatusCode> {
        let url = format!("ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket");
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let socket = match connect_async(request).await {
            Ok((socket, _)) => socket,
            Err(Error::Http(answer)) => return Err(answer.status()),
            Err(other) => panic!("{other}"),
        };
        let mut stranger = Self { socket };
        assert!(stranger.next().await.unwrap().starts_with('0'), "the handshake of engine.io");
        Ok(stranger)
    }

    /// Joins under that name, as one that knows the secret.
    async fn join(port: u16, name: &str) -> Self {
        let proof = prove(port, name, SECRET).await.expect("the gateway knows the secret");
        let mut stranger = Self::connect(port, proof).await.expect("it is let in");
        stranger.send("40").await;
        let answer = stranger.next().await.unwrap();
        assert!(answer.starts_with("40"), "{answer}");
        stranger
    }

    async fn send(&mut self, text: &str) {
        // The server may have hung up on what came before.
        let _ = self.socket.send(Message::text(text)).await;
    }

    async fn emit(&mut self, event: &str, argument: &str) {
        let packet = Value::from(vec![event, argument]);
        self.send(&format!("42{packet}")).await;
    }

    /// Greets, grants what the gateway claims, and registers.
    async fn register(&mut self, name: &str) {
        let (revision, instance) = (REVISION, name.parse().unwrap());
        let hello = Greeting { revision, instance, ring: None, sole: true, term: TermReport::default() };
        self.emit(Greeting::EVENT, &hello.encode()).await;
        let claim: Claim = self.event().await.expect("a claim");
        self.emit(Granted::EVENT, &Granted { term: claim.term }.encode()).await;
        self.emit(Register::EVENT, &register(name).encode()).await;
    }

    /// The next text that is not a ping; `None` where the server has hung up.
    async fn next(&mut self) -> Option<String> {
        loop {
            let message =
                tokio::time::timeout(DEADLINE, self.socket.next()).await.expect("an answer or an end");
            match message?.ok()? {
                Message::Text(text) if text == "2" => self.send("3").await,
                Message::Text(text) => return Some(text.to_string()),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// The next event of that name.
    async fn event<M: protocol::message::Message>(&mut self) -> Option<M> {
        loop {
            let text = self.next().await?;
            let Ok(packet) = serde_json::from_str::<(String, String)>(text.strip_prefix("42")?) else {
                continue;
            };
            if packet.0 == M::EVENT {
                return Some(M::decode(&packet.1).unwrap());
            }
        }
    }
}

/// What opens a WebSocket; or why a process with that secret would not trust the gateway.
async fn prove(port: u16, name: &str, secret: &str) -> Result<Vec<(&'static str, String)>, NotProven> {
    let credentials = Credentials {
        secret: secret.parse().unwrap(),
        link: Link::Member,
        client: name.to_owned(),
        server: GATEWAY.to_owned(),
        tls: None,
    };
    let hello = Hello::new(&credentials);
    let mut request = reqwest::Client::new().get(format!("http://127.0.0.1:{port}{CHALLENGE_PATH}"));
    for (name, value) in hello.headers() {
        request = request.header(name, value);
    }
    hello.answer(request.send().await.unwrap().headers())
}

fn register(name: &str) -> Register {
    let copy = || CopyReport {
        incarnation: Uuid::new_v4(),
        complete: true,
        head: 99,
        position: None,
        version: protocol::Version(7),
        flushed: 0,
        other: None,
        rollback: None,
    };
    Register {
        revision: REVISION,
        instance: name.parse().unwrap(),
        incarnation: Uuid::new_v4(),
        ring: None,
        view: View::default(),
        replication: ReplicationAddress { host: None, port: 1 },
        copies: CopyReports { primary: copy(), replica: copy() },
    }
}

#[tokio::test]
async fn garbage_on_the_socket_port_changes_nothing() {
    let ring = Ring::start(3).await;
    let before = ring.client().await.cluster().await;
    let load = Load::start(ring.rest_port, 8, 100).await;
    let port = ring.socket_port;

    // Without the secret no process joins: a proof is needed, its own one, and each is good once.
    assert_eq!(prove(port, "db-1", "guess").await.err(), Some(NotProven::WrongProof));
    let good = prove(port, "db-1", SECRET).await.unwrap();
    let mut other_name = good.clone();
    other_name
        .iter_mut()
        .filter(|(name, _)| *name == "corro-name")
        .for_each(|(_, value)| *value = "db-2".into());
    let mut reflected = good.clone();
    reflected
        .iter_mut()
        .filter(|(name, _)| *name == "corro-proof")
        .for_each(|(_, value)| *value = "A".repeat(43));
    for headers in [Vec::new(), other_name, reflected] {
        assert_eq!(Stranger::connect(port, headers).await.err(), Some(StatusCode::UNAUTHORIZED));
    }
    drop(Stranger::connect(port, good.clone()).await.unwrap());
    assert_eq!(Stranger::connect(port, good).await.err(), Some(StatusCode::UNAUTHORIZED));
    // With it, strangers send what no db-process sends.
    let mut stranger = Stranger::join(port, "db-1").await;
    for (event, argument) in [
        ("nonsense", "{}"),
        ("register", ""),
        ("register", "{}"),
        ("register", "\u{1e}\u{0}"),
        ("read", "{\"batch\":1,\"results\":[]}"),
        ("written", "[[[[[["),
        ("applied", "{\"role\":\"primary\"}"),
        ("__proto__", "x"),
    ] {
        stranger.emit(event, argument).await;
    }
    // A message of a registered process from a connection that never registered.
    stranger.emit(ReadAnswers::EVENT, &ReadAnswers { batch: 1, results: vec![None] }.encode()).await;
    // Frames that are no socket.io at all, each on a connection of its own.
    for frame in [
        "42",
        "42{",
        "42[",
        "42[1,2]",
        "451-[\"a\",{}]",
        "9",
        "\u{1e}",
        "4",
        "41",
        "42/other,[\"register\",\"\"]",
    ] {
        let mut stranger = Stranger::join(port, "db-1").await;
        stranger.send(frame).await;
    }
    // More than a frame may hold.
    let mut stranger = Stranger::join(port, "db-1").await;
    stranger.emit("register", &"x".repeat(3 << 20)).await;
    assert_eq!(stranger.next().await, None, "a connection that sends too much is closed");
    let mut stranger = Stranger::join(port, "db-1").await;
    let _ = stranger.socket.send(Message::binary(vec![0_u8; 4096])).await;

    // A stranger under the name of a process that is connected.
    let mut stranger = Stranger::join(port, "db-1").await;
    stranger.register("db-1").await;
    let refused: Refused = stranger.event().await.expect("an answer");
    assert_eq!(refused.reason, Refusal::NameTaken);
    let mut stranger = Stranger::join(port, "db-2").await;
    stranger.emit(Register::EVENT, &register("db-1").encode()).await; // is ignored, as it is another name
    let mut stranger = Stranger::join(port, "db-7").await;
    stranger.register("db-7").await;
    let refused: Refused = stranger.event().await.expect("an answer");
    assert_eq!(refused.reason, Refusal::OutsideRing { size: 3 });

    load.until_more(500, 200).await;
    let seen = load.finish().await;
    seen.assert_nothing_failed(&ring);
    let after = ring.client().await.cluster().await;
    for place in 0..3 {
        let (before, after) = (&before["processes"][place], &after["processes"][place]);
        assert_eq!(
            (&before["incarnation"], &before["connected"]),
            (&after["incarnation"], &after["connected"])
        );
    }
    assert_eq!(after["ready"], true);
}

#[tokio::test]
async fn a_process_that_is_away_can_be_replaced_by_one_that_knows_the_secret() {
    let mut ring = Ring::start(3).await;
    ring.kill(1);
    ring.until("the loss is noticed", |cluster| cluster["processes"][1]["connected"] == false).await;
    let mut stranger = Stranger::join(ring.socket_port, "db-1").await;
    stranger.register("db-1").await;
    let registered: Registered = stranger.event().await.expect("an answer");
    assert_eq!(registered.size, 3);
    drop(stranger);
    ring.start_process(1);
    ring.until_ready().await;
}
