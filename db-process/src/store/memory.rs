//! The store in memory, for tests and simulations. It can crash: [`MemoryStore::crash`] takes back what was
//! not synced, as a power cut does to a disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use protocol::message::replication::LogEntry;
use protocol::{Record, UserId, Version};
use uuid::Uuid;

use super::{Batch, Digests, Durability, IndexKey, Listing, Meta, Snapshot, Store, StoreError};

/// A copy's database in memory.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    /// What a reader sees.
    seen: Content,
    /// What a crash leaves for certain.
    synced: Content,
    /// What leads from `synced` to `seen`, in order.
    unsynced: VecDeque<Batch>,
    /// What was there in the beginning.
    first: Content,
    /// What leads from there to `synced`, in order.
    history: Vec<Batch>,
}

/// Everything that a store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    meta: Meta,
    records: BTreeMap<UserId, Record>,
    log: BTreeMap<u64, LogEntry>,
    applied: BTreeMap<u64, Vec<Version>>,
    digests: Box<Digests>,
    groups: BTreeMap<i32, u64>,
    index: BTreeSet<IndexKey>,
}

impl Content {
    fn apply(&mut self, batch: &Batch) {
        self.meta = batch.meta;
        self.records.extend(batch.records.iter().map(|(id, put)| (*id, put.record.clone())));
        self.records.retain(|id, _| !batch.gone.contains(id));
        let entries = batch.rewritten.iter().chain(&batch.log);
        self.log.extend(entries.map(|entry| (entry.sequence, entry.clone())));
        if let Some(trim) = &batch.trim {
            self.log.retain(|sequence, _| !trim.contains(sequence));
        }
        if let Some(forget) = &batch.forget {
            self.applied.retain(|page, _| !forget.contains(page));
        }
        self.applied.extend(batch.applied.clone());
        if let Some(digests) = &batch.derived.digests {
            self.digests.clone_from(digests);
        }
        for (key, taken) in &batch.derived.index {
            if let IndexKey::Group(group, _) = key {
                let users = self.groups.entry(*group).or_default();
                *users = users.wrapping_add_signed(if *taken { 1 } else { -1 });
                if *users == 0 {
                    self.groups.remove(group);
                }
            }
            match taken {
                true => self.index.insert(*key),
                false => self.index.remove(key),
            };
        }
    }
}

impl MemoryStore {
    /// A new database. The incarnation is an argument, so that a seeded run repeats.
    pub fn new(incarnation: Uuid) -> Self {
        let content = Content {
            meta: Meta::new(incarnation),
            records: BTreeMap::new(),
            log: BTreeMap::new(),
            applied: BTreeMap::new(),
            digests: Digests::new(),
            groups: BTreeMap::new(),
            index: BTreeSet::new(),
        };
        Self {
            seen: content.clone(),
            first: content.clone(),
            synced: content,
            unsynced: VecDeque::new(),
            history: Vec::new(),
        }
    }

    /// How many batches a crash can take back.
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// The store as it is found after a power cut: of the batches that were not synced the first `survivors`
    /// are there, the others are gone. 0 is the worst case, [`usize::MAX`] is a process that was only killed.
    pub fn crash(mut self, survivors: usize) -> Self {
        for batch in self.unsynced.drain(..).take(survivors) {
            self.synced.apply(&batch);
            self.history.push(batch);
        }
        Self { seen: self.synced.clone(), ..self }
    }

    /// The state that a power cut leaves for certain.
    pub fn synced_meta(&self) -> &Meta {
        &self.synced.meta
    }

    /// What a power cut leaves for certain of a user.
    pub fn synced_record(&self, id: &UserId) -> Option<&Record> {
        self.synced.records.get(id)
    }

    /// How many batches were synced since the database was made.
    pub fn synced(&self) -> usize {
        self.history.len()
    }

    /// The store as it was when so many batches had been synced.
    pub fn roll_back(mut self, batches: usize) -> Self {
        self.history.truncate(batches);
        let mut synced = self.first.clone();
        self.history.iter().for_each(|batch| synced.apply(batch));
        Self { seen: synced.clone(), synced, unsynced: VecDeque::new(), ..self }
    }
}

impl Store for MemoryStore {
    fn get(&self, id: &UserId) -> Result<Option<Record>, StoreError> {
        Ok(self.seen.records.get(id).cloned())
    }

    fn meta(&self) -> Result<Meta, StoreError> {
        Ok(self.seen.meta)
    }

    fn group_count(&self, group: i32) -> Result<u64, StoreError> {
        Ok(self.seen.groups.get(&group).copied().unwrap_or_default())
    }

    fn log_after(&self, sequence: u64, limit: usize) -> Result<Option<Vec<LogEntry>>, StoreError> {
        let reaches = self.seen.meta.log_reaches(sequence);
        let entries = || self.seen.log.range(sequence + 1..).take(limit).map(|(_, entry)| entry.clone());
        Ok(reaches.then(|| entries().collect()))
    }

    fn snapshot(&self) -> Result<impl Snapshot, StoreError> {
        Ok(&self.seen)
    }

    fn commit(&mut self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        self.seen.apply(batch);
        self.unsynced.push_back(batch.clone());
        match durability {
            Durability::Synced => self.sync(),
            Durability::Unsynced => Ok(()),
        }
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        for batch in self.unsynced.drain(..) {
            self.synced.apply(&batch);
            self.history.push(batch);
        }
        Ok(())
    }
}

impl Snapshot for &Content {
    fn meta(&self) -> Meta {
        self.meta
    }

    fn get(&self, id: &UserId) -> Result<Option<Record>, StoreError> {
        Ok(self.records.get(id).cloned())
    }

    fn records(&self) -> impl Iterator<Item = Result<(UserId, Record), StoreError>> {
        self.records_after(None)
    }

    fn records_after(
        &self,
        after: Option<UserId>,
    ) -> impl Iterator<Item = Result<(UserId, Record), StoreError>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.records.range((from, Bound::Unbounded)).map(|(id, record)| Ok((*id, record.clone())))
    }

    fn log(&self, after: u64) -> impl Iterator<Item = Result<LogEntry, StoreError>> {
        self.log.range(after + 1..).map(|(_, entry)| Ok(entry.clone()))
    }

    fn applied(&self) -> impl Iterator<Item = Result<(u64, Vec<Version>), StoreError>> {
        self.applied.iter().map(|(page, versions)| Ok((*page, versions.clone())))
    }

    fn digests(&self) -> Result<Box<Digests>, StoreError> {
        Ok(self.digests.clone())
    }

    fn group_counts(&self) -> impl Iterator<Item = Result<(i32, u64), StoreError>> {
        self.groups.iter().map(|(group, users)| Ok((*group, *users)))
    }

    fn index(&self) -> impl Iterator<Item = Result<IndexKey, StoreError>> {
        self.index.iter().map(|key| Ok(*key))
    }

    fn listed(
        &self,
        listing: Listing,
        after: Option<UserId>,
    ) -> impl Iterator<Item = Result<UserId, StoreError>> {
        let first = Bound::Included(listing.place(Uuid::nil()));
        let from = after.map_or(first, |id| Bound::Excluded(listing.place(id)));
        let places = self.index.range((from, Bound::Included(listing.place(Uuid::max()))));
        places.map(|place| Ok(place.id()))
    }
}
