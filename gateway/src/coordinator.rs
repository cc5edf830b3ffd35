//! The coordinator: the one task that owns the routing, and the handle by which everything else reaches it.

use protocol::message::link::{Found, WriteAnswer};
use protocol::placement::Partition;
use protocol::{Condition, Operation, UserId};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::routing::status::ClusterStatus;

/// Asks the coordinator. Cheap to clone; each question is one message and one answer.
#[derive(Debug, Clone)]
pub struct Coordinator {
    requests: mpsc::UnboundedSender<Request>,
}

/// A question to the coordinator, with the way back.
#[derive(Debug)]
pub enum Request {
    /// Look a user up.
    Read {
        /// Whom.
        id: UserId,
        /// `Ok(None)` where there is no live user.
        reply: oneshot::Sender<Result<Option<Found>, Unserved>>,
    },
    /// Decide and apply one operation.
    Write {
        /// On whom.
        id: UserId,
        /// What.
        operation: Operation,
        /// `If-Match`.
        condition: Option<Condition>,
        /// What came of it; it is on disk then.
        reply: oneshot::Sender<Result<WriteAnswer, Unserved>>,
    },
    /// Describe the ring.
    Status {
        /// The ring as it is known now.
        reply: oneshot::Sender<ClusterStatus>,
    },
}

/// Why a request got no answer from any copy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unserved {
    /// No copy of the partition can answer truthfully now. Nothing was done.
    #[error("partition {partition} cannot be served now: {waiting_for}")]
    Unavailable {
        /// Which one.
        partition: Partition,
        /// What has to happen first, such as "db-1 has to come back".
        waiting_for: String,
    },
    /// More is in flight than the gateway takes on. Nothing was done.
    #[error("partition {partition} has too many requests in flight")]
    Overloaded {
        /// Which one.
        partition: Partition,
    },
    /// The operation was sent and its answer is missing: it may have been applied, or may be yet.
    #[error("the outcome of a write to partition {partition} is unknown")]
    OutcomeUnknown {
        /// Which one.
        partition: Partition,
    },
}

impl Coordinator {
    /// A handle, and the questions that come through it in the order in which they were asked.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Request>) {
        let (requests, questions) = mpsc::unbounded_channel();
        (Self { requests }, questions)
    }

    /// The user with that id and its version; `None` where there is no live one.
    ///
    /// # Errors
    /// [`Unserved::Unavailable`] where no copy can answer truthfully, [`Unserved::Overloaded`] where too much is asked.
    pub async fn read(&self, id: UserId) -> Result<Option<Found>, Unserved> {
        self.ask(|reply| Request::Read { id, reply }).await
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
        self.ask(|reply| Request::Write { id, operation, condition, reply }).await
    }

    /// The ring as it is known now.
    pub async fn status(&self) -> ClusterStatus {
        self.ask(|reply| Request::Status { reply }).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> T {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).expect("the coordinator outlives the HTTP server");
        answer.await.expect("the coordinator answers every request, if only with why not")
    }
}
