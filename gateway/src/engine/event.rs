//! Events that go into the engine, and commands that come out.

use std::time::Duration;

use protocol::message::link::{
    Found, Hello, Register, Role, Rollback, Term, ToGateway, ToProcess, Versioned, WriteAnswer,
};
use protocol::message::query::{Answer, Query};
use protocol::placement::Partition;
use protocol::{Condition, Operation, UserId, Version};
use thiserror::Error;
use uuid::Uuid;

/// One question of a caller; numbers are never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One connection of a db-process; numbers are never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// A caller wants to see a user. Owes one [`Command::AnswerRead`].
    Read {
        /// The question.
        request: RequestId,
        /// The user.
        id: UserId,
    },
    /// A caller wants to change a user. Owes one [`Command::AnswerWrite`].
    Write {
        /// The question.
        request: RequestId,
        /// The user.
        id: UserId,
        /// What to do.
        operation: Operation,
        /// `If-Match`.
        condition: Option<Condition>,
        /// The caller does not want to see the user that an applied write leaves.
        omit_user: bool,
        /// The wall clock, for the version.
        unix_millis: u64,
    },
    /// A caller wants to know something about a whole partition. Owes one [`Command::AnswerQuestion`].
    Question {
        /// The question's number.
        request: RequestId,
        /// Which partition.
        partition: Partition,
        /// What.
        query: Query,
    },
    /// A caller wants to know how many partitions there are. Owes one [`Command::AnswerSize`].
    Size {
        /// The question.
        request: RequestId,
    },
    /// A subscriber wants to begin. Owes one [`Command::AnswerSubscribe`].
    Subscribe {
        /// The question.
        request: RequestId,
    },
    /// There is no subscriber any more: changes need not be published until there is one.
    Unheard,
    /// It is time to forget some of the users that were deleted up to this version.
    Purge {
        /// The time, less the age of what may go.
        upto: Version,
    },
    /// It is time to erase what is out of date.
    EraseOld {
        /// The time, less the age of what goes.
        upto: Version,
        /// How often a copy is asked to.
        every: Duration,
    },
    /// The operator wants a deleted user to be forgotten at once. Owes one [`Command::AnswerWrite`], of the
    /// purge.
    PurgeUser {
        /// The question.
        request: RequestId,
        /// The user.
        id: UserId,
    },
    /// A copy is to erase a user that was purged. Owes one [`Command::AnswerQuestion`].
    EraseInCopy {
        /// The question.
        request: RequestId,
        /// The user.
        id: UserId,
        /// The copy.
        role: Role,
    },
    /// A db-process has connected.
    Hello {
        /// The connection.
        session: SessionId,
        /// What it says.
        hello: Box<Hello>,
    },
    /// A connection introduces itself. Owes a [`ToProcess::Registered`] or a [`ToProcess::Refused`].
    Register {
        /// The connection.
        session: SessionId,
        /// Host that it came from, where its neighbours can reach it unless it says otherwise.
        host: String,
        /// What it says.
        register: Box<Register>,
    },
    /// A connection has ended, or something on it broke.
    Closed {
        /// The connection.
        session: SessionId,
    },
    /// A db-process sent a message.
    Message {
        /// The connection.
        session: SessionId,
        /// The message.
        message: ToGateway,
    },
    /// Time has passed: comes every few milliseconds.
    Tick,
}

/// What has to be done.
#[derive(Debug)]
pub enum Command {
    /// Send a message to a db-process.
    Send {
        /// The connection.
        session: SessionId,
        /// The message.
        message: ToProcess,
    },
    /// Answer a caller.
    AnswerRead {
        /// The question.
        request: RequestId,
        /// `Ok(None)` where there is no live user.
        result: Result<Option<Found>, Unserved>,
    },
    /// Answer a caller.
    AnswerWrite {
        /// The question.
        request: RequestId,
        /// What the write was given; where it was applied, the version of the user.
        version: Version,
        /// Its outcome.
        result: Result<WriteAnswer, Unserved>,
    },
    /// Answer a caller.
    AnswerQuestion {
        /// The question.
        request: RequestId,
        /// Of the kind that the question asks for.
        result: Result<Answer, Unserved>,
    },
    /// Answer a caller.
    AnswerSize {
        /// The question.
        request: RequestId,
        /// n of the ring.
        result: Result<u16, Unserved>,
    },
    /// Answer a subscriber.
    AnswerSubscribe {
        /// The question.
        request: RequestId,
        /// Where the subscription begins. Everything newer is published.
        result: Result<FeedStart, Unserved>,
    },
    /// From here on changes are published: those that are newer than this, without a gap.
    BeginFeed {
        /// The version.
        after: Version,
    },
    /// Pass changes on to subscribers. In version order, and newer than all that was published before.
    Publish(Vec<Published>),
    /// Write a line about the life of the ring into the log.
    Report(RingEvent),
    /// This gateway is not active any more: no request that has no answer yet gets one from here.
    StepDown,
}

