//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::Request;
use axum::response::Response;
use axum::routing::future::RouteFuture;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tower::Service;
use tracing::{debug, warn};

use super::progress::{Clock, Progress};
use super::stream::Stream;
use super::{Limits, Seat};

/// The largest head of a request.
const MAX_HEAD: usize = 16 << 10;

/// What one connection buffers.
const MAX_BUFFER: usize = 32 << 10;

/// What a connection needs.
pub(super) struct Served {
    pub(super) router: Router,
    pub(super) limits: Limits,
    pub(super) clock: Arc<Clock>,
    pub(super) seat: Seat,
}

/// Serves requests until the caller closes, the limits are reached, or `shutdown`, which ends it after the answer.
pub(super) async fn run(tcp: TcpStream, served: Served, shutdown: CancellationToken) {
    let Served { router, limits, clock, seat } = served;
    if let Err(error) = tcp.set_nodelay(true) {
        warn!(%error, "TCP_NODELAY could not be set on a connection");
    }
    let progress = Arc::new(Progress::new(clock));
    let stream = Stream::new(tcp, Arc::clone(&progress), seat);
    let requests = Requests { router, progress: Arc::clone(&progress) };
    let mut connection = pin!(
        Builder::new()
            // Who has sent all may close that side, and read on: many lines may not have their results yet.
            .half_close(true)
            .max_buf_size(MAX_BUFFER)
            .max_header_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), requests)
            .with_upgrades()
    );
    let mut look = pin!(sleep(limits.head.min(limits.idle)));
    let mut closing = false;
    loop {
        tokio::select! {
            biased;
            result = connection.as_mut() => {
                if let Err(error) = result {
                    debug!(%error, "a connection ended");
                }
                return;
            }
            () = look.as_mut() => match progress.judge(&limits) {
                Ok(next) => look.as_mut().reset(Instant::now() + next),
                // It is told so at its next turn, which is now. Should it not end by that, it is dropped.
                Err(end) => {
                    debug!(?end, "a connection is given up");
                    tokio::select! {
                        biased;
                        _ = connection.as_mut() => {}
                        () = std::future::ready(()) => {}
                    }
                    return;
                }
            },
            () = shutdown.cancelled(), if !closing => {
                closing = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Hands the requests of one connection to the router.
struct Requests {
    router: Router,
    progress: Arc<Progress>,
}

impl hyper::service::Service<Request<Incoming>> for Requests {
    type Response = Response;
    type Error = Infallible;
    type Future = Handling;

    fn call(&self, request: Request<Incoming>) -> Handling {
        let body_follows = !request.body().is_end_stream();
        self.progress.handling(body_follows);
        let request = request.map(|incoming| {
            if body_follows {
                Body::new(Receiving { incoming, progress: Arc::clone(&self.progress) })
            } else {
                Body::empty() // costs no allocation
            }
        });
        Handling { answer: self.router.clone().call(request), progress: Arc::clone(&self.progress) }
    }
}

/// A request with its handler.
struct Handling {
    answer: RouteFuture<Infallible>,
    progress: Arc<Progress>,
}

impl Future for Handling {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.answer).poll(context);
        if answer.is_ready() {
            self.progress.answered();
        }
        answer
    }
}

/// The body of a request: while there is one, what comes in is no head.
struct Receiving {
    incoming: Incoming,
    progress: Arc<Progress>,
}

impl HttpBody for Receiving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.incoming).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.progress.received();
    }
}
