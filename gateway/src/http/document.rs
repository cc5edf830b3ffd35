//! The OpenAPI 3.1 document of this API, made from the annotations beside the handlers.
//!
//! A handler says in `#[utoipa::path(…)]` what it takes and what it answers, in the words of `openapi`. What
//! every call has in common is added here: the request id, the token, and the failures that any call can
//! have.
//!
//! The document is kept as `resources/openapi.json`, which a test compares. Another test holds every answer
//! that the tests of this API see against it: a status or a problem that is not in the document fails.

use std::sync::LazyLock;

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{OpenApi as Document, RefOr};
use utoipa::{Modify, OpenApi};

use super::handlers::{bulk, changes, cluster, health, list, metrics, user};
use super::kind::Kind;
use super::openapi::{Health, NewUser, Patch, Put, UserCount, problems, schemas};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Corro",
        description = "A replicated store of users behind a REST gateway. Every path works with and without \
                       a trailing slash, and `HEAD` wherever `GET` does. Every error of a request that can \
                       be read is `application/problem+json` (RFC 9457) with a stable `type`; what is no \
                       HTTP/1.1, or has too large a head, is answered with a bare status. Ids are compared \
                       by value, and answered in lower case with hyphens. A version travels as the `ETag`."
    ),
    paths(
        user::create,
        list::list,
        list::count,
        bulk::bulk,
        changes::stream::stream,
        user::update_named_in_body,
        user::read,
        user::update,
        user::patch,
        user::delete,
        cluster::show,
        cluster::promote,
        cluster::check,
        cluster::repair,
        health::live,
        health::ready,
        metrics::show,
    ),
    components(schemas(schemas::User, schemas::UserPage, UserCount, NewUser, Put, Patch, schemas::Problem,
        Health)),
    tags(
        (name = "users", description = "The users themselves."),
        (name = "ring", description = "The processes that keep them."),
        (name = "health", description = "For monitoring. No token is needed."),
    ),
    modifiers(&Common),
)]
struct Annotated;

/// What all calls have in common.
struct Common;

impl Modify for Common {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("One of `API_TOKEN`, where the gateway has them."))
            .build();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
        for (path, item) in &mut document.paths.paths {
            let is_api = path.starts_with("/api/");
            let operations =
                [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                complete(operation, is_api);
            }
        }
    }
}

fn complete(operation: &mut Operation, is_api: bool) {
    let mut always = vec![Kind::Internal];
    if is_api {
        always.push(Kind::Unauthorized);
        // Without a token where none is asked for.
        operation.security = Some(vec![
            SecurityRequirement::default(),
            SecurityRequirement::new("token", Vec::<String>::new()),
        ]);
    }
    for (status, response) in problems::of(&always) {
        operation.responses.responses.entry(status).or_insert(response);
    }
    let request_id = HeaderBuilder::new()
        .schema(Some(schemas::text(1, 128)))
        .description(Some("Id of the request: the caller's own where that is sane."))
        .build();
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            response.headers.insert("x-request-id".to_owned(), RefOr::T(request_id.clone()));
        }
    }
}

static TEXT: LazyLock<String> = LazyLock::new(|| {
    let mut text = Annotated::openapi().to_pretty_json().expect("a document of strings and numbers is JSON");
    text.push('\n');
    text
});

/// `GET /openapi.json`.
pub(super) async fn show() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], TEXT.as_str())
}
