//! The coordinator: the one task that owns the routing, and the handle by which everything else reaches it.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use protocol::message::link::{Found, Role, WriteAnswer};
use protocol::message::query::{ChangesAnswer, DigestAnswer, Filter, PageAnswer};
use protocol::placement::Partition;
use protocol::{Condition, Operation, Outcome, UserId, Version};
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::feed::Hub;
use crate::history::History;
use crate::routing::status::ClusterStatus;
use crate::routing::{
    Answer, ByRequest, Command, Event, FeedStart, Question, Repair, RequestId, RingEvent, Routing, SessionId,
};
use crate::transport::Connections;

mod request;

pub use request::{OneOfMany, Reply, Request, Written};

pub use crate::routing::{PromotionRefused, RepairRefused, Unserved};

/// Asks the coordinator. Cheap to clone; each question is one message and one answer.
#[derive(Debug, Clone)]
pub struct Coordinator {
    requests: mpsc::UnboundedSender<Request>,
    feed: Arc<Hub>,
}

impl Coordinator {
    /// A handle, and the questions that come through it in the order in which they were asked.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Request>) {
        let (requests, questions) = mpsc::unbounded_channel();
        (Self { requests, feed: Arc::default() }, questions)
    }

    /// The user with that id and its version; `None` where there is no live one.
    ///
    /// # Errors
    /// [`Unserved::Unavailable`] where no copy can answer truthfully, [`Unserved::Overloaded`] where too much
    /// is asked.
    pub async fn read(&self, id: UserId) -> Result<Option<Found>, Unserved> {
        self.ask(|reply| Request::Read { id, reply }).await?
    }

    /// Decides and applies one operation. When it returns, what was applied is on the lead's disk.
    ///
    /// # Errors
    /// As for [`Self::read`], and [`Unserved::OutcomeUnknown`].
    pub async fn write(
        &self,
        id: UserId,
        operation: Operation,
        condition: Option<Condition>,
    ) -> Result<WriteAnswer, Unserved> {
        // What a write leaves that sets everything is known here, so nobody has to send it back.
        let left = operation.whole_user(id);
        let quiet = left.is_some();
        let written = self.ask(|reply| Request::Write { id, operation, condition, quiet, reply }).await?;
        let mut answer = written.result?;
        if answer.outcome == Outcome::Applied && answer.user.is_none() {
            answer.user = left.map(|user| Found::new(written.version, &user));
        }
        Ok(answer)
    }

    /// Decides and applies many operations with one message there; the answers come through `replies`, each
    /// in its own time, and when `replies` closes without one, as [`Unserved::Stopping`].
    ///
    /// # Errors
    /// [`Unserved::Stopping`]; nothing was done then.
    pub fn write_many(
        &self,
        writes: Vec<OneOfMany>,
        replies: mpsc::UnboundedSender<Reply>,
    ) -> Result<(), Unserved> {
        self.requests.send(Request::WriteMany { writes, replies }).map_err(|_| Unserved::Stopping)
    }

    /// Lets the other copy of a partition lead though it may lack acknowledged writes. When it returns, that
    /// is under way.
    ///
    /// # Errors
    /// If the partition is served, or nobody could lead it.
    pub async fn promote(&self, partition: Partition) -> Result<(), PromotionRefused> {
        let promoted = self.ask(|reply| Request::Promote { partition, reply }).await;
        promoted.unwrap_or(Err(PromotionRefused::Stopping))
    }

    /// n, the number of partitions. It never changes once it is known.
    ///
    /// # Errors
    /// [`Unserved::Unavailable`] while the ring is not known.
    pub async fn size(&self) -> Result<u16, Unserved> {
        self.ask(|reply| Request::Size { reply }).await?
    }

    /// Live users of one partition in id order, those after `after` where that is given: at most `limit` (1
    /// to [`protocol::message::query::MAX_PAGE`]), perhaps fewer although there are more.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub async fn page(
        &self,
        partition: Partition,
        after: Option<UserId>,
        limit: u32,
        filter: Filter,
    ) -> Result<PageAnswer, Unserved> {
        match self.question(partition, Question::Page { after, limit, filter }).await? {
            Answer::Page(page) => Ok(page),
            _ => unreachable!("the routing lets no other answer than a page pass"),
        }
    }

    /// How many live users one partition has; only those of a group, where that is given.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub async fn count(&self, partition: Partition, group: Option<i32>) -> Result<u64, Unserved> {
        match self.question(partition, Question::Count { group }).await? {
            Answer::Count(answer) => Ok(answer.count),
            _ => unreachable!("the routing lets no other answer than a count pass"),
        }
    }

    /// Changes from the op-log of one copy of a partition, whoever leads: those after one version, up to
    /// another.
    ///
    /// # Errors
    /// As for [`Self::read`]; [`Unserved::Unavailable`] also where that very copy is not there, or not
    /// complete.
    pub async fn changes(
        &self,
        partition: Partition,
        role: Role,
        after: Version,
        upto: Version,
    ) -> Result<ChangesAnswer, Unserved> {
        match self.question(partition, Question::Changes { role, after, upto }).await? {
            Answer::Changes(answer) => Ok(answer),
            _ => unreachable!("the routing lets no other answer than changes pass"),
        }
    }

    /// Digests of one copy of a partition, whoever leads. With `scan` it reads every record of it, which may
    /// take minutes.
    ///
    /// # Errors
    /// As for [`Self::changes`].
    pub async fn digests(
        &self,
        partition: Partition,
        role: Role,
        scan: bool,
    ) -> Result<DigestAnswer, Unserved> {
        match self.question(partition, Question::Digests { role, scan }).await? {
            Answer::Digests(answer) => Ok(answer),
            _ => unreachable!("the routing lets no other answer than digests pass"),
        }
    }

    async fn question(&self, partition: Partition, question: Question) -> Result<Answer, Unserved> {
        self.ask(|reply| Request::Question { partition, question, reply }).await?
    }

    /// The place in the feed at which a subscription begins. What is newer is published from now on; whoever
    /// takes a seat in [`Self::feed`] first gets all of it.
    ///
    /// # Errors
    /// [`Unserved::Unavailable`] where the place is not known within a few seconds.
    pub async fn subscribe(&self) -> Result<FeedStart, Unserved> {
        self.ask(|reply| Request::Subscribe { reply }).await?
    }

    /// What is published.
    pub fn feed(&self) -> &Arc<Hub> {
        &self.feed
    }

    /// Holds the writes of a partition until [`Self::let_go`], and no longer than
    /// [`crate::routing::HOLD_WITHIN`].
    ///
    /// # Errors
    /// [`Unserved::Stopping`].
    pub async fn hold(&self, partition: Partition) -> Result<(), Unserved> {
        self.ask(|reply| Request::Hold { partition, hold: true, reply }).await
    }

    /// Lets the writes go that were held.
    ///
    /// # Errors
    /// [`Unserved::Stopping`].
    pub async fn let_go(&self, partition: Partition) -> Result<(), Unserved> {
        self.ask(|reply| Request::Hold { partition, hold: false, reply }).await
    }

    /// Begins to make the copies of a partition good. When it returns, that is under way.
    ///
    /// # Errors
    /// If a copy is away or not up to date.
    pub async fn repair(&self, partition: Partition, repair: Repair) -> Result<(), RepairRefused> {
        let begun = self.ask(|reply| Request::Repair { partition, repair, reply }).await;
        begun.unwrap_or(Err(RepairRefused::Stopping))
    }

    /// The ring as it is known now.
    ///
    /// # Errors
    /// [`Unserved::Stopping`].
    pub async fn status(&self) -> Result<ClusterStatus, Unserved> {
        self.ask(|reply| Request::Status { reply }).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Unserved> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).map_err(|_| Unserved::Stopping)?;
        answer.await.map_err(|_| Unserved::Stopping)
    }
}

