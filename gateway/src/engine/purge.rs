//! Purges tombstones some time after the delete.
//!
//! A tombstone is there so that something older, which comes late, does not bring the user back. So it may go
//! when nothing older can come any more, however long that takes. The gateway looks through the records of
//! both copies, a few at a time, and what it finds goes in these steps:
//!
//! 1. *Looking*: one copy names tombstones that are old enough, with where its op-log ended then.
//! 2. *The leader follows*: it has answered all writes that are older than the deletes, and has applied that
//!    op-log up to there, if the other copy was asked. So the leader knows of the deletes, and its head is
//!    known.
//! 3. *The other follows*: it has applied the op-log of the leader as it stands now. So it knows of the
//!    deletes as well. A tail that it gets from now on has nothing that is older.
//! 4. *Comparing*: it says where its own op-log ends. It decides nothing while it does not lead, except for
//!    what a process that hung still finds in its queues; from now on that is refused, too. The question
//!    comes behind all that was sent to it before.
//! 5. *The leader exchanges*: it has applied that op-log to its end. Now it has everything older that was
//!    ever accepted.
//! 6. Each tombstone is *purged* by a write of its own, which takes the way of every other: to the leader, in
//!    version order and behind all older ones, into its op-log, into the tail, to the other copy behind all
//!    that the leader accepted before.
//!
//! If a process, the leader or the time is lost meanwhile, nothing has happened; the tombstones are found
//! again. A purge is decided like any write: a user that was created again stays. What it forgets is given by
//! a version, so whatever is newer survives it in whichever order the two arrive (see [`protocol::record`]).
//! A copy that takes everything from the other once more (`repair`) purges nothing meanwhile: parts of that
//! may be older.
//!
//! Tombstones that only one copy has, since a purge passed the other one by in a full copy, are found as
//! well: both copies are looked through, and a purge of nothing is sent on.
//!
//! At each call [`MAX_LOOK`](protocol::message::query::MAX_LOOK) records of a partition are looked at. It
//! publishes nothing: for callers, nothing changes.

use std::time::Duration;

use protocol::message::MAX_BATCH;
use protocol::message::link::{CopyReport, Position, Role, Write};
use protocol::message::query::{Answer, DigestQuery, Query, TombstoneQuery};
use protocol::mutation::{self, Mutation};
use protocol::placement::Partition as Number;
use protocol::{Operation, UserId, Version};

use super::Engine;
use super::event::{RequestId, SessionId, Unserved};
use super::partition::{ConnectedCopy, Phase};

/// The exchange takes milliseconds. If it takes longer than this, it is given up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);

/// The requests of the engine itself have the highest numbers, one for each partition.
const FIRST_OWN: u64 = u64::MAX - u16::MAX as u64;

/// Where a partition is.
#[derive(Debug)]
pub(super) struct Purge {
    /// The copy that is looked through.
    role: Role,
    /// The last user that was looked at.
    after: Option<UserId>,
    step: Step,
}

/// See the module.
#[derive(Debug)]
enum Step {
    Resting,
    Looking,
    /// The position is what the step waits for.
    Found(Stage, Found, Position),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    LeaderFollows,
    OtherFollows,
    Comparing,
    LeaderExchanges,
}

/// Tombstones that may go once both copies have everything older.
#[derive(Debug)]
struct Found {
    tombstones: Vec<(UserId, Version)>,
    leader: SessionId,
    /// `None` in a ring of one.
    other: Option<SessionId>,
    until: Duration,
}

impl Purge {
    pub(super) fn new() -> Self {
        Self { role: Role::Primary, after: None, step: Step::Resting }
    }
}

impl RequestId {
    /// Whether the engine asked by itself. No caller waits for the answer.
    pub fn is_own(self) -> bool {
        self.0 >= FIRST_OWN
    }

    fn own(partition: Number) -> Self {
        Self(FIRST_OWN + u64::from(partition))
    }

    /// The partition for which the engine asked.
    pub(super) fn own_partition(self) -> Option<Number> {
        self.0.checked_sub(FIRST_OWN).and_then(|number| Number::try_from(number).ok())
    }
}

impl Engine {
    /// Begins to look for tombstones of users that were deleted up to that version, in each partition that
    /// has time.
    pub(super) fn begin_purges(&mut self, upto: Version) {
        for number in 0..self.size {
            // Purges that are not answered would only pile up.
            let ready = self.purge_copies(number).is_some_and(|(leader, _)| !self.is_in_doubt(&leader));
            let purge = &mut self.purges[usize::from(number)];
            if ready && matches!(purge.step, Step::Resting) {
                purge.step = Step::Looking;
                let query = TombstoneQuery { query: 0, role: purge.role, after: purge.after, upto };
                self.question(RequestId::own(number), number, Query::TombstoneQuery(query));
            }
        }
    }

