//! The store: where one copy keeps its records, its op-log and its own state.
//!
//! A store does little, and does it atomically: [`Store::commit`] writes one [`Batch`], and after a crash
//! either all of it is there or nothing. With [`Durability::Synced`] it is on disk when the call returns.
//! Without, a power cut may take it back, but only together with everything after it: what is left is always
//! a prefix of the batches.
//!
//! * [`rocks`]: on disk, in RocksDB.
//! * [`memory`]: in memory, with crashes on demand, for tests and simulations. Both pass the same suite of
//!   tests, and are run side by side.
//! * [`encoding`]: the bytes on disk.
//! * [`trash`]: what the databases on disk remove.
//! * [`derived`]: what follows from the records, and is kept beside them: digests, counts, indexes.
//!
//! What it does not do: it decides nothing. Which write is allowed, what a sequence or a position means, when
//! to sync and what to trim are the rules of [`crate::copy`]. It also repairs nothing: after an error the
//! copy is not to be trusted.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use protocol::message::link::{FlushPoint, Position, Rollback};
use protocol::message::replication::LogEntry;
use protocol::{Record, UserId, Version};
use thiserror::Error;
use uuid::Uuid;

pub mod derived;
pub mod encoding;
pub mod memory;
pub mod rocks;
#[cfg(test)]
pub(crate) mod suite;
pub mod trash;

pub use derived::{Derived, DigestChange, Digests, IndexKey};
pub use encoding::DecodeError;
pub use memory::MemoryStore;
pub use rocks::{BlockCache, LATEST_ENTRIES, ReadOnlyStore, RocksStore};

/// One copy's database. There is one writer; readers may be anywhere.
pub trait Store {
    /// What is known of one user, live or deleted.
    ///
    /// # Errors
    /// If the database fails or the record is damaged.
    fn get(&self, id: &UserId) -> Result<Option<Record>, StoreError>;

    /// What is known of several users, in their order: cheaper than one after the other.
    ///
    /// # Errors
    /// As for [`Self::get`], of any of them.
    fn get_many(&self, ids: &[UserId]) -> Result<Vec<Option<Record>>, StoreError> {
        ids.iter().map(|id| self.get(id)).collect()
    }

    /// The state that the last committed batch left.
    ///
    /// # Errors
    /// If the database fails or the state is damaged.
    fn meta(&self) -> Result<Meta, StoreError>;

    /// How many live users a group has, as it is kept.
    ///
    /// # Errors
    /// If the database fails or the number is damaged.
    fn group_count(&self, group: i32) -> Result<u64, StoreError>;

    /// Op-log entries after `sequence`, in order, at most `limit` of them: none at the head. `None` where the
    /// op-log does not reach back that far, or has not got that far.
    ///
    /// # Errors
    /// If the database fails, or an entry is damaged or missing.
    fn log_after(&self, sequence: u64, limit: usize) -> Result<Option<Vec<LogEntry>>, StoreError>;

    /// Everything as of now, whatever is written from here on.
    ///
    /// # Errors
    /// If the database fails or the state is damaged.
    fn snapshot(&self) -> Result<impl Snapshot, StoreError>;

    /// Writes the batch, all or nothing.
    ///
    /// # Errors
    /// If the database fails. Nothing can be said of the batch then, and the store must not be used again.
    fn commit(&mut self, batch: &Batch, durability: Durability) -> Result<(), StoreError>;

    /// Brings to disk what was committed unsynced.
    ///
    /// # Errors
    /// As for [`Store::commit`].
    fn sync(&mut self) -> Result<(), StoreError>;
}

/// A store at one moment. All that it tells belongs to the same batch. An error ends what it is met in.
pub trait Snapshot {
    /// The state then.
    fn meta(&self) -> Meta;

    /// What is known of one user then.
    ///
    /// # Errors
    /// If the database fails or the record is damaged.
    fn get(&self, id: &UserId) -> Result<Option<Record>, StoreError>;

