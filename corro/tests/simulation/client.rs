//! The clients: each asks one thing after the other, and remembers the replies.

use gateway::engine::{Event, RequestId, Unserved};
use protocol::message::link::{Found, WriteAnswer};
use protocol::{Change, Condition, Operation, Outcome, User, UserId, Version};

use crate::check::Question;
use crate::config::Mode;
use crate::history::{Asked, Live, Match, Op, Reply};
use crate::world::{Happening, MILLI, SECOND, World};

/// One client.
#[derive(Debug, Default)]
pub(crate) struct Client {
    /// Its question that has no answer yet.
    pub(crate) asking: Option<u64>,
}

impl World {
    /// Asks something, or looks again later.
    pub(crate) fn client_acts(&mut self, client: usize) {
        if self.checks.asked >= self.config.operations {
            return;
        }
        // Where no request may fail, a gateway that has just started is not asked before it says that it is
        // ready.
        let patient = matches!(self.config.mode, Mode::Calm | Mode::Single);
        if !self.gateway.is_up() || patient && !self.gateway.was_ready {
            return self.after(MILLI, 30 * MILLI, Happening::Client(client));
        }
        self.checks.asked += 1;
        let user = UserId::from_u128(u128::from(self.rng.between(0, self.config.users)));
        let request = self.number();
        let group = request as i32;
        let name = self.rng.percent(50).then_some(group);
        let asked = match self.rng.next() % 20 {
            0..=7 => Asked::Read,
            8..=11 => Asked::Create(Live { group, name: group }),
            12..=16 => Asked::Update { group, name },
            17 => Asked::Touch,
            _ => Asked::Delete,
        };
        let condition =
            (asked != Asked::Read && self.rng.percent(25)).then(|| self.pick_condition(user)).flatten();
        let event = self.question(request, user, &asked, condition.as_ref());
        let groups = |versions: &Vec<Version>| {
            versions
                .iter()
                .filter_map(|version| self.checks.group_of.get(&(user, *version)).copied())
                .collect()
        };
        let condition = condition.map(|condition| match condition {
            Condition::Any => Match::Any,
            Condition::Versions(versions) => Match::Groups(groups(&versions)),
            Condition::NoneOf(_) => unreachable!("clients of the simulation do not ask for that"),
        });
        self.note(|| {
            format!("client {client} asks {request}: {asked:?} of {} if {condition:?}", user.as_u128())
        });
        let called = self.number();
        let op = Op { called, answered: u64::MAX, asked, condition, reply: Reply::Unknown };
        self.checks.open.insert(request, Question { client, user, asked: self.now, op });
        self.clients[client].asking = Some(request);
        let life = self.gateway.life;
        self.after(1, 100, Happening::Ask(life, Box::new(event)));
    }

    fn pick_condition(&mut self, user: UserId) -> Option<Condition> {
        if self.rng.percent(20) {
            return Some(Condition::Any);
        }
        let known = self.checks.versions_of.get(&user)?;
        let last = known.last().copied()?;
        let version = if self.rng.percent(70) { last } else { known[self.rng.next() as usize % known.len()] };
        Some(Condition::Versions(vec![version]))
    }

    fn question(&self, request: u64, id: UserId, asked: &Asked, condition: Option<&Condition>) -> Event {
        let request = RequestId(request);
        let named = |name: i32| format!("n{name}");
        let operation = match asked {
            Asked::Read => return Event::Read { request, id },
            Asked::Create(Live { group, name }) => Operation::Create(Change {
                alive: Some(true),
                name: Some(named(*name)),
                email: Some("e".to_owned()),
                group: Some(*group),
                ..Change::default()
            }),
            Asked::Update { group, name } => {
                Operation::Update(Change { name: name.map(named), group: Some(*group), ..Change::default() })
            }
            Asked::Touch => Operation::Update(Change::default()),
            Asked::Delete => Operation::Delete,
        };
        Event::Write {
            request,
            id,
            operation,
            condition: condition.cloned(),
            omit_user: false,
            unix_millis: self.unix_millis(),
        }
    }

    pub(crate) fn read_answered(&mut self, request: u64, result: Result<Option<Found>, Unserved>) {
        let question = self.close(request);
        let reply = match result {
            Ok(found) => Reply::Seen(found.map(|found| self.seen(question.user, &found))),
            Err(unserved) => return self.refused(request, question, &unserved),
        };
        self.answered(request, question, reply);
    }

