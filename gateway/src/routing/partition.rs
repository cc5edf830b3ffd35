//! One partition: who serves it, and what its other copy is not known to have.
//!
//! The primary copy leads whenever it is there and complete. Three things keep reads truthful meanwhile:
//!
//! * *Unsettled* users: those with a write that the replica is not known to have (queued, in flight, or in the tail).
//!   Their reads go to the lead.
//! * The *target*: when a lead or a replica registers, the replica answers no reads until it has applied the lead's
//!   op-log as it stood then. Whatever happened while one of them was away is below the target.
//! * The *tail*: when the lead is lost, the replica is handed every acknowledged write that it may lack, and answers
//!   only then. Where the tail does not reach back to what the replica has, nobody answers: a late truth is no truth.

use std::collections::HashMap;

use protocol::UserId;
use protocol::message::link::{CopyReport, Versioned};
use uuid::Uuid;

use super::event::{RequestId, SessionId};
use super::tail::Tail;

/// See the module.
#[derive(Debug)]
pub(super) struct Partition {
    /// False in a ring of one: there is no other copy, so nothing is ever replicated.
    replicated: bool,
    pub(super) serving: Serving,
    /// Connection of the lead that serves.
    pub(super) lead_session: Option<SessionId>,
    /// The op-log of the lead, as last seen; `None` until a lead was seen.
    log: Option<LeadLog>,
    tail: Tail,
    /// How many writes of a user the replica is not known to have; users with none are absent.
    unsettled: HashMap<UserId, u32>,
    /// Incarnation of the replica that was handed the whole tail since the lead was lost.
    handed_over: Option<Uuid>,
    /// Whether the replica may answer reads while the lead serves.
    replica_reads: bool,
    /// Reads that wait for a hand-over to end.
    pub(super) waiting: Vec<RequestId>,
}

/// Who answers for a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Serving {
    /// Nobody that is there is known to hold every acknowledged write.
    Nobody,
    /// The primary takes writes; reads go to the replica where it is up to date.
    Lead,
    /// The lead is gone and the replica is being handed the tail.
    HandingOver {
        /// Connection of the replica.
        session: SessionId,
        /// Number of the last frame: once it is confirmed, all are.
        until: u64,
    },
    /// The lead is gone and the replica, which has everything, answers reads.
    Replica,
}

#[derive(Debug, Clone, Copy)]
struct LeadLog {
    incarnation: Uuid,
    /// See the module.
    target: u64,
}

/// A connected copy, as far as the partition cares.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectedCopy {
    pub(super) session: SessionId,
    pub(super) report: CopyReport,
}

impl Partition {
    pub(super) fn new(replicated: bool, tail_bytes: usize) -> Self {
        Self {
            replicated,
            serving: Serving::Nobody,
            lead_session: None,
            log: None,
            tail: Tail::new(tail_bytes),
            unsettled: HashMap::new(),
            handed_over: None,
            replica_reads: false,
            waiting: Vec::new(),
        }
    }

    /// Whether the replica answers the reads of this user while the lead is there.
    pub(super) fn replica_reads(&self, id: &UserId) -> bool {
        self.replica_reads && !self.unsettled.contains_key(id)
    }

    pub(super) fn replica_is_current(&self) -> bool {
        self.replica_reads
    }

    pub(super) fn unreplicated(&self) -> usize {
        self.tail.len()
    }

    /// A write is about to be queued for the lead.
    pub(super) fn unsettle(&mut self, id: UserId) {
        if self.replicated {
            *self.unsettled.entry(id).or_default() += 1;
        }
    }

