//! A load on a ring that keeps the history of every user, so that what it was told can be checked afterwards.
//!
//! Closed loop: each of N connections has one request under way at a time, and retries nothing (those of
//! [`retries`] do). Most users have one connection that writes them, a few are written by all; everybody
//! reads everybody. Each request is noted with the moments at which it was sent and answered and with what
//! came of it, which may be *unknown*: a write whose answer never came may have been done, or may yet be.
//!
//! A load runs in windows. Between two windows nothing is under way, every user is read once more, and the
//! histories are handed over; so a history stays short, and the next one starts from a known user.
//!
//! Most connections read and write, and after a fault all of these may come to wait for a write. Some only
//! read ([`mix`]), so that how long no read succeeded says something about reads.
//!
//! [`client`] is one connection, [`user`] what the load knows of a user, [`users`] all of them,
//! [`connection`] what each connection does, [`meter`] how long it took and what failed.
//!
//! Nothing here knows what a fault is, and nothing here judges.

pub(crate) mod client;
mod connection;
pub(crate) mod meter;
mod mix;
pub(crate) mod random;
pub(crate) mod retries;
pub(crate) mod statistics;
pub(crate) mod user;
mod users;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use client::Endpoint;
use connection::Connection;
use meter::{Glance, Meter};
use mix::Mix;
use user::History;
use users::Users;

/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(2);

/// What a load is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoadSettings {
    pub(crate) connections: usize,
    /// Share of reads, in percent.
    pub(crate) reads: u64,
    pub(crate) users: usize,
    pub(crate) seed: u64,
}

/// A load: its connections while it rests, or the tasks that they are at work in.
pub(crate) struct Load {
    shared: Arc<Shared>,
    resting: Vec<Connection>,
    working: JoinSet<Connection>,
    /// Watches how late timers come, within a window.
    timer: JoinSet<()>,
}

/// What all connections of a load have in common.
struct Shared {
    endpoint: Endpoint,
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
        self.meter.lock().expect("no one panics while he notes a number")
    }

    /// Nanoseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).expect("no load runs for 584 years")
    }
}

impl Load {
    /// Makes a load, which rests at first.
    pub(crate) fn new(endpoint: Endpoint, settings: &LoadSettings) -> Self {
        let start = Instant::now();
        let mix = Mix::new(settings.connections, settings.reads);
        let shared = Arc::new(Shared {
            endpoint,
            users: Users::new(settings.users, mix.writers()),
            meter: Mutex::new(Meter::new(start)),
            mix,
            start,
            stop: AtomicBool::new(false),
        });
        let resting = (0..settings.connections)
            .map(|number| Connection::new(number, settings.seed, Arc::clone(&shared)))
            .collect();
        Self { shared, resting, working: JoinSet::new(), timer: JoinSet::new() }
    }

    /// Starts a window.
    pub(crate) fn start(&mut self) {
        self.shared.stop.store(false, Ordering::Relaxed);
        self.shared.meter().resume();
        self.timer.spawn(watch_the_clock(Arc::clone(&self.shared)));
        for connection in self.resting.drain(..) {
            self.working.spawn(connection.work());
        }
    }

    /// Ends the window: when this returns, nothing is under way.
    pub(crate) async fn pause(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.rest().await;
    }

    /// Reads every user once more, by all connections, and hands over the histories of the window. It must be
    /// paused.
    pub(crate) async fn histories(&mut self) -> Vec<History> {
        assert!(self.working.is_empty(), "histories are complete only while nothing is under way");
        let (count, users) = (self.resting.len(), self.shared.users.all());
        for (number, connection) in self.resting.drain(..).enumerate() {
            let mine = users.iter().skip(number).step_by(count).cloned().collect();
            self.working.spawn(connection.look(mine));
        }
        drop(users);
        self.rest().await;
        self.shared.users.seal()
    }

    /// Deletes what the load has created.
    pub(crate) async fn clean_up(&mut self) {
        let (count, ids) = (self.resting.len(), self.shared.users.ever());
        for (number, connection) in self.resting.drain(..).enumerate() {
            let mine = ids.iter().skip(number).step_by(count).copied().collect();
            self.working.spawn(connection.delete(mine));
        }
        self.rest().await;
    }

    async fn rest(&mut self) {
        self.timer.shutdown().await;
        while let Some(connection) = self.working.join_next().await {
            self.resting.push(connection.expect("a connection neither panics nor is cancelled"));
        }
        self.resting.sort_by_key(Connection::number);
    }

    /// Says how it does, for as long as anyone wants to know.
    pub(crate) fn looker(&self) -> impl Fn() -> Glance + Send + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.meter().glance()
    }

    /// What was measured.
    pub(crate) fn meter(&self) -> MutexGuard<'_, Meter> {
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
