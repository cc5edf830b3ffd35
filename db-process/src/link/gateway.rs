//! The link to the gateway over a socket, as [`SessionState`] says.
//!
//! One task owns the connection and does everything on it in turn. Reads are answered at once; writes go to
//! the copy's worker, and their answers come back through a channel. So do those of questions about a whole
//! copy, which take longer and are answered on threads of their own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use process::handshake::{self, Credentials, GATEWAY};
use process::{LogThrottle, Secret, TlsFiles};
use protocol::UserId;
use protocol::message::Message;
use protocol::message::link::{
    Expected, Found, MergeBatch, Merged, ReadAnswers, ReadBatch, Register, ReplicationAddress, Role,
    ToGateway, ToProcess, WriteAnswers, WriteBatch,
};
use protocol::message::query::{Answer, EraseAnswer, Query};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use url::Url;

use super::client::{Frame, FromSocket, Socket};
use super::event::{Command, Event, Work};
use super::retry::{Backoff, sleep_until};
use super::session_state::SessionState;
use crate::identity::IdentityError;
use crate::node::{Node, NoticeError};
use crate::store::StoreError;
use crate::worker::CopyHandle;

/// What the link needs.
pub struct GatewayLink {
    /// The gateway.
    pub url: Url,
    /// What this process and the gateway prove to know.
    pub secret: Secret,
    /// What they show to each other, if they speak TLS.
    pub tls: Option<TlsFiles>,
    /// Where this process can be followed.
    pub replication: ReplicationAddress,
    /// This process.
    pub node: Arc<Node>,
}

/// Why there will be no further attempt.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The gateway does not accept this process as it is, now or later.
    #[error("the gateway at {url} refuses {name}: {reason}")]
    Refused {
        /// The gateway.
        url: String,
        /// This process.
        name: String,
        /// What has to be changed.
        reason: String,
    },
    /// A copy cannot be read.
    #[error("the {} copy failed: {error}", role.as_str())]
    Copy {
        /// Which one.
        role: Role,
        /// How.
        error: StoreError,
    },
    /// The ring could not be persisted.
    #[error(transparent)]
    Identity(IdentityError),
}

/// How often the gateway learns what this process uses of its machine.
const USAGE_EVERY: Duration = Duration::from_secs(5);

/// What workers and other threads, and the sending of messages, come to.
type Events = UnboundedSender<Result<Event, LinkError>>;

struct Link<'a> {
    setup: &'a GatewayLink,
    socket: Socket,
    events: Events,
    throttle: LogThrottle,
    /// One permit.
    measuring: Arc<Semaphore>,
}

impl GatewayLink {
    /// Keeps this process registered until `shutdown`. When it is to `leave`, it says so to the gateway,
    /// serves on until that releases it, and returns.
    ///
    /// # Errors
    /// When further attempts are pointless.
    pub async fn run(self, leave: CancellationToken, shutdown: CancellationToken) -> Result<(), LinkError> {
        let ended = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            ended = self.serve(&leave) => ended,
        };
        self.node.set_registered(false);
        ended
    }

    async fn serve(&self, leave: &CancellationToken) -> Result<(), LinkError> {
        let (events, mut received) = unbounded_channel();
        let (socket, throttle) = (Socket::default(), LogThrottle::default());
        let measuring = Arc::new(Semaphore::new(1));
        let mut link = Link { setup: self, socket, events, throttle, measuring };
        let [mut primary, mut replica] = Role::ALL.map(|role| self.node.copy(role).state());
        let mut following = self.node.following();
        primary.mark_changed();
        replica.mark_changed();
        following.mark_changed();
        let (name, url) = (self.node.name().clone(), self.url.to_string());
        let mut state = SessionState::new(name, url, Instant::now(), Backoff::default());
        let (mut leaving, mut commands) = (false, Vec::new());
        let mut usage_due = interval(USAGE_EVERY);
        usage_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                // What has arrived counts before the time that has passed: this process may have been paused.
                biased;
                Some(event) = received.recv() => event?,
                incoming = link.socket.next() => match link.incoming(incoming) {
                    Some(event) => event,
                    None => continue,
                },
                // An error: the copy was closed, and the process knows why.
                changed = primary.changed() => match changed {
                    Ok(()) => Event::Copy(Role::Primary, primary.borrow_and_update().report),
                    Err(_) => return Ok(()),
                },
                changed = replica.changed() => match changed {
                    Ok(()) => Event::Copy(Role::Replica, replica.borrow_and_update().report),
                    Err(_) => return Ok(()),
                },
                Ok(()) = following.changed() => Event::Following(*following.borrow_and_update()),
                () = leave.cancelled(), if !leaving => {
                    leaving = true;
                    Event::Leave
                }
                () = sleep_until(state.deadline()) => Event::Tick,
                _ = usage_due.tick() => {
                    link.measure_usage();
                    continue;
                }
            };
            state.step(Instant::now(), event, &mut commands);
            for command in commands.drain(..) {
                if let Command::End(ended) = command {
                    let (url, name) = (self.url.to_string(), self.node.name().to_string());
                    return ended.map_err(|reason| LinkError::Refused { url, name, reason });
                }
                link.execute(command).await?;
            }
        }
    }
}

