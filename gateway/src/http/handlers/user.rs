//! The calls on one user. A handler reads the request, asks the ring once, and words the answer.

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, ETAG, LOCATION};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use protocol::message::link::{Found, WriteAnswer};
use protocol::{Operation, Outcome, UserId};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::api::{Api, Written};
use crate::http::audited::Audited;
use crate::http::input::body::{self, Accepted};
use crate::http::input::etag::Precondition;
use crate::http::input::id::Id;
use crate::http::input::query::NoParameters;
use crate::http::input::{etag, fields, head, idempotency};
use crate::http::kind::Kind;
use crate::http::openapi::schemas::{NewUser, Patch, Put};
use crate::http::openapi::{
    Created, IdempotencyKey, PutConditions, ReadConditions, TheUser, UserPath, WriteConditions,
};
use crate::http::problem::{Answer, Problem, ensure_done};

/// Create a user
///
/// The user is on disk before this is answered. An id that was deleted may be created again.
#[utoipa::path(post, path = "/api/user", params(IdempotencyKey), request_body = NewUser, responses(Created))]
// There is no user yet, so `If-Match` and `If-None-Match` have no meaning here.
pub(crate) async fn create_user(
    State(api): State<Api>,
    _: NoParameters,
    audited: Audited,
    request: Request,
) -> Answer {
    let deadline = api.deadline();
    let (parts, body) = request.into_parts();
    let body = body::read(&parts.headers, body, &body::JSON, deadline).await?;
    let (chosen, mut change) = fields::create(&body)?;
    let id = idempotency::identify(&parts.headers, chosen, &mut change)?;
    audited.ask_user(id).await?;
    let Written { answer, version } = api.write(id, Operation::Create(change), None, deadline).await?;
    audited.version(version);
    created(&parts.headers, id, answer)
}

/// Read a user
///
/// Never an older state than one that was acknowledged.
#[utoipa::path(get, path = "/api/user/{id}", params(UserPath, ReadConditions), responses(
    TheUser,
    (status = 304, description = "The caller has this version.", headers(("ETag" = String))),
))]
pub(crate) async fn get_user(
    State(api): State<Api>,
    Id(id): Id,
    _: NoParameters,
    request: Request,
) -> Answer {
    let if_match = etag::if_match(request.headers())?;
    match api.read(id, api.deadline()).await? {
        None => Err(Problem::user_not_found()),
        Some(Found(version, _)) if if_match.is_some_and(|condition| !condition.holds(version)) => {
            Err(Problem::precondition_failed())
        }
        Some(Found(version, _)) if etag::is_known(request.headers(), version) => {
            Ok((StatusCode::NOT_MODIFIED, [(ETAG, etag::of(version))]).into_response())
        }
        Some(user) => Ok(found(StatusCode::OK, user)),
    }
}

/// Change a user, or create it with If-None-Match: *
///
/// The `id` is in the body. The fields given are set, the others stay.
#[utoipa::path(
    put,
    path = "/api/user",
    params(PutConditions),
    request_body = Put,
    responses(TheUser, Created)
)]
pub(crate) async fn update_user_named_in_body(
    State(api): State<Api>,
    _: NoParameters,
    audited: Audited,
    request: Request,
) -> Answer {
    change(&api, None, &audited, request, &body::JSON).await
}

/// Change a user, or create it with If-None-Match: *
///
/// The fields given are set, the others stay. An `id` in the body has to agree with the path.
#[utoipa::path(
    put,
    path = "/api/user/{id}",
    params(UserPath, PutConditions),
    request_body = Patch,
    responses(TheUser, Created)
)]
pub(crate) async fn update_user(
    State(api): State<Api>,
    id: Id,
    _: NoParameters,
    audited: Audited,
    request: Request,
) -> Answer {
    change(&api, Some(id), &audited, request, &body::JSON).await
}

/// Change a user
///
/// The fields given are set, the others stay. A merge patch (RFC 7396) says the same: no field can be
/// removed.
#[utoipa::path(
    patch,
    path = "/api/user/{id}",
    params(UserPath, WriteConditions),
    request_body(content((Patch = "application/json"), (Patch = "application/merge-patch+json"))),
    responses(TheUser)
)]
pub(crate) async fn patch_user(
    State(api): State<Api>,
    id: Id,
    _: NoParameters,
    audited: Audited,
    request: Request,
) -> Answer {
    change(&api, Some(id), &audited, request, &body::PATCH).await
}

