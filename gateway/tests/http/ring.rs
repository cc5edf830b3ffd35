//! A test double of the ring: it answers the engine's channel from one map, with the real records and
//! versions.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::request::Builder;
use axum::http::{HeaderMap, Request as HttpRequest, StatusCode};
use gateway::engine::{FeedStart, Published};
use gateway::engine_task::{EngineHandle, OneOfMany, OrderRefused, Reply, Request, Unserved, Written};
use gateway::feed::Hub;
use gateway::http::{Access, HttpSettings, router};
use gateway::status::{ClusterStatus, PartitionStatus, ProcessStatus, Served};
use protocol::message::link::{Found, Role, Versioned, WriteAnswer};
use protocol::message::query::{
    Answer as CopyAnswer, BUCKETS, ChangesAnswer, ChangesQuery, CountAnswer, CountQuery, DigestAnswer,
    EraseAnswer, Filter, Listed, PageAnswer, PageQuery, Query,
};
use protocol::placement::partition_of;
use protocol::user::fold_email;
use protocol::{
    Change, Condition, Operation, Outcome, Record, Register, User, UserId, Version, VersionClock,
};
use serde_json::Value;
use serde_json::value::to_raw_value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uuid::Uuid;

use crate::contract;

pub(crate) const ID: &str = "0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071";
pub(crate) const SIZE: u16 = 3;

/// Nothing that a test waits for takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How the ring behaves.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Mood {
    #[default]
    Serving,
    /// Fails every read and write.
    Failing(Unserved),
    /// Never answers a read or a write, but says what the ring looks like.
    Silent,
    /// Answers writes of a stream when so many have come together, all at once.
    Gathering(usize),
    /// Never answers anything.
    Dead,
}

/// Settings with which no token is needed.
pub(crate) fn anonymous() -> HttpSettings {
    HttpSettings { access: Access::new(Vec::new(), true), ..HttpSettings::default() }
}

/// The HTTP side in front of a ring that behaves as it is set.
pub(crate) struct Api {
    pub(crate) router: Router,
    mood: Arc<Mutex<Mood>>,
}

impl Api {
    pub(crate) fn new() -> Self {
        Self::with(&anonymous())
    }

    pub(crate) fn with(settings: &HttpSettings) -> Self {
        let (engine, questions) = EngineHandle::channel();
        let mood = Arc::default();
        let feed = Arc::clone(engine.feed());
        tokio::spawn(answer(questions, Arc::clone(&mood), Arc::clone(&feed)));
        tokio::spawn(async move { feed.wake(CancellationToken::new()).await });
        Self { router: router(engine, settings), mood }
    }

    pub(crate) fn impatient() -> Self {
        Self::with(&HttpSettings { deadline: Duration::from_millis(50), ..anonymous() })
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.lock().expect("no test panics with the lock") = mood;
    }

    pub(crate) async fn send(&self, request: HttpRequest<Body>) -> Answer {
        let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
        let response = self.router.clone().oneshot(request).await.expect("a router answers everything");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a whole body");
        let answer = Answer { status: parts.status, headers: parts.headers, body: body.to_vec() };
        contract::check(&method, &path, &answer);
        answer
    }

    /// Sends without a body.
    pub(crate) async fn bare(&self, method: &str, path: &str) -> Answer {
        self.send(call(method, path).body(Body::empty()).expect("a request")).await
    }

    /// Sends JSON.
    pub(crate) async fn json(&self, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        let request = call(method, path).header("content-type", "application/json");
        self.send(request.body(body.into()).expect("a request")).await
    }
}

pub(crate) fn call(method: &str, path: &str) -> Builder {
    HttpRequest::builder().method(method).uri(path).header("host", "localhost")
}

