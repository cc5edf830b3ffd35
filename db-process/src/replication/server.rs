//! Where the neighbours of this process connect to follow its copies, and where it can be asked whether it is
//! well.
//!
//! Handlers of socketioxide run as tasks of their own, in any order. So what arrives is decoded and queued in
//! the part of the handler that runs in place; one task a follower does the rest, in order.

use std::future::{Future, ready};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::serve::ListenerExt;
use process::Secret;
use protocol::message::MAX_FRAME_BYTES;
use protocol::message::link::Auth;
use socketioxide::extract::{Event, SocketRef, TryData};
use socketioxide::handler::ConnectHandler;
use socketioxide::{SocketIo, TransportType};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::feeder::{Ended, Feeder, FromFollower};
use crate::link::retry::Seldom;
use crate::node::Node;

/// How often a follower has to prove that it is there, and how long it may take.
const PING: Duration = Duration::from_secs(2);

/// Messages of one follower that may wait; it sends at most a few for each frame that it gets.
const INBOX: usize = 1024;

/// How long open connections may take to end when the process stops.
const CLOSE_DEADLINE: Duration = Duration::from_millis(500);

/// The server's part of the process.
pub struct ReplicationServer {
    /// What followers have to know.
    pub secret: Option<Secret>,
    /// This process.
    pub node: Arc<Node>,
}

/// What every connection needs.
struct Door {
    secret: Option<Secret>,
    /// Weak, as socketioxide keeps its handlers for ever when it is closed while clients are there. The
    /// databases have to close all the same.
    node: Weak<Node>,
    feeders: TaskTracker,
    shutdown: CancellationToken,
    seldom: Mutex<Seldom>,
}

impl ReplicationServer {
    /// Serves until `shutdown`. When it returns, all followers have been let go.
    ///
    /// # Errors
    /// If the listener fails.
    pub async fn run(self, listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
        let feeders = TaskTracker::new();
        let door = Arc::new(Door {
            secret: self.secret,
            node: Arc::downgrade(&self.node),
            feeders: feeders.clone(),
            shutdown: shutdown.clone(),
            seldom: Mutex::default(),
        });
        let (layer, io) = SocketIo::builder()
            .transports([TransportType::Websocket])
            .ping_interval(PING)
            .ping_timeout(PING)
            .connect_timeout(PING)
            .max_payload(2 * MAX_FRAME_BYTES as u64)
            .max_buffer_size(1024)
            .build_layer();
        let doorkeeper = Arc::clone(&door);
        let admit = move |socket: SocketRef, TryData(auth): TryData<Option<Auth>>| {
            ready(doorkeeper.admit(&socket, auth.ok().flatten()))
        };
        io.ns("/", (move |socket: SocketRef| door.enter(socket)).with(admit));
        let app = Router::new()
            .route("/health/live", get(|| ready("live\n")))
            .route("/health/ready", get(readiness))
            .with_state(Arc::downgrade(&self.node))
            .layer(layer)
            .into_make_service_with_connect_info::<SocketAddr>();
        let listener = listener.tap_io(|connection| {
            // Without it exchanges can stall; a connection that cannot have it fails soon anyway.
            let _ = connection.set_nodelay(true);
        });
        let stopped = shutdown.clone();
        let serve =
            axum::serve(listener, app).with_graceful_shutdown(stopped.cancelled_owned()).into_future();
        let close = async {
            shutdown.cancelled().await;
            feeders.close();
            let closed = async { tokio::join!(io.close(), feeders.wait()) };
            let _ = timeout(CLOSE_DEADLINE, closed).await;
        };
        tokio::pin!(serve);
        tokio::select! {
            served = &mut serve => return served,
            () = close => {}
        }
        timeout(CLOSE_DEADLINE, serve).await.unwrap_or(Ok(()))
    }
}

