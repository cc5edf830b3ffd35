//! Erasing what is out of date: old values of fields, and the fields of users that were purged.
//!
//! Each copy erases by itself, when it is asked to (`db-process/src/copy/erase.rs` says why the copies stay
//! equal). It is asked again and again, with a version: what was written up to there, and is not current any
//! more, goes. To write a database anew is much work, so a copy that takes long is asked less often. One that
//! has nothing to erase does nothing.
//!
//! A user that the operator wants to be erased is purged first, without waiting for its tombstone to be old
//! enough ([`super::purge`]). Then its caller asks both copies.

use std::time::Duration;

use protocol::message::MAX_BATCH;
use protocol::message::link::{PerRole, Role};
use protocol::message::query::{EraseQuery, Query};
use protocol::placement::Partition as Number;
use protocol::{UserId, Version};

use super::Engine;
use super::event::{Command, RequestId, Unserved};

/// Not at once after a start, when there is enough to do, and not much later either.
const FIRST: Duration = Duration::from_secs(60);

/// A copy rests for so many times as long as it took.
const REST: u32 = 20;

/// What is known of the erasing of one copy.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Erasure {
    /// When it was asked, while it has not answered.
    asked: Option<Duration>,
    /// It is asked again then; `None` before it is known how often.
    next: Option<Duration>,
    /// How often.
    every: Duration,
}

impl Engine {
    /// Asks the copies for which it is time to erase what was written up to that version. Each is asked
    /// `every` so often.
    pub(super) fn erase_old(&mut self, upto: Version, every: Duration) {
        for number in 0..self.size {
            for role in Role::ALL {
                let complete = self.complete_copies(number).any(|(complete, _)| complete == role);
                let erasure = self.erasures[usize::from(number)].get_mut(role);
                erasure.every = every;
                let next = *erasure.next.get_or_insert(self.now + every.min(FIRST));
                if !complete || erasure.asked.is_some() || self.now < next {
                    continue;
                }
                erasure.asked = Some(self.now);
                let query = self.erase_query(number, role, upto, None);
                self.question(RequestId::own_erasure(number, role), number, query);
            }
        }
    }

    /// The question whether a copy has erased something.
    fn erase_query(&self, number: Number, role: Role, upto: Version, user: Option<UserId>) -> Query {
        let alone = !self.partition(number).replicated;
        Query::EraseQuery(EraseQuery { query: 0, role, upto, user, alone })
    }

    /// A copy has erased what it could, or is gone.
    pub(super) fn erasure_ended(&mut self, number: Number, role: Role) {
        let erasure = self.erasures[usize::from(number)].get_mut(role);
        let took = erasure.asked.take().map_or(Duration::ZERO, |asked| self.now.saturating_sub(asked));
        erasure.next = Some(self.now + erasure.every.max(took * REST));
    }

    /// Asks a copy to erase a user that was purged.
    pub(super) fn erase_in_copy(&mut self, request: RequestId, id: UserId, role: Role) {
        let number = self.partition_of(&id);
        let query = self.erase_query(number, role, Version::ZERO, Some(id));
        self.question(request, number, query);
    }

    /// Has a user purged that is deleted, or of which there is no record.
    pub(super) fn purge_user(&mut self, request: RequestId, id: UserId) {
        let number = self.partition_of(&id);
        let wanted = &mut self.purges[usize::from(number)].wanted;
        if wanted.len() < MAX_BATCH {
            wanted.push((request, id));
            return self.begin_wanted_purges(number);
        }
        self.not_purged(request, Unserved::Overloaded { partition: number });
    }

    /// The user is not purged, and may be wanted again.
    pub(super) fn not_purged(&mut self, request: RequestId, why: Unserved) {
        let (version, result) = (Version::ZERO, Err(why));
        self.commands.push(Command::AnswerWrite { request, version, result });
    }

    /// No erasing is under way.
    pub(super) fn erases_nothing(&self) -> bool {
        let resting = |erasures: &PerRole<Erasure>| {
            Role::ALL.into_iter().all(|role| erasures.get(role).asked.is_none())
        };
        self.erasures.iter().all(resting)
    }
}
