//! Where the neighbours of this process connect to follow its copies, as [`SourceState`] says; and where it
//! can be asked for its health.
//!
//! Handlers of socketioxide run as tasks of their own, in any order. So what arrives is decoded and queued in
//! the part of the handler that runs in place; one task per follower does the rest, in order.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use process::handshake::{Admission, Link, Proven};
use process::server::{self, Policy};
use process::{Listener, LogThrottle, Secret};
use protocol::message::link::CopyReport;
use protocol::message::replication::{CopyChunk, Decline, Declined, Follow, LogBatch, LogEntry, ToSource};
use protocol::message::{MAX_FRAME_BYTES, Message};
use socketioxide::extract::{self, SocketRef, TryData};
use socketioxide::{SocketIo, TransportType};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use uuid::Uuid;

use super::source_state::{Command, Declines, Event, Source, SourceLimits, SourceState, admit};
use crate::link::retry::sleep_until;
use crate::node::Node;
use crate::store::StoreError;
use crate::worker::{CopyHandle, Job};

/// How often a follower has to prove that it is there, and how long it may take.
const PING: Duration = Duration::from_secs(2);

/// Messages of one follower that may wait; it sends at most a few for each frame that it gets.
const INBOX: usize = 1024;

/// Two neighbours follow a process; some may come back before it notices that they were gone.
const MAX_FOLLOWERS: usize = 32;

/// How long a follower may take to say what it wants.
const FOLLOW_DEADLINE: Duration = Duration::from_secs(5);

/// How long open connections may take to end when the process stops.
const CLOSE_DEADLINE: Duration = Duration::from_millis(500);

/// The server's part of the process.
pub struct ReplicationServer {
    /// What followers have to prove to know.
    pub secret: Secret,
    /// This process.
    pub node: Arc<Node>,
}

/// What every connection needs.
struct Server {
    /// Weak, as socketioxide keeps its handlers for ever when it is closed while clients are there. The
    /// databases have to close all the same.
    node: Weak<Node>,
    followers: TaskTracker,
    shutdown: CancellationToken,
    throttle: Mutex<LogThrottle>,
}

impl ReplicationServer {
    /// Serves until `shutdown`. When it returns, no follower is served any more.
    pub async fn run(self, listener: Listener, shutdown: CancellationToken) {
        let followers = TaskTracker::new();
        let server = Arc::new(Server {
            node: Arc::downgrade(&self.node),
            followers: followers.clone(),
            shutdown: shutdown.clone(),
            throttle: Mutex::default(),
        });
        let (layer, io) = SocketIo::builder()
            .transports([TransportType::Websocket])
            .ping_interval(PING)
            .ping_timeout(PING)
            .connect_timeout(PING)
            .max_payload(2 * MAX_FRAME_BYTES as u64)
            .max_buffer_size(1024)
            .build_layer();
        io.ns("/", move |socket: SocketRef| Arc::clone(&server).serve(socket));
        let admission = Admission::new(self.secret, Link::Follower, self.node.name().as_str());
        let app = admission
            .guard(Router::new().layer(layer))
            .route("/health/live", get(|| ready("live\n")))
            .route("/health/ready", get(readiness))
            .with_state(Arc::downgrade(&self.node));
        let policy = Policy::inner("REPLICATION_PORT", MAX_FOLLOWERS);
        let serve = server::serve(listener, app, policy, shutdown.clone());
        let close = async {
            shutdown.cancelled().await;
            followers.close();
            let closed = async { tokio::join!(io.close(), followers.wait()) };
            let _ = timeout(CLOSE_DEADLINE, closed).await;
        };
        let serve = async {
            let mut serve = pin!(serve);
            tokio::select! {
                () = &mut serve => return,
                () = shutdown.cancelled() => {}
            }
            // Connections that do not end by themselves end with it.
            let _ = timeout(CLOSE_DEADLINE, serve).await;
        };
        tokio::join!(serve, close);
    }
}

