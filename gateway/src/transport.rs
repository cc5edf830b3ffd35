//! Transport: the socket.io side of the gateway. It turns what db-processes send into events for the engine,
//! and the engine's messages into socket.io events; it decides nothing. Only processes are let in that have
//! proven to know the secret of the ring: see [`process::handshake`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use process::handshake::{Admission, GATEWAY, Link, Proven};
use process::server::{self, Policy};
use process::{Listener, Secret};
use protocol::message::link::{Hello, Register, ToGateway, ToProcess};
use protocol::message::query::Answer;
use protocol::message::{Message, Unreadable};
use socketioxide::extract::{Event as EventName, SocketRef, TryData};
use socketioxide::{SocketIo, TransportType};
use thiserror::Error;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::engine::{Event, SessionId};

/// What a frame may hold at most; a batch is closed well before.
const MAX_PAYLOAD: usize = 2 << 20;

/// Packets that may wait for one connection. The windows of the lanes keep far below it, unless the peer
/// hangs.
const MAX_WAITING_PACKETS: usize = 4096;

/// Lines that one connection may cause in the log by sending nonsense.
const MAX_COMPLAINTS: u32 = 5;

/// The open connections. Cheap to clone.
#[derive(Clone, Default)]
pub struct Connections {
    open: Arc<Mutex<HashMap<SessionId, SocketRef>>>,
    last: Arc<AtomicU64>,
}

impl Connections {
    fn add(&self, socket: SocketRef) -> SessionId {
        let session = SessionId(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        self.lock().insert(session, socket);
        session
    }

    fn remove(&self, session: SessionId) {
        self.lock().remove(&session);
    }

    /// Sends a message. Returns false where it cannot leave: the connection is gone, or so much is waiting on
    /// it that the peer must be hanging.
    pub fn send(&self, session: SessionId, message: &ToProcess) -> bool {
        let Some(socket) = self.lock().get(&session).cloned() else {
            return false;
        };
        let (event, text) = message.encode();
        socket.emit(event, &text).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, SocketRef>> {
        // The map is whole after each of the single calls made under the lock, so a panic elsewhere cannot
        // harm it.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves socket.io on `listener` until `shutdown`, to processes that know the secret, and sends everything
/// that arrives to `events`, in the order of each connection.
pub async fn serve(
    (listener, policy): (Listener, Policy),
    secret: Secret,
    connections: Connections,
    events: UnboundedSender<Event>,
    shutdown: CancellationToken,
) {
    let (layer, io) = SocketIo::builder()
        .transports([TransportType::Websocket])
        .ping_interval(Duration::from_secs(2))
        .ping_timeout(Duration::from_secs(2))
        .connect_timeout(Duration::from_secs(5))
        .max_payload(MAX_PAYLOAD as u64)
        .ws_max_message_size(MAX_PAYLOAD)
        .ws_max_frame_size(MAX_PAYLOAD)
        .max_buffer_size(MAX_WAITING_PACKETS)
        .build_layer();
    io.ns("/", move |socket: SocketRef| {
        welcome(&socket, &connections, &events);
        std::future::ready(())
    });

    let app = Admission::new(secret, Link::Member, GATEWAY).guard(Router::new().layer(layer));
    let serving = server::serve(listener, app, policy, CancellationToken::new());
    // Links never end by themselves, so there is nothing to wait for.
    shutdown.run_until_cancelled(serving).await;
}

fn address_of(socket: &SocketRef) -> Option<SocketAddr> {
    socket.req_parts().extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0)
}

/// The name that the process has proven to have.
fn proven_name(socket: &SocketRef) -> Option<String> {
    socket.req_parts().extensions.get::<Proven>().map(|proven| proven.name.clone())
}

/// Why a message is ignored.
#[derive(Debug, Error)]
enum Unwelcome {
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("its name is not the one that it has proven")]
    OtherName,
}

impl From<serde_json::Error> for Unwelcome {
    fn from(error: serde_json::Error) -> Self {
        Self::Unreadable(error.into())
    }
}

/// Numbers a connection and listens to it. The work is done before each handler's future: those are spawned,
/// and would lose the order in which messages came.
fn welcome(socket: &SocketRef, connections: &Connections, events: &UnboundedSender<Event>) {
    let session = connections.add(socket.clone());
    let host = address_of(socket).map_or_else(String::new, |address| address.ip().to_canonical().to_string());
    let name = proven_name(socket);
    let inbox = Inbox { session, events: events.clone(), complaints: Arc::default() };
    debug!(session = session.0, host, "connected");

    let greeter = name.clone();
    inbox.on(socket, Hello::EVENT, move |session, text| {
        let hello = Box::new(Hello::decode(text)?);
        if greeter.as_deref() != Some(hello.instance.as_str()) {
            return Err(Unwelcome::OtherName);
        }
        Ok(Event::Hello { session, hello })
    });
    inbox.on(socket, Register::EVENT, move |session, text| {
        let register = Box::new(Register::decode(text)?);
        if name.as_deref() != Some(register.instance.as_str()) {
            return Err(Unwelcome::OtherName);
        }
        Ok(Event::Register { session, host: host.clone(), register })
    });
    for &event in ToGateway::EVENTS.iter().chain(Answer::EVENTS) {
        inbox.on(socket, event, move |session, text| {
            Ok(Event::Message { session, message: ToGateway::decode(event, text)? })
        });
    }

    let unknown = inbox.clone();
    socket.on_fallback(move |EventName(name): EventName| {
        unknown.complain(&name, "this gateway knows no such event");
        std::future::ready(())
    });
    let connections = connections.clone();
    socket.on_disconnect(move || {
        connections.remove(session);
        // The other end is gone only when the gateway stops.
        let _ = inbox.events.send(Event::Closed { session });
        std::future::ready(())
    });
}

/// Where the messages of one connection go.
#[derive(Clone)]
struct Inbox {
    session: SessionId,
    events: UnboundedSender<Event>,
    complaints: Arc<AtomicU32>,
}

impl Inbox {
    /// Listens to one event. `read` makes of its argument what the engine gets.
    fn on<F>(&self, socket: &SocketRef, event: &'static str, read: F)
    where
        F: Fn(SessionId, &str) -> Result<Event, Unwelcome> + Clone + Send + Sync + 'static,
    {
        let inbox = self.clone();
        socket.on(event, move |TryData(text): TryData<String>| {
            match text.map_err(|error| error.to_string()) {
                Ok(text) => match read(inbox.session, &text) {
                    Ok(event) => drop(inbox.events.send(event)),
                    Err(error) => inbox.complain(event, &error.to_string()),
                },
                Err(error) => inbox.complain(event, &error),
            }
            std::future::ready(())
        });
    }

    /// One line for what cannot be understood; what it says came from outside and may be anything, so it is
    /// cut short and never shown beyond its kind.
    fn complain(&self, event: &str, error: &str) {
        if self.complaints.fetch_add(1, Ordering::Relaxed) < MAX_COMPLAINTS {
            let event: String = event.chars().take(32).collect();
            let error: String = error.chars().take(120).collect();
            warn!(session = self.session.0, event, error, "message ignored");
        }
    }
}
