//! The view: which copy leads each partition, and which processes have persisted that.
//!
//! There is one gateway and it alone makes views, so while it lives, what it knows is the view. What has to
//! be right is what a gateway finds out that has just started. Two rules fit together:
//!
//! * A copy leads only when the view that says so is *persisted*: by the process of that copy, and with it by
//!   a majority of the ring or by the process of the other copy. In a ring of two, by the process of that
//!   copy.
//! * A gateway that starts believes the newest view that it receives, for one partition at a time: once a
//!   majority of the ring has registered, or both processes that have copies of that partition. In a ring of
//!   two, once both have. An emptied process does not count, for it has forgotten its view.
//!
//! Any two majorities share a process, and the process of a copy that leads has persisted the view that says
//! so. So a view that a leader relied on is never overlooked. A view that is found though no copy ever relied
//! on it is harmless. If it says *promoting*, no copy leads by it before both copies have exchanged what they
//! have; otherwise the copy that it names had everything when the view was made, and has missed nothing
//! since.
//!
//! Nor does it hide one that was relied on: a gateway that continues a ring leaves a gap before its first
//! view, so that its views are newer than those of the one before it that it never received.
//!
//! So a view that says *promoting* may be made, and persisted, while the last leader still serves. That is
//! how a move is *announced*: what takes long, the disks of many, is over before any write has to wait.

use protocol::message::link::{Leader, Role, View};
use protocol::mutation::{self, Mutation};
use protocol::placement::Partition as Number;

use super::Engine;
use super::event::RingEvent;
use super::partition::Announced;
use super::session::Session;

/// More views than a gateway makes that no registered process has received: each needs a process that could
/// persist it, and is sent at once.
const GAP: u64 = 1_000;

impl Engine {
    /// Takes note of the view that a process has persisted.
    pub(super) fn learn_view(&mut self, view: &View) {
        if view.epoch > self.view.epoch && view.leaders.len() == usize::from(self.size) {
            let ours = std::mem::replace(&mut self.view, view.clone());
            let mut differs = false;
            for (number, partition) in self.partitions.iter_mut().enumerate() {
                if partition.is_decided() {
                    // This gateway has relied on its own view since.
                    differs |= ours.leaders[number] != view.leaders[number];
                    self.view.leaders[number] = ours.leaders[number];
                } else {
                    partition.learn(view.leaders[number].role, view.epoch);
                }
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
            if self.is_known(number) {
                self.partition_mut(number).set_known();
            }
        }
    }

    /// Whether a gateway that has just started may believe the newest view about this partition.
    fn is_known(&self, number: Number) -> bool {
        let witnesses = self.sessions.values().filter(|session| session.remembers()).count();
        mutation::is(Mutation::BelieveFirstView)
            || self.size > 2 && witnesses >= self.majority()
            || self.all_holders(number, Session::remembers)
    }

    /// Whether the view may be relied on for a partition, whose leader it names.
    pub(super) fn is_persisted(&mut self, number: Number) -> bool {
        let partition = self.partition(number);
        let persisted =
            partition.persisted || self.is_persisted_for(number, partition.leader, partition.decided);
        if persisted {
            self.partition_mut(number).set_persisted();
        }
        persisted
    }

    /// Whether enough processes have persisted the view of that epoch for a copy to lead by it.
    pub(super) fn is_persisted_for(&self, number: Number, role: Role, epoch: u64) -> bool {
        let persists = |session: &Session| session.epoch >= epoch;
        self.holder(number, role).is_some_and(persists)
            && (self.size <= 2
                || self.sessions.values().filter(|session| persists(session)).count() >= self.majority()
                || self.all_holders(number, persists))
    }

    /// Whether, with the processes that are there, a new view of a partition could be persisted.
    pub(super) fn can_be_persisted(&self, number: Number) -> bool {
        self.size <= 2 || self.sessions.len() >= self.majority() || self.all_holders(number, |_| true)
    }

    /// Whether the processes of all copies of a partition are there, and `holds` for each.
    fn all_holders(&self, number: Number, holds: impl Fn(&Session) -> bool) -> bool {
        let mut places = Role::ALL.into_iter().filter_map(|role| self.place_of(number, role));
        places.all(|place| self.sessions.get(&place).is_some_and(&holds))
    }

    /// Goes by a view in which that copy leads the partition: a new one, or the one that was announced.
    pub(super) fn change_view(&mut self, number: Number, leader: Leader, why: &'static str) {
        let announced = self.partition_mut(number).take_announced();
        let decided = match announced.filter(|_| self.view.leaders[usize::from(number)] == leader) {
            Some(Announced { epoch, .. }) => epoch,
            None => self.make_view(number, leader, why),
        };
        self.partition_mut(number).name_leader(leader.role, decided);
    }

    /// Lets the processes persist that the other copy is about to lead, while the leader serves on.
    pub(super) fn announce(&mut self, number: Number, why: &'static str) {
        let leader = Leader { role: self.partition(number).leader.other(), promoting: true };
        let epoch = self.make_view(number, leader, why);
        let now = self.now;
        self.partition_mut(number).announce(epoch, now);
        self.notify();
    }

    /// What was announced does not happen. The leader has served all the while; no other copy has.
    pub(super) fn withdraw(&mut self, number: Number) {
        let partition = self.partition_mut(number);
        let leader = Leader { role: partition.leader, promoting: false };
        if partition.take_announced().is_some() {
            self.make_view(number, leader, "the move is given up");
        }
    }

    /// Makes a new view that differs in one partition. It is sent with the next notices. Returns its epoch.
    fn make_view(&mut self, number: Number, leader: Leader, why: &'static str) -> u64 {
        let epoch = self.next_epoch(self.view.epoch);
        self.view.epoch = epoch;
        self.view.leaders[usize::from(number)] = leader;
        let leader = self.name_of_copy(number, leader.role);
        self.report_event(RingEvent::ViewChanged { epoch, partition: number, leader, why });
        epoch
    }

    fn next_epoch(&mut self, last: u64) -> u64 {
        let made_here = self.ring.is_some_and(|ring| ring.id == self.config.new_ring);
        let gap = !std::mem::replace(&mut self.numbers_views, true) && !made_here;
        if gap { last + GAP } else { last + 1 }
    }

    pub(super) fn majority(&self) -> usize {
        usize::from(self.size) / 2 + 1
    }
}
