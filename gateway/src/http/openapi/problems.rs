//! What can fail, by call: lists of kinds, from which the documented answers are made.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::IntoResponses;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::example::{Example, ExampleBuilder};
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::{Ref, RefOr};

use super::schemas;
use crate::http::kind::Kind;

/// Names a list of kinds.
macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident: $($kind:ident),+;)+) => {$(
        $(#[$doc])*
        pub(in crate::http) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                of(&[$(Kind::$kind),+])
            }
        }
    )+};
}

problems! {
    /// Of a GET of a user.
    Reading: MalformedId, UserNotFound, Unavailable, Overloaded, NoAnswer;
    /// Of a list or a count.
    Listing: MalformedQuery, Unavailable, Overloaded, NoAnswer;
    /// Of the live feed.
    Listening: MalformedQuery, MalformedEventId, FutureEventId, ChangesGone, TooManySubscribers, Unavailable,
        Overloaded,
        NoAnswer;
    /// Of a POST of a user.
    Creating: MalformedBody, MalformedKey, BodyTooSlow, UserExists, BodyTooLarge, UnsupportedMediaType,
        InvalidFields,
        KeyReused, Unavailable, Overloaded, OutcomeUnknown;
    /// Of many operations in one request, as a whole.
    Bulking: UnsupportedMediaType, Overloaded;
    /// Of a PUT or a PATCH of a user.
    Updating: MalformedBody, MalformedId, MalformedCondition, UserNotFound, BodyTooSlow, PreconditionFailed,
        BodyTooLarge,
        UnsupportedMediaType, InvalidFields, Unavailable, Overloaded, OutcomeUnknown;
    /// Of a DELETE of a user.
    Deleting: MalformedId, MalformedCondition, UserNotFound, PreconditionFailed, Unavailable, Overloaded,
        OutcomeUnknown;
    /// Of a look at the ring.
    Status: Unavailable, NoAnswer;
    /// Of the readiness.
    Readiness: NotReady, Unavailable, NoAnswer;
    /// Of a comparison of the copies.
    Checking: MalformedQuery, Unavailable;
    /// Of a repair.
    Repairs: PartitionNotFound, NotRepairable, Unavailable;
    /// Of the promotion of a copy.
    Promoting: PartitionNotFound, PartitionServed, Unavailable, OutcomeUnknown, NoAnswer;
}

/// The documented answers of these kinds: one for each status, with an example for each kind.
pub(in crate::http) fn of(kinds: &[Kind]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<u16, Vec<Kind>> = BTreeMap::new();
    for kind in kinds {
        by_status.entry(kind.describe().0.as_u16()).or_default().push(*kind);
    }
    by_status.into_iter().map(|(status, kinds)| (status.to_string(), response(&kinds).into())).collect()
}

fn response(kinds: &[Kind]) -> Response {
    let titles: Vec<&str> = kinds.iter().map(|kind| kind.describe().2).collect();
    let examples = kinds.iter().map(|kind| (name(*kind), example(*kind)));
    let content = ContentBuilder::new()
        .schema(Some(RefOr::Ref(Ref::from_schema_name("Problem"))))
        .examples_from_iter(examples)
        .build();
    let mut response = ResponseBuilder::new()
        .description(format!("{}.", titles.join(". Or: ")))
        .content("application/problem+json", content)
        .build();
    for (name, value) in kinds.iter().filter_map(|kind| kind.header()) {
        let header = HeaderBuilder::new()
            .schema(Some(schemas::text(1, 256)))
            .example(value.to_str().ok().map(Value::from))
            .build();
        response.headers.insert(name.to_string(), RefOr::T(header));
    }
    response
}

/// The last part of the `type`.
fn name(kind: Kind) -> &'static str {
    let (_, r#type, _) = kind.describe();
    r#type.rsplit(':').next().unwrap_or(r#type)
}

fn example(kind: Kind) -> Example {
    let (status, r#type, title) = kind.describe();
    let mut problem = json!({
        "type": r#type,
        "title": title,
        "status": status.as_u16(),
        "detail": "What happened, in a sentence.",
        "instance": "8f1c2d3e4a5b6c7d",
    });
    match kind {
        Kind::InvalidFields => problem["errors"] = json!([{"pointer": "/email", "detail": "is required"}]),
        Kind::Unavailable | Kind::Overloaded | Kind::NotReady | Kind::NoAnswer | Kind::OutcomeUnknown => {
            problem["partition"] = json!(1);
        }
        _ => {}
    }
    ExampleBuilder::new().summary(title).value(Some(problem)).build()
}
