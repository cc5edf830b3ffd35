//! A gateway that hears nothing of any db-process is cut off itself.
//!
//! One process that is silent has failed, most likely, and another copy leads in its place. If all that are
//! registered are silent at once, or their connections end together, there is no other copy, and the
//! processes are probably well: to give them up would only fail requests that they can answer in a moment. So
//! requests wait, for two seconds at most, as they do after a start:
//!
//! * While nothing is heard of any process, no silence counts, no answer is late, and no process is lost.
//!   What was sent may still be answered, and what comes queues up in the lanes, within their bounds. When
//!   something is heard again, all deadlines are extended by that time.
//! * A partition that goes down because the connections of its copies end does not refuse requests at once:
//!   for a moment it may be that the others are cut off as well. If they are, its writes are buffered and its
//!   reads wait until a copy leads again. If not, or not in time, they are refused.
//!
//! All that was registered is all there is: the same holds in a ring of one, and where others have been away
//! for long.
//!
//! It lets no copy lead, and changes nothing that decides which copy may. Writes that were sent keep their
//! versions and go to the next leader first; whatever registers again is judged as always.

use std::time::Duration;

use super::Engine;
use super::event::RingEvent;

/// Nothing was heard of any process for so long: five beats had no answer.
const DEAF_AFTER: Duration = Duration::from_millis(100);

/// Requests of a partition that is down wait for so long to see whether all the others are cut off, too.
/// Longer than it takes to notice that nothing is heard of them.
const MOMENT: Duration = Duration::from_millis(200);

/// A gateway that is cut off lets requests wait for so long.
const WAIT: Duration = Duration::from_secs(2);

impl Engine {
    /// A process that is registered has sent something, or one registers: whatever kept the gateway from
    /// hearing is over.
    pub(super) fn hear(&mut self) {
        let now = self.now;
        let silence = now.saturating_sub(std::mem::replace(&mut self.heard, now));
        if silence > DEAF_AFTER {
            self.sessions.values_mut().for_each(|session| session.extend_deadlines(silence, now));
        }
    }

    /// Takes note of whether the gateway is cut off.
    pub(super) fn detect_cut_off(&mut self) {
        match self.cut_off {
            None if self.is_deaf() && !self.sessions.is_empty() => {
                self.cut_off = Some(self.now);
                self.report_event(RingEvent::CutOff);
            }
            Some(_) if !self.is_deaf() && self.partitions.iter().all(|each| each.waits_since.is_none()) => {
                self.cut_off = None;
            }
            _ => {}
        }
    }

    /// Whether the silence of all processes is the gateway's own, so that it says nothing of any of them.
    pub(super) fn is_cut_off(&self) -> bool {
        self.is_deaf() && self.cut_off.is_some_and(|since| self.now.saturating_sub(since) <= WAIT)
    }

    fn is_deaf(&self) -> bool {
        self.now.saturating_sub(self.heard) > DEAF_AFTER
    }

    /// Refuses what has waited long enough for a copy to come back.
    pub(super) fn end_waits(&mut self) {
        for number in 0..self.size {
            let partition = self.partition(number);
            let Some(since) = partition.waits_since.filter(|_| partition.is_down()) else { continue };
            if self.now > self.cut_off.map_or(since + MOMENT, |since| since + WAIT) {
                self.give_up(number);
            }
        }
    }
}