    /// A write of the user is either known to be at the replica, or was not applied, or is covered by the target.
    pub(super) fn settle(&mut self, id: UserId) {
        if let Some(count) = self.unsettled.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.unsettled.remove(&id);
            }
        }
    }

    /// The lead has acknowledged a write that it applied.
    pub(super) fn acknowledge(&mut self, sequence: u64, write: Versioned, replica: Option<&CopyReport>) {
        if !self.replicated {
            return;
        }
        if sequence <= self.tail.head() {
            // An operation that was sent again, answered from memory.
            return self.settle(write.id);
        }
        if self.applied_by(replica) >= Some(sequence) {
            // The replica was faster than the answer, so it has all before it as well.
            self.settle(write.id);
            for id in self.tail.restart(sequence).collect::<Vec<_>>() {
                self.settle(id);
            }
            return;
        }
        let dropped = self.tail.push(sequence, write);
        if !dropped.is_empty() {
            // What the tail lets go, only the op-log can bring: the replica is not current until it has it.
            self.raise_target(self.tail.base());
            dropped.into_iter().for_each(|id| self.settle(id));
            self.judge_replica(replica);
        }
    }

    /// The replica has applied more of an op-log.
    pub(super) fn replica_applied(&mut self, replica: Option<&CopyReport>) {
        if let Some(applied) = self.applied_by(replica) {
            for id in self.tail.release(applied) {
                self.settle(id);
            }
        }
        self.judge_replica(replica);
    }

    /// The replica has come back, perhaps with less than it had: it has to reach the lead as it stands.
    pub(super) fn replica_arrived(&mut self, replica: Option<&CopyReport>) {
        self.raise_target(self.tail.head());
        self.replica_applied(replica);
    }

    /// A complete primary has registered, or has become complete: it leads.
    pub(super) fn lead_arrived(&mut self, lead: &CopyReport, replica: Option<&CopyReport>) {
        let same_log = self.log.is_some_and(|log| log.incarnation == lead.incarnation);
        if !(same_log && self.tail.head() == lead.head) {
            // Writes whose answers never came are in there, or it is another log: only the target covers them.
            for id in self.tail.restart(lead.head).collect::<Vec<_>>() {
                self.settle(id);
            }
        }
        self.log = Some(LeadLog { incarnation: lead.incarnation, target: lead.head });
        self.handed_over = None;
        self.serving = Serving::Lead;
        self.replica_applied(replica);
    }

    /// Who serves while there is no lead. Returns what the replica has to be handed first.
    pub(super) fn without_lead(&mut self, replica: Option<ConnectedCopy>) -> Vec<Versioned> {
        self.replica_reads = false;
        let covered = replica.filter(|copy| {
            copy.report.complete
                && (self.handed_over == Some(copy.report.incarnation)
                    || self.applied_by(Some(&copy.report)) >= Some(self.tail.base()))
        });
        let Some(copy) = covered else {
            self.serving = Serving::Nobody;
            return Vec::new();
        };
        if self.serving == Serving::Replica || self.handed_over == Some(copy.report.incarnation) {
            self.serving = Serving::Replica;
            return Vec::new();
        }
        if matches!(self.serving, Serving::HandingOver { session, .. } if session == copy.session) {
            return Vec::new();
        }
        let applied = self.applied_by(Some(&copy.report)).unwrap_or(0);
        let lacking: Vec<Versioned> = self.tail.after(applied).cloned().collect();
        if lacking.is_empty() {
            self.take_over(copy.report.incarnation);
        }
        lacking
    }

    /// The replica holds the whole tail.
    pub(super) fn take_over(&mut self, replica: Uuid) {
        self.handed_over = Some(replica);
        self.serving = Serving::Replica;
    }

    fn applied_by(&self, replica: Option<&CopyReport>) -> Option<u64> {
        let (log, position) = (self.log?, replica?.position?);
        (position.incarnation == log.incarnation).then_some(position.sequence)
    }

    fn target(&self) -> u64 {
        self.log.map_or(u64::MAX, |log| log.target)
    }

    fn raise_target(&mut self, sequence: u64) {
        if let Some(log) = &mut self.log {
            log.target = log.target.max(sequence);
        }
    }

    fn judge_replica(&mut self, replica: Option<&CopyReport>) {
        self.replica_reads = self.serving == Serving::Lead
            && replica.is_some_and(|report| report.complete)
            && self.applied_by(replica) >= Some(self.target());
    }
}
