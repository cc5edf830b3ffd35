//! The change feed, as far as it is decided here: in which order changes are told, and from where a
//! subscriber may begin.
//!
//! The feed is one sequence for the whole ring, in version order. Versions are given in rising order in one
//! place, so every write that is taken on is put at the end of a queue, and waits there for what comes of it:
//! applied, nothing, or unknown. From the front, everything that is settled leaves, and what was applied is
//! published. So a change leaves only when all older ones are settled, which costs nothing while all is well,
//! holds the feed for milliseconds while a lead moves, and for as long as the silence of a process lasts that
//! hangs. A partition that is down holds nothing: its writes are given up. An operation that is sent again
//! keeps its version, and so its place.
//!
//! What follows from it:
//!
//! * The version of a change names a place in the feed. Whoever has seen it has seen all that was published
//!   before.
//! * Changes of one user are in the order in which they were decided, and one that was acknowledged is
//!   published once.
//! * A write that may have been applied (504) is published as *unknown*: it names the user, who has to be
//!   read to know.
//!
//! A subscriber begins at a version up to which everything is settled: it is given the newest version that
//! there is when it asks, and is answered when all that is not newer is settled. Everything newer is
//! published, and everything up to there that was ever acknowledged is in the op-logs of the copies: so what
//! it missed earlier can be read there, without a gap and without repetition. While nobody subscribes,
//! outcomes are only counted off, and nothing is kept of the changes.
//!
//! A gateway that has just started does not know the newest version before each partition has been served
//! once. If its wall clock stood behind that of the gateway before, it may have given versions by then that
//! are lower than ones found later. A place among those says nothing for sure: [`FeedStart::floor`] is above
//! them.
//!
//! What it does not do: it keeps nothing of what was published, knows no subscriber, and reads no op-log.

use std::collections::VecDeque;
use std::time::Duration;

use protocol::message::link::Versioned;
use protocol::mutation::{self, Mutation};
use protocol::placement::Partition;
use protocol::{UserId, Version};

use super::Engine;
use super::event::{Command, FeedStart, Published, RequestId, Unserved};

/// Nobody waits longer for a place to begin at.
const BEGIN_WITHIN: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Feed {
    /// Somebody listens: what is newer than this is published.
    after: Option<Version>,
    /// Writes that are not settled, and those that came after them. In version order.
    queue: VecDeque<Slot>,
    /// Who wants to begin, in the order in which they asked.
    waiting: VecDeque<Waiting>,
    /// Whether every partition has been served since the start, so that the newest version is known.
    informed: bool,
    /// Whether a version was given since the start.
    stamped: bool,
    /// See the module.
    floor: Version,
}

/// A write that was taken on.
#[derive(Debug)]
struct Slot {
    version: Version,
    partition: Partition,
    came_to: CameTo,
}

#[derive(Debug)]
enum CameTo {
    /// It is not known yet.
    Open,
    /// Nothing to tell: it was not applied, or nobody listened.
    Nothing,
    /// Boxed, so that the queue stays small while nobody listens.
    News(Box<Published>),
}

#[derive(Debug)]
struct Waiting {
    request: RequestId,
    since: Duration,
    /// The newest version when it asked; `None` until that is known.
    from: Option<Version>,
}

/// What came of a write, as it is told to the feed.
pub(super) enum Settled<'a> {
    /// It was applied and is acknowledged.
    Applied(&'a Versioned),
    /// It was not applied.
    Nothing,
    /// It may have been applied.
    Unknown(UserId),
}

impl Feed {
    /// A write was taken on. Versions rise.
    pub(super) fn take_on(&mut self, version: Version, partition: Partition) {
        assert!(self.queue.back().is_none_or(|last| last.version < version), "versions rise");
        self.stamped = true;
        self.queue.push_back(Slot { version, partition, came_to: CameTo::Open });
    }

