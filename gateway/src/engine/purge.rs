//! Forgetting deleted users: their tombstones go some time after the delete.
//!
//! A tombstone is there so that something older, which comes late, does not bring the user back. So it may go
//! when nothing older can come any more, however long that takes. The gateway looks through the records of
//! both copies, a few at a time, and what it finds goes in these steps:
//!
//! 1. *Looking*: one copy names tombstones that are old enough, with where its op-log ended then.
//! 2. *The lead follows*: it has answered all writes that are older than the deletes, and has applied that
//!    op-log up to there, where it was the other copy that was asked. So the lead knows of the deletes, and
//!    its head is known.
//! 3. *The other follows*: it has applied the op-log of the lead as it stands now. So it knows of the deletes
//!    as well. A tail that is handed to it from now on has nothing that is older.
//! 4. *Comparing*: it says where its own op-log ends. It decides nothing while it does not lead, except for
//!    what a process that hung still finds in its queues; from now on that is refused, too. The question
//!    comes behind all that was sent to it before.
//! 5. *The lead exchanges*: it has applied that op-log to its end. Now it has everything older that was ever
//!    accepted.
//! 6. Each tombstone is *purged* by a write of its own, which takes the way of every other: to the lead, in
//!    version order and behind all older ones, into its op-log, into the tail, to the other copy behind all
//!    that the lead accepted before.
//!
//! If a process, the lead or the time is lost meanwhile, nothing has happened; the tombstones are found
//! again. A purge is decided like any write: a user who was made anew stays. What it forgets is given by a
//! version, so whatever is newer survives it in whichever order the two arrive (see [`protocol::record`]). A
//! copy that takes everything from the other once more (`repair`) purges nothing meanwhile: parts of that may
//! be older.
//!
//! Tombstones that only one copy has, since a purge passed the other one by in a full copy, are found as
//! well: both copies are looked through, and a purge of nothing is sent on.
//!
//! It takes its time: at each call [`MAX_LOOK`](protocol::message::query::MAX_LOOK) records of a partition
//! are looked at. What it does not do: it tells nobody. For whoever asks for the user, nothing changes.

use std::time::Duration;

use protocol::message::MAX_BATCH;
use protocol::message::link::{CopyReport, Position, Role, Write};
use protocol::mutation::{self, Mutation};
use protocol::placement::Partition as Number;
use protocol::{Operation, UserId, Version};

use super::Engine;
use super::event::{Command, RequestId, SessionId, Unserved};
use super::partition::{ConnectedCopy, Phase};
use super::question::{Answer, Question};

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
    LeadFollows(Found, Position),
    OtherFollows(Found, Position),
    Comparing(Found, Position),
    LeadExchanges(Found, Position),
}

/// Tombstones that may go once both copies have everything older.
#[derive(Debug)]
struct Found {
    tombstones: Vec<(UserId, Version)>,
    lead: SessionId,
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
    /// Whether the engine asked by itself. Nobody waits for the answer.
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
    pub(super) fn look_for_tombstones(&mut self, now: Duration, upto: Version, commands: &mut Vec<Command>) {
        for number in 0..self.size {
            // Purges that are not answered would only pile up.
            if self.purge_copies(number).is_none_or(|(lead, _)| self.is_in_doubt(now, &lead))
                || !matches!(self.purges[usize::from(number)].step, Step::Resting)
            {
                continue;
            }
            let purge = &mut self.purges[usize::from(number)];
            purge.step = Step::Looking;
            let question = Question::Tombstones { role: purge.role, after: purge.after, upto };
            self.question(now, RequestId::own(number), number, question, commands);
        }
    }

    /// A question of the engine itself has its answer.
    pub(super) fn own_question_answered(
        &mut self,
        now: Duration,
        number: Number,
        result: Result<Answer, Unserved>,
        commands: &mut Vec<Command>,
    ) {
        let step = std::mem::replace(&mut self.purges[usize::from(number)].step, Step::Resting);
        let step = match (step, result) {
            (Step::Looking, Ok(Answer::Tombstones(answer))) => {
                let purge = &mut self.purges[usize::from(number)];
                let asked = purge.role;
                purge.after = answer.next;
                if answer.next.is_none() && self.size > 1 {
                    purge.role = asked.other();
                }
                let Some((lead, other)) = self.purge_copies(number).filter(|_| !answer.tombstones.is_empty())
                else {
                    return;
                };
                let found = Found {
                    tombstones: answer.tombstones,
                    lead: lead.session,
                    other: other.map(|other| other.session),
                    until: now + GIVE_UP_AFTER,
                };
                Step::LeadFollows(found, Position { incarnation: answer.incarnation, sequence: answer.head })
            }
            (Step::Comparing(found, end), Ok(Answer::Digests(answer))) => {
                let there = answer.position.is_some_and(|at| has(at, end));
                match there {
                    true => {
                        let (incarnation, sequence) = (answer.incarnation, answer.head);
                        Step::LeadExchanges(found, Position { incarnation, sequence })
                    }
                    false => Step::Resting,
                }
            }
            // It was refused, or came too late: nothing has happened.
            _ => Step::Resting,
        };
        self.purges[usize::from(number)].step = step;
        self.go_on_purging(now, number, commands);
    }

