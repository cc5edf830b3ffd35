//! How the leader of a partition changes.
//!
//! * *Promotion*. The leader is lost. The other copy, if it and the tail together have every acknowledged
//!   write, becomes the candidate: a view says so (as *promoting*) and the tail is sent to it; when the view
//!   is persisted and the tail merged, the copy leads. The writes that the lost leader had not answered are
//!   sent again, before all others and with the same versions; a copy that knows such a version already
//!   answers from memory.
//! * *Move*. Both copies are there: see `moves`.
//!
//! If a move comes to nothing, the last leader leads again, by a newer view. If no copy may lead, the
//! partition is *down*: what was sent is answered as unknown, the rest as refused, and what comes meanwhile
//! is refused at once. Before that, all of it waits if the gateway itself may be cut off (see `cut_off`).

use std::time::Duration;

use protocol::Operation;
use protocol::message::MAX_BATCH;
use protocol::message::link::{Leader, MergeBatch, Merged, Role, ToProcess, Versioned};
use protocol::mutation::{self, Mutation};
use protocol::placement::{Partition as Number, Place};

use super::Engine;
use super::event::{Command, SessionId, Unserved};
use super::feed::Settled;
use super::partition::{ConnectedCopy, Frame, Phase, has_all_of};
use super::session::QueuedWrite;

/// A promotion that takes longer than this has failed.
const CONFIRM_WITHIN: Duration = Duration::from_secs(3);

/// A copy that lacks more writes than this gets them only in a promotion: that would be a load of its own.
const MAX_PRELOAD: usize = 16 * MAX_BATCH;

impl Engine {
    /// Looks at a partition again after one of its processes came, went or changed.
    pub(super) fn reconsider(&mut self, number: Number) {
        if !self.open || !self.partition(number).known {
            return;
        }
        let before = self.shown(number);
        match self.partition(number).phase {
            Phase::Serving { leader } | Phase::Draining { leader, .. } if self.is_leader(number, leader) => {}
            Phase::Confirming { candidate, .. } if self.places.contains_key(&candidate) => {
                if !self.partition(number).persisted && !self.can_be_persisted(number) {
                    self.go_down(number);
                }
            }
            _ => self.find_leader(number),
        }
        self.advance(number);
        if before != self.shown(number) {
            self.report_serving(number);
        }
    }

    /// Goes on with whatever a partition is in the middle of, as far as that is possible now.
    pub(super) fn advance(&mut self, number: Number) {
        let role = self.partition(number).leader;
        let (leader, other) = (self.report(number, role), self.report(number, role.other()));
        self.partition_mut(number).compare(leader.as_ref(), other.as_ref());
        match self.partition(number).phase {
            Phase::Serving { leader } => self.consider_move(number, leader),
            Phase::Draining { leader, since } => self.advance_move(number, leader, since),
            Phase::Confirming { candidate, merging: None, .. } => self.confirm(number, candidate),
            Phase::Confirming { .. } | Phase::Down => {}
        }
        self.release_waiting(number);
    }

    /// Goes on with every partition, as time passes; gives up promotions that take too long.
    pub(super) fn tick_partitions(&mut self) {
        for number in 0..self.size {
            let partition = self.partition(number);
            match partition.phase {
                Phase::Confirming { since, .. } if self.now.saturating_sub(since) > CONFIRM_WITHIN => {
                    self.go_down(number);
                    self.give_up(number);
                    self.report_serving(number);
                }
                Phase::Down if partition.known && self.complete_copies(number).any(|_| true) => {
                    self.reconsider(number);
                }
                _ => self.advance(number),
            }
        }
    }