/// Sets the fields given; a PUT with `If-None-Match: *` creates.
async fn change(
    api: &Api,
    in_path: Option<Id>,
    audited: &Audited,
    request: Request,
    accepted: &'static Accepted,
) -> Answer {
    let deadline = api.deadline();
    let (parts, body) = request.into_parts();
    let body = body::read(&parts.headers, body, accepted, deadline).await?;
    let precondition = etag::conditions(&parts.headers)?;
    if precondition == Precondition::Absent && parts.method == Method::PUT {
        let (id, change) = fields::create_as(&body, in_path)?;
        audited.ask_user(id).await?;
        let Written { answer, version } = api.write(id, Operation::Create(change), None, deadline).await?;
        audited.version(version);
        if answer.outcome == Outcome::Exists {
            return Err(Problem::new(Kind::PreconditionFailed, "The user exists. Nothing was changed."));
        }
        return created(&parts.headers, id, answer);
    }
    let condition = precondition.for_existing_user();
    let (id, change) = fields::update(&body, in_path)?;
    audited.ask_user(id).await?;
    let updated = api.write(id, Operation::Update(change), condition, deadline).await?;
    audited.version(updated.version);
    Ok(found(StatusCode::OK, user_after(updated.answer)?))
}

/// Delete a user
#[utoipa::path(delete, path = "/api/user/{id}", params(UserPath, WriteConditions), responses(
    (status = 204, description = "The user is deleted."),
))]
pub(crate) async fn delete_user(
    State(api): State<Api>,
    Id(id): Id,
    _: NoParameters,
    audited: Audited,
    request: Request,
) -> Answer<StatusCode> {
    let condition = etag::conditions(request.headers())?.for_existing_user();
    audited.ask_user(id).await?;
    let deleted = api.write(id, Operation::Delete, condition, api.deadline()).await?;
    audited.version(deleted.version);
    ensure_done(deleted.answer.outcome)?;
    Ok(StatusCode::NO_CONTENT)
}

/// What was erased.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": "0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071", "existed": true}))]
pub(crate) struct Erased {
    /// The id of the user.
    #[schema(value_type = String)]
    id: UserId,
    /// Whether there was such a user until now.
    existed: bool,
}

/// Delete a user, and leave nothing of it
///
/// When this is answered, no file of the ring has a name, an address or a group of the user, and no call
/// answers with one. It does not matter whether the user exists, or was deleted before. The files of both
/// copies are written anew, which takes seconds for a million users.
#[utoipa::path(post, path = "/api/user/{id}/erase", params(UserPath), responses(
    (status = 200, description = "Nothing is left of it.", body = Erased),
))]
pub(crate) async fn erase_user(
    State(api): State<Api>,
    Id(id): Id,
    headers: HeaderMap,
    audited: Audited,
    _: NoParameters,
) -> Answer<Json<Erased>> {
    body::refuse_forms(&headers)?;
    audited.ask_user(id).await?;
    let existed = api.erase(id).await?;
    Ok(Json(Erased { id, existed }))
}

/// The user that a write left behind.
fn user_after(answer: WriteAnswer) -> Result<Found, Problem> {
    ensure_done(answer.outcome)?;
    answer.user.ok_or_else(|| {
        tracing::error!(outcome = ?answer.outcome, "a write was answered without the user that it left");
        Problem::internal()
    })
}

/// The answer to a create, with the place of the user.
fn created(headers: &HeaderMap, id: UserId, answer: WriteAnswer) -> Answer {
    let mut response = found(StatusCode::CREATED, user_after(answer)?);
    let location = format!("{}/api/user/{id}", head::prefix(headers));
    let location = HeaderValue::try_from(location).expect("a path of visible ASCII");
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

/// The user as a response. The document goes out as the bytes that came from the ring, neither parsed nor
/// copied.
fn found(status: StatusCode, Found(version, user): Found) -> Response {
    let text: Box<str> = user.into();
    let mut response = Response::new(Body::from(Bytes::from(text.into_boxed_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ETAG, etag::of(version));
    response
}
