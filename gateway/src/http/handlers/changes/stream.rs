//! `GET /api/user/changes`: the feed as an event stream (HTML, section 9.2).

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{Extension, RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use protocol::Version;
use tokio::time::timeout;

use super::subscriber::{FeedState, Subscriber, parse_id};
use crate::http::fairness::Client;
use crate::http::input::query::Parameters;
use crate::http::metrics::{DropReason, Transport};
use crate::http::openapi::LastSeen;
use crate::http::problem::{Answer, Problem};
use crate::http::settings::HttpSettings;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Asks a proxy on the way not to collect what should pass at once.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Listen to changes
///
/// One event for each acknowledged change, in one order for all: `created` with the user, `updated` with the
/// id and the fields set, `deleted` with the id; `unknown` with the id of a user one of whose writes was
/// answered 504. The id of an event is the version that it gave the user.
#[utoipa::path(get, path = "/api/user/changes", params(LastSeen), responses((
    status = 200,
    description = "Events, as they happen. It does not end by itself.",
    body = String,
    content_type = "text/event-stream",
    example = "event: deleted\nid: 0190a5b27c3d0000\n\
               data: {\"id\":\"0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071\"}\n\n",
)))]
pub(crate) async fn listen_to_changes(
    State(state): State<FeedState>,
    Extension(client): Extension<Client>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let after = last_seen(&headers, query.as_deref())?;
    let subscriber = Subscriber::begin(&state, &client, after, Transport::EventStream).await?;
    // The id lets a client resume that was cut off before the first event.
    let first = format!("retry: 1000\nid: {}\n\n: every change from here on\n\n", subscriber.seen());
    let open = Open { subscriber, settings: state.api.settings().clone(), first: Some(first.into()) };
    let chunks = unfold(Some(open), async |open| {
        let (chunk, open) = open?.next().await?;
        Some((Ok::<_, Infallible>(chunk), open))
    });
    Ok(response(Body::from_stream(chunks)))
}

/// `HEAD`: the headers of such a stream, without a subscription.
pub(crate) async fn head(RawQuery(query): RawQuery, headers: HeaderMap) -> Answer {
    last_seen(&headers, query.as_deref())?;
    Ok(response(Body::empty()))
}

fn response(body: Body) -> Response {
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store"), (ACCEL_BUFFERING, "no")];
    (headers, body).into_response()
}

/// The last event that the client has seen. The header comes first: an `EventSource` that reconnects by
/// itself repeats the address as it was, and its header is newer.
///
/// # Errors
/// 400.
fn last_seen(headers: &HeaderMap, query: Option<&str>) -> Result<Option<Version>, Problem> {
    let parameters = Parameters::parse(query, &["after"])?;
    let asked = parameters.text("after", "must be the id of an event", |text| parse_id(text).ok())?;
    let header = headers.get(LAST_EVENT_ID).map(|id| parse_id(id.to_str().unwrap_or("?"))).transpose()?;
    Ok(header.flatten().or(asked.flatten()))
}

/// A stream on its way.
struct Open {
    subscriber: Subscriber,
    settings: HttpSettings,
    first: Option<Bytes>,
}

impl Open {
    /// The next piece, and the stream after it, where it goes on.
    async fn next(mut self) -> Option<(Bytes, Option<Self>)> {
        if let Some(first) = self.first.take() {
            return Some((first, Some(self)));
        }
        let next = timeout(self.settings.heartbeat, self.subscriber.next());
        match self.settings.closing.run_until_cancelled(next).await? {
            Ok(Ok(batch)) => Some((batch.frames.clone(), Some(self))),
            Ok(Err(reason)) => {
                self.subscriber.dropped(reason);
                Some((last(reason), None))
            }
            Err(_) => Some((Bytes::from_static(b": still here\n\n"), Some(self))),
        }
    }
}

fn last(reason: DropReason) -> Bytes {
    Bytes::from(format!("event: {}\ndata: {{\"reason\":\"{}\"}}\n\n", reason.event, reason.text))
}