    /// The leader, if there was one, is gone: another copy may lead.
    fn find_leader(&mut self, number: Number) {
        let partition = self.partition(number);
        // As it was when the leader was last there: nothing was decided since.
        let other_read = partition.other_is_current;
        let named = self.view.leaders[usize::from(number)];
        // The copy that led last has everything, whatever was planned since.
        let Some(role) = partition.last_leader().or((!named.promoting).then_some(named.role)) else {
            return self.finish_promotion(number);
        };
        let leader = Leader { role, promoting: false };
        if let Some(copy) = self.complete_copy(number, role) {
            if self.awaits_witness(number, role) {
                return self.go_down(number);
            }
            if named != leader {
                self.change_view(number, leader, "it has everything");
            }
            return match self.partition(number).persisted || self.can_be_persisted(number) {
                true => self.begin_confirming(number, copy.session, None, [false; 2]),
                false => self.go_down(number),
            };
        }
        let covered = |copy: &ConnectedCopy| self.partition(number).covers(&copy.report);
        if let Some(other) = self.copy(number, role.other()).filter(covered)
            && self.can_be_persisted(number)
        {
            let mut lacking = self.partition(number).lacking(&other.report);
            if mutation::is(Mutation::TailNotReplayed) {
                lacking.clear();
            }
            self.change_view(number, Leader { role: role.other(), promoting: true }, "the leader is lost");
            return self.begin_confirming(number, other.session, Some(&lacking), [other_read, false]);
        }
        if named != leader && !self.partition(number).is_down() {
            self.change_view(number, leader, "no other copy may lead");
        }
        self.go_down(number);
    }

    /// An earlier gateway ended during a promotion. Whatever was acknowledged is in one of the copies: when
    /// they have exchanged what they have, it is in both.
    fn finish_promotion(&mut self, number: Number) {
        let complete = |role| self.complete_copy(number, role);
        if let [Some(primary), Some(replica)] = Role::ALL.map(complete)
            && has_all_of(&primary.report, &replica.report)
            && has_all_of(&replica.report, &primary.report)
        {
            let leader = Leader { role: Role::Primary, promoting: false };
            self.change_view(number, leader, "both copies have exchanged what they have");
            return self.begin_confirming(number, primary.session, Some(&[]), [false; 2]);
        }
        self.go_down(number);
    }

    /// A copy is to lead as soon as its view is persisted. One that did not lead before gets what it lacks
    /// first, even if that is nothing: when it has merged all, what it has followed is on its disk, too.
    /// `reads`: whether the candidate and the old leader answer reads until then.
    pub(super) fn begin_confirming(
        &mut self,
        number: Number,
        candidate: SessionId,
        tail: Option<&[Versioned]>,
        reads: [bool; 2],
    ) {
        let role = self.partition(number).leader;
        let merging = tail.map(|tail| self.send_tail(number, candidate, role, tail));
        let now = self.now;
        self.partition_mut(number).begin_confirming(candidate, merging, reads, now);
    }

    /// Sends changes to a copy, as one frame at least. Returns the number of the last one: when that is
    /// merged, so is everything before.
    pub(super) fn send_tail(
        &mut self,
        number: Number,
        session: SessionId,
        role: Role,
        changes: &[Versioned],
    ) -> u64 {
        let other = self.partition(number).flushed(role.other());
        let mut left = changes;
        loop {
            let (frame, rest) = left.split_at(left.len().min(MAX_BATCH));
            self.merges += 1;
            let message = MergeBatch { batch: self.merges, role, changes: frame.to_vec(), other };
            self.send(session, ToProcess::MergeBatch(message));
            left = rest;
            if left.is_empty() {
                return self.merges;
            }
        }
    }

    /// The leader is silent, and reads wait for it: the other copy gets what it lacks of the tail, so that it
    /// can answer them. To merge what it gets by the op-log as well changes nothing.
    pub(super) fn preload_tail(&mut self, number: Number) {
        let partition = self.partition(number);
        let role = partition.leader.other();
        let Some(other) = self.copy(number, role).filter(|_| partition.other_is_current) else { return };
        let lacking = partition.to_preload(&other.report);
        if lacking.is_empty() || lacking.len() > MAX_PRELOAD || mutation::is(Mutation::WaitForSilent) {
            return;
        }
        let batch = self.send_tail(number, other.session, role, &lacking);
        self.partition_mut(number).begin_preload(other.session, batch);
    }

