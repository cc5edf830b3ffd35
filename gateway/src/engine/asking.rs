//! The way of one question about a whole copy: to a copy that is fresh for every user of the partition, to
//! the other one when the first is slow or lost.
//!
//! For a page or a count, the copy that does not lead is fresh where it is current and *no* user is unsettled
//! (see `partition`); otherwise the leader answers. The answer may show writes that are still unanswered, and
//! that could be lost with the leader. So it is *deferred* until all of them are answered that were
//! unanswered when it came, as far as they concern it, and asked for again when one of the partition's
//! processes is lost before that. A refused write does no harm: the copy that refused it has not shown it.
//!
//! Changes and digests are asked of a given copy, and their answers are passed on as they come.
//!
//! There are no lanes: each question leaves at once, as a frame of its own. What bounds them is their number.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::UserId;
use protocol::message::link::{Role, ToProcess};
use protocol::message::query::{Answer, DigestQuery, PageQuery, Query};
use protocol::placement::{Partition as Number, Place};
use rustc_hash::FxHashMap;

use super::Engine;
use super::event::{Command, RequestId, SessionId, Unserved};
use super::partition::{DeferredAnswer, Phase};
use super::purge::Own;
use super::question::{asked_role, is_answered_by};

/// A question without an answer for this long goes to the other copy too. A page is more work than a read.
const HEDGE_AFTER: Duration = Duration::from_millis(100);

/// A question without an answer for this long gets none.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);

/// The same for a scan, which reads all of a copy.
const GIVE_UP_SCAN_AFTER: Duration = Duration::from_secs(300);

/// The same for erasing, which writes all of a copy. It goes on where nothing waits for it any more.
const GIVE_UP_ERASING_AFTER: Duration = Duration::from_secs(3_600);

/// Questions under way beyond which the gateway takes on no more; each answer may hold a megabyte.
const MAX_PENDING: usize = 1_024;

/// Questions that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct PendingQuestions {
    /// Ordered, so that a seeded run repeats.
    by_request: BTreeMap<RequestId, PendingQuestion>,
    /// The questions on their way, by the number of the query. Never iterated.
    by_query: FxHashMap<u64, RequestId>,
    /// Queries made so far; numbers them.
    queries: u64,
}

#[derive(Debug)]
struct PendingQuestion {
    partition: Number,
    query: Query,
    /// The copies that were asked and may still answer, at most one of each role.
    asked: Vec<Asked>,
    hedge_at: Duration,
    give_up_at: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    query: u64,
    session: SessionId,
}

impl PendingQuestions {
    pub(super) fn contains(&self, request: RequestId) -> bool {
        self.by_request.contains_key(&request)
    }

    /// Answers to these queries count no longer.
    fn forget(&mut self, asked: impl IntoIterator<Item = Asked>) {
        for asked in asked {
            self.by_query.remove(&asked.query);
        }
    }

    /// The requests that fit, so that they can be worked on one by one.
    fn those(&self, fit: impl Fn(&PendingQuestion) -> bool) -> Vec<RequestId> {
        let all = self.by_request.iter();
        all.filter(|(_, pending)| fit(pending)).map(|(request, _)| *request).collect()
    }
}

impl Engine {
    pub(super) fn question(&mut self, request: RequestId, partition: Number, query: Query) {
        let patience = match query {
            Query::DigestQuery(DigestQuery { scan: true, .. }) => GIVE_UP_SCAN_AFTER,
            Query::EraseQuery(_) => GIVE_UP_ERASING_AFTER,
            _ => GIVE_UP_AFTER,
        };
        let (hedge_at, give_up_at) = (self.now + HEDGE_AFTER, self.now + patience);
        let overloaded = self.questions.by_request.len() >= MAX_PENDING;
        let pending = PendingQuestion { partition, query, asked: Vec::new(), hedge_at, give_up_at };
        self.questions.by_request.insert(request, pending);
        match overloaded {
            true => self.end_question(request, Err(Unserved::Overloaded { partition })),
            false => self.route_question(request),
        }
    }

    /// Sends a question to the copy that should answer it.
    pub(super) fn route_question(&mut self, request: RequestId) {
        let Some(pending) = self.questions.by_request.get(&request) else { return };
        let number = pending.partition;
        let Some(partition) = self.partitions.get_mut(usize::from(number)) else {
            return self.refuse_question(request);
        };
        let role = match (asked_role(&pending.query), partition.phase) {
            (Some(role), phase) if phase != Phase::Down || partition.refuses() => role,
            (None, Phase::Serving { .. } | Phase::Draining { .. }) => partition.lister(),
            (None, Phase::Down) if partition.refuses() => return self.refuse_question(request),
            _ => return partition.reads_awaiting_leader().push(request),
        };
        if !self.ask(request, role) {
            self.refuse_question(request);
        }
    }

