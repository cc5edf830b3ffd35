//! What one connection of a load does, one request after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::{Method, StatusCode};
use uuid::Uuid;

use super::Shared;
use super::client::{Answer, Client, Trouble};
use super::meter::{Failure, Kind, Noted};
use super::random::Random;
use super::user::{Action, Event, LoadedUser, Outcome, Value};

/// A connection that got no answer, or was told to come back later, does not hammer.
const PAUSE: Duration = Duration::from_millis(5);

/// How a gateway says that a write was not done, for certain. Any other refusal leaves it open.
const NOTHING_DONE: &str = "Nothing was done";

/// No more of an answer is shown.
const LONGEST_EXCERPT: usize = 200;

pub(super) struct Connection {
    number: usize,
    client: Client,
    random: Random,
    shared: Arc<Shared>,
}

impl Connection {
    pub(super) fn new(number: usize, seed: u64, shared: Arc<Shared>) -> Self {
        let client = Client::new(shared.endpoint.clone());
        Self { number, client, random: Random::new(seed, number as u64), shared }
    }

    pub(super) fn number(&self) -> usize {
        self.number
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
    pub(super) async fn delete(mut self, ids: Vec<Uuid>) -> Self {
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
        let (outcome, noted) = judge(user.id, action, request, &result);
        let failed = !matches!(noted, Noted::Done);
        let kind = if action.is_read() { Kind::Read } else { Kind::Write };
        self.shared.meter().note(kind, sent, answered, noted);
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
    result: &Result<Answer, Trouble>,
) -> (Option<Outcome>, Noted) {
    let failure = |what: String| Failure { request, what };
    match result {
        Ok(answer) => match action.outcome(id, answer.status.as_u16(), &answer.body) {
            Some(outcome) => (Some(outcome), Noted::Done),
            None => {
                let text = String::from_utf8_lossy(&answer.body);
                let nothing_done =
                    answer.status == StatusCode::SERVICE_UNAVAILABLE && text.contains(NOTHING_DONE);
                let outcome = (!nothing_done).then_some(Outcome::Unknown);
                (outcome, Noted::Failed(failure(format!("{}: {}", answer.status, excerpt(&text)))))
            }
        },
        Err(Trouble::Refused(error)) => (None, Noted::Unconnected(error.to_string())),
        Err(trouble @ Trouble::Broken(_)) => {
            (Some(Outcome::Unknown), Noted::Broken(failure(trouble.to_string())))
        }
        Err(trouble @ Trouble::Late) => (Some(Outcome::Unknown), Noted::Failed(failure(trouble.to_string()))),
    }
}

/// The detail of a problem, or the beginning of whatever else was answered.
fn excerpt(text: &str) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let detail = problem.as_ref().and_then(|problem| problem.get("detail")?.as_str());
    detail.unwrap_or(text).chars().take(LONGEST_EXCERPT).collect()
}

#[cfg(test)]
mod tests {
    use hyper::body::Bytes;

    use super::*;

    fn judged(action: Action, status: u16, body: &str) -> (Option<Outcome>, Noted) {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            etag: None,
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        judge(Uuid::nil(), action, "a request".to_owned(), &Ok(answer))
    }

    #[test]
    fn a_refused_write_is_not_done_and_a_late_one_is_unknown() {
        let (outcome, noted) = judged(Action::Delete, 503, r#"{"detail":"Nothing was done: db-1 is away."}"#);
        let Noted::Failed(failure) = noted else { panic!("{noted:?}") };
        assert_eq!(failure.what, "503 Service Unavailable: Nothing was done: db-1 is away.");
        assert_eq!(outcome, None);
        let (outcome, noted) = judged(Action::Delete, 503, r#"{"detail":"No answer: the gateway stops."}"#);
        assert!(outcome == Some(Outcome::Unknown) && matches!(noted, Noted::Failed(_)));
        let (outcome, noted) = judged(Action::Delete, 504, "");
        assert!(outcome == Some(Outcome::Unknown) && matches!(noted, Noted::Failed(_)));
        let (outcome, noted) = judged(Action::Delete, 404, "");
        assert!(outcome == Some(Outcome::Absent) && matches!(noted, Noted::Done));
    }

    #[test]
    fn without_an_answer_it_depends_on_whether_it_was_sent() {
        let judged = |trouble| judge(Uuid::nil(), Action::Delete, "a request".to_owned(), &Err(trouble));
        let refused = Trouble::Refused(std::io::ErrorKind::ConnectionRefused.into());
        assert!(matches!(judged(refused), (None, Noted::Unconnected(_))));
        let broken = Trouble::Broken("reset".to_owned());
        assert!(matches!(judged(broken), (Some(Outcome::Unknown), Noted::Broken(_))));
        assert!(matches!(judged(Trouble::Late), (Some(Outcome::Unknown), Noted::Failed(_))));
    }

    #[test]
    fn all_kinds_of_writes_are_chosen() {
        let mut random = Random::new(1, 1);
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
