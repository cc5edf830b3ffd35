//! Holding the writes of a partition for a moment, so that its copies can be compared, and making a copy good
//! from the other.
//!
//! A copy that is *damaged* (what it stores is not what was written) is discarded: its process begins with an
//! empty one, and that is filled from the other copy, which leads meanwhile. Copies that are sound and
//! *differ* take everything from each other once more, and merge it. Neither is done without the other copy,
//! complete and up to date.

use std::time::Duration;

use protocol::message::link::Role;
use protocol::message::query::{Renew, Renewal};
use protocol::placement::Partition as Number;

use super::Engine;
use super::event::{Command, RepairRefused, ToProcess};
use super::partition::Phase;

/// Writes are held no longer than this for a comparison, as for a move.
pub const HOLD_WITHIN: Duration = Duration::from_millis(200);

/// What a partition needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// The copy with that role is damaged: it is filled anew.
    Discard(Role),
    /// Both copies are sound, and differ: they are merged.
    Exchange,
}

impl Engine {
    /// Holds the writes of a partition until [`Self::let_go`], no longer than [`HOLD_WITHIN`]. What is under
    /// way is finished.
    pub fn pause(&mut self, now: Duration, number: Number) {
        if let Some(partition) = self.partitions.get_mut(usize::from(number)) {
            partition.hold_until = Some(now + HOLD_WITHIN);
        }
    }

    /// Lets the writes go that were held.
    pub fn let_go(&mut self, number: Number) {
        let Some(partition) = self.partitions.get_mut(usize::from(number)) else { return };
        partition.hold_until = None;
        // Otherwise whoever leads next gets them.
        if partition.phase != Phase::Serving {
            return;
        }
        let (role, Some(lead)) = (partition.lead, partition.lead_session) else { return };
        let held = std::mem::take(&mut partition.held);
        if let Some(session) = self.session_mut(lead) {
            held.into_iter().for_each(|write| session.writes(role).push(write));
        }
    }

    /// Whoever held the writes has taken too long, or is gone.
    pub(super) fn end_holds(&mut self, now: Duration) {
        for number in 0..self.size {
            if self.partitions[usize::from(number)].hold_until.is_some_and(|until| now > until) {
                self.let_go(number);
            }
        }
    }

    /// Begins to make the copies of a partition good.
    ///
    /// # Errors
    /// If one of them is away, is not complete, or lacks something of the other.
    pub fn repair(
        &mut self,
        number: Number,
        repair: Repair,
        commands: &mut Vec<Command>,
    ) -> Result<(), RepairRefused> {
        let size = self.size;
        let Some(partition) = self.partitions.get(usize::from(number)) else {
            return Err(RepairRefused::NoSuchPartition { partition: number, size });
        };
        let refused = |why: String| Err(RepairRefused::NotNow { partition: number, why });
        let copies = Role::ALL.map(|role| self.copy(number, role).filter(|copy| copy.report.complete));
        let [Some(primary), Some(replica)] = copies else {
            return refused(self.waiting_for(number));
        };
        if !partition.serves() || !partition.other_is_current() {
            return refused(format!("the copies have to be up to date first: {}", self.waiting_for(number)));
        }
        let orders = match repair {
            Repair::Discard(role) => vec![(role, Renewal::Discard)],
            Repair::Exchange => Role::ALL.map(|role| (role, Renewal::Recopy)).to_vec(),
        };
        for (role, how) in orders {
            let copy = if role == Role::Primary { primary } else { replica };
            let renew = Renew { role, incarnation: copy.report.incarnation, how };
            commands.push(Command::Send { session: copy.session, message: ToProcess::Renew(renew) });
        }
        Ok(())
    }
}
