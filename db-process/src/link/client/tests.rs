//! Against a real socketioxide server.

use std::future::ready;
use std::net::TcpListener as StdListener;
use std::sync::mpsc as blocking;

use axum::Router;
use process::handshake::{Admission, GATEWAY, Link, NotProven};
use protocol::message::link::{Beat, MergeBatch, Role, Versioned};
use protocol::{Change, UserId, Version};
use serde_json::json;
use socketioxide::extract::{Event as EventName, SocketRef, TryData};
use socketioxide::{SocketIo, TransportType as ServerTransport};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A server with the secret `sesame` that hands on all it sees.
struct Server {
    address: SocketAddr,
    sockets: UnboundedReceiver<SocketRef>,
    frames: UnboundedReceiver<(String, String)>,
    left: UnboundedReceiver<String>,
    io: SocketIo,
    stop: CancellationToken,
}

impl Server {
    async fn start() -> Self {
        Self::start_hanging_on(None).await
    }

    /// While it handles an event `hang`, it does nothing else, until something comes through `wait`.
    async fn start_hanging_on(wait: Option<Arc<Mutex<blocking::Receiver<()>>>>) -> Self {
        let (entered, sockets) = unbounded_channel();
        let (framed, frames) = unbounded_channel();
        let (gone, left) = unbounded_channel();
        let (layer, io) = SocketIo::builder().transports([ServerTransport::Websocket]).build_layer();
        let enter = move |socket: SocketRef| {
            let (framed, wait, gone) = (framed.clone(), wait.clone(), gone.clone());
            socket.on_fallback(move |EventName(event): EventName, TryData(text): TryData<String>| {
                if event == "hang" {
                    wait.as_ref().unwrap().lock().unwrap().recv().unwrap();
                }
                let _ = framed.send((event, text.unwrap_or_default()));
                ready(())
            });
            socket.on_disconnect(move |socket: SocketRef| {
                let _ = gone.send(socket.id.to_string());
                ready(())
            });
            let _ = entered.send(socket);
            ready(())
        };
        io.ns("/", enter);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let admission = Admission::new("sesame".parse().unwrap(), Link::Member, GATEWAY);
        let serve = axum::serve(listener, admission.guard(Router::new().layer(layer)));
        tokio::spawn(stop.clone().run_until_cancelled_owned(serve.into_future()));
        Self { address, sockets, frames, left, io, stop }
    }

    /// A new connection, with the server's end of it.
    async fn connect(&mut self) -> (Connection, SocketRef) {
        let connection = Connection::open(&self.url(), &credentials("sesame")).await.unwrap();
        (connection, soon(self.sockets.recv()).await.unwrap())
    }

