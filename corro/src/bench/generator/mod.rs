//! `corro bench-generator`: the load, in a process of its own. It reads a [`Spec`] from its input, and prints
//! an [`Outcome`].
//!
//! One thread, one `epoll` over all connections, and two system calls a request, one that writes it and one
//! that reads the answer: no runtime, no task and no allocation for each request. It is made to cost little
//! on a machine that it shares with what it measures. It does not pipeline: a connection has one request
//! under way, as clients have.
//!
//! [`requests`] writes the requests, [`answers`] finds the end of an answer, [`engine`] is the loop.

mod answers;
mod engine;
mod requests;

use std::io::{Read, Write};
use std::ops::Range;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::Kind;
use super::cpu::{CpuTimes, Watched};

/// Where the requests go.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    /// For `Authorization: Bearer`.
    pub(super) token: Option<String>,
}

impl Target {
    /// On this machine.
    pub(super) fn here(port: u16) -> Self {
        Self { host: "127.0.0.1".to_owned(), port, token: None }
    }
}

/// What a generator is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Spec {
    pub(super) target: Target,
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
}

/// What came of it. Durations are in seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Outcome {
    /// Requests answered as expected within the measured time.
    pub(super) requests: u64,
    /// Other answers, and broken connections, over all of the time.
    pub(super) errors: u64,
    /// The first of them, for a person.
    pub(super) first_error: Option<String>,
    /// Length of the measured time.
    pub(super) seconds: f64,
    /// That so many in a hundred were not slower than.
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

/// Does what the input says.
///
/// # Errors
/// Where the target is not there, or one of the processes to watch has ended.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut spec = Vec::new();
    std::io::stdin().read_to_end(&mut spec)?;
    let spec: Spec = serde_json::from_slice(&spec).context("the input is not what to do")?;
    let outcome = engine::Engine::new(&spec)?.run()?;
    Ok(std::io::stdout().write_all(&serde_json::to_vec(&outcome)?)?)
}