    /// All records, live users and tombstones, in id order: for whoever wants most of them.
    fn records(&self) -> impl Iterator<Item = Result<(UserId, Record), StoreError>>;

    /// The records of higher ids, in id order: for whoever wants some of them.
    fn records_after(
        &self,
        after: Option<UserId>,
    ) -> impl Iterator<Item = Result<(UserId, Record), StoreError>>;

    /// The entries of the op-log after that sequence, in order and without gaps. It has to reach back that
    /// far.
    fn log(&self, after: u64) -> impl Iterator<Item = Result<LogEntry, StoreError>>;

    /// The pages of operations that were accepted elsewhere, in the order of their numbers.
    fn applied(&self) -> impl Iterator<Item = Result<(u64, Vec<Version>), StoreError>>;

    /// The digests as they are kept.
    ///
    /// # Errors
    /// If the database fails or they are damaged.
    fn digests(&self) -> Result<Box<Digests>, StoreError>;

    /// The groups with live users and their numbers as they are kept, in the order of the groups.
    fn group_counts(&self) -> impl Iterator<Item = Result<(i32, u64), StoreError>>;

    /// Both indexes as they are kept, in order.
    fn index(&self) -> impl Iterator<Item = Result<IndexKey, StoreError>>;

    /// The users that an index lists, of higher ids, in id order.
    fn listed(
        &self,
        listing: Listing,
        after: Option<UserId>,
    ) -> impl Iterator<Item = Result<UserId, StoreError>>;
}

/// Part of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// The live users of a group.
    Group(i32),
    /// The live users whose address has that [`derived::email_hash`].
    Email(u64),
}

/// A record with the bytes that it has on disk. They are made once: they are written, hashed and remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The record.
    pub record: Record,
    /// What [`encoding::record`] makes of it.
    pub bytes: Vec<u8>,
}

impl From<Record> for Encoded {
    fn from(record: Record) -> Self {
        let bytes = encoding::record(&record);
        Self { record, bytes }
    }
}

/// What is written at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The state of the copy after it.
    pub meta: Meta,
    /// Records to put, whole. A map, because the last state of a user is the one that counts, and ordered,
    /// because the same batch has to be the same bytes.
    pub records: BTreeMap<UserId, Encoded>,
    /// Users of whom nothing is known any more; none of them is in `records`.
    pub gone: BTreeSet<UserId>,
    /// What follows from these records.
    pub derived: Derived,
    /// Entries to append: they end with `meta.head`.
    pub log: Vec<LogEntry>,
    /// Entries to drop: they end with `meta.trimmed`.
    pub trim: Option<RangeInclusive<u64>>,
    /// Operations that were accepted elsewhere, to be remembered as applied: one page, under the next number.
    pub applied: Option<(u64, Vec<Version>)>,
    /// Such pages to drop.
    pub forget: Option<RangeInclusive<u64>>,
    /// It is one of very many that come one after the other: what can be put off may be, and done for several
    /// at once.
    pub bulk: bool,
}

impl Batch {
    /// Nothing but the state of the copy.
    pub fn new(meta: Meta) -> Self {
        Self {
            meta,
            records: BTreeMap::new(),
            gone: BTreeSet::new(),
            derived: Derived::default(),
            log: Vec::new(),
            trim: None,
            applied: None,
            forget: None,
            bulk: false,
        }
    }
}

/// When a batch has to be on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Before the call returns: somebody is promised that it is there.
    Synced,
    /// Some time later: it can be had again from elsewhere.
    Unsynced,
}

