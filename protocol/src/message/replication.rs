//! Between the two copies of a partition, db-process to db-process. The copy that follows connects to the
//! other's process, one connection for each copy, and sends [`Follow`].

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::link::{FlushPoint, Position, Role};
use crate::placement::InstanceName;
pub use crate::record::LogEntry;
use crate::record::Record;
use crate::user::UserId;
use crate::version::Version;

/// Follower → source, first message on every connection: asks for everything after `position`. Answered by
/// [`LogBatch`]es for as long as the connection stands, before them [`CopyChunk`]s where the op-log does not
/// reach back that far, or by [`Declined`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follow {
    /// [`super::REVISION`] of the sender.
    pub revision: u32,
    /// Ring of the sender.
    pub ring: Uuid,
    /// Name of the sender.
    pub instance: InstanceName,
    /// The copy of the receiver that is to be followed; it belongs to the same partition as the sender's
    /// other role.
    pub role: Role,
    /// Of the copy that follows. Nil where it wants everything once more, whatever the source remembers of
    /// it.
    pub incarnation: Uuid,
    /// How far it has applied the source's op-log; `None` where it never followed it.
    pub position: Option<Position>,
    /// LSN of the last commit on the follower's disk.
    pub flushed: u64,
    /// What the follower knows to be on the source's disk.
    pub other: Option<FlushPoint>,
}

/// Source → follower: it cannot be followed (now). The follower drops the connection and tries again later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declined {
    /// Why, for the log.
    pub reason: Decline,
}

/// Why a copy cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decline {
    /// It is not complete itself, or has nothing that the follower lacks.
    Incomplete,
    /// The source knows of more on the follower's disk than the follower has said. If it has less, it was
    /// rolled back; otherwise it asks again.
    Expects(FlushPoint),
    /// It belongs to another ring.
    AnotherRing,
    /// It does not hold a copy of the follower's partition.
    NotANeighbour,
    /// It speaks another revision.
    Revision,
}

/// Source → follower: entries of the op-log, without gaps. At most four unanswered; answered by
/// [`Confirmed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBatch {
    /// The copy whose op-log this is.
    pub incarnation: Uuid,
    /// What is on the source's disk, at least.
    #[serde(default)]
    pub lsn: u64,
    /// In sequence order, the first one right after what was sent before.
    #[serde(with = "super::packed::entries")]
    pub entries: Vec<LogEntry>,
}

/// Source → follower: part of a full copy. At most four unanswered; answered by [`ChunkMerged`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyChunk {
    /// Counts from 0.
    pub chunk: u64,
    /// In id order; live users and tombstones.
    #[serde(with = "super::packed::records")]
    pub records: Vec<(UserId, Record)>,
    /// The operations applied lately that made these records and those of the chunks before. Records do not
    /// tell of all of them, and one that arrives again must not be decided anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applied: Vec<Version>,
    /// In the last chunk: the position in the source's op-log that the copy stands for.
    pub end: Option<Position>,
    /// In the last chunk: what is on the source's disk, at least. All that was sent is.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lsn: u64,
}

fn is_zero(lsn: &u64) -> bool {
    *lsn == 0
}

/// Follower → source: the records of a [`CopyChunk`] are merged (and with the last one the position is on
/// disk).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkMerged {
    /// Of the [`CopyChunk`].
    pub chunk: u64,
}

/// Follower → source: how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Applied and readable, though a power cut may undo it: lets the source send more.
    pub applied: u64,
    /// Fsynced: the source may trim its op-log up to here.
    pub durable: u64,
    /// LSN of the last commit on the follower's disk.
    pub lsn: u64,
}

messages! {
    /// What a follower sends.
    ToSource {
        Follow = "follow",
        ChunkMerged = "chunk_merged",
        Confirmed = "confirmed",
    }
}

messages! {
    /// What a source sends.
    ToFollower {
        Declined = "declined",
        LogBatch = "log",
        CopyChunk = "chunk",
    }
}
