//! The handle by which everything else asks the engine.

use std::sync::Arc;

use protocol::message::link::{Found, Role, WriteAnswer};
use protocol::message::query::{ChangesAnswer, DigestAnswer, Filter, PageAnswer};
use protocol::placement::Partition;
use protocol::{Condition, Operation, Outcome, UserId, Version};
use tokio::sync::{mpsc, oneshot};

use super::request::{OneOfMany, Reply, Request};
use crate::engine::{Answer, FeedStart, PromotionRefused, Question, Repair, RepairRefused, Unserved};
use crate::feed::Hub;
use crate::status::ClusterStatus;

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
        // What a write leaves that sets everything is known here, so it need not be sent back.
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
    /// If the partition is served, or no copy could lead it.
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
            _ => unreachable!("the engine lets no other answer than a page pass"),
        }
    }

    /// How many live users one partition has; only those of a group, where that is given.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub async fn count(&self, partition: Partition, group: Option<i32>) -> Result<u64, Unserved> {
        match self.question(partition, Question::Count { group }).await? {
            Answer::Count(answer) => Ok(answer.count),
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
        match self.question(partition, Question::Changes { role, after, upto }).await? {
            Answer::Changes(answer) => Ok(answer),
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
        match self.question(partition, Question::Digests { role, scan }).await? {
            Answer::Digests(answer) => Ok(answer),
            _ => unreachable!("the engine lets no other answer than digests pass"),
        }
    }

    async fn question(&self, partition: Partition, question: Question) -> Result<Answer, Unserved> {
        self.ask(|reply| Request::Question { partition, question, reply }).await?
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