    /// It is known what came of a write. What may leave the queue then, leaves with [`Engine::publish`].
    pub(super) fn settle(&mut self, version: Version, settled: Settled<'_>) {
        // Most often it is the first one.
        let place = match self.queue.front() {
            Some(first) if first.version == version => Ok(0),
            _ => self.queue.binary_search_by_key(&version, |slot| slot.version),
        };
        let Some(slot) = place.ok().and_then(|place| self.queue.get_mut(place)) else { return };
        let heard = self.after.is_some_and(|after| version > after);
        slot.came_to = match settled {
            Settled::Applied(change) if heard => CameTo::News(Box::new(Published::Change(change.clone()))),
            Settled::Unknown(id) if heard => CameTo::News(Box::new(Published::Unknown { version, id })),
            _ => CameTo::Nothing,
        };
    }

    /// Publishes from the front what is settled.
    fn leave(&mut self, commands: &mut Vec<Command>) {
        let mut news = Vec::new();
        while let Some(slot) = self.queue.pop_front_if(|slot| !matches!(slot.came_to, CameTo::Open)) {
            if let CameTo::News(published) = slot.came_to {
                news.push(*published);
            }
        }
        if mutation::is(Mutation::PublishEarly) {
            for slot in &mut self.queue {
                if let CameTo::News(published) = std::mem::replace(&mut slot.came_to, CameTo::Nothing) {
                    news.push(*published);
                }
            }
        }
        if !news.is_empty() {
            commands.push(Command::Publish(news));
        }
    }

    /// Who may begin, and where: all up to there is settled.
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

    /// The newest version is known now: whoever waits for that has a place to begin at.
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
}

impl Engine {
    /// Publishes what is settled, and answers whoever may begin.
    pub(super) fn publish(&mut self, commands: &mut Vec<Command>) {
        self.feed.leave(commands);
        while let Some((request, from)) = self.feed.next_to_begin() {
            let lead = |partition: &super::Partition| partition.serves().then_some(partition.lead);
            let leads = self.partitions.iter().map(lead).collect();
            let start = FeedStart { from, floor: self.feed.floor, leads };
            commands.push(Command::AnswerSubscribe { request, result: Ok(start) });
        }
    }

    /// Somebody wants to listen.
    pub(super) fn subscribe(&mut self, now: Duration, request: RequestId, commands: &mut Vec<Command>) {
        self.feed.waiting.push_back(Waiting { request, since: now, from: None });
        self.begin_feed(commands);
    }

    /// Nobody listens any more.
    pub(super) fn unheard(&mut self) {
        self.feed.after = None;
        // Where they were to begin, nothing is published now.
        self.feed.waiting.iter_mut().for_each(|waiting| waiting.from = None);
    }

    /// Goes on with those who wait to listen. To be called as time passes.
    pub(super) fn look_after_feed(&mut self, now: Duration, commands: &mut Vec<Command>) {
        if self.feed.waiting.is_empty() {
            return;
        }
        self.begin_feed(commands);
        while let Some(late) =
            self.feed.waiting.pop_front_if(|waiting| now.saturating_sub(waiting.since) > BEGIN_WITHIN)
        {
            let unknown = self.partitions.iter().position(|partition| partition.last_lead().is_none());
            let held_up = self.feed.queue.front().map(|slot| slot.partition);
            let partition = held_up.filter(|_| self.feed.informed).or(unknown.map(|number| number as u16));
            let partition = partition.unwrap_or_default();
            let refused = Unserved::Unavailable { partition, waiting_for: self.waiting_for(partition) };
            commands.push(Command::AnswerSubscribe { request: late.request, result: Err(refused) });
        }
    }

    fn begin_feed(&mut self, commands: &mut Vec<Command>) {
        let informed =
            || self.open && self.partitions.iter().all(|partition| partition.last_lead().is_some());
        if self.feed.informed || informed() {
            self.feed.assign(self.clock.last(), commands);
            self.publish(commands);
        }
    }
}
