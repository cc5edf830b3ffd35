//! `POST /api/user/bulk`: many operations in one request, one JSON object a line, and one result for each
//! line, in the order of the lines, while the request is still coming in.
//!
//! ```text
//!   request ──▶ lines ──▶ line ──▶ coordinator        the work: one task for each request
//!                                      │
//!  response ◀──  queue  ◀── window ◀───┘
//! ```
//!
//! Nothing here grows with the request. The [`window`] bounds what is in flight, and so it bounds what is
//! read: a line is taken only when there is room for it. Results that the caller has not read yet wait in the
//! [`queue`]. A caller may send all it has before it reads anything, as most HTTP libraries do, and the
//! sockets between hold a few thousand results only. So the queues take 32 MiB of them, some 300,000. When
//! that is used up, reading stops until results are read. If none are for as long as a request may take, the
//! caller is most likely one of those that read nothing before they have sent everything: to stop for good
//! would leave both sides waiting for each other. So the lines that are left are not looked at, but thrown
//! away, and the last line of the response says after which one that began.
//!
//! Each line has a deadline of its own; the request has none. A response that ends early, for that reason or
//! because the gateway stops, the lines came too slowly or their framing broke, ends with one problem without
//! a line number, whose `last_line` is the last one that was looked at: every line up to it has its result.
//! If even that is missing, the connection broke.
//!
//! Operations on one user are applied in the order of their lines, since they are asked in that order, and a
//! partition's writes keep theirs. Between users there is no order, and the whole is no transaction.
//!
//! * [`lines`]: from chunks of bytes to lines.
//! * [`line`]: from a line to an operation, or to what is wrong with it.
//! * [`window`]: the lines in flight. [`queue`]: the results that wait to be read.
//! * [`place`]: the bounds of all such requests together. [`work`]: the task between them.

mod line;
mod lines;
mod place;
mod queue;
mod window;
mod work;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, EXPECT};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt;
use tokio::time::timeout_at;

use place::{Place, Streams};

use crate::http::api::Api;
use crate::http::input::body::{self, AcceptedMedia};
use crate::http::openapi::{Bulking, Lines};
use crate::http::problem::Problem;

/// State of the handler.
#[derive(Debug, Clone)]
pub(in crate::http) struct BulkState {
    api: Api,
    streams: Arc<Streams>,
}

impl BulkState {
    pub(in crate::http) fn new(api: Api) -> Self {
        Self { api, streams: Arc::default() }
    }
}

/// `POST /api/user/bulk`.
#[utoipa::path(
    post,
    path = "/api/user/bulk",
    operation_id = "changeUsersInBulk",
    tag = "users",
    summary = "Create, change and delete many users",
    description = "One JSON object a line: a user with `op`, which is `create`, `update` or `delete`, and \
                   where wanted `if_match`. One result a line comes back, in their order, while the request \
                   is still coming in: `{\"line\":1,\"status\":201,\"id\":…}`, or a problem with its \
                   `line`.",
    request_body(content = String, content_type = "application/x-ndjson", description = "The operations."),
    responses(Lines, Bulking)
)]
pub(in crate::http) async fn bulk(
    State(state): State<BulkState>,
    request: Request,
) -> Result<Response, Problem> {
    let BulkState { api, streams } = state;
    let deadline = api.deadline();
    let (parts, mut body) = request.into_parts();
    body::check_type(&parts.headers, AcceptedMedia::Lines)?;
    let place = Place::take(&streams)?;
    // A caller that waits for leave to send gets it by the first look at the body, before any answer. Others
    // may want to see the beginning of the answer first.
    let first = if parts.headers.contains_key(EXPECT) {
        timeout_at(deadline, body.frame()).await.ok().flatten()
    } else {
        None
    };
    let (queue, results) = queue::channel(place);
    tokio::spawn(work::run(api, first, body, queue));
    let mut response = Response::new(results);
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}
