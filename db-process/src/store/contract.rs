//! What every store does.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use protocol::message::replication::LogEntry;
use protocol::{Record, UserId, Version};

use super::{Derived, Digests, IndexKey, Meta, StoreError, encoding};

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

    /// How many live users a group has, as it is stored.
    ///
    /// # Errors
    /// If the database fails or the number is damaged.
    fn group_count(&self, group: i32) -> Result<u64, StoreError>;

    /// Op-log entries after `sequence`, in order, at most `limit` of them: none at the head. `None` if the
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
    /// If the database fails. It is not known what became of the batch then, and the store must not be used
    /// again.
    fn commit(&mut self, batch: &Batch, durability: Durability) -> Result<(), StoreError>;

    /// Brings to disk what was committed unsynced.
    ///
    /// # Errors
    /// As for [`Store::commit`].
    fn sync(&mut self) -> Result<(), StoreError>;
}

/// A store at one moment. All that it says belongs to the same batch. An iterator ends after an error.
pub trait Snapshot {
    /// The state then.
    fn meta(&self) -> Meta;

    /// What is known of one user then.
    ///
    /// # Errors
    /// If the database fails or the record is damaged.
    fn get(&self, id: &UserId) -> Result<Option<Record>, StoreError>;

    /// All records, live users and tombstones, in id order: for a pass over most of them.
    fn records(&self) -> impl Iterator<Item = Result<(UserId, Record), StoreError>>;

    /// The records of higher ids, in id order: for some of them.
    fn records_after(
        &self,
        after: Option<UserId>,
    ) -> impl Iterator<Item = Result<(UserId, Record), StoreError>>;

    /// The entries of the op-log after that sequence, in order and without gaps. It has to reach back that
    /// far.
    fn log(&self, after: u64) -> impl Iterator<Item = Result<LogEntry, StoreError>>;

    /// The pages of operations that were accepted elsewhere, in the order of their numbers.
    fn applied(&self) -> impl Iterator<Item = Result<(u64, Vec<Version>), StoreError>>;

    /// The digests as they are stored.
    ///
    /// # Errors
    /// If the database fails or they are damaged.
    fn digests(&self) -> Result<Box<Digests>, StoreError>;

    /// The groups with live users and their numbers as they are stored, in the order of the groups.
    fn group_counts(&self) -> impl Iterator<Item = Result<(i32, u64), StoreError>>;

    /// Both indexes as they are stored, in order.
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
    /// The live users whose address has that [`derived::email_hash`](super::derived::email_hash).
    Email(u64),
}

impl Listing {
    /// A user's place in it.
    pub fn place(self, id: UserId) -> IndexKey {
        match self {
            Self::Group(group) => IndexKey::Group(group, id),
            Self::Email(hash) => IndexKey::Email(hash, id),
        }
    }
}

/// A record with its bytes on disk. They are made once: they are written, hashed and remembered.
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
    /// Users of which nothing is known any more; none of them is in `records`.
    pub gone: BTreeSet<UserId>,
    /// What follows from these records.
    pub derived: Derived,
    /// Entries to append: they end with `meta.head`.
    pub log: Vec<LogEntry>,
    /// Entries that are there and are written anew, with less in them.
    pub rewritten: Vec<LogEntry>,
    /// Entries to drop: they end with `meta.trimmed`.
    pub trim: Option<RangeInclusive<u64>>,
    /// Operations that were accepted elsewhere, to be remembered as applied: one page, under the next number.
    pub applied: Option<(u64, Vec<Version>)>,
    /// Such pages to drop.
    pub forget: Option<RangeInclusive<u64>>,
    /// It is one of very many in a row: what can be deferred may be, and done for several at once.
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
            rewritten: Vec::new(),
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
    /// Before the call returns: an answer promises that it is there.
    Synced,
    /// Some time later: it can be had again from elsewhere.
    Unsynced,
}