    /// Asks one copy. Returns whether that is there, and holds its partition.
    fn ask(&mut self, request: RequestId, role: Role) -> bool {
        let Some(pending) = self.questions.by_request.get(&request) else { return false };
        let number = pending.partition;
        let Some(session) = self.complete_copy(number, role).map(|copy| copy.session) else { return false };
        self.questions.queries += 1;
        let query = self.questions.queries;
        let Some(pending) = self.questions.by_request.get_mut(&request) else { return false };
        pending.asked.push(Asked { query, session });
        self.questions.by_query.insert(query, request);
        let message = ToProcess::Query(pending.query.clone().addressed(query, role));
        if let Some(place) = self.place_of(number, role) {
            self.frames[usize::from(place)] += 1;
        }
        self.send(session, message);
        true
    }

    fn refuse_question(&mut self, request: RequestId) {
        let Some(pending) = self.questions.by_request.get(&request) else { return };
        let partition = pending.partition;
        let waiting_for = self.waiting_for_copy(partition, asked_role(&pending.query));
        self.end_question(request, Err(Unserved::Unavailable { partition, waiting_for }));
    }

    /// A copy has answered.
    pub(super) fn question_answered(&mut self, place: Place, answer: Answer) {
        let query = answer.query();
        // The other copy may have been faster, or the question given up.
        let Some(&request) = self.questions.by_query.get(&query) else { return };
        let Some(from) = self.sessions.get(&place).map(|session| session.id) else { return };
        let Some(pending) = self.questions.by_request.get_mut(&request) else { return };
        let expected = pending.asked.iter().any(|asked| (asked.query, asked.session) == (query, from));
        if !expected || !is_answered_by(&pending.query, &answer) {
            return self.evict(from, "it sent an answer that fits no question");
        }
        let asked = std::mem::take(&mut pending.asked);
        let partition = &mut self.partitions[usize::from(pending.partition)];
        let until = match (&pending.query, &answer) {
            (Query::PageQuery(PageQuery { after, .. }), Answer::PageAnswer(page)) => {
                let last = page.users.last().filter(|_| page.more).map(|user| user.0);
                partition.unanswered_listed(|id| is_between(id, *after, last))
            }
            (Query::CountQuery(_), _) => partition.unanswered_listed(|_| true),
            _ => None,
        };
        self.questions.forget(asked);
        match until {
            Some(until) => partition.defer(until, request, DeferredAnswer::Question(answer)),
            None => self.end_question(request, Ok(answer)),
        }
    }

    pub(super) fn end_question(&mut self, request: RequestId, result: Result<Answer, Unserved>) {
        let Some(pending) = self.questions.by_request.remove(&request) else { return };
        self.questions.forget(pending.asked);
        match request.own() {
            Some(Own::Purge(number)) => self.own_question_answered(number, result),
            Some(Own::Erasure(number, role)) => self.erasure_ended(number, role),
            None => self.commands.push(Command::AnswerQuestion { request, result }),
        }
    }

    /// The questions of a lost connection are routed again, unless the other copy was asked already.
    pub(super) fn abandon_questions(&mut self, lost: SessionId) {
        let mut abandoned = Vec::new();
        for (request, pending) in &mut self.questions.by_request {
            if let Some(index) = pending.asked.iter().position(|asked| asked.session == lost) {
                self.questions.by_query.remove(&pending.asked.remove(index).query);
                abandoned.extend(pending.asked.is_empty().then_some(*request));
            }
        }
        abandoned.into_iter().for_each(|request| self.route_question(request));
    }

    /// Puts slow questions to the other copy too, where that may answer, and gives up those that were not
    /// answered.
    pub(super) fn tick_questions(&mut self) {
        let now = self.now;
        for request in self.questions.those(|pending| now >= pending.give_up_at) {
            self.refuse_question(request);
        }
        let slow = |pending: &PendingQuestion| {
            now >= pending.hedge_at && pending.asked.len() == 1 && asked_role(&pending.query).is_none()
        };
        for request in self.questions.those(slow) {
            let Some(pending) = self.questions.by_request.get(&request) else { continue };
            let (number, asked) = (pending.partition, pending.asked[0].session);
            let other = Role::ALL.into_iter().find(|&role| {
                self.partition(number).may_list(role)
                    && self.holder(number, role).is_some_and(|holder| holder.id != asked)
            });
            if let Some(role) = other {
                self.ask(request, role);
            }
        }
    }
}

/// Whether a page of users after `after` says anything about this one; `last` is where it ends.
fn is_between(id: &UserId, after: Option<UserId>, last: Option<UserId>) -> bool {
    after.is_none_or(|after| *id > after) && last.is_none_or(|last| *id <= last)
}
