//! The way of one read: to the replica where that is as good, to the leader where it is not, to the other
//! copy when the first is slow, silent or lost, to a clear "not now" when no copy may answer it.
//!
//! A read that only the leader may answer, since the other copy lacks a write of the tail, *awaits the tail*
//! when the leader is silent: the other copy gets what it lacks, long before the leader counts as lost, and
//! the read goes there. Silence is only a suspicion: it may be wrong as often as it likes.

use std::collections::VecDeque;
use std::time::Duration;

use protocol::UserId;
use protocol::message::link::{Found, ReadAnswers, ReadBatch, Role, ToProcess};
use protocol::placement::{Partition as Number, Place};
use rustc_hash::FxHashMap;

use super::Engine;
use super::event::{Command, RequestId, SessionId, Unserved};
use super::lane::Lane;
use super::partition::DeferredAnswer;
use super::session::{QueuedRead, Session};

/// A read without an answer for this long is sent to the other copy too.
const HEDGE_AFTER: Duration = Duration::from_millis(30);

/// A process that has been silent for this long is not asked if another copy may answer. Beats are sent twice
/// as often.
const SUSPICIOUS: Duration = Duration::from_millis(45);

/// A read without an answer for this long gets none.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);

/// Reads queued for one process, or waiting for one partition, beyond which the gateway takes on no more.
const MAX_QUEUED: usize = 16_384;

/// Reads that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct PendingReads {
    by_request: FxHashMap<RequestId, PendingRead>,
    /// In the order in which they are due, give or take a tick, for the hedge; once for each time that a read
    /// was routed.
    to_hedge: VecDeque<(Duration, RequestId)>,
    /// The same for giving up.
    to_give_up: VecDeque<(Duration, RequestId)>,
}

#[derive(Debug)]
struct PendingRead {
    id: UserId,
    /// The connections that were asked and may still answer.
    asked: [Option<SessionId>; 2],
}

/// Whether a second copy was asked too.
#[derive(PartialEq, Eq)]
enum Second {
    /// It was asked, if it had room.
    Asked,
    /// The read has an answer, or is on its way to no copy or to both.
    NotNeeded,
    /// The other copy may not answer this one, or not yet.
    Lacks,
}

impl Engine {
    pub(super) fn read(&mut self, request: RequestId, id: UserId) {
        self.reads.by_request.insert(request, PendingRead { id, asked: [None, None] });
        self.route_read(request);
    }

    /// Sends a read that no copy was asked yet to the one that should answer it.
    fn route_read(&mut self, request: RequestId) {
        let Some(&PendingRead { id, .. }) = self.reads.by_request.get(&request) else { return };
        // The copy that is asked may be slow.
        self.reads.to_hedge.push_back((self.now + HEDGE_AFTER, request));
        let number = self.partition_of(&id);
        let partition = self.partition(number);
        let Some(role) = partition.reader(&id) else {
            if partition.refuses() {
                return self.end_read(request, Err(self.unavailable(number)));
            }
            let waiting = self.partition_mut(number).reads_awaiting_leader();
            if waiting.len() >= MAX_QUEUED {
                return self.end_read(request, Err(Unserved::Overloaded { partition: number }));
            }
            return waiting.push(request);
        };
        let other = role.other();
        let turns =
            self.is_silent(number, role) && partition.may_read(other, &id) && !self.is_silent(number, other);
        if !self.queue_read(request, id, number, if turns { other } else { role }) {
            self.end_read(request, Err(Unserved::Overloaded { partition: number }));
        }
    }

    /// Queues a read for one copy. Returns whether that is there and has room.
    fn queue_read(&mut self, request: RequestId, id: UserId, number: Number, role: Role) -> bool {
        let Some(place) = self.place_of(number, role) else { return false };
        let Some(session) = self.sessions.get_mut(&place) else { return false };
        if session.reads.queued() >= MAX_QUEUED {
            return false;
        }
        if let Some(read) = self.reads.by_request.get_mut(&request)
            && let Some(free) = read.asked.iter_mut().find(|asked| asked.is_none())
        {
            *free = Some(session.id);
            session.reads.push(QueuedRead { request, role, id });
        }
        true
    }

    fn end_read(&mut self, request: RequestId, result: Result<Option<Found>, Unserved>) {
        if self.reads.by_request.remove(&request).is_some() {
            self.commands.push(Command::AnswerRead { request, result });
        }
    }

    pub(super) fn read_answered(&mut self, place: Place, answers: ReadAnswers) {
        let Some(session) = self.sessions.get_mut(&place) else { return };
        let (from, count) = (session.id, answers.results.len());
        let Some(reads) = session.reads.land(answers.batch, |reads| reads.len() == count) else {
            return self.evict(from, "it sent an answer that fits no batch of reads");
        };
        for (QueuedRead { request, role, id }, found) in reads.into_iter().zip(answers.results) {
            let number = self.partition_of(&id);
            match self.partition(number).unanswered_shown(id, role, found.as_ref()) {
                Some(until) => {
                    let answer = DeferredAnswer::Read(role, found);
                    self.partition_mut(number).defer(until, request, answer);
                }
                None => self.read_found(request, role, found),
            }
        }
    }

    fn read_found(&mut self, request: RequestId, role: Role, found: Option<Found>) {
        // The first of two answers counts.
        if self.reads.by_request.remove(&request).is_some() {
            match role {
                Role::Primary => self.counts.reads_by_primary += 1,
                Role::Replica => self.counts.reads_by_replica += 1,
            }
            self.commands.push(Command::AnswerRead { request, result: Ok(found) });
        }
    }

