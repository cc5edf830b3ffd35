//! Bodies: what a user looks like in each place, and what a problem looks like.

use std::sync::LazyLock;

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
    NewUser: new_user();
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

pub(crate) fn example_user() -> Value {
    json!({
        "id": "0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071",
        "name": "Ada Lovelace",
        "email": "ada@example.org",
        "group": 1,
    })
}

/// The mailboxes of RFC 5321 as one pattern: what `input::email` reads. A test compares them, in both
/// directions.
static MAILBOX: LazyLock<String> = LazyLock::new(|| {
    let atom = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+";
    let quoted = r#""([ !#-\[\]-~]|\\[ -~])*""#;
    let label = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
    let octet = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
    let ipv4 = format!("{octet}(\\.{octet}){{3}}");
    let group = "[0-9A-Fa-f]{1,4}";
    let last_two = format!("({group}:{group}|{ipv4})");
    // With so many groups before the two colons, so many follow at most (RFC 3986).
    let mut ipv6 = vec![format!("({group}:){{6}}{last_two}")];
    for before in 0..=7_usize {
        let head = match before {
            0 => String::new(),
            1 => group.to_owned(),
            _ => format!("({group}:){{{}}}{group}", before - 1),
        };
        let tail = match 7 - before {
            0 => String::new(),
            1 => format!("({group})?"),
            most => format!("(({group}:){{0,{}}}{last_two}|{group})?", most - 2),
        };
        ipv6.push(format!("{head}::{tail}"));
    }
    let ipv6 = format!("[Ii][Pp][Vv]6:({})", ipv6.join("|"));
    // The part before the last @ has 64 bytes at most.
    let short = "(?!.{65,}@)";
    format!("{short}({atom}(\\.{atom})*|{quoted})@({label}(\\.{label})*|\\[({ipv4}|{ipv6})\\])")
});

fn email() -> Value {
    json!({
        "type": "string",
        "minLength": 3,
        "maxLength": 254,
        "pattern": format!("^{}$", *MAILBOX),
        "description": "A mailbox of RFC 5321, stored as given.",
    })
}

pub(super) fn email_or_nothing() -> Value {
    json!({"type": "string", "maxLength": 254, "pattern": format!("^({})?$", *MAILBOX)})
}

/// Every form of a UUID, in upper and lower case.
pub(super) fn id() -> Value {
    let hex = "[0-9A-Fa-f]";
    let hyphenated = format!("{hex}{{8}}(-{hex}{{4}}){{3}}-{hex}{{12}}");
    let urn = "[Uu][Rr][Nn]:[Uu][Uu][Ii][Dd]:";
    json!({
        "type": "string",
        "pattern": format!("^(({urn})?{hyphenated}|{hex}{{32}})$"),
        "description": "A UUID: hyphenated, simple or `urn:uuid:`, in upper or lower case.",
    })
}

/// A whole number of 32 bits.
pub(super) fn whole(least: i32, most: i32) -> Value {
    json!({"type": "integer", "format": "int32", "minimum": least, "maximum": most})
}

fn new_user() -> Value {
    let mut schema = user(
        "A user to create. Without an `id` one is made, a UUIDv7; without a `group` it is 0.",
        &["name", "email"],
        json!({"name": "Ada Lovelace", "email": "ada@example.org", "group": 1}),
    );
    // Where null means that it is left out.
    for name in ["id", "group"] {
        let kind = schema["properties"][name]["type"].take();
        schema["properties"][name]["type"] = json!([kind, "null"]);
    }
    schema
}

/// An object with the fields of a user, and no others.
fn user(description: &str, required: &[&str], example: Value) -> Value {
    let mut schema = json!({
        "type": "object",
        "description": description,
        "required": required,
        "properties": {
            "id": id(),
            "name": {
                "type": "string",
                "minLength": 1,
                "maxLength": 256,
                "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$",
                "description": "Counted in characters, and kept, in normal form C. No control characters.",
            },
            "email": email(),
            "group": whole(i32::MIN, i32::MAX),
        },
        "additionalProperties": false,
        "examples": [example],
    });
    // As it is answered, an id has one form.
    if required.len() == 4 {
        schema["properties"]["id"] = json!({"type": "string", "format": "uuid"});
    }
    schema
}
