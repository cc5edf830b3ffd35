//! One connection to a socket.io server: it connects once, and at the first doubt it is over.
//!
//! What rust_socketio does not do is done here, since links are only as good as their ends are noticed:
//!
//! - Connecting and sending have deadlines. Sending that is stuck means that the other side does not read.
//! - The library reconnects by itself, or not at all, depending on how a connection ended. Here it never
//!   does: the owner of the [`Connection`] drops it, and opens another.
//! - When its stream ends cleanly the library calls no callback, and the server's pings never surface. So the
//!   other side has to send something now and then, and the socket beneath is looked at in between.
//! - Dropping a [`Connection`] closes its TCP connection at once, even if the other side hangs.
//! - Callbacks run inside the library's read loop, where a slow one delays the answer to the server's pings:
//!   they only queue.
//!
//! A message is one event with one string argument that holds JSON (see [`protocol::message`]). The library's
//! acknowledgements and binary attachments are not used; both have bugs.
//!
//! What it does not do: it does not know what the messages mean nor how long the other side may be silent,
//! and it does not try again.

use std::collections::HashMap;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use process::handshake::Credentials;
use protocol::message::Message;
use rust_socketio::asynchronous::{Client, ClientBuilder};
use rust_socketio::{Event, Payload, TransportType};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use super::lost::{Lost, unreachable, what_is_wrong, with_causes};
use super::proof::prove;
use super::tcp::{TcpHandle, local_address};
use super::tls::connector;

/// For finding the address, connecting, the handshakes of all layers, and being let in.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// For handing one message to the system; it takes long only when the other side does not read.
pub const SEND_DEADLINE: Duration = Duration::from_secs(2);

/// How long after the last message the socket beneath is looked at.
const LOOK_AFTER: Duration = Duration::from_millis(300);

/// One event as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Name of the event.
    pub event: String,
    /// Its argument; empty, and so no message, where it was something else than one string.
    pub text: String,
}

/// What the callbacks queue.
#[derive(Debug)]
enum Incoming {
    /// The server has let this client in.
    Connected,
    Frame(Frame),
    /// An error, or the end.
    Ended(String),
}

/// An open connection. Dropping it closes it.
pub struct Connection {
    client: Client,
    incoming: UnboundedReceiver<Incoming>,
    /// When the socket beneath is looked at next.
    look_at: Instant,
    tcp: TcpHandle,
}

impl Connection {
    /// Connects, and returns once both sides have proven themselves and the server has let this client in.
    ///
    /// # Errors
    /// If that does not succeed within [`CONNECT_DEADLINE`].
    pub async fn open(url: &Url, credentials: &Credentials) -> Result<Self, Lost> {
        // Boxed, as it is large and lives shortly.
        let opened = timeout(CONNECT_DEADLINE, Box::pin(Self::connect(url, credentials))).await;
        opened.unwrap_or_else(|_| Err(unreachable(url, format!("no answer within {CONNECT_DEADLINE:?}"))))
    }

    async fn connect(url: &Url, credentials: &Credentials) -> Result<Self, Lost> {
        let fails = |error: &dyn std::fmt::Display| unreachable(url, error.to_string());
        let tls = match &credentials.tls {
            Some(files) => Some(connector(files).await.map_err(|error| fails(&error))?),
            None => None,
        };
        let peers = addresses(url).await?;
        let (queue, incoming) = unbounded_channel();
        // Two new connections to one server cannot be distinguished by looking at them: one after the other,
        // then.
        let turn = turn(url);
        let turn = turn.lock().await;
        let proof = prove(url, credentials, tls.clone()).await?;
        let before = TcpHandle::connected_to(&peers).map_err(|error| fails(&error))?;
        let opening = builder(url, proof, queue);
        let opening = tls.into_iter().fold(opening, ClientBuilder::tls_config);
        let connected = opening.connect().await;
        let client = connected.map_err(|error| unreachable(url, what_is_wrong(&error)))?;
        let known = |socket: &_| before.iter().any(|old| local_address(old) == local_address(socket));
        let mut new = TcpHandle::connected_to(&peers).map_err(|error| fails(&error))?;
        new.retain(|socket| !known(socket));
        drop(turn);
        // None: it was closed at once. Several: another task of this process connects to the same server by
        // another name. In both cases the next attempt will do better.
        let (Some(socket), true) = (new.pop(), new.is_empty()) else {
            let _ = timeout(SEND_DEADLINE, client.disconnect()).await;
            return Err(fails(&"the connection did not last"));
        };
        let tcp = TcpHandle::take(socket).map_err(|error| fails(&error))?;
        let mut connection = Self { client, incoming, look_at: Instant::now() + LOOK_AFTER, tcp };
        match connection.incoming.recv().await {
            Some(Incoming::Connected) => Ok(connection),
            Some(Incoming::Ended(reason)) => Err(Lost::TurnedAway(reason)),
            Some(Incoming::Frame(_)) | None => Err(fails(&"the server skipped the handshake")),
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// If the connection is over, or the other side does not read for [`SEND_DEADLINE`].
    pub async fn send<M: Message>(&self, message: &M) -> Result<(), Lost> {
        self.send_text(M::EVENT, message.encode(), SEND_DEADLINE).await
    }

    async fn send_text(&self, event: &str, text: String, deadline: Duration) -> Result<(), Lost> {
        let argument = Payload::Text(vec![Value::String(text)]);
        match timeout(deadline, self.client.emit(event, argument)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Lost::Closed(with_causes(&error))),
            Err(_) => Err(Lost::Stuck(deadline)),
        }
    }

    /// The next event. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// If the connection is over.
    pub async fn next(&mut self) -> Result<Frame, Lost> {
        loop {
            let incoming = timeout_at(self.look_at, self.incoming.recv()).await;
            self.look_at = Instant::now() + LOOK_AFTER;
            match incoming {
                Ok(Some(Incoming::Frame(frame))) => return Ok(frame),
                Ok(Some(Incoming::Connected)) => {}
                // What the library says tells less.
                Ok(Some(Incoming::Ended(_))) | Err(_) if self.tcp.is_closed() => {
                    return Err(Lost::Closed("the other side left".to_owned()));
                }
                Ok(Some(Incoming::Ended(reason))) => return Err(Lost::Closed(reason)),
                Ok(None) => return Err(Lost::Closed("the library gave up".to_owned())),
                Err(_) => {}
            }
        }
    }
}

/// The place of a connection that comes and goes.
#[derive(Default)]
pub enum Socket {
    /// There is none.
    #[default]
    Closed,
    /// It is being opened.
    Opening(BoxFuture<'static, Result<Connection, Lost>>),
    /// It is open.
    Open(Connection),
}

/// What comes of a [`Socket`].
#[derive(Debug)]
pub enum FromSocket {
    /// It is open now.
    Opened,
    /// An event arrived.
    Frame(Frame),
    /// It could not be opened, or is over.
    Lost(Lost),
}

impl Socket {
    /// Begins to open a connection.
    pub fn connect(&mut self, url: Url, credentials: Credentials) {
        *self = Self::Opening(Box::pin(async move { Connection::open(&url, &credentials).await }));
    }

