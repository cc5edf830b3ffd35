//! Compares how fast the copies of each partition are, where there is reason to (see `partition::pace`).
//!
//! Copies of which one is away or far behind are not compared, since then no copy could take the leader's
//! place.

use std::time::Duration;

use protocol::message::link::Role;
use protocol::placement::Partition as Number;

use super::BEAT_INTERVAL;
use super::Engine;
use super::partition::{Frame, LATE, Phase, Sent, has_all_of};

impl Engine {
    pub(super) fn compare_paces(&mut self) {
        for number in 0..self.size {
            self.begin_round(number);
            let trips = Role::ALL.map(|role| self.round_trip(number, role));
            let now = self.now;
            if self.partition_mut(number).pace.judge(now, trips) {
                self.report_serving(number);
            }
        }
    }

    fn begin_round(&mut self, number: Number) {
        let now = self.now;
        let [primary, replica] = self.copies(number);
        let copies = primary.zip(replica).map(<[_; 2]>::from);
        let partition = self.partition_mut(number);
        partition.pace.goes_on_with(copies.map(|copies| copies.map(|copy| copy.session)));
        let (Some(copies), Phase::Serving { .. }) = (copies, partition.phase) else { return };
        let role = partition.leader;
        let (leader, other) = (copies[role as usize], copies[role.other() as usize]);
        let close = copies.iter().all(|copy| copy.report.complete)
            && partition.is_almost(&other.report)
            && has_all_of(&leader.report, &other.report);
        let writing = self.owes(leader.session, role);
        let owed = writing.map(|(_, since)| now.saturating_sub(since));
        let trips = Role::ALL.map(|role| self.round_trip(number, role));
        let suspected = owed.into_iter().chain(trips).any(|time| time > LATE);
        if self.partition_mut(number).pace.is_due(now, suspected) && close {
            let sent = Role::ALL.map(|each| {
                let session = copies[each as usize].session;
                match writing.filter(|_| each == role) {
                    Some((batch, at)) => Sent { session, frame: Frame::Writes(batch), at },
                    None => {
                        let batch = self.send_tail(number, session, each, &[]);
                        Sent { session, frame: Frame::Merge(batch), at: now }
                    }
                }
            });
            self.partition_mut(number).pace.begin(now, sent);
        }
    }

    /// How long the process of a copy takes to answer a beat, as far as the number of those without an answer
    /// tells.
    fn round_trip(&self, number: Number, role: Role) -> Duration {
        let unanswered = self.holder(number, role).map_or(0, |session| session.unanswered_beats);
        BEAT_INTERVAL * unanswered
    }
}
