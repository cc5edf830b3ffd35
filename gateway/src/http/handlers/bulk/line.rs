//! From a line to an operation, or to what is wrong with it.
//!
//! A line is a user with two fields more: `op`, and `if_match` with what the header of that name would say.

use axum::http::StatusCode;
use protocol::{Condition, Operation, UserId};
use serde::Deserialize;
use uuid::Uuid;

use crate::http::input::etag;
use crate::http::input::fields::{Fields, Object, text};
use crate::http::problem::Problem;

/// What a line asks for.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) id: UserId,
    pub(super) operation: Operation,
    pub(super) condition: Option<Condition>,
}

/// Status of the result when it is done.
pub(super) fn success(operation: &Operation) -> StatusCode {
    match operation {
        Operation::Create(_) => StatusCode::CREATED,
        Operation::Update(_) => StatusCode::OK,
        // No line asks for a purge; it would leave nothing as well.
        Operation::Delete | Operation::Purge(_) => StatusCode::NO_CONTENT,
    }
}

/// What the audit log calls it.
pub(super) fn name(operation: &Operation) -> &'static str {
    match operation {
        Operation::Create(_) => "create",
        Operation::Update(_) => "update",
        Operation::Delete | Operation::Purge(_) => "delete",
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    Create,
    Update,
    Delete,
}

/// Reads a line.
///
/// # Errors
/// 400 where it is no JSON, 422 with everything that is wrong with it.
pub(super) fn parse(line: &[u8]) -> Result<Asked, Problem> {
    let (mut fields, mut op, mut condition) = (Fields::default(), None, None);
    let mut object = Object::read(line, |name, value| match name {
        "op" => {
            let read = serde_json::from_str(value.get()).map(|read| op = Some(read));
            Some(read.map_err(|_| "must be \"create\", \"update\" or \"delete\""))
        }
        "if_match" => {
            Some(text(value).and_then(|text| etag::condition(&text)).map(|read| condition = Some(read)))
        }
        _ => fields.read(name, value),
    })?;
    fields.settle_nulls(&mut object, op == Some(Op::Create));
    object.require(&["op"]);
    match op {
        Some(Op::Create) => object.require(&Fields::OF_NEW_USER),
        Some(Op::Update | Op::Delete) => object.require(&["id"]),
        None => {}
    }
    if op == Some(Op::Create) && object.has("if_match") {
        object.add_error("if_match", "has no meaning for a create: there is no user yet");
    }
    object.finish()?;
    let id = fields.id.map_or_else(Uuid::now_v7, |id| id.0);
    // A delete may come with the whole user: only its id counts.
    let operation = match op.expect("a line without an operation is refused") {
        Op::Create => Operation::Create(fields.into_create()),
        Op::Update => Operation::Update(fields.into_update()),
        Op::Delete => Operation::Delete,
    };
    Ok(Asked { id, operation, condition })
}

#[cfg(test)]
mod tests {
    use protocol::{Change, Version};

    use super::*;

    const ID: &str = "0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071";

    fn problem(text: &str) -> String {
        format!("{:?}", parse(text.as_bytes()).expect_err(text))
    }

    #[test]
    fn good_lines_are_operations() {
        let id: UserId = ID.parse().expect("an id");
        let change = |alive, name: Option<&str>, email: Option<&str>, group| Change {
            alive,
            name: name.map(str::to_owned),
            email: email.map(str::to_owned),
            group,
            ..Change::default()
        };
        let created = change(Some(true), Some("\u{e9}"), Some("a@b"), Some(0));
        let renamed = change(None, Some("x"), None, None);
        let version = Some(Condition::Versions(vec![Version(1)]));
        for (text, operation, condition) in [
            (r#"{"op":"create","id":"ID","name":"e\u0301","email":"a@b"}"#, Operation::Create(created), None),
            (r#" {"op":"update","id":"ID","name":"x"} "#, Operation::Update(renamed.clone()), None),
            (
                r#"{"id":"ID","name":"x","op":"update","if_match":"\"0000000000000001\""}"#,
                Operation::Update(renamed),
                version,
            ),
            (r#"{"op":"delete","id":"ID","if_match":"*"}"#, Operation::Delete, Some(Condition::Any)),
            (r#"{"op":"delete","id":"ID","name":"whole","email":"u@x","group":3}"#, Operation::Delete, None),
        ] {
            let text = text.replace("ID", ID);
            let expected = Asked { id, operation, condition };
            assert_eq!(parse(text.as_bytes()).ok(), Some(expected), "{text}");
        }
        let made = parse(br#"{"op":"create","name":"n","email":"a@b"}"#).expect("an id is made");
        assert_eq!(made.id.get_version_num(), 7);
    }

    #[test]
    fn bad_lines_say_all_that_is_wrong() {
        for (text, expected) in [
            ("nonsense", &["MalformedBody"][..]),
            ("[]", &["must be an object"]),
            ("{}", &["/op", "is required"]),
            (r#"{"op":"upsert","id":"ID"}"#, &["/op", "must be"]),
            (r#"{"op":null}"#, &["/op"]),
            (r#"{"op":"create","op":"create","name":"n","email":"a@b"}"#, &["/op", "more than once"]),
            (r#"{"op":"create","name":"n"}"#, &["/email", "is required"]),
            (r#"{"op":"create","name":"n","email":"a@b","if_match":"*"}"#, &["/if_match", "no meaning"]),
            (r#"{"op":"update","name":"n"}"#, &["/id", "is required"]),
            (r#"{"op":"delete"}"#, &["/id"]),
            (r#"{"op":"delete","id":"ID","name":""}"#, &["/name"]),
            (r#"{"op":"update","id":"ID","if_match":"0000000000000001"}"#, &["/if_match"]),
            (r#"{"op":"update","id":"ID","if_match":1}"#, &["/if_match", "string"]),
            (r#"{"op":"update","id":"x","group":1.5,"other":1}"#, &["/id", "/group", "/other"]),
        ] {
            let text = text.replace("ID", ID);
            for part in expected {
                assert!(problem(&text).contains(part), "{text}: {}", problem(&text));
            }
        }
    }
}