    /// Whether no purge is under way, and no write.
    pub fn is_idle(&self) -> bool {
        let resting = self.purges.iter().all(|purge| matches!(purge.step, Step::Resting));
        resting && self.partitions.iter().all(|partition| partition.first_unanswered().is_none())
    }

    /// Takes every purge further that can go further.
    pub(super) fn purge(&mut self, now: Duration, commands: &mut Vec<Command>) {
        for number in 0..self.size {
            self.go_on_purging(now, number, commands);
        }
    }

    fn go_on_purging(&mut self, now: Duration, number: Number, commands: &mut Vec<Command>) {
        let index = usize::from(number);
        loop {
            let purge = &mut self.purges[index];
            let step = match &purge.step {
                Step::Resting | Step::Looking | Step::Comparing(..) => return,
                _ => std::mem::replace(&mut purge.step, Step::Resting),
            };
            let (Step::LeadFollows(found, _) | Step::OtherFollows(found, _) | Step::LeadExchanges(found, _)) =
                &step
            else {
                unreachable!("the other steps wait for an answer");
            };
            let Some((lead, other)) = self.purge_copies(number) else { return };
            let same = lead.session == found.lead && other.map(|other| other.session) == found.other;
            if !same || now > found.until {
                return;
            }
            let Some(other) = other.filter(|_| !mutation::is(Mutation::PurgeUnexchanged)) else {
                return self.send_purges(number, step, commands);
            };
            let (lead, other) = (lead.report, other.report);
            let (step, waits) = match step {
                Step::LeadFollows(found, end)
                    if (end.incarnation == lead.incarnation || has_applied(&lead, end))
                        && self.has_answered(number, &found) =>
                {
                    // It may have accepted something that this gateway has not heard of.
                    let seen = if end.incarnation == lead.incarnation { end.sequence } else { 0 };
                    let sequence = lead.head.max(seen);
                    (Step::OtherFollows(found, Position { incarnation: lead.incarnation, sequence }), false)
                }
                // The tail, too, is in there: of what is handed over from now on nothing is older.
                Step::OtherFollows(found, end) if has_applied(&other, end) => {
                    (Step::Comparing(found, end), false)
                }
                Step::LeadExchanges(found, end) if has_applied(&lead, end) => {
                    return self.send_purges(number, Step::LeadExchanges(found, end), commands);
                }
                waiting => (waiting, true),
            };
            let asks = matches!(step, Step::Comparing(..));
            self.purges[index].step = step;
            if asks {
                let role = self.partitions[index].lead.other();
                let question = Question::Digests { role, scan: false };
                return self.question(now, RequestId::own(number), number, question, commands);
            }
            if waits {
                return;
            }
        }
    }

    /// Whether all writes have an answer that are older than what was found. There is a tail for those that
    /// were applied.
    fn has_answered(&self, number: Number, found: &Found) -> bool {
        let newest = found.tombstones.iter().map(|(_, version)| *version).max();
        let open = self.partitions[usize::from(number)].first_unanswered();
        open.is_none() || open > newest
    }

    /// Nothing older can come any more.
    fn send_purges(&mut self, number: Number, step: Step, commands: &mut Vec<Command>) {
        let (Step::LeadFollows(found, _) | Step::OtherFollows(found, _) | Step::LeadExchanges(found, _)) =
            step
        else {
            return;
        };
        for (id, of) in found.tombstones.into_iter().take(MAX_BATCH) {
            if usize::from(number) == self.partition_of(&id) {
                let version = self.clock.next(0);
                let operation = Operation::Purge(of);
                let write = Write { version, id, operation, condition: None, quiet: true };
                self.write(RequestId::own(number), write, commands);
            }
        }
    }

    /// The lead and the other copy, each with its connection, while there is time for a purge: both are there
    /// and have what they need, and nobody is about to move the lead.
    fn purge_copies(&self, number: Number) -> Option<(ConnectedCopy, Option<ConnectedCopy>)> {
        let partition = &self.partitions[usize::from(number)];
        let calm = partition.phase == Phase::Serving
            && partition.hold_until.is_none()
            && partition.announced.is_none();
        let lead = self.copy(number, partition.lead);
        let lead = lead.filter(|lead| calm && Some(lead.session) == partition.lead_session)?;
        match self.copy(number, partition.lead.other()) {
            Some(other) if partition.other_is_current() => Some((lead, Some(other))),
            None if self.size == 1 => Some((lead, None)),
            _ => None,
        }
    }
}

/// Whether a copy has applied the other's op-log up to there. A copy without a position may be in the middle
/// of a full copy, which has older things in it, so it does not count although the op-log is empty.
fn has_applied(copy: &CopyReport, end: Position) -> bool {
    copy.position.is_some_and(|at| has(at, end))
}

fn has(at: Position, end: Position) -> bool {
    at.incarnation == end.incarnation && at.sequence >= end.sequence
}
