//! Questions of the gateway about a whole copy: pages of users, counts, changes, digests. They travel on the
//! same connection as the work of [`super::link`], one frame each, without the lanes that form batches: they
//! are few.
//!
//! Each question has a number, which its answer repeats; answers come in any order. Every answer describes
//! one moment of the copy: it is read from one snapshot.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::record::Versioned;
use crate::ring::{Position, Role};
use crate::user::UserId;
use crate::version::Version;

/// Gateway → db-process: live users in id order. Answered by [`PageAnswer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageQuery {
    /// Returned in the answer.
    pub query: u64,
    /// The copy that is asked.
    pub role: Role,
    /// Only users with a higher id; `None` from the start.
    pub after: Option<UserId>,
    /// At most this many, 1 to [`MAX_PAGE`].
    pub limit: u32,
    /// Which users.
    pub filter: Filter,
}

/// The most users that one [`PageQuery`] asks for.
pub const MAX_PAGE: u32 = 1_000;

/// Which users a list or a count is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// All of them.
    All,
    /// Those of one group.
    Group(i32),
    /// Those with one address, as [`crate::user::fold_email`] writes it.
    Email(String),
    /// Those with one address and in one group.
    Both(String, i32),
}

/// db-process → gateway: part of the answer to a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PageAnswer {
    /// Of the [`PageQuery`].
    pub query: u64,
    /// In id order; fewer than asked for where the frame is full.
    pub users: Vec<Listed>,
    /// Whether there are users beyond the last one. Where there are, `users` is not empty.
    pub more: bool,
}

/// A live user in a list: its id, its version and its document, which the gateway hands on unparsed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Listed(pub UserId, pub Version, pub Box<RawValue>);

/// Gateway → db-process: how many live users there are. Answered by [`CountAnswer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountQuery {
    /// Returned in the answer.
    pub query: u64,
    /// The copy that is asked.
    pub role: Role,
    /// Only those of this group.
    pub group: Option<i32>,
}

/// db-process → gateway: the exact number of live users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountAnswer {
    /// Of the [`CountQuery`].
    pub query: u64,
    /// How many.
    pub count: u64,
}

/// Gateway → db-process: changes that this copy accepted, from its op-log. Answered by [`ChangesAnswer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangesQuery {
    /// Returned in the answer.
    pub query: u64,
    /// The copy that is asked.
    pub role: Role,
    /// Only changes with a higher version.
    pub after: Version,
    /// Only changes up to this version, included.
    pub upto: Version,
}

/// db-process → gateway: what the op-log of the copy holds of the changes asked for.
///
/// A partition's changes are in the op-logs of its two copies, each in the one that led then. All of them
/// after some version are known when that is not below the `floor` of either copy. Where only one copy is
/// there, its op-log alone has all of them when the version is not below its `foreign` either.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangesAnswer {
    /// Of the [`ChangesQuery`].
    pub query: u64,
    /// In version order; as many as fit into a frame.
    pub changes: Vec<Versioned>,
    /// Whether there are more of them, up to the version asked for. Where there are, `changes` is not empty.
    pub more: bool,
    /// The op-log holds all that was ever accepted at this place above this version. What it held at or below
    /// may have been trimmed, or lost with an earlier database.
    pub floor: Version,
    /// The highest version of anything in the copy that did not come by its own op-log.
    pub foreign: Version,
}

/// Gateway → db-process: deleted users whose record could be forgotten. Answered by [`TombstoneAnswer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TombstoneQuery {
    /// Returned in the answer.
    pub query: u64,
    /// The copy that is asked.
    pub role: Role,
    /// Only users with a higher id; `None` from the start.
    pub after: Option<UserId>,
    /// Only those that were deleted up to this version.
    pub upto: Version,
}

/// At most so many records are looked at for one [`TombstoneQuery`].
pub const MAX_LOOK: usize = 1_000;

/// db-process → gateway: the tombstones among some records of the copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TombstoneAnswer {
    /// Of the [`TombstoneQuery`].
    pub query: u64,
    /// The users, each with the version of its delete, which is the newest write in its record. At most
    /// [`super::MAX_BATCH`].
    pub tombstones: Vec<(UserId, Version)>,
    /// The last user that was looked at, where there are more.
    pub next: Option<UserId>,
    /// The copy as it was looked at: its database.
    pub incarnation: Uuid,
    /// And the last entry of its op-log.
    pub head: u64,
}

/// Gateway → db-process: what the records do not have any more is to be erased from the op-log and from the
/// files of the copy. Answered by [`EraseAnswer`] when that is done, or could not be: it takes as long as to
/// write the database anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EraseQuery {
    /// Returned in the answer.
    pub query: u64,
    /// The copy that is asked.
    pub role: Role,
    /// From op-log entries up to this version.
    pub upto: Version,
    /// And from all those of this user.
    pub user: Option<UserId>,
    /// There is no other copy, which would have to have the entries first: the ring has one process.
    pub alone: bool,
}

