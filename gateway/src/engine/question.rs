//! Questions about one whole copy of a partition, as the engine is asked them, and the messages that they
//! become.

use protocol::message::link::Role;
use protocol::message::query::{
    ChangesAnswer, ChangesQuery, CountAnswer, CountQuery, DigestAnswer, DigestQuery, Filter, PageAnswer,
    PageQuery, TombstoneAnswer, TombstoneQuery,
};
use protocol::{UserId, Version};

/// What a caller wants to know about a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Live users in id order, as [`PageQuery`] says.
    Page {
        /// Only users with a higher id.
        after: Option<UserId>,
        /// At most this many, 1 to [`protocol::message::query::MAX_PAGE`].
        limit: u32,
        /// Which users.
        filter: Filter,
    },
    /// The number of live users.
    Count {
        /// Only those of this group.
        group: Option<i32>,
    },
    /// Changes from the op-log of one copy, whichever copy leads.
    Changes {
        /// Of which copy.
        role: Role,
        /// Only changes with a higher version.
        after: Version,
        /// Only changes up to this version, included.
        upto: Version,
    },
    /// Tombstones of one copy, as [`TombstoneQuery`] says, whichever copy leads.
    Tombstones {
        /// Of which copy.
        role: Role,
        /// Only users with a higher id.
        after: Option<UserId>,
        /// Only those that were deleted up to this version.
        upto: Version,
    },
    /// Digests of one copy, whichever copy leads.
    Digests {
        /// Of which copy.
        role: Role,
        /// Read every record, too.
        scan: bool,
    },
}

/// A question on its way to one copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// Answered by [`Answer::Page`].
    Page(PageQuery),
    /// Answered by [`Answer::Count`].
    Count(CountQuery),
    /// Answered by [`Answer::Changes`].
    Changes(ChangesQuery),
    /// Answered by [`Answer::Tombstones`].
    Tombstones(TombstoneQuery),
    /// Answered by [`Answer::Digests`].
    Digests(DigestQuery),
}

/// The answer of one copy.
#[derive(Debug)]
pub enum Answer {
    /// To [`Question::Page`].
    Page(PageAnswer),
    /// To [`Question::Count`].
    Count(CountAnswer),
    /// To [`Question::Changes`].
    Changes(ChangesAnswer),
    /// To [`Question::Tombstones`].
    Tombstones(TombstoneAnswer),
    /// To [`Question::Digests`].
    Digests(DigestAnswer),
}

impl Question {
    /// The copy that it is about; `None` where whichever is fresh may answer.
    pub(super) fn role(&self) -> Option<Role> {
        match self {
            Self::Page { .. } | Self::Count { .. } => None,
            Self::Changes { role, .. } | Self::Tombstones { role, .. } | Self::Digests { role, .. } => {
                Some(*role)
            }
        }
    }

    /// The message that asks the copy with that role.
    pub(super) fn to_query(&self, query: u64, role: Role) -> Query {
        match self {
            Self::Page { after, limit, filter } => {
                Query::Page(PageQuery { query, role, after: *after, limit: *limit, filter: filter.clone() })
            }
            Self::Count { group } => Query::Count(CountQuery { query, role, group: *group }),
            Self::Changes { after, upto, .. } => {
                Query::Changes(ChangesQuery { query, role, after: *after, upto: *upto })
            }
            Self::Tombstones { after, upto, .. } => {
                Query::Tombstones(TombstoneQuery { query, role, after: *after, upto: *upto })
            }
            Self::Digests { scan, .. } => Query::Digests(DigestQuery { query, role, scan: *scan }),
        }
    }

    /// Whether an answer is of the right kind, and keeps what the messages promise. Callers rely on that: a
    /// page without users that says that there is more would be asked for again and again.
    pub(super) fn is_answered_by(&self, answer: &Answer) -> bool {
        match (self, answer) {
            (Self::Page { after, limit, .. }, Answer::Page(page)) => {
                let ids = || after.iter().chain(page.users.iter().map(|user| &user.0));
                let rising = ids().zip(ids().skip(1)).all(|(one, next)| one < next);
                rising && page.users.len() <= *limit as usize && !(page.more && page.users.is_empty())
            }
            (Self::Count { .. }, Answer::Count(_)) | (Self::Digests { .. }, Answer::Digests(_)) => true,
            (Self::Tombstones { after, upto, .. }, Answer::Tombstones(answer)) => {
                let goes_on = answer.next.is_none_or(|next| after.is_none_or(|after| next > after));
                goes_on && answer.tombstones.iter().all(|(_, version)| version <= upto)
            }
            (Self::Changes { .. }, Answer::Changes(answer)) => !(answer.more && answer.changes.is_empty()),
            _ => false,
        }
    }
}

impl Answer {
    /// The number of the query that it answers.
    pub(super) fn query(&self) -> u64 {
        match self {
            Self::Page(answer) => answer.query,
            Self::Count(answer) => answer.query,
            Self::Changes(answer) => answer.query,
            Self::Tombstones(answer) => answer.query,
            Self::Digests(answer) => answer.query,
        }
    }
}
