//! The bodies of a request that is forwarded and of its answer: both are streams, and neither is kept.
//!
//! The body of a request stays with the gateway, in a [`Source`]. Each try to send it gets an [`Attempt`],
//! which takes from there. So a try that ends before anything was taken leaves the body as it was, and the
//! first 64 KiB can be sent once more: until then what passes is kept.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use axum::Error;
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::body::{Frame, Incoming, SizeHint};

/// So much of a body is kept until the answer has begun: what a call on one user takes at most.
const MAX_KEPT: usize = 64 << 10;

/// The body of a request, until its answer has ended.
#[derive(Clone)]
pub(super) struct Source(Arc<Mutex<Shared>>);

struct Shared {
    body: Body,
    /// What was taken, as long as that is little.
    kept: Option<Vec<Bytes>>,
    kept_bytes: usize,
    /// Something was taken, or tried to.
    touched: bool,
    ended: bool,
    /// It ended with an error.
    broken: bool,
    /// Whether it may be taken: the caller may wait for a 100 (Continue) that the other gateway has to send.
    open: bool,
    /// The answer needs no more of it.
    held: bool,
    /// Number of the last attempt; the others get nothing.
    attempt: u32,
    waker: Option<Waker>,
}

impl Source {
    /// `on_demand`: nothing is taken before [`Self::open`].
    pub(super) fn new(body: Body, on_demand: bool) -> Self {
        Self(Arc::new(Mutex::new(Shared {
            ended: body.is_end_stream(),
            body,
            kept: Some(Vec::new()),
            kept_bytes: 0,
            touched: false,
            broken: false,
            open: !on_demand,
            held: false,
            attempt: 0,
            waker: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body from its beginning, for another try. Earlier tries get no more of it.
    pub(super) fn attempt(&self) -> Attempt {
        let mut shared = self.lock();
        shared.next_attempt();
        Attempt { source: self.clone(), number: shared.attempt, position: 0 }
    }

    /// Lets the body be taken.
    pub(super) fn open(&self) {
        let mut shared = self.lock();
        shared.open = true;
        shared.wake();
    }

    /// Whether the caller still waits for permission to send.
    pub(super) fn is_on_demand(&self) -> bool {
        !self.lock().open
    }

    /// Whether it can be had from its beginning.
    pub(super) fn is_whole(&self) -> bool {
        let shared = self.lock();
        !shared.broken && (!shared.touched || shared.kept.is_some())
    }

    pub(super) fn is_broken(&self) -> bool {
        self.lock().broken
    }

    /// The body for a handler of this gateway.
    pub(super) fn take(self) -> Body {
        let mut shared = self.lock();
        if shared.touched {
            drop(shared);
            return Body::new(self.attempt());
        }
        shared.next_attempt();
        shared.ended = true;
        std::mem::take(&mut shared.body)
    }

    /// The answer has begun: nothing is tried again. Where it is a refusal, or nobody has looked at the body,
    /// the answer is the same whatever is left: that goes back to the server at once, which takes care of a
    /// caller that is still sending. The connection to the other gateway is kept until the answer has come.
    pub(super) fn answered(&self, refused: bool) {
        let mut shared = self.lock();
        if shared.attempt == 1 {
            // A later attempt may not have sent all of it yet.
            shared.kept = None;
        }
        if !shared.ended && (refused || shared.open && !shared.touched) {
            shared.held = true;
            drop(std::mem::take(&mut shared.body));
        } else {
            // Whoever answers before the body is there may still want it.
            shared.open = true;
            shared.wake();
        }
    }

    /// The answer has ended: nothing more is sent.
    fn end(&self) {
        let mut shared = self.lock();
        if !shared.ended {
            shared.next_attempt();
            drop(std::mem::take(&mut shared.body));
        }
    }
}

impl Shared {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn next_attempt(&mut self) {
        self.attempt += 1;
        self.wake();
    }

    fn keep(&mut self, data: &Bytes) {
        self.kept_bytes += data.len();
        if self.kept_bytes > MAX_KEPT {
            self.kept = None;
        } else if let Some(kept) = &mut self.kept {
            kept.push(data.clone());
        }
    }
}

/// The body as one try sends it.
pub(super) struct Attempt {
    source: Source,
    number: u32,
    /// How many of the kept pieces it has sent.
    position: usize,
}

impl HttpBody for Attempt {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let mut shared = this.source.lock();
        if shared.attempt != this.number {
            // Ends the connection, which is of no more use.
            return Poll::Ready(Some(Err(Error::new("the body is not sent any more"))));
        }
        shared.waker = Some(context.waker().clone());
        if shared.held || !shared.open {
            return Poll::Pending;
        }
        if let Some(data) = shared.kept.as_ref().and_then(|kept| kept.get(this.position)) {
            this.position += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if shared.ended {
            return Poll::Ready(None);
        }
        shared.touched = true;
        let frame = ready!(Pin::new(&mut shared.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    shared.keep(data);
                    this.position += 1;
                }
            }
            Some(Err(_)) => shared.broken = true,
            None => shared.ended = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.source.lock();
        let sent = shared.kept.as_ref().is_none_or(|kept| kept.len() <= self.position);
        sent && (shared.ended || shared.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.source.lock();
        if shared.touched || shared.held { SizeHint::default() } else { shared.body.size_hint() }
    }
}

/// What ends an answer before its end.
pub(super) struct Until {
    pub(super) ends: BoxFuture<'static, ()>,
    /// Such an answer has no end of its own: so this is one.
    pub(super) well: bool,
}

/// The body of an answer as it comes from the other gateway.
pub(super) struct Passed {
    pub(super) body: Incoming,
    pub(super) source: Source,
    pub(super) until: Until,
    /// To a `HEAD`, whose answer says nothing of a length if it has none.
    pub(super) of_head: bool,
}

impl HttpBody for Passed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let end = match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(Some(frame)) => return Poll::Ready(Some(frame.map_err(Error::new))),
            Poll::Ready(None) => None,
            Poll::Pending => {
                ready!(this.until.ends.as_mut().poll(context));
                let gone = "the gateway that answers is not active any more";
                (!this.until.well).then(|| Err(Error::new(gone)))
            }
        };
        this.source.end();
        Poll::Ready(end)
    }

    fn is_end_stream(&self) -> bool {
        !self.of_head && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.of_head { SizeHint::default() } else { self.body.size_hint() }
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        self.source.end();
    }
}
