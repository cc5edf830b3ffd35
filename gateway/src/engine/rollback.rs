//! Copies that were rolled back: their disks have lost something (see [`protocol::message::link::Rollback`]).
//!
//! The gateway remembers of each copy what it has said to be on its disk, and hears from each copy what that
//! knows of the other one. When a process registers, whatever is known beyond its report is sent to it
//! ([`Expected`]), before anything else. The process compares, since only it knows what it has by now, and
//! answers; until then the copy counts as not complete. If it has less, it ends the connection, before it
//! answers anything, and registers again with a copy that is not complete.
//!
//! So a copy that was rolled back never leads or serves. If the other copy leads, it follows the op-log of
//! the one that was rolled back to its end, and then that one is discarded and filled anew
//! (`notices`). If no copy can lead, because the gateway was restarted as well, the operator decides
//! (`operator`).
//!
//! A gateway that has just started knows nothing by itself. It waits for the other copy for
//! [`WITNESS_WITHIN`] before a copy leads without its word.

use std::time::Duration;

use protocol::message::link::{Compared, Expected, FlushPoint, Role, ToProcess};
use protocol::mutation::{self, Mutation};
use protocol::placement::{Partition as Number, Place};

use super::Engine;
use super::event::RingEvent;

/// A gateway that has just started waits so long for the process of the other copy. It comes back within a
/// second, and requests wait for two.
const WITNESS_WITHIN: Duration = Duration::from_millis(1_500);

impl Engine {
    /// A process has registered: each side gets what the other one knows of its disk.
    pub(super) fn compare_disks(&mut self, place: Place) {
        for (role, number) in self.copies_at(place) {
            self.expect(number, role, true);
            // A copy that has served was compared when it came, and may have got further than it has said.
            let unserved = self.partition(number).last_leader().is_none();
            self.expect(number, role.other(), unserved);
        }
    }

    /// Sends the process of a copy what is known of that, where it is more than the process has said. With
    /// `waits` the copy counts as not complete until it has answered.
    fn expect(&mut self, number: Number, role: Role, waits: bool) {
        let Some(copy) = self.copy(number, role).filter(|copy| copy.report.rollback.is_none()) else {
            return;
        };
        let other = self.report(number, role.other());
        let points = [self.partition(number).flushed(role), other.and_then(|other| other.other)];
        let known = points.into_iter().flatten();
        let flushed =
            known.filter(|point| point.incarnation == copy.report.incarnation).max_by_key(|point| point.lsn);
        let followed = other.and_then(|other| other.position);
        if copy.report.compare(flushed, followed).is_none() || mutation::is(Mutation::RegistrationNotCompared)
        {
            return;
        }
        self.send(copy.session, ToProcess::Expected(Expected { role, flushed, followed }));
        if waits && let Some(session) = self.holder_mut(number, role) {
            session.asked[role as usize] += 1;
        }
    }

    /// A copy has what is known of its disk.
    pub(super) fn compared(&mut self, place: Place, Compared { role }: Compared) {
        let Some(session) = self.sessions.get_mut(&place) else { return };
        let asked = &mut session.asked[role as usize];
        *asked = asked.saturating_sub(1);
        if let Some(number) = self.partition_at(place, role) {
            self.reconsider(number);
            self.notify();
        }
    }

    /// Takes note of what the copies of a process say to be on their disks.
    pub(super) fn note_flush_points(&mut self, place: Place) {
        for (role, number) in self.copies_at(place) {
            if let Some(report) = self.report(number, role) {
                self.partition_mut(number).note_flushed(role, report.flush_point());
            }
        }
    }

    /// A copy has said that this commit is on its disk.
    pub(super) fn note_flushed(&mut self, place: Place, role: Role, lsn: u64) {
        let Some(session) = self.sessions.get(&place) else { return };
        let incarnation = session.copies.get(role).incarnation;
        if let Some(number) = self.partition_at(place, role) {
            self.partition_mut(number).note_flushed(role, FlushPoint { incarnation, lsn });
        }
    }

    /// Reports which copies of a process were rolled back.
    pub(super) fn report_rollbacks(&mut self, place: Place) {
        for (role, partition) in self.copies_at(place) {
            if let Some(rollback) = self.report(partition, role).and_then(|report| report.rollback) {
                let instance = self.name_of(place);
                self.report_event(RingEvent::RolledBack { instance, partition, role, rollback });
            }
        }
    }

    /// Whether a gateway that has just started should hear the other copy first, before that of this role
    /// leads.
    pub(super) fn awaits_witness(&self, number: Number, role: Role) -> bool {
        self.now < WITNESS_WITHIN
            && self.partition(number).last_leader().is_none()
            && self.ring.is_some_and(|ring| ring.id != self.config.new_ring)
            && self.partition(number).replicated
            && self.holder(number, role.other()).is_none()
    }
}