/// What a copy knows of itself. It is written with every batch, so it always fits the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Made with the database. Changed only where the operator accepts a copy that was rolled back: the
    /// numbers of what it lost are used again.
    pub incarnation: Uuid,
    /// Whether the copy ever held all of its partition.
    pub complete: bool,
    /// Sequence of the last entry appended to its op-log; 0 where there was none.
    pub head: u64,
    /// Entries up to and including this one are gone from the op-log. Never above `head`.
    pub trimmed: u64,
    /// Number of the last batch, counted from the making of the database; 0 where an earlier program wrote
    /// it.
    pub lsn: u64,
    /// What is known to be on the disk of the other copy.
    pub other: Option<FlushPoint>,
    /// Set where the copy was rolled back.
    pub rollback: Option<Rollback>,
    /// How far it has applied the other copy's op-log.
    pub position: Option<Position>,
    /// Where its first content came from; `None` where it was complete from the start or is not yet.
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

/// An entry of the op-log whose version is not above those of all entries before it. Behind it the versions
/// rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late {
    /// Sequence of the entry.
    pub sequence: u64,
    /// The highest version of the entries before it.
    pub top: Version,
}

/// A copy that was filled from another holds what that one held, and its own writes since. So that other
/// copy, and no one else, can follow it by its op-log from there on without being copied in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Incarnation of the copy that it was filled from.
    pub source: Uuid,
    /// Its own head when it had been filled.
    pub head: u64,
}

/// Why a store did not do as told.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The database cannot be opened: it is in use, not readable, or damaged.
    #[error("the database in {path} cannot be opened: {source}")]
    Open {
        /// Folder of the database.
        path: PathBuf,
        /// What RocksDB says.
        source: rocksdb::Error,
    },
    /// The log of the database is damaged, before what its tables hold already: it is not known what they
    /// lack.
    #[error("the log of the database in {path} is damaged: {source}")]
    LogDamaged {
        /// Folder of the database.
        path: PathBuf,
        /// What RocksDB says.
        source: rocksdb::Error,
    },
    /// There is no database to look at.
    #[error("there is no database in {path}")]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A database without its first file. RocksDB would take it for an empty folder, and remove what is
    /// there.
    #[error("the database in {path} has lost its file CURRENT")]
    Incomplete {
        /// Folder of the database.
        path: PathBuf,
    },
    /// RocksDB failed: the disk is full or broken, or the database is damaged.
    #[error("the database failed: {0}")]
    Database(#[from] rocksdb::Error),
    /// A value is not what this program writes.
    #[error("{what} in the database cannot be read: {source}")]
    Unreadable {
        /// Which value; never its content.
        what: String,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The values do not fit together.
    #[error("the database contradicts itself: {0}")]
    Inconsistent(String),
    /// What an interrupted attempt left cannot be removed.
    #[error("{path} cannot be removed: {kind}")]
    LeftOver {
        /// The file.
        path: PathBuf,
        /// What the system says.
        kind: std::io::ErrorKind,
    },
    /// The file that remembers how much of the database is on disk cannot be used.
    #[error("{path} cannot be read or written: {kind}")]
    Mark {
        /// The file.
        path: PathBuf,
        /// What the system says.
        kind: std::io::ErrorKind,
    },
    /// The system gives no thread to work with the database.
    #[error("no thread can be started: {0}")]
    NoThread(std::io::ErrorKind),
    /// The copy failed before. It answers nothing since then.
    #[error("the copy failed before and is not used any more")]
    Poisoned,
}

impl StoreError {
    /// The system's answer to somebody who wanted a thread.
    pub(crate) fn no_thread(error: std::io::Error) -> Self {
        Self::NoThread(error.kind())
    }

    /// The system's answer about the file beside a database.
    pub(crate) fn mark(path: &Path, error: &std::io::Error) -> Self {
        Self::Mark { path: path.into(), kind: error.kind() }
    }

    /// Names the value that cannot be read. It is put into words only then.
    pub(crate) fn unreadable(what: impl std::fmt::Display) -> impl FnOnce(DecodeError) -> Self {
        move |source| Self::Unreadable { what: what.to_string(), source }
    }
}
