//! The state of a copy.

use protocol::Version;
use protocol::message::link::{FlushPoint, Position, Rollback};
use uuid::Uuid;

/// What a copy knows of itself. It is written with every batch, so it always fits the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Made with the database. Changed only where the operator accepts a copy that was rolled back: the
    /// numbers of what it lost are used again.
    pub incarnation: Uuid,
    /// Whether the copy ever held all of its partition.
    pub complete: bool,
    /// Sequence of the last entry appended to its op-log; 0 if there was none.
    pub head: u64,
    /// Entries up to and including this one are gone from the op-log. Never above `head`.
    pub trimmed: u64,
    /// Number of the last batch, counted from the making of the database; 0 if an earlier program wrote it.
    pub lsn: u64,
    /// What is known to be on the disk of the other copy.
    pub other: Option<FlushPoint>,
    /// Set if the copy was rolled back.
    pub rollback: Option<Rollback>,
    /// How far it has applied the other copy's op-log.
    pub position: Option<Position>,
    /// Where its first content came from; `None` if it was complete from the start or is not yet.
    pub origin: Option<Origin>,
    /// The highest version of any write in it.
    pub version: Version,
    /// Number of live users.
    pub users: u64,
    /// Number of live users and tombstones.
    pub records: u64,
    /// The op-log holds all that was ever accepted at this place above this version.
    pub floor: Version,
    /// The highest version of anything that did not come by the own op-log.
    pub foreign: Version,
    /// The highest version that was ever appended to the op-log.
    pub top: Version,
    /// The last entry of the op-log that came late, if any did.
    pub late: Option<Late>,
}

impl Meta {
    /// Of a database that holds nothing yet.
    pub fn new(incarnation: Uuid) -> Self {
        Self {
            incarnation,
            complete: false,
            head: 0,
            trimmed: 0,
            lsn: 0,
            other: None,
            rollback: None,
            position: None,
            origin: None,
            version: Version::ZERO,
            users: 0,
            records: 0,
            floor: Version::ZERO,
            foreign: Version::ZERO,
            top: Version::ZERO,
            late: None,
        }
    }

    /// Whether the op-log holds everything after `sequence`.
    pub fn log_reaches(&self, sequence: u64) -> bool {
        (self.trimmed..=self.head).contains(&sequence)
    }
}

/// An entry of the op-log whose version is not above those of all entries before it. After it the versions
/// rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late {
    /// Sequence of the entry.
    pub sequence: u64,
    /// The highest version of the entries before it.
    pub top: Version,
}

/// A copy that was filled from another holds what that one held, and its own writes since. So that other
/// copy, and no third one, can follow it by its op-log from there on without a full copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Incarnation of the copy that it was filled from.
    pub source: Uuid,
    /// Its own head when it had been filled.
    pub head: u64,
}
