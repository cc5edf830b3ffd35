//! Processes that answer beats but no writes, because of a disk that hangs: each is evicted where others can
//! lead in its place at once. What it still writes is merged when it has caught up.

use std::time::Duration;

use protocol::message::link::Role;
use protocol::placement::{Partition as Number, Place};

use super::Engine;
use super::event::SessionId;
use super::partition::{ConnectedCopy, Phase};
use super::session::Session;

/// Writes that have not been answered for so long hang.
const HANGS_AFTER: Duration = Duration::from_secs(2);

/// A process that has not answered writes for so long may be about to hang as well, on the same disk perhaps.
const IN_DOUBT_AFTER: Duration = Duration::from_millis(500);

impl Engine {
    pub(super) fn evict_hanging(&mut self) {
        let hangs = |session: &Session| session.owes_for(self.now) > HANGS_AFTER;
        let hanging: Vec<(Place, SessionId)> = self
            .sessions
            .iter()
            .filter(|(_, session)| hangs(session))
            .map(|(place, session)| (*place, session.id))
            .collect();
        for (place, session) in hanging {
            if self.copies_at(place).all(|(role, number)| self.can_do_without(number, role)) {
                self.evict(session, "its writes hang");
            }
        }
        for number in 0..self.size {
            if let Some(candidate) = self.hanging_candidate(number) {
                let now = self.now;
                let partition = self.partition_mut(number);
                let role = partition.leader;
                // Otherwise it would be tried again as soon as that process is back, and delay writes each
                // time.
                partition.pace.hangs(now, role);
                self.evict(candidate, "it was to lead, and hangs");
            }
        }
    }

    /// Whether a copy has not answered writes for a while.
    pub(super) fn is_in_doubt(&self, copy: &ConnectedCopy) -> bool {
        self.session(copy.session).is_none_or(|session| session.owes_for(self.now) >= IN_DOUBT_AFTER)
    }

    /// The oldest writes that a copy has not answered: the number of the frame, and when it left.
    pub(super) fn owes(&self, session: SessionId, role: Role) -> Option<(u64, Duration)> {
        self.session(session).and_then(|session| session.oldest_writes(role))
    }

    /// The candidate of a move that does not get to its disk what it needs, and keeps the old leader from
    /// going on.
    fn hanging_candidate(&self, number: Number) -> Option<SessionId> {
        let partition = self.partition(number);
        let Phase::Confirming { candidate, merging, since } = partition.phase else { return None };
        let persists = self.session(candidate)?.epoch >= partition.decided;
        let old_leader = self.complete_copy(number, partition.last_leader()?)?;
        let late = self.now.saturating_sub(since) > HANGS_AFTER && (merging.is_some() || !persists);
        (late && old_leader.session != candidate).then_some(candidate)
    }

    /// Whether a partition would be led by the other copy at once, if it is led by that of this role.
    fn can_do_without(&self, number: Number, role: Role) -> bool {
        let partition = self.partition(number);
        if partition.leader != role || partition.is_down() {
            return true;
        }
        let Some(other) = self.copy(number, role.other()) else { return false };
        partition.covers(&other.report)
            && self.session(other.session).is_some_and(|session| session.leaving.is_none())
            && !self.is_in_doubt(&other)
            && (self.size <= 2 || self.sessions.len() > self.majority())
    }
}
