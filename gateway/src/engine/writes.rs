//! The way of one write: to the lead of its partition, in version order, and back with what came of it.

use std::sync::Arc;
use std::time::Duration;

use protocol::message::link::{Role, Versioned, Write, WriteAnswers, WriteBatch};
use protocol::placement::Place;
use protocol::{Operation, Outcome};

use super::Engine;
use super::event::{Command, RequestId, ToProcess, Unserved};
use super::feed::Settled;
use super::pace::Frame;
use super::partition::Phase;
use super::session::{QueuedWrite, Session, WriteFlight};

/// Writes queued for one lead, or held, beyond which the gateway takes on no more.
const MAX_QUEUED: usize = 16_384;

impl Engine {
    pub(super) fn write(&mut self, request: RequestId, write: Write, commands: &mut Vec<Command>) {
        let (number, version) = (self.partition_of(&write.id), write.version);
        let partition = &mut self.partitions[number];
        let room = match partition.phase {
            Phase::Serving if partition.hold_until.is_none() => partition
                .lead_session
                .and_then(|session| self.places.get(&session))
                .and_then(|place| self.sessions.get_mut(place))
                .map(|session| session.writes(partition.lead))
                .filter(|lane| lane.queued() < MAX_QUEUED)
                .map(Some),
            _ if !partition.refuses() => (partition.held.len() < MAX_QUEUED).then_some(None),
            _ => {
                let partition = number as u16;
                let refused = Unserved::Unavailable { partition, waiting_for: self.waiting_for(partition) };
                return commands.push(Command::AnswerWrite { request, version, result: Err(refused) });
            }
        };
        let Some(lane) = room else {
            let refused = Unserved::Overloaded { partition: number as u16 };
            return commands.push(Command::AnswerWrite { request, version, result: Err(refused) });
        };
        partition.take_on(&write);
        self.feed.take_on(write.version, number as u16);
        let queued = QueuedWrite { request, write, sent: false };
        match lane {
            Some(lane) => lane.push(queued),
            None => partition.held.push_back(queued),
        }
    }

    pub(super) fn write_answered(
        &mut self,
        now: Duration,
        place: Place,
        answers: WriteAnswers,
        commands: &mut Vec<Command>,
    ) {
        let role = answers.role;
        let count = answers.results.len();
        let flight = self.sessions.get_mut(&place).and_then(|session| {
            session.writes(role).land(answers.batch, |flight| flight.requests.len() == count)
        });
        let (Some(flight), Some(number)) = (flight, self.partition_at(place, role)) else {
            return self.distrust(now, place, "it sent an answer that fits no batch of writes", commands);
        };
        self.hear_flushed(place, role, answers.lsn);
        let other = self.report(number, role.other());
        let (at, from) = (self.credible(now), self.sessions.get(&place).map(|session| session.id));
        let partition = &mut self.partitions[usize::from(number)];
        if let Some(from) = from {
            partition.pace.answered(at, from, Frame::Writes(answers.batch));
        }
        let batch = Arc::unwrap_or_clone(flight.batch);
        let mut head = 0;
        let mut seen = Vec::new();
        for ((request, write), answer) in flight.requests.into_iter().zip(batch.writes).zip(answers.results) {
            head = head.max(answer.sequence);
            let version = write.version;
            let early = partition.answered(write.id, version);
            if !early.is_empty() {
                // What saw a delete saw no user, and where there was none to delete, that was so without it,
                // too.
                let finds_none = answer.outcome == Outcome::NotFound && write.operation == Operation::Delete;
                seen.push((answer.outcome == Outcome::Applied || finds_none, early));
            }
            if answer.outcome == Outcome::Applied {
                let Write { id, operation, .. } = write;
                let write = Versioned { version, id, change: operation.into_change() };
                let purges = write.change.purge.is_some();
                let news = if purges { Settled::Nothing } else { Settled::Applied(&write) };
                self.feed.settle(version, news);
                partition.acknowledge(now, answer.sequence, write, other.as_ref());
            } else {
                self.feed.settle(write.version, Settled::Nothing);
                partition.settle(write.id);
            }
            self.counts.writes += 1;
            commands.push(Command::AnswerWrite { request, version, result: Ok(answer) });
        }
        // Now is the moment to move away from a slow leader, before it is sent the next frame.
        let leaves = partition.announced.is_some() && partition.pace.is_slow(partition.lead);
        let draining = matches!(partition.phase, Phase::Draining { .. }) || leaves;
        if let Some(session) = self.sessions.get_mut(&place) {
            let report = session.copies.get_mut(role);
            report.head = report.head.max(head);
        }
        self.publish(commands);
        for (holds, early) in seen {
            self.tell_early(holds, early, commands);
        }
        self.tell_kept(number, commands);
        if draining {
            self.advance(now, number, commands);
        }
    }
}

/// Sends what has queued up for the copies of a process.
pub(super) fn depart(now: Duration, session: &mut Session, commands: &mut Vec<Command>) {
    for role in Role::ALL {
        while let Some((batch, queued)) = session.writes(role).depart() {
            let (requests, writes): (Vec<RequestId>, Vec<Write>) =
                queued.into_iter().map(|queued| (queued.request, queued.write)).unzip();
            let message = Arc::new(WriteBatch { batch, role, writes });
            session
                .writes(role)
                .departed(batch, WriteFlight { since: now, requests, batch: Arc::clone(&message) });
            commands.push(Command::Send { session: session.id, message: ToProcess::Writes(message) });
        }
    }
}
