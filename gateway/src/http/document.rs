//! The OpenAPI 3.1 document of this API, made from the annotations beside the handlers.
//!
//! A handler says in `#[utoipa::path(…)]` what it takes and what it answers, in the words of `openapi`; its
//! comment is summary and description, and its name the id of the operation. What every call has in common is
//! added here: the request id, the token, and the failures.
//!
//! The document is kept as `resources/openapi.json`, which a test compares. Another test holds every answer
//! that the tests of this API see against it: a status or a problem that is not in the document fails.

use std::sync::LazyLock;

use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde::de::DeserializeOwned;
use serde_json::{Value, from_value, json};
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{ArrayItems, KnownFormat, Schema, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{OpenApi as Document, RefOr};
use utoipa::{Modify, Number, OpenApi};

use super::handlers::{bulk, changes, cluster, health, list, metrics, user};
use super::input::query::NoParameters;
use super::input::token::Needed;
use super::kind::Kind;
use super::openapi::schemas::User;
use super::openapi::{answers, problems};
use super::problem::Rendered;

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
    servers((url = ".", description = "Where this document is.")),
    paths(
        user::create_user,
        list::list_users,
        list::count_users,
        bulk::request::change_users_in_bulk,
        changes::stream::listen_to_changes,
        user::update_user_named_in_body,
        user::get_user,
        user::update_user,
        user::patch_user,
        user::delete_user,
        user::erase_user,
        cluster::get_cluster,
        cluster::promote_partition,
        cluster::check_copies,
        cluster::repair_partition,
        health::get_liveness,
        health::get_readiness,
        metrics::get_metrics,
    ),
    components(schemas(User, Rendered)),
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
        let token = json!({
            "type": "http",
            "scheme": "bearer",
            "description": "A token of the role that the call names, or of a higher one: read, write, admin. \
                            A gateway with `ALLOW_ANONYMOUS` asks for none.",
        });
        components.security_schemes.insert("token".to_owned(), utoipa(token));
        components.schemas.values_mut().for_each(bound);
        for (path, item) in &mut document.paths.paths {
            let operations = [
                (Method::GET, &mut item.get),
                (Method::POST, &mut item.post),
                (Method::PUT, &mut item.put),
                (Method::PATCH, &mut item.patch),
                (Method::DELETE, &mut item.delete),
            ];
            for (method, operation) in operations {
                if let Some(operation) = operation {
                    complete(operation, &method, path);
                }
            }
        }
    }
}

/// Whole numbers without a maximum get that of their type.
fn bound(schema: &mut RefOr<Schema>) {
    match schema {
        RefOr::T(Schema::Object(object)) => {
            object.properties.values_mut().for_each(bound);
            let is_whole = object.schema_type == SchemaType::new(Type::Integer);
            if is_whole && object.maximum.is_none() {
                let most = if object.format == Some(INT64) { i64::MAX as usize } else { 65_535 };
                object.maximum = Some(Number::UInt(most));
            }
        }
        RefOr::T(Schema::Array(array)) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                bound(items);
            }
        }
        _ => {}
    }
}

/// The format of numbers of 64 bits.
const INT64: SchemaFormat = SchemaFormat::KnownFormat(KnownFormat::Int64);

fn complete(operation: &mut Operation, method: &Method, path: &str) {
    let id = camel_case(operation.operation_id.as_deref().unwrap_or_default());
    let everywhere = [
        Kind::MalformedHost,
        Kind::MalformedQuery,
        Kind::ForeignOrigin,
        Kind::UnknownHost,
        Kind::Internal,
        Kind::UnknownTransferCoding,
    ];
    let mut fails = [problems::of_operation(&id), &everywhere].concat();
    if !path.starts_with("/health/") {
        fails.push(Kind::TooManyRequests);
    }
    if let Some(role) = Needed::of(path).by(method) {
        fails.extend([Kind::Unauthorized, Kind::Forbidden]);
        operation.security = Some(utoipa(json!([{"token": [role.as_str()]}])));
    }
    let tag = match path.split('/').nth(2) {
        Some("user") => "users",
        Some("cluster") => "ring",
        _ => "health",
    };
    operation.tags = Some(vec![tag.to_owned()]);
    operation.responses.responses.extend(problems::answers(&id, &fails));
    operation.operation_id = Some(id);
    let request_id = json!({
        "schema": {"type": "string", "minLength": 1, "maxLength": 128},
        "description": "Id of the request: the caller's own where that is sane.",
    });
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response {
            if status == "201" {
                response.links = utoipa(answers::links());
            }
            response.headers.insert("x-request-id".to_owned(), utoipa(request_id.clone()));
        }
    }
}

/// A part of the document from the JSON that it will be.
fn utoipa<T: DeserializeOwned>(json: Value) -> T {
    from_value(json).expect("a part of an OpenAPI document")
}

/// The id of an operation from the name of its handler.
fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |id, word| id + &word[..1].to_uppercase() + &word[1..])
}

/// The methods that a route takes.
pub(super) fn methods(route: &str) -> String {
    let Some(path) = DOCUMENT.paths.paths.get(route) else { return "GET, HEAD".to_owned() };
    let known = [
        (&path.get, "GET, HEAD"),
        (&path.post, "POST"),
        (&path.put, "PUT"),
        (&path.patch, "PATCH"),
        (&path.delete, "DELETE"),
    ];
    let taken = known.into_iter().filter(|(operation, _)| operation.is_some());
    taken.map(|(_, methods)| methods).collect::<Vec<_>>().join(", ")
}

static DOCUMENT: LazyLock<Document> = LazyLock::new(Annotated::openapi);

static TEXT: LazyLock<String> = LazyLock::new(|| {
    let mut text = DOCUMENT.to_pretty_json().expect("a document of strings and numbers is JSON");
    text.push('\n');
    text
});

/// `GET /openapi.json`.
pub(super) async fn show(_: NoParameters) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], TEXT.as_str())
}
