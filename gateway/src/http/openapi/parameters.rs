//! What a request says besides its body.

use serde_json::json;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{KnownFormat, Object, Required};

use super::schemas;

/// Names a list of parameters.
macro_rules! parameters {
    ($($(#[$doc:meta])* $name:ident: $($parameter:expr),+;)+) => {$(
        $(#[$doc])*
        pub(in crate::http) struct $name;

        impl IntoParams for $name {
            fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
                vec![$($parameter),+]
            }
        }
    )+};
}

parameters! {
    /// The id in the path.
    UserPath: user_id();
    /// The number of a partition in the path.
    PartitionNumber: partition();
    /// Of a POST.
    IdempotencyKey: idempotency_key();
    /// Of a DELETE or a PATCH.
    IfMatch: if_match();
    /// Of a GET.
    IfNoneMatch: known_tags();
    /// Of a list.
    ListQuery: query("limit", "Users on a page; 100 by default.", whole(1, 1_000)),
        query("cursor", "The `next_cursor` of a list with the same `group` and `email`.",
            schemas::text(1, 512)),
        query("group", "Only users of this group.", whole(i32::MIN, i32::MAX)),
        query("email", "Only users with this address, in any case.", schemas::email().build());
    /// Of a count.
    CountQuery: query("group", "Only users of this group.", whole(i32::MIN, i32::MAX));
    /// Of the live feed.
    LastSeen: last_event_id(), query("after", "The same, for clients that cannot set headers.",
        schemas::pattern(EVENT_ID));
    /// Of a check.
    CheckQuery: query("scan", "Whether to read every record, too.", schemas::yes_or_no());
    /// Of a PUT.
    WriteConditions: if_match(), if_none_match();
}

fn user_id() -> Parameter {
    path(
        "id",
        "The id of the user, a UUID.",
        schemas::uuid().into(),
        json!("0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071"),
    )
}

fn partition() -> Parameter {
    let number = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
        .minimum(Some(0))
        .maximum(Some(65_535));
    path("partition", "The number of the partition, from 0.", number.into(), json!(1))
}

fn whole(least: i32, most: i32) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
        .minimum(Some(least))
        .maximum(Some(most))
        .build()
}

fn query(name: &str, description: &str, schema: Object) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

fn path(name: &str, description: &str, schema: Schema, example: serde_json::Value) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(description))
        .schema(Some(schema))
        .example(Some(example))
        .build()
}

fn header(name: &str, description: &str, pattern: &str) -> Parameter {
    optional_header(name, description, schemas::pattern(pattern))
}

fn optional_header(name: &str, description: &str, schema: Object) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

/// `*`, or the tag of a user. Lists of tags, weak ones and those of no user are allowed, too.
const TAG: &str = r#"^(\*|"[0-9a-f]{16}")$"#;

/// The version of a change.
const EVENT_ID: &str = "^[0-9a-f]{16}$";

fn last_event_id() -> Parameter {
    header("Last-Event-ID", "The id of the last event seen: the stream goes on right after it.", EVENT_ID)
}

fn if_match() -> Parameter {
    header(
        "If-Match",
        "Do it only if the user has one of these versions: the `ETag` of an earlier answer, or `*`.",
        TAG,
    )
}

fn if_none_match() -> Parameter {
    let description = "Do it only if the user has none of these versions. With `*` the user is created, if \
                       it does not exist: then `name` and `email` are required.";
    header("If-None-Match", description, TAG)
}

fn known_tags() -> Parameter {
    let description =
        "Versions that the caller has already: then the answer is 304. What cannot be read is ignored.";
    optional_header("If-None-Match", description, schemas::any_text())
}

fn idempotency_key() -> Parameter {
    let description =
        "The same key with the same body creates once, and is answered again as the first time.";
    header("Idempotency-Key", description, "^[!-~]([\\t -~]{0,253}[!-~])?$")
}
