//! The way of one read: to the replica where that is as good, to the lead where it is not, to the other copy
//! when the first is slow, silent or lost, to a clear "not now" when no copy can answer truthfully.
//!
//! A read that only the lead may answer, since the other copy lacks a write of the tail, is *stuck* when the
//! lead is silent. Then the other copy is handed what it lacks, long before the lead counts as lost, and the
//! read goes there. Silence is only a suspicion: nobody loses anything by it, so it may be wrong as often as
//! it likes.

use std::collections::VecDeque;
use std::time::Duration;

use protocol::UserId;
use protocol::message::link::{ReadAnswers, ReadBatch, Role};
use protocol::placement::Place;
use rustc_hash::FxHashMap;

use super::Engine;
use super::event::{Command, RequestId, SessionId, ToProcess, Unserved};
use super::lane::Lane;
use super::partition::{Phase, SeenEarly};
use super::session::{QueuedRead, Session};

/// A read without an answer for this long is sent to the other copy too.
const HEDGE_AFTER: Duration = Duration::from_millis(30);

/// A process that has been silent for this long is not asked if another copy may answer. It is asked twice as
/// often whether it is there.
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
    /// set out.
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

/// What came of the thought to ask a second copy too.
enum Second {
    /// It was asked, if it had room.
    Asked,
    /// The read has an answer, or was asked of nobody or everybody.
    NotNeeded,
    /// The other copy of that partition may not answer this one, or not yet.
    Lacks(usize),
}

impl Engine {
    pub(super) fn read(
        &mut self,
        now: Duration,
        request: RequestId,
        id: UserId,
        commands: &mut Vec<Command>,
    ) {
        self.reads.by_request.insert(request, PendingRead { id, asked: [None, None] });
        self.reads.to_hedge.push_back((now + HEDGE_AFTER, request));
        self.route_read(request, commands);
    }

    /// Sends a read on its way again that waited, or whose answer may not be told. Whoever is asked now may
    /// be slow, too, so it is hedged anew.
    fn route_anew(&mut self, request: RequestId, commands: &mut Vec<Command>) {
        self.reads.to_hedge.push_back((self.ticked + HEDGE_AFTER, request));
        self.route_read(request, commands);
    }

    /// Sends a read that nobody was asked yet to the copy that should answer it.
    fn route_read(&mut self, request: RequestId, commands: &mut Vec<Command>) {
        let Some(read) = self.reads.by_request.get(&request) else {
            return;
        };
        let id = read.id;
        let number = self.partition_of(&id);
        let partition = &mut self.partitions[number];
        let Some(role) = partition.reader(&id) else {
            if partition.refuses() {
                return self.refuse_read(request, number as u16, commands);
            }
            if partition.waiting.len() >= MAX_QUEUED {
                return self.overload(request, number as u16, commands);
            }
            return partition.waiting.push(request);
        };
        let other = role.other();
        let turns = partition.may_read(other, &id)
            && self.is_silent(number as u16, role)
            && !self.is_silent(number as u16, other);
        if !self.ask(request, id, number as u16, if turns { other } else { role }) {
            self.overload(request, number as u16, commands);
        }
    }

    fn overload(&mut self, request: RequestId, partition: u16, commands: &mut Vec<Command>) {
        self.reads.by_request.remove(&request);
        commands.push(Command::AnswerRead { request, result: Err(Unserved::Overloaded { partition }) });
    }

