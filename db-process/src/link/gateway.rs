//! The links to the gateways over sockets, as [`Links`] says.
//!
//! One task owns the connections and does everything on them in turn. Reads are answered at once; writes go
//! to the copy's worker, and their answers come back through a channel. So do those of questions about a
//! whole copy, which take longer and are answered on threads of their own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::select_all;
use process::handshake::{self, Credentials, GATEWAY};
use process::{LogThrottle, Secret, TlsFiles};
use protocol::UserId;
use protocol::message::Message;
use protocol::message::link::{
    Expected, Found, Hello, MergeBatch, Merged, ReadAnswers, ReadBatch, Register, ReplicationAddress, Role,
    ToGateway, ToProcess, WriteAnswers, WriteBatch,
};
use protocol::message::query::{Answer, EraseAnswer, Query};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use url::Url;

use super::client::{Frame, FromSocket, SEND_DEADLINE, Socket};
use super::event::{Command, Event, LinkId, ProcessEvent, Todo, Work};
use super::links::{Links, Target};
use super::retry::{Backoff, sleep_until};
use crate::identity::{Grant, IdentityError};
use crate::node::{Node, NoticeError};
use crate::store::StoreError;
use crate::worker::{CopyHandle, CopyState};

/// What the links need.
pub struct GatewayLinks {
    /// The gateways, at least one.
    pub urls: Vec<Url>,
    /// What this process and the gateways prove to know.
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

/// A gateway of several that has not read for so long is given up.
const STUCK: Duration = Duration::from_millis(200);

/// What workers and other threads, and the sending of messages, come to.
type Events = UnboundedSender<Result<Happened, LinkError>>;

struct Link<'a> {
    setup: &'a GatewayLinks,
    sockets: Vec<Socket>,
    events: Events,
    throttle: LogThrottle,
    /// One permit.
    measuring: Arc<Semaphore>,
}

/// What happened, to the process or on a link.
#[derive(Debug)]
enum Happened {
    Process(ProcessEvent),
    On(LinkId, Event),
}

impl GatewayLinks {
    /// Keeps this process connected to all gateways, and registered at the one that holds the term, until
    /// `shutdown`. When it is to `leave`, it says so to that gateway, serves on until it releases it, and
    /// returns.
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
        let sockets = self.urls.iter().map(|_| Socket::default()).collect();
        let (throttle, measuring) = (LogThrottle::default(), Arc::new(Semaphore::new(1)));
        let mut link = Link { setup: self, sockets, events, throttle, measuring };
        let [mut primary, mut replica] = Role::ALL.map(|role| self.node.copy(role).state());
        let mut following = self.node.following();
        primary.mark_changed();
        replica.mark_changed();
        following.mark_changed();
        let target =
            |url: &Url| Target { url: url.to_string(), host: url.host_str().unwrap_or_default().to_owned() };
        let (name, targets) = (self.node.name().clone(), self.urls.iter().map(target).collect());
        let mut state = Links::new(name, targets, self.node.grant(), Instant::now(), Backoff::default);
        let (mut leaving, mut todos) = (false, Vec::new());
        let mut usage_due = interval(USAGE_EVERY);
        usage_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let happened = tokio::select! {
                // What has arrived counts before the time that has passed: this process may have been paused.
                biased;
                Some(event) = received.recv() => event?,
                (id, incoming) = next_of(&mut link.sockets) => match link.incoming(incoming) {
                    Some(event) => Happened::On(id, event),
                    None => continue,
                },
                // An error: the copy was closed, and the process knows why.
                changed = primary.changed() => match changed {
                    Ok(()) => copied(Role::Primary, &mut primary),
                    Err(_) => return Ok(()),
                },
                changed = replica.changed() => match changed {
                    Ok(()) => copied(Role::Replica, &mut replica),
                    Err(_) => return Ok(()),
                },
                Ok(()) = following.changed() => {
                    Happened::Process(ProcessEvent::Following(*following.borrow_and_update()))
                }
                () = leave.cancelled(), if !leaving => {
                    leaving = true;
                    Happened::Process(ProcessEvent::Leave)
                }
                () = sleep_until(state.deadline()) => Happened::Process(ProcessEvent::Tick),
                _ = usage_due.tick() => {
                    link.measure_usage();
                    continue;
                }
            };
            let now = Instant::now();
            match happened {
                Happened::Process(event) => state.step(now, event, &mut todos),
                Happened::On(id, event) => state.step_on(now, id, event, &mut todos),
            }
            for todo in todos.drain(..) {
                match todo {
                    Todo::On(id, command) => link.execute(id, command).await?,
                    Todo::PersistGrant(grant) => link.persist_grant(grant),
                    Todo::End(ended) => {
                        let urls: Vec<&str> = self.urls.iter().map(Url::as_str).collect();
                        let (url, name) = (urls.join(", "), self.node.name().to_string());
                        return ended.map_err(|reason| LinkError::Refused { url, name, reason });
                    }
                }
            }
        }
    }
}

fn copied(role: Role, state: &mut watch::Receiver<CopyState>) -> Happened {
    Happened::Process(ProcessEvent::Copy(role, state.borrow_and_update().report))
}

/// The next thing that comes of any of the sockets. Nothing is lost if the future is dropped.
async fn next_of(sockets: &mut [Socket]) -> (LinkId, FromSocket) {
    match sockets {
        [only] => (0, only.next().await),
        several => {
            let next = several
                .iter_mut()
                .enumerate()
                .map(|(id, socket)| Box::pin(async move { (id, socket.next().await) }));
            select_all(next).await.0
        }
    }
}

