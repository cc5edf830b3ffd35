//! A load on a ring that keeps the history of every user, so that its answers can be checked afterwards.
//!
//! Closed loop: each of N connections has one request under way at a time, and retries nothing (those of
//! [`retries`] do). Most users have one connection that writes them, a few are written by all; every
//! connection reads every user. Each request is noted with the moments at which it was sent and answered and
//! with what came of it, which may be *unknown*: a write whose answer never came may have been done, or may
//! yet be.
//!
//! A load runs in windows. Between two windows nothing is under way, every user is read once more, and the
//! histories are handed over; so a history stays short, and the next one starts from a known user.
//!
//! Most connections read and write, and after a fault all of these may come to wait for a write. Some only
//! read ([`mix`]), so that how long no read succeeded says something about reads.
//!
//! [`history`] is what is known of a user, [`users`] all of them, [`connection`] what each connection does,
//! [`meter`] how long it took and what failed.
//!
//! Nothing here knows what a fault is, and nothing here judges.

mod connection;
pub mod history;
pub mod meter;
mod mix;
pub(crate) mod retries;
mod users;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, JoinSet};

use crate::client::Endpoint;
use connection::Connection;
use history::History;
use meter::{Glance, Meter};
use mix::Mix;
use users::Users;

/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(2);

/// What a load is to be.
#[derive(Clone, Copy, Debug)]
pub struct LoadSettings {
    /// Number of connections.
    pub connections: usize,
    /// Share of reads, in percent.
    pub reads: u64,
    /// Users under load at a time.
    pub users: usize,
    /// Repeats the choices of the connections.
    pub seed: u64,
}

/// A load. It is to be used on one runtime.
pub struct Load {
    shared: Arc<Shared>,
    connections: Crew<Connection>,
    /// Watches how late timers come, within a window.
    timer: Option<JoinHandle<()>>,
}

/// Connections at rest, and the tasks that they work in.
struct Crew<C> {
    resting: Vec<C>,
    working: JoinSet<C>,
}

impl<C: Send + 'static> Crew<C> {
    fn new(resting: Vec<C>) -> Self {
        Self { resting, working: JoinSet::new() }
    }

    /// Gives each its work, with its number.
    fn start<W: Future<Output = C> + Send + 'static>(&mut self, mut work: impl FnMut(usize, C) -> W) {
        for (number, connection) in self.resting.drain(..).enumerate() {
            self.working.spawn(work(number, connection));
        }
    }

    /// Returns when none works any more.
    async fn rest(&mut self) {
        while let Some(connection) = self.working.join_next().await {
            self.resting.push(connection.expect("a connection neither panics nor is cancelled"));
        }
    }
}

/// What all connections of a load have in common.
struct Shared {
    users: Users,
    meter: Mutex<Meter>,
    mix: Mix,
    /// The moment that all others are counted from.
    start: Instant,
    /// Whether the window is to end.
    stop: AtomicBool,
}

impl Shared {
    fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().expect("no thread panics while it notes a number")
    }

    /// Nanoseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).expect("no load runs for 584 years")
    }
}

impl Load {
    /// Makes a load, which rests at first.
    pub fn new(endpoint: &Endpoint, settings: &LoadSettings) -> Self {
        let start = Instant::now();
        let mix = Mix::new(settings.connections, settings.reads);
        let shared = Arc::new(Shared {
            users: Users::new(settings.users, mix.writers()),
            meter: Mutex::new(Meter::new(start)),
            mix,
            start,
            stop: AtomicBool::new(false),
        });
        let connection =
            |number| Connection::new(number, endpoint.clone(), settings.seed, Arc::clone(&shared));
        let connections = Crew::new((0..settings.connections).map(connection).collect());
        Self { shared, connections, timer: None }
    }

    /// Starts a window.
    pub fn start(&mut self) {
        self.shared.stop.store(false, Ordering::Relaxed);
        self.shared.meter().resume();
        self.timer = Some(tokio::spawn(watch_the_clock(Arc::clone(&self.shared))));
        self.connections.start(|_, connection| connection.work());
    }

    /// Ends the window: when this returns, nothing is under way.
    pub async fn pause(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        self.connections.rest().await;
    }

    /// Reads every user once more, by all connections, and hands over the histories of the window. It must be
    /// paused.
    pub async fn histories(&mut self) -> Vec<History> {
        assert!(self.connections.working.is_empty(), "histories are complete while nothing is under way");
        let (count, users) = (self.connections.resting.len(), self.shared.users.all());
        self.connections.start(|number, connection| {
            connection.look(users.iter().skip(number).step_by(count).cloned().collect())
        });
        drop(users);
        self.connections.rest().await;
        self.shared.users.seal()
    }

    /// Deletes what the load has created. It must be paused.
    pub async fn clean_up(&mut self) {
        let (count, ids) = (self.connections.resting.len(), self.shared.users.ever());
        self.connections.start(|number, connection| {
            connection.delete(ids.iter().skip(number).step_by(count).copied().collect())
        });
        self.connections.rest().await;
    }

    /// Gives the state of the load at any time.
    pub fn looker(&self) -> impl Fn() -> Glance + Send + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.meter().glance()
    }

    /// What was measured.
    pub fn meter(&self) -> MutexGuard<'_, Meter> {
        self.shared.meter()
    }
}

/// Sleeps for a moment, again and again, and notes how much longer it took.
async fn watch_the_clock(shared: Arc<Shared>) {
    loop {
        let before = Instant::now();
        tokio::time::sleep(TICK).await;
        shared.meter().late(before.elapsed().saturating_sub(TICK));
    }
}
