//! `GET /api/user/changes`: the feed as an event stream (HTML, section 9.2).

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use protocol::Version;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::state::FeedState;
use super::subscriber::{Subscriber, explain, last_event, parse_id};
use crate::http::input::query::Parameters;
use crate::http::metrics::{DropReason, Transport};
use crate::http::openapi::{Events, LastSeen, Listening};
use crate::http::problem::Problem;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

#[utoipa::path(
    get,
    path = "/api/user/changes",
    operation_id = "listenToChanges",
    tag = "users",
    summary = "Listen to changes",
    description = "One event for each acknowledged change, in one order for all: `created` with the user, \
                   `updated` with the id and the fields set, `deleted` with the id; `unknown` with the id of \
                   a user one of whose writes was answered 504. The id of an event is the version that it \
                   gave the user.",
    params(LastSeen),
    responses(Events, Listening)
)]
/// Subscribes, and answers with a stream that does not end by itself.
pub(in crate::http) async fn stream(
    State(state): State<FeedState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let after = last_seen(&headers, query.as_deref())?;
    let subscriber = Subscriber::begin(&state, after, Transport::EventStream).await?;
    let (heartbeat, closing) = (state.api().heartbeat(), state.api().closing().clone());
    let streamed = Streamed { subscriber, heartbeat, closing, begun: false };
    let chunks = futures_util::stream::unfold(Some(streamed), async |streamed| streamed?.next().await);
    Ok(response(Body::from_stream(chunks)))
}

/// `HEAD`: the headers of such a stream, without a subscription.
pub(in crate::http) async fn head() -> Response {
    response(Body::empty())
}

fn response(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Asks a proxy on the way not to collect what should pass at once.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// The last event that the client has seen. The header comes first: an `EventSource` that reconnects by
/// itself repeats the address as it was, and its header is newer.
///
/// # Errors
/// 400.
fn last_seen(headers: &HeaderMap, query: Option<&str>) -> Result<Option<Version>, Problem> {
    let parameters = Parameters::parse(query, &["after"])?;
    let asked = parameters.get("after", "must be the id of an event", |text| parse_id(text).ok())?;
    match headers.get(LAST_EVENT_ID) {
        Some(id) => Ok(parse_id(id.to_str().unwrap_or("?"))?.or(asked.flatten())),
        None => Ok(asked.flatten()),
    }
}

/// A stream on its way.
struct Streamed {
    subscriber: Subscriber,
    heartbeat: Duration,
    closing: CancellationToken,
    begun: bool,
}

impl Streamed {
    /// The next piece, and the stream after it, where it goes on.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Option<Self>)> {
        if !self.begun {
            self.begun = true;
            // The id lets a client resume that was cut off before the first event.
            let first =
                format!("retry: 1000\nid: {}\n\n: every change from here on\n\n", self.subscriber.seen());
            return Some((Ok(Bytes::from(first)), Some(self)));
        }
        let next = tokio::select! {
            biased;
            () = self.closing.cancelled() => return None,
            next = timeout(self.heartbeat, self.subscriber.next()) => next,
        };
        match next {
            Ok(Ok(batch)) => Some((Ok(batch.frames.clone()), Some(self))),
            Ok(Err(reason)) => {
                self.subscriber.dropped(reason);
                Some((Ok(last(reason)), None))
            }
            Err(_) => Some((Ok(Bytes::from_static(b": still here\n\n")), Some(self))),
        }
    }
}

fn last(reason: DropReason) -> Bytes {
    Bytes::from(format!("event: {}\ndata: {{\"reason\":\"{}\"}}\n\n", last_event(reason), explain(reason)))
}