impl Link<'_> {
    fn incoming(&mut self, incoming: FromSocket) -> Option<Event> {
        match incoming {
            FromSocket::Opened => {
                let registration = self.setup.node.registration(self.setup.replication.clone());
                Some(Event::Connected(Box::new(registration)))
            }
            FromSocket::Lost(lost) => Some(Event::Lost(lost.to_string())),
            FromSocket::Frame(Frame { event, text }) => match ToProcess::decode(&event, &text) {
                Ok(message) => Some(Event::Message(message)),
                Err(what) => {
                    if self.throttle.is_time(Instant::now()) {
                        let event: String = event.chars().take(32).collect();
                        warn!(?event, bytes = text.len(), %what, "ignored something from the gateway");
                    }
                    None
                }
            },
        }
    }

    /// It asks the disk, which may hang.
    fn measure_usage(&self) {
        let (node, events) = (Arc::clone(&self.setup.node), self.events.clone());
        spawn_alone(&self.measuring, move || {
            // If a copy failed, it is poisoned, and the process ends.
            if let Ok(usage) = node.usage() {
                let _ = events.send(Ok(Event::Usage(Box::new(usage))));
            }
        });
    }

    async fn execute(&mut self, command: Command) -> Result<(), LinkError> {
        let GatewayLink { url, secret, tls, node, .. } = self.setup;
        let failed = |role| move |error| LinkError::Copy { role, error };
        match command {
            Command::Connect => {
                let credentials = Credentials {
                    secret: secret.clone(),
                    link: handshake::Link::Member,
                    client: node.name().to_string(),
                    server: GATEWAY.to_owned(),
                    tls: tls.clone(),
                };
                self.socket.connect(url.clone(), credentials);
            }
            Command::Disconnect => self.socket = Socket::Closed,
            Command::Registered(registered) => {
                node.set_registered(registered);
                if registered {
                    self.measure_usage();
                }
            }
            Command::Register(register) => self.send_text(Register::EVENT, register.encode()).await,
            Command::Send(message) => self.send(&message).await,
            Command::SendChanges => self.send(&ToGateway::CopiesChanged(Box::new(node.changes()))).await,
            Command::Read(batch) => {
                let answer = read(node, batch)?;
                self.send(&ToGateway::ReadAnswers(answer)).await;
            }
            Command::Count(query) => {
                let answer = node.copy(query.role).count(&query).map_err(failed(query.role))?;
                self.send(&ToGateway::Answer(Answer::CountAnswer(answer))).await;
            }
            Command::Write(session, WriteBatch { batch, role, writes }) => {
                let events = self.events.clone();
                node.copy(role).write(writes, move |results, lsn| {
                    let answer = ToGateway::WriteAnswers(WriteAnswers { batch, role, lsn, results });
                    // The receiver is gone if the link has ended.
                    let _ = events.send(Ok(Event::Done { session, work: Work::Writes, answer }));
                });
            }
            Command::Merge(session, MergeBatch { batch, role, changes, other }) => {
                let events = self.events.clone();
                node.copy(role).merge(changes, other, move |lsn| {
                    let answer = ToGateway::Merged(Merged { batch, role, lsn });
                    let _ = events.send(Ok(Event::Done { session, work: Work::Merge, answer }));
                });
            }
            Command::Ask(session, work, Query::EraseQuery(query)) => {
                let events = self.events.clone();
                let done = move |erased| {
                    let answer = EraseAnswer { query: query.query, erased };
                    let answer = ToGateway::Answer(Answer::EraseAnswer(answer));
                    let _ = events.send(Ok(Event::Done { session, work, answer }));
                };
                if let Err(error) = node.copy(query.role).erase(query, done.clone()) {
                    warn!(%error, "no thread erases what is out of date");
                    done(false);
                }
            }
            Command::Ask(session, work, query) => {
                let (copy, events) = (node.copy(query.role()).clone(), self.events.clone());
                spawn_blocking(move || {
                    // If the copy failed, it is poisoned, and the process ends.
                    if let Ok(answer) = answer(&copy, &query) {
                        let answer = ToGateway::Answer(answer);
                        let _ = events.send(Ok(Event::Done { session, work, answer }));
                    }
                });
            }
            Command::Notice(session, notice) => {
                let (node, events) = (Arc::clone(node), self.events.clone());
                tokio::spawn(async move {
                    let _ = events.send(match node.take(notice).await {
                        Ok(persisted) => Ok(Event::Noticed { session, persisted: Ok(persisted) }),
                        Err(NoticeError::Contradiction(error)) => {
                            Ok(Event::Noticed { session, persisted: Err(error) })
                        }
                        Err(NoticeError::Identity(error)) => Err(LinkError::Identity(error)),
                    });
                });
            }
            Command::Compare(Expected { role, flushed, followed }) => {
                let sound = node.copy(role).compare(flushed, followed).map_err(failed(role))?;
                let _ = self.events.send(Ok(Event::Compared { role, sound }));
            }
            Command::Renew(renew) => node.renew(renew),
            Command::End(_) => unreachable!("the link has ended before"),
        }
        Ok(())
    }

    async fn send(&mut self, message: &ToGateway) {
        let (event, text) = message.encode();
        self.send_text(event, text).await;
    }

    async fn send_text(&mut self, event: &str, text: String) {
        if let Err(lost) = self.socket.send(event, text).await {
            let _ = self.events.send(Ok(Event::Lost(lost.to_string())));
        }
    }
}