    fn url(&self) -> Url {
        url(self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn url(address: SocketAddr) -> Url {
    Url::parse(&format!("ws://{address}")).unwrap()
}

fn credentials(secret: &str) -> Credentials {
    Credentials {
        secret: secret.parse().unwrap(),
        link: Link::Member,
        client: "db-1".to_owned(),
        server: GATEWAY.to_owned(),
        tls: None,
    }
}

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("in time")
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

fn named(name: String) -> MergeBatch {
    let change = Change { name: Some(name), ..Change::default() };
    let change = Versioned { version: Version(1), id: UserId::nil(), change };
    MergeBatch { batch: 1, role: Role::Primary, changes: vec![change], other: None }
}

#[tokio::test]
async fn any_text_passes_both_ways_up_to_a_megabyte() {
    let mut server = Server::start().await;
    let (mut connection, socket) = server.connect().await;
    let names = [
        "\u{1e}".to_owned(),
        "quotes \" and \\ and \\u001e and {\"a\":[1]}".to_owned(),
        "žluťoučký 馬 🐎 \u{0}\u{7f}\u{2028}".to_owned(),
        "[]".to_owned(),
        "a\u{1e}\"é馬".repeat((1 << 20) / 10),
    ];
    for name in names {
        let message = named(name);
        soon(connection.send(&message)).await.unwrap();
        let (event, text) = soon(server.frames.recv()).await.unwrap();
        assert_eq!(event, MergeBatch::EVENT);
        assert!(MergeBatch::decode(&text).unwrap() == message, "the server got something else");
        socket.emit(MergeBatch::EVENT, &message.encode()).unwrap();
        let frame = soon(connection.next()).await.unwrap();
        assert_eq!(frame.event, MergeBatch::EVENT);
        assert!(MergeBatch::decode(&frame.text).unwrap() == message, "the client got something else");
    }
}

#[tokio::test]
async fn messages_stay_in_order() {
    let mut server = Server::start().await;
    let (mut connection, socket) = server.connect().await;
    for beat in 0..500 {
        connection.send(&Beat { beat }).await.unwrap();
        let (_, text) = soon(server.frames.recv()).await.unwrap();
        socket.emit("beat", &text).unwrap();
        if beat % 2 == 0 {
            socket.emit("beat", &text).unwrap();
        }
    }
    let expected = (0..500).flat_map(|beat| vec![beat; if beat % 2 == 0 { 2 } else { 1 }]);
    for beat in expected {
        let frame = soon(connection.next()).await.unwrap();
        assert_eq!(Beat::decode(&frame.text).unwrap(), Beat { beat });
    }
}

#[tokio::test]
async fn nagle_is_off() {
    let mut server = Server::start().await;
    let (connection, _socket) = server.connect().await;
    assert!(connection.tcp.socket().tcp_nodelay().unwrap());
}

#[tokio::test]
async fn a_server_with_another_secret_is_not_trusted_and_nothing_is_left_open() {
    let mut server = Server::start().await;
    let lost = soon(Connection::open(&server.url(), &credentials("barley"))).await.unwrap_err();
    assert!(matches!(lost, Lost::NotTrusted { reason: NotProven::WrongProof, .. }), "{lost}");
    assert!(lost.to_string().contains("CLUSTER_SECRET"), "{lost}");
    assert!(server.sockets.try_recv().is_err());
    eventually("nothing is left open", || TcpHandle::connected_to(&[server.address]).unwrap().is_empty())
        .await;
}

#[tokio::test]
async fn a_server_of_another_kind_is_not_trusted() {
    let server = Server::start().await;
    let follower = Credentials { link: Link::Follower, ..credentials("sesame") };
    let lost = soon(Connection::open(&server.url(), &follower)).await.unwrap_err();
    assert!(matches!(lost, Lost::NotTrusted { reason: NotProven::OtherRole, .. }), "{lost}");
    let other = Credentials { server: "db-2".to_owned(), ..credentials("sesame") };
    let lost = soon(Connection::open(&server.url(), &other)).await.unwrap_err();
    assert!(matches!(lost, Lost::NotTrusted { reason: NotProven::OtherName, .. }), "{lost}");
}

#[tokio::test]
async fn no_listener_is_noticed_at_once_and_no_answer_within_the_deadline() {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let late =
        |lost: &Lost| matches!(lost, Lost::Unreachable { reason, .. } if reason.starts_with("no answer"));
    let start = Instant::now();
    let lost = soon(Connection::open(&url(address), &credentials("sesame"))).await.unwrap_err();
    assert!(late(&lost), "{lost}");
    assert!(start.elapsed() >= CONNECT_DEADLINE, "{:?}", start.elapsed());
    eventually("nothing is left open", || TcpHandle::connected_to(&[address]).unwrap().is_empty()).await;
    drop(listener);
    let lost = soon(Connection::open(&url(address), &credentials("sesame"))).await.unwrap_err();
    assert!(matches!(lost, Lost::Unreachable { .. }) && !late(&lost), "{lost}");
}

#[tokio::test]
async fn connections_to_one_server_are_distinguished() {
    let mut server = Server::start().await;
    let (url, credentials) = (server.url(), credentials("sesame"));
    let open = || Connection::open(&url, &credentials);
    let (a, b, c, d) = soon(async { tokio::join!(open(), open(), open(), open()) }).await;
    let mut connections = [a, b, c, d].map(Result::unwrap);
    // Which one is which is found out by what each of them says.
    for (number, connection) in (0..).zip(&connections) {
        connection.send(&Beat { beat: number }).await.unwrap();
        soon(server.frames.recv()).await.unwrap();
    }
    let [dropped, rest @ ..] = &mut connections;
    let local = local_address(dropped.tcp.socket());
    assert!(rest.iter().all(|other| local_address(other.tcp.socket()) != local));
    let [dropped, mut b, mut c, mut d] = connections;
    drop(dropped);
    soon(server.left.recv()).await.unwrap();
    server.io.emit("beat", &Beat { beat: 7 }.encode()).await.unwrap();
    for connection in [&mut b, &mut c, &mut d] {
        let frame = soon(connection.next()).await.unwrap();
        assert_eq!(Beat::decode(&frame.text).unwrap(), Beat { beat: 7 });
    }
    assert!(server.left.try_recv().is_err(), "only one has left");
}

#[tokio::test]
async fn a_dropped_connection_is_gone_for_the_server() {
    let mut server = Server::start().await;
    let (connection, socket) = server.connect().await;
    drop(connection);
    assert_eq!(soon(server.left.recv()).await.unwrap(), socket.id.to_string());
}

#[tokio::test]
async fn a_server_that_closes_is_noticed_long_before_it_would_be_silent() {
    let mut server = Server::start().await;
    let (mut connection, _socket) = server.connect().await;
    server.io.close().await;
    let lost = soon(connection.next()).await.unwrap_err();
    assert!(matches!(lost, Lost::Closed(_)), "{lost}");
}

#[tokio::test]
async fn a_server_that_ends_the_session_is_noticed() {
    let mut server = Server::start().await;
    let (mut connection, socket) = server.connect().await;
    socket.disconnect().unwrap();
    let lost = soon(connection.next()).await.unwrap_err();
    assert!(matches!(lost, Lost::Closed(_)), "{lost}");
}

#[tokio::test]
async fn what_is_no_string_is_an_empty_one_and_does_no_harm() {
    let mut server = Server::start().await;
    let (mut connection, socket) = server.connect().await;
    socket.emit("number", &7).unwrap();
    socket.emit("two", &("a", "b")).unwrap();
    socket.emit("object", &json!({ "a": ["b"] })).unwrap();
    socket.emit("beat", "good").unwrap();
    for (event, text) in [("number", ""), ("two", ""), ("object", ""), ("beat", "good")] {
        let frame = soon(connection.next()).await.unwrap();
        assert_eq!((frame.event.as_str(), frame.text.as_str()), (event, text));
    }
}

/// A server on a thread of its own, which hangs from the event `hang` on until it may go on.
struct HangingServer {
    url: Url,
    address: SocketAddr,
    go_on: blocking::Sender<()>,
    left: blocking::Receiver<()>,
}

impl HangingServer {
    fn start() -> Self {
        let (go_on, wait) = blocking::channel();
        let (started, start) = blocking::channel();
        let (gone, left) = blocking::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut server = Server::start_hanging_on(Some(Arc::new(Mutex::new(wait)))).await;
                started.send(server.address).unwrap();
                server.left.recv().await.unwrap();
                gone.send(()).unwrap();
            });
        });
        let address = start.recv().unwrap();
        Self { url: url(address), address, go_on, left }
    }

    async fn hang(&self) -> Connection {
        let connection = soon(Connection::open(&self.url, &credentials("sesame"))).await.unwrap();
        connection.client.emit("hang", "").await.unwrap();
        connection
    }

    async fn sees_that_it_is_alone(self) {
        eventually("this side has closed", || TcpHandle::connected_to(&[self.address]).unwrap().is_empty())
            .await;
        self.go_on.send(()).unwrap();
        let seen = tokio::task::spawn_blocking(move || self.left.recv_timeout(PATIENCE));
        seen.await.unwrap().expect("the server sees the end once it goes on");
    }
}

