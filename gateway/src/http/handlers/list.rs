//! The calls on all users: lists and counts.

use std::fmt::Write;

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_TYPE, LINK};
use axum::response::Response;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use protocol::message::query::Filter;
use protocol::user::fold_email;
use serde::Serialize;

use crate::http::api::Api;
use crate::http::input::query::{self, Parameters};
use crate::http::input::{cursor, rules};
use crate::http::openapi::{APage, CountQuery, ListQuery, Listing, UserCount};
use crate::http::problem::Problem;
use crate::scatter::List;

/// Users on a page, where the caller does not say how many.
const DEFAULT_LIMIT: usize = 100;

/// The most that a caller may ask for.
const MAX_LIMIT: usize = 1_000;

/// `GET /api/user`, and `HEAD`.
#[utoipa::path(
    get,
    path = "/api/user",
    operation_id = "listUsers",
    tag = "users",
    summary = "List users",
    description = "In the order of ids: users with a UUIDv7 come oldest first. A plus sign in the query \
                   stands for itself.",
    params(ListQuery),
    responses(APage, Listing)
)]
pub(in crate::http) async fn list(
    State(api): State<Api>,
    RawQuery(text): RawQuery,
) -> Result<Response, Problem> {
    let given = Parameters::parse(text.as_deref(), &["limit", "cursor", "group", "email"])?;
    let limit = given.get("limit", "must be a whole number from 1 to 1000", limit)?.unwrap_or(DEFAULT_LIMIT);
    let group = given.get("group", query::GROUP, query::group)?;
    let email = given.get("email", "must be an email address such as ada@example.org", email)?;
    let filter = match (email, group) {
        (None, None) => Filter::All,
        (None, Some(group)) => Filter::Group(group),
        (Some(email), None) => Filter::Email(email),
        (Some(email), Some(group)) => Filter::Both(email, group),
    };
    let must = "must be the next_cursor of a list with the same group and email";
    let after = given.get("cursor", must, |text| cursor::read(text, &filter))?;
    let list = api.list(after, limit, &filter).await?;
    let next = list.users.last().filter(|_| list.more).map(|user| cursor::write(user.0, &filter));
    Ok(page(&list, next.as_deref(), limit, &filter))
}

#[derive(Debug, Serialize)]
pub(in crate::http) struct Count {
    count: u64,
}

/// `GET /api/user/count`, and `HEAD`.
#[utoipa::path(
    get,
    path = "/api/user/count",
    operation_id = "countUsers",
    tag = "users",
    summary = "Count users",
    description = "Exactly those that are there now.",
    params(CountQuery),
    responses((status = 200, description = "How many.", body = UserCount), Listing)
)]
pub(in crate::http) async fn count(
    State(api): State<Api>,
    RawQuery(text): RawQuery,
) -> Result<Json<Count>, Problem> {
    let given = Parameters::parse(text.as_deref(), &["group"])?;
    let group = given.get("group", query::GROUP, query::group)?;
    Ok(Json(Count { count: api.count(group).await? }))
}

fn limit(text: &str) -> Option<usize> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|limit| digits && (1..=MAX_LIMIT).contains(limit))
}

/// A text that cannot be an address is refused rather than found nowhere: it is an error of the caller.
fn email(text: &str) -> Option<String> {
    rules::email(text.to_owned()).ok().map(|email| fold_email(&email))
}

/// The page as a response. The documents are the bytes that came from the ring, unparsed.
fn page(list: &List, next: Option<&str>, limit: usize, filter: &Filter) -> Response {
    let documents: usize = list.users.iter().map(|user| user.2.get().len() + 1).sum();
    let mut body = String::with_capacity(documents + 80);
    body.push_str("{\"items\":[");
    for (index, user) in list.users.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(user.2.get());
    }
    body.push_str("],\"next_cursor\":");
    match next {
        // Its alphabet needs no escapes.
        Some(cursor) => body.extend(["\"", cursor, "\"}"]),
        None => body.push_str("null}"),
    }
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(cursor) = next {
        headers.insert(LINK, link(cursor, limit, filter));
    }
    response
}

/// `Link` to the next page (RFC 8288), as a path of this server.
fn link(cursor: &str, limit: usize, filter: &Filter) -> HeaderValue {
    let (email, group) = match filter {
        Filter::All => (None, None),
        Filter::Group(group) => (None, Some(group)),
        Filter::Email(email) => (Some(email), None),
        Filter::Both(email, group) => (Some(email), Some(group)),
    };
    let mut link = format!("</api/user?limit={limit}&cursor={cursor}");
    let mut add = |name: &str, value: &str| {
        let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
        write!(link, "&{name}={value}").expect("a string takes everything");
    };
    if let Some(group) = group {
        add("group", &group.to_string());
    }
    if let Some(email) = email {
        add("email", email);
    }
    link.push_str(">; rel=\"next\"");
    HeaderValue::try_from(link).expect("a path of visible ASCII")
}
