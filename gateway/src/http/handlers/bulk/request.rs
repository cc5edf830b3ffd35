//! The handler.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::http::header::{CONTENT_TYPE, EXPECT};
use axum::response::IntoResponse;
use http_body_util::BodyExt;
use prometheus::IntCounter;
use tokio::time::timeout_at;

use super::results::{Limits, MAX_REQUESTS};
use super::work;
use crate::audit::Subject;
use crate::http::api::Api;
use crate::http::audited::Audited;
use crate::http::fairness::{Client, Shares};
use crate::http::input::body::LINES;
use crate::http::input::query::NoParameters;
use crate::http::problem::Answer;

/// State of the handler.
#[derive(Debug, Clone)]
pub(crate) struct BulkState {
    api: Api,
    limits: Arc<Limits>,
    /// Half of all for each client.
    shares: Shares,
}

impl BulkState {
    pub(crate) fn new(api: Api, refused: IntCounter) -> Self {
        let detail = "Nothing was done: 8 bulk requests of this token or address are at work already.";
        Self { api, limits: Arc::default(), shares: Shares::new(MAX_REQUESTS / 2, detail, refused) }
    }
}

/// Create, change and delete many users
///
/// One JSON object a line: a user with `op`, which is `create`, `update` or `delete`, and where wanted
/// `if_match`. One result a line comes back, in their order, while the request is still coming in:
/// `{"line":1,"status":201,"id":…}`, or a problem with its `line`.
#[utoipa::path(
    post,
    path = "/api/user/bulk",
    request_body(
        content = String,
        content_type = "application/x-ndjson",
        description = "The operations.",
        example = "{\"op\":\"create\",\"name\":\"Ana\",\"email\":\"ana@example.org\"}\n",
    ),
    responses((
        status = 200,
        description = "A result for each line.",
        body = String,
        content_type = "application/x-ndjson",
        example = "{\"line\":1,\"status\":201,\"id\":\"0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071\"}\n",
    ))
)]
pub(crate) async fn change_users_in_bulk(
    State(BulkState { api, limits, shares }): State<BulkState>,
    Extension(client): Extension<Client>,
    audited: Audited,
    _: NoParameters,
    request: Request,
) -> Answer {
    let deadline = api.deadline();
    let (parts, mut body) = request.into_parts();
    LINES.check(&parts.headers)?;
    let share = shares.take(&client)?;
    audited.ask(Subject::Ring).await?;
    let (results, response) = limits.begin(Some(share))?;
    // A caller that waits for leave to send gets it by the first look at the body, before any answer. Others
    // may want to see the beginning of the answer first.
    let first = if parts.headers.contains_key(EXPECT) {
        timeout_at(deadline, body.frame()).await.ok().flatten()
    } else {
        None
    };
    tokio::spawn(work::run(api, first, body, results, audited));
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], response).into_response())
}