    /// A question of the engine itself has its answer. If it was refused, or came too late, nothing has
    /// happened.
    pub(super) fn own_question_answered(&mut self, number: Number, result: Result<Answer, Unserved>) {
        let copies = self.purge_copies(number);
        let purge = &mut self.purges[usize::from(number)];
        let step = std::mem::replace(&mut purge.step, Step::Resting);
        match (step, result) {
            (Step::Looking, Ok(Answer::TombstoneAnswer(answer))) => {
                purge.after = answer.next;
                if answer.next.is_none() && self.size > 1 {
                    purge.role = purge.role.other();
                }
                let Some((leader, other)) = copies.filter(|_| !answer.tombstones.is_empty()) else { return };
                let found = Found {
                    tombstones: answer.tombstones,
                    leader: leader.session,
                    other: other.map(|other| other.session),
                    until: self.now + GIVE_UP_AFTER,
                };
                let end = Position { incarnation: answer.incarnation, sequence: answer.head };
                purge.step = Step::Found(Stage::LeaderFollows, found, end);
            }
            (Step::Found(Stage::Comparing, found, end), Ok(Answer::DigestAnswer(answer)))
                if answer.position.is_some_and(|at| reaches(at, end)) =>
            {
                let end = Position { incarnation: answer.incarnation, sequence: answer.head };
                purge.step = Step::Found(Stage::LeaderExchanges, found, end);
            }
            _ => {}
        }
        self.advance_purge(number);
    }

    /// Whether no purge is under way, and no write.
    pub fn is_idle(&self) -> bool {
        let resting = self.purges.iter().all(|purge| matches!(purge.step, Step::Resting));
        resting && self.partitions.iter().all(|partition| partition.first_unanswered().is_none())
    }

    /// Takes every purge further that can go further.
    pub(super) fn advance_purges(&mut self) {
        (0..self.size).for_each(|number| self.advance_purge(number));
    }

    fn advance_purge(&mut self, number: Number) {
        let index = usize::from(number);
        loop {
            match self.purges[index].step {
                Step::Found(stage, ..) if stage != Stage::Comparing => {}
                _ => return,
            }
            let step = std::mem::replace(&mut self.purges[index].step, Step::Resting);
            let (Step::Found(stage, found, end), Some((leader, other))) = (step, self.purge_copies(number))
            else {
                return;
            };
            let same = leader.session == found.leader && other.map(|other| other.session) == found.other;
            if !same || self.now > found.until {
                return;
            }
            let leader = leader.report;
            let Some(other) = other.filter(|_| !mutation::is(Mutation::PurgeUnexchanged)) else {
                return self.send_purges(number, found);
            };
            let own = end.incarnation == leader.incarnation;
            let (stage, end) = match stage {
                Stage::LeaderFollows
                    if (own || has_applied(&leader, end)) && self.has_answered(number, &found) =>
                {
                    // It may have accepted something that this gateway has not heard of.
                    let sequence = if own { leader.head.max(end.sequence) } else { leader.head };
                    (Stage::OtherFollows, Position { incarnation: leader.incarnation, sequence })
                }
                // The tail, too, is in there: of what is sent to it from now on nothing is older.
                Stage::OtherFollows if has_applied(&other.report, end) => (Stage::Comparing, end),
                Stage::LeaderExchanges if has_applied(&leader, end) => {
                    return self.send_purges(number, found);
                }
                _ => {
                    self.purges[index].step = Step::Found(stage, found, end);
                    return;
                }
            };
            self.purges[index].step = Step::Found(stage, found, end);
            if stage == Stage::Comparing {
                let role = self.partition(number).leader.other();
                let query = Query::DigestQuery(DigestQuery { query: 0, role, scan: false });
                return self.question(RequestId::own(number), number, query);
            }
        }
    }

    /// Whether all writes have an answer that are older than what was found. There is a tail for those that
    /// were applied.
    fn has_answered(&self, number: Number, found: &Found) -> bool {
        let newest = found.tombstones.iter().map(|(_, version)| *version).max();
        self.partition(number).first_unanswered().is_none_or(|open| Some(open) > newest)
    }

    /// Nothing older can come any more.
    fn send_purges(&mut self, number: Number, found: Found) {
        for (id, of) in found.tombstones.into_iter().take(MAX_BATCH) {
            if number == self.partition_of(&id) {
                let version = self.clock.next(0);
                let operation = Operation::Purge(of);
                let write = Write { version, id, operation, condition: None, omit_user: true };
                self.write(RequestId::own(number), write);
            }
        }
    }

    /// The leader and the other copy, while there is time for a purge: both are there and have what they
    /// need, and the leader is not about to change.
    fn purge_copies(&self, number: Number) -> Option<(ConnectedCopy, Option<ConnectedCopy>)> {
        let partition = self.partition(number);
        let Phase::Serving { leader: session } = partition.phase else { return None };
        if partition.paused_until.is_some() || partition.announced.is_some() {
            return None;
        }
        let leader = self.copy(number, partition.leader).filter(|leader| leader.session == session)?;
        match self.copy(number, partition.leader.other()) {
            Some(other) if partition.other_is_current => Some((leader, Some(other))),
            None if !partition.replicated => Some((leader, None)),
            _ => None,
        }
    }
}

/// Whether a copy has applied the other's op-log up to there. A copy without a position may be in the middle
/// of a full copy, which has older things in it, so it does not count although the op-log is empty.
fn has_applied(copy: &CopyReport, end: Position) -> bool {
    copy.position.is_some_and(|at| reaches(at, end))
}

fn reaches(at: Position, end: Position) -> bool {
    at.incarnation == end.incarnation && at.sequence >= end.sequence
}
