//! The bodies of a request and of its answer, as the connection sees them; and what is left of a request's
//! body when its answer is ready.
//!
//! Most refusals are made before the body is read: no token, no such route, the wrong type. A caller that is
//! busy sending does not read, and a connection that is closed with bytes unread is reset by the kernel: the
//! caller would see a broken connection instead of the answer. So whatever a handler leaves of a body comes
//! back here, and is taken off the wire before the answer leaves. What is too much, or does not come, makes
//! the answer say `Connection: close`, and the connection reads on for a while after it has closed its side
//! (`stream`). This is the only place that cares about it, so it holds for every route and every refusal.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::Request;
use axum::http::header::EXPECT;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::activity::{Activity, Exchange};

/// So much of a body is thrown away before an answer.
const MAX_DISCARDED: u64 = 8 << 20;

/// The rest of a body has to come without a longer pause: a caller that waits for an answer sends no more.
const PAUSE: Duration = Duration::from_millis(500);

/// All of the rest has to be there by then.
const DISCARD_WITHIN: Duration = Duration::from_secs(5);

/// A body that a handler has, until it lets go of it.
pub(super) struct Remainder {
    returned: oneshot::Receiver<Left>,
    /// `Expect: 100-continue`: the caller does not send until the body is looked at.
    on_demand: bool,
}

/// What a handler left.
enum Left {
    Rest {
        body: Incoming,
        /// The handler has looked at it.
        touched: bool,
    },
    /// It ended with an error.
    Broken,
}

/// The request as handlers take it. An empty body costs no allocation.
pub(super) fn lend(
    request: Request<Incoming>,
    activity: &Arc<Activity>,
) -> (Request<Body>, Option<Remainder>) {
    if request.body().is_end_stream() {
        if !activity.is_multiplexed() {
            activity.complete();
        }
        return (request.map(|_| Body::empty()), None);
    }
    if activity.is_multiplexed() {
        // What is left of it is told to the caller by the protocol, and no other request waits for it.
        let lend = |body| Body::new(Lent::new(body, None, Arc::clone(activity)));
        return (request.map(lend), None);
    }
    let (back, returned) = oneshot::channel();
    let on_demand = request.headers().contains_key(EXPECT);
    let lend = |body| Body::new(Lent::new(body, Some(back), Arc::clone(activity)));
    (request.map(lend), Some(Remainder { returned, on_demand }))
}

impl Remainder {
    /// Throws away what is left. Returns whether the connection can be used again: otherwise it has to be
    /// closed, and the answer has to say so.
    pub(super) async fn discard(mut self) -> bool {
        match self.returned.try_recv() {
            // It was read to its end; or it is still being read, and the answer is a stream as well.
            Err(_) => true,
            Ok(Left::Broken) => false,
            Ok(Left::Rest { touched: false, .. }) if self.on_demand => false,
            Ok(Left::Rest { body, .. }) if body.size_hint().lower() > MAX_DISCARDED => false,
            Ok(Left::Rest { body, .. }) => {
                timeout(DISCARD_WITHIN, discard(body)).await.is_ok_and(|discarded| discarded)
            }
        }
    }
}

/// Whether the body came to its end.
async fn discard(mut body: Incoming) -> bool {
    let mut left = MAX_DISCARDED;
    while let Ok(frame) = timeout(PAUSE, body.frame()).await {
        let Some(frame) = frame else { return true };
        let length = frame.map(|frame| frame.data_ref().map_or(0, Bytes::len) as u64);
        match length.ok().and_then(|length| left.checked_sub(length)) {
            Some(rest) => left = rest,
            None => return false,
        }
    }
    false
}

/// A body that comes back to its [`Remainder`] unless it is read to its end.
struct Lent {
    /// There until it is dropped.
    body: Option<Incoming>,
    touched: bool,
    broken: bool,
    back: Option<oneshot::Sender<Left>>,
    /// With HTTP/2: its bytes that are counted.
    counted: usize,
    activity: Arc<Activity>,
}

impl Lent {
    fn new(body: Incoming, back: Option<oneshot::Sender<Left>>, activity: Arc<Activity>) -> Self {
        Self { body: Some(body), touched: false, broken: false, back, counted: 0, activity }
    }

    fn received(&mut self, bytes: usize) {
        if self.activity.is_multiplexed() {
            self.counted += self.activity.count(bytes, self.counted);
        }
    }

    fn complete(&mut self) {
        if self.activity.is_multiplexed() {
            self.activity.uncount(std::mem::take(&mut self.counted));
        } else {
            self.activity.complete();
        }
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        this.touched = true;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(context);
        this.activity.awaits_body(frame.is_pending());
        let frame = ready!(frame);
        match &frame {
            Some(Ok(frame)) => this.received(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(_)) => this.broken = true,
            None => {
                this.complete();
                this.back = None;
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.activity.awaits_body(false);
        if self.activity.is_multiplexed() {
            self.complete();
        }
        let Some((back, body)) = self.back.take().zip(self.body.take()) else { return };
        // Nothing waits for it any more where the answer is on its way already.
        if self.broken {
            let _ = back.send(Left::Broken);
        } else if !body.is_end_stream() {
            let _ = back.send(Left::Rest { body, touched: self.touched });
        }
    }
}

/// The body of an answer: its request ends with it.
pub(super) struct Answered {
    pub(super) body: Body,
    pub(super) _exchange: Exchange,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