/// Of a connection from there: an extension of a request.
pub(crate) fn address(host: u8) -> ConnectInfo<SocketAddr> {
    ConnectInfo(SocketAddr::from(([10, 0, 0, host], 1_024)))
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Checks that this is a problem in every respect, and returns it.
    pub(crate) fn problem(&self, status: u16, name: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["type"], format!("urn:corro:problem:{name}"));
        assert_eq!(problem["status"], status);
        assert_eq!(problem["instance"], self.header("x-request-id"));
        for text in ["title", "detail"] {
            assert!(problem[text].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
        }
        problem
    }
}

async fn answer(mut questions: UnboundedReceiver<Request>, mood: Arc<Mutex<Mood>>, feed: Arc<Hub>) {
    let mut users = Users {
        feed,
        begun: false,
        log: Vec::new(),
        records: HashMap::new(),
        clock: VersionClock::default(),
    };
    // A question that is never answered still has to stay: dropping it would say that the engine is
    // gone.
    let mut unanswered = Vec::new();
    let mut gathered = Vec::new();
    while let Some(question) = questions.recv().await {
        let mood = mood.lock().expect("no test panics with the lock").clone();
        match (mood, question) {
            (Mood::Dead, question)
            | (
                Mood::Silent,
                question @ (Request::Read { .. }
                | Request::Write { .. }
                | Request::WriteMany { .. }
                | Request::Question { .. }),
            ) => {
                unanswered.push(question);
            }
            (Mood::Failing(why), Request::Read { reply, .. }) => drop(reply.send(Err(why))),
            (Mood::Failing(why), Request::Write { reply, .. }) => {
                drop(reply.send(Written { version: Version(1), result: Err(why) }));
            }
            (Mood::Failing(why), Request::Question { reply, .. }) => drop(reply.send(Err(why))),
            (Mood::Serving, Request::Read { id, reply }) => drop(reply.send(Ok(users.read(id)))),
            (Mood::Serving, Request::Write { id, operation, condition, omit_user, reply }) => {
                let mut answer = users.write(id, &operation, condition.as_ref());
                if omit_user && answer.outcome == Outcome::Applied {
                    answer.user = None;
                }
                drop(reply.send(Written { version: users.version(id), result: Ok(answer) }));
            }
            (Mood::Failing(why), Request::WriteMany { writes, replies }) => {
                for OneOfMany { ticket, .. } in writes {
                    drop(replies.send(Reply { ticket, version: Version(1), result: Err(why.clone()) }));
                }
            }
            (Mood::Serving, Request::WriteMany { writes, replies }) => {
                writes.into_iter().for_each(|write| users.write_one(write, &replies));
            }
            (Mood::Gathering(enough), Request::WriteMany { writes, replies }) => {
                gathered.extend(writes);
                if gathered.len() >= enough {
                    gathered.drain(..).for_each(|write| users.write_one(write, &replies));
                }
            }
            (Mood::Gathering(_), Request::Read { .. } | Request::Write { .. } | Request::Question { .. }) => {
                unreachable!("only streams are gathered");
            }
            (Mood::Serving, Request::Question { partition, query, reply }) => {
                drop(reply.send(Ok(users.question(partition, &query))));
            }
            (Mood::Failing(why), Request::PurgeUser { reply, .. }) => {
                drop(reply.send(Written { version: Version(1), result: Err(why) }));
            }
            (_, Request::PurgeUser { id, reply }) => {
                users.records.remove(&id);
                let answer = WriteAnswer { outcome: Outcome::Applied, sequence: 0, user: None };
                drop(reply.send(Written { version: users.clock.last(), result: Ok(answer) }));
            }
            (_, Request::EraseInCopy { reply, .. }) => {
                let answer = EraseAnswer { query: 0, erased: true };
                drop(reply.send(Ok(CopyAnswer::EraseAnswer(answer))));
            }
            (_, Request::Size { reply }) => drop(reply.send(Ok(SIZE))),
            (Mood::Failing(why), Request::Subscribe { reply }) => drop(reply.send(Err(why))),
            (_, Request::Subscribe { reply }) => drop(reply.send(Ok(users.subscribe()))),
            (_, Request::PauseWrites { reply, .. }) => {
                let _ = reply.send(());
            }
            (_, Request::Repair { partition, reply, .. }) => {
                let why = "db-0 has to come back".to_owned();
                drop(reply.send(Err(OrderRefused::NotRepairable { partition, why })));
            }
            (_, Request::Promote { partition, reply }) => drop(reply.send(promote(partition))),
            (mood, Request::Status { reply }) => drop(reply.send(status(mood == Mood::Serving))),
        }
    }
}

