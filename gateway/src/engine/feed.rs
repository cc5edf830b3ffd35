//! The change feed, as far as it is decided here: in which order changes are published, and from where a
//! subscriber may begin.
//!
//! The feed is one sequence for the whole ring, in version order. Versions rise and are given in one place,
//! so every write that is admitted is put at the end of a queue, and waits there until it is settled:
//! applied, nothing, or unknown. From the front, everything that is settled leaves, and what was applied is
//! published. So a change leaves only when all older ones are settled, which costs nothing while all is well,
//! delays the feed for milliseconds while a leader moves, and for as long as the silence of a process lasts
//! that hangs. A partition that is down delays nothing: its writes are given up. An operation that is sent
//! again keeps its version, and so its place.
//!
//! What follows from it:
//!
//! * The version of a change names a place in the feed. A subscriber that has seen it has seen all that was
//!   published before.
//! * Changes of one user are in the order in which they were decided, and one that was acknowledged is
//!   published once.
//! * A write that may have been applied (504) is published as *unknown*: it names the user, which has to be
//!   read to know.
//!
//! A subscriber begins at a version up to which everything is settled: it gets the newest version that there
//! is when it asks, and is answered when all that is not newer is settled. Everything newer is published, and
//! everything up to there that was ever acknowledged is in the op-logs of the copies: so what it missed
//! earlier can be read there, without a gap and without repetition. While there is no subscriber, outcomes
//! are only counted off, and nothing is kept of the changes.
//!
//! A gateway that has just started does not know the newest version before each partition has been served
//! once. If its wall clock stood behind that of the gateway before, it may have given versions by then that
//! are lower than ones found later. A place among those says nothing for sure: [`FeedStart::floor`] is above
//! them.
//!
//! It keeps nothing of what was published, knows no subscriber, and reads no op-log.

use std::collections::VecDeque;
use std::time::Duration;

use protocol::message::link::Versioned;
use protocol::mutation::{self, Mutation};
use protocol::placement::Partition as Number;
use protocol::{UserId, Version};

use super::Engine;
use super::event::{Command, FeedStart, Published, RequestId};
use super::partition::Partition;

/// A subscriber waits no longer for a place to begin at.
const BEGIN_WITHIN: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Feed {
    /// What is newer than this is published; `None` while there is no subscriber.
    after: Option<Version>,
    /// Writes that are not settled, and those that came after them. In version order.
    queue: VecDeque<Slot>,
    /// Subscribers that wait for a place to begin at, in the order in which they asked.
    waiting: VecDeque<Waiting>,
    /// Whether every partition has been served since the start, so that the newest version is known.
    informed: bool,
    /// Whether a version was given since the start.
    stamped: bool,
    /// See the module.
    floor: Version,
}

/// A write that was admitted.
#[derive(Debug)]
struct Slot {
    version: Version,
    partition: Number,
    outcome: SlotOutcome,
}

#[derive(Debug)]
enum SlotOutcome {
    /// It is not known yet.
    Open,
    /// Nothing to publish: it was not applied, or there was no subscriber.
    Nothing,
    /// Boxed, so that the queue stays small while there is no subscriber.
    News(Box<Published>),
}

#[derive(Debug)]
struct Waiting {
    request: RequestId,
    since: Duration,
    /// The newest version when it asked; `None` until that is known.
    from: Option<Version>,
}

/// The outcome of a write, as the feed needs it.
pub(super) enum Settled<'a> {
    /// It was applied and is acknowledged.
    Applied(&'a Versioned),
    /// It was not applied.
    Nothing,
    /// It may have been applied.
    Unknown(UserId),
}

impl Feed {
    /// A write was admitted. Versions rise.
    pub(super) fn admit(&mut self, version: Version, partition: Number) {
        assert!(self.queue.back().is_none_or(|last| last.version < version), "versions rise");
        self.stamped = true;
        self.queue.push_back(Slot { version, partition, outcome: SlotOutcome::Open });
    }

