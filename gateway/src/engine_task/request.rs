//! What can be asked of the engine, and the way back of each answer.

use protocol::message::link::{Found, Role, WriteAnswer};
use protocol::message::query::{Answer, Query};
use protocol::placement::Partition;
use protocol::{Condition, Operation, UserId, Version};
use tokio::sync::{mpsc, oneshot};

use crate::engine::{FeedStart, OrderRefused, Repair, Unserved};
use crate::status::ClusterStatus;

/// A question to the engine, with the way back.
#[derive(Debug)]
pub enum Request {
    /// Look a user up.
    Read {
        /// The user.
        id: UserId,
        /// `Ok(None)` where there is no live user.
        reply: oneshot::Sender<Result<Option<Found>, Unserved>>,
    },
    /// Decide and apply one operation.
    Write {
        /// The user.
        id: UserId,
        /// What.
        operation: Operation,
        /// `If-Match`.
        condition: Option<Condition>,
        /// Whether the answer needs no user where the write is applied.
        omit_user: bool,
        /// Its outcome; it is on disk then.
        reply: oneshot::Sender<Written>,
    },
    /// Decide and apply many operations, in this order where they are on one user. The answers have no
    /// users.
    WriteMany {
        /// The operations.
        writes: Vec<OneOfMany>,
        /// Where the answers go, one for each, in the order in which they come.
        replies: mpsc::UnboundedSender<Reply>,
    },
    /// Forget a deleted user at once, at the operator's word.
    PurgeUser {
        /// The user.
        id: UserId,
        /// The outcome of the purge.
        reply: oneshot::Sender<Written>,
    },
    /// Erase a user that was purged from one copy.
    EraseInCopy {
        /// The user.
        id: UserId,
        /// The copy.
        role: Role,
        /// Whether it is gone.
        reply: oneshot::Sender<Result<Answer, Unserved>>,
    },
    /// Let the other copy of a partition lead, at the operator's word.
    Promote {
        /// Which partition.
        partition: Partition,
        /// Whether that is under way.
        reply: oneshot::Sender<Result<(), OrderRefused>>,
    },
    /// Ask about a whole partition.
    Question {
        /// Which partition.
        partition: Partition,
        /// What.
        query: Query,
        /// Of the kind that the question asks for.
        reply: oneshot::Sender<Result<Answer, Unserved>>,
    },
    /// Say how many partitions there are.
    Size {
        /// n, once the ring is known.
        reply: oneshot::Sender<Result<u16, Unserved>>,
    },
    /// Begin to publish changes, as far as that has not begun.
    Subscribe {
        /// Where the subscription begins.
        reply: oneshot::Sender<Result<FeedStart, Unserved>>,
    },
    /// Buffer the writes of a partition for a moment, or send them.
    PauseWrites {
        /// Which partition.
        partition: Partition,
        /// Whether to buffer them.
        pause: bool,
        /// When that is done.
        reply: oneshot::Sender<()>,
    },
    /// Repair the copies of a partition.
    Repair {
        /// Which partition.
        partition: Partition,
        /// What it needs.
        repair: Repair,
        /// Whether that is under way.
        reply: oneshot::Sender<Result<(), OrderRefused>>,
    },
    /// Describe the ring.
    Status {
        /// The ring as it is known now.
        reply: oneshot::Sender<ClusterStatus>,
    },
}

/// One of [`Request::WriteMany`].
#[derive(Debug)]
pub struct OneOfMany {
    /// Chosen by the caller; the answer has it again.
    pub ticket: u64,
    /// The user.
    pub id: UserId,
    /// What.
    pub operation: Operation,
    /// `If-Match`.
    pub condition: Option<Condition>,
}

/// The answer to [`Request::Write`].
#[derive(Debug)]
pub struct Written {
    /// What the write was given; where it was applied, the version of the user.
    pub version: Version,
    /// Its outcome.
    pub result: Result<WriteAnswer, Unserved>,
}

/// The answer to [`OneOfMany`].
#[derive(Debug)]
pub struct Reply {
    /// As it was asked.
    pub ticket: u64,
    /// What the write was given; where it was applied, the version of the user.
    pub version: Version,
    /// Its outcome; it is on disk then. It has no user where the write was applied.
    pub result: Result<WriteAnswer, Unserved>,
}
