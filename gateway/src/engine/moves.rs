//! Moves: the leader changes while both copies are there.
//!
//! A move is announced by a view that names the other copy as *promoting*. When enough processes have
//! persisted that, new writes are buffered. When the leader has answered those that it has, the other copy
//! has followed to the end, and all of it is on its disk, it leads, and the buffered writes go there: one
//! fsync later, whatever the disks of the others do. A second view says so, as after a promotion.
//!
//! So the leadership fails back to a primary that has returned, and leaves a process that stops and one that
//! is much slower than the other copy (see `slow`). From a slow leader it moves between two frames, so that
//! nothing has to wait for that any more, and it does not fail back while the primary is the slow one.

use std::time::Duration;

use protocol::message::link::{Leader, Role};
use protocol::mutation::{self, Mutation};
use protocol::placement::Partition as Number;

use super::Engine;
use super::event::SessionId;
use super::partition::{Announced, Cause, ConnectedCopy, has_all_of};

/// Writes are buffered no longer than this for a move; then it is given up.
const DRAIN_WITHIN: Duration = Duration::from_millis(200);

/// The same for a move away from a leader that is slow: what the other copy lacks may come from its disk or
/// over its link.
const DRAIN_SLOW_WITHIN: Duration = Duration::from_secs(1);

/// A move that was announced begins within this time, or is given up.
const BEGIN_WITHIN: Duration = Duration::from_secs(1);

/// The same for a move away from a leader that is slow: it begins when that has answered what it was sent.
const BEGIN_SLOW_WITHIN: Duration = Duration::from_secs(5);

/// A move that was given up is tried again after this time.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Why the leader should move.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    Slow(Cause),
    FailsBack,
    Leaves,
}

impl Reason {
    fn text(self) -> &'static str {
        match self {
            Self::Slow(cause) => cause.of_leader(),
            Self::FailsBack => "the primary is back",
            Self::Leaves => "the leader leaves",
        }
    }
}

impl Engine {
    /// Announces a move, begins one that was announced, or gives it up.
    pub(super) fn consider_move(&mut self, number: Number, leader: SessionId) {
        let role = self.partition(number).leader;
        let (Some(copy), Some(other)) = (self.copy(number, role), self.copy(number, role.other())) else {
            return self.withdraw(number);
        };
        let reason = self.reason_to_move(number, &other);
        let slow = matches!(reason, Some(Reason::Slow(_)));
        let partition = self.partition(number);
        let announced = partition.announced;
        if let Some(reason) = reason
            && self.session(other.session).is_some_and(|session| session.leaving.is_none())
            && other.report.complete
            && partition.is_almost(&other.report)
            && has_all_of(&copy.report, &other.report)
            && self.now >= partition.move_after
            && self.can_be_persisted(number)
        {
            match announced {
                // A process whose disk hangs would persist nothing, and only delay writes.
                None if !self.must_leave(leader) && !self.has_newest_view(other.session) => {}
                None => self.announce(number, reason.text()),
                Some(Announced { epoch, .. }) => {
                    // Between two frames of a slow leader: what is buffered then need not wait for its disk
                    // or its link.
                    let between = !slow || self.owes(leader, role).is_none();
                    if between && self.is_persisted_for(number, role.other(), epoch) {
                        return self.begin_move(number, leader);
                    }
                }
            }
        }
        let within = if slow { BEGIN_SLOW_WITHIN } else { BEGIN_WITHIN };
        let late = |announced: Announced| self.now.saturating_sub(announced.since) > within;
        if self.partition(number).announced.is_some_and(late) {
            self.give_up_move(number);
        }
    }

    fn reason_to_move(&self, number: Number, other: &ConnectedCopy) -> Option<Reason> {
        let partition = self.partition(number);
        let role = partition.leader;
        let trusted = partition.pace.trusts(role.other());
        let better = trusted && !self.is_in_doubt(other) && !mutation::is(Mutation::SlowLeads);
        let slow = partition.pace.cause(role).filter(|_| better).map(Reason::Slow);
        let fails_back = (role == Role::Replica && trusted).then_some(Reason::FailsBack);
        let leaves = partition.leader_session().is_some_and(|leader| self.must_leave(leader));
        slow.or(fails_back).or(leaves.then_some(Reason::Leaves))
    }

    /// Writes wait from now on, and so do those that have not left: the leader only has to answer what it was
    /// sent.
    fn begin_move(&mut self, number: Number, leader: SessionId) {
        let (role, now) = (self.partition(number).leader, self.now);
        let queued = self.holder_mut(number, role).map(|session| session.writes(role).take_queued());
        self.partition_mut(number).drain(queued.unwrap_or_default(), now);
        self.advance_move(number, leader, now);
    }

    /// The other copy becomes the candidate if it has everything; a move that takes too long is given up.
    pub(super) fn advance_move(&mut self, number: Number, leader: SessionId, since: Duration) {
        let partition = self.partition(number);
        let role = partition.leader;
        let Some(drained) = self.session(leader).map(|session| session.is_drained(role)) else { return };
        let Some(lag) = self.report(number, role.other()).and_then(|other| partition.lag(&other)) else {
            return self.end_move(number);
        };
        let within = if partition.pace.is_slow(role) { DRAIN_SLOW_WITHIN } else { DRAIN_WITHIN };
        if (drained || mutation::is(Mutation::MoveUndrained)) && lag == 0 {
            let reads = [partition.other_is_current, true];
            let Some(other) = self.copy(number, role.other()) else { return };
            self.change_view(number, Leader { role: role.other(), promoting: true }, "as announced");
            self.begin_confirming(number, other.session, Some(&[]), reads);
            self.notify();
        } else if self.now.saturating_sub(since) > within {
            self.end_move(number);
        }
    }

    /// The leader goes on, and gets the writes that waited for another one.
    fn end_move(&mut self, number: Number) {
        self.partition_mut(number).end_drain();
        self.send_buffered(number);
        self.give_up_move(number);
    }

    fn give_up_move(&mut self, number: Number) {
        let again = self.now + TRY_AGAIN_AFTER;
        self.partition_mut(number).move_not_before(again);
        self.withdraw(number);
        self.notify();
    }

    /// Whether a process has persisted the view as it is now.
    fn has_newest_view(&self, session: SessionId) -> bool {
        self.session(session).is_some_and(|session| session.epoch >= self.view.epoch)
    }
}