/// Where a subscription begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedStart {
    /// What is newer is published from now on. What is not, and was ever acknowledged, is in the op-logs.
    pub from: Version,
    /// Whether a subscriber that has seen all up to a version below this has missed anything since cannot be
    /// said.
    pub floor: Version,
    /// By partition: the copy that leads and serves, and so has all that was ever acknowledged up to `from`.
    pub leaders: Vec<Option<Role>>,
}

/// What is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// An acknowledged change.
    Change(Versioned),
    /// A write whose outcome is unknown: it may have been applied, or may be yet.
    Unknown {
        /// Of the write.
        version: Version,
        /// The user.
        id: UserId,
    },
}

impl Published {
    /// Its place in the feed.
    pub fn version(&self) -> Version {
        match self {
            Self::Change(change) => change.version,
            Self::Unknown { version, .. } => *version,
        }
    }
}

/// Why something that the operator asked for is not done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OrderRefused {
    /// The ring has no such partition.
    #[error("there is no partition {partition} in a ring of {size}")]
    NoSuchPartition {
        /// As asked for.
        partition: Partition,
        /// n.
        size: u16,
    },
    /// Of a promotion: the partition is served, or is about to be, so nothing has to be accepted.
    #[error("partition {partition} is served")]
    Served {
        /// Which one.
        partition: Partition,
    },
    /// Of a promotion: the other copy is not there, is not complete, or too few db-processes are there to
    /// persist the view.
    #[error("no copy can lead partition {partition} now: {waiting_for}")]
    NoCandidate {
        /// Which one.
        partition: Partition,
        /// What has to happen first.
        waiting_for: String,
    },
    /// Of a repair: one of the copies is away or not up to date, or there is no sound one.
    #[error("partition {partition} cannot be repaired now: {why}")]
    NotRepairable {
        /// Which one.
        partition: Partition,
        /// What is in the way.
        why: String,
    },
    /// The gateway is ending.
    #[error("the gateway is stopping")]
    Stopping,
}

/// Why a caller got no answer from any copy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unserved {
    /// No copy of the partition may answer now. Nothing was done.
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
    /// The gateway is ending or not active any more, and this request was not done in time.
    #[error("the gateway is stopping, or another one takes over")]
    Stopping,
    /// The operation was sent and its answer is missing: it may have been applied, or may be yet.
    #[error("the outcome of a write to partition {partition} is unknown")]
    OutcomeUnknown {
        /// Which one.
        partition: Partition,
    },
}

/// The events of a ring's life, for the log. None carries anything of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RingEvent {
    /// This gateway is active.
    GatewayActive {
        /// Number of its term.
        term: Term,
    },
    /// This gateway is a standby.
    GatewayStandby {
        /// Why.
        why: &'static str,
    },
    /// A db-process has joined.
    ProcessRegistered {
        /// Its name.
        instance: String,
        /// Host that it came from.
        host: String,
        /// Of its data folder.
        incarnation: Uuid,
    },
    /// A db-process was turned away.
    ProcessRefused {
        /// The name that it gave.
        instance: String,
        /// Host that it came from.
        host: String,
        /// Why.
        reason: String,
    },
    /// A db-process is gone.
    ProcessLost {
        /// Its name.
        instance: String,
        /// How that was noticed.
        how: &'static str,
    },
    /// A copy has less on its disk than it had.
    RolledBack {
        /// Its process.
        instance: String,
        /// Whose copy it is.
        partition: Partition,
        /// Which of the two.
        role: Role,
        /// What shows it.
        rollback: Rollback,
    },
    /// Since the gateway started, not all db-processes of the ring have registered.
    MembersMissing {
        /// Which ones have not.
        missing: String,
    },
    /// Nothing is heard of any db-process: the gateway is cut off, or all of them hang.
    CutOff,
    /// The ring has been made, or was found again.
    RingKnown {
        /// Its id.
        ring: Uuid,
        /// n.
        size: u16,
        /// Whether it was made just now.
        new: bool,
    },
    /// The data say another n than the configuration.
    SizeDiffers {
        /// Of the data, which count.
        ring: u16,
        /// As configured.
        configured: u16,
    },
    /// There is a new view.
    ViewChanged {
        /// Its number.
        epoch: u64,
        /// The partition on whose account.
        partition: Partition,
        /// Name of the process whose copy leads it, or is about to.
        leader: String,
        /// Why.
        why: &'static str,
    },
    /// Another copy answers a partition's reads, or takes its writes, than before.
    PartitionChanged {
        /// Which one.
        partition: Partition,
        /// Which copies serve it now.
        now: String,
    },
    /// The copies of a partition do not follow each other, or one of them follows too late; or what was
    /// reported of that is over.
    ReplicationChanged {
        /// Which one.
        partition: Partition,
        /// Whether anything is wrong.
        impaired: bool,
        /// What is wrong, or how it is now.
        what: String,
    },
}
