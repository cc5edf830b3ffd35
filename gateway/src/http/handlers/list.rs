//! The calls on all users: lists and counts.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::header::LINK;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::IntoResponse;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use protocol::message::query::Filter;
use protocol::user::fold_email;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::http::api::Api;
use crate::http::input::query::{self, Parameters};
use crate::http::input::{cursor, head, rules};
use crate::http::openapi::schemas::User;
use crate::http::openapi::{self, CountQuery, ListQuery};
use crate::http::problem::Answer;

/// Users on a page, where the caller does not say how many.
const DEFAULT_LIMIT: usize = 100;

/// The most that a caller may ask for.
const MAX_LIMIT: usize = 1_000;

/// Users in the order of their ids.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"items": [openapi::example_user()], "next_cursor": null}))]
pub(crate) struct UserPage<'a> {
    // The bytes that came from the ring, unparsed.
    #[schema(value_type = Vec<User>, max_items = 1_000)]
    items: Vec<&'a RawValue>,
    /// For the next page; null where there is none.
    #[schema(required)]
    next_cursor: Option<&'a str>,
}

/// List users
///
/// In the order of ids: users with a UUIDv7 come oldest first. A plus sign in the query stands for itself.
#[utoipa::path(get, path = "/api/user", params(ListQuery), responses((
    status = 200,
    description = "A page of users.",
    body = UserPage,
    headers(("Link" = String, description = "The next page, `rel=\"next\"`; absent on the last one.")),
    links(
        ("next" = (operation_id = "listUsers", parameters(("cursor" = "$response.body#/next_cursor")))),
        ("read" = (operation_id = "getUser", parameters(("id" = "$response.body#/items/0/id")))),
    ),
)))]
pub(crate) async fn list_users(
    State(api): State<Api>,
    RawQuery(text): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let given = Parameters::parse(text.as_deref(), &["limit", "cursor", "group", "email"])?;
    let limit = given.get("limit", "must be a whole number from 1 to 1000", limit)?.unwrap_or(DEFAULT_LIMIT);
    let group = given.get("group", query::GROUP, query::group)?;
    let email = given.text("email", "must be an email address such as ada@example.org", email)?;
    let filter = match (email, group) {
        (None, None) => Filter::All,
        (None, Some(group)) => Filter::Group(group),
        (Some(email), None) => Filter::Email(email),
        (Some(email), Some(group)) => Filter::Both(email, group),
    };
    let must = "must be the next_cursor of a list with the same group and email";
    let after = given.text("cursor", must, |text| cursor::read(text, &filter))?;
    let list = api.list(after, limit, &filter).await?;
    let next = list.users.last().filter(|_| list.more).map(|user| cursor::write(user.0, &filter));
    let link = next.as_deref().map(|cursor| [(LINK, link(head::prefix(&headers), cursor, limit, &filter))]);
    let items = list.users.iter().map(|user| &*user.2).collect();
    Ok((link, Json(UserPage { items, next_cursor: next.as_deref() })).into_response())
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserCount, example = json!({"count": 5}))]
pub(crate) struct Count {
    #[schema(minimum = 0)]
    count: u64,
}

/// Count users
///
/// Exactly those that are there now.
#[utoipa::path(get, path = "/api/user/count", params(CountQuery), responses(
    (status = 200, description = "How many.", body = Count),
))]
pub(crate) async fn count_users(State(api): State<Api>, RawQuery(text): RawQuery) -> Answer<Json<Count>> {
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

/// `Link` to the next page (RFC 8288), as a path of this server.
fn link(prefix: &str, cursor: &str, limit: usize, filter: &Filter) -> HeaderValue {
    let (email, group) = cursor::email_and_group(filter);
    let group = group.map(|group| format!("&group={group}")).unwrap_or_default();
    let email = email.map(|email| format!("&email={}", utf8_percent_encode(email, NON_ALPHANUMERIC)));
    let email = email.unwrap_or_default();
    let link = format!("<{prefix}/api/user?limit={limit}&cursor={cursor}{group}{email}>; rel=\"next\"");
    HeaderValue::try_from(link).expect("a path of visible ASCII")
}
