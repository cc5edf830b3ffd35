//! Accepts the connections of db-processes.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::serve::ListenerExt;
use process::Secret;
use protocol::message::Message;
use protocol::message::link::{Alive, Auth, Leaving, Register};
use socketioxide::SocketIo;
use socketioxide::extract::{Event as EventName, SocketRef, TryData};
use socketioxide::handler::ConnectHandler;
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Connections;
use crate::engine::{Answer, Event, FromProcess, SessionId};

/// What a frame may hold at most; a batch is closed well before.
const MAX_PAYLOAD: usize = 2 << 20;

/// Packets that may wait for one connection. The windows of the lanes keep far below it, unless the peer
/// hangs.
const MAX_WAITING_PACKETS: usize = 4096;

/// Lines that one connection may cause in the log by sending nonsense.
const MAX_COMPLAINTS: u32 = 5;

/// Which peers may connect.
#[derive(Debug, Clone)]
pub enum Admission {
    /// Those that know the secret.
    Secret(Secret),
    /// Without a secret: processes of this machine only.
    Loopback,
}

impl Admission {
    /// Whether a peer may connect that offers `secret` from `address`.
    fn admits(&self, secret: Option<&str>, address: Option<SocketAddr>) -> Result<(), NotAdmitted> {
        match self {
            Self::Secret(ours) => match secret {
                Some(offered) if ours.matches(offered) => Ok(()),
                Some(_) => Err(NotAdmitted("its CLUSTER_SECRET is not the one of this gateway")),
                None => Err(NotAdmitted("it has no CLUSTER_SECRET, and this gateway asks for one")),
            },
            Self::Loopback if address.is_some_and(|address| address.ip().to_canonical().is_loopback()) => {
                Ok(())
            }
            Self::Loopback => {
                Err(NotAdmitted("without a CLUSTER_SECRET only processes of this machine may connect"))
            }
        }
    }
}

/// Why a peer was refused, as it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NotAdmitted(&'static str);

impl fmt::Display for NotAdmitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Serves socket.io on `listener` until `shutdown`, and sends everything that arrives to `events`, in the
/// order of each connection.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    admission: Admission,
    connections: Connections,
    events: UnboundedSender<Event>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let (layer, io) = SocketIo::builder()
        .ping_interval(Duration::from_secs(2))
        .ping_timeout(Duration::from_secs(2))
        .connect_timeout(Duration::from_secs(5))
        .max_payload(MAX_PAYLOAD as u64)
        .ws_max_message_size(MAX_PAYLOAD)
        .ws_max_frame_size(MAX_PAYLOAD)
        .max_buffer_size(MAX_WAITING_PACKETS)
        .build_layer();
    let check = move |socket: SocketRef, TryData(auth): TryData<Auth>| {
        let address = address_of(&socket);
        let secret = auth.ok().and_then(|auth| auth.secret);
        let verdict = admission.admits(secret.as_deref(), address);
        if let Err(reason) = verdict {
            warn!(address = ?address, %reason, "connection refused");
        }
        std::future::ready(verdict)
    };
    let welcome = move |socket: SocketRef| {
        welcome(&socket, &connections, &events);
        std::future::ready(())
    };
    io.ns("/", welcome.with(check));

    let listener = listener.tap_io(|stream| {
        // Without it, every exchange of small frames can wait 40 ms for a delayed acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            warn!(%error, "TCP_NODELAY could not be set on a link");
        }
    });
    let app = Router::new().layer(layer).into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, app).into_future();
    // Links never end by themselves, so there is nothing to wait for.
    tokio::select! {
        result = server => result,
        () = shutdown.cancelled() => Ok(()),
    }
}

fn address_of(socket: &SocketRef) -> Option<SocketAddr> {
    socket.req_parts().extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0)
}

/// Numbers a connection and listens to it. The work is done before each handler's future: those are spawned,
/// and would lose the order in which messages came.
fn welcome(socket: &SocketRef, connections: &Connections, events: &UnboundedSender<Event>) {
    let session = connections.add(socket.clone());
    let host = address_of(socket).map_or_else(String::new, |address| address.ip().to_canonical().to_string());
    let inbox = Inbox { session, events: events.clone(), complaints: Arc::default() };
    debug!(session = session.0, host, "connected");

    inbox.on(socket, move |session, register: Register| Event::Register {
        session,
        host: host.clone(),
        register: Box::new(register),
    });
    inbox.on_message(socket, FromProcess::Read);
    inbox.on_message(socket, FromProcess::Written);
    inbox.on_message(socket, |page| FromProcess::Answer(Answer::Page(page)));
    inbox.on_message(socket, |count| FromProcess::Answer(Answer::Count(count)));
    inbox.on_message(socket, |changes| FromProcess::Answer(Answer::Changes(changes)));
    inbox.on_message(socket, |tombstones| FromProcess::Answer(Answer::Tombstones(tombstones)));
    inbox.on_message(socket, |digests| FromProcess::Answer(Answer::Digests(digests)));
    inbox.on_message(socket, FromProcess::Merged);
    inbox.on_message(socket, FromProcess::Applied);
    inbox.on_message(socket, FromProcess::Compared);
    inbox.on_message(socket, FromProcess::Following);
    inbox.on_message(socket, |changed| FromProcess::Copies(Box::new(changed)));
    inbox.on_message(socket, |Leaving {}| FromProcess::Leaving);
    inbox.on_message(socket, |Alive { .. }| FromProcess::Alive);

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
    fn on_message<M: Message + Send + 'static>(&self, socket: &SocketRef, wrap: fn(M) -> FromProcess) {
        self.on(socket, move |session, message| Event::Message { session, message: wrap(message) });
    }

    fn on<M, F>(&self, socket: &SocketRef, wrap: F)
    where
        M: Message + Send + 'static,
        F: Fn(SessionId, M) -> Event + Clone + Send + Sync + 'static,
    {
        let inbox = self.clone();
        socket.on(M::EVENT, move |TryData(text): TryData<String>| {
            match text.map_err(|error| error.to_string()).and_then(|text| decode(&text)) {
                Ok(message) => {
                    let _ = inbox.events.send(wrap(inbox.session, message));
                }
                Err(error) => inbox.complain(M::EVENT, &error),
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

fn decode<M: Message>(text: &str) -> Result<M, String> {
    // The place is enough: the message of the parser may quote what was sent.
    M::decode(text)
        .map_err(|error| format!("not such a message (line {}, column {})", error.line(), error.column()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_secret_only_this_machine_is_admitted() {
        let local = Some("127.0.0.1:9".parse().expect("an address"));
        let mapped = Some("[::ffff:127.0.0.1]:9".parse().expect("an address"));
        let remote = Some("192.0.2.1:9".parse().expect("an address"));
        assert!(Admission::Loopback.admits(None, local).is_ok());
        assert!(Admission::Loopback.admits(Some("anything"), mapped).is_ok());
        assert!(Admission::Loopback.admits(None, remote).is_err());
        assert!(Admission::Loopback.admits(None, None).is_err());
    }

    #[test]
    fn with_a_secret_only_peers_that_know_it_are_admitted() {
        let secret = Admission::Secret("correct horse".parse().expect("a secret"));
        let local = Some("127.0.0.1:9".parse().expect("an address"));
        assert!(secret.admits(Some("correct horse"), local).is_ok());
        assert!(secret.admits(Some("correct horsf"), local).is_err());
        assert!(secret.admits(None, local).is_err());
    }
}
