//! What a copy has of the op-log of the last leader, and what the tail covers.

use std::time::Duration;

use protocol::UserId;
use protocol::message::link::{CopyReport, Role, Versioned};
use protocol::mutation::{self, Mutation};
use uuid::Uuid;

use super::super::event::SessionId;
use super::tail::Tail;

/// A copy that lacks no more than this many writes may take over while the leader is there.
const ALMOST: u64 = 512;

/// A connected copy, as far as the partition cares.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectedCopy {
    pub(in crate::engine) session: SessionId,
    pub(in crate::engine) report: CopyReport,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Coverage {
    /// The op-log of the last copy that led; `None` until one did.
    log: Option<LeaderLog>,
    tail: Tail,
}

#[derive(Debug, Clone, Copy)]
struct LeaderLog {
    role: Role,
    incarnation: Uuid,
    /// The other copy answers no reads before it has applied up to here.
    target: u64,
    /// The copy that led before, where it moved the leadership while this op-log had no entry: it has
    /// everything from before the first one, though it may not have followed this op-log yet.
    from: Option<Uuid>,
}

impl Coverage {
    pub(super) fn new(tail_bytes: usize) -> Self {
        Self { log: None, tail: Tail::new(tail_bytes) }
    }

    /// The role of the last copy that led: it holds every acknowledged write.
    pub(super) fn last_leader(&self) -> Option<Role> {
        self.log.map(|log| log.role)
    }

    /// Forgets which copy led last: the operator gives up what only that copy may have.
    pub(super) fn forget_last_leader(&mut self) {
        self.log = None;
    }

    pub(super) fn tail(&self) -> &Tail {
        &self.tail
    }

    /// A copy leads from now on. `moved_from`: the copy that led until now and handed over in a move. Returns
    /// whose writes left the tail, where it had to start anew.
    pub(super) fn lead(
        &mut self,
        role: Role,
        report: &CopyReport,
        moved_from: Option<Uuid>,
    ) -> Option<Vec<UserId>> {
        let same_log = self.log.filter(|log| log.incarnation == report.incarnation);
        let from = match same_log {
            Some(log) => log.from,
            None => moved_from.filter(|_| report.head == 0 && !mutation::is(Mutation::HandedUnknown)),
        };
        self.log = Some(LeaderLog { role, incarnation: report.incarnation, target: report.head, from });
        // Writes whose answers never came are in there, or it is another log: only the target covers them.
        let known = same_log.is_some() && self.tail.head() == report.head;
        (!known).then(|| self.restart(report.head))
    }

    /// The tail starts anew after that entry. Returns whose writes left it.
    pub(super) fn restart(&mut self, sequence: u64) -> Vec<UserId> {
        self.tail.restart(sequence).collect()
    }

    /// Adds an acknowledged write. Returns whose writes had to leave the tail: only the op-log can bring
    /// those, so the target rises.
    pub(super) fn push(&mut self, now: Duration, sequence: u64, write: Versioned) -> Vec<UserId> {
        let dropped = self.tail.push(now, sequence, write);
        if !dropped.is_empty() {
            self.raise_target(self.tail.base());
        }
        dropped
    }

    /// The other copy has reported. Returns whose writes left the tail.
    pub(super) fn release(&mut self, other: &CopyReport) -> Vec<UserId> {
        self.applied_by(other).map_or_else(Vec::new, |applied| self.tail.release(applied))
    }

    pub(super) fn raise_target(&mut self, sequence: u64) {
        if let Some(log) = &mut self.log {
            log.target = log.target.max(sequence);
        }
    }

    /// Whether a copy has reached the target.
    pub(super) fn has_target(&self, copy: &CopyReport) -> bool {
        self.applied_by(copy) >= Some(self.log.map_or(u64::MAX, |log| log.target))
            || mutation::is(Mutation::TargetIgnored)
    }

    /// Whether a copy has applied that entry.
    pub(super) fn has_applied(&self, copy: &CopyReport, sequence: u64) -> bool {
        self.applied_by(copy) >= Some(sequence)
    }

    /// Whether a copy, together with the tail, has every acknowledged write of the last leader.
    pub(super) fn covers(&self, copy: &CopyReport) -> bool {
        let covered = self.has_applied(copy, self.tail.base());
        copy.complete && (covered || mutation::is(Mutation::PromoteUncovered))
    }

    /// What a copy that has the tail up to `preloaded` lacks of it.
    pub(super) fn lacking(&self, copy: &CopyReport, preloaded: u64) -> Vec<Versioned> {
        self.tail.after(self.applied_by(copy).unwrap_or(0).max(preloaded)).cloned().collect()
    }

    /// How many acknowledged writes a copy lacks; `None` where that is not known.
    pub(super) fn lag(&self, copy: &CopyReport) -> Option<u64> {
        Some(self.tail.head().saturating_sub(self.applied_by(copy)?))
    }

    /// Whether a copy lacks so little that it may lead in a moment.
    pub(super) fn is_almost(&self, copy: &CopyReport) -> bool {
        self.lag(copy).is_some_and(|lag| lag <= ALMOST)
    }

    /// How far a copy has the op-log of the last leader, as far as that is known.
    fn applied_by(&self, copy: &CopyReport) -> Option<u64> {
        let log = self.log?;
        match copy.position {
            Some(position) if position.incarnation == log.incarnation => Some(position.sequence),
            _ => (log.from == Some(copy.incarnation)).then_some(0),
        }
    }
}

/// Whether `reader` has applied all of the op-log of `source`. While it does not lead, that has a fixed end.
pub(in crate::engine) fn has_all_of(reader: &CopyReport, source: &CopyReport) -> bool {
    let applied = reader.position.filter(|position| position.incarnation == source.incarnation);
    source.head == 0
        || applied.is_some_and(|position| position.sequence >= source.head)
        || mutation::is(Mutation::ExchangeIgnored)
}
