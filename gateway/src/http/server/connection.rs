//! One connection, from its first byte to its last.

use std::pin::pin;

use axum::Router;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tower::Service;
use tracing::{debug, warn};

use super::limits::Limits;
use super::remainder;
use super::stream::{Activity, Handling, Stream};

/// The largest head of a request.
const MAX_HEAD: usize = 16 << 10;

/// What one connection buffers.
const MAX_BUFFER: usize = 32 << 10;

/// Serves requests until the caller closes, the limits are reached, or `shutdown`, which ends it after the
/// answer.
pub(super) async fn run(
    tcp: TcpStream,
    router: Router,
    limits: Limits,
    permit: OwnedSemaphorePermit,
    shutdown: CancellationToken,
) {
    if let Err(error) = tcp.set_nodelay(true) {
        warn!(%error, "TCP_NODELAY could not be set on a connection");
    }
    // Bytes that are read without a handler do not count as work: they belong to a head, which is given up
    // when it takes longer than a connection may be idle. hyper's own timer for heads would be set anew with
    // every request.
    let activity = Activity::new();
    let stream = Stream::new(tcp, activity.clone(), permit);
    let handled = activity.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (request, remainder) = remainder::lend(request);
        let (response, handling) = (router.clone().call(request), Handling::begin(&handled));
        async move {
            let mut response = response.await;
            if let (Ok(response), Some(remainder)) = (&mut response, remainder)
                && !remainder.discard().await
            {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                handling.0.set_lingers(true);
            }
            response
        }
    });
    let mut connection = pin!(
        Builder::new()
            // A caller that has sent all may close that side, and read on: many lines may not have their
            // results yet.
            .half_close(true)
            .max_buf_size(MAX_BUFFER)
            .max_header_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );
    let mut idle = interval_at(Instant::now() + limits.idle, limits.idle);
    // Two looks in a row, after a pause of the whole process, would take every connection for idle.
    idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
            _ = idle.tick() => {
                if activity.is_idle() {
                    debug!("a connection is closed: it is idle");
                    return;
                }
            }
            () = shutdown.cancelled(), if !closing => {
                closing = true;
                // One that is not used may be closed at once.
                activity.set_lingers(false);
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
