//! The library's load: no request may fail, and what each user went through must be linearizable.

use std::time::{Duration, Instant};

use corro::client::Endpoint;
use corro::linear::Finding;
use corro::load::history::{Action, Event, History, Outcome, check};
use corro::load::meter::{Failure, POINT};
use corro::load::{self, LoadSettings};

use super::processes::{DEADLINE, Ring};

/// Writes that take longer are noted.
pub(crate) const LONG: Duration = Duration::from_secs(2);

/// What the load saw.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) reads: u64,
    failed: u64,
    /// The first of them.
    failures: Vec<Failure>,
    /// Users that were created, whether or not they were deleted.
    pub(crate) users: usize,
    /// Users that exist in the end.
    pub(crate) live: usize,
    /// Histories that are not linearizable.
    bad: Vec<History>,
    /// When writes were answered that had taken long.
    pub(crate) long_writes: Vec<Instant>,
}

/// A running load.
pub(crate) struct Load {
    load: load::Load,
    started: Instant,
}

impl Load {
    /// Starts to read and write so many users by `connections` connections, and waits until most of the users
    /// are there.
    pub(crate) async fn start(port: u16, connections: usize, users: usize) -> Self {
        let settings = LoadSettings { connections, reads: 50, users, seed: 1 };
        let mut load = load::Load::new(&Endpoint::local(port), &settings);
        let started = Instant::now();
        load.start();
        let load = Self { load, started };
        load.until_more(0, 2 * users as u64).await;
        load
    }

    /// Waits until so many more reads and writes have been answered.
    pub(crate) async fn until_more(&self, reads: u64, writes: u64) {
        let glance = || self.load.meter().glance();
        let (before, start) = (glance(), Instant::now());
        while glance().reads < before.reads + reads || glance().writes < before.writes + writes {
            assert!(start.elapsed() < 2 * DEADLINE, "the load does not continue: {:?}", glance());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends the load, and reads every user once more.
    pub(crate) async fn finish(mut self) -> Seen {
        self.load.pause().await;
        let histories = self.load.histories().await;
        let created = |history: &&History| {
            let created =
                |action, outcome| matches!((action, outcome), (Action::Create(_), Outcome::User(_)));
            history.events.iter().any(|event| created(event.action, event.outcome))
        };
        let users = histories.iter().filter(created).count();
        let lives = |history: &&History| {
            matches!(history.events.last(), Some(Event { outcome: Outcome::User(_), .. }))
        };
        let live = histories.iter().filter(lives).count();
        let is_bad = |history: &History| check(history.initial, &history.events) != Finding::Linearizable;
        let bad = histories.into_iter().filter(is_bad).collect();
        let meter = self.load.meter();
        let glance = meter.glance();
        let long = meter.timeline().iter().filter(|point| u128::from(point.write_max) > LONG.as_micros());
        Seen {
            reads: glance.reads,
            failed: glance.failed,
            failures: meter.failures().iter().map(|failed| failed.failure.clone()).collect(),
            users,
            live,
            bad,
            long_writes: long.map(|point| self.started + POINT * (point.index + 1)).collect(),
        }
    }
}

impl Seen {
    /// Nothing failed, nothing was refused, nothing is unknown, nothing was stale or lost.
    pub(crate) fn assert_nothing_failed(&self, ring: &Ring) {
        println!("{self:?}");
        assert_eq!(
            (self.failed, self.bad.len()),
            (0, 0),
            "{:#?}\n{}",
            (&self.failures, &self.bad),
            ring.logs()
        );
    }
}