    /// The outcome of a write is known. What may leave the queue then, leaves with [`Engine::publish`].
    pub(super) fn settle(&mut self, version: Version, settled: Settled<'_>) {
        // Most often it is the first one.
        let place = match self.queue.front() {
            Some(first) if first.version == version => Ok(0),
            _ => self.queue.binary_search_by_key(&version, |slot| slot.version),
        };
        let Some(slot) = place.ok().and_then(|place| self.queue.get_mut(place)) else { return };
        let published = self.after.is_some_and(|after| version > after);
        slot.outcome = match settled {
            Settled::Applied(change) if published => {
                SlotOutcome::News(Box::new(Published::Change(change.clone())))
            }
            Settled::Unknown(id) if published => {
                SlotOutcome::News(Box::new(Published::Unknown { version, id }))
            }
            _ => SlotOutcome::Nothing,
        };
    }

    /// Publishes from the front what is settled.
    fn leave(&mut self, commands: &mut Vec<Command>) {
        let mut news = Vec::new();
        while let Some(slot) = self.queue.pop_front_if(|slot| !matches!(slot.outcome, SlotOutcome::Open)) {
            if let SlotOutcome::News(published) = slot.outcome {
                news.push(*published);
            }
        }
        if mutation::is(Mutation::PublishEarly) {
            for slot in &mut self.queue {
                if let SlotOutcome::News(published) =
                    std::mem::replace(&mut slot.outcome, SlotOutcome::Nothing)
                {
                    news.push(*published);
                }
            }
        }
        if !news.is_empty() {
            commands.push(Command::Publish(news));
        }
    }

    /// The next subscriber that may begin, and where: all up to there is settled.
    fn next_to_begin(&mut self) -> Option<(RequestId, Version)> {
        let open = self.queue.front().map(|slot| slot.version);
        let settled = |from| open.is_none_or(|open| open > from);
        let waiting = self.waiting.pop_front_if(|waiting| waiting.from.is_some_and(settled))?;
        Some((waiting.request, waiting.from?))
    }

    /// A version was found that an earlier gateway gave, and that is higher than all that this one knew of.
    pub(super) fn found_newer(&mut self, version: Version) {
        if self.stamped {
            self.floor = self.floor.max(version);
        }
    }

    /// The newest version is known now: subscribers that wait for that have a place to begin at.
    fn assign(&mut self, newest: Version, commands: &mut Vec<Command>) {
        self.informed = true;
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.from.is_none()) {
            waiting.from = Some(newest);
        }
        if self.after.is_none() && !self.waiting.is_empty() {
            self.after = Some(newest);
            commands.push(Command::BeginFeed { after: newest });
        }
    }

    /// There is no subscriber any more.
    pub(super) fn stop(&mut self) {
        self.after = None;
        // Where they were to begin, nothing is published now.
        self.waiting.iter_mut().for_each(|waiting| waiting.from = None);
    }
}

impl Engine {
    /// Publishes what is settled, and answers the subscribers that may begin.
    pub(super) fn publish(&mut self) {
        self.feed.leave(&mut self.commands);
        while let Some((request, from)) = self.feed.next_to_begin() {
            let leader = |partition: &Partition| partition.serves().then_some(partition.leader);
            let leaders = self.partitions.iter().map(leader).collect();
            let start = FeedStart { from, floor: self.feed.floor, leaders };
            self.commands.push(Command::AnswerSubscribe { request, result: Ok(start) });
        }
    }

    pub(super) fn subscribe(&mut self, request: RequestId) {
        self.feed.waiting.push_back(Waiting { request, since: self.now, from: None });
        self.begin_feed();
    }

    /// Goes on with subscribers that wait to begin, as time passes.
    pub(super) fn tick_feed(&mut self) {
        if self.feed.waiting.is_empty() {
            return;
        }
        self.begin_feed();
        let now = self.now;
        let late = |waiting: &mut Waiting| now.saturating_sub(waiting.since) > BEGIN_WITHIN;
        while let Some(Waiting { request, .. }) = self.feed.waiting.pop_front_if(late) {
            let unserved = self.partitions.iter().position(|partition| partition.last_leader().is_none());
            let delaying = self.feed.queue.front().map(|slot| slot.partition);
            let partition =
                delaying.filter(|_| self.feed.informed).or(unserved.map(|number| number as Number));
            let result = Err(self.unavailable(partition.unwrap_or_default()));
            self.commands.push(Command::AnswerSubscribe { request, result });
        }
    }

    fn begin_feed(&mut self) {
        let served = |partition: &Partition| partition.last_leader().is_some();
        if self.feed.informed || self.open && self.partitions.iter().all(served) {
            self.feed.assign(self.clock.last(), &mut self.commands);
            self.publish();
        }
    }
}
