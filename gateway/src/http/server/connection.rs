//! One connection, from its first byte to its last.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::io::InspectWriter;
use tokio_util::sync::CancellationToken;
use tower::Service;
use tracing::{debug, warn};

use super::limits::Limits;

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
    let activity = Arc::new(Activity::default());
    let (written, handled) = (Arc::clone(&activity), Arc::clone(&activity));
    let stream = InspectWriter::new(tcp, move |_| {
        // Held here, since a stream may outlive its HTTP as a WebSocket.
        let _permit = &permit;
        written.worked.store(true, Relaxed);
    });
    let service = service_fn(move |request: Request<Incoming>| {
        // An empty body costs no allocation.
        let request = request.map(|body| if body.is_end_stream() { Body::empty() } else { Body::new(body) });
        let (response, handling) = (router.clone().call(request), Handling::begin(&handled));
        async move {
            let response = response.await;
            drop(handling);
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
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// What distinguishes an idle connection from one at work. Bytes that are read without a handler do not
/// count: they belong to a head, which is given up when it takes longer than a connection may be idle.
/// hyper's own timer for heads would be set anew with every request.
#[derive(Debug, Default)]
struct Activity {
    /// Whether a byte was written, or a handler began or ended, since the last look.
    worked: AtomicBool,
    /// Handlers at work.
    handlers: AtomicUsize,
}

impl Activity {
    /// Whether nothing has happened since the last look.
    fn is_idle(&self) -> bool {
        !self.worked.swap(false, Relaxed) && self.handlers.load(Relaxed) == 0
    }
}

/// A handler at work, until it is dropped. Handlers end by themselves: most have a deadline, a scan of all
/// records may take minutes.
struct Handling(Arc<Activity>);

impl Handling {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.handlers.fetch_add(1, Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.0.worked.store(true, Relaxed);
        self.0.handlers.fetch_sub(1, Relaxed);
    }
}
