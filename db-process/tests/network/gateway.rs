//! The gateway's side of the link, for tests: it beats, and says what the test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use process::handshake::{Admission, CHALLENGE_PATH, GATEWAY, Link};
use protocol::message::Message;
use protocol::message::link::{
    Alive, Beat, Claim, CopiesChanged, Found, Grant, Hello, Leaving, Peer, ReadAnswers, ReadBatch, Register,
    Registered, Released, Ring, RingNotice, Role, View, Write, WriteAnswer, WriteAnswers, WriteBatch,
};
use protocol::{Change, Operation, UserId, Version};
use socketioxide::extract::{Event, SocketRef, TryData};
use socketioxide::{SocketIo, TransportType};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::soon;

/// Of every ring here.
pub(crate) const SECRET: &str = "of the test";

/// A gateway on a port of its own.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    sessions: UnboundedReceiver<Session>,
    challenged: Arc<AtomicU64>,
    io: SocketIo,
    server: JoinHandle<()>,
}

/// One connection of a db-process.
pub(crate) struct Session {
    socket: SocketRef,
    frames: UnboundedReceiver<(String, String)>,
    pub(crate) left: CancellationToken,
    /// Whether a process that wants to leave is let go at once.
    pub(crate) lets_go: Arc<AtomicBool>,
    pub(crate) beats: JoinHandle<()>,
    batch: u64,
}

impl Gateway {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let (entered, sessions) = unbounded_channel();
        let challenged = Arc::new(AtomicU64::new(0));
        let (layer, io) = SocketIo::builder().transports([TransportType::Websocket]).build_layer();
        io.ns("/", move |socket: SocketRef| enter(socket, &entered));
        let count = Arc::clone(&challenged);
        let counting = from_fn(move |request: Request, next: Next| {
            count.fetch_add(u64::from(request.uri().path() == CHALLENGE_PATH), Ordering::Relaxed);
            next.run(request)
        });
        let admission = Admission::new(SECRET.parse().unwrap(), Link::Member, GATEWAY);
        let app = admission.guard(Router::new().layer(layer)).layer(counting);
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = axum::serve(listener, app);
        let server = tokio::spawn(async move { serve.await.unwrap() });
        Self { address, sessions, challenged, io, server }
    }

    /// The next db-process that connects.
    pub(crate) async fn session(&mut self) -> Session {
        soon(self.sessions.recv()).await.unwrap()
    }

    pub(crate) fn no_process_entered(&mut self) -> bool {
        self.sessions.try_recv().is_err()
    }

    /// How often a process began the handshake.
    pub(crate) fn challenged(&self) -> u64 {
        self.challenged.load(Ordering::Relaxed)
    }

    /// Goes away, with all connections.
    pub(crate) async fn stop(self) {
        self.server.abort();
        let _ = self.server.await;
        soon(self.io.close()).await;
    }
}

fn enter(socket: SocketRef, entered: &UnboundedSender<Session>) -> std::future::Ready<()> {
    let (queue, frames) = unbounded_channel();
    let left = CancellationToken::new();
    let claiming = socket.clone();
    socket.on(Hello::EVENT, move |TryData(text): TryData<String>| {
        let hello = Hello::decode(&text.unwrap()).unwrap();
        let me = protocol::term::Gateway {
            id: Uuid::from_u128(hello.term.term.into()),
            name: "gateway".to_owned(),
            host: None,
            port: 1,
        };
        let claim = Claim { term: hello.term.term + 1, gateway: me, register: true };
        let _ = claiming.emit(Claim::EVENT, &claim.encode());
        std::future::ready(())
    });
    socket.on_fallback(move |Event(event): Event, TryData(text): TryData<String>| {
        let _ = queue.send((event, text.unwrap()));
        std::future::ready(())
    });
    let lets_go = Arc::new(AtomicBool::new(true));
    let released = Arc::clone(&lets_go);
    socket.on(Leaving::EVENT, move |socket: SocketRef| {
        if released.load(Ordering::Relaxed) {
            // It may be gone already.
            let _ = socket.emit(Released::EVENT, &Released {}.encode());
        }
        std::future::ready(())
    });
    let gone = left.clone();
    socket.on_disconnect(move || {
        gone.cancel();
        std::future::ready(())
    });
    let beating = socket.clone();
    let beats = tokio::spawn(async move {
        let mut ticks = interval(Duration::from_millis(200));
        for beat in 0.. {
            ticks.tick().await;
            if beating.emit(Beat::EVENT, &Beat { beat }.encode()).is_err() {
                return;
            }
        }
    });
    let _ = entered.send(Session { socket, frames, left, lets_go, beats, batch: 0 });
    std::future::ready(())
}

