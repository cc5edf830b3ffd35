//! The way of one question about a whole copy: to a copy that is fresh for every user of the partition, to
//! the other one when the first is slow or lost.
//!
//! For a page or a count, the copy that does not lead is fresh where it is current and *no* user is unsettled
//! (see `partition`); otherwise the lead answers. What comes back may show writes that are still unanswered,
//! and that could be lost with the lead. So it is *kept* until all of them are answered that were unanswered
//! when it came, as far as they concern it, and asked again when one of the partition's processes is lost
//! before that. A refused write does no harm: whoever refused it has not shown it.
//!
//! Changes and digests are asked of a given copy, and told as they come: whoever asks knows what they mean.
//!
//! There are no lanes: each question leaves at once, as a frame of its own. What bounds them is their number.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use protocol::UserId;
use protocol::message::link::Role;
use protocol::mutation::{self, Mutation};
use protocol::placement::{Partition as Number, Place};
use protocol::version::Version;

use super::Engine;
use super::event::{Command, RequestId, SessionId, ToProcess, Unserved};
use super::partition::Phase;
use super::question::{Answer, Question};

/// A question without an answer for this long goes to the other copy too. A page is more work than a read.
const HEDGE_AFTER: Duration = Duration::from_millis(100);

/// A question without an answer for this long gets none.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);

/// The same for a scan, which reads all of a copy.
const GIVE_UP_SCAN_AFTER: Duration = Duration::from_secs(300);

/// Questions under way beyond which the gateway takes on no more; each answer may hold a megabyte.
const MAX_PENDING: usize = 1_024;

/// Questions that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct PendingQuestions {
    /// Ordered, so that a seeded run repeats.
    by_request: BTreeMap<RequestId, PendingQuestion>,
    /// The questions on their way, by the number of the query. Never iterated.
    by_query: HashMap<u64, RequestId>,
    /// Queries made so far; numbers them.
    queries: u64,
}

#[derive(Debug)]
struct PendingQuestion {
    partition: Number,
    question: Question,
    /// The copies that were asked and may still answer, at most one of each role.
    asked: Vec<Asked>,
    kept: Option<Kept>,
    hedge_at: Duration,
    give_up_at: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    query: u64,
    session: SessionId,
}

/// An answer that may show unanswered writes.
#[derive(Debug)]
struct Kept {
    answer: Answer,
    /// It can be told when all writes up to this one are answered.
    until: Version,
}

impl PendingQuestions {
    pub(super) fn contains(&self, request: RequestId) -> bool {
        self.by_request.contains_key(&request)
    }

    fn remove(&mut self, request: RequestId) -> Option<PendingQuestion> {
        let pending = self.by_request.remove(&request)?;
        for asked in &pending.asked {
            self.by_query.remove(&asked.query);
        }
        Some(pending)
    }

    /// The requests that fit, so that they can be worked on one by one.
    fn those(&self, fit: impl Fn(&PendingQuestion) -> bool) -> Vec<RequestId> {
        let all = self.by_request.iter();
        all.filter(|(_, pending)| fit(pending)).map(|(request, _)| *request).collect()
    }
}

impl Engine {
    pub(super) fn question(
        &mut self,
        now: Duration,
        request: RequestId,
        partition: Number,
        question: Question,
        commands: &mut Vec<Command>,
    ) {
        if self.questions.by_request.len() >= MAX_PENDING {
            let result = Err(Unserved::Overloaded { partition });
            return self.push_answer(request, result, commands);
        }
        let patience = match question {
            Question::Digests { scan: true, .. } => GIVE_UP_SCAN_AFTER,
            _ => GIVE_UP_AFTER,
        };
        let pending = PendingQuestion {
            partition,
            question,
            asked: Vec::new(),
            kept: None,
            hedge_at: now + HEDGE_AFTER,
            give_up_at: now + patience,
        };
        self.questions.by_request.insert(request, pending);
        self.route_question(request, commands);
    }

    /// Sends a question to the copy that should answer it, unless it is on its way or has an answer that is
    /// kept.
    pub(super) fn route_question(&mut self, request: RequestId, commands: &mut Vec<Command>) {
        let Some(pending) = self.questions.by_request.get(&request) else { return };
        if !pending.asked.is_empty() || pending.kept.is_some() {
            return;
        }
        let number = pending.partition;
        let Some(partition) = self.partitions.get_mut(usize::from(number)) else {
            return self.refuse_question(request, commands);
        };
        let role = match (pending.question.role(), partition.phase) {
            (_, Phase::Down) if !partition.refuses() => return partition.waiting.push(request),
            (Some(role), _) => role,
            (None, Phase::Serving | Phase::Draining { .. }) => partition.lister(),
            (None, Phase::Confirming { .. }) => return partition.waiting.push(request),
            (None, Phase::Down) => return self.refuse_question(request, commands),
        };
        if !self.put(request, role, commands) {
            self.refuse_question(request, commands);
        }
    }

    /// Asks one copy. Returns whether that is there, and holds its partition.
    fn put(&mut self, request: RequestId, role: Role, commands: &mut Vec<Command>) -> bool {
        let Some(number) = self.questions.by_request.get(&request).map(|pending| pending.partition) else {
            return false;
        };
        let Some(copy) = self.copy(number, role).filter(|copy| copy.report.complete) else { return false };
        let session = copy.session;
        let Some(&place) = self.places.get(&session) else { return false };
        self.questions.queries += 1;
        let query = self.questions.queries;
        let Some(pending) = self.questions.by_request.get_mut(&request) else { return false };
        pending.asked.push(Asked { query, session });
        self.questions.by_query.insert(query, request);
        self.frames[usize::from(place)] += 1;
        let message = ToProcess::Query(pending.question.to_query(query, role));
        commands.push(Command::Send { session, message });
        true
    }

