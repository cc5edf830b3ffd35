//! The ring's own terms, as its processes say them to each other: role, position, view, flush point, and the
//! report of a copy. The glossary (`resources/docs/glossary.md`) defines them for readers.
//!
//! What it does not do: it decides nothing but whether a copy has lost something ([`CopyReport::compare`]).

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::version::Version;

/// Which of its two copies a message to or from a db-process is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Of the process's own partition.
    Primary,
    /// Of its predecessor's partition.
    Replica,
}

impl Role {
    /// Both, in the order in which they are always listed.
    pub const ALL: [Self; 2] = [Self::Primary, Self::Replica];

    /// The role that the other copy of the partition has, on the neighbouring process.
    pub fn other(self) -> Self {
        match self {
            Self::Primary => Self::Replica,
            Self::Replica => Self::Primary,
        }
    }

    /// As it is written on the wire, in folder names and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

/// A place in a copy's op-log: everything up to and including `sequence`. A copy whose database is made anew
/// has a new incarnation, so an old position never means something in a new op-log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Of the copy whose op-log this is.
    pub incarnation: Uuid,
    /// Number of the last entry included; 0 where none is. Entries count from 1, without gaps.
    pub sequence: u64,
}

/// Which ring a db-process belongs to. It keeps this beside its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// Made when the ring was.
    pub id: Uuid,
    /// n, the number of db-processes and of partitions. It never changes.
    pub size: u16,
    /// Whether every member is known to have joined. No user exists before that, so a ring that no member
    /// remembers as formed can be formed again without loss.
    pub formed: bool,
}

/// Which copy leads each partition, as of one epoch. The gateway makes views, one after the other; every
/// db-process persists the newest, and a view counts for a partition only once enough of them have (see the
/// gateway's `engine::view`). So a gateway that starts can find out which copies lead.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Counts up with every change; 0 is the view with which a ring is formed: every primary leads.
    pub epoch: u64,
    /// By partition.
    #[serde(rename = "leads")]
    pub leaders: Vec<Leader>,
}

impl View {
    /// The view with which a ring of `size` is formed.
    pub fn first(size: u16) -> Self {
        Self { epoch: 0, leaders: vec![Leader { role: Role::Primary, promoting: false }; usize::from(size)] }
    }
}

/// The copy of a partition that takes its writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Which of the two.
    pub role: Role,
    /// It is about to lead and may still lack acknowledged writes, which only the gateway that made the view
    /// has. A gateway that starts and finds this lets no copy lead until both copies have exchanged what they
    /// have.
    pub promoting: bool,
}

/// A commit of a copy's database that is on its disk. Each commit has a number, its *LSN* (log sequence
/// number), and none is given twice in a database. Whatever relies on what a copy has on disk remembers a
/// flush point, in the same step. A copy that later shows a lower one has been rolled back: its disk has lost
/// what it had (see [`Rollback`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlushPoint {
    /// Of the copy.
    pub incarnation: Uuid,
    /// Of the last commit on disk.
    pub lsn: u64,
}

impl FlushPoint {
    /// Takes note of what is known of a copy: the highest point of the incarnation that was heard of last.
    pub fn advance(known: &mut Option<Self>, heard: Self) {
        match known {
            Some(known) if known.incarnation == heard.incarnation => known.lsn = known.lsn.max(heard.lsn),
            _ => *known = Some(heard),
        }
    }
}

/// A copy came back with less than was known to be on its disk: the end of RocksDB's log was damaged or cut
/// off, or the folder was restored from an older copy. It is treated like a copy on an emptied disk: it does
/// not lead and does not serve. What only its op-log has is followed by the other copy; then it is discarded
/// and filled anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// What the two numbers count.
    pub of: Counted,
    /// The last one that is there.
    pub found: u64,
    /// One that was on disk before.
    pub known: u64,
}

/// What shows that a copy was rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Counted {
    /// Commits of its database.
    Commit,
    /// Entries of its op-log.
    Entry,
}

impl fmt::Display for Rollback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, found, known } = self;
        match of {
            Counted::Commit => write!(f, "its database ends at commit {found}, and had commit {known}"),
            Counted::Entry => write!(f, "its op-log ends at entry {found}, and had entry {known}"),
        }
    }
}

/// State of one copy, as its process knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyReport {
    /// Made with the copy's database.
    pub incarnation: Uuid,
    /// Whether it holds all of its partition: true from the forming of the ring, or once it was filled from
    /// the other copy, unless it was rolled back since. A copy that is not complete answers no requests.
    pub complete: bool,
    /// Last entry of its own op-log; 0 where there is none.
    pub head: u64,
    /// How far it has applied the other copy's op-log; `None` where it never followed it.
    pub position: Option<Position>,
    /// The highest version in it, or on its way into it.
    pub version: Version,
    /// LSN of the last commit that is on its disk.
    pub flushed: u64,
    /// What it knows to be on the disk of the other copy.
    pub other: Option<FlushPoint>,
    /// Set where it was rolled back, until it is discarded or the operator accepts it as it is.
    pub rollback: Option<Rollback>,
}

impl CopyReport {
    /// What is on the copy's disk.
    pub fn flush_point(&self) -> FlushPoint {
        FlushPoint { incarnation: self.incarnation, lsn: self.flushed }
    }

    /// Whether the copy has lost something, by what is known of its disk (`flushed`) and by how far the other
    /// copy has followed its op-log (`followed`).
    pub fn compare(&self, flushed: Option<FlushPoint>, followed: Option<Position>) -> Option<Rollback> {
        let flushed = flushed.filter(|known| known.incarnation == self.incarnation).map(|known| known.lsn);
        let followed = followed.filter(|known| known.incarnation == self.incarnation);
        let less = |of, found, known: Option<u64>| {
            known.filter(|&known| known > found).map(|known| Rollback { of, found, known })
        };
        less(Counted::Entry, self.head, followed.map(|position| position.sequence))
            .or_else(|| less(Counted::Commit, self.flushed, flushed))
    }
}

/// Both copies of a db-process. In a ring of one the replica stays empty and is never used.
pub type CopyReports = PerRole<CopyReport>;

/// One of something for each copy of a db-process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerRole<T> {
    /// Of its own partition.
    pub primary: T,
    /// Of its predecessor's partition.
    pub replica: T,
}

impl<T> PerRole<T> {
    /// Makes both.
    pub fn both(mut make: impl FnMut(Role) -> T) -> Self {
        Self { primary: make(Role::Primary), replica: make(Role::Replica) }
    }

    /// One of them.
    pub fn get(&self, role: Role) -> &T {
        match role {
            Role::Primary => &self.primary,
            Role::Replica => &self.replica,
        }
    }

    /// One of them.
    pub fn get_mut(&mut self, role: Role) -> &mut T {
        match role {
            Role::Primary => &mut self.primary,
            Role::Replica => &mut self.replica,
        }
    }

    /// Both, with their roles.
    pub fn into_pairs(self) -> [(Role, T); 2] {
        [(Role::Primary, self.primary), (Role::Replica, self.replica)]
    }
}
