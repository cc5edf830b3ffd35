//! The results that the caller has not read yet: a queue from the work to the body of the response, bounded
//! in bytes.
//!
//! All queues of the gateway share one budget, and each may hold a little whatever the others hold. What a
//! queue holds is free again as soon as it is read, or the response is dropped: so a caller that reads
//! nothing holds it until the server closes its connection.

use std::convert::Infallible;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use axum::body::{Body, Bytes};
use futures_util::stream;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::place::Place;
use super::window::Verdict;

/// What all queues together may hold, in bytes: some 300,000 results.
const MAX_QUEUED: usize = 32 << 20;

/// What every request may have in its queue, whatever the others hold.
const MIN_QUEUED: usize = 128 << 10;

/// A portion is complete when it has that much text.
const PORTION: usize = 32 << 10;

/// What a portion takes beside its text.
const OVERHEAD: usize = 64;

/// The end at which results come in, and the body that has them.
pub(super) fn channel(place: Place) -> (Queue, Body) {
    let (sender, receiver) = unbounded_channel();
    let shared = Arc::new(Shared {
        place,
        queued: AtomicUsize::new(0),
        taken: AtomicU64::new(0),
        read: Notify::new(),
    });
    let portions = stream::unfold(receiver, async |mut receiver| {
        let text = next(&mut receiver).await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), receiver))
    });
    (Queue { sender, shared }, Body::from_stream(portions))
}

/// What comes next of the text.
async fn next(receiver: &mut UnboundedReceiver<Portion>) -> Option<Vec<u8>> {
    let mut text = receiver.recv().await?.into_text();
    while text.len() < PORTION
        && let Ok(portion) = receiver.try_recv()
    {
        text.extend_from_slice(&portion.text);
    }
    Some(text)
}

/// Of one request. The place of the request is free again when its work has ended and its results are read.
#[derive(Debug)]
struct Shared {
    place: Place,
    /// Bytes in this queue.
    queued: AtomicUsize,
    /// Portions that were taken out so far.
    taken: AtomicU64,
    /// Something was taken out.
    read: Notify,
}

/// The text of some results.
#[derive(Debug)]
struct Portion {
    text: Vec<u8>,
    /// What it counts for in the queue.
    size: usize,
    shared: Arc<Shared>,
}

impl Portion {
    fn new(mut text: Vec<u8>, shared: &Arc<Shared>) -> Self {
        text.shrink_to_fit();
        let size = text.len() + OVERHEAD;
        shared.queued.fetch_add(size, Relaxed);
        shared.place.queued().fetch_add(size, Relaxed);
        Self { text, size, shared: Arc::clone(shared) }
    }

    fn into_text(mut self) -> Vec<u8> {
        mem::take(&mut self.text)
    }
}

impl Drop for Portion {
    fn drop(&mut self) {
        self.shared.queued.fetch_sub(self.size, Relaxed);
        self.shared.place.queued().fetch_sub(self.size, Relaxed);
        self.shared.taken.fetch_add(1, Relaxed);
        self.shared.read.notify_one();
    }
}

/// The end at which results come in, in the order of their lines. The body ends when this is dropped.
#[derive(Debug)]
pub(super) struct Queue {
    sender: UnboundedSender<Portion>,
    shared: Arc<Shared>,
}

impl Queue {
    /// How many lines may be in flight.
    pub(super) fn window(&self) -> usize {
        self.shared.place.window()
    }

    /// Whether there is room for the results of more lines. Those in flight have room in any case.
    pub(super) fn has_room(&self) -> bool {
        self.shared.place.queued().load(Relaxed) < MAX_QUEUED || self.shared.queued.load(Relaxed) < MIN_QUEUED
    }

    /// How often something was read so far.
    pub(super) fn taken(&self) -> u64 {
        self.shared.taken.load(Relaxed)
    }

    /// Waits until something is read.
    pub(super) async fn read(&self) {
        self.shared.read.notified().await;
    }

    /// Waits until the response is dropped.
    pub(super) fn abandoned(&self) -> impl Future<Output = ()> + use<> {
        let sender = self.sender.clone();
        async move { sender.closed().await }
    }

    /// Adds results with the numbers of their lines.
    pub(super) fn add(&self, results: impl Iterator<Item = (u64, Verdict)>) {
        let mut text = Vec::new();
        for (line, verdict) in results {
            verdict.write(line, &mut text);
            if text.len() >= PORTION {
                self.add_text(mem::take(&mut text));
            }
        }
        if !text.is_empty() {
            self.add_text(text);
        }
    }

    /// Adds lines of text.
    pub(super) fn add_text(&self, text: Vec<u8>) {
        // It fails where the response was dropped. That ends the work as well.
        let _ = self.sender.send(Portion::new(text, &self.shared));
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::http::handlers::bulk::place::Streams;

    fn problem(length: usize) -> Verdict {
        Verdict::Problem(vec![b'x'; length])
    }

    async fn read(body: &mut Body) -> Option<usize> {
        let data = body.frame().await?.expect("it cannot fail").into_data().expect("no trailers");
        Some(data.len())
    }

    #[tokio::test]
    async fn results_are_handed_on_in_portions_until_the_queue_is_dropped() {
        let streams = Arc::default();
        let (queue, mut body) = channel(Place::take(&streams).expect("a place"));
        for line in 1..=3 {
            queue.add(std::iter::once((line, problem(10_000))));
        }
        assert_eq!(read(&mut body).await, Some(30_000), "what is there is one portion");
        queue.add((4..=11).map(|line| (line, problem(10_000))));
        assert_eq!((read(&mut body).await, read(&mut body).await), (Some(40_000), Some(40_000)));
        queue.add_text(b"last".to_vec());
        drop(queue);
        assert_eq!((read(&mut body).await, read(&mut body).await), (Some(4), None));
    }

    #[tokio::test]
    async fn the_budget_is_for_all_and_a_little_for_each() {
        let streams: Arc<Streams> = Arc::default();
        let (large, mut body) = channel(Place::take(&streams).expect("a place"));
        while large.has_room() {
            large.add_text(vec![b'x'; PORTION]);
        }
        let (small, abandoned) = channel(Place::take(&streams).expect("a place"));
        assert!(small.has_room());
        small.add_text(vec![b'x'; MIN_QUEUED]);
        assert!(!small.has_room() && !large.has_room());
        let before = large.taken();
        for _ in 0..5 {
            assert_eq!(read(&mut body).await, Some(PORTION));
        }
        large.read().await;
        assert!(large.taken() == before + 5 && large.has_room() && small.has_room());
        drop(abandoned);
        small.abandoned().await;
        drop((large, body, small));
        let (place, _) = channel(Place::take(&streams).expect("a place"));
        assert_eq!(place.shared.place.queued().load(Relaxed), 0, "nothing is left behind");
    }
}
