//! What is known of one user under load: the requests about it, and their answers.
//!
//! A user of the load is two numbers: one in the name, one in the group. No number is written twice to the
//! same user, so an answer says which writes it has seen.

use protocol::User;
use reqwest::Method;
use serde::Serialize;
use uuid::Uuid;

use crate::linear::{self, Call, Finding};

const EMAIL: &str = "drill@example.org";

/// The fields of a user that exists, as far as a load changes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Value {
    /// The number in its name.
    pub name: u32,
    /// Its group.
    pub group: u32,
}

/// A user at one moment; `None`: there is no such user.
pub type State = Option<Value>;

/// A request about a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// `GET`.
    Read,
    /// `POST`.
    Create(Value),
    /// `PUT` of the fields that are given.
    Update {
        /// A new number in its name.
        name: Option<u32>,
        /// A new group.
        group: Option<u32>,
    },
    /// `DELETE`.
    Delete,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The user as it is found, created or updated.
    User(Value),
    /// Deleted.
    Gone,
    /// There is no such user.
    Absent,
    /// There is one already.
    Exists,
    /// It may have been done, or may be done later, or never.
    Unknown,
}

/// One request, from when it was sent to when it was answered. Moments are in nanoseconds since the start of
/// the load.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Event {
    /// What was asked.
    pub action: Action,
    /// What came of it.
    pub outcome: Outcome,
    /// When it was sent.
    pub sent: u64,
    /// When it was answered; means nothing where the outcome is unknown.
    pub answered: u64,
}

/// All requests about one user in one window.
#[derive(Clone, Debug, Serialize)]
pub struct History {
    /// The user.
    pub id: Uuid,
    /// What it was before.
    pub initial: State,
    /// In the order of their answers.
    pub events: Vec<Event>,
}

/// Whether the events fit one order that begins with `initial`.
pub fn check<'a>(initial: State, events: impl IntoIterator<Item = &'a Event>) -> Finding {
    let events: Vec<&Event> = events.into_iter().collect();
    let call = |event: &&Event| Call {
        called: event.sent,
        answered: (event.outcome != Outcome::Unknown).then_some(event.answered),
    };
    let calls: Vec<Call> = events.iter().map(call).collect();
    linear::search(initial, &calls, |index, state| events[index].action.after(state, events[index].outcome))
}

impl Action {
    /// Method, path and body of the request.
    pub(super) fn request(self, id: Uuid) -> (Method, String, Option<String>) {
        let one = format!("/api/user/{id}");
        let fields = |name: Option<u32>, email: &str, group: Option<u32>| {
            let name = name.map(|name| format!(r#","name":"Drill {name}""#)).unwrap_or_default();
            let group = group.map(|group| format!(r#","group":{group}"#)).unwrap_or_default();
            Some(format!(r#"{{"id":"{id}"{name}{email}{group}}}"#))
        };
        match self {
            Self::Read => (Method::GET, one, None),
            Self::Delete => (Method::DELETE, one, None),
            Self::Create(Value { name, group }) => {
                let email = format!(r#","email":"{EMAIL}""#);
                (Method::POST, "/api/user".to_owned(), fields(Some(name), &email, Some(group)))
            }
            Self::Update { name, group } => (Method::PUT, "/api/user".to_owned(), fields(name, "", group)),
        }
    }

    /// What an answer means; `None` where it is none of those that the request can have.
    pub(super) fn outcome(self, id: Uuid, status: u16, body: &[u8]) -> Option<Outcome> {
        match (self, status) {
            (Self::Read | Self::Update { .. }, 200) | (Self::Create(_), 201) => {
                value(id, body).map(Outcome::User)
            }
            (Self::Read | Self::Update { .. } | Self::Delete, 404) => Some(Outcome::Absent),
            (Self::Create(_), 409) => Some(Outcome::Exists),
            (Self::Delete, 204) => Some(Outcome::Gone),
            _ => None,
        }
    }

    /// The user after a request with that outcome; `None` where it cannot have had that outcome.
    fn after(self, state: State, outcome: Outcome) -> Option<State> {
        let (next, expected) = match (self, state) {
            (Self::Read, Some(value)) => (state, Outcome::User(value)),
            (Self::Create(value), None) => (Some(value), Outcome::User(value)),
            (Self::Create(_), Some(_)) => (state, Outcome::Exists),
            (Self::Update { name, group }, Some(old)) => {
                let new = Value { name: name.unwrap_or(old.name), group: group.unwrap_or(old.group) };
                (Some(new), Outcome::User(new))
            }
            (Self::Delete, Some(_)) => (None, Outcome::Gone),
            (Self::Read | Self::Update { .. } | Self::Delete, None) => (None, Outcome::Absent),
        };
        (outcome == Outcome::Unknown || outcome == expected).then_some(next)
    }

    pub(crate) fn is_read(self) -> bool {
        self == Self::Read
    }
}

/// The numbers in a user as it was answered; `None` where it is not the one asked for, or not made by a load.
fn value(id: Uuid, body: &[u8]) -> Option<Value> {
    let user: User = serde_json::from_slice(body).ok()?;
    let name = user.name.strip_prefix("Drill ")?.parse().ok()?;
    (user.id == id && user.email == EMAIL).then_some(Value { name, group: user.group.try_into().ok()? })
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod linearizable;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(7);

    #[test]
    fn a_request_carries_the_numbers_and_an_answer_brings_them_back() {
        let value = Value { name: 3, group: 4 };
        let (method, path, body) = Action::Create(value).request(ID);
        assert_eq!((method.as_str(), path.as_str()), ("POST", "/api/user"));
        let body = body.unwrap();
        assert_eq!(Action::Create(value).outcome(ID, 201, body.as_bytes()), Some(Outcome::User(value)));
        assert_eq!(Action::Read.outcome(ID, 200, body.as_bytes()), Some(Outcome::User(value)));
        assert_eq!(Action::Read.outcome(Uuid::nil(), 200, body.as_bytes()), None, "another user");
        let (_, _, body) = Action::Update { name: None, group: Some(9) }.request(ID);
        assert_eq!(body.unwrap(), format!(r#"{{"id":"{ID}","group":9}}"#));
    }

    #[test]
    fn an_answer_that_a_request_cannot_have_means_nothing() {
        let value = Value { name: 3, group: 4 };
        for (action, status) in [
            (Action::Read, 409),
            (Action::Read, 503),
            (Action::Create(value), 404),
            (Action::Delete, 200),
            (Action::Update { name: None, group: None }, 409),
            (Action::Read, 200), // with a body that is no user
        ] {
            assert_eq!(action.outcome(ID, status, b"{}"), None, "{action:?} {status}");
        }
    }
}
