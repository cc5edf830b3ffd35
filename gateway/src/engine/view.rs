//! The view: who leads each partition, and which processes keep it.
//!
//! There is one gateway and it alone makes views, so while it lives, what it knows is the view. What has to
//! be right is what a gateway finds out that has just started. Two rules fit together:
//!
//! * A copy leads only when the view that says so is *kept*: by the process of that copy, and with it by a
//!   majority of the ring or by the process of the other copy. In a ring of two, by the process of that copy.
//! * A gateway that starts believes the newest view that it is told, for one partition at a time: once a
//!   majority of the ring has registered, or both processes that have copies of that partition. In a ring of
//!   two, once both have. An emptied process does not count, for it has forgotten what it was told.
//!
//! Any two majorities share a process, and the process of a copy that leads keeps the view that says so. So a
//! view that a lead relied on is never overlooked. A view that is found though nobody ever relied on it is
//! harmless. If it says *promoting*, nobody leads by it before both copies have exchanged what they have;
//! otherwise the copy that it names had everything when the view was made, and has missed nothing since.
//!
//! Nor does it hide one that was relied on: a gateway that goes on with a ring leaves a gap before its first
//! view, so that its views are newer than those that the one before it made and that nobody told it of.
//!
//! So a view that says *promoting* may be made, and kept, while the last lead still serves. That is how a
//! move is *announced*: what takes long, the disks of many, is over before any write has to wait.

use std::time::Duration;

use protocol::message::link::{Lead, Ring, Role, View};
use protocol::mutation::{self, Mutation};
use protocol::placement::{Partition, Place, primary_of, replica_of};

use super::Engine;
use super::event::{Command, RingEvent, SessionId};
use super::partition::Announced;
use super::session::Session;

/// More views than a gateway makes of which those that are told who leads know nothing: each of them needs
/// somebody who could keep it, and is sent at once.
const GAP: u64 = 1_000;

impl Engine {
    /// Takes note of the view that a process keeps.
    pub(super) fn learn_view(&mut self, view: &View) {
        if view.epoch > self.view.epoch && view.leads.len() == usize::from(self.size) {
            let ours = std::mem::replace(&mut self.view, view.clone());
            let mut differs = false;
            for (number, partition) in self.partitions.iter_mut().enumerate() {
                if partition.is_decided() {
                    // This gateway has relied on its own view since.
                    differs |= ours.leads[number] != view.leads[number];
                    self.view.leads[number] = ours.leads[number];
                    continue;
                }
                partition.lead = view.leads[number].role;
                partition.decided = view.epoch;
                partition.kept = false;
            }
            if differs {
                self.view.epoch = self.next_epoch(view.epoch);
            }
        }
        self.find_known();
    }

    /// Finds out for which partitions the newest view may be believed.
    pub(super) fn find_known(&mut self) {
        for number in 0..self.size {
            let known = self.is_known(number);
            self.partitions[usize::from(number)].known |= known;
        }
    }

    /// Whether a gateway that has just started may believe the newest view about this partition.
    fn is_known(&self, number: Partition) -> bool {
        let remembers = |place: &Place| self.sessions.get(place).is_some_and(Session::remembers);
        let witnesses = self.sessions.keys().filter(|place| remembers(place)).count();
        mutation::is(Mutation::BelieveFirstView)
            || self.size > 2 && witnesses >= self.majority()
            || self.holders(number).iter().flatten().all(remembers)
    }

    /// Whether a process may be told the view. One that has forgotten it is told only what is certain:
    /// otherwise it would count as a witness of what it was told when the next gateway starts.
    pub(super) fn may_be_told(&self, place: Place, ring: Ring) -> bool {
        let session = self.sessions.get(&place);
        let joined = session.and_then(|session| session.ring).is_some_and(|theirs| theirs.id == ring.id);
        !ring.formed || joined || self.partitions.iter().all(|partition| partition.known)
    }

    /// Whether the view may be relied on for a partition, whose lead it names.
    pub(super) fn is_kept(&mut self, number: Partition) -> bool {
        let partition = &self.partitions[usize::from(number)];
        let kept = partition.kept || self.is_kept_for(number, partition.lead, partition.decided);
        self.partitions[usize::from(number)].kept = kept;
        kept
    }

