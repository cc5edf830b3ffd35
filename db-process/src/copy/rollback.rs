//! A copy whose disk has lost something that was on it.
//!
//! A database may come back with less than it had: the end of RocksDB's log was damaged or cut off, or the
//! folder was restored from an older copy. RocksDB opens it without complaint, and all that is in it fits
//! together. But acknowledged writes may be gone, and if the copy went on, the numbers of their op-log
//! entries would be given to others.
//!
//! It is found out by comparing. Each commit has a number, the *LSN*. Whatever relies on what a copy has on
//! disk remembers the LSN that was on disk then ([`FlushPoint`]), and is
//! in the position to compare it when the copy comes back:
//!
//! * the gateway, with each answer to a write: compared when the process registers;
//! * the other copy, in its database, with each batch that it follows, with each trim of its own op-log that
//!   the copy has confirmed, with a full copy, and with the tail of a lost leader: compared when either of
//!   them follows the other, and by the gateway;
//! * the process itself, in a file beside its databases ([`crate::worker`]): compared when it starts.
//!
//! A copy that was rolled back says so from then on, also after a restart, and is not complete: it does not
//! lead, and answers no requests. The other copy still follows its op-log, so that what only it has is not
//! lost. Then it is discarded and filled anew (see [`crate::node::plan`]); or the operator accepts it as it
//! is.
//!
//! What is not found out: a loss of which all three have lost their knowledge as well. In a ring of one there
//! are only the gateway and the file.

use protocol::message::link::{FlushPoint, Position, Rollback};
use protocol::message::replication::Follow;
use protocol::mutation::{self, Mutation};
use uuid::Uuid;

use super::{Copy, report};
use crate::store::{Meta, Store};

/// What two copies know of each other's disks when one of them asks to follow the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Neither has lost anything that the other knows of.
    Sound,
    /// This is known to have been on the follower's disk, and is more than it has said. It may have got
    /// further since: it has to look itself.
    Follower(FlushPoint),
    /// The one that is to be followed has lost something.
    Source(Rollback),
}

/// Compares a copy in that state with the one that asks to follow it.
pub fn compare(source: &Meta, follow: &Follow) -> Comparison {
    if mutation::is(Mutation::FollowerNotCompared) {
        return Comparison::Sound;
    }
    if let Some(rollback) = lost(source, follow.other, follow.position) {
        return Comparison::Source(rollback);
    }
    let known = source.other.filter(|known| known.incarnation == follow.incarnation);
    known.filter(|known| known.lsn > follow.flushed).map_or(Comparison::Sound, Comparison::Follower)
}

/// What a copy in that state has lost, by what is known of its disk (`flushed`) and by how far the other copy
/// has followed its op-log (`followed`); `None` as well where it is known to be rolled back already.
pub fn lost(meta: &Meta, flushed: Option<FlushPoint>, followed: Option<Position>) -> Option<Rollback> {
    meta.rollback.is_none().then(|| report(meta, meta.lsn).compare(flushed, followed))?
}

/// Whether the source was rolled back, and its op-log has nothing that the follower lacks.
pub fn has_nothing_for(source: &Meta, follow: &Follow) -> bool {
    let position = follow.position.filter(|position| position.incarnation == source.incarnation);
    source.rollback.is_some() && position.is_some_and(|position| position.sequence > source.head)
}

impl<S: Store> Copy<S> {
    /// Marks the copy as rolled back. It is on disk after the next commit. What was found first
    /// stands.
    pub fn mark_rolled_back(&mut self, rollback: Rollback) {
        if self.staged.meta.rollback.is_none() {
            self.staged.meta.rollback = Some(rollback);
            self.dirty = true;
            self.promised = true;
        }
    }

    /// The operator accepts the copy as it is. It is another copy from now on, under a new incarnation: its
    /// op-log begins anew, and it follows the other copy from the beginning. Both take everything from each
    /// other once more, by full copies. What was applied is remembered, though no longer as entries of the
    /// op-log.
    pub fn accept_rollback(&mut self, incarnation: Uuid) {
        let Meta { rollback: Some(_), head, trimmed, version, lsn, users, records, .. } = self.staged.meta
        else {
            return;
        };
        assert!(self.staged.log.is_empty(), "a copy that was rolled back accepts nothing");
        self.staged.trim = (trimmed < head).then_some(trimmed + 1..=head);
        self.staged.meta = Meta {
            incarnation: if mutation::is(Mutation::IncarnationKept) {
                self.staged.meta.incarnation
            } else {
                incarnation
            },
            complete: true,
            version,
            lsn,
            users,
            records,
            floor: version,
            foreign: version,
            ..Meta::new(incarnation)
        };
        self.confirmed = 0;
        self.applied.extend(self.recent.forget_sequences());
        self.dirty = true;
        self.promised = true;
    }
}
