//! The load: what a [`Spec`] says, with an [`Outcome`].
//!
//! One thread, one `epoll` over all connections, and two system calls a request, one that writes it and one
//! that reads the answer: no runtime, no task and no allocation for each request, because it shares the
//! machine with what it measures. It does not pipeline: a connection has one request under way, as clients
//! have.
//!
//! [`requests`] writes the requests, [`engine`] is the loop.

mod engine;
mod requests;
mod wire;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Kind;
use super::cpu::{CpuTimes, Watched};
use super::sides::Made;
use crate::client::Endpoint;

/// What a generator is to do.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) target: Endpoint,
    /// Whose processor time is to be noted over the measured time, besides its own.
    pub(super) processes: Vec<Watched>,
    pub(super) kind: Kind,
    pub(super) connections: u32,
    /// Requests that are due each second; `None`: closed loop.
    pub(super) rate: Option<u32>,
    /// Load before anything is counted.
    pub(super) warm_up: Duration,
    /// What is counted. Where `users` are taken one after the other, it may end before that.
    pub(super) length: Duration,
    /// By number; see [`requests::id_of`].
    pub(super) users: Range<u64>,
    /// Chooses among the users.
    pub(super) seed: u64,
    /// Where the ids go of users that the target has chosen ids for.
    pub(super) made: Option<Made>,
    /// Whose numbers `users` are, where they do not follow from the numbers.
    pub(super) ids: Option<Arc<[Uuid]>>,
    /// Ends it early; what is under way is waited for.
    pub(super) shutdown: CancellationToken,
}

/// What came of it. Durations are in seconds.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    /// Requests answered as expected within the measured time.
    pub(super) requests: u64,
    /// Other answers, and broken connections, over all of the time.
    pub(super) errors: u64,
    /// The first of them, for a person.
    pub(super) first_error: Option<String>,
    /// Length of the measured time.
    pub(super) seconds: f64,
    /// Percentiles of the latency.
    pub(super) p50: f64,
    pub(super) p99: f64,
    #[serde(rename = "p99.9")]
    pub(super) p999: f64,
    pub(super) max: f64,
    /// Processor time of each process over the measured time, the generator's own included.
    pub(super) cpu: CpuTimes,
    /// Those of the users that were taken one after the other, from the first.
    pub(super) used: Range<u64>,
}

/// Does that, on a thread of its own.
///
/// # Errors
/// Where the target is lost, or falls silent, or a process to watch has ended.
pub(super) async fn run(spec: Spec) -> anyhow::Result<Outcome> {
    let (sender, outcome) = oneshot::channel();
    std::thread::spawn(move || sender.send(engine::Engine::new(&spec).and_then(engine::Engine::run)));
    outcome.await.context("the generator has ended")?
}
