//! The task that owns the engine, and the handle by which everything else asks it.

use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use protocol::message::link::{Found, Role, WriteAnswer};
use protocol::message::query::{
    Answer, ChangesAnswer, ChangesQuery, CountQuery, DigestAnswer, DigestQuery, Filter, PageAnswer,
    PageQuery, Query,
};
use protocol::placement::Partition;
use protocol::{Condition, Operation, Outcome, UserId, Version};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::pending::{PendingReplies, ReplyTo};
use super::request::{OneOfMany, Reply, Request};
use crate::election::ElectedEngine;
use crate::engine::{Command, Event, FeedStart, OrderRefused, Repair, SessionId, Unserved};
use crate::feed::Hub;
use crate::standing::Standing;
use crate::status::{ClusterStatus, History, log};
use crate::transport::Connections;

/// How often the engine learns that time passes.
const TICK: Duration = Duration::from_millis(10);

/// How often it looks for tombstones to purge.
const PURGE: Duration = Duration::from_secs(1);

/// What is out of date is erased so many times in the time after which it is, though neither more nor less
/// often than that.
const ERASE: u32 = 24;
const ERASE_AT_MOST: Duration = Duration::from_secs(20);
const ERASE_AT_LEAST: Duration = Duration::from_secs(3_600);

/// What is in flight when this gateway hands over gets so long to end.
const HAND_OVER: Duration = Duration::from_secs(1);

/// The processes get so long to learn that this gateway has given its term up.
const RELEASED: Duration = Duration::from_millis(300);

/// At most this many messages are taken in before time and shutdown are looked at again.
const BURST: usize = 1024;

/// Frames wait for other tasks where no more requests than this have come together: with more they are large
/// enough.
const FEW: usize = 16;

/// Asks the engine. Cheap to clone; each question is one message and one answer.
#[derive(Debug, Clone)]
pub struct EngineHandle {
    requests: mpsc::UnboundedSender<Request>,
    feed: Arc<Hub>,
}