/// How often the routing is told that time passes.
const TICK: Duration = Duration::from_millis(10);

/// How often it is told to look for users to forget.
const PURGE: Duration = Duration::from_secs(1);

/// Runs the routing until `shutdown`: takes questions and what the db-processes send, and carries out what
/// the routing asks for. Everything that has arrived is taken in before anything is sent, and where that is
/// little, what other tasks have ready, too, so that batches form by themselves.
pub async fn run(
    mut routing: Routing,
    mut questions: mpsc::UnboundedReceiver<Request>,
    mut events: mpsc::UnboundedReceiver<Event>,
    connections: Connections,
    feed: Arc<Hub>,
    purge_after: Option<Duration>,
    shutdown: CancellationToken,
) {
    let start = Instant::now();
    let mut desk = Desk { connections, feed: Arc::clone(&feed), ..Desk::default() };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut purge = tokio::time::interval(PURGE);
    purge.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = Vec::new();
    let mut told = Vec::new();
    let mut commands = Vec::new();
    let mut others_had_their_turn = false;
    let mut gathered = 0;
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            _ = tick.tick() => {
                if feed.is_abandoned() {
                    routing.step(start.elapsed(), Event::Unheard, &mut commands);
                }
                routing.step(start.elapsed(), Event::Tick, &mut commands);
            }
            _ = purge.tick(), if purge_after.is_some() => {
                let age = purge_after.map_or(u64::MAX, |age| age.as_millis() as u64);
                let upto = Version::at_unix_millis(unix_millis().saturating_sub(age));
                routing.step(start.elapsed(), Event::Purge { upto }, &mut commands);
            }
            _ = events.recv_many(&mut told, BURST) => {
                let now = start.elapsed();
                for event in told.drain(..) {
                    routing.step(now, event, &mut commands);
                }
            }
            count = questions.recv_many(&mut asked, BURST) => {
                if count == 0 {
                    // Nobody is left who could ask: the HTTP server has ended.
                    break;
                }
                gathered += count;
                let now = start.elapsed();
                for request in asked.drain(..) {
                    match desk.enter(request) {
                        Entered::Many(writes, replies) => {
                            let (replies, unix_millis) = (Arc::new(replies), unix_millis());
                            for write in writes {
                                let event = desk.enter_one_of_many(write, &replies, unix_millis);
                                routing.step(now, event, &mut commands);
                            }
                        }
                        Entered::Event(event) => routing.step(now, event, &mut commands),
                        Entered::Status(reply) => {
                            let events = desk.history.recent();
                            drop(reply.send(ClusterStatus { events, ..routing.status() }));
                        }
                        Entered::Hold(partition, hold, reply) => {
                            match hold {
                                true => routing.pause(now, partition),
                                false => routing.let_go(partition),
                            }
                            let _ = reply.send(());
                        }
                        Entered::Repair(partition, repair, reply) => {
                            drop(reply.send(routing.repair(partition, repair, &mut commands)));
                        }
                        Entered::Promote(partition, reply) => {
                            drop(reply.send(routing.promote(now, partition, &mut commands)));
                        }
                    }
                }
            }
        }
        desk.carry_out_all(&mut routing, start, &mut commands);
        // Other connections may have requests that are only not read yet: they should leave in the same
        // frames.
        if questions.is_empty()
            && events.is_empty()
            && gathered < FEW
            && !mem::replace(&mut others_had_their_turn, true)
        {
            yield_now().await;
        }
        if questions.is_empty() && events.is_empty() {
            others_had_their_turn = false;
            gathered = 0;
            routing.flush(&mut commands);
            desk.carry_out_all(&mut routing, start, &mut commands);
        }
    }
}

