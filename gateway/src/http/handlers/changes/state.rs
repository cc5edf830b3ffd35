//! What all subscriptions share.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::http::api::Api;
use crate::http::kind::Kind;
use crate::http::metrics::SubscriberMetrics;
use crate::http::problem::Problem;

/// Subscribers that read from op-logs at the same time: each may hold a page of every copy.
const REPLAYS: usize = 8;

/// State of the handlers of the feed.
#[derive(Debug, Clone)]
pub(in crate::http) struct FeedState {
    api: Api,
    metrics: SubscriberMetrics,
    replays: Arc<Semaphore>,
}

impl FeedState {
    pub(in crate::http) fn new(api: Api, metrics: SubscriberMetrics) -> Self {
        Self { api, metrics, replays: Arc::new(Semaphore::new(REPLAYS)) }
    }

    pub(super) fn api(&self) -> &Api {
        &self.api
    }

    pub(super) fn metrics(&self) -> &SubscriberMetrics {
        &self.metrics
    }

    /// A permit to read from the op-logs what a subscriber has missed.
    pub(super) async fn permit_to_replay(&self) -> Result<OwnedSemaphorePermit, Problem> {
        match timeout(self.api.patience(), Arc::clone(&self.replays).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => {
                let detail = "Too many read at once what they have missed. Nothing was begun.";
                Err(Problem::new(Kind::TooManySubscribers, detail))
            }
        }
    }
}
