//! Serves the router over TCP, to callers who may be slow, many, or hostile.
//!
//! `axum::serve` reads a head for as long as its caller likes, keeps idle connections for ever, and accepts any number of
//! them. What a caller may cost here is bounded:
//!
//! * A head that has begun is there within [`Limits::head`], or is answered 408. A body has the deadline of its request
//!   (`body.rs`). A connection on which nothing moves for [`Limits::idle`] is closed, whatever it waits for: so is one
//!   that does not read its answer.
//! * At most [`Limits::connections`] are open. The newest beyond that is answered 503 and closed, and those that are
//!   there go on: to accept no more would leave its caller waiting in the backlog of the kernel, and to close an older
//!   one could break a request. What is open is also far below the number of files that the process may open
//!   ([`allowed_connections`]), so that links and logs never lack one. Should accepting fail all the same, it is tried
//!   again a moment later.
//! * A head may have 16 KiB and 100 fields, and no connection buffers more than 32 KiB.
//!
//! A request pays next to nothing for this. Its connection notes in a few words of memory what moved when, by a clock that
//! one task advances ten times a second (`progress`); one timer for each connection looks at them every few seconds. That
//! is why the timeouts of hyper are not used: it makes a timer for each head, and closes without an answer.
//!
//! At the end the listener is closed, idle connections are closed, and requests in flight are finished. Answers that
//! would never end by themselves have to be ended by whoever gives them.
//!
//! What it does not do: fairness between callers, limits by address, TLS. A proxy in front is the place for those.

mod connection;
mod progress;
mod stream;

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::kind::Kind;
use super::problem::Problem;
use connection::Served;
use progress::{Clock, TICK};

/// How many connections there may be by default.
const MOST_CONNECTIONS: usize = 16_384;

/// So many open files are left for everything that is no connection of a caller.
const RESERVED_FILES: u64 = 512;

/// Of those that are turned away, so many are told at the same time; more are closed without a word.
const MOST_TURNED_AWAY: usize = 256;

/// How long one that is turned away may take to read that.
const FAREWELL: Duration = Duration::from_secs(1);

/// Pause after a failure to accept.
const RECOVERY: Duration = Duration::from_millis(50);

/// What callers may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections.
    pub connections: usize,
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// Without a byte in either direction.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: MOST_CONNECTIONS, head: Duration::from_secs(10), idle: Duration::from_secs(60) }
    }
}

/// Raises the number of files that this process may open as far as it is allowed to, and returns how many connections of
/// callers that leaves room for: 16,384 at most.
pub fn allowed_connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            warn!(%error, "the number of open files stays as it was");
            limit.current
        }
    };
    // No limit at all is more than enough.
    connections_for(files.unwrap_or(u64::MAX))
}

fn connections_for(files: u64) -> usize {
    let room = files.saturating_sub(RESERVED_FILES.min(files / 4));
    usize::try_from(room).unwrap_or(usize::MAX).clamp(1, MOST_CONNECTIONS)
}

/// Serves until `shutdown`, and then until the last connection has its answer.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, shutdown: CancellationToken) {
    let clock = Arc::new(Clock::default());
    let seats = Seats::default();
    let turned_away = Seats::default();
    let connections = TaskTracker::new();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            _ = tick.tick() => {
                clock.advance();
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            // The caller has gone again.
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) =>
            {
                continue;
            }
            // Most likely too many files are open in the whole system. It is no reason to end.
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                sleep(RECOVERY).await;
                continue;
            }
        };
        if let Some(seat) = seats.take(limits.connections) {
            let served = Served { router: router.clone(), limits, clock: Arc::clone(&clock), seat };
            connections.spawn(connection::run(stream, served, shutdown.clone()));
        } else if let Some(seat) = turned_away.take(MOST_TURNED_AWAY) {
            connections.spawn(turn_away(stream, seat));
        } else {
            debug!("a connection is closed unheard: there are too many");
        }
    }
    drop(listener);
    connections.close();
    // Time goes on for those that are left.
    loop {
        tokio::select! {
            () = connections.wait() => return,
            _ = tick.tick() => clock.advance(),
        }
    }
}

/// Says 503, and closes so that it is heard: bytes that nobody read would make the kernel break the connection off, and
/// the answer with it.
async fn turn_away(mut stream: TcpStream, _seat: Seat) {
    let detail = "Nothing was done: the gateway has as many connections as it takes.";
    let answer = Problem::new(Kind::Overloaded, detail).into_last_words();
    let farewell = async {
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        let mut unheard = [0; 1024];
        while stream.read(&mut unheard).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Whether it heard is its own affair.
    let _ = timeout(FAREWELL, farewell).await;
}

/// Counts what is open.
#[derive(Debug, Clone, Default)]
struct Seats(Arc<AtomicUsize>);

/// One of them, until it is dropped.
#[derive(Debug)]
struct Seat(Arc<AtomicUsize>);

impl Seats {
    /// A seat, if fewer than `most` are taken.
    fn take(&self, most: usize) -> Option<Seat> {
        if self.0.fetch_add(1, Ordering::Relaxed) < most {
            Some(Seat(Arc::clone(&self.0)))
        } else {
            self.0.fetch_sub(1, Ordering::Relaxed);
            None
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_free_again_when_it_is_left() {
        let seats = Seats::default();
        let two = (seats.take(2), seats.take(2));
        assert!(two.0.is_some() && two.1.is_some());
        assert!(seats.take(2).is_none() && seats.take(2).is_none());
        drop(two.0);
        assert!(seats.take(2).is_some());
    }

    #[test]
    fn connections_leave_room_for_other_files() {
        assert_eq!(connections_for(u64::MAX), 16_384);
        assert_eq!(connections_for(20_000), 16_384);
        assert_eq!(connections_for(4_096), 3_584);
        assert_eq!(connections_for(1_024), 768);
        assert_eq!(connections_for(0), 1);
    }
}