/// At most this many messages are taken in before time and shutdown are looked at again.
const BURST: usize = 1024;

/// Frames wait a turn for others where no more requests than this have come together: with more they are
/// large enough.
const FEW: usize = 16;

/// Keeps the way back to whoever asked.
#[derive(Default)]
struct Desk {
    connections: Connections,
    feed: Arc<Hub>,
    requests: u64,
    history: History,
    reads: ByRequest<oneshot::Sender<Result<Option<Found>, Unserved>>>,
    writes: ByRequest<WayBack>,
    questions: ByRequest<oneshot::Sender<Result<Answer, Unserved>>>,
    sizes: ByRequest<oneshot::Sender<Result<u16, Unserved>>>,
    subscribers: ByRequest<oneshot::Sender<Result<FeedStart, Unserved>>>,
}

/// To whoever asked for a write.
enum WayBack {
    One(oneshot::Sender<Written>),
    /// With its ticket.
    Many(Arc<mpsc::UnboundedSender<Reply>>, u64),
}

enum Entered {
    Many(Vec<OneOfMany>, mpsc::UnboundedSender<Reply>),
    Event(Event),
    Status(oneshot::Sender<ClusterStatus>),
    Hold(Partition, bool, oneshot::Sender<()>),
    Repair(Partition, Repair, oneshot::Sender<Result<(), RepairRefused>>),
    Promote(Partition, oneshot::Sender<Result<(), PromotionRefused>>),
}

impl Desk {
    fn enter(&mut self, request: Request) -> Entered {
        self.requests += 1;
        let number = RequestId(self.requests);
        match request {
            Request::Read { id, reply } => {
                self.reads.insert(number, reply);
                Entered::Event(Event::Read { request: number, id })
            }
            Request::Write { id, operation, condition, quiet, reply } => {
                self.writes.insert(number, WayBack::One(reply));
                let (request, unix_millis) = (number, unix_millis());
                Entered::Event(Event::Write { request, id, operation, condition, quiet, unix_millis })
            }
            Request::Question { partition, question, reply } => {
                self.questions.insert(number, reply);
                Entered::Event(Event::Question { request: number, partition, question })
            }
            Request::Size { reply } => {
                self.sizes.insert(number, reply);
                Entered::Event(Event::Size { request: number })
            }
            Request::WriteMany { writes, replies } => Entered::Many(writes, replies),
            Request::Subscribe { reply } => {
                self.subscribers.insert(number, reply);
                Entered::Event(Event::Subscribe { request: number })
            }
            Request::Status { reply } => Entered::Status(reply),
            Request::Hold { partition, hold, reply } => Entered::Hold(partition, hold, reply),
            Request::Repair { partition, repair, reply } => Entered::Repair(partition, repair, reply),
            Request::Promote { partition, reply } => Entered::Promote(partition, reply),
        }
    }