    /// Queues a read for one copy. Returns whether that copy is there and has room.
    fn ask(&mut self, request: RequestId, id: UserId, number: u16, role: Role) -> bool {
        let Some(session) = self.copy(number, role).map(|copy| copy.session) else {
            return false;
        };
        let Some(session) = self.places.get(&session).and_then(|place| self.sessions.get_mut(place)) else {
            return false;
        };
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

    fn refuse_read(&mut self, request: RequestId, partition: u16, commands: &mut Vec<Command>) {
        self.reads.by_request.remove(&request);
        let waiting_for = self.waiting_for(partition);
        commands.push(Command::AnswerRead {
            request,
            result: Err(Unserved::Unavailable { partition, waiting_for }),
        });
    }

    pub(super) fn read_answered(
        &mut self,
        now: Duration,
        place: Place,
        answers: ReadAnswers,
        commands: &mut Vec<Command>,
    ) {
        let Some(session) = self.sessions.get_mut(&place) else {
            return;
        };
        let count = answers.results.len();
        let Some(reads) = session.reads.land(answers.batch, |reads| reads.len() == count) else {
            return self.distrust(now, place, "it sent an answer that fits no batch of reads", commands);
        };
        for (read, found) in reads.into_iter().zip(answers.results) {
            // The first of two answers counts.
            if self.reads.by_request.contains_key(&read.request) {
                let number = self.partition_of(&read.id);
                let seen = SeenEarly { request: read.request, role: read.role, found };
                if let Some(seen) = self.partitions[number].keep_early(read.id, seen) {
                    self.tell(seen, commands);
                }
            }
        }
    }

    fn tell(&mut self, seen: SeenEarly, commands: &mut Vec<Command>) {
        let SeenEarly { request, role, found } = seen;
        if self.reads.by_request.remove(&request).is_some() {
            match role {
                Role::Primary => self.counts.reads_by_primary += 1,
                Role::Replica => self.counts.reads_by_replica += 1,
            }
            commands.push(Command::AnswerRead { request, result: Ok(found) });
        }
    }

    /// A write that these reads saw before its answer came has been answered now. If what they saw does not
    /// hold, because the lead that showed it was lost and the write was not applied after all, they are asked
    /// again.
    pub(super) fn tell_early(&mut self, holds: bool, seen: Vec<SeenEarly>, commands: &mut Vec<Command>) {
        for seen in seen {
            if holds {
                self.tell(seen, commands);
            } else if let Some(read) = self.reads.by_request.get_mut(&seen.request) {
                read.asked = [None, None];
                self.route_anew(seen.request, commands);
            }
        }
    }

    /// The reads of a lost connection go to whoever serves now, unless the other copy was asked already.
    pub(super) fn abandon_reads(
        &mut self,
        lost: SessionId,
        lane: Lane<QueuedRead, Vec<QueuedRead>>,
        commands: &mut Vec<Command>,
    ) {
        let (queue, flights) = lane.abandon();
        for QueuedRead { request, .. } in flights.flatten().chain(queue) {
            let Some(read) = self.reads.by_request.get_mut(&request) else {
                continue;
            };
            for asked in &mut read.asked {
                asked.take_if(|session| *session == lost);
            }
            if read.asked == [None, None] {
                self.route_anew(request, commands);
            }
        }
    }

    /// It is settled who leads, or who answers reads until then: the reads and questions that waited for that
    /// go on.
    pub(super) fn release_waiting(&mut self, number: u16, commands: &mut Vec<Command>) {
        let partition = &mut self.partitions[usize::from(number)];
        let reads = partition.reads_meanwhile || partition.last_lead_reads;
        let waits = match partition.phase {
            Phase::Confirming { .. } => !reads,
            Phase::Down => !partition.refuses(),
            Phase::Serving | Phase::Draining { .. } => false,
        };
        if !waits {
            for request in std::mem::take(&mut partition.waiting) {
                if self.questions.contains(request) {
                    self.route_question(request, commands);
                } else {
                    self.route_anew(request, commands);
                }
            }
        }
        self.tell_kept(number, commands);
    }

    /// Whether the process of a copy is not there, or has not been heard of lately.
    fn is_silent(&self, number: u16, role: Role) -> bool {
        let session = self.copy(number, role).and_then(|copy| self.session(copy.session));
        session.is_none_or(|session| self.ticked.saturating_sub(session.heard) > SUSPICIOUS)
    }

    /// Sends a read to the second copy too, if that may answer it and the first has not.
    fn ask_the_second(&mut self, request: RequestId) -> Second {
        // Those that wait for a hand-over were asked of nobody, those that moved on account of a loss may
        // have been asked twice.
        let Some(read) = self.reads.by_request.get(&request) else { return Second::NotNeeded };
        let (id, [Some(asked), None] | [None, Some(asked)]) = (read.id, read.asked) else {
            return Second::NotNeeded;
        };
        let number = self.partition_of(&id);
        let second = Role::ALL
            .into_iter()
            .find(|&role| self.copy(number as u16, role).is_some_and(|copy| copy.session != asked));
        match second {
            Some(role) if self.partitions[number].may_read(role, &id) => {
                if self.ask(request, id, number as u16, role) {
                    self.counts.reads_hedged += 1;
                }
                Second::Asked
            }
            _ => Second::Lacks(number),
        }
    }

    /// Tries the stuck reads of a partition again. Where its lead is silent, the other copy is handed what it
    /// lacks.
    pub(super) fn free_stuck(&mut self, number: u16, commands: &mut Vec<Command>) {
        let partition = &mut self.partitions[usize::from(number)];
        for request in std::mem::take(&mut partition.stuck) {
            if let Second::Lacks(number) = self.ask_the_second(request) {
                self.partitions[number].stuck.push(request);
            }
        }
        let partition = &self.partitions[usize::from(number)];
        if !partition.stuck.is_empty() && self.is_silent(number, partition.lead) {
            self.hand_ahead(number, commands);
        }
    }

    /// Sends slow reads to the other copy too, and gives up those that nobody answered.
    pub(super) fn hedge(&mut self, now: Duration, commands: &mut Vec<Command>) {
        while let Some(&(due, request)) = self.reads.to_hedge.front() {
            if due > now {
                break;
            }
            self.reads.to_hedge.pop_front();
            if self.reads.by_request.contains_key(&request) {
                self.reads.to_give_up.push_back((due + GIVE_UP_AFTER - HEDGE_AFTER, request));
                if let Second::Lacks(number) = self.ask_the_second(request) {
                    self.partitions[number].stuck.push(request);
                }
            }
        }
        for number in 0..self.size {
            self.free_stuck(number, commands);
        }
        while let Some(&(due, request)) = self.reads.to_give_up.front() {
            if due > now {
                break;
            }
            self.reads.to_give_up.pop_front();
            if let Some(read) = self.reads.by_request.get(&request) {
                let number = self.partition_of(&read.id) as u16;
                self.refuse_read(request, number, commands);
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
        commands.push(Command::Send { session: session.id, message: ToProcess::Reads(message) });
    }
}
