//! The calls on one user. A handler reads the request, asks the ring once, and words the answer.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, ETAG, LOCATION};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use protocol::message::link::{Found, WriteAnswer};
use protocol::{Operation, Outcome, UserId, Version};

use crate::http::api::Api;
use crate::http::input::body::{self, AcceptedMedia};
use crate::http::input::etag::Precondition;
use crate::http::input::id::Id;
use crate::http::input::{etag, fields, idempotency};
use crate::http::kind::Kind;
use crate::http::openapi::{
    Created, Creating, Deleted, Deleting, IdempotencyKey, IfMatch, IfNoneMatch, NewUser, Patch, Put, Reading,
    TheUser, Updating, UserPath, WriteConditions,
};
use crate::http::problem::{Problem, ensure_done};

/// `POST /api/user/`. There is no user yet, so `If-Match` and `If-None-Match` have no meaning here. With an
/// `Idempotency-Key`, a request that was done before is answered as it was then.
#[utoipa::path(
    post,
    path = "/api/user",
    operation_id = "createUser",
    tag = "users",
    summary = "Create a user",
    description = "The user is on disk before this is answered. An id that was deleted may be created again.",
    params(IdempotencyKey),
    request_body = NewUser,
    responses(Created, Creating)
)]
pub(in crate::http) async fn create(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let deadline = api.deadline();
    let (parts, body) = request.into_parts();
    let body = body::read(&parts.headers, body, AcceptedMedia::Json, deadline).await?;
    let (chosen, mut change) = fields::create(&body)?;
    let id = idempotency::identify(&parts.headers, chosen, &mut change)?;
    let created = api.write(id, Operation::Create(change), None, deadline).await?;
    Ok(with_location(id, found(StatusCode::CREATED, user_after(created)?)))
}

/// `GET /api/user/{id}`, and `HEAD`.
#[utoipa::path(
    get,
    path = "/api/user/{id}",
    operation_id = "getUser",
    tag = "users",
    summary = "Read a user",
    description = "Never an older state than one that was acknowledged.",
    params(UserPath, IfNoneMatch),
    responses(TheUser, (status = 304, description = "The caller has this version.",
        headers(("ETag" = String))), Reading)
)]
pub(in crate::http) async fn read(
    State(api): State<Api>,
    Id(id): Id,
    request: Request,
) -> Result<Response, Problem> {
    match api.read(id, api.deadline()).await? {
        None => Err(Problem::user_not_found()),
        Some(Found(version, _)) if etag::is_known(request.headers(), version) => Ok(not_modified(version)),
        Some(user) => Ok(found(StatusCode::OK, user)),
    }
}

/// `PUT /api/user/`: the id is in the body.
#[utoipa::path(
    put,
    path = "/api/user",
    operation_id = "updateUserNamedInBody",
    tag = "users",
    summary = "Change a user, or create it with If-None-Match: *",
    description = "The `id` is in the body. The fields given are set, the others stay.",
    params(WriteConditions),
    request_body = Put,
    responses(TheUser, Created, Updating)
)]
pub(in crate::http) async fn update_named_in_body(
    State(api): State<Api>,
    request: Request,
) -> Result<Response, Problem> {
    change(&api, None, request, AcceptedMedia::Json).await
}

/// `PUT /api/user/{id}`.
#[utoipa::path(
    put,
    path = "/api/user/{id}",
    operation_id = "updateUser",
    tag = "users",
    summary = "Change a user, or create it with If-None-Match: *",
    description = "The fields given are set, the others stay. An `id` in the body has to agree with the \
                   path.",
    params(UserPath, WriteConditions),
    request_body = Patch,
    responses(TheUser, Created, Updating)
)]
pub(in crate::http) async fn update(
    State(api): State<Api>,
    id: Result<Id, Problem>,
    request: Request,
) -> Result<Response, Problem> {
    change(&api, Some(id), request, AcceptedMedia::Json).await
}

