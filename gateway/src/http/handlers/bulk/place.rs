//! The bounds of all bulk requests together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::http::kind::Kind;
use crate::http::problem::Problem;

/// At most this many such requests are taken on at once; each of them can have a window full of lines in
/// flight.
const MAX_STREAMS: usize = 16;

/// Lines of one request in flight. What is parsed of a line is a few KiB at most, usually a hundred bytes.
const IN_FLIGHT: usize = 2_048;

/// Lines of all requests in flight: below what the routing queues for one lead, so that bulk requests cannot
/// by themselves cause others to be turned away.
const IN_FLIGHT_TOGETHER: usize = 8_192;

/// What all bulk requests of a gateway share.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: AtomicUsize,
    /// Bytes in all queues of results.
    queued: AtomicUsize,
}

/// One request among those taken on. The place is free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Streams>);

impl Place {
    /// # Errors
    /// 503 where too many are open.
    pub(super) fn take(streams: &Arc<Streams>) -> Result<Self, Problem> {
        let place = Self(Arc::clone(streams));
        if streams.open.fetch_add(1, Ordering::Relaxed) >= MAX_STREAMS {
            let detail = "Nothing was done: 16 bulk requests are at work already.";
            return Err(Problem::new(Kind::Overloaded, detail));
        }
        Ok(place)
    }

    /// Bytes in all queues of results.
    pub(super) fn queued(&self) -> &AtomicUsize {
        &self.0.queued
    }

    /// How many lines this one may have in flight.
    pub(super) fn window(&self) -> usize {
        (IN_FLIGHT_TOGETHER / self.0.open.load(Ordering::Relaxed).max(1)).min(IN_FLIGHT)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
