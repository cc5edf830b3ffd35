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
//! A user that is to be erased is not looked for. It takes the same steps, from the second one on, with the
//! version of that moment in the place of that of its delete: all that was written before is exchanged, and
//! forgotten.
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

/// Partitions that there could be.
const NUMBERS: u64 = 1 << Number::BITS;

/// The requests of the engine itself have the highest numbers: one for each partition, and one for each of
/// its copies.
const FIRST_OWN: u64 = u64::MAX - 3 * NUMBERS + 1;

/// Where a partition is.
#[derive(Debug)]
pub(super) struct Purge {
    /// The copy that is looked through.
    role: Role,
    /// The last user that was looked at.
    after: Option<UserId>,
    step: Step,
    /// Users that the operator wants to be purged, with the requests.
    pub(super) wanted: Vec<(RequestId, UserId)>,
}

/// What a request of the engine itself is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    Purge(Number),
    Erasure(Number, Role),
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
    /// What is forgotten of each user is what there was up to that version.
    purges: Vec<(RequestId, UserId, Version)>,
    leader: SessionId,
    /// `None` in a ring of one.
    other: Option<SessionId>,
    until: Duration,
}

impl Purge {
    pub(super) fn new() -> Self {
        Self { role: Role::Primary, after: None, step: Step::Resting, wanted: Vec::new() }
    }
}

impl RequestId {
    /// Whether the engine asked by itself. No caller waits for the answer.
    pub fn is_own(self) -> bool {
        self.0 >= FIRST_OWN
    }

    fn own_purge(partition: Number) -> Self {
        Self(FIRST_OWN + u64::from(partition))
    }

    pub(super) fn own_erasure(partition: Number, role: Role) -> Self {
        let kind = if role == Role::Primary { 1 } else { 2 };
        Self(FIRST_OWN + kind * NUMBERS + u64::from(partition))
    }

    /// What the engine asked for by itself.
    pub(super) fn own(self) -> Option<Own> {
        let own = self.0.checked_sub(FIRST_OWN)?;
        let partition = Number::try_from(own % NUMBERS).ok()?;
        Some(match own / NUMBERS {
            0 => Own::Purge(partition),
            1 => Own::Erasure(partition, Role::Primary),
            _ => Own::Erasure(partition, Role::Replica),
        })
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
                self.question(RequestId::own_purge(number), number, Query::TombstoneQuery(query));
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
                let purges = answer.tombstones.into_iter().take(MAX_BATCH);
                let purges =
                    purges.map(|(id, version)| (RequestId::own_purge(number), id, version)).collect();
                let found = self.found(purges, &leader, other.as_ref());
                let purge = &mut self.purges[usize::from(number)];
                let end = Position { incarnation: answer.incarnation, sequence: answer.head };
                purge.step = Step::Found(Stage::LeaderFollows, found, end);
            }
            (Step::Found(Stage::Comparing, found, end), Ok(Answer::DigestAnswer(answer)))
                if answer.position.is_some_and(|at| reaches(at, end)) =>
            {
                let end = Position { incarnation: answer.incarnation, sequence: answer.head };
                purge.step = Step::Found(Stage::LeaderExchanges, found, end);
            }
            (Step::Found(_, found, _), _) => self.give_up_purges(number, found),
            _ => {}
        }
        self.advance_purge(number);
    }

    fn found(
        &self,
        purges: Vec<(RequestId, UserId, Version)>,
        leader: &ConnectedCopy,
        other: Option<&ConnectedCopy>,
    ) -> Found {
        let other = other.map(|other| other.session);
        Found { purges, leader: leader.session, other, until: self.now + GIVE_UP_AFTER }
    }

    /// Begins with the users that the operator wants to be purged, unless others are under way.
    pub(super) fn begin_wanted_purges(&mut self, number: Number) {
        let purge = &mut self.purges[usize::from(number)];
        if purge.wanted.is_empty() || !matches!(purge.step, Step::Resting) {
            return;
        }
        let wanted = std::mem::take(&mut purge.wanted);
        let Some((leader, other)) = self.purge_copies(number) else {
            for (request, _) in wanted {
                self.not_purged(request, self.unavailable(number));
            }
            return;
        };
        let upto = self.clock.next(0);
        let purges = wanted.into_iter().map(|(request, id)| (request, id, upto)).collect();
        let found = self.found(purges, &leader, other.as_ref());
        let CopyReport { incarnation, head: sequence, .. } = leader.report;
        let step = Step::Found(Stage::LeaderFollows, found, Position { incarnation, sequence });
        self.purges[usize::from(number)].step = step;
        self.advance_purge(number);
    }

    /// Nothing has happened. Tombstones are found again; who asked for a purge has to ask again.
    fn give_up_purges(&mut self, number: Number, found: Found) {
        for (request, ..) in found.purges {
            if !request.is_own() {
                self.not_purged(request, self.unavailable(number));
            }
        }
    }

    /// Whether no purge is under way, no erasing, and no write.
    pub fn is_idle(&self) -> bool {
        let rests = |purge: &Purge| purge.wanted.is_empty() && matches!(purge.step, Step::Resting);
        let resting = self.purges.iter().all(rests) && self.erases_nothing();
        resting && self.partitions.iter().all(|partition| partition.first_unanswered().is_none())
    }

    /// Takes every purge further that can go further.
    pub(super) fn advance_purges(&mut self) {
        for number in 0..self.size {
            self.begin_wanted_purges(number);
            self.advance_purge(number);
        }
    }

    fn advance_purge(&mut self, number: Number) {
        let index = usize::from(number);
        loop {
            match self.purges[index].step {
                Step::Found(stage, ..) if stage != Stage::Comparing => {}
                _ => return,
            }
            let step = std::mem::replace(&mut self.purges[index].step, Step::Resting);
            let Step::Found(stage, found, end) = step else { return };
            let Some((leader, other)) = self.purge_copies(number) else {
                return self.give_up_purges(number, found);
            };
            let same = leader.session == found.leader && other.map(|other| other.session) == found.other;
            if !same || self.now > found.until {
                return self.give_up_purges(number, found);
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
                return self.question(RequestId::own_purge(number), number, query);
            }
        }
    }

    /// Whether all writes have an answer that are older than what was found. There is a tail for those that
    /// were applied.
    fn has_answered(&self, number: Number, found: &Found) -> bool {
        let newest = found.purges.iter().map(|(.., version)| *version).max();
        self.partition(number).first_unanswered().is_none_or(|open| Some(open) > newest)
    }

    /// Nothing older can come any more.
    fn send_purges(&mut self, number: Number, found: Found) {
        for (request, id, of) in found.purges {
            if number == self.partition_of(&id) {
                let version = self.clock.next(0);
                let operation = Operation::Purge(of);
                let write = Write { version, id, operation, condition: None, omit_user: true };
                self.write(request, write);
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
