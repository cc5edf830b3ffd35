//! From a line to an operation, or to what is wrong with it.
//!
//! A line is a user with two fields more: `op`, and `if_match` with what the header of that name would say.
//! As with the body of a single call (see [`crate::http`]'s `fields`), a good line is parsed once and
//! strictly, and only a bad one is looked at thoroughly.

use axum::http::StatusCode;
use protocol::{Change, Condition, Operation, UserId};
use serde::Deserialize;
use uuid::Uuid;

use crate::http::input::etag;
use crate::http::input::fields::{Examined, Fields, given};
use crate::http::input::id::Id;
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    Create,
    Update,
    Delete,
}

/// A line without anything that is not known. The fields of the user are named again, since serde can refuse
/// unknown fields only where it sees all known ones.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Strict {
    op: Op,
    #[serde(default, deserialize_with = "given")]
    if_match: Option<String>,
    #[serde(default, deserialize_with = "given")]
    id: Option<Id>,
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    email: Option<String>,
    #[serde(default, deserialize_with = "given")]
    group: Option<i32>,
}

/// Reads a line.
///
/// # Errors
/// 400 where it is no JSON, 422 with everything that is wrong with it.
pub(super) fn parse(text: &[u8]) -> Result<Asked, Problem> {
    match strictly(text) {
        Some(asked) => Ok(asked),
        None => thoroughly(text),
    }
}

fn strictly(text: &[u8]) -> Option<Asked> {
    if text.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let Strict { op, if_match, id, name, email, group } = serde_json::from_slice(text).ok()?;
    let condition =
        if_match.map(|text| etag::condition(&text).ok()).map_or(Some(None), |read| read.map(Some))?;
    let fields = Fields { id, name, email, group }.checked()?;
    let complete = match op {
        Op::Create => fields.name.is_some() && fields.email.is_some() && condition.is_none(),
        Op::Update | Op::Delete => fields.id.is_some(),
    };
    complete.then(|| asked(op, fields, condition))
}

fn thoroughly(text: &[u8]) -> Result<Asked, Problem> {
    let mut examined = Examined::of(text, &["op", "if_match"])?;
    let op = examined.other("op").map(|value| {
        serde_json::from_str::<Op>(value.get()).map_err(|_| "must be \"create\", \"update\" or \"delete\"")
    });
    let op = op.and_then(|op| examined.errors.keep("op", op));
    let condition =
        examined.other("if_match").map(|value| match serde_json::from_str::<String>(value.get()) {
            _ if op == Some(Op::Create) => Err("has no meaning for a create: there is no user yet"),
            Ok(text) => etag::condition(&text),
            Err(_) => Err("must be a string"),
        });
    let condition = condition.and_then(|condition| examined.errors.keep("if_match", condition));
    examined.require(&["op"]);
    examined.require(match op {
        Some(Op::Create) => &["name", "email"],
        Some(Op::Update | Op::Delete) => &["id"],
        None => &[],
    });
    let fields = examined.finish()?;
    let op = op.expect("a line without an operation is refused");
    Ok(asked(op, fields, condition))
}

/// A delete may come with the whole user: only its id counts.
fn asked(op: Op, fields: Fields, condition: Option<Condition>) -> Asked {
    let Fields { id, name, email, group } = fields;
    let id = id.map_or_else(Uuid::now_v7, |id| id.0);
    let operation = match op {
        Op::Create => {
            let group = Some(group.unwrap_or(0));
            Operation::Create(Change { alive: Some(true), name, email, group, ..Change::default() })
        }
        Op::Update => Operation::Update(Change { name, email, group, ..Change::default() }),
        Op::Delete => Operation::Delete,
    };
    Asked { id, operation, condition }
}

#[cfg(test)]
mod tests {
    use protocol::Version;

    use super::*;

    const ID: &str = "0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071";

    fn problem(text: &str) -> String {
        format!("{:?}", parse(text.as_bytes()).expect_err(text))
    }

    #[test]
    fn good_lines_are_understood_by_both_ways() {
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
            assert_eq!(strictly(text.as_bytes()).as_ref(), Some(&expected), "{text}");
            assert_eq!(thoroughly(text.as_bytes()).ok(), Some(expected), "{text}");
        }
        let made = parse(br#"{"op":"create","name":"n","email":"a@b"}"#).expect("an id is made");
        assert_eq!(made.id.get_version_num(), 7);
    }

    #[test]
    fn bad_lines_say_all_that_is_wrong_and_neither_way_takes_them() {
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
            assert_eq!(strictly(text.as_bytes()), None, "{text}");
            for part in expected {
                assert!(problem(&text).contains(part), "{text}: {}", problem(&text));
            }
        }
    }
}