/// Of this ring, only partition 1 can be promoted.
fn promote(partition: u16) -> Result<(), OrderRefused> {
    match partition {
        0 => Err(OrderRefused::Served { partition }),
        1 => Ok(()),
        2 => Err(OrderRefused::NoCandidate { partition, waiting_for: "db-0 has to come back".to_owned() }),
        _ => Err(OrderRefused::NoSuchPartition { partition, size: SIZE }),
    }
}

fn process(place: u16) -> ProcessStatus {
    ProcessStatus {
        name: format!("db-{place}"),
        place,
        connected: true,
        address: None,
        incarnation: None,
        frames: 0,
        since_millis: None,
        usage: None,
    }
}

fn status(ready: bool) -> ClusterStatus {
    let partitions = (0..SIZE).map(|partition| PartitionStatus {
        partition,
        lead: None,
        role: Role::Primary,
        reads: true,
        writes: ready || partition != 1,
        both_read: ready,
        unreplicated: 0,
        unreplicated_millis: 0,
        link_down: false,
        copies: Vec::new(),
        waiting_for: (!ready && partition == 1).then(|| "db-1 has to come back".to_owned()),
    });
    ClusterStatus {
        epoch: 0,
        ring: None,
        size: SIZE,
        ready,
        processes: (0..SIZE).map(process).collect(),
        partitions: partitions.collect(),
        served: Served::default(),
        events: Vec::new(),
    }
}

struct Users {
    feed: Arc<Hub>,
    begun: bool,
    log: Vec<Versioned>,
    records: HashMap<UserId, Record>,
    clock: VersionClock,
}

impl Users {
    fn subscribe(&mut self) -> FeedStart {
        let from = self.clock.last();
        if !std::mem::replace(&mut self.begun, true) {
            self.feed.begin(from);
        }
        FeedStart { from, floor: Version::ZERO, leaders: vec![Some(Role::Primary); usize::from(SIZE)] }
    }

    fn write_one(&mut self, write: OneOfMany, replies: &UnboundedSender<Reply>) {
        let OneOfMany { ticket, id, operation, condition } = write;
        let answer = self.write(id, &operation, condition.as_ref());
        drop(replies.send(Reply { ticket, version: self.version(id), result: Ok(answer) }));
    }

    fn read(&self, id: UserId) -> Option<Found> {
        let record = self.records.get(&id).filter(|record| record.is_alive())?;
        Some(Found(record.version(), to_raw_value(&record.to_user(id)).expect("a user is JSON")))
    }

    /// The op-logs reach back to just after nothing.
    fn changes(&self, changes: Vec<Versioned>) -> CopyAnswer {
        let (floor, foreign) = (Version(1), Version::ZERO);
        CopyAnswer::ChangesAnswer(ChangesAnswer { query: 0, changes, more: false, floor, foreign })
    }