impl EngineHandle {
    /// A handle, and the questions that come through it in the order in which they were asked.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Request>) {
        let (requests, questions) = mpsc::unbounded_channel();
        (Self { requests, feed: Arc::default() }, questions)
    }

    /// The user with that id and its version; `None` where there is no live one.
    ///
    /// # Errors
    /// [`Unserved::Unavailable`] where no copy may answer, [`Unserved::Overloaded`] where too much
    /// is asked.
    pub async fn read(&self, id: UserId) -> Result<Option<Found>, Unserved> {
        self.ask(|reply| Request::Read { id, reply }).await?
    }

    /// Decides and applies one operation. When it returns, what was applied is on the leader's disk.
    ///
    /// # Errors
    /// As for [`Self::read`], and [`Unserved::OutcomeUnknown`].
    pub async fn write(
        &self,
        id: UserId,
        operation: Operation,
        condition: Option<Condition>,
    ) -> Result<WriteAnswer, Unserved> {
        Ok(self.write_version(id, operation, condition).await?.1)
    }

    /// The same; returns the version that the write was given, too.
    ///
    /// # Errors
    /// As for [`Self::write`].
    pub async fn write_version(
        &self,
        id: UserId,
        operation: Operation,
        condition: Option<Condition>,
    ) -> Result<(Version, WriteAnswer), Unserved> {
        // What a write leaves that sets everything is known here, so it need not be sent back.
        let left = operation.whole_user(id);
        let omit_user = left.is_some();
        let written = self.ask(|reply| Request::Write { id, operation, condition, omit_user, reply }).await?;
        let mut answer = written.result?;
        if answer.outcome == Outcome::Applied && answer.user.is_none() {
            answer.user = left.map(|user| Found::new(written.version, &user));
        }
        Ok((written.version, answer))
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
    /// If the partition is served, or no copy could lead it.
    pub async fn promote(&self, partition: Partition) -> Result<(), OrderRefused> {
        let promoted = self.ask(|reply| Request::Promote { partition, reply }).await;
        promoted.unwrap_or(Err(OrderRefused::Stopping))
    }

    /// Forgets a user that is deleted, or of which there is no record, as soon as both copies have all that
    /// is older. Returns the version of that, and whether it was done.
    ///
    /// # Errors
    /// As for [`Self::write`].
    pub async fn purge_user(&self, id: UserId) -> Result<(Version, Outcome), Unserved> {
        let written = self.ask(|reply| Request::PurgeUser { id, reply }).await?;
        Ok((written.version, written.result?.outcome))
    }

    /// Erases a user that was purged from one copy. Returns whether nothing is left of it there.
    ///
    /// # Errors
    /// As for [`Self::changes`].
    pub async fn erase_in_copy(&self, id: UserId, role: Role) -> Result<bool, Unserved> {
        match self.ask(|reply| Request::EraseInCopy { id, role, reply }).await?? {
            Answer::EraseAnswer(answer) => Ok(answer.erased),
            _ => unreachable!("the engine lets no other answer pass"),
        }
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
        match self
            .question(
                partition,
                Query::PageQuery(PageQuery { query: 0, role: Role::Primary, after, limit, filter }),
            )
            .await?
        {
            Answer::PageAnswer(page) => Ok(page),
            _ => unreachable!("the engine lets no other answer than a page pass"),
        }
    }

    /// How many live users one partition has; only those of a group, where that is given.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub async fn count(&self, partition: Partition, group: Option<i32>) -> Result<u64, Unserved> {
        match self
            .question(partition, Query::CountQuery(CountQuery { query: 0, role: Role::Primary, group }))
            .await?
        {
            Answer::CountAnswer(answer) => Ok(answer.count),
            _ => unreachable!("the engine lets no other answer than a count pass"),
        }
    }

    /// Changes from the op-log of one copy of a partition, whichever copy leads: those after one version, up
    /// to another.
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
        match self
            .question(partition, Query::ChangesQuery(ChangesQuery { query: 0, role, after, upto }))
            .await?
        {
            Answer::ChangesAnswer(answer) => Ok(answer),
            _ => unreachable!("the engine lets no other answer than changes pass"),
        }
    }

    /// Digests of one copy of a partition, whichever copy leads. With `scan` it reads every record of it,
    /// which may take minutes.
    ///
    /// # Errors
    /// As for [`Self::changes`].
    pub async fn digests(
        &self,
        partition: Partition,
        role: Role,
        scan: bool,
    ) -> Result<DigestAnswer, Unserved> {
        match self.question(partition, Query::DigestQuery(DigestQuery { query: 0, role, scan })).await? {
            Answer::DigestAnswer(answer) => Ok(answer),
            _ => unreachable!("the engine lets no other answer than digests pass"),
        }
    }

    async fn question(&self, partition: Partition, query: Query) -> Result<Answer, Unserved> {
        self.ask(|reply| Request::Question { partition, query, reply }).await?
    }

    /// The place in the feed at which a subscription begins. What is newer is published from now on; a caller
    /// that subscribes to [`Self::feed`] first gets all of it.
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

    /// Buffers the writes of a partition until [`Self::resume_writes`], and no longer than
    /// [`crate::engine::PAUSE_WITHIN`].
    ///
    /// # Errors
    /// [`Unserved::Stopping`].
    pub async fn pause_writes(&self, partition: Partition) -> Result<(), Unserved> {
        self.ask(|reply| Request::PauseWrites { partition, pause: true, reply }).await
    }

    /// Sends the writes that were buffered.
    ///
    /// # Errors
    /// [`Unserved::Stopping`].
    pub async fn resume_writes(&self, partition: Partition) -> Result<(), Unserved> {
        self.ask(|reply| Request::PauseWrites { partition, pause: false, reply }).await
    }

    /// Begins to repair the copies of a partition. When it returns, that is under way.
    ///
    /// # Errors
    /// If a copy is away or not up to date.
    pub async fn repair(&self, partition: Partition, repair: Repair) -> Result<(), OrderRefused> {
        let begun = self.ask(|reply| Request::Repair { partition, repair, reply }).await;
        begun.unwrap_or(Err(OrderRefused::Stopping))
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

/// The engine, and all that its commands need.
pub struct EngineTask {
    engine: ElectedEngine,
    standing: watch::Sender<Standing>,
    connections: Connections,
    feed: Arc<Hub>,
    /// Age at which tombstones are purged, if they are.
    purge_after: Option<Duration>,
    start: Instant,
    /// When it last looked for tombstones.
    purged: Duration,
    pending: PendingReplies,
    history: History,
    /// What the engine has decided, and is not carried out yet.
    commands: Vec<Command>,
}

impl EngineTask {
    /// A task whose engine sends through `connections` and publishes to `feed`, and that says by `standing`
    /// whether it is active.
    pub fn new(
        engine: ElectedEngine,
        standing: watch::Sender<Standing>,
        connections: Connections,
        feed: Arc<Hub>,
        purge_after: Option<Duration>,
    ) -> Self {
        Self {
            engine,
            standing,
            connections,
            feed,
            purge_after,
            start: Instant::now(),
            purged: Duration::ZERO,
            pending: PendingReplies::default(),
            history: History::default(),
            commands: Vec::new(),
        }
    }

    /// Runs the engine until `shutdown`; from `leave` on it hands over to another gateway, if there is one,
    /// and says by `left` when the processes know of that. Everything that has arrived is taken in before
    /// anything is sent, and where that is little, other tasks run first, so that batches form without
    /// timers.
    pub async fn run(
        mut self,
        mut requests: mpsc::UnboundedReceiver<Request>,
        mut events: mpsc::UnboundedReceiver<Event>,
        leave: CancellationToken,
        left: CancellationToken,
        shutdown: CancellationToken,
    ) {
        let mut shutdown = pin!(shutdown.cancelled());
        let mut leave = pin!(leave.cancelled());
        let (mut leaving, mut hand_over_until, mut end_by) = (false, None, None);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut new_requests, mut new_events) = (Vec::new(), Vec::new());
        let mut yielded = false;
        let mut gathered = 0;
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown, if end_by.is_none() => end_by = Some(self.start.elapsed() + RELEASED),
                () = &mut leave, if !leaving => {
                    leaving = true;
                    hand_over_until = self.engine.close().then(|| self.start.elapsed() + HAND_OVER);
                }
                _ = tick.tick() => self.tick(),
                _ = events.recv_many(&mut new_events, BURST) => {
                    let now = self.start.elapsed();
                    for event in new_events.drain(..) {
                        self.engine.step(now, event, &mut self.commands);
                    }
                }
                count = requests.recv_many(&mut new_requests, BURST), if end_by.is_none() => {
                    if count == 0 {
                        // No handle is left: the HTTP server has ended.
                        end_by = Some(self.start.elapsed() + RELEASED);
                    }
                    gathered += count;
                    let (now, unix_millis) = (self.start.elapsed(), unix_millis());
                    new_requests.drain(..).for_each(|request| self.begin(now, unix_millis, request));
                }
            }
            if let Some(until) = hand_over_until
                && (self.pending.is_empty() || self.start.elapsed() >= until || end_by.is_some())
            {
                hand_over_until = None;
                self.engine.retire(self.start.elapsed(), &mut self.commands);
            }
            self.carry_out();
            self.tell_standing();
            if leaving && hand_over_until.is_none() && !self.engine.is_held() {
                left.cancel();
            }
            if end_by.is_some_and(|by| !self.engine.is_held() || self.start.elapsed() >= by) {
                break;
            }
            let idle = || requests.is_empty() && events.is_empty();
            // Other connections may have requests that are only not read yet: they should leave in the same
            // frames.
            if idle() && gathered < FEW && !mem::replace(&mut yielded, true) {
                yield_now().await;
            }
            if idle() {
                (yielded, gathered) = (false, 0);
                self.engine.flush(&mut self.commands);
                self.carry_out();
            }
        }
    }

    fn tell_standing(&mut self) {
        if let Some(standing) = self.engine.news_of_standing() {
            self.standing.send_replace(standing);
        }
    }

    fn tick(&mut self) {
        let now = self.start.elapsed();
        self.engine.check(now, &mut self.commands);
        self.engine.note_wall_clock(unix_millis());
        if self.feed.is_abandoned() {
            self.engine.step(now, Event::Unheard, &mut self.commands);
        }
        self.engine.step(now, Event::Tick, &mut self.commands);
        if let Some(age) = self.purge_after
            && now >= self.purged + PURGE
        {
            self.purged = now;
            let upto = Version::at_unix_millis(unix_millis().saturating_sub(age.as_millis() as u64));
            self.engine.step(now, Event::Purge { upto }, &mut self.commands);
            let every = (age / ERASE).clamp(ERASE_AT_MOST, ERASE_AT_LEAST);
            self.engine.step(now, Event::EraseOld { upto, every }, &mut self.commands);
            self.feed.forget(upto);
        }
    }

    /// Hands a request to the engine, and keeps the way back of its answer.
    fn begin(&mut self, now: Duration, unix_millis: u64, request: Request) {
        let event = match request {
            Request::Read { id, reply } => {
                Event::Read { request: self.pending.add(ReplyTo::Read(reply)), id }
            }
            Request::Write { id, operation, condition, omit_user, reply } => {
                let request = self.pending.add(ReplyTo::Write(reply));
                Event::Write { request, id, operation, condition, omit_user, unix_millis }
            }
            Request::WriteMany { writes, replies } => {
                let replies = Arc::new(replies);
                for OneOfMany { ticket, id, operation, condition } in writes {
                    let request = self.pending.add(ReplyTo::OneOfMany(Arc::clone(&replies), ticket));
                    let event =
                        Event::Write { request, id, operation, condition, omit_user: true, unix_millis };
                    self.engine.step(now, event, &mut self.commands);
                }
                return;
            }
            Request::Question { partition, query, reply } => {
                Event::Question { request: self.pending.add(ReplyTo::Question(reply)), partition, query }
            }
            Request::Size { reply } => Event::Size { request: self.pending.add(ReplyTo::Size(reply)) },
            Request::Subscribe { reply } => {
                Event::Subscribe { request: self.pending.add(ReplyTo::Subscribe(reply)) }
            }
            Request::Status { reply } => {
                let status = ClusterStatus { events: self.history.recent(), ..self.engine.status() };
                return drop(reply.send(status));
            }
            Request::PauseWrites { partition, pause, reply } => {
                match pause {
                    true => self.engine.pause_writes(now, partition),
                    false => self.engine.resume_writes(partition),
                }
                let _ = reply.send(());
                return;
            }
            Request::Repair { partition, repair, reply } => {
                return drop(reply.send(self.engine.repair(partition, repair, &mut self.commands)));
            }
            Request::PurgeUser { id, reply } => {
                Event::PurgeUser { request: self.pending.add(ReplyTo::Write(reply)), id }
            }
            Request::EraseInCopy { id, role, reply } => {
                Event::EraseInCopy { request: self.pending.add(ReplyTo::Question(reply)), id, role }
            }
            Request::Promote { partition, reply } => {
                return drop(reply.send(self.engine.promote(now, partition, &mut self.commands)));
            }
        };
        self.engine.step(now, event, &mut self.commands);
    }

    /// Carries out all commands, and those that follow from them.
    fn carry_out(&mut self) {
        while !self.commands.is_empty() {
            let now = self.start.elapsed();
            for session in self.carry_out_once() {
                self.engine.step(now, Event::Closed { session }, &mut self.commands);
            }
            if !self.commands.is_empty() {
                self.engine.flush(&mut self.commands);
            }
        }
    }

    /// Carries out all commands. Returns the connections on which a message could not leave.
    fn carry_out_once(&mut self) -> Vec<SessionId> {
        let mut failed = Vec::new();
        for command in self.commands.drain(..) {
            match command {
                Command::Send { session, message } => {
                    if !self.connections.send(session, &message) && !failed.contains(&session) {
                        failed.push(session);
                    }
                }
                Command::AnswerRead { request, result } => self.pending.read(request, result),
                Command::AnswerWrite { request, version, result } => {
                    self.pending.write(request, version, result);
                }
                Command::AnswerQuestion { request, result } => self.pending.question(request, result),
                Command::AnswerSize { request, result } => self.pending.size(request, result),
                Command::AnswerSubscribe { request, result } => self.pending.subscribe(request, result),
                Command::BeginFeed { after } => self.feed.begin(after),
                Command::Publish(news) => self.feed.publish(&news),
                Command::StepDown => {
                    self.pending.abandon();
                    self.feed.end();
                }
                Command::Report(event) => {
                    self.history.add(unix_millis(), &event);
                    log(event);
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