    fn enter_one_of_many(
        &mut self,
        write: OneOfMany,
        replies: &Arc<mpsc::UnboundedSender<Reply>>,
        unix_millis: u64,
    ) -> Event {
        let OneOfMany { ticket, id, operation, condition } = write;
        self.requests += 1;
        let request = RequestId(self.requests);
        self.writes.insert(request, WayBack::Many(Arc::clone(replies), ticket));
        Event::Write { request, id, operation, condition, quiet: true, unix_millis }
    }

    /// Carries out all commands, and those that follow from them.
    fn carry_out_all(&mut self, routing: &mut Routing, start: Instant, commands: &mut Vec<Command>) {
        while !commands.is_empty() {
            let now = start.elapsed();
            let failed = self.carry_out(commands);
            for session in failed {
                routing.step(now, Event::Closed { session }, commands);
            }
            if !commands.is_empty() {
                routing.flush(commands);
            }
        }
    }

    /// Carries out all commands. Returns the connections on which a message could not leave.
    fn carry_out(&mut self, commands: &mut Vec<Command>) -> Vec<SessionId> {
        let mut failed = Vec::new();
        for command in commands.drain(..) {
            match command {
                Command::Send { session, message } => {
                    if !self.connections.send(session, &message) && !failed.contains(&session) {
                        failed.push(session);
                    }
                }
                // Whoever asked may have gone away meanwhile; then nobody wants the answer.
                Command::AnswerRead { request, result } => {
                    self.reads.remove(&request).map(|reply| reply.send(result).ok());
                }
                Command::AnswerWrite { request, version, result } => match self.writes.remove(&request) {
                    Some(WayBack::One(reply)) => drop(reply.send(Written { version, result })),
                    Some(WayBack::Many(replies, ticket)) => {
                        let _ = replies.send(Reply { ticket, version, result });
                    }
                    None => {}
                },
                Command::AnswerQuestion { request, result } => {
                    self.questions.remove(&request).map(|reply| reply.send(result).ok());
                }
                Command::AnswerSize { request, result } => {
                    self.sizes.remove(&request).map(|reply| reply.send(result).ok());
                }
                Command::AnswerSubscribe { request, result } => {
                    self.subscribers.remove(&request).map(|reply| reply.send(result).ok());
                }
                Command::BeginFeed { after } => self.feed.begin(after),
                Command::Publish(news) => self.feed.publish(&news),
                Command::Report(event) => {
                    self.history.add(unix_millis(), &event);
                    report(event);
                }
            }
        }
        failed
    }
}

/// Milliseconds since 1970; a clock before that counts as 1970, since versions rise by themselves.
fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis() as u64)
}

fn report(event: RingEvent) {
    match event {
        RingEvent::ProcessRegistered { instance, host, incarnation } => {
            info!(instance, host, %incarnation, "db-process registered");
        }
        RingEvent::ProcessRefused { instance, host, reason } => {
            warn!(instance, host, reason, "db-process refused");
        }
        RingEvent::ProcessLost { instance, how } => warn!(instance, how, "db-process lost"),
        RingEvent::RolledBack { instance, partition, role, rollback } => {
            warn!(
                instance, partition, copy = role.as_str(), %rollback,
                "a copy was rolled back: its disk has lost something"
            );
        }
        RingEvent::CutOff => {
            warn!("nothing is heard of any db-process: the gateway may be cut off, and requests wait");
        }
        RingEvent::RingKnown { ring, size, new: true } => info!(%ring, size, "new ring formed"),
        RingEvent::RingKnown { ring, size, new: false } => info!(%ring, size, "ring found"),
        RingEvent::SizeDiffers { ring, configured } => {
            warn!(
                ring,
                configured, "DB_PROCESSES is not the size of the ring that the data belong to, which counts"
            );
        }
        RingEvent::ViewChanged { epoch, partition, lead, why } => {
            info!(epoch, partition, lead, why, "view changed");
        }
        RingEvent::PartitionChanged { partition, now } => info!(partition, "partition {partition}: {now}"),
        RingEvent::ReplicationImpaired { partition, what } => {
            warn!(partition, "partition {partition}: {what}");
        }
        RingEvent::ReplicationRestored { partition, what } => {
            info!(partition, "partition {partition}: {what}");
        }
    }
}