    /// As the copy of that partition answers.
    fn question(&self, partition: u16, query: &Query) -> CopyAnswer {
        let mut ids: Vec<UserId> =
            self.records.keys().filter(|id| partition_of(id, SIZE) == partition).copied().collect();
        ids.sort_unstable();
        let live = ids.into_iter().filter_map(|id| {
            let record = self.records.get(&id).filter(|record| record.is_alive())?;
            Some((id, record, record.to_user(id)))
        });
        match query {
            Query::PageQuery(PageQuery { after, limit, filter, .. }) => {
                let mut users = live
                    .filter(|(id, _, user)| after.is_none_or(|after| *id > after) && fits(user, filter))
                    .map(|(id, record, user)| {
                        Listed(id, record.version(), to_raw_value(&user).expect("a user is JSON"))
                    })
                    .collect::<Vec<_>>();
                let more = users.len() > *limit as usize;
                users.truncate(*limit as usize);
                CopyAnswer::PageAnswer(PageAnswer { query: 0, users, more })
            }
            Query::CountQuery(CountQuery { group, .. }) => {
                let count = live.filter(|(_, _, user)| group.is_none_or(|group| user.group == group)).count();
                CopyAnswer::CountAnswer(CountAnswer { query: 0, count: count as u64 })
            }
            Query::ChangesQuery(ChangesQuery { role: Role::Replica, .. }) => self.changes(Vec::new()),
            Query::ChangesQuery(ChangesQuery { after, upto, .. }) => {
                let wanted = |change: &&Versioned| {
                    partition_of(&change.id, SIZE) == partition
                        && (after < &change.version && &change.version <= upto)
                };
                self.changes(self.log.iter().filter(wanted).cloned().collect())
            }
            Query::TombstoneQuery(_) => unreachable!("no route asks for them"),
            Query::EraseQuery(_) => unreachable!("it is asked for by a request of its own"),
            Query::DigestQuery(_) => {
                let users = live.count() as u64;
                CopyAnswer::DigestAnswer(DigestAnswer {
                    query: 0,
                    incarnation: Uuid::nil(),
                    head: 0,
                    position: None,
                    users,
                    records: users,
                    digests: vec![users; BUCKETS],
                    damage: Vec::new(),
                })
            }
        }
    }

    fn version(&self, id: UserId) -> Version {
        self.records.get(&id).map_or(Version::ZERO, Record::version)
    }

    fn write(&mut self, id: UserId, operation: &Operation, condition: Option<&Condition>) -> WriteAnswer {
        let live = self.records.get(&id).filter(|record| record.is_alive()).map(Record::version);
        if let Operation::Create(Change { request: Some(asked), .. }) = operation
            && let Some(Register(version, known)) =
                self.records.get(&id).and_then(|record| record.request.clone())
            && known.key == asked.key
        {
            let user = Record::from_change(version, &operation.change()).to_user(id);
            let user = Some(Found(version, to_raw_value(&user).expect("a user is JSON")));
            let same = known.body == asked.body;
            return match same {
                true => WriteAnswer { outcome: Outcome::Repeated, sequence: 0, user },
                false => WriteAnswer { outcome: Outcome::KeyReused, sequence: 0, user: None },
            };
        }
        let outcome = decide(live, operation, condition);
        if outcome == Outcome::Applied {
            let (version, change) = (self.clock.next(1), operation.change());
            self.records
                .entry(id)
                .and_modify(|record| {
                    assert!(record.apply(version, &change), "a newer version changes something");
                })
                .or_insert_with(|| Record::from_change(version, &change));
            let change = Versioned { version, id, change };
            self.log.push(change.clone());
            self.feed.publish(&[Published::Change(change)]);
        }
        WriteAnswer { outcome, sequence: 0, user: self.read(id) }
    }
}

fn fits(user: &User, filter: &Filter) -> bool {
    match filter {
        Filter::All => true,
        Filter::Group(group) => user.group == *group,
        Filter::Email(email) => fold_email(&user.email) == *email,
        Filter::Both(email, group) => fold_email(&user.email) == *email && user.group == *group,
    }
}

fn decide(live: Option<Version>, operation: &Operation, condition: Option<&Condition>) -> Outcome {
    match (operation, live) {
        (Operation::Create(_), Some(_)) => Outcome::Exists,
        (Operation::Create(_), None) => Outcome::Applied,
        (_, None) => Outcome::NotFound,
        (_, Some(version)) if condition.is_some_and(|condition| !condition.holds(version)) => {
            Outcome::PreconditionFailed
        }
        (Operation::Update(change), Some(_)) if change.is_empty() => Outcome::Unchanged,
        _ => Outcome::Applied,
    }
}
