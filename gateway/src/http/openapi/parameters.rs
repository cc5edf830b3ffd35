//! What a request says besides its body.

use serde_json::{Value, json};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

use super::schemas::{email, whole};

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
    UserPath: in_path(
        "id",
        "The id of the user, a UUID.",
        json!({"type": "string", "format": "uuid"}),
        json!("0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071")
    );
    /// The number of a partition in the path.
    PartitionNumber: in_path("partition", "The number of the partition, from 0.", whole(0, 65_535), json!(1));
    /// Of a POST.
    IdempotencyKey: header(
        "Idempotency-Key",
        "The same key with the same body creates once, and is answered again as the first time.",
        pattern("^[!-~]([\\t -~]{0,253}[!-~])?$")
    );
    /// Of a DELETE or a PATCH.
    IfMatch: if_match();
    /// Of a GET.
    IfNoneMatch: header(
        "If-None-Match",
        "Versions that the caller has already: then the answer is 304. What cannot be read is ignored.",
        json!({"type": "string"})
    );
    /// Of a PUT.
    WriteConditions: if_match(), header(
        "If-None-Match",
        "Do it only if the user has none of these versions. With `*` the user is created, if it does not \
         exist: then `name` and `email` are required.",
        pattern(TAG)
    );
    /// Of a list.
    ListQuery: query("limit", "Users on a page; 100 by default.", whole(1, 1_000)),
        query(
            "cursor",
            "The `next_cursor` of a list with the same `group` and `email`.",
            json!({"type": "string", "minLength": 1, "maxLength": 512})
        ),
        group(),
        query("email", "Only users with this address, in any case.", email());
    /// Of a count.
    CountQuery: group();
    /// Of a check.
    CheckQuery: query("scan", "Whether to read every record, too.", json!({"type": "boolean"}));
    /// Of the live feed.
    LastSeen: header(
        "Last-Event-ID",
        "The id of the last event seen: the stream goes on right after it.",
        pattern(EVENT_ID)
    ), query("after", "The same, for clients that cannot set headers.", pattern(EVENT_ID));
}

/// `*`, or the tag of a user. Lists of tags, weak ones and those of no user are allowed, too.
const TAG: &str = r#"^(\*|"[0-9a-f]{16}")$"#;

/// The version of a change.
const EVENT_ID: &str = "^[0-9a-f]{16}$";

fn if_match() -> Value {
    let description =
        "Do it only if the user has one of these versions: the `ETag` of an earlier answer, or `*`.";
    header("If-Match", description, pattern(TAG))
}

fn group() -> Value {
    query("group", "Only users of this group.", whole(i32::MIN, i32::MAX))
}

fn in_path(name: &str, description: &str, schema: Value, example: Value) -> Value {
    json!({
        "name": name, "in": "path", "required": true,
        "description": description, "schema": schema, "example": example,
    })
}

fn query(name: &str, description: &str, schema: Value) -> Value {
    json!({"name": name, "in": "query", "required": false, "description": description, "schema": schema})
}

fn header(name: &str, description: &str, schema: Value) -> Value {
    json!({"name": name, "in": "header", "required": false, "description": description, "schema": schema})
}

fn pattern(pattern: &str) -> Value {
    json!({"type": "string", "pattern": pattern})
}