    /// The candidate leads, if its view is persisted.
    fn confirm(&mut self, number: Number, candidate: SessionId) {
        if !self.is_persisted(number) {
            return;
        }
        let role = self.partition(number).leader;
        let Some(leader) = self.copy(number, role).filter(|copy| copy.session == candidate) else { return };
        let other = self.report(number, role.other());
        self.partition_mut(number).serve(leader, other.as_ref());
        self.send_buffered(number);
        if self.view.leaders[usize::from(number)].promoting {
            self.change_view(number, Leader { role, promoting: false }, "it has everything");
        }
    }

    /// The leader gets the writes that waited.
    pub(super) fn send_buffered(&mut self, number: Number) {
        let partition = self.partition_mut(number);
        let (role, buffered) = (partition.leader, partition.take_buffered());
        if let Some(session) = self.holder_mut(number, role) {
            buffered.into_iter().for_each(|write| session.writes(role).push(write));
        }
    }

    /// A copy has merged one frame of a tail, and all before it.
    pub(super) fn merged(&mut self, place: Place, Merged { batch, role, lsn }: Merged) {
        let Some(from) = self.sessions.get(&place).map(|session| session.id) else { return };
        let Some(number) = self.partition_at(place, role) else { return };
        self.note_flushed(place, role, lsn);
        let at = self.credible_now();
        let partition = self.partition_mut(number);
        if partition.pace.answered(at, from, Frame::Merge(batch)) {
            return;
        }
        if partition.preload_merged(from, batch) {
            self.retry_reads_awaiting_tail(number);
            self.release_waiting(number);
        } else if partition.candidate_merged(from, batch) {
            self.reconsider(number);
            self.notify();
        }
    }

    /// No copy leads: what waits is refused, unless it may wait on (see `cut_off`).
    pub(super) fn go_down(&mut self, number: Number) {
        let now = self.now;
        let partition = self.partition_mut(number);
        partition.go_down(now);
        if partition.refuses() {
            self.give_up(number);
        }
    }

    /// No copy leads, and nothing waits for that any longer: what was sent is answered as unknown, the rest
    /// as refused.
    pub(super) fn give_up(&mut self, number: Number) {
        let refused = self.unavailable(number);
        for QueuedWrite { request, write, sent } in self.partition_mut(number).refuse() {
            let partition = self.partition_mut(number);
            partition.answered(write.id, write.version);
            partition.settle(write.id);
            let unknown = sent && !matches!(write.operation, Operation::Purge(_));
            let settled = if unknown { Settled::Unknown(write.id) } else { Settled::Nothing };
            self.feed.settle(write.version, settled);
            let unserved =
                if sent { Unserved::OutcomeUnknown { partition: number } } else { refused.clone() };
            self.commands.push(Command::AnswerWrite {
                request,
                version: write.version,
                result: Err(unserved),
            });
        }
        self.publish();
        self.retry_deferred(number);
        self.release_waiting(number);
    }

    pub(super) fn complete_copy(&self, number: Number, role: Role) -> Option<ConnectedCopy> {
        self.copy(number, role).filter(|copy| copy.report.complete)
    }

    pub(super) fn complete_copies(&self, number: Number) -> impl Iterator<Item = (Role, ConnectedCopy)> {
        Role::ALL.into_iter().filter_map(move |role| Some((role, self.complete_copy(number, role)?)))
    }

    /// Whether the leader of a partition is there on that connection.
    fn is_leader(&self, number: Number, session: SessionId) -> bool {
        self.holder(number, self.partition(number).leader).is_some_and(|holder| holder.id == session)
    }

    /// What people read of a partition: a line in the log for each change.
    fn shown(&self, number: Number) -> (bool, Role, bool, bool) {
        let partition = self.partition(number);
        let confirming = matches!(partition.phase, Phase::Confirming { .. });
        (partition.serves(), partition.leader, partition.other_is_current, confirming)
    }
}