impl Session {
    pub(crate) fn send<M: Message>(&self, message: &M) {
        self.emit(M::EVENT, &message.encode());
    }

    pub(crate) fn emit(&self, event: &str, data: &(impl serde::Serialize + ?Sized)) {
        self.socket.emit(event, data).unwrap();
    }

    /// The next message of that kind; others are skipped.
    pub(crate) async fn receive<M: Message>(&mut self) -> M {
        soon(async {
            loop {
                let (event, text) = self.frames.recv().await.expect("the connection stands");
                if event == M::EVENT {
                    return M::decode(&text).unwrap();
                }
            }
        })
        .await
    }

    pub(crate) async fn register(&mut self, size: u16) -> Register {
        let register = self.receive().await;
        self.send(&Registered { size });
        register
    }

    pub(crate) async fn alive(&mut self) -> Alive {
        self.receive().await
    }

    pub(crate) async fn left(&self) {
        soon(self.left.cancelled()).await;
    }

    /// Tells the state of its copies, until both are complete.
    pub(crate) async fn both_complete(&mut self) -> CopiesChanged {
        loop {
            let changed: CopiesChanged = self.receive().await;
            if changed.copies.primary.complete && changed.copies.replica.complete {
                return changed;
            }
        }
    }

    pub(crate) async fn write(&mut self, role: Role, writes: Vec<Write>) -> Vec<WriteAnswer> {
        self.batch += 1;
        self.send(&WriteBatch { batch: self.batch, role, writes });
        let answers: WriteAnswers = self.receive().await;
        assert_eq!((answers.batch, answers.role), (self.batch, role));
        answers.results
    }

    pub(crate) async fn read(&mut self, primary: &[UserId], replica: &[UserId]) -> Vec<Option<Found>> {
        self.batch += 1;
        self.send(&ReadBatch { batch: self.batch, primary: primary.to_vec(), replica: replica.to_vec() });
        let answers: ReadAnswers = self.receive().await;
        assert_eq!(answers.batch, self.batch);
        answers.results
    }

    /// Version and document of users, as one copy has them.
    pub(crate) async fn users(&mut self, role: Role, ids: &[UserId]) -> Vec<Option<(Version, String)>> {
        let mut users = Vec::new();
        for ids in ids.chunks(256) {
            let found = match role {
                Role::Primary => self.read(ids, &[]).await,
                Role::Replica => self.read(&[], ids).await,
            };
            users.extend(
                found
                    .into_iter()
                    .map(|found| found.map(|Found(version, user)| (version, user.get().to_owned()))),
            );
        }
        users
    }
}

pub(crate) fn ring(size: u16, formed: bool) -> Ring {
    Ring { id: Uuid::from_u128(77), size, formed }
}

pub(crate) fn notice(
    ring: Ring,
    grant: Grant,
    predecessor: Option<&Register>,
    successor: Option<&Register>,
) -> RingNotice {
    let peer = |register: &Register| Peer {
        instance: register.instance.clone(),
        host: register.replication.host.clone().unwrap_or_else(|| "127.0.0.1".to_owned()),
        port: register.replication.port,
    };
    let (predecessor, successor) = (predecessor.map(peer), successor.map(peer));
    RingNotice { ring, view: View::first(ring.size), successor, predecessor, primary: grant, replica: grant }
}

pub(crate) fn id(number: u64) -> UserId {
    Uuid::from_u128(0x9e37_79b9_7f4a_7c15 * u128::from(number + 1))
}

pub(crate) fn create(number: u64, name: &str) -> Write {
    let change = Change {
        alive: Some(true),
        name: Some(name.to_owned()),
        email: Some(format!("{number}@example.org")),
        group: Some(0),
        ..Change::default()
    };
    Write {
        version: Version(number + 1),
        id: id(number),
        operation: Operation::Create(change),
        condition: None,
        omit_user: false,
    }
}
