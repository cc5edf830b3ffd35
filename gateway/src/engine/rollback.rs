//! Copies that were rolled back: their disks have lost something (see [`protocol::message::link::Rollback`]).
//!
//! The gateway remembers of each copy what it has said to be on its disk, and hears from each copy what that
//! knows of the other one. When a process registers, whatever is known beyond its report is sent to it
//! ([`Expected`]), before anything else. The process compares, since only it knows what it has by now, and
//! says so; until then the copy counts as not complete. If it has less, it ends the connection, before it
//! answers anything, and registers again with a copy that is not complete.
//!
//! So a copy that was rolled back never leads or serves. If the other copy leads, it follows the op-log of
//! the one that was rolled back to its end, and then that one is discarded and filled anew
//! ([`Engine::grant`]). If nothing can lead, because the gateway was restarted as well, the operator decides
//! ([`Engine::promote`]).
//!
//! A gateway that has just started knows nothing by itself. It waits for the other copy for
//! [`WITNESS_WITHIN`] before a copy leads without its word.

use std::time::Duration;

use protocol::message::link::{Compared, CopyReport, Expected, FlushPoint, Grant, Lead, Role};
use protocol::mutation::{self, Mutation};
use protocol::placement::{Partition as Number, Place};

use super::Engine;
use super::event::{Command, RingEvent, ToProcess};
use super::partition::has_all_of;

/// A gateway that has just started waits so long for the process of the other copy. It comes back within a
/// second, and requests wait for two.
const WITNESS_WITHIN: Duration = Duration::from_millis(1_500);

impl Engine {
    /// A process has registered: each side gets what the other one knows of its disk.
    pub(super) fn compare_disks(&mut self, place: Place, commands: &mut Vec<Command>) {
        for role in Role::ALL {
            let Some(number) = self.partition_at(place, role) else { continue };
            self.expect(number, role, true, commands);
            // A copy that has served was compared when it came, and may have got further than it has said.
            let unserved = self.partitions[usize::from(number)].last_lead().is_none();
            self.expect(number, role.other(), unserved, commands);
        }
    }

    /// Tells the process of a copy what is known of that, where it is more than the process has said. With
    /// `waits` the copy counts as not complete until it has answered.
    fn expect(&mut self, number: Number, role: Role, waits: bool, commands: &mut Vec<Command>) {
        let Some(copy) = self.copy(number, role) else { return };
        let CopyReport { incarnation, rollback: None, .. } = copy.report else { return };
        let other = self.report(number, role.other());
        let heard = self.partitions[usize::from(number)].flushed(role);
        let points = [heard, other.and_then(|other| other.other)];
        let points = points.into_iter().flatten().filter(|point| point.incarnation == incarnation);
        let flushed = points.max_by_key(|point| point.lsn);
        let followed = other.and_then(|other| other.position);
        let less = copy.report.compare(flushed, followed).is_some();
        if !less || mutation::is(Mutation::RegistrationNotCompared) {
            return;
        }
        let message = ToProcess::Expected(Expected { role, flushed, followed });
        commands.push(Command::Send { session: copy.session, message });
        if waits && let Some(session) = self.session_mut(copy.session) {
            session.asked[role as usize] += 1;
        }
    }

    /// A copy has what is known of its disk.
    pub(super) fn compared(
        &mut self,
        now: Duration,
        place: Place,
        compared: Compared,
        commands: &mut Vec<Command>,
    ) {
        let Some(session) = self.sessions.get_mut(&place) else { return };
        let asked = &mut session.asked[compared.role as usize];
        *asked = asked.saturating_sub(1);
        if let Some(number) = self.partition_at(place, compared.role) {
            self.reconsider(now, number, commands);
            self.notify(commands);
        }
    }

    /// Takes note of what the copies of a process say to be on their disks.
    pub(super) fn hear_of_disks(&mut self, place: Place) {
        for role in Role::ALL {
            let Some(number) = self.partition_at(place, role) else { continue };
            let Some(report) = self.report(number, role) else { continue };
            self.partitions[usize::from(number)].hear_flushed(role, report.flush_point());
        }
    }

    /// Says which copies of a process were rolled back.
    pub(super) fn report_rollbacks(&mut self, place: Place, commands: &mut Vec<Command>) {
        for role in Role::ALL {
            let Some(number) = self.partition_at(place, role) else { continue };
            let Some(rollback) = self.report(number, role).and_then(|report| report.rollback) else {
                continue;
            };
            let instance = self.name_of(place);
            let event = RingEvent::RolledBack { instance, partition: number, role, rollback };
            commands.push(Command::Report(event));
        }
    }

    /// A copy has said that this commit is on its disk.
    pub(super) fn hear_flushed(&mut self, place: Place, role: Role, lsn: u64) {
        let Some(number) = self.partition_at(place, role) else { return };
        let Some(CopyReport { incarnation, .. }) = self.report(number, role) else { return };
        self.partitions[usize::from(number)].hear_flushed(role, FlushPoint { incarnation, lsn });
    }

    /// What a copy may do that was rolled back, while the other one leads or does not.
    pub(super) fn grant_rolled_back(&self, number: Number, role: Role, other_leads: bool) -> Grant {
        let (copy, other) = (self.report(number, role), self.report(number, role.other()));
        let drained = has_all_of(other.as_ref(), copy.as_ref());
        let accepted = self.partitions[usize::from(number)].accepted;
        match copy {
            Some(copy) if accepted == Some(copy.incarnation) => Grant::Accept,
            Some(_) if other_leads && drained => Grant::Fill,
            _ => Grant::Wait,
        }
    }

    /// Whether a gateway that has just started should hear the other copy first, before that of this role
    /// leads.
    pub(super) fn awaits_witness(&self, now: Duration, number: Number, role: Role) -> bool {
        let partition = &self.partitions[usize::from(number)];
        let other = self.place_of(number, role.other());
        now < WITNESS_WITHIN
            && partition.last_lead().is_none()
            && self.ring.is_some_and(|ring| ring.id != self.config.new_ring)
            && other.is_some_and(|place| !self.sessions.contains_key(&place))
    }

    /// The operator accepts a copy that was rolled back as it is: it becomes complete, under a new
    /// incarnation, and leads.
    pub(super) fn accept_rolled_back(&mut self, number: Number, commands: &mut Vec<Command>) -> bool {
        let rolled_back = |role| {
            let copy = self.copy(number, role)?;
            copy.report.rollback.map(|_| (copy.report.version, role, copy.report.incarnation))
        };
        let newest = Role::ALL.into_iter().filter_map(rolled_back).max_by_key(|(version, ..)| *version);
        let Some((_, role, incarnation)) = newest else { return false };
        self.change_view(
            number,
            Lead { role, promoting: false },
            "the operator accepts what it lost",
            commands,
        );
        let partition = &mut self.partitions[usize::from(number)];
        partition.known = true;
        partition.give_up_last_lead();
        partition.accepted = Some(incarnation);
        self.notify(commands);
        true
    }
}
