//! Which copy may answer reads of a partition, and which reads wait.

use std::collections::BTreeMap;
use std::mem;

use protocol::message::link::{CopyReport, Found, Role, Versioned};
use protocol::mutation::{self, Mutation};
use protocol::{UserId, Version};

use super::super::event::{RequestId, SessionId};
use super::pace::Cause;
use super::state::{DeferredAnswer, Partition, Phase, TailPreload};

impl Partition {
    /// Which copy answers the reads of this user, if any may now.
    pub(in crate::engine) fn reader(&self, id: &UserId) -> Option<Role> {
        match self.phase {
            Phase::Serving { .. } | Phase::Draining { .. } => {
                let settled = !self.open.is_unsettled(id) || mutation::is(Mutation::ReadUnsettled);
                Some(self.other_where(self.other_is_current && settled))
            }
            Phase::Confirming { .. } => Role::ALL.into_iter().find(|&role| self.may_read(role, id)),
            Phase::Down => None,
        }
    }

    /// Why a copy counts as slow, if it does.
    pub(crate) fn slow(&self, role: Role) -> Option<Cause> {
        self.pace.cause(role)
    }

    /// Which copy answers questions about all users, while one serves.
    pub(in crate::engine) fn lister(&self) -> Role {
        self.other_where(self.other_may_list())
    }

    fn other_where(&self, allowed: bool) -> Role {
        let other = self.leader.other();
        if allowed && !self.pace.is_slow(other) { other } else { self.leader }
    }

    /// Whether the copy of that role may answer the reads of this user now.
    pub(in crate::engine) fn may_read(&self, role: Role, id: &UserId) -> bool {
        // The tail may have writes of the user that the copy lacks which does not lead, or is about to.
        let lacks = || self.open.in_tail_beyond(id, self.preloaded_upto);
        match self.phase {
            Phase::Serving { .. } | Phase::Draining { .. } => {
                role == self.leader || self.other_is_current && !lacks()
            }
            Phase::Confirming { .. } if role == self.state.leader => self.candidate_serves_reads && !lacks(),
            Phase::Confirming { .. } => self.old_leader_serves_reads,
            Phase::Down => false,
        }
    }

    /// Whether the copy of that role may answer questions about all users now.
    pub(in crate::engine) fn may_list(&self, role: Role) -> bool {
        self.serves() && (role == self.leader || self.other_may_list())
    }

    fn other_may_list(&self) -> bool {
        self.other_is_current && (self.open.all_settled() || mutation::is(Mutation::ReadUnsettled))
    }

    /// Whether reads and questions have to wait until it is settled which copy leads.
    pub(in crate::engine) fn reads_wait(&self) -> bool {
        match self.phase {
            Phase::Confirming { .. } => !self.candidate_serves_reads && !self.old_leader_serves_reads,
            Phase::Down => !self.refuses(),
            Phase::Serving { .. } | Phase::Draining { .. } => false,
        }
    }

    pub(in crate::engine) fn reads_awaiting_leader(&mut self) -> &mut Vec<RequestId> {
        &mut self.reads_awaiting_leader
    }

    pub(in crate::engine) fn reads_awaiting_tail(&mut self) -> &mut Vec<RequestId> {
        &mut self.reads_awaiting_tail
    }

    /// The unanswered write that the answer to a read shows, so that it has to wait.
    pub(in crate::engine) fn unanswered_shown(
        &self,
        id: UserId,
        role: Role,
        found: Option<&Found>,
    ) -> Option<Version> {
        self.open.shown(id, found, role == self.leader).filter(|_| !mutation::is(Mutation::ReadUnanswered))
    }

    /// The newest unanswered write that a page or a count may show, so that it has to wait; `fits` says
    /// which users it is about.
    pub(in crate::engine) fn unanswered_listed(&self, fits: impl Fn(&UserId) -> bool) -> Option<Version> {
        self.open.last_unanswered(fits).filter(|_| !mutation::is(Mutation::ReadUnanswered))
    }

    /// The answer waits until all writes up to that version are answered.
    pub(in crate::engine) fn defer(&mut self, until: Version, request: RequestId, answer: DeferredAnswer) {
        self.deferred.entry(until).or_default().push((request, answer));
    }

    /// The deferred answers whose writes are answered.
    pub(in crate::engine) fn take_released(
        &mut self,
    ) -> impl Iterator<Item = (RequestId, DeferredAnswer)> + use<> {
        let wait = match self.open.first_unanswered() {
            Some(first) if !self.deferred.is_empty() => self.deferred.split_off(&first),
            _ => BTreeMap::new(),
        };
        mem::replace(&mut self.deferred, wait).into_values().flatten()
    }

    /// All deferred answers. What they show may be lost.
    pub(in crate::engine) fn take_deferred(
        &mut self,
    ) -> impl Iterator<Item = (RequestId, DeferredAnswer)> + use<> {
        mem::take(&mut self.deferred).into_values().flatten()
    }

    /// What a copy lacks of the tail that was not sent to it already, where nothing is on its way.
    pub(in crate::engine) fn to_preload(&self, copy: &CopyReport) -> Vec<Versioned> {
        match self.preload {
            None => self.coverage.lacking(copy, self.preloaded_upto),
            Some(_) => Vec::new(),
        }
    }

    /// The tail is on its way to the other copy, as frames up to that number.
    pub(in crate::engine) fn begin_preload(&mut self, session: SessionId, batch: u64) {
        assert!(self.preload.is_none(), "one preload at a time");
        let upto = self.coverage.tail().head();
        self.preload = Some(TailPreload { session, batch, upto });
        if mutation::is(Mutation::ReadBeforeMerged) {
            self.preloaded_upto = self.preloaded_upto.max(upto);
        }
    }

    /// A copy has merged that frame. Returns whether it was the last one of a preload.
    pub(in crate::engine) fn preload_merged(&mut self, from: SessionId, batch: u64) -> bool {
        let merged = self.preload.take_if(|preload| (preload.session, preload.batch) == (from, batch));
        if let Some(TailPreload { upto, .. }) = merged {
            self.preloaded_upto = self.preloaded_upto.max(upto);
        }
        merged.is_some()
    }

    /// One of the copies has come, and what was sent to it before counts no longer.
    pub(in crate::engine) fn forget_preload(&mut self) {
        self.preloaded_upto = 0;
        self.preload = None;
        self.old_leader_serves_reads = false;
    }
}
