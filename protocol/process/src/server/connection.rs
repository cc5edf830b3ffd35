//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::{CONNECTION, ORIGIN, UPGRADE};
use axum::http::{HeaderValue, Request, Response, StatusCode};
use axum::response::IntoResponse;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tower::Service;
use tracing::{debug, warn};

use super::activity::{Activity, Exchange};
use super::body::{self, Answered};
use super::room::Room;
use super::stream::Stream;

/// The connection of a request that asks for another protocol: an extension of the request.
#[derive(Debug, Clone)]
pub struct Caller {
    activity: Arc<Activity>,
    room: Arc<Room>,
}

impl Caller {
    /// The caller has shown what it is: the connection keeps its place until it ends.
    pub fn admit(&self) {
        self.room.admit(&self.activity);
    }
}

/// Serves requests until the caller closes, the limits are reached, or `shutdown`, which ends it after the
/// answer.
pub(super) async fn run(
    tcp: TcpStream,
    router: Router,
    activity: Arc<Activity>,
    room: Arc<Room>,
    shutdown: CancellationToken,
) {
    let stream = Stream::new(tcp, Arc::clone(&activity), Arc::clone(&room));
    // What says nothing costs as little as can be.
    let begun = timeout(room.policy().idle, stream.begun());
    match shutdown.run_until_cancelled(begun).await {
        Some(Ok(())) if !activity.is_closed() => {
            Box::pin(serve(stream, router, activity, room, shutdown)).await;
        }
        _ => debug!("a connection is closed: it was not used"),
    }
}

async fn serve(
    stream: Stream,
    router: Router,
    activity: Arc<Activity>,
    room: Arc<Room>,
    shutdown: CancellationToken,
) {
    // Bytes that are read without a handler do not count as work: they belong to a head, which is given up
    // when it takes longer than a connection may be idle. hyper's own timer for heads would be set anew with
    // every request.
    let policy = room.policy();
    let (handled, entered) = (Arc::clone(&activity), Arc::clone(&room));
    let service =
        service_fn(move |request: Request<Incoming>| handle(request, router.clone(), &handled, &entered));
    let mut connection = pin!(
        Builder::new()
            // A caller that has sent all may close that side, and read on: many lines may not have their
            // results yet. Where it may not, the end of a connection is seen while a handler is at work.
            .half_close(!policy.inner)
            .max_buf_size(policy.buffer)
            .max_header_size(policy.head)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );
    let mut idle = interval_at(Instant::now() + policy.idle, policy.idle);
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

/// Lets the router answer a request.
fn handle(
    mut request: Request<Incoming>,
    mut router: Router,
    activity: &Arc<Activity>,
    room: &Arc<Room>,
) -> impl Future<Output = Result<Response<Answered>, Infallible>> + use<> {
    let exchange = Exchange::begin(activity);
    let inner = room.policy().inner;
    let refused = if inner { refusal(&request) } else { None };
    request.extensions_mut().insert(ConnectInfo(activity.address));
    if inner || request.headers().contains_key(UPGRADE) {
        request.extensions_mut().insert(Caller { activity: Arc::clone(activity), room: Arc::clone(room) });
    }
    let (request, remainder) = body::lend(request, activity);
    let response = match refused {
        None => Ok(router.call(request)),
        Some(status) => Err(status),
    };
    let (activity, room) = (Arc::clone(activity), Arc::clone(room));
    async move {
        let mut response: Response<Body> = match response {
            Ok(response) => response.await?,
            Err(status) => (status, [(CONNECTION, "close")]).into_response(),
        };
        if let Some(remainder) = remainder
            && !remainder.discard().await
        {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            activity.set_lingers(true);
        }
        exchange.answered();
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            if inner && !room.admit(&activity) {
                response = (StatusCode::SERVICE_UNAVAILABLE, [(CONNECTION, "close")]).into_response();
            } else {
                exchange.upgraded();
            }
        }
        Ok(response.map(|body| Answered { body, _exchange: exchange }))
    }
}

/// What no process of the ring sends: what a browser sends of a page, and bodies.
fn refusal(request: &Request<Incoming>) -> Option<StatusCode> {
    if request.headers().contains_key(ORIGIN) {
        Some(StatusCode::FORBIDDEN)
    } else if !request.body().is_end_stream() {
        Some(StatusCode::PAYLOAD_TOO_LARGE)
    } else {
        None
    }
}

/// Frames go out at once: otherwise every exchange of small ones could wait 40 ms for a delayed
/// acknowledgement.
pub(super) fn without_delay(tcp: &TcpStream) {
    if let Err(error) = tcp.set_nodelay(true) {
        warn!(%error, "TCP_NODELAY could not be set on a connection");
    }
}
