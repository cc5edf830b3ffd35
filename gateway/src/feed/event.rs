//! One change as subscribers get it: the request's own words, so that a change that was just made and
//! one that is read from an op-log later are the same bytes.
//!
//! * `created`: the whole user.
//! * `updated`: the id and the fields that were set.
//! * `deleted`: the id.
//! * `unknown`: the id of a user that a write may have been applied.

use bytes::Bytes;
use protocol::message::link::Versioned;
use protocol::{UserId, Version};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::engine::Published;

/// What an event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is a new user.
    Created,
    /// Some fields of a user were set.
    Updated,
    /// A user is gone.
    Deleted,
    /// A write of a user may have been applied.
    Unknown,
}

impl Kind {
    /// Name of the event.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::Unknown => "unknown",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct FeedEvent {
    /// Its place in the feed, and its id.
    pub version: Version,
    /// What it says.
    pub kind: Kind,
    /// The user, or what is known of it.
    pub data: Box<RawValue>,
    /// All of it as an event of an event stream (HTML, section 9.2).
    pub frame: Bytes,
}

#[derive(Serialize)]
struct Data<'a> {
    id: UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<i32>,
}

impl FeedEvent {
    /// Renders what is published.
    pub fn new(published: &Published) -> Self {
        match published {
            Published::Change(change) => Self::change(change),
            Published::Unknown { version, id } => {
                let data = Data { id: *id, name: None, email: None, group: None };
                Self::put(*version, Kind::Unknown, &data)
            }
        }
    }

    /// Renders a change, as it was acknowledged or as an op-log has it.
    pub fn change(Versioned { version, id, change }: &Versioned) -> Self {
        let kind = match change.alive {
            Some(true) => Kind::Created,
            Some(false) => Kind::Deleted,
            None => Kind::Updated,
        };
        let (name, email) = (change.name.as_deref(), change.email.as_deref());
        Self::put(*version, kind, &Data { id: *id, name, email, group: change.group })
    }

    fn put(version: Version, kind: Kind, data: &Data<'_>) -> Self {
        let data = to_raw_value(data).expect("strings and numbers always serialize");
        // A JSON text has no line break outside of escapes, so it is one line of the event.
        let frame = format!("event: {}\nid: {version}\ndata: {}\n\n", kind.name(), data.get());
        Self { version, kind, data, frame: Bytes::from(frame) }
    }
}

#[cfg(test)]
mod tests {
    use protocol::Change;

    use super::*;

    fn frame(change: Change) -> String {
        let event = FeedEvent::change(&Versioned { version: Version(0xab), id: UserId::nil(), change });
        String::from_utf8(event.frame.to_vec()).expect("text")
    }

    #[test]
    fn a_change_has_the_words_of_the_request() {
        let name = || Some("a\n\u{2028}\"b".to_owned());
        let email = || Some("a@b".to_owned());
        let created =
            Change { alive: Some(true), name: name(), email: email(), group: Some(0), ..Change::default() };
        let id = r#""id":"00000000-0000-0000-0000-000000000000""#;
        assert_eq!(
            frame(created),
            format!(
                "event: created\nid: 00000000000000ab\ndata: {{{id},\"name\":\"a\\n\u{2028}\\\"b\",\
                 \"email\":\"a@b\",\"group\":0}}\n\n"
            )
        );
        let updated = frame(Change { group: Some(-1), ..Change::default() });
        assert_eq!(updated, format!("event: updated\nid: 00000000000000ab\ndata: {{{id},\"group\":-1}}\n\n"));
        let deleted = frame(Change { alive: Some(false), ..Change::default() });
        assert_eq!(deleted, format!("event: deleted\nid: 00000000000000ab\ndata: {{{id}}}\n\n"));
    }
}
