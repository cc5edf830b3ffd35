//! Pausing the writes of a partition, so that its copies can be compared, and repairing a copy from the
//! other one.
//!
//! A copy that is *damaged* (what it stores is not what was written) is discarded: its process begins with an
//! empty one, and that is filled from the other copy, which leads meanwhile. Copies that are sound and
//! *differ* take everything from each other once more, and merge it. Neither is done without the other copy,
//! complete and up to date.

use std::time::Duration;

use protocol::message::link::{Role, ToProcess};
use protocol::message::query::{Renew, Renewal};
use protocol::placement::Partition as Number;

use super::Engine;
use super::event::{Command, OrderRefused};

/// Writes are buffered no longer than this for a comparison, as for a move.
pub const PAUSE_WITHIN: Duration = Duration::from_millis(200);

/// What a partition needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// The copy with that role is damaged: it is filled anew.
    Discard(Role),
    /// Both copies are sound, and differ: they are merged.
    Exchange,
}

impl Engine {
    /// Buffers the writes of a partition until [`Self::resume_writes`], no longer than [`PAUSE_WITHIN`]. What
    /// is under way is finished.
    pub fn pause_writes(&mut self, now: Duration, number: Number) {
        if let Some(partition) = self.partitions.get_mut(usize::from(number)) {
            partition.pause_writes(now + PAUSE_WITHIN);
        }
    }

    /// Sends the writes that were buffered.
    pub fn resume_writes(&mut self, number: Number) {
        let Some(partition) = self.partitions.get_mut(usize::from(number)) else { return };
        // Otherwise the next leader gets them.
        if partition.end_pause().is_some() {
            self.send_buffered(number);
        }
    }

    /// A comparison has taken too long, or its caller is gone.
    pub(super) fn end_pauses(&mut self) {
        for number in 0..self.size {
            if self.partition(number).paused_until.is_some_and(|until| self.now > until) {
                self.resume_writes(number);
            }
        }
    }

    /// Begins to repair the copies of a partition.
    ///
    /// # Errors
    /// If one of them is away, is not complete, or lacks something of the other.
    pub fn repair(
        &mut self,
        number: Number,
        repair: Repair,
        commands: &mut Vec<Command>,
    ) -> Result<(), OrderRefused> {
        if number >= self.size {
            return Err(OrderRefused::NoSuchPartition { partition: number, size: self.size });
        }
        let not_now = |why: String| OrderRefused::NotRepairable { partition: number, why };
        let partition = self.partition(number);
        if self.complete_copies(number).count() < 2 {
            return Err(not_now(self.waiting_for(number)));
        }
        if !partition.serves() || !partition.other_is_current {
            let waiting_for = self.waiting_for(number);
            return Err(not_now(format!("the copies have to be up to date first: {waiting_for}")));
        }
        for (role, copy) in self.complete_copies(number) {
            let how = match repair {
                Repair::Discard(damaged) if damaged == role => Renewal::Discard,
                Repair::Discard(_) => continue,
                Repair::Exchange => Renewal::Recopy,
            };
            let message = ToProcess::Renew(Renew { role, incarnation: copy.report.incarnation, how });
            commands.push(Command::Send { session: copy.session, message });
        }
        Ok(())
    }
}