/// db-process → gateway: whether something was erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EraseAnswer {
    /// Of the [`EraseQuery`].
    pub query: u64,
    /// Neither the op-log nor the files have any more what was asked for, as far as the other copy has the
    /// entries; and of the user there is no record. Otherwise it has to be asked again.
    pub erased: bool,
}

/// Gateway → db-process: digests of the copy. Answered by [`DigestAnswer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestQuery {
    /// Returned in the answer.
    pub query: u64,
    /// The copy that is asked.
    pub role: Role,
    /// Read every record and compare with what is kept, too: takes seconds for a million users.
    pub scan: bool,
}

/// db-process → gateway: what the copy holds, in short. Two copies of a partition that have exchanged all
/// they have hold the same: then `digests`, `users` and `records` are equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestAnswer {
    /// Of the [`DigestQuery`].
    pub query: u64,
    /// Of the copy's database.
    pub incarnation: Uuid,
    /// Last entry of its op-log.
    pub head: u64,
    /// How far it has applied the other copy's op-log.
    pub position: Option<Position>,
    /// Number of live users.
    pub users: u64,
    /// Number of live users and tombstones.
    pub records: u64,
    /// [`BUCKETS`] digests, each the exclusive or over the records of a bucket, kept up to date with every
    /// write.
    pub digests: Vec<u64>,
    /// What a scan found wrong; empty without a scan.
    pub damage: Vec<Damage>,
}

/// Into how many buckets the users of a copy fall for their digests.
pub const BUCKETS: usize = 256;

/// Something that a scan of a copy found: what is stored is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// The records of a bucket do not have the digest that is kept of them.
    Bucket(u8),
    /// The number of users, in all or of a group, is not the one that is kept.
    Count,
    /// An index names other users than the records do.
    Index,
    /// The database cannot be read to its end; the text is what it says.
    Unreadable(String),
}

/// Gateway → db-process: a copy is not what it should be, and is made good from the other one. Not answered:
/// what came of it shows in [`super::link::CopiesChanged`] and in the next digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    /// The copy.
    pub role: Role,
    /// Of its database: a copy that was made anew meanwhile is not meant.
    pub incarnation: Uuid,
    /// What to do.
    pub how: Renewal,
}

/// See [`Renew`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Renewal {
    /// What is stored is damaged. The process leaves the ring as if it were to stop, sets the database aside,
    /// and comes back with an empty one, to be filled.
    Discard,
    /// It differs from the other copy: it takes everything from that once more, and merges it.
    Recopy,
}

messages! {
    /// A question about one copy. Its number, and of a page or a count the copy, are filled in when it is
    /// sent.
    Query {
        PageQuery = "page_query",
        CountQuery = "count_query",
        ChangesQuery = "changes_query",
        TombstoneQuery = "tombstone_query",
        DigestQuery = "digest_query",
        EraseQuery = "erase_query",
    }
}

messages! {
    /// The answer of a copy.
    Answer {
        PageAnswer = "page",
        CountAnswer = "count",
        ChangesAnswer = "changes",
        TombstoneAnswer = "tombstones",
        DigestAnswer = "digest",
        EraseAnswer = "erased",
    }
}

impl Query {
    /// The copy that is asked.
    pub fn role(&self) -> Role {
        match self {
            Self::PageQuery(PageQuery { role, .. })
            | Self::CountQuery(CountQuery { role, .. })
            | Self::ChangesQuery(ChangesQuery { role, .. })
            | Self::TombstoneQuery(TombstoneQuery { role, .. })
            | Self::DigestQuery(DigestQuery { role, .. })
            | Self::EraseQuery(EraseQuery { role, .. }) => *role,
        }
    }

    /// The same question under that number, to that copy.
    pub fn addressed(mut self, number: u64, to: Role) -> Self {
        match &mut self {
            Self::PageQuery(PageQuery { query, role, .. })
            | Self::CountQuery(CountQuery { query, role, .. })
            | Self::ChangesQuery(ChangesQuery { query, role, .. })
            | Self::TombstoneQuery(TombstoneQuery { query, role, .. })
            | Self::DigestQuery(DigestQuery { query, role, .. })
            | Self::EraseQuery(EraseQuery { query, role, .. }) => (*query, *role) = (number, to),
        }
        self
    }
}

impl Answer {
    /// Number of the question.
    pub fn query(&self) -> u64 {
        match self {
            Self::PageAnswer(PageAnswer { query, .. })
            | Self::CountAnswer(CountAnswer { query, .. })
            | Self::ChangesAnswer(ChangesAnswer { query, .. })
            | Self::TombstoneAnswer(TombstoneAnswer { query, .. })
            | Self::DigestAnswer(DigestAnswer { query, .. })
            | Self::EraseAnswer(EraseAnswer { query, .. }) => *query,
        }
    }
}
