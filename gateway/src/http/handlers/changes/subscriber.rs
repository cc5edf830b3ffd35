//! One subscriber: from the id that it has to the end of its stream.

use std::sync::Arc;

use protocol::Version;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::replay::{self, NoReplay, Piece};
use crate::feed::{Batch, FellBehind, Subscription};
use crate::http::api::Api;
use crate::http::kind::Kind;
use crate::http::metrics::{DropReason, Subscribed, SubscriberMetrics, Transport};
use crate::http::problem::Problem;

/// Subscribers that read from op-logs at the same time: each may hold a page of every copy.
const REPLAYS: usize = 8;

/// What all subscribers share.
#[derive(Debug, Clone)]
pub(crate) struct FeedState {
    pub(super) api: Api,
    metrics: SubscriberMetrics,
    replays: Arc<Semaphore>,
}

impl FeedState {
    pub(crate) fn new(api: Api, metrics: SubscriberMetrics) -> Self {
        Self { api, metrics, replays: Arc::new(Semaphore::new(REPLAYS)) }
    }

    /// A permit to read from the op-logs what a subscriber has missed.
    async fn permit_to_replay(&self) -> Result<OwnedSemaphorePermit, Problem> {
        match timeout(self.api.patience(), Arc::clone(&self.replays).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
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
    /// 400 where there is no such event yet, 410 where what came after it is not kept any more, 503.
    pub(super) async fn begin(
        state: &FeedState,
        after: Option<Version>,
        transport: Transport,
    ) -> Result<Self, Problem> {
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
            let permit = state.permit_to_replay().await?;
            // Another subscriber's replay may have put it back into memory meanwhile.
            if !is_in_memory() {
                let pieces = replay::start(state.api.engine().clone(), seen, start, permit).await;
                replay = Some(pieces.map_err(|why| match why {
                    NoReplay::Gone => gone(),
                    NoReplay::Unserved(unserved) => unserved.into(),
                })?);
            }
        }
        Ok(Self { subscription, seen, replay, subscribed })
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
