//! Processes that were asked to stop: each is released when it is not needed any more.

use std::time::Duration;

use protocol::message::link::{Released, ToProcess};
use protocol::placement::{Partition as Number, Place};

use super::Engine;
use super::event::SessionId;
use super::partition::Phase;

/// When a process is to stop, its leaders move after this time, unless all processes are to stop by then.
const LEAVE_AFTER: Duration = Duration::from_millis(40);

/// A process that is to stop is released after this time, whatever may still depend on it.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

impl Engine {
    /// Releases processes that are not needed.
    pub(super) fn release_leaving(&mut self) {
        let all_leave = self.sessions.values().all(|session| session.leaving.is_some());
        let leaving = self.sessions.iter().filter(|(_, session)| !session.released);
        let released = leaving.filter(|(place, session)| {
            let Some(since) = session.leaving else { return false };
            let waited = self.now.saturating_sub(since);
            all_leave || waited > LEAVE_WITHIN || waited > LEAVE_AFTER && !self.is_needed(**place)
        });
        for place in released.map(|(place, _)| *place).collect::<Vec<_>>() {
            let Some(session) = self.sessions.get_mut(&place) else { continue };
            session.released = true;
            let id = session.id;
            self.send(id, ToProcess::Released(Released {}));
        }
    }

    /// Whether the leaders of a process have to move away from it.
    pub(super) fn must_leave(&self, session: SessionId) -> bool {
        let since = self.session(session).and_then(|session| session.leaving);
        since.is_some_and(|since| self.now.saturating_sub(since) > LEAVE_AFTER)
            && self.sessions.values().any(|session| session.leaving.is_none())
    }

    /// Whether a partition of which a process has a copy still depends on it.
    fn is_needed(&self, place: Place) -> bool {
        self.copies_at(place).any(|(role, number)| {
            let partition = self.partition(number);
            let leads_elsewhere = || {
                let other = self.complete_copy(number, role.other());
                let session = other.and_then(|copy| self.session(copy.session));
                session.is_some_and(|session| session.leaving.is_none())
            };
            match partition.phase {
                Phase::Down => false,
                Phase::Draining { .. } | Phase::Confirming { .. } => true,
                // A gateway that starts and finds no more than what was announced needs both copies.
                Phase::Serving { .. } => {
                    !self.is_settled(number) || partition.leader == role && leads_elsewhere()
                }
            }
        })
    }

    fn is_settled(&self, number: Number) -> bool {
        let partition = self.partition(number);
        self.is_persisted_for(number, partition.leader, partition.decided)
    }
}
