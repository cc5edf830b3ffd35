//! The operator accepts that acknowledged writes may be lost.

use std::time::Duration;

use protocol::message::link::{Leader, Role};
use protocol::placement::Partition as Number;

use super::Engine;
use super::event::{Command, OrderRefused};

impl Engine {
    /// Lets the copy of a partition lead that is there, with what is in the tail, although only the last
    /// leader may have the newest writes. When the lost copy comes back, what it has is merged. If no other
    /// copy is there than one that was rolled back, that is accepted as it is.
    ///
    /// # Errors
    /// If the partition is served, or no copy could lead it.
    pub fn promote(
        &mut self,
        now: Duration,
        number: Number,
        commands: &mut Vec<Command>,
    ) -> Result<(), OrderRefused> {
        self.decide(now, commands, |engine| engine.promote_now(number))
    }

    fn promote_now(&mut self, number: Number) -> Result<(), OrderRefused> {
        if number >= self.size {
            return Err(OrderRefused::NoSuchPartition { partition: number, size: self.size });
        }
        if !self.partition(number).is_down() {
            return Err(OrderRefused::Served { partition: number });
        }
        let possible = self.open && self.can_be_persisted(number);
        // A partition whose last leader is there is not down. Of a promotion that an earlier gateway did not
        // finish, either copy may be the one that is there.
        let copy = self.complete_copies(number).next().filter(|_| possible);
        let Some((role, copy)) = copy else {
            if possible && self.accept_rolled_back(number) {
                return Ok(());
            }
            let waiting_for = self.waiting_for(number);
            return Err(OrderRefused::NoCandidate { partition: number, waiting_for });
        };
        // What the lost leader was sent it may have applied, and the other copy would decide it anew.
        self.give_up(number);
        let tail = self.partition(number).lacking(&copy.report);
        self.change_view(number, Leader { role, promoting: false }, "the operator has promoted it");
        self.partition_mut(number).accept_loss(None);
        self.begin_confirming(number, copy.session, Some(&tail), [false; 2]);
        self.reconsider(number);
        Ok(())
    }

    /// A copy that was rolled back becomes complete as it is, under a new incarnation, and leads.
    fn accept_rolled_back(&mut self, number: Number) -> bool {
        let rolled_back = Role::ALL.into_iter().filter_map(|role| {
            let report = self.report(number, role)?;
            report.rollback.map(|_| (report.version, role, report.incarnation))
        });
        let Some((_, role, incarnation)) = rolled_back.max_by_key(|(version, ..)| *version) else {
            return false;
        };
        self.change_view(number, Leader { role, promoting: false }, "the operator accepts what it lost");
        self.partition_mut(number).accept_loss(Some(incarnation));
        true
    }
}
