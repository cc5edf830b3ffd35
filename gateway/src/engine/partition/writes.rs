//! The writes of a partition: which are open, which wait, and which the other copy lacks.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use protocol::message::link::{CopyReport, Role, Versioned, Write};
use protocol::{UserId, Version};

use super::super::event::SessionId;
use super::super::session::QueuedWrite;
use super::coverage::has_all_of;
use super::state::{Partition, Phase};

impl Partition {
    /// The leader that takes writes now; `None` where they are buffered.
    pub(in crate::engine) fn writer(&self) -> Option<SessionId> {
        match self.phase {
            Phase::Serving { leader } if self.paused_until.is_none() => Some(leader),
            _ => None,
        }
    }

    /// A write is queued for the leader, or buffered.
    pub(in crate::engine) fn admit(&mut self, write: &Write) {
        if self.replicated {
            self.open.add(write);
        }
    }

    /// How many writes wait until they can be sent to a leader.
    pub(in crate::engine) fn buffered(&self) -> usize {
        self.buffered_writes.len()
    }

    pub(in crate::engine) fn buffer(&mut self, write: QueuedWrite) {
        self.buffered_writes.push_back(write);
    }

    /// These wait, before all that wait already: a partition's writes keep their order.
    pub(in crate::engine) fn buffer_first(&mut self, mut first: VecDeque<QueuedWrite>) {
        for queued in first.iter().filter(|queued| queued.sent) {
            self.open.mark_resent(queued.write.version);
        }
        first.append(&mut self.buffered_writes);
        self.buffered_writes = first;
    }

    pub(in crate::engine) fn take_buffered(&mut self) -> VecDeque<QueuedWrite> {
        mem::take(&mut self.buffered_writes)
    }

    /// New writes are buffered for a while.
    pub(in crate::engine) fn pause_writes(&mut self, until: Duration) {
        self.state.paused_until = Some(until);
    }

    /// Ends a pause. Returns the leader that can have the buffered writes at once.
    pub(in crate::engine) fn end_pause(&mut self) -> Option<SessionId> {
        self.state.paused_until = None;
        self.writer()
    }

    /// A write was answered, or is given up.
    pub(in crate::engine) fn answered(&mut self, id: UserId, version: Version) {
        self.open.answered(id, version);
    }

    /// The oldest write that no leader has answered.
    pub(in crate::engine) fn first_unanswered(&self) -> Option<Version> {
        self.open.first_unanswered()
    }

    /// A write of the user was not applied, or is given up.
    pub(in crate::engine) fn settle(&mut self, id: UserId) {
        self.open.settle(id);
    }

    /// The leader has acknowledged a write that it applied as that entry of its op-log.
    pub(in crate::engine) fn acknowledge(
        &mut self,
        now: Duration,
        sequence: u64,
        write: Versioned,
        other: Option<&CopyReport>,
    ) {
        if !self.replicated {
            return;
        }
        if sequence <= self.coverage.tail().head() {
            // An operation that was sent again, answered from memory: the other copy is where it came from.
            return self.open.settle(write.id);
        }
        if other.is_some_and(|other| self.coverage.has_applied(other, sequence)) {
            // The other copy was faster than the answer, so it has all before it as well.
            self.open.settle(write.id);
            let left = self.coverage.restart(sequence);
            return self.tail_restarted(left);
        }
        self.open.enters_tail(write.id, sequence);
        for id in self.coverage.push(now, sequence, write) {
            // What the tail lets go, only the op-log can bring: the other copy is not current until it has
            // it.
            self.state.other_is_current = false;
            self.open.leaves_tail(id);
        }
    }

    /// The tail has started anew, and these users' writes have left it.
    pub(super) fn tail_restarted(&mut self, left: Vec<UserId>) {
        left.into_iter().for_each(|id| self.open.leaves_tail(id));
        self.forget_preload();
    }

    /// One of the copies has applied more of the other's op-log, or the other copy has come or gone.
    pub(in crate::engine) fn compare(&mut self, leader: Option<&CopyReport>, other: Option<&CopyReport>) {
        let released = other.map_or_else(Vec::new, |other| self.coverage.release(other));
        released.into_iter().for_each(|id| self.open.leaves_tail(id));
        self.state.other_is_current = self.serves()
            && other.is_some_and(|other| other.complete && self.coverage.has_target(other))
            && leader.zip(other).is_some_and(|(leader, other)| has_all_of(leader, other));
    }

    /// The copy of that role has come, perhaps with less than it had. If it does not lead, it has to reach
    /// the leader as it stands.
    pub(in crate::engine) fn copy_arrived(&mut self, role: Role) {
        self.forget_preload();
        if self.leader != role {
            self.coverage.raise_target(self.coverage.tail().head());
        }
    }

    /// How many acknowledged writes the other copy is not known to have.
    pub(crate) fn unreplicated(&self) -> usize {
        self.coverage.tail().len()
    }

    /// When the oldest of them was acknowledged.
    pub(crate) fn oldest_unreplicated(&self) -> Option<Duration> {
        self.coverage.tail().oldest()
    }

    /// Whether a copy, together with the tail, has every acknowledged write of the last leader.
    pub(in crate::engine) fn covers(&self, copy: &CopyReport) -> bool {
        self.coverage.covers(copy)
    }

    /// What a copy lacks of the tail.
    pub(in crate::engine) fn lacking(&self, copy: &CopyReport) -> Vec<Versioned> {
        self.coverage.lacking(copy, 0)
    }

    /// How many acknowledged writes a copy lacks; `None` where that is not known.
    pub(crate) fn lag(&self, copy: &CopyReport) -> Option<u64> {
        self.coverage.lag(copy)
    }

    /// Whether a copy lacks so little that it may lead in a moment.
    pub(in crate::engine) fn is_almost(&self, copy: &CopyReport) -> bool {
        self.coverage.is_almost(copy)
    }
}