/// Does work on another thread; leaves it out while the work before, with the same one `permit`, goes on.
fn spawn_alone(permit: &Arc<Semaphore>, work: impl FnOnce() + Send + 'static) {
    let Ok(permit) = Arc::clone(permit).try_acquire_owned() else { return };
    spawn_blocking(move || {
        work();
        drop(permit);
    });
}

fn answer(copy: &CopyHandle, query: &Query) -> Result<Answer, StoreError> {
    Ok(match query {
        Query::PageQuery(query) => Answer::PageAnswer(copy.page(query)?),
        Query::CountQuery(query) => Answer::CountAnswer(copy.count(query)?),
        Query::ChangesQuery(query) => Answer::ChangesAnswer(copy.changes(query)?),
        Query::TombstoneQuery(query) => Answer::TombstoneAnswer(copy.tombstones(query)?),
        Query::DigestQuery(query) => Answer::DigestAnswer(copy.digests(query)?),
        Query::EraseQuery(_) => unreachable!("it has a thread of its own"),
    })
}

fn read(node: &Node, batch: ReadBatch) -> Result<ReadAnswers, LinkError> {
    let ReadBatch { batch, primary, replica } = batch;
    let look_up = |role, ids: &[UserId]| -> Result<Vec<Option<Found>>, LinkError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        node.copy(role).read_many(ids).map_err(|error| LinkError::Copy { role, error })
    };
    let mut results = look_up(Role::Primary, &primary)?;
    results.extend(look_up(Role::Replica, &replica)?);
    Ok(ReadAnswers { batch, results })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn one_measurement_is_under_way_at_a_time() {
        let (permit, (done, all)) = (Arc::new(Semaphore::new(1)), channel());
        let (release, released) = channel::<()>();
        let begin = |number: u32, released: Option<std::sync::mpsc::Receiver<()>>| {
            let done = done.clone();
            spawn_alone(&permit, move || {
                // A disk that hangs.
                let _ = released.map(|released| released.recv());
                let _ = done.send(number);
            });
        };
        begin(1, Some(released));
        begin(2, None);
        begin(3, None);
        release.send(()).unwrap();
        let free = permit.acquire().await.unwrap();
        drop(free);
        begin(4, None);
        let _free = permit.acquire().await.unwrap();
        assert_eq!(all.try_iter().collect::<Vec<_>>(), [1, 4]);
    }
}
