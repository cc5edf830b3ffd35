//! One subscriber: from the id that it has to the end of its stream.

use std::sync::Arc;

use protocol::Version;
use tokio::sync::mpsc;

use super::replay::{self, NoReplay, Piece};
use super::state::FeedState;
use crate::feed::{Batch, FellBehind, Subscription};
use crate::http::kind::Kind;
use crate::http::metrics::{DropReason, Subscribed, Transport};
use crate::http::problem::Problem;

/// See the module.
#[derive(Debug)]
pub(super) struct Subscriber {
    seat: Subscription,
    /// It has been given everything up to here.
    seen: Version,
    /// What it missed, as long as there is more of that.
    replay: Option<mpsc::Receiver<Piece>>,
    subscribed: Subscribed,
}

/// Name of the last event of a subscription that the gateway ends.
pub(super) fn last_event(reason: DropReason) -> &'static str {
    match reason {
        DropReason::TooSlow | DropReason::Interrupted => "dropped",
        DropReason::Gone => "gone",
    }
}

/// What the last event says.
pub(super) fn explain(reason: DropReason) -> &'static str {
    match reason {
        DropReason::TooSlow => "too slow: resume after the last id",
        DropReason::Gone => "the changes after the last id are not kept any more: read the users again",
        DropReason::Interrupted => "a db-process is away that has what comes next: resume after the last id",
    }
}

/// The id of an event, as a client repeats it. An empty one is none, as in HTML.
///
/// # Errors
/// 400 where it is no id of an event.
pub(super) fn parse_id(text: &str) -> Result<Option<Version>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        Problem::new(
            Kind::MalformedEventId,
            "The id of an event has sixteen hexadecimal digits in lower case.",
        )
    })
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
        let (seat, start) = state.api().subscribe().await?;
        let subscribed = state.metrics().subscribe(transport);
        let seen = match after {
            None => start.from,
            Some(after) if after > start.from => {
                let detail =
                    "The id is newer than anything that has happened here: it is of another ring, or no id.";
                return Err(Problem::new(Kind::FutureEventId, detail));
            }
            Some(after) if after < start.floor => return Err(gone()),
            Some(after) if seat.hub().reaches(after) => after,
            Some(after) => {
                let permit = state.permit_to_replay().await?;
                if !seat.hub().reaches(after) {
                    let replay = replay::start(state.api().coordinator(), after, start, permit).await;
                    let replay = replay.map_err(|why| match why {
                        NoReplay::Gone => gone(),
                        NoReplay::Unserved(unserved) => unserved.into(),
                    })?;
                    return Ok(Self { seat, seen: after, replay: Some(replay), subscribed });
                }
                // Another subscriber's replay has put it back into memory meanwhile.
                after
            }
        };
        Ok(Self { seat, seen, replay: None, subscribed })
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
                None => return Err(DropReason::TooSlow),
            }
        }
        let batch = self.seat.next(self.seen).await.map_err(|FellBehind| DropReason::TooSlow)?;
        self.seen = batch.end();
        Ok(batch)
    }
}
