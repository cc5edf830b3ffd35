//! What one connection of a load does, one request after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use uuid::Uuid;

use super::Shared;
use super::history::{Action, Event, Outcome, Value};
use super::meter::Failure;
use super::users::LoadedUser;
use crate::client::{Answer, Client, Endpoint, RequestError};
use crate::random::Random;

/// Before the next request of a connection whose request failed.
const PAUSE: Duration = Duration::from_millis(5);

/// How a gateway says that a write was not done, for certain. Any other refusal leaves it open.
const NOTHING_DONE: &str = "Nothing was done";

pub(super) struct Connection {
    number: usize,
    client: Client,
    random: Random,
    shared: Arc<Shared>,
}

impl Connection {
    pub(super) fn new(number: usize, endpoint: Endpoint, seed: u64, shared: Arc<Shared>) -> Self {
        let random = Random::stream(seed, number as u64);
        Self { number, client: Client::new(endpoint), random, shared }
    }

    /// Reads and writes until the window ends.
    pub(super) async fn work(mut self) -> Self {
        let shared = Arc::clone(&self.shared);
        while !shared.stop.load(Ordering::Relaxed) {
            let reads = shared.mix.next_reads(self.number, &mut self.random);
            let (place, user) = if reads {
                shared.users.to_read(&mut self.random)
            } else {
                shared.users.to_write(self.number, &mut self.random)
            };
            let action = if reads { Action::Read } else { choose(&user, &mut self.random) };
            if let Some(length) = self.ask(&user, action).await {
                shared.users.noted(place, &user, length);
            }
        }
        self
    }

    /// Reads each of these once.
    pub(super) async fn look(mut self, users: Vec<Arc<LoadedUser>>) -> Self {
        for user in users {
            self.ask(&user, Action::Read).await;
        }
        self
    }

    /// Deletes each of these; there may be none of them.
    pub(super) async fn delete(self, ids: Vec<Uuid>) -> Self {
        for id in ids {
            let _ = self.client.send(Method::DELETE, &format!("/api/user/{id}"), None).await;
        }
        self
    }

    /// One request, noted in the history of the user and in the measurements. Returns the length of the
    /// history, where it became longer.
    async fn ask(&mut self, user: &LoadedUser, action: Action) -> Option<usize> {
        let (method, path, body) = action.request(user.id);
        let request = format!("{method} {path}");
        let sent = self.shared.now();
        let result = self.client.send(method, &path, body).await;
        let answered = self.shared.now();
        let (outcome, failure) = judge(user.id, action, request, &result);
        let failed = failure.is_some();
        self.shared.meter().note(action.is_read(), sent, answered, failure);
        // A read that failed says nothing about the user.
        let event = outcome.filter(|outcome| !(action.is_read() && *outcome == Outcome::Unknown));
        let length = event.map(|outcome| user.note(Event { action, outcome, sent, answered }));
        if failed {
            tokio::time::sleep(PAUSE).await;
        }
        length
    }
}

/// What to write: mostly what has an effect, at times what is refused.
fn choose(user: &LoadedUser, random: &mut Random) -> Action {
    let chance = random.below(100);
    let number = user.next();
    let create = Action::Create(Value { name: number, group: number });
    if user.seems_to_exist() {
        match chance {
            0..5 => create,
            5..13 => Action::Delete,
            13..30 => Action::Update { name: Some(number), group: None },
            30..45 => Action::Update { name: Some(number), group: Some(number) },
            _ => Action::Update { name: None, group: Some(number) },
        }
    } else {
        match chance {
            0..5 => Action::Delete,
            5..15 => Action::Update { name: None, group: Some(number) },
            _ => create,
        }
    }
}

/// What came of a request: for the history (`None`: nothing was done) and for the measurements.
fn judge(
    id: Uuid,
    action: Action,
    request: String,
    result: &Result<Answer, RequestError>,
) -> (Option<Outcome>, Option<Failure>) {
    let unknown = Some(Outcome::Unknown);
    let (outcome, request, what, disconnected) = match result {
        Ok(answer) => {
            let outcome = action.outcome(id, answer.status.as_u16(), &answer.body);
            if outcome.is_some() {
                return (outcome, None);
            }
            let reason = answer.reason();
            let nothing_done =
                answer.status == StatusCode::SERVICE_UNAVAILABLE && reason.contains(NOTHING_DONE);
            (unknown.filter(|_| !nothing_done), request, reason, false)
        }
        Err(RequestError::Refused(error)) => (None, "a new connection".to_owned(), error.clone(), true),
        Err(error) => (unknown, request, error.to_string(), matches!(error, RequestError::Broken(_))),
    };
    (outcome, Some(Failure { request, what, disconnected }))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn judged(action: Action, status: u16, body: &str) -> (Option<Outcome>, Option<Failure>) {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: reqwest::header::HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        judge(Uuid::nil(), action, "a request".to_owned(), &Ok(answer))
    }

    #[test]
    fn a_refused_write_is_not_done_and_a_late_one_is_unknown() {
        let (outcome, failure) =
            judged(Action::Delete, 503, r#"{"detail":"Nothing was done: db-1 is away."}"#);
        assert_eq!(failure.unwrap().what, "503 Service Unavailable: Nothing was done: db-1 is away.");
        assert_eq!(outcome, None);
        let (outcome, failure) = judged(Action::Delete, 503, r#"{"detail":"No answer: the gateway stops."}"#);
        assert_eq!((outcome, failure.unwrap().disconnected), (Some(Outcome::Unknown), false));
        let (outcome, failure) = judged(Action::Delete, 504, "");
        assert_eq!((outcome, failure.unwrap().disconnected), (Some(Outcome::Unknown), false));
        assert_eq!(judged(Action::Delete, 404, ""), (Some(Outcome::Absent), None));
    }

    #[test]
    fn without_an_answer_it_depends_on_whether_it_was_sent() {
        let judged = |error| {
            let judged = judge(Uuid::nil(), Action::Delete, "a request".to_owned(), &Err(error));
            (judged.0, judged.1.unwrap().disconnected)
        };
        let refused = RequestError::Refused("refused".to_owned());
        assert_eq!(judged(refused), (None, true));
        assert_eq!(judged(RequestError::Broken("reset".to_owned())), (Some(Outcome::Unknown), true));
        assert_eq!(
            judged(RequestError::TimedOut(String::new(), Duration::ZERO)),
            (Some(Outcome::Unknown), false)
        );
    }

    #[test]
    fn all_kinds_of_writes_are_chosen() {
        let mut random = Random::new(1);
        let user = LoadedUser::fresh();
        let absent: Vec<Action> = (0..200).map(|_| choose(&user, &mut random)).collect();
        let value = Value { name: 0, group: 0 };
        user.note(Event { action: Action::Read, outcome: Outcome::User(value), sent: 0, answered: 1 });
        let present: Vec<Action> = (0..200).map(|_| choose(&user, &mut random)).collect();
        for actions in [absent, present] {
            assert!(actions.iter().any(|action| matches!(action, Action::Create(_))));
            assert!(actions.iter().any(|action| matches!(action, Action::Update { .. })));
            assert!(actions.contains(&Action::Delete));
        }
    }
}
