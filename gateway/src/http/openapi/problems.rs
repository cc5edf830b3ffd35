//! What can fail, by operation: lists of kinds, from which the documented answers are made.

use std::collections::BTreeMap;

use axum::http::HeaderName;
use axum::http::header::ACCEPT_ENCODING;
use serde_json::{Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::response::Response;

use crate::http::input::body;
use crate::http::kind::Kind;

/// What can fail beside what can fail everywhere.
#[rustfmt::skip]
pub(crate) fn of_operation(id: &str) -> &'static [Kind] {
    use Kind::{
        BodyTooLarge, BodyTooSlow, Busy, ChangesGone, FutureEventId, InvalidFields, KeyReused, MalformedBody,
        MalformedCondition, MalformedEventId, MalformedId, MalformedKey, NoAnswer, NotErased, NotOnRecord,
        NotReady, NotRepairable, OutcomeUnknown, Overloaded, PartitionNotFound, PartitionServed,
        PreconditionFailed, TooManyStreams, TooManySubscribers, Unavailable, UnsupportedMediaType,
        UserExists, UserNotFound,
    };
    match id {
        "createUser" => &[
            MalformedBody, MalformedKey, BodyTooSlow, UserExists, BodyTooLarge, UnsupportedMediaType,
            InvalidFields, KeyReused, Unavailable, Overloaded, NotOnRecord, OutcomeUnknown,
        ],
        "getUser" => &[
            MalformedId, MalformedCondition, UserNotFound, PreconditionFailed, Unavailable, Overloaded,
            NoAnswer,
        ],
        "updateUser" | "updateUserNamedInBody" | "patchUser" => &[
            MalformedBody, MalformedId, MalformedCondition, UserNotFound, BodyTooSlow, PreconditionFailed,
            BodyTooLarge, UnsupportedMediaType, InvalidFields, Unavailable, Overloaded, NotOnRecord,
            OutcomeUnknown,
        ],
        "deleteUser" => &[
            MalformedId, MalformedCondition, UserNotFound, PreconditionFailed, Unavailable, Overloaded,
            NotOnRecord, OutcomeUnknown,
        ],
        "eraseUser" => &[
            MalformedId, Busy, UnsupportedMediaType, Unavailable, NotErased, Overloaded, NotOnRecord,
            OutcomeUnknown,
        ],
        "listUsers" | "countUsers" => &[Unavailable, Overloaded, NoAnswer],
        "changeUsersInBulk" => {
            &[UnsupportedMediaType, TooManyStreams, Unavailable, Overloaded, NotOnRecord, OutcomeUnknown]
        }
        "listenToChanges" => &[
            MalformedEventId, FutureEventId, ChangesGone, TooManyStreams, TooManySubscribers, Unavailable,
            Overloaded, NoAnswer,
        ],
        "getCluster" => &[Unavailable, NoAnswer],
        "checkCopies" => &[Busy, Unavailable, NotOnRecord, NoAnswer],
        "repairPartition" => &[
            PartitionNotFound, NotRepairable, Busy, UnsupportedMediaType, Unavailable, NotOnRecord,
            OutcomeUnknown,
        ],
        "promotePartition" => &[
            PartitionNotFound, PartitionServed, UnsupportedMediaType, Unavailable, NotOnRecord,
            OutcomeUnknown, NoAnswer,
        ],
        "getReadiness" => &[NotReady, Unavailable, NoAnswer],
        _ => &[],
    }
}

/// The documented answers of these kinds: one for each status, with an example for each kind.
pub(crate) fn answers(id: &str, kinds: &[Kind]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<String, Vec<Kind>> = BTreeMap::new();
    for kind in kinds {
        by_status.entry(kind.status().as_str().to_owned()).or_default().push(*kind);
    }
    by_status.into_iter().map(|(status, kinds)| (status, answer(id, &kinds))).collect()
}

/// Headers of a problem of this kind.
fn headers(id: &str, kind: Kind) -> Vec<(HeaderName, &'static str)> {
    match (kind, id) {
        (Kind::UnsupportedMediaType, _) => {
            let accepted = match id {
                "patchUser" => &body::PATCH,
                "changeUsersInBulk" => &body::LINES,
                _ => &body::JSON,
            };
            vec![(accepted.header.clone(), accepted.types), (ACCEPT_ENCODING, "identity")]
        }
        _ => kind.header().into_iter().collect(),
    }
}

fn answer(id: &str, kinds: &[Kind]) -> RefOr<Response> {
    let titles: Vec<&str> = kinds.iter().map(|kind| kind.title()).collect();
    let headers = kinds.iter().flat_map(|kind| headers(id, *kind)).map(|(name, value)| {
        let schema = json!({"type": "string", "minLength": 1, "maxLength": 256});
        (name.to_string(), json!({"schema": schema, "example": value}))
    });
    let examples = kinds
        .iter()
        .map(|kind| (kind.name().to_owned(), json!({"summary": kind.title(), "value": example(*kind)})));
    let answer = json!({
        "description": format!("{}.", titles.join(". Or: ")),
        "headers": Value::from_iter(headers),
        "content": {"application/problem+json": {
            "schema": {"$ref": "#/components/schemas/Problem"},
            "examples": Value::from_iter(examples),
        }},
    });
    serde_json::from_value(answer).expect("a response")
}

fn example(kind: Kind) -> Value {
    let mut problem = json!({
        "type": kind.r#type(),
        "title": kind.title(),
        "status": kind.status().as_u16(),
        "detail": "The cause, in a sentence.",
        "instance": "8f1c2d3e4a5b6c7d",
    });
    match kind {
        Kind::InvalidFields => problem["errors"] = json!([{"pointer": "/email", "detail": "is required"}]),
        Kind::Unavailable | Kind::Overloaded | Kind::NotReady | Kind::NoAnswer | Kind::OutcomeUnknown => {
            problem["partition"] = json!(1);
        }
        _ => {}
    }
    problem
}