/// `PATCH /api/user/{id}`. A merge patch (RFC 7396) of a user is the same partial update: no field can be
/// removed.
#[utoipa::path(
    patch,
    path = "/api/user/{id}",
    operation_id = "patchUser",
    tag = "users",
    summary = "Change a user",
    description = "The fields given are set, the others stay. A merge patch (RFC 7396) says the same: no \
                   field can be removed.",
    params(UserPath, IfMatch),
    request_body(content((Patch = "application/json"), (Patch = "application/merge-patch+json"))),
    responses(TheUser, Updating)
)]
pub(in crate::http) async fn patch(
    State(api): State<Api>,
    id: Result<Id, Problem>,
    request: Request,
) -> Result<Response, Problem> {
    change(&api, Some(id), request, AcceptedMedia::JsonOrMergePatch).await
}

/// Sets the fields given; a PUT with `If-None-Match: *` creates. The id in the path comes unjudged, so that
/// the body is off the wire before it is refused.
async fn change(
    api: &Api,
    in_path: Option<Result<Id, Problem>>,
    request: Request,
    accepted: AcceptedMedia,
) -> Result<Response, Problem> {
    let deadline = api.deadline();
    let (parts, body) = request.into_parts();
    let body = body::read(&parts.headers, body, accepted, deadline).await?;
    let in_path = in_path.transpose()?;
    let precondition = etag::conditions(&parts.headers)?;
    if precondition == Precondition::Absent && parts.method == Method::PUT {
        let (id, change) = fields::create_as(&body, in_path)?;
        let created = api.write(id, Operation::Create(change), None, deadline).await?;
        if created.outcome == Outcome::Exists {
            return Err(Problem::new(Kind::PreconditionFailed, "The user exists. Nothing was changed."));
        }
        return Ok(with_location(id, found(StatusCode::CREATED, user_after(created)?)));
    }
    let condition = precondition.for_existing_user();
    let (id, change) = fields::update(&body, in_path)?;
    let updated = api.write(id, Operation::Update(change), condition, deadline).await?;
    Ok(found(StatusCode::OK, user_after(updated)?))
}

/// `DELETE /api/user/{id}`.
#[utoipa::path(
    delete,
    path = "/api/user/{id}",
    operation_id = "deleteUser",
    tag = "users",
    summary = "Delete a user",
    params(UserPath, IfMatch),
    responses(Deleted, Deleting)
)]
pub(in crate::http) async fn delete(
    State(api): State<Api>,
    Id(id): Id,
    request: Request,
) -> Result<StatusCode, Problem> {
    let condition = etag::conditions(request.headers())?.for_existing_user();
    let deleted = api.write(id, Operation::Delete, condition, api.deadline()).await?;
    ensure_done(deleted.outcome)?;
    Ok(StatusCode::NO_CONTENT)
}

/// The user that a write left behind.
fn user_after(answer: WriteAnswer) -> Result<Found, Problem> {
    ensure_done(answer.outcome)?;
    answer.user.ok_or_else(|| {
        tracing::error!(outcome = ?answer.outcome, "a write was answered without the user that it left");
        Problem::internal()
    })
}

/// The user as a response. The document goes out as the bytes that came from the ring, neither parsed nor
/// copied.
fn found(status: StatusCode, Found(version, user): Found) -> Response {
    let text: Box<str> = user.into();
    document(status, version, Bytes::from(text.into_boxed_bytes()))
}

/// A user's JSON as a response.
fn document(status: StatusCode, version: Version, json: Bytes) -> Response {
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ETAG, etag::of(version));
    response
}

/// Says where the user is that was created.
fn with_location(id: UserId, mut response: Response) -> Response {
    let location = HeaderValue::try_from(format!("/api/user/{id}")).expect("a path of visible ASCII");
    response.headers_mut().insert(LOCATION, location);
    response
}

fn not_modified(version: Version) -> Response {
    (StatusCode::NOT_MODIFIED, [(ETAG, etag::of(version))]).into_response()
}
