//! What a request says besides its body.

use serde_json::{Value, json};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

use super::schemas::{email_or_nothing, id, whole};

/// Names a list of parameters.
macro_rules! parameters {
    ($($(#[$doc:meta])* $name:ident: $($parameter:expr),+;)+) => {$(
        $(#[$doc])*
        pub(crate) struct $name;

        impl IntoParams for $name {
            fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
                [$($parameter),+].map(|json| serde_json::from_value(json).expect("a parameter")).into()
            }
        }
    )+};
}

parameters! {
    /// The id in the path.
    UserPath: in_path("id", "The id of the user.", id(), json!("0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071"));
    /// The number of a partition in the path.
    PartitionNumber: in_path("partition", "The number of the partition, from 0.", whole(0, 65_535), json!(1));
    /// Of a POST.
    IdempotencyKey: header(
        "Idempotency-Key",
        "The same key with the same body creates once, and is answered again as the first time.",
        pattern("^[!-~]([\\t -~]{0,253}[!-~])?$"),
        "order-4711"
    );
    /// Of a GET.
    ReadConditions: if_match("Answer it"), header(
        "If-None-Match",
        "Versions that the caller has already: then the answer is 304. What cannot be read is ignored.",
        json!({"type": "string"}),
        TAG
    );
    /// Of a PATCH or a DELETE.
    WriteConditions: if_match("Do it"),
        if_none_match("Do it only if the user has none of these versions; with `*` never.");
    /// Of a PUT.
    PutConditions: if_match("Do it"), if_none_match(
        "Do it only if the user has none of these versions. With `*` the user is created, if it does not \
         exist: then `name` and `email` are required."
    );
    /// Of a list.
    ListQuery: query("limit", "Users on a page; 100 by default.", whole(1, 1_000), json!(100)),
        query(
            "cursor",
            "The `next_cursor` of a list with the same `group` and `email`. Empty: none.",
            pattern("^([A-Za-z0-9_-]{34})?$"),
            json!("AQGQpbJ8PX5PihssPU5fYHEf8kdqfmb5zw")
        ),
        group(),
        query(
            "email",
            "Only users with this address, in any case. Empty: all.",
            email_or_nothing(),
            json!("ada@example.org")
        );
    /// Of a count.
    CountQuery: group();
    /// Of a check.
    CheckQuery: query("scan", "Whether to read every record, too.", json!({"type": "boolean"}), json!(true));
    /// Of the live feed.
    LastSeen: header(
        "Last-Event-ID",
        "The id of the last event seen: the stream goes on right after it.",
        pattern(EVENT_ID),
        "0190a5b27c3d0000"
    ), query(
        "after",
        "The same, for clients that cannot set headers.",
        pattern(EVENT_ID),
        json!("0190a5b27c3d0000")
    );
}

/// A tag as it is answered.
const TAG: &str = "\"0190a5b27c3d0000\"";

/// The version of a change.
const EVENT_ID: &str = "^([0-9a-f]{16})?$";

fn if_match(what: &str) -> Value {
    let description = format!(
        "{what} only if the user has one of these versions: the `ETag` of an earlier answer, several of \
         them, or `*`."
    );
    header("If-Match", &description, tags(), TAG)
}

fn if_none_match(description: &str) -> Value {
    header("If-None-Match", description, tags(), TAG)
}

/// `*`, or a list of up to 256 tags, with spaces and empty elements (RFC 9110, section 5.6.1).
fn tags() -> Value {
    let tag = "(W/)?\"[!#-~\\u0080-\\u00ff]*\"";
    pattern(&format!("^(\\*|[\\t ,]*{tag}([\\t ]*,[\\t ,]*{tag}){{0,255}}[\\t ]*(,[\\t ,]*)?)$"))
}

fn group() -> Value {
    query("group", "Only users of this group.", whole(i32::MIN, i32::MAX), json!(1))
}

fn in_path(name: &str, description: &str, schema: Value, example: Value) -> Value {
    parameter("path", name, description, schema, example)
}

fn query(name: &str, description: &str, schema: Value, example: Value) -> Value {
    parameter("query", name, description, schema, example)
}

fn header(name: &str, description: &str, schema: Value, example: &str) -> Value {
    parameter("header", name, description, schema, json!(example))
}

fn parameter(place: &str, name: &str, description: &str, schema: Value, example: Value) -> Value {
    json!({
        "name": name, "in": place, "required": place == "path",
        "description": description, "schema": schema, "example": example,
    })
}

fn pattern(pattern: &str) -> Value {
    json!({"type": "string", "pattern": pattern})
}