    fn refuse_question(&mut self, request: RequestId, commands: &mut Vec<Command>) {
        let Some(pending) = self.questions.remove(request) else { return };
        let partition = pending.partition;
        let waiting_for = self.waiting_for_copy(partition, pending.question.role());
        let result = Err(Unserved::Unavailable { partition, waiting_for });
        self.push_answer(request, result, commands);
    }

    /// A copy has answered.
    pub(super) fn question_answered(
        &mut self,
        now: Duration,
        place: Place,
        answer: Answer,
        commands: &mut Vec<Command>,
    ) {
        let query = answer.query();
        // The other copy may have been faster, or the question given up.
        let Some(&request) = self.questions.by_query.get(&query) else { return };
        let from = self.sessions.get(&place).map(|session| session.id);
        let Some(pending) = self.questions.by_request.get_mut(&request) else { return };
        let expected = pending.asked.iter().any(|asked| asked.query == query && Some(asked.session) == from);
        if !expected || !pending.question.is_answered_by(&answer) {
            return self.distrust(now, place, "it sent an answer that fits no question", commands);
        }
        for asked in std::mem::take(&mut pending.asked) {
            self.questions.by_query.remove(&asked.query);
        }
        let number = usize::from(pending.partition);
        let until = match (&pending.question, &answer) {
            (Question::Page { after, .. }, Answer::Page(page)) => {
                let last = page.users.last().filter(|_| page.more).map(|user| user.0);
                self.partitions[number].last_unanswered(|id| is_between(id, *after, last))
            }
            (Question::Count { .. }, _) => self.partitions[number].last_unanswered(|_| true),
            _ => None,
        };
        match until.filter(|_| !mutation::is(Mutation::ReadUnanswered)) {
            Some(until) => pending.kept = Some(Kept { answer, until }),
            None => self.tell_answer(request, answer, commands),
        }
    }

    fn tell_answer(&mut self, request: RequestId, answer: Answer, commands: &mut Vec<Command>) {
        if self.questions.remove(request).is_some() {
            self.push_answer(request, Ok(answer), commands);
        }
    }

    fn push_answer(
        &mut self,
        request: RequestId,
        result: Result<Answer, Unserved>,
        commands: &mut Vec<Command>,
    ) {
        match request.own_partition() {
            Some(number) => self.own_question_answered(self.ticked, number, result, commands),
            None => commands.push(Command::AnswerQuestion { request, result }),
        }
    }

    /// Some writes of a partition were answered, or given up before they were sent: tells the answers that
    /// had to wait for no others.
    pub(super) fn tell_kept(&mut self, number: Number, commands: &mut Vec<Command>) {
        if self.questions.by_request.is_empty() {
            return;
        }
        let first = self.partitions[usize::from(number)].first_unanswered();
        let settled = |kept: &Kept| first.is_none_or(|first| first > kept.until);
        for request in self
            .questions
            .those(|pending| pending.partition == number && pending.kept.as_ref().is_some_and(settled))
        {
            let pending = self.questions.by_request.get_mut(&request);
            if let Some(kept) = pending.and_then(|pending| pending.kept.take()) {
                self.tell_answer(request, kept.answer, commands);
            }
        }
    }

    /// A process that holds a copy of the partition is lost: nobody knows what becomes of the unanswered
    /// writes.
    pub(super) fn drop_kept(&mut self, number: Number) {
        for pending in self.questions.by_request.values_mut() {
            if pending.partition == number {
                pending.kept = None;
            }
        }
    }

    /// The questions of a lost connection, and those whose answers were dropped with it, go to whoever serves
    /// now, unless the other copy was asked already.
    pub(super) fn abandon_questions(&mut self, lost: SessionId, commands: &mut Vec<Command>) {
        let PendingQuestions { by_request, by_query, .. } = &mut self.questions;
        for pending in by_request.values_mut() {
            for asked in pending.asked.extract_if(.., |asked| asked.session == lost) {
                by_query.remove(&asked.query);
            }
        }
        for request in self.questions.those(|pending| pending.asked.is_empty()) {
            self.route_question(request, commands);
        }
    }

    /// Puts slow questions to the other copy too, where that may answer, and gives up those that nobody
    /// answered.
    pub(super) fn hedge_questions(&mut self, now: Duration, commands: &mut Vec<Command>) {
        for request in self.questions.those(|pending| now >= pending.give_up_at) {
            self.refuse_question(request, commands);
        }
        let slow = |pending: &PendingQuestion| {
            now >= pending.hedge_at && pending.asked.len() == 1 && pending.question.role().is_none()
        };
        for request in self.questions.those(slow) {
            let Some(pending) = self.questions.by_request.get(&request) else { continue };
            let (number, asked) = (pending.partition, pending.asked[0].session);
            let partition = &self.partitions[usize::from(number)];
            let other = Role::ALL.into_iter().find(|&role| {
                let allowed = partition.serves() && (role == partition.lead || partition.other_may_list());
                allowed && self.copy(number, role).is_some_and(|copy| copy.session != asked)
            });
            if let Some(role) = other {
                self.put(request, role, commands);
            }
        }
    }
}

/// Whether a page of users after `after` says anything about this one; `last` is where it ends.
fn is_between(id: &UserId, after: Option<UserId>, last: Option<UserId>) -> bool {
    after.is_none_or(|after| *id > after) && last.is_none_or(|last| *id <= last)
}