    /// The next thing that comes of it; nothing as long as it is closed. Nothing is lost if the future is
    /// dropped.
    pub async fn next(&mut self) -> FromSocket {
        match self {
            Self::Closed => pending().await,
            Self::Opening(opening) => match opening.await {
                Ok(connection) => {
                    *self = Self::Open(connection);
                    FromSocket::Opened
                }
                Err(lost) => {
                    *self = Self::Closed;
                    FromSocket::Lost(lost)
                }
            },
            Self::Open(connection) => {
                connection.next().await.map_or_else(FromSocket::Lost, FromSocket::Frame)
            }
        }
    }

    /// Sends an event; nowhere if it is not open. The other side may take that long to read.
    ///
    /// # Errors
    /// As for [`Connection::send`].
    pub async fn send(&mut self, event: &str, text: String, deadline: Duration) -> Result<(), Lost> {
        match self {
            Self::Open(connection) => connection.send_text(event, text, deadline).await,
            Self::Closed | Self::Opening(_) => Ok(()),
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}

/// Where the server may be found.
async fn addresses(url: &Url) -> Result<Vec<SocketAddr>, Lost> {
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return Err(unreachable(url, "no host, or no port".to_owned()));
    };
    let found = tokio::net::lookup_host(format!("{host}:{port}")).await;
    found.map(Iterator::collect).map_err(|error| unreachable(url, format!("unknown host {host}: {error}")))
}

/// Held while connecting to that server.
fn turn(url: &Url) -> Arc<tokio::sync::Mutex<()>> {
    static TURNS: LazyLock<Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>> =
        LazyLock::new(Mutex::default);
    let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    turns.retain(|_, turn| turn.strong_count() > 0);
    let server = url.authority().to_owned();
    if let Some(turn) = turns.get(&server).and_then(Weak::upgrade) {
        return turn;
    }
    let turn = Arc::default();
    turns.insert(server, Arc::downgrade(&turn));
    turn
}

fn builder(url: &Url, proof: Vec<(&'static str, String)>, queue: UnboundedSender<Incoming>) -> ClientBuilder {
    let put = move |incoming| -> BoxFuture<'static, ()> {
        // The receiver is gone if the connection was dropped meanwhile.
        let _ = queue.send(incoming);
        ready(()).boxed()
    };
    let (connected, failed, closed) = (put.clone(), put.clone(), put.clone());
    let builder = ClientBuilder::new(url.as_str());
    let builder =
        proof.into_iter().fold(builder, |builder, (name, value)| builder.opening_header(name, value));
    builder
        .transport_type(TransportType::Websocket)
        .reconnect(false)
        .on(Event::Connect, move |_, _| connected(Incoming::Connected))
        .on(Event::Error, move |payload, _| failed(Incoming::Ended(reason(&payload))))
        .on(Event::Close, move |_, _| closed(Incoming::Ended("the server said so".to_owned())))
        .on_any(move |event, payload, _| put(Incoming::Frame(frame(event, payload))))
}

fn frame(event: Event, payload: Payload) -> Frame {
    let text = match payload {
        Payload::Text(mut arguments) if arguments.len() == 1 => match arguments.pop() {
            Some(Value::String(text)) => text,
            _ => String::new(),
        },
        _ => String::new(),
    };
    Frame { event: event.into(), text }
}

fn reason(payload: &Payload) -> String {
    match payload {
        Payload::Text(values) => values
            .iter()
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .collect(),
        _ => "no reason given".to_owned(),
    }
}

#[cfg(test)]
mod tests;