    pub(crate) fn write_answered(&mut self, request: u64, result: Result<WriteAnswer, Unserved>) {
        let question = self.close(request);
        let answer = match result {
            Ok(answer) => answer,
            Err(unserved) => return self.refused(request, question, &unserved),
        };
        let applied = self.acknowledged(question.user, &answer);
        let live = answer.user.as_ref().map(|found| self.seen(question.user, found));
        // What newer operations have made of it, where it is not known any more what this one left.
        if let (Some(version), Some(Found(shown, _))) = (applied, &answer.user)
            && version != *shown
        {
            let (asked, reply, answered) = (Asked::Read, Reply::Seen(live), self.number());
            let read = Op { called: question.op.called, answered, asked, condition: None, reply };
            self.checks.histories.entry(question.user).or_default().push(read);
            return self.answered(request, question, Reply::AppliedUnseen);
        }
        let reply = match answer.outcome {
            Outcome::Applied => Reply::Applied(live),
            Outcome::Unchanged => Reply::Unchanged(live),
            Outcome::Exists => Reply::Exists,
            Outcome::NotFound => Reply::NotFound,
            Outcome::PreconditionFailed => Reply::PreconditionFailed,
            Outcome::Repeated | Outcome::KeyReused => panic!("no create has an Idempotency-Key: {answer:?}"),
        };
        self.answered(request, question, reply);
    }

    fn close(&mut self, request: u64) -> Question {
        let question = self.checks.open.remove(&request);
        question.unwrap_or_else(|| panic!("question {request} is answered twice, or was never asked"))
    }

    fn answered(&mut self, request: u64, question: Question, reply: Reply) {
        self.note(|| format!("answer to {request} of {}: {reply:?}", question.user.as_u128()));
        self.mix(request);
        let answered = self.number();
        self.check_time(&question);
        let Question { client, user, op, .. } = question;
        self.checks.histories.entry(user).or_default().push(Op { answered, reply, ..op });
        self.go_on(client, request);
    }

    fn refused(&mut self, request: u64, question: Question, unserved: &Unserved) {
        self.note(|| format!("no answer to {request} of {}: {unserved:?}", question.user.as_u128()));
        let allowed = matches!(self.config.mode, Mode::Chaos | Mode::Harsh);
        assert!(allowed, "a request fails although there was one failure at most: {unserved}");
        self.checks.refused += 1;
        let Question { client, user, op, .. } = question;
        if let Unserved::OutcomeUnknown { .. } = unserved {
            self.checks.histories.entry(user).or_default().push(op);
        }
        self.clients[client].asking = None;
        self.after(20 * MILLI, 100 * MILLI, Happening::Client(client));
    }

    fn go_on(&mut self, client: usize, request: u64) {
        if self.clients[client].asking != Some(request) {
            return;
        }
        self.clients[client].asking = None;
        let excited = self.now < self.faults.last + SECOND;
        let think = if excited { self.config.think } else { 4 * self.config.think };
        self.after(MILLI, think, Happening::Client(client));
    }

    /// What was asked of a gateway that died has an unknown outcome.
    pub(crate) fn clients_lose_gateway(&mut self) {
        for (request, Question { client, user, op, .. }) in std::mem::take(&mut self.checks.open) {
            self.checks.histories.entry(user).or_default().push(op);
            self.go_on(client, request);
        }
    }

    /// A document that a client got, by the numbers of the writes that it shows.
    pub(crate) fn seen(&mut self, user: UserId, found: &Found) -> Live {
        let Found(version, document) = found;
        let document: User = serde_json::from_str(document.get()).expect("a user");
        assert_eq!(document.id, user, "the document of another user");
        let name = document
            .name
            .strip_prefix('n')
            .and_then(|name| name.parse().ok())
            .expect("a name that was given");
        let group = document.group;
        let first = *self.checks.group_of.entry((user, *version)).or_insert(group);
        assert_eq!(first, group, "version {version} of {user} belongs to two writes");
        let known = self.checks.versions_of.entry(user).or_default();
        if !known.contains(version) {
            known.push(*version);
        }
        Live { group, name }
    }
}
