//! The way of one write: to the leader of its partition, in version order, and back with its outcome.

use std::sync::Arc;
use std::time::Duration;

use protocol::Outcome;
use protocol::message::link::{Role, ToProcess, Versioned, Write, WriteAnswers, WriteBatch};
use protocol::placement::Place;

use super::Engine;
use super::event::{Command, RequestId, Unserved};
use super::feed::Settled;
use super::partition::{Frame, Phase};
use super::session::{QueuedWrite, Session, WriteFlight};

/// Writes queued for one leader, or buffered, beyond which the gateway takes on no more.
const MAX_QUEUED: usize = 16_384;

impl Engine {
    pub(super) fn write(&mut self, request: RequestId, write: Write) {
        let (number, version) = (self.partition_of(&write.id), write.version);
        if self.partition(number).refuses() {
            let result = Err(self.unavailable(number));
            return self.commands.push(Command::AnswerWrite { request, version, result });
        }
        let partition = &mut self.partitions[usize::from(number)];
        let place = partition.writer().and_then(|leader| self.places.get(&leader));
        let session = place.and_then(|place| self.sessions.get_mut(place));
        let lane = session.map(|session| session.writes(partition.leader));
        if lane.as_ref().map_or(partition.buffered(), |lane| lane.queued()) >= MAX_QUEUED {
            let result = Err(Unserved::Overloaded { partition: number });
            return self.commands.push(Command::AnswerWrite { request, version, result });
        }
        partition.admit(&write);
        self.feed.admit(version, number);
        let queued = QueuedWrite { request, write, sent: false };
        match lane {
            Some(lane) => lane.push(queued),
            None => partition.buffer(queued),
        }
    }

    pub(super) fn write_answered(&mut self, place: Place, answers: WriteAnswers) {
        let WriteAnswers { batch, role, lsn, results } = answers;
        let Some(session) = self.sessions.get_mut(&place) else { return };
        let from = session.id;
        let flight = session.writes(role).land(batch, |flight| flight.requests.len() == results.len());
        let (Some(flight), Some(number)) = (flight, self.partition_at(place, role)) else {
            return self.evict(from, "it sent an answer that fits no batch of writes");
        };
        self.note_flushed(place, role, lsn);
        let other = self.report(number, role.other());
        let at = self.credible_now();
        let partition = &mut self.partitions[usize::from(number)];
        partition.pace.answered(at, from, Frame::Writes(batch));
        let mut head = 0;
        let writes = Arc::unwrap_or_clone(flight.batch).writes;
        for ((request, write), answer) in flight.requests.into_iter().zip(writes).zip(results) {
            head = head.max(answer.sequence);
            let Write { version, id, operation, .. } = write;
            partition.answered(id, version);
            if answer.outcome == Outcome::Applied {
                let write = Versioned { version, id, change: operation.into_change() };
                let purges = write.change.purge.is_some();
                self.feed.settle(version, if purges { Settled::Nothing } else { Settled::Applied(&write) });
                partition.acknowledge(self.now, answer.sequence, write, other.as_ref());
            } else {
                self.feed.settle(version, Settled::Nothing);
                partition.settle(id);
            }
            self.counts.writes += 1;
            self.commands.push(Command::AnswerWrite { request, version, result: Ok(answer) });
        }
        // Now is the moment to move away from a slow leader, before it is sent the next frame.
        let moves = matches!(partition.phase, Phase::Draining { .. })
            || partition.announced.is_some() && partition.pace.is_slow(partition.leader);
        if let Some(session) = self.sessions.get_mut(&place) {
            let report = session.copies.get_mut(role);
            report.head = report.head.max(head);
        }
        self.publish();
        self.release_deferred(number);
        if moves {
            self.advance(number);
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
            let flight = WriteFlight { since: now, requests, batch: Arc::clone(&message) };
            session.writes(role).departed(batch, flight);
            commands.push(Command::Send { session: session.id, message: ToProcess::WriteBatch(message) });
        }
    }
}