    /// Whether enough processes keep the view of that epoch for a copy to lead by it.
    pub(super) fn is_kept_for(&self, number: Partition, role: Role, epoch: u64) -> bool {
        let keeps = |place: &Place| self.sessions.get(place).is_some_and(|session| session.epoch >= epoch);
        let lead = self.place_of(number, role).is_some_and(|place| keeps(&place));
        let keepers = self.sessions.keys().filter(|place| keeps(place)).count();
        let holders = self.holders(number);
        lead && (self.size <= 2 || keepers >= self.majority() || holders.iter().flatten().all(keeps))
    }

    /// Whether a process keeps the view as it is now.
    pub(super) fn keeps_newest_view(&self, session: SessionId) -> bool {
        self.session(session).is_some_and(|session| session.epoch >= self.view.epoch)
    }

    /// Whether, with the processes that are there, a new view of a partition could be kept.
    pub(super) fn could_be_kept(&self, number: Partition) -> bool {
        let registered = |place: &Place| self.sessions.contains_key(place);
        self.size <= 2
            || self.sessions.len() >= self.majority()
            || self.holders(number).iter().flatten().all(registered)
    }

    /// Goes by a view in which that copy leads the partition: a new one, or the one that was announced.
    pub(super) fn change_view(
        &mut self,
        number: Partition,
        lead: Lead,
        why: &'static str,
        commands: &mut Vec<Command>,
    ) {
        let announced = self.partitions[usize::from(number)].announced.take();
        let decided = match announced.filter(|_| self.view.leads[usize::from(number)] == lead) {
            Some(Announced { epoch, .. }) => epoch,
            None => self.make_view(number, lead, why, commands),
        };
        let partition = &mut self.partitions[usize::from(number)];
        partition.lead = lead.role;
        partition.decided = decided;
        partition.kept = false;
    }

    /// Lets everybody keep that the other copy is about to lead, while the lead serves on.
    pub(super) fn announce(
        &mut self,
        now: Duration,
        number: Partition,
        why: &'static str,
        commands: &mut Vec<Command>,
    ) {
        let lead = Lead { role: self.partitions[usize::from(number)].lead.other(), promoting: true };
        let epoch = self.make_view(number, lead, why, commands);
        self.partitions[usize::from(number)].announced = Some(Announced { epoch, since: now });
    }

    /// What was announced does not happen. The lead has served all the while; nobody else has.
    pub(super) fn withdraw(&mut self, number: Partition, commands: &mut Vec<Command>) {
        if self.partitions[usize::from(number)].announced.take().is_some() {
            let lead = Lead { role: self.partitions[usize::from(number)].lead, promoting: false };
            self.make_view(number, lead, "the move is given up", commands);
        }
    }

    /// Makes a new view that differs in one partition. It is sent with the next notices. Returns its epoch.
    fn make_view(
        &mut self,
        number: Partition,
        lead: Lead,
        why: &'static str,
        commands: &mut Vec<Command>,
    ) -> u64 {
        self.view.epoch = self.next_epoch(self.view.epoch);
        self.view.leads[usize::from(number)] = lead;
        let place = self.place_of(number, lead.role);
        commands.push(Command::Report(RingEvent::ViewChanged {
            epoch: self.view.epoch,
            partition: number,
            lead: place.map(|place| self.name_of(place)).unwrap_or_default(),
            why,
        }));
        self.view.epoch
    }

    fn next_epoch(&mut self, last: u64) -> u64 {
        let made_here = self.ring.is_some_and(|ring| ring.id == self.config.new_ring);
        let gap = !std::mem::replace(&mut self.numbers_views, true) && !made_here;
        if gap { last + GAP } else { last + 1 }
    }

    /// The place that holds a partition's copy of that role; a ring of one has no replicas.
    pub(crate) fn place_of(&self, number: Partition, role: Role) -> Option<Place> {
        match role {
            Role::Primary => Some(primary_of(number)),
            Role::Replica => replica_of(number, self.size),
        }
    }

    fn holders(&self, number: Partition) -> [Option<Place>; 2] {
        Role::ALL.map(|role| self.place_of(number, role))
    }

    pub(super) fn majority(&self) -> usize {
        usize::from(self.size) / 2 + 1
    }
}
