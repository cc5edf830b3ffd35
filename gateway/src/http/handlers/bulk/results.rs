//! The results that the caller has not read yet, bounded in bytes for all requests together.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use futures_util::stream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::fairness::Share;
use crate::http::kind::Kind;
use crate::http::problem::Problem;

/// At most this many requests are at work at once.
pub(super) const MAX_REQUESTS: usize = 16;

/// Lines of one request in flight. What is parsed of a line is a few KiB at most, usually a hundred bytes.
const IN_FLIGHT: usize = 2_048;

/// Lines of all requests in flight: below what the engine queues for one leader, so that bulk requests cannot
/// by themselves cause others to be turned away.
const IN_FLIGHT_TOGETHER: usize = 8_192;

/// Bytes of unread results of all requests: some 300,000 results.
const MAX_UNREAD: usize = 32 << 20;

/// What every request may have unread, whatever the others have.
const MIN_UNREAD: usize = 128 << 10;

/// What bulk requests share.
#[derive(Debug)]
pub(super) struct Limits {
    requests: Arc<Semaphore>,
    /// Has a permit for each byte of [`MAX_UNREAD`].
    unread: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Self {
        let permits = |count| Arc::new(Semaphore::new(count));
        Self { requests: permits(MAX_REQUESTS), unread: permits(MAX_UNREAD) }
    }
}

impl Limits {
    /// A place for the results of one more request, and the body that has them. The share of its client is
    /// given back with it.
    ///
    /// # Errors
    /// 503 where too many requests are at work.
    pub(super) fn begin(&self, share: Option<Share>) -> Result<(Results, Body), Problem> {
        let Ok(request) = Arc::clone(&self.requests).try_acquire_owned() else {
            let detail = "Nothing was done: 16 bulk requests are at work already.";
            return Err(Problem::new(Kind::Overloaded, detail));
        };
        let request = Arc::new(Place { permit: request, _share: share });
        let (sender, receiver) = unbounded_channel();
        let unread = [Arc::new(Semaphore::new(MIN_UNREAD)), Arc::clone(&self.unread)];
        let results = Results { sender, unread, request: Arc::clone(&request) };
        let texts = stream::unfold((receiver, request), async |(mut receiver, request)| {
            let (text, _room): Text = receiver.recv().await?;
            Some((Ok::<_, Infallible>(Bytes::from(text)), (receiver, request)))
        });
        Ok((results, Body::from_stream(texts)))
    }
}

/// The text of some results. What it takes of the bounds is free again when it is read, or the response is
/// dropped.
type Text = (Vec<u8>, Option<OwnedSemaphorePermit>);

/// The end at which results come in. The body ends when this is dropped.
#[derive(Debug)]
pub(super) struct Results {
    sender: UnboundedSender<Text>,
    /// Of this request, and of all.
    unread: [Arc<Semaphore>; 2],
    /// Free again when all is done and read.
    request: Arc<Place>,
}

/// The place of a request, among all and among those of its client.
#[derive(Debug)]
struct Place {
    permit: OwnedSemaphorePermit,
    _share: Option<Share>,
}

impl Results {
    /// How many lines may be in flight.
    pub(super) fn window(&self) -> usize {
        let open = MAX_REQUESTS.saturating_sub(self.request.permit.semaphore().available_permits());
        (IN_FLIGHT_TOGETHER / open.max(1)).min(IN_FLIGHT)
    }

    /// Waits for room for so many bytes.
    pub(super) async fn room(&self, bytes: usize) -> OwnedSemaphorePermit {
        let [own, shared] = &self.unread;
        let of = |room: &Arc<Semaphore>| Arc::clone(room).acquire_many_owned(bytes as u32);
        let room = tokio::select! {
            biased;
            room = of(own) => room,
            room = of(shared) => room,
        };
        room.expect("these semaphores are never closed")
    }

    /// Adds lines of text, with the room that they take. Those of lines in flight need none: there are not
    /// many.
    pub(super) fn add(&self, text: Vec<u8>, room: Option<OwnedSemaphorePermit>) {
        if !text.is_empty() {
            // It fails where the response was dropped. That ends the work as well.
            let _ = self.sender.send((text, room));
        }
    }

    /// Waits until the response is dropped.
    pub(super) fn abandoned(&self) -> impl Future<Output = ()> + use<> {
        let sender = self.sender.clone();
        async move { sender.closed().await }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::BodyExt;
    use tokio::task::unconstrained;

    use super::*;

    async fn read(body: &mut Body) -> Option<usize> {
        let data = body.frame().await?.expect("it cannot fail").into_data().expect("no trailers");
        Some(data.len())
    }

    #[tokio::test]
    async fn results_are_handed_on_until_their_end_is_dropped() {
        let (results, mut body) = Limits::default().begin(None).expect("a place");
        results.add(vec![b'x'; 10_000], Some(results.room(10_000).await));
        results.add(b"last".to_vec(), None);
        drop(results);
        assert_eq!((read(&mut body).await, read(&mut body).await), (Some(10_000), Some(4)));
        assert_eq!(read(&mut body).await, None);
    }

    #[tokio::test]
    async fn the_bounds_are_for_all_and_a_little_for_each() {
        const PART: usize = MIN_UNREAD / 4;
        let limits = Limits::default();
        let fill = |results: &Results| {
            let mut parts = 0;
            // Without tokio's budget, which would end a long row of successes.
            while let Some(room) = unconstrained(results.room(PART)).now_or_never() {
                results.add(vec![b'x'; PART], Some(room));
                parts += 1;
            }
            parts
        };
        let (large, mut body) = limits.begin(None).expect("a place");
        assert_eq!(fill(&large) * PART, MAX_UNREAD + MIN_UNREAD);
        let (small, abandoned) = limits.begin(None).expect("a place");
        assert_eq!(fill(&small) * PART, MIN_UNREAD);
        for _ in 0..5 {
            assert_eq!(read(&mut body).await, Some(PART));
        }
        assert_eq!(fill(&small), 1, "what was read of the common part");
        assert_eq!(fill(&large), 4, "what was read of its own part");
        drop(abandoned);
        small.abandoned().await;
        drop((large, body, small));
        let free = (limits.requests.available_permits(), limits.unread.available_permits());
        assert_eq!(free, (MAX_REQUESTS, MAX_UNREAD), "nothing is left behind");
    }

    #[test]
    fn each_request_has_its_share_of_the_lines_in_flight() {
        let limits = Limits::default();
        let all: Vec<_> = (0..MAX_REQUESTS).map(|_| limits.begin(None).expect("a place")).collect();
        assert!(limits.begin(None).is_err());
        assert!(all.iter().all(|(results, _)| results.window() * MAX_REQUESTS == IN_FLIGHT_TOGETHER));
        let first = all.into_iter().next().expect("one");
        assert_eq!(first.0.window(), IN_FLIGHT);
    }
}
