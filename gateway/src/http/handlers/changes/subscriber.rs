//! One subscriber: from the id that it has to the end of its stream.

use std::sync::Arc;

use protocol::Version;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout_at;

use super::replay::{self, NoReplay, Piece};
use crate::feed::{Batch, FellBehind, MAX_SUBSCRIBERS, Subscription};
use crate::http::api::Api;
use crate::http::fairness::{Client, Share, Shares};
use crate::http::kind::Kind;
use crate::http::metrics::{DropReason, Limit, Metrics, Subscribed, SubscriberMetrics, Transport};
use crate::http::problem::Problem;

/// Subscribers that read from op-logs at the same time: each may hold a page of every copy.
const REPLAYS: usize = 8;

/// The share of one client of subscriptions, replays, and sessions that have not joined.
const SHARES: [usize; 3] = [MAX_SUBSCRIBERS / 2, REPLAYS / 2, MAX_STRANGERS / 4];

/// Sessions of socket.io whose clients have not joined yet. They need no connection, and are open to
/// strangers.
pub(super) const MAX_STRANGERS: usize = 1_024;

/// What all subscribers share.
#[derive(Debug, Clone)]
pub(crate) struct FeedState {
    pub(super) api: Api,
    metrics: SubscriberMetrics,
    replays: Arc<Semaphore>,
    /// What each client may have.
    subscriptions_of_each: Shares,
    replays_of_each: Shares,
    pub(super) strangers_of_each: Shares,
}

/// Leave to read from the op-logs what a subscriber has missed.
#[derive(Debug)]
pub(super) struct MayReplay {
    _own: Share,
    _permit: OwnedSemaphorePermit,
}

impl FeedState {
    pub(crate) fn new(api: Api, metrics: &Metrics) -> Self {
        let [subscriptions, replays, strangers] = SHARES;
        let of_each = |most, limit, detail| Shares::new(most, detail, metrics.limits.of(limit));
        Self {
            api,
            metrics: metrics.subscribers.clone(),
            replays: Arc::new(Semaphore::new(REPLAYS)),
            subscriptions_of_each: of_each(
                subscriptions,
                Limit::Subscriptions,
                "This token or address has as many subscribers as one may have. Nothing was begun.",
            ),
            replays_of_each: of_each(
                replays,
                Limit::Replays,
                "Too many of this token or address read at once what they have missed. Nothing was begun.",
            ),
            strangers_of_each: of_each(
                strangers,
                Limit::Sessions,
                "Too many clients of this address have connected and not joined yet.",
            ),
        }
    }

    /// Waits for it: first among the subscribers of that client, then among all that are next of theirs.
    async fn permit_to_replay(&self, client: &Client) -> Result<MayReplay, Problem> {
        let deadline = self.api.deadline();
        let own = timeout_at(deadline, self.replays_of_each.wait(client)).await;
        let own = own.map_err(|_| self.replays_of_each.refusal())?;
        match timeout_at(deadline, Arc::clone(&self.replays).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(MayReplay { _own: own, _permit: permit }),
            _ => {
                let detail = "Too many read at once what they have missed. Nothing was begun.";
                Err(Problem::new(Kind::TooManySubscribers, detail))
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Subscriber {
    subscription: Subscription,
    /// It has been given everything up to here.
    seen: Version,
    /// What it missed, as long as there is more of that.
    replay: Option<mpsc::Receiver<Piece>>,
    subscribed: Subscribed,
    _share: Share,
}

/// The id of an event, as a client repeats it. An empty one is none, as in HTML.
///
/// # Errors
/// 400 where it is no id of an event.
pub(super) fn parse_id(text: &str) -> Result<Option<Version>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    let detail = "The id of an event has sixteen hexadecimal digits in lower case.";
    text.parse().map(Some).map_err(|_| Problem::new(Kind::MalformedEventId, detail))
}

fn gone() -> Problem {
    let detail = "Changes after this id are not kept any more. Read the users again, and listen from now on.";
    Problem::new(Kind::ChangesGone, detail)
}

impl Subscriber {
    /// Begins after the event of that id, or now.
    ///
    /// # Errors
    /// 400 where there is no such event yet, 410 where what came after it is not kept any more, 429 where the
    /// client has its share, 503.
    pub(super) async fn begin(
        state: &FeedState,
        client: &Client,
        after: Option<Version>,
        transport: Transport,
    ) -> Result<Self, Problem> {
        let share = state.subscriptions_of_each.take(client)?;
        let (subscription, start) = state.api.subscribe().await?;
        let subscribed = state.metrics.subscribe(transport);
        let seen = after.unwrap_or(start.from);
        if seen > start.from {
            let detail =
                "The id is newer than anything that has happened here: it is of another ring, or no id.";
            return Err(Problem::new(Kind::FutureEventId, detail));
        }
        if after.is_some() && seen < start.floor {
            return Err(gone());
        }
        let is_in_memory = || after.is_none() || subscription.hub().reaches(seen);
        let mut replay = None;
        if !is_in_memory() {
            let permit = state.permit_to_replay(client).await?;
            // Another subscriber's replay may have put it back into memory meanwhile.
            if !is_in_memory() {
                let pieces = replay::start(state.api.engine().clone(), seen, start, permit).await;
                replay = Some(pieces.map_err(|why| match why {
                    NoReplay::Gone => gone(),
                    NoReplay::Unserved(unserved) => unserved.into(),
                })?);
            }
        }
        Ok(Self { subscription, seen, replay, subscribed, _share: share })
    }

    /// It has been given everything up to here.
    pub(super) fn seen(&self) -> Version {
        self.seen
    }

    /// The gateway ends it.
    pub(super) fn dropped(&self, reason: DropReason) {
        self.subscribed.dropped(reason);
    }

    /// The next changes. May be given up at any time, and asked again.
    ///
    /// # Errors
    /// How the stream ends.
    pub(super) async fn next(&mut self) -> Result<Arc<Batch>, DropReason> {
        if let Some(replay) = &mut self.replay {
            match replay.recv().await {
                Some(Piece::Changes(batch)) => {
                    self.seen = batch.end();
                    return Ok(batch);
                }
                Some(Piece::Upto(version)) => {
                    self.seen = version;
                    self.replay = None;
                }
                Some(Piece::End(reason)) => return Err(reason),
                None => return Err(DropReason::TOO_SLOW),
            }
        }
        let batch = self.subscription.next(self.seen).await.map_err(|FellBehind| DropReason::TOO_SLOW)?;
        self.seen = batch.end();
        Ok(batch)
    }
}
