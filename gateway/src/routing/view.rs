//! The view: who leads each partition, and which processes keep it.
//!
//! There is one gateway and it alone makes views, so while it lives, what it knows is the view. What has to be right is
//! what a gateway finds out that has just started. Two rules fit together:
//!
//! * A copy leads only when the view that says so is *kept*: by the process of that copy, and with it by a majority of
//!   the ring or by the process of the other copy. In a ring of two, by the process of that copy.
//! * A gateway that starts believes the newest view that it is told, for one partition at a time: once a majority of the
//!   ring has registered, or both processes that have copies of that partition. In a ring of two, once both have. An
//!   emptied process does not count, for it has forgotten what it was told.
//!
//! Any two majorities share a process, and the process of a copy that leads keeps the view that says so. So a view that
//! a lead relied on is never overlooked, and a view that is believed too much (made, but never relied on) is harmless:
//! the copy that it names was complete when the view was made, and has missed nothing since.

use protocol::message::link::{Lead, Ring, Role, View};
use protocol::mutation::{self, Mutation};
use protocol::placement::{Partition, Place, primary_of, replica_of};

use super::Routing;
use super::event::{Command, RingEvent};

impl Routing {
    /// Takes note of the view that a process keeps.
    pub(super) fn learn_view(&mut self, view: &View) {
        if view.epoch > self.view.epoch && view.leads.len() == usize::from(self.size) {
            let ours = std::mem::replace(&mut self.view, view.clone());
            for (number, partition) in self.partitions.iter_mut().enumerate() {
                if partition.is_decided() {
                    // This gateway has relied on its own view since.
                    if ours.leads[number] != view.leads[number] {
                        self.view.epoch = view.epoch + 1;
                        self.view.leads[number] = ours.leads[number];
                    }
                    continue;
                }
                partition.lead = view.leads[number].role;
                partition.decided = view.epoch;
                partition.kept = false;
            }
        }
        for number in 0..self.size {
            let known = self.is_known(number);
            self.partitions[usize::from(number)].known |= known;
        }
    }

    /// Whether a gateway that has just started may believe the newest view about this partition.
    fn is_known(&self, number: Partition) -> bool {
        let remembers = |place: &Place| self.sessions.get(place).is_some_and(|session| session.remembers);
        let witnesses = self.sessions.keys().filter(|place| remembers(place)).count();
        mutation::is(Mutation::BelieveFirstView)
            || self.size > 2 && witnesses >= self.majority()
            || self.holders(number).iter().flatten().all(remembers)
    }

    /// Whether a process may be told the view. One that has forgotten it is told only what is certain: otherwise it would
    /// count as a witness of what it was told when the next gateway starts.
    pub(super) fn may_be_told(&self, place: Place, ring: Ring) -> bool {
        let session = self.sessions.get(&place);
        let joined = session.and_then(|session| session.ring).is_some_and(|theirs| theirs.id == ring.id);
        !ring.formed || joined || self.partitions.iter().all(|partition| partition.known)
    }

    /// Whether the view may be relied on for a partition, whose lead it names.
    pub(super) fn is_kept(&mut self, number: Partition) -> bool {
        let partition = &self.partitions[usize::from(number)];
        let keeps = |place: &Place| {
            self.sessions.get(place).is_some_and(|session| session.epoch >= partition.decided)
        };
        let holders = self.holders(number);
        let lead = self.place_of(number, partition.lead).is_some_and(|place| keeps(&place));
        let keepers = self.sessions.keys().filter(|place| keeps(place)).count();
        let enough = self.size <= 2 || keepers >= self.majority() || holders.iter().flatten().all(keeps);
        let kept = partition.kept || lead && enough;
        self.partitions[usize::from(number)].kept = kept;
        kept
    }

    /// Whether, with the processes that are there, a new view of a partition could be kept.
    pub(super) fn could_be_kept(&self, number: Partition) -> bool {
        let registered = |place: &Place| self.sessions.contains_key(place);
        self.size <= 2
            || self.sessions.len() >= self.majority()
            || self.holders(number).iter().flatten().all(registered)
    }

    /// Makes a new view that differs in one partition. It is sent with the next notices.
    pub(super) fn change_view(
        &mut self,
        number: Partition,
        lead: Lead,
        why: &'static str,
        commands: &mut Vec<Command>,
    ) {
        self.view.epoch += 1;
        self.view.leads[usize::from(number)] = lead;
        let partition = &mut self.partitions[usize::from(number)];
        partition.lead = lead.role;
        partition.decided = self.view.epoch;
        partition.kept = false;
        let place = self.place_of(number, lead.role);
        commands.push(Command::Report(RingEvent::ViewChanged {
            epoch: self.view.epoch,
            partition: number,
            lead: place.map(|place| self.name_of(place)).unwrap_or_default(),
            why,
        }));
    }

    /// The place that holds a partition's copy of that role; a ring of one has no replicas.
    pub(super) fn place_of(&self, number: Partition, role: Role) -> Option<Place> {
        match role {
            Role::Primary => Some(primary_of(number)),
            Role::Replica => replica_of(number, self.size),
        }
    }

    fn holders(&self, number: Partition) -> [Option<Place>; 2] {
        Role::ALL.map(|role| self.place_of(number, role))
    }

    fn majority(&self) -> usize {
        usize::from(self.size) / 2 + 1
    }
}
