//! Bodies: what a user looks like in each place, and what a problem looks like.

use serde_json::{Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

/// Names a schema.
macro_rules! schemas {
    ($($(#[$doc:meta])* $name:ident: $schema:expr;)+) => {$(
        $(#[$doc])*
        pub(crate) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                serde_json::from_value($schema).expect("a schema")
            }
        }

        impl ToSchema for $name {}
    )+};
}

schemas! {
    /// A user as it is answered.
    User: user("A user.", &["id", "name", "email", "group"], example_user());
    /// The body of a POST.
    NewUser: user(
        "A user to create. Without an `id` one is made, a UUIDv7; without a `group` it is 0.",
        &["name", "email"],
        json!({"name": "Ada Lovelace", "email": "ada@example.org", "group": 1}),
    );
    /// The body of a PUT that names the user itself.
    Put: user(
        "The fields given are set, the others stay as they are.",
        &["id"],
        json!({"id": "0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071", "group": 2}),
    );
    /// The body of a PUT or a PATCH whose path names the user.
    Patch: user(
        "The fields given are set, the others stay as they are. An `id` is allowed if it is that of the \
         path.",
        &[],
        json!({"name": "Ada King"}),
    );
}

pub(super) fn example_user() -> Value {
    json!({
        "id": "0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071",
        "name": "Ada Lovelace",
        "email": "ada@example.org",
        "group": 1,
    })
}

/// A mailbox of RFC 5321: a dot-string or a quoted string, and a domain or an address literal. The least that
/// all of them have in common, and so that nothing which this describes is refused, the common form alone.
const EMAIL: &str = "^[A-Za-z0-9_+-]{1,30}(\\.[A-Za-z0-9_+-]{1,30})?\
                     @[A-Za-z0-9]{1,30}(-[A-Za-z0-9]{1,30})?(\\.[A-Za-z0-9]{1,30}){0,3}$";

pub(super) fn email() -> Value {
    json!({"type": "string", "minLength": 3, "maxLength": 254, "pattern": EMAIL})
}

/// A whole number of 32 bits.
pub(super) fn whole(least: i32, most: i32) -> Value {
    json!({"type": "integer", "format": "int32", "minimum": least, "maximum": most})
}

/// An object with the fields of a user, and no others.
fn user(description: &str, required: &[&str], example: Value) -> Value {
    let (mut email, mut group) = (email(), whole(i32::MIN, i32::MAX));
    email["description"] =
        json!("An address by RFC 5321; the pattern shows its common form, and others are taken too.");
    group["description"] = json!("Without fraction or exponent.");
    json!({
        "type": "object",
        "description": description,
        "required": required,
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "name": {
                "type": "string",
                "minLength": 1,
                "maxLength": 256,
                "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$",
                "description": "Counted in characters, and kept, in normal form C. No control characters.",
            },
            "email": email,
            "group": group,
        },
        "additionalProperties": false,
        "examples": [example],
    })
}
