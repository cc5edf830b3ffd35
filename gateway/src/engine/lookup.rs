//! Short ways to what the rules need: copies, their processes and partitions.

use std::time::Duration;

use protocol::UserId;
use protocol::message::link::{CopyReport, Ring, Role, ToProcess, View};
use protocol::placement::{Partition as Number, Place, partition_of, primary_of, replica_of, replicated_at};

use super::event::{Command, RingEvent, SessionId, Unserved};
use super::partition::{ConnectedCopy, Partition};
use super::session::Session;
use super::{Counts, Engine};

impl Engine {
    pub(super) fn send(&mut self, session: SessionId, message: ToProcess) {
        self.commands.push(Command::Send { session, message });
    }

    pub(super) fn report_event(&mut self, event: RingEvent) {
        self.commands.push(Command::Report(event));
    }

    /// Why a request gets no answer from a partition now.
    pub(super) fn unavailable(&self, partition: Number) -> Unserved {
        Unserved::Unavailable { partition, waiting_for: self.waiting_for(partition) }
    }

    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// The ring, once it serves requests.
    pub(crate) fn open_ring(&self) -> Option<Ring> {
        self.ring.filter(|_| self.open)
    }

    pub(crate) fn frames(&self, place: Place) -> u64 {
        self.frames[usize::from(place)]
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// The time of the last step.
    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    pub(super) fn partition_of(&self, id: &UserId) -> Number {
        partition_of(id, self.size)
    }

    pub(crate) fn partition(&self, number: Number) -> &Partition {
        &self.partitions[usize::from(number)]
    }

    pub(super) fn partition_mut(&mut self, number: Number) -> &mut Partition {
        &mut self.partitions[usize::from(number)]
    }

    /// The place that holds a partition's copy of that role; a ring of one has no replicas.
    pub(crate) fn place_of(&self, number: Number, role: Role) -> Option<Place> {
        match role {
            Role::Primary => Some(primary_of(number)),
            Role::Replica => replica_of(number, self.size),
        }
    }

    /// The partitions of which a process holds a copy, with the role of that.
    pub(super) fn copies_at(&self, place: Place) -> impl Iterator<Item = (Role, Number)> + use<> {
        let replica = replicated_at(place, self.size);
        [(Role::Primary, Some(place)), (Role::Replica, replica)]
            .into_iter()
            .filter_map(|(role, number)| Some((role, number?)))
    }

    /// The partition of which a process holds the copy with that role.
    pub(super) fn partition_at(&self, place: Place, role: Role) -> Option<Number> {
        self.copies_at(place).find(|(held, _)| *held == role).map(|(_, number)| number)
    }

    /// When the process at a place was registered, or lost; `None` where it never was here.
    pub(crate) fn changed(&self, place: Place) -> Option<Duration> {
        self.changed.get(&place).copied()
    }

    pub(crate) fn session_at(&self, place: Place) -> Option<&Session> {
        self.sessions.get(&place)
    }

    /// The session of the process that holds a copy.
    pub(super) fn holder(&self, number: Number, role: Role) -> Option<&Session> {
        self.sessions.get(&self.place_of(number, role)?)
    }

    pub(super) fn holder_mut(&mut self, number: Number, role: Role) -> Option<&mut Session> {
        self.sessions.get_mut(&self.place_of(number, role)?)
    }

    /// The copy of a partition, if its process is connected.
    pub(super) fn copy(&self, number: Number, role: Role) -> Option<ConnectedCopy> {
        let session = self.holder(number, role)?;
        Some(ConnectedCopy { session: session.id, report: session.report(role) })
    }

    /// Both copies of a partition by role, if their processes are connected.
    pub(super) fn copies(&self, number: Number) -> [Option<ConnectedCopy>; 2] {
        Role::ALL.map(|role| self.copy(number, role))
    }

    pub(crate) fn report(&self, number: Number, role: Role) -> Option<CopyReport> {
        self.holder(number, role).map(|session| session.report(role))
    }

    pub(super) fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(self.places.get(&id)?)
    }
}
