//! What a load knows of one user, and how that becomes a request and comes back in an answer.
//!
//! A user of the load is two numbers: one in the name, one in the group. No number is written twice to the
//! same user, so an answer says which writes it has seen.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use protocol::User;
use serde::Serialize;
use uuid::Uuid;

const EMAIL: &str = "drill@example.org";

/// The registers of a user that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct Value {
    pub(crate) name: u32,
    pub(crate) group: u32,
}

/// A user at one moment; `None`: there is no such user.
pub(crate) type State = Option<Value>;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    Read,
    Create(Value),
    /// Sets what is given.
    Update {
        name: Option<u32>,
        group: Option<u32>,
    },
    Delete,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
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

/// One request, from when it was sent to when it was answered.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Event {
    pub(crate) action: Action,
    pub(crate) outcome: Outcome,
    /// Nanoseconds since the start of the load.
    pub(crate) sent: u64,
    /// As above; means nothing where the outcome is unknown.
    pub(crate) answered: u64,
}

/// All that one user went through in one window.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct History {
    pub(crate) id: Uuid,
    /// What it was before.
    pub(crate) initial: State,
    /// In the order of their answers.
    pub(crate) events: Vec<Event>,
}

impl Action {
    /// Method, path and body of the request.
    pub(crate) fn request(self, id: Uuid) -> (hyper::Method, String, Option<String>) {
        let one = format!("/api/user/{id}");
        let name = |name: u32| format!(r#","name":"Drill {name}""#);
        let group = |group: u32| format!(r#","group":{group}"#);
        let body = |fields: String| Some(format!(r#"{{"id":"{id}"{fields}}}"#));
        match self {
            Self::Read => (hyper::Method::GET, one, None),
            Self::Delete => (hyper::Method::DELETE, one, None),
            Self::Create(value) => {
                let fields = format!(r#"{},"email":"{EMAIL}"{}"#, name(value.name), group(value.group));
                (hyper::Method::POST, "/api/user".to_owned(), body(fields))
            }
            Self::Update { name: new_name, group: new_group } => {
                let fields =
                    new_name.map(name).unwrap_or_default() + &new_group.map(group).unwrap_or_default();
                (hyper::Method::PUT, "/api/user".to_owned(), body(fields))
            }
        }
    }

    /// What an answer means; `None` where it is none of those that the request can have.
    pub(crate) fn outcome(self, id: Uuid, status: u16, body: &[u8]) -> Option<Outcome> {
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

/// A user under load.
#[derive(Debug)]
pub(crate) struct LoadedUser {
    pub(crate) id: Uuid,
    initial: State,
    events: Mutex<Vec<Event>>,
    /// The number that was written last.
    last: AtomicU32,
    /// Whether it seems to exist. Only a hint for what to do next.
    exists: AtomicBool,
}

impl LoadedUser {
    /// One that nobody knows.
    pub(crate) fn fresh() -> Self {
        Self::known(Uuid::new_v4(), None, 0)
    }

    fn known(id: Uuid, initial: State, last: u32) -> Self {
        let exists = AtomicBool::new(initial.is_some());
        Self { id, initial, events: Mutex::default(), last: AtomicU32::new(last), exists }
    }

    /// A number that was not written to it yet.
    pub(crate) fn next(&self) -> u32 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn seems_to_exist(&self) -> bool {
        self.exists.load(Ordering::Relaxed)
    }

    /// Adds to its history, and returns how long that is.
    pub(crate) fn note(&self, event: Event) -> usize {
        match event.outcome {
            Outcome::User(_) | Outcome::Exists => self.exists.store(true, Ordering::Relaxed),
            Outcome::Gone | Outcome::Absent => self.exists.store(false, Ordering::Relaxed),
            Outcome::Unknown => {}
        }
        let mut events = self.events.lock().expect("no one panics while he adds an event");
        events.push(event);
        events.len()
    }

    /// The history of the window that ends, and the user for the next one.
    ///
    /// It is the same user where it is known how it stands: nothing is unknown, and the last event is a read
    /// with nothing else under way. Else another one takes its place, as an unknown write may still come
    /// about.
    pub(crate) fn seal(&self) -> (History, Self) {
        let events = std::mem::take(&mut *self.events.lock().expect("no one panics while he adds an event"));
        let open = events.iter().any(|event| event.outcome == Outcome::Unknown);
        let last = self.last.load(Ordering::Relaxed);
        let next = match events.last().map(|event| (event.action, event.outcome)) {
            Some((Action::Read, Outcome::User(value))) if !open => Self::known(self.id, Some(value), last),
            Some((Action::Read, Outcome::Absent)) if !open => Self::known(self.id, None, last),
            _ => Self::fresh(),
        };
        (History { id: self.id, initial: self.initial, events }, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(7);

    fn event(action: Action, outcome: Outcome) -> Event {
        Event { action, outcome, sent: 1, answered: 2 }
    }

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

    #[test]
    fn a_known_user_goes_on_and_an_unknown_one_is_replaced() {
        let value = Value { name: 1, group: 2 };
        let user = LoadedUser::fresh();
        assert_eq!((user.next(), user.next()), (1, 2));
        user.note(event(Action::Create(value), Outcome::User(value)));
        assert_eq!(user.note(event(Action::Read, Outcome::User(value))), 2);
        let (history, next) = user.seal();
        assert_eq!((history.initial, history.events.len()), (None, 2));
        assert_eq!((next.id, next.initial, next.next()), (user.id, Some(value), 3));
        assert!(next.seems_to_exist());

        next.note(event(Action::Delete, Outcome::Unknown));
        next.note(event(Action::Read, Outcome::User(value)));
        let (history, after) = next.seal();
        assert_eq!(history.initial, Some(value));
        assert_ne!(after.id, user.id, "the delete may still come about");
        assert!(!after.seems_to_exist());
    }
}