impl Link<'_> {
    fn incoming(&mut self, incoming: FromSocket) -> Option<Event> {
        match incoming {
            FromSocket::Opened => Some(Event::Connected(self.setup.node.ring())),
            FromSocket::Lost(lost) => Some(Event::Lost(lost.to_string())),
            FromSocket::Frame(Frame { event, text }) => match ToProcess::decode(&event, &text) {
                Ok(message) => Some(Event::Message(message)),
                Err(what) => {
                    if self.throttle.is_time(Instant::now()) {
                        let event: String = event.chars().take(32).collect();
                        warn!(?event, bytes = text.len(), %what, "ignored something from a gateway");
                    }
                    None
                }
            },
        }
    }

    fn persist_grant(&self, grant: Grant) {
        let (node, events) = (Arc::clone(&self.setup.node), self.events.clone());
        tokio::spawn(async move {
            let persisted = node.persist_grant(grant).await.map_err(LinkError::Identity);
            let _ = events.send(persisted.map(|()| Happened::Process(ProcessEvent::GrantPersisted)));
        });
    }

    /// It asks the disk, which may hang.
    fn measure_usage(&self) {
        let (node, events) = (Arc::clone(&self.setup.node), self.events.clone());
        spawn_alone(&self.measuring, move || {
            // If a copy failed, it is poisoned, and the process ends.
            if let Ok(usage) = node.usage() {
                let _ = events.send(Ok(Happened::Process(ProcessEvent::Usage(Box::new(usage)))));
            }
        });
    }

    async fn execute(&mut self, id: LinkId, command: Command) -> Result<(), LinkError> {
        let GatewayLinks { urls, secret, tls, node, replication } = self.setup;
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
                self.sockets[id].connect(urls[id].clone(), credentials);
            }
            Command::Disconnect => self.sockets[id] = Socket::Closed,
            Command::Registered(registered) => {
                node.set_registered(registered);
                if registered {
                    self.measure_usage();
                }
            }
            Command::Hello(hello) => self.send_text(id, Hello::EVENT, hello.encode()).await,
            Command::Prepare => {
                let register = Box::new(node.registration(replication.clone()));
                let _ = self.events.send(Ok(Happened::On(id, Event::Prepared(register))));
            }
            Command::Register(register) => self.send_text(id, Register::EVENT, register.encode()).await,
            Command::Send(message) => self.send(id, &message).await,
            Command::SendChanges => self.send(id, &ToGateway::CopiesChanged(Box::new(node.changes()))).await,
            Command::Read(batch) => {
                let answer = read(node, batch)?;
                self.send(id, &ToGateway::ReadAnswers(answer)).await;
            }
            Command::Count(query) => {
                let answer = node.copy(query.role).count(&query).map_err(failed(query.role))?;
                self.send(id, &ToGateway::Answer(Answer::CountAnswer(answer))).await;
            }
            Command::Write(session, WriteBatch { batch, role, writes }) => {
                let events = self.events.clone();
                node.copy(role).write(writes, move |results, lsn| {
                    let answer = ToGateway::WriteAnswers(WriteAnswers { batch, role, lsn, results });
                    // The receiver is gone if the link has ended.
                    let _ = events
                        .send(Ok(Happened::On(id, Event::Done { session, work: Work::Writes, answer })));
                });
            }
            Command::Merge(session, MergeBatch { batch, role, changes, other }) => {
                let events = self.events.clone();
                node.copy(role).merge(changes, other, move |lsn| {
                    let answer = ToGateway::Merged(Merged { batch, role, lsn });
                    let _ =
                        events.send(Ok(Happened::On(id, Event::Done { session, work: Work::Merge, answer })));
                });
            }
            Command::Ask(session, work, Query::EraseQuery(query)) => {
                let events = self.events.clone();
                let done = move |erased| {
                    let answer = EraseAnswer { query: query.query, erased };
                    let answer = ToGateway::Answer(Answer::EraseAnswer(answer));
                    let _ = events.send(Ok(Happened::On(id, Event::Done { session, work, answer })));
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
                        let _ = events.send(Ok(Happened::On(id, Event::Done { session, work, answer })));
                    }
                });
            }
            Command::Notice(session, notice) => {
                let (node, events) = (Arc::clone(node), self.events.clone());
                tokio::spawn(async move {
                    let persisted = match node.take(notice).await {
                        Ok(persisted) => Ok(Ok(persisted)),
                        Err(NoticeError::Contradiction(error)) => Ok(Err(error)),
                        Err(NoticeError::Identity(error)) => Err(LinkError::Identity(error)),
                    };
                    let noticed = |persisted| Happened::On(id, Event::Noticed { session, persisted });
                    let _ = events.send(persisted.map(noticed));
                });
            }
            Command::Compare(Expected { role, flushed, followed }) => {
                let sound = node.copy(role).compare(flushed, followed).map_err(failed(role))?;
                let _ = self.events.send(Ok(Happened::On(id, Event::Compared { role, sound })));
            }
            Command::Renew(renew) => node.renew(renew),
        }
        Ok(())
    }

    async fn send(&mut self, id: LinkId, message: &ToGateway) {
        let (event, text) = message.encode();
        self.send_text(id, event, text).await;
    }

    async fn send_text(&mut self, id: LinkId, event: &str, text: String) {
        // One gateway that hangs must not keep the process from listening to another one for long.
        let deadline = if self.sockets.len() > 1 { STUCK } else { SEND_DEADLINE };
        if let Err(lost) = self.sockets[id].send(event, text, deadline).await {
            let _ = self.events.send(Ok(Happened::On(id, Event::Lost(lost.to_string()))));
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
