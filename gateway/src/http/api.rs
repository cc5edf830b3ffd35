//! The engine as the handlers see it: every question has a deadline, and every failure is a [`Problem`].

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use protocol::message::link::{Found, WriteAnswer};
use protocol::message::query::Filter;
use protocol::placement::{Partition, partition_of};
use protocol::{Condition, Operation, Outcome, UserId, Version};
use tokio::sync::Mutex;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, timeout, timeout_at};

use super::kind::Kind;
use super::metrics::{Limit, LimitMetrics};
use super::problem::Problem;
use super::settings::HttpSettings;
use crate::engine::FeedStart;
use crate::engine_task::{EngineHandle, OneOfMany, Reply, Unserved};
use crate::feed::Subscription;
use crate::scatter::check::{self, Begun, Check};
use crate::scatter::{self, List};
use crate::standing::Standing;
use crate::status::ClusterStatus;

/// How long a request that is late already may take to find out which partition it was about.
const NAMING: Duration = Duration::from_millis(200);

/// A write with an answer.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) answer: WriteAnswer,
    /// What the user has, where the write was applied; otherwise 0.
    pub(super) version: Version,
}

/// State of the handlers. Cheap to clone: every request does.
#[derive(Debug, Clone)]
pub(super) struct Api(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: EngineHandle,
    settings: HttpSettings,
    checks: OneAtATime,
    erasures: OneAtATime,
}

/// Calls that read or write whole copies: two at once would only be slower, and delay everybody else.
#[derive(Debug)]
struct OneAtATime {
    working: Mutex<()>,
    refused: IntCounter,
}

impl OneAtATime {
    fn new(refused: IntCounter) -> Self {
        Self { working: Mutex::new(()), refused }
    }

    /// # Errors
    /// 409 while another one is at work.
    async fn run<T>(&self, detail: &'static str, work: impl Future<Output = T>) -> Result<T, Problem> {
        let Ok(_working) = self.working.try_lock() else {
            self.refused.inc();
            return Err(Problem::new(Kind::Busy, detail));
        };
        Ok(work.await)
    }
}

/// What a second check is told.
const CHECKING: &str = "Nothing was done: a check or repair is at work. Ask again when it has ended.";

/// What a second erasure is told.
const ERASING: &str = "Nothing was done: another user is being erased. Ask again when that has ended.";

impl Api {
    /// What this gateway is among those of its ring.
    pub(super) fn standing(&self) -> Standing {
        self.0.settings.standing.borrow().clone()
    }

    pub(super) fn new(engine: EngineHandle, settings: &HttpSettings, limits: &LimitMetrics) -> Self {
        let [checks, erasures] =
            [Limit::Checks, Limit::Erasures].map(|limit| OneAtATime::new(limits.of(limit)));
        Self(Arc::new(Inner { engine, settings: settings.clone(), checks, erasures }))
    }

    /// For questions that last longer than one request.
    pub(super) fn engine(&self) -> &EngineHandle {
        &self.0.engine
    }

    pub(super) fn settings(&self) -> &HttpSettings {
        &self.0.settings
    }

    /// How long a request may take.
    pub(super) fn patience(&self) -> Duration {
        self.0.settings.deadline
    }

    /// When a request that starts now has to be answered. The deadline is kept here and in `body`, the only
    /// places where a request waits, rather than in a layer around everything: only here is it known what the
    /// problem has to say.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.patience()
    }

    pub(super) async fn read(&self, id: UserId, deadline: Instant) -> Result<Option<Found>, Problem> {
        match timeout_at(deadline, self.engine().read(id)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Problem::late_read(self.partition(id).await)),
        }
    }

    pub(super) async fn write(
        &self,
        id: UserId,
        operation: Operation,
        condition: Option<Condition>,
        deadline: Instant,
    ) -> Result<Written, Problem> {
        match timeout_at(deadline, self.engine().write_version(id, operation, condition)).await {
            // It may have left before the end.
            Ok(Err(Unserved::Stopping)) => Err(Problem::late_write(None)),
            Ok(written) => {
                let (version, answer) = written?;
                let applied = answer.outcome == Outcome::Applied;
                Ok(Written { answer, version: if applied { version } else { Version::ZERO } })
            }
            Err(_) => Err(Problem::late_write(self.partition(id).await)),
        }
    }

    pub(super) async fn list(
        &self,
        after: Option<UserId>,
        limit: usize,
        filter: &Filter,
    ) -> Result<List, Problem> {
        self.in_time(scatter::list(self.engine(), after, limit, filter)).await
    }

    pub(super) async fn count(&self, group: Option<i32>) -> Result<u64, Problem> {
        self.in_time(scatter::count(self.engine(), group)).await
    }

    pub(super) async fn status(&self) -> Result<ClusterStatus, Problem> {
        self.in_time(self.engine().status()).await
    }

    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, Unserved>>) -> Result<T, Problem> {
        timeout(self.patience(), answer).await.map_err(|_| Problem::late_read(None))?.map_err(Problem::from)
    }

    /// Asks for many writes. The answers come one by one through `replies`, without any deadline.
    pub(super) fn write_many(
        &self,
        writes: Vec<OneOfMany>,
        replies: &UnboundedSender<Reply>,
    ) -> Result<(), Unserved> {
        self.engine().write_many(writes, replies.clone())
    }

    /// Takes as long as a scan does. One at a time.
    pub(super) async fn check(&self, scan: bool) -> Result<Check, Problem> {
        Ok(self.0.checks.run(CHECKING, check::check(self.engine(), scan)).await??)
    }

    /// Takes as long as a scan does. One at a time, with checks.
    pub(super) async fn repair(&self, partition: Partition) -> Result<Begun, Problem> {
        Ok(self.0.checks.run(CHECKING, check::repair(self.engine(), partition)).await??)
    }

    /// Takes as long as to write both copies anew. One at a time. Returns whether there was such a user.
    pub(super) async fn erase(&self, id: UserId) -> Result<bool, Problem> {
        Ok(self.0.erasures.run(ERASING, scatter::erase::erase(self.engine(), id)).await??)
    }

    pub(super) async fn promote(&self, partition: Partition) -> Result<(), Problem> {
        match timeout(self.patience(), self.engine().promote(partition)).await {
            Ok(promoted) => Ok(promoted?),
            Err(_) => Err(Problem::late_write(Some(partition))),
        }
    }

    /// A subscription to the feed, and where it begins.
    pub(super) async fn subscribe(&self) -> Result<(Subscription, FeedStart), Problem> {
        // First of all: what is published from then on is kept for it.
        let Some(subscription) = self.engine().feed().enter() else {
            let detail = "This gateway has as many subscribers as it takes. Nothing was begun.";
            return Err(Problem::new(Kind::TooManySubscribers, detail));
        };
        Ok((subscription, self.in_time(self.engine().subscribe()).await?))
    }

    /// The partition of a user, for the problem of a request that got no answer; `None` where the engine
    /// does not even say how large the ring is.
    async fn partition(&self, id: UserId) -> Option<Partition> {
        self.known_size().await.map(|size| partition_of(&id, size))
    }

    /// How many partitions there are, as far as the engine says so quickly.
    pub(super) async fn known_size(&self) -> Option<u16> {
        let status = timeout(NAMING, self.engine().status()).await.ok()?.ok()?;
        (status.size > 0).then_some(status.size)
    }
}
