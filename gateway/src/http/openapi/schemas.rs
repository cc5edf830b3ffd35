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

/// A ring of two while db-1 is away.
pub(crate) fn example_cluster() -> Value {
    let copy = |process: &str, role: &str, connected: bool| {
        json!({
            "process": process, "role": role, "connected": connected, "complete": connected,
            "version": connected.then_some(112_602_370_187_264_000_u64), "rolled_back": null, "slow": null,
            "lag": null, "follows": null,
        })
    };
    let partition = |number: u16, role: &str, copies: [Value; 2]| {
        json!({
            "partition": number, "lead": "db-0", "role": role, "reads": true, "writes": true,
            "both_read": false, "unreplicated": 12, "unreplicated_millis": 340, "link_down": false,
            "copies": copies, "waiting_for": "db-1 has to come back",
        })
    };
    let usage = json!({
        "version": "0.1.0", "memory_bytes": 67_108_864, "disk_bytes": 16_777_216,
        "disk_free_bytes": 53_687_091_200_u64,
        "copies": [{
            "users": 1, "op_log_entries": 12, "table_files": 2, "table_bytes": 8_192,
            "memtable_bytes": 2_048, "pending_compaction_bytes": 0,
        }],
    });
    json!({
        "ring": "5f0c6a52-7d0e-4b0a-9f5e-2f6a1c9f0b11", "size": 2, "epoch": 7, "ready": true,
        "processes": [
            {"name": "db-0", "place": 0, "connected": true, "address": "127.0.0.1",
             "incarnation": "0d7c5a3e-93a1-4c6f-8f2b-6b1de1a7c001", "frames": 4_711,
             "since_millis": 86_400_000, "usage": usage},
            {"name": "db-1", "place": 1, "connected": false, "address": null, "incarnation": null,
             "frames": 4_690, "since_millis": 2_300, "usage": null},
        ],
        "partitions": [
            partition(0, "primary", [copy("db-0", "primary", true), copy("db-1", "replica", false)]),
            partition(1, "replica", [copy("db-1", "primary", false), copy("db-0", "replica", true)]),
        ],
        "served": {"reads_by_replica": 900, "reads_by_primary": 100, "reads_hedged": 3, "writes": 250},
        "events": [{"at": 1_795_996_800_000_u64, "text": "db-1 is lost"}],
    })
}

/// Of a check that found one damaged copy.
pub(crate) fn example_check() -> Value {
    let copy = |process: &str, role: &str, damage: Value| {
        let (users, records) = (7, 9);
        json!({"role": role, "process": process, "users": users, "records": records, "damage": damage})
    };
    let none = json!([]);
    let sound = [copy("db-0", "primary", none.clone()), copy("db-1", "replica", none.clone())];
    let damage = json!([{"bucket": 3}, "count"]);
    let damaged = [copy("db-1", "primary", damage), copy("db-0", "replica", none)];
    json!({"equal": false, "partitions": [
        {"partition": 0, "verdict": "equal", "copies": sound},
        {"partition": 1, "verdict": "damaged", "copies": damaged},
    ]})
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scatter::check::Check;
    use crate::status::ClusterStatus;

    #[test]
    fn examples_are_what_they_stand_for() {
        let cluster: ClusterStatus = serde_json::from_value(example_cluster()).expect("a ring");
        assert_eq!(serde_json::to_value(cluster).expect("JSON"), example_cluster());
        let check: Check = serde_json::from_value(example_check()).expect("a check");
        assert_eq!(serde_json::to_value(check).expect("JSON"), example_check());
    }
}