async fn readiness(State(node): State<Weak<Node>>) -> (StatusCode, &'static str) {
    if node.upgrade().is_some_and(|node| node.is_ready()) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

impl Door {
    /// Whether a client may come in; otherwise what it is told.
    fn admit(&self, socket: &SocketRef, auth: Option<Auth>) -> Result<(), &'static str> {
        let peer = socket.req_parts().extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let offered = auth.and_then(|auth| auth.secret);
        let admitted = may_enter(self.secret.as_ref(), peer, offered.as_deref());
        if let Err(reason) = admitted
            && self.is_time()
        {
            warn!(?peer, reason, "a follower was turned away");
        }
        admitted
    }

    /// Serves a client that was let in. What it sends is queued from here on; the rest is a task of its own.
    fn enter(self: Arc<Self>, socket: SocketRef) -> impl Future<Output = ()> + Send + use<> {
        let (queue, inbox) = mpsc::channel(INBOX);
        let gone = self.shutdown.child_token();
        let (left, full, door) = (gone.clone(), gone.clone(), Arc::clone(&self));
        socket.on_disconnect(move || {
            left.cancel();
            ready(())
        });
        socket.on_fallback(move |Event(event): Event, TryData(text): TryData<String>| {
            match text.ok().and_then(|text| FromFollower::decode(&event, &text)) {
                Some(message) => {
                    if queue.try_send(message).is_err() {
                        // Full, or nobody takes from it any more: this follower is beyond help, and will come
                        // back.
                        full.cancel();
                    }
                }
                None => door.ignore(&event),
            }
            ready(())
        });
        let feeders = self.feeders.clone();
        feeders.spawn(async move {
            let Some(node) = self.node.upgrade() else { return };
            let (follow, ended) = Feeder { node: &node, socket: &socket, inbox, gone }.run().await;
            drop(node);
            let follower = follow.as_ref().map(|follow| follow.instance.as_str());
            let copy = follow.as_ref().map(|follow| follow.role.as_str());
            match ended {
                Ended::Declined(_) if !self.is_time() => {}
                Ended::Copy(_) | Ended::Nonsense(_) | Ended::Stuck | Ended::Unread => {
                    warn!(follower, copy, reason = %ended, "a follower is let go");
                }
                Ended::Left | Ended::Stopped | Ended::Declined(_) => {
                    info!(follower, copy, reason = %ended, "a follower is let go");
                }
            }
        });
        ready(())
    }

    fn ignore(&self, event: &str) {
        if self.is_time() {
            let event: String = event.chars().take(32).collect();
            warn!(?event, "ignored something from a follower");
        }
    }

    fn is_time(&self) -> bool {
        self.seldom.lock().unwrap_or_else(PoisonError::into_inner).is_time(Instant::now())
    }
}

/// With a secret, whoever knows it; without one, whoever is on this machine.
fn may_enter(
    secret: Option<&Secret>,
    peer: Option<IpAddr>,
    offered: Option<&str>,
) -> Result<(), &'static str> {
    match (secret, offered) {
        (Some(secret), Some(offered)) if secret.matches(offered) => Ok(()),
        (Some(_), _) => Err("wrong CLUSTER_SECRET"),
        (None, _) if peer.is_some_and(|peer| peer.to_canonical().is_loopback()) => Ok(()),
        (None, _) => Err("without a CLUSTER_SECRET only processes on the same machine are accepted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_asked_of_everyone_and_without_one_only_this_machine_is_trusted() {
        let secret: Secret = "sesame".parse().unwrap();
        let at = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        assert!(may_enter(Some(&secret), at("10.0.0.1"), Some("sesame")).is_ok());
        assert!(may_enter(Some(&secret), at("127.0.0.1"), Some("barley")).is_err());
        assert!(may_enter(Some(&secret), at("127.0.0.1"), None).is_err());
        for here in ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"] {
            assert!(may_enter(None, at(here), None).is_ok(), "{here}");
        }
        for elsewhere in ["10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1"] {
            assert!(may_enter(None, at(elsewhere), Some("sesame")).is_err(), "{elsewhere}");
        }
        assert!(may_enter(None, None, None).is_err());
    }
}