    /// Writes of a partition were answered: answers that show no other unanswered writes are given.
    pub(super) fn release_deferred(&mut self, number: Number) {
        for (request, answer) in self.partition_mut(number).take_released() {
            match answer {
                DeferredAnswer::Read(role, found) => self.read_found(request, role, found),
                DeferredAnswer::Question(answer) => self.end_question(request, Ok(answer)),
            }
        }
    }

    /// What the deferred answers of a partition show may be lost: they are asked for again.
    pub(super) fn retry_deferred(&mut self, number: Number) {
        for (request, answer) in self.partition_mut(number).take_deferred() {
            match answer {
                DeferredAnswer::Read(..) => {
                    if let Some(read) = self.reads.by_request.get_mut(&request) {
                        read.asked = [None, None];
                        self.route_read(request);
                    }
                }
                DeferredAnswer::Question(_) => self.route_question(request),
            }
        }
    }

    /// The reads of a lost connection are routed again, unless the other copy was asked already.
    pub(super) fn abandon_reads(&mut self, lost: SessionId, lane: Lane<QueuedRead, Vec<QueuedRead>>) {
        let (queue, flights) = lane.abandon();
        for QueuedRead { request, .. } in flights.flatten().chain(queue) {
            let Some(read) = self.reads.by_request.get_mut(&request) else { continue };
            for asked in &mut read.asked {
                asked.take_if(|session| *session == lost);
            }
            if read.asked == [None, None] {
                self.route_read(request);
            }
        }
    }

    /// It is settled which copy leads, or which answers reads until then: the reads and questions that waited
    /// for that go on.
    pub(super) fn release_waiting(&mut self, number: Number) {
        let partition = self.partition_mut(number);
        if partition.reads_wait() {
            return;
        }
        for request in std::mem::take(partition.reads_awaiting_leader()) {
            if self.questions.contains(request) {
                self.route_question(request);
            } else {
                self.route_read(request);
            }
        }
    }

    /// Whether the process of a copy is not there, or has not been heard of lately.
    fn is_silent(&self, number: Number, role: Role) -> bool {
        let session = self.holder(number, role);
        session.is_none_or(|session| self.ticked.saturating_sub(session.heard) > SUSPICIOUS)
    }

    /// Sends a read to the second copy too, if that may answer it and the first has not.
    fn ask_second(&mut self, request: RequestId) -> Second {
        // Those that wait for a leader are on their way to no copy, those that moved on account of a loss may
        // be on their way to both.
        let Some(read) = self.reads.by_request.get(&request) else { return Second::NotNeeded };
        let (id, [Some(asked), None] | [None, Some(asked)]) = (read.id, read.asked) else {
            return Second::NotNeeded;
        };
        let number = self.partition_of(&id);
        let is_second = |&role: &Role| self.holder(number, role).is_some_and(|holder| holder.id != asked);
        match Role::ALL.into_iter().find(is_second) {
            Some(role) if self.partition(number).may_read(role, &id) => {
                self.counts.reads_hedged += u64::from(self.queue_read(request, id, number, role));
                Second::Asked
            }
            _ => Second::Lacks,
        }
    }

    /// Tries again the reads of a partition that await the tail. Where its leader is silent, the other copy
    /// gets what it lacks.
    pub(super) fn retry_reads_awaiting_tail(&mut self, number: Number) {
        let mut waiting = std::mem::take(self.partition_mut(number).reads_awaiting_tail());
        waiting.retain(|&request| self.ask_second(request) == Second::Lacks);
        let preload = !waiting.is_empty() && self.is_silent(number, self.partition(number).leader);
        *self.partition_mut(number).reads_awaiting_tail() = waiting;
        if preload {
            self.preload_tail(number);
        }
    }

    /// Sends slow reads to the other copy too, and gives up those that were not answered.
    pub(super) fn tick_reads(&mut self) {
        let now = self.now;
        while let Some((due, request)) = self.reads.to_hedge.pop_front_if(|(due, _)| *due <= now) {
            let Some(&PendingRead { id, .. }) = self.reads.by_request.get(&request) else { continue };
            self.reads.to_give_up.push_back((due + GIVE_UP_AFTER - HEDGE_AFTER, request));
            if self.ask_second(request) == Second::Lacks {
                let number = self.partition_of(&id);
                self.partition_mut(number).reads_awaiting_tail().push(request);
            }
        }
        (0..self.size).for_each(|number| self.retry_reads_awaiting_tail(number));
        while let Some((_, request)) = self.reads.to_give_up.pop_front_if(|(due, _)| *due <= now) {
            if let Some(read) = self.reads.by_request.get(&request) {
                let number = self.partition_of(&read.id);
                self.end_read(request, Err(self.unavailable(number)));
            }
        }
    }
}

/// Sends what has queued up for a process, all reads of the primary first: the answer has one list.
pub(super) fn depart(session: &mut Session, commands: &mut Vec<Command>) {
    while let Some((batch, mut reads)) = session.reads.depart() {
        reads.sort_by_key(|read| read.role);
        let of = |role| reads.iter().filter(move |read| read.role == role).map(|read| read.id).collect();
        let message = ReadBatch { batch, primary: of(Role::Primary), replica: of(Role::Replica) };
        session.reads.departed(batch, reads);
        commands.push(Command::Send { session: session.id, message: ToProcess::ReadBatch(message) });
    }
}