async fn readiness(State(node): State<Weak<Node>>) -> (StatusCode, &'static str) {
    if node.upgrade().is_some_and(|node| node.is_ready()) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

impl Server {
    /// Serves a client that was admitted. What it sends is queued from here on; the rest is a task of its
    /// own.
    fn serve(self: Arc<Self>, socket: SocketRef) -> impl Future<Output = ()> + Send + use<> {
        let (queue, inbox) = mpsc::channel(INBOX);
        let gone = self.shutdown.child_token();
        let (left, full, server) = (gone.clone(), gone.clone(), Arc::clone(&self));
        socket.on_disconnect(move || {
            left.cancel();
            ready(())
        });
        socket.on_fallback(move |extract::Event(event): extract::Event, TryData(text): TryData<String>| {
            match text.ok().and_then(|text| ToSource::decode(&event, &text).ok()) {
                Some(message) => {
                    if queue.try_send(message).is_err() {
                        // It sends more than it is owed, or is not served any more. It will connect again.
                        full.cancel();
                    }
                }
                None => server.ignore(&event),
            }
            ready(())
        });
        let followers = self.followers.clone();
        followers.spawn(async move {
            let Some(node) = self.node.upgrade() else { return };
            let (follow, ended) = serve(&node, &socket, inbox, &gone).await;
            drop(node);
            let follower = follow.as_ref().map(|follow| follow.instance.as_str());
            let copy = follow.as_ref().map(|follow| follow.role.as_str());
            match ended {
                Ended::Declined(_) if !self.is_time() => {}
                Ended::Copy(_) | Ended::OtherName | Ended::Unexpected(_) | Ended::Stuck => {
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
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner).is_time(Instant::now())
    }
}

/// Why a follower is not served any longer.
#[derive(Debug, Error)]
enum Ended {
    #[error("it left")]
    Left,
    #[error("it cannot follow: {0:?}")]
    Declined(Decline),
    #[error("its name is not the one that it has proven")]
    OtherName,
    #[error("it sent {0}")]
    Unexpected(&'static str),
    #[error("it does not read")]
    Stuck,
    #[error("the copy was closed")]
    Stopped,
    #[error("the copy cannot be read: {0}")]
    Copy(#[from] StoreError),
}

/// Serves a follower until it leaves. Returns what it followed and why that ended.
async fn serve(
    node: &Node,
    socket: &SocketRef,
    mut inbox: mpsc::Receiver<ToSource>,
    gone: &CancellationToken,
) -> (Option<Follow>, Ended) {
    let first = tokio::select! {
        first = timeout(FOLLOW_DEADLINE, inbox.recv()) => first.ok().flatten(),
        () = gone.cancelled() => return (None, Ended::Left),
    };
    let Some(ToSource::Follow(follow)) = first else {
        return (None, Ended::Unexpected("something else than what it wants to follow"));
    };
    let proven = socket.req_parts().extensions.get::<Proven>();
    if proven.is_none_or(|proven| proven.name != follow.instance.as_str()) {
        return (Some(follow), Ended::OtherName);
    }
    let copy = node.copy(follow.role);
    let incarnation = copy.report().incarnation;
    let Err(ended) = Feed { node, copy, incarnation, socket, frames: None }.serve(&follow, inbox, gone).await;
    (Some(follow), ended)
}

/// A message that another thread has made, and what is to be noted when it was sent.
type Frame = (&'static str, String, Event);

/// One follower.
struct Feed<'a> {
    node: &'a Node,
    copy: &'a CopyHandle,
    /// Of the copy when the follower came.
    incarnation: Uuid,
    socket: &'a SocketRef,
    /// From the thread that reads the op-log or everything, while there is one.
    frames: Option<mpsc::Receiver<Frame>>,
}

impl Feed<'_> {
    async fn serve(
        mut self,
        follow: &Follow,
        mut inbox: mpsc::Receiver<ToSource>,
        gone: &CancellationToken,
    ) -> Result<Infallible, Ended> {
        let source =
            Source { place: self.node.name().place(), ring: self.node.ring(), meta: self.copy.meta()? };
        let start = match admit(&source, follow) {
            Ok(start) => start,
            Err(Declines { reason, rollback }) => {
                rollback.into_iter().for_each(|rollback| self.copy.send(Job::MarkRolledBack(rollback)));
                self.send(&Declined { reason })?;
                return Err(Ended::Declined(reason));
            }
        };
        let (mut copy, mut moving) = (self.copy.state(), self.node.moving(follow.role));
        copy.mark_changed();
        moving.mark_changed();
        let mut commands = Vec::new();
        let limits = SourceLimits::default();
        let mut state = SourceState::new(limits, follow.clone(), start, Instant::now(), &mut commands);
        let mut events = VecDeque::new();
        loop {
            for command in commands.drain(..) {
                events.extend(self.execute(command)?);
            }
            let event = match events.pop_front() {
                Some(event) => event,
                None => tokio::select! {
                    biased;
                    () = gone.cancelled() => return Err(Ended::Left),
                    () = sleep_until(Some(state.deadline())) => Event::Tick,
                    message = inbox.recv() => match message.ok_or(Ended::Left)? {
                        ToSource::Confirmed(confirmed) => Event::Confirmed(confirmed),
                        ToSource::ChunkMerged(merged) => Event::ChunkMerged(merged),
                        ToSource::Follow(_) => return Err(Ended::Unexpected("another request to follow")),
                    },
                    Ok(()) = moving.changed() => Event::Moving(*moving.borrow_and_update()),
                    changed = copy.changed(), if state.has_window() => {
                        changed.map_err(|_| Ended::Stopped)?;
                        Event::Head(copy.borrow_and_update().report.head)
                    }
                    frame = next(&mut self.frames), if state.has_room() => match frame {
                        Some((event, text, sent)) => {
                            self.send_text(event, &text)?;
                            sent
                        }
                        None => {
                            self.frames = None;
                            Event::ReadToEnd
                        }
                    },
                },
            };
            state.step(Instant::now(), event, &mut commands);
        }
    }

    /// Returns what came of it, where that is known at once.
    fn execute(&mut self, command: Command) -> Result<Option<Event>, Ended> {
        let CopyReport { incarnation, flushed: lsn, .. } = self.copy.report();
        match command {
            Command::KeepAlive => self.send(&LogBatch { incarnation, lsn, entries: Vec::new() })?,
            Command::SendLog(after) => {
                let Some(entries) = self.copy.log_after(after)? else { return Ok(Some(Event::Trimmed)) };
                let last = entries.last().map(|last| last.sequence);
                if last.is_some() {
                    self.send(&LogBatch { incarnation, lsn, entries })?;
                }
                return Ok(last.map(Event::LogSent));
            }
            Command::ReadToHead(after) => {
                let (sender, frames) = mpsc::channel(1);
                let frame = move |entries: Vec<LogEntry>| {
                    let last = entries.last().expect("no frame is empty").sequence;
                    let batch = LogBatch { incarnation, lsn, entries };
                    (LogBatch::EVENT, batch.encode(), Event::LogSent(last))
                };
                self.copy.log_to_head(after, frame, sender);
                self.frames = Some(frames);
            }
            Command::ReadEverything => {
                let (sender, frames) = mpsc::channel(1);
                // To encode a chunk takes milliseconds, in which this thread has reads to answer.
                let frame = |part: CopyChunk| {
                    let sent = Event::ChunkSent { chunk: part.chunk, end: part.end };
                    (CopyChunk::EVENT, part.encode(), sent)
                };
                self.copy.full_copy(frame, sender);
                self.frames = Some(frames);
            }
            Command::Adopt(end) => self.send(&CopyChunk { end: Some(end), lsn, ..CopyChunk::default() })?,
            Command::Trim { upto, other } => self.copy.trim(self.incarnation, upto, other),
            Command::Close(what) => return Err(Ended::Unexpected(what)),
            Command::Stop => return Err(Ended::Stopped),
        }
        Ok(None)
    }

    fn send<M: Message>(&self, message: &M) -> Result<(), Ended> {
        self.send_text(M::EVENT, &message.encode())
    }

    fn send_text(&self, event: &str, text: &String) -> Result<(), Ended> {
        // It fails when the session is closed, or when so many messages wait in it that the follower cannot
        // be reading them.
        self.socket.emit(event, text).map_err(|_| Ended::Stuck)
    }
}

/// The next message of the other thread; for ever where there is none.
async fn next(frames: &mut Option<mpsc::Receiver<Frame>>) -> Option<Frame> {
    match frames {
        Some(frames) => frames.recv().await,
        None => std::future::pending().await,
    }
}
