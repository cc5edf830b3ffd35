//! The loop that owns the engine.

use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use protocol::Version;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::pending::{PendingReplies, ReplyTo};
use super::request::{OneOfMany, Request};
use crate::engine::{Command, Engine, Event, SessionId};
use crate::feed::Hub;
use crate::status::{ClusterStatus, History, log};
use crate::transport::Connections;

/// How often the engine learns that time passes.
const TICK: Duration = Duration::from_millis(10);

/// How often it looks for tombstones to purge.
const PURGE: Duration = Duration::from_secs(1);

/// At most this many messages are taken in before time and shutdown are looked at again.
const BURST: usize = 1024;

/// Frames wait for other tasks where no more requests than this have come together: with more they are large
/// enough.
const FEW: usize = 16;

/// The engine, and all that its commands need.
pub struct EngineTask {
    engine: Engine,
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
    /// A task whose engine sends through `connections` and publishes to `feed`.
    pub fn new(
        engine: Engine,
        connections: Connections,
        feed: Arc<Hub>,
        purge_after: Option<Duration>,
    ) -> Self {
        Self {
            engine,
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

    /// Runs the engine until `shutdown`. Everything that has arrived is taken in before anything is sent, and
    /// where that is little, other tasks run first, so that batches form without timers.
    pub async fn run(
        mut self,
        mut requests: mpsc::UnboundedReceiver<Request>,
        mut events: mpsc::UnboundedReceiver<Event>,
        shutdown: CancellationToken,
    ) {
        let mut shutdown = pin!(shutdown.cancelled());
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut new_requests, mut new_events) = (Vec::new(), Vec::new());
        let mut yielded = false;
        let mut gathered = 0;
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                _ = tick.tick() => self.tick(),
                _ = events.recv_many(&mut new_events, BURST) => {
                    let now = self.start.elapsed();
                    for event in new_events.drain(..) {
                        self.engine.step(now, event, &mut self.commands);
                    }
                }
                count = requests.recv_many(&mut new_requests, BURST) => {
                    if count == 0 {
                        // No handle is left: the HTTP server has ended.
                        break;
                    }
                    gathered += count;
                    let (now, unix_millis) = (self.start.elapsed(), unix_millis());
                    new_requests.drain(..).for_each(|request| self.begin(now, unix_millis, request));
                }
            }
            self.carry_out();
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

    fn tick(&mut self) {
        let now = self.start.elapsed();
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
        }
    }

    /// Hands a request to the engine, and keeps the way back of its answer.
    fn begin(&mut self, now: Duration, unix_millis: u64, request: Request) {
        let event = match request {
            Request::Read { id, reply } => {
                Event::Read { request: self.pending.add(ReplyTo::Read(reply)), id }
            }
            Request::Write { id, operation, condition, quiet, reply } => {
                let request = self.pending.add(ReplyTo::Write(reply));
                Event::Write { request, id, operation, condition, quiet, unix_millis }
            }
            Request::WriteMany { writes, replies } => {
                let replies = Arc::new(replies);
                for OneOfMany { ticket, id, operation, condition } in writes {
                    let request = self.pending.add(ReplyTo::OneOfMany(Arc::clone(&replies), ticket));
                    let event = Event::Write { request, id, operation, condition, quiet: true, unix_millis };
                    self.engine.step(now, event, &mut self.commands);
                }
                return;
            }
            Request::Question { partition, question, reply } => {
                Event::Question { request: self.pending.add(ReplyTo::Question(reply)), partition, question }
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
