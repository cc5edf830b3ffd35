//! The way of one write: to the lead of its partition, in version order, and back with what came of it.

use std::sync::Arc;

use protocol::Outcome;
use protocol::message::link::{Role, Versioned, Write, WriteAnswers, WriteBatch};
use protocol::placement::Place;

use super::Routing;
use super::event::{Command, RequestId, ToProcess, Unserved};
use super::lane::Lane;
use super::partition::Serving;
use super::session::{QueuedWrite, Session, WriteFlight};

/// Writes queued for one lead beyond which the gateway takes on no more.
const MAX_QUEUED: usize = 16_384;

impl Routing {
    pub(super) fn write(&mut self, request: RequestId, write: Write, commands: &mut Vec<Command>) {
        let number = self.partition_of(&write.id);
        let partition = number as u16;
        let mut refuse = |unserved| {
            commands.push(Command::AnswerWrite { request, result: Err(unserved) });
        };
        let lead = match self.partitions[number].serving {
            Serving::Lead => self.sessions.get_mut(&partition),
            _ => None,
        };
        let Some(lead) = lead else {
            let waiting_for = self.waiting_for(partition);
            return refuse(Unserved::Unavailable { partition, waiting_for });
        };
        if lead.writes.queued() >= MAX_QUEUED {
            return refuse(Unserved::Overloaded { partition });
        }
        self.partitions[number].unsettle(write.id);
        lead.writes.push(QueuedWrite { request, write });
    }

    pub(super) fn write_answered(
        &mut self,
        place: Place,
        answers: WriteAnswers,
        commands: &mut Vec<Command>,
    ) {
        let replica = self.replica_report(place);
        let Some(session) = self.sessions.get_mut(&place) else {
            return;
        };
        let count = answers.results.len();
        let Some(flight) = session.writes.land(answers.batch, |flight| flight.requests.len() == count) else {
            return self.distrust(place, "it sent an answer that fits no batch of writes", commands);
        };
        let partition = &mut self.partitions[usize::from(place)];
        let batch = Arc::unwrap_or_clone(flight.batch);
        for ((request, write), answer) in flight.requests.into_iter().zip(batch.writes).zip(answers.results) {
            if answer.outcome == Outcome::Applied {
                let Write { version, id, operation, .. } = write;
                let write = Versioned { version, id, change: operation.into_change() };
                partition.acknowledge(answer.sequence, write, replica.as_ref());
            } else {
                partition.settle(write.id);
            }
            self.served.writes += 1;
            commands.push(Command::AnswerWrite { request, result: Ok(answer) });
        }
    }

    /// The writes of a lost lead: what never left was not done, of the rest nobody knows.
    pub(super) fn abandon_writes(
        &mut self,
        place: Place,
        lane: Lane<QueuedWrite, WriteFlight>,
        commands: &mut Vec<Command>,
    ) {
        let waiting_for = self.waiting_for(place);
        let partition = &mut self.partitions[usize::from(place)];
        let (queue, flights) = lane.abandon();
        for flight in flights {
            for (request, write) in flight.requests.iter().zip(&flight.batch.writes) {
                partition.settle(write.id);
                let unknown = Unserved::OutcomeUnknown { partition: place };
                commands.push(Command::AnswerWrite { request: *request, result: Err(unknown) });
            }
        }
        for QueuedWrite { request, write } in queue {
            partition.settle(write.id);
            let waiting_for = waiting_for.clone();
            let refused = Unserved::Unavailable { partition: place, waiting_for };
            commands.push(Command::AnswerWrite { request, result: Err(refused) });
        }
    }
}

/// Sends what has queued up for a lead.
pub(super) fn depart(session: &mut Session, commands: &mut Vec<Command>) {
    while let Some((batch, queued)) = session.writes.depart() {
        let (requests, writes): (Vec<RequestId>, Vec<Write>) =
            queued.into_iter().map(|queued| (queued.request, queued.write)).unzip();
        let message = Arc::new(WriteBatch { batch, role: Role::Primary, writes });
        session.writes.departed(batch, WriteFlight { requests, batch: Arc::clone(&message) });
        commands.push(Command::Send { session: session.id, message: ToProcess::Writes(message) });
    }
}