#[tokio::test]
async fn dropping_closes_also_when_the_server_hangs() {
    let server = HangingServer::start();
    drop(server.hang().await);
    server.sees_that_it_is_alone().await;
}

#[tokio::test]
async fn a_server_that_does_not_read_is_noticed_and_can_be_dropped() {
    let server = HangingServer::start();
    let connection = server.hang().await;
    let large = named("x".repeat(1 << 20));
    let send = async {
        loop {
            if let Err(lost) = connection.send(&large).await {
                return lost;
            }
        }
    };
    let lost = soon(send).await;
    assert!(matches!(lost, Lost::Stuck(_)), "{lost}");
    drop(connection);
    server.sees_that_it_is_alone().await;
}

/// Answers each connection with these bytes, whatever it asks for.
fn answering(bytes: &'static [u8]) -> SocketAddr {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(bytes);
        }
    });
    address
}

#[tokio::test]
async fn each_cause_is_named() {
    let server = Server::start().await;
    let free = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rest = web.local_addr().unwrap();
    tokio::spawn(axum::serve(web, Router::new()).into_future());
    // An alert, as a server answers that expects TLS.
    let tls = answering(&[21, 3, 1, 0, 2, 2, 70]);
    for (url, wanted) in [
        (format!("ws://{free}"), "no process listens on that port"),
        (format!("ws://{rest}"), "another port than that for db-processes (REST_PORT, perhaps)"),
        (format!("ws://{}/ring", server.address), "the path is wrong"),
        (format!("wss://{}", server.address), "it does not speak TLS"),
        (format!("ws://{tls}"), "or only with TLS (wss)"),
        ("ws://no.such.host.invalid:1".to_owned(), "no.such.host.invalid"),
    ] {
        let lost =
            soon(Connection::open(&Url::parse(&url).unwrap(), &credentials("sesame"))).await.unwrap_err();
        let text = lost.to_string();
        assert!(matches!(lost, Lost::Unreachable { .. }) && text.contains(wanted), "{url}: {text}");
        assert!(!text.contains('\n') && !text.contains("EngineIO"), "{text}");
    }
}
