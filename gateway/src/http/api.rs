//! The coordinator as the handlers see it: every question has a deadline, and every failure is a [`Problem`].

use std::time::Duration;

use protocol::message::link::{Found, WriteAnswer};
use protocol::message::query::Filter;
use protocol::placement::{Partition, partition_of};
use protocol::{Condition, Operation, UserId};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::kind::Kind;
use super::problem::Problem;
use super::settings::HttpSettings;
use crate::engine::FeedStart;
use crate::engine_task::{EngineHandle, OneOfMany, Reply, Unserved};
use crate::feed::Subscription;
use crate::scatter::check::{self, Begun, Check};
use crate::scatter::{self, List};
use crate::status::ClusterStatus;

/// How long a request that is late already may take to find out which partition it was about.
const NAMING: Duration = Duration::from_millis(200);

/// State of the handlers.
#[derive(Debug, Clone)]
pub(super) struct Api {
    coordinator: EngineHandle,
    patience: Duration,
    heartbeat: Duration,
    closing: CancellationToken,
}

impl Api {
    pub(super) fn new(coordinator: EngineHandle, settings: &HttpSettings) -> Self {
        Self {
            coordinator,
            patience: settings.deadline,
            heartbeat: settings.heartbeat,
            closing: settings.closing.clone(),
        }
    }

    /// How long a stream may be silent.
    pub(super) fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// When streams have to end.
    pub(super) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// How long a request may take.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// When a request that starts now has to be answered. The deadline is kept here and in `body`, the only
    /// places where a request waits, rather than in a layer around everything: only here is it known what the
    /// problem has to say.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.patience
    }

    pub(super) async fn read(&self, id: UserId, deadline: Instant) -> Result<Option<Found>, Problem> {
        match timeout_at(deadline, self.coordinator.read(id)).await {
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
    ) -> Result<WriteAnswer, Problem> {
        match timeout_at(deadline, self.coordinator.write(id, operation, condition)).await {
            // It may have left before the end.
            Ok(Err(Unserved::Stopping)) => Err(Problem::late_write(None)),
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Problem::late_write(self.partition(id).await)),
        }
    }

    pub(super) async fn list(
        &self,
        after: Option<UserId>,
        limit: usize,
        filter: &Filter,
    ) -> Result<List, Problem> {
        match timeout(self.patience, scatter::list(&self.coordinator, after, limit, filter)).await {
            Ok(list) => Ok(list?),
            Err(_) => Err(Problem::late_read(None)),
        }
    }

    pub(super) async fn count(&self, group: Option<i32>) -> Result<u64, Problem> {
        match timeout(self.patience, scatter::count(&self.coordinator, group)).await {
            Ok(count) => Ok(count?),
            Err(_) => Err(Problem::late_read(None)),
        }
    }

    /// Asks for many writes. The answers come one by one through `replies`, without any deadline.
    pub(super) fn write_many(
        &self,
        writes: Vec<OneOfMany>,
        replies: &UnboundedSender<Reply>,
    ) -> Result<(), Unserved> {
        self.coordinator.write_many(writes, replies.clone())
    }

    /// AcceptedMedia as long as a scan does.
    pub(super) async fn check(&self, scan: bool) -> Result<Check, Problem> {
        Ok(check::check(&self.coordinator, scan).await?)
    }

    /// AcceptedMedia as long as a scan does.
    pub(super) async fn repair(&self, partition: Partition) -> Result<Begun, Problem> {
        Ok(check::repair(&self.coordinator, partition).await?)
    }

    pub(super) async fn promote(&self, partition: Partition) -> Result<(), Problem> {
        match timeout(self.patience, self.coordinator.promote(partition)).await {
            Ok(promoted) => Ok(promoted?),
            Err(_) => Err(Problem::late_write(Some(partition))),
        }
    }

    /// A subscription to the feed, and where it begins.
    pub(super) async fn subscribe(&self) -> Result<(Subscription, FeedStart), Problem> {
        // It subscribes first: what is published from then on is kept for it.
        let Some(seat) = self.coordinator.feed().enter() else {
            let detail = "As many listen to changes as this gateway takes on. Nothing was begun.";
            return Err(Problem::new(Kind::TooManySubscribers, detail));
        };
        match timeout(self.patience, self.coordinator.subscribe()).await {
            Ok(start) => Ok((seat, start?)),
            Err(_) => Err(Problem::late_read(None)),
        }
    }

    /// For questions that last longer than one request.
    pub(super) fn coordinator(&self) -> EngineHandle {
        self.coordinator.clone()
    }

    pub(super) async fn status(&self) -> Result<ClusterStatus, Problem> {
        match timeout(self.patience, self.coordinator.status()).await {
            Ok(status) => Ok(status?),
            Err(_) => Err(Problem::late_read(None)),
        }
    }

    /// The partition of a user, for the problem of a request that got no answer; `None` where the coordinator
    /// does not even say how large the ring is.
    async fn partition(&self, id: UserId) -> Option<Partition> {
        self.known_size().await.map(|size| partition_of(&id, size))
    }

    /// How many partitions there are, as far as the coordinator says so quickly.
    pub(super) async fn known_size(&self) -> Option<u16> {
        let status = timeout(NAMING, self.coordinator.status()).await.ok()?.ok()?;
        (status.size > 0).then_some(status.size)
    }
}
