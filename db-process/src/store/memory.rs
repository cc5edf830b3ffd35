//! The store in memory, for tests and simulations. It can crash: [`MemoryStore::crash`] takes back what was not synced,
//! as a power cut does to a disk.

use std::collections::{BTreeMap, VecDeque};

use protocol::message::replication::LogEntry;
use protocol::{Record, UserId};
use uuid::Uuid;

use super::{Batch, Durability, Meta, Snapshot, Store, StoreError};

/// A copy's database in memory.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    /// What a reader sees.
    seen: Content,
    /// What a crash leaves for certain.
    synced: Content,
    /// What leads from `synced` to `seen`, in order.
    unsynced: VecDeque<Batch>,
}

/// Everything that a store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    meta: Meta,
    records: BTreeMap<UserId, Record>,
    log: BTreeMap<u64, LogEntry>,
}

impl Content {
    fn apply(&mut self, batch: &Batch) {
        self.meta = batch.meta;
        self.records.extend(batch.records.iter().map(|(id, record)| (*id, record.clone())));
        self.log.extend(batch.log.iter().map(|entry| (entry.sequence, entry.clone())));
        if let Some(trim) = &batch.trim {
            let kept = self.log.split_off(&(trim.end() + 1));
            let mut before = std::mem::replace(&mut self.log, kept);
            before.split_off(trim.start());
            self.log.append(&mut before);
        }
    }
}

impl MemoryStore {
    /// A new database. The incarnation is an argument, so that a seeded run repeats.
    pub fn new(incarnation: Uuid) -> Self {
        let content =
            Content { meta: Meta::new(incarnation), records: BTreeMap::new(), log: BTreeMap::new() };
        Self { seen: content.clone(), synced: content, unsynced: VecDeque::new() }
    }

    /// How many batches a crash can take back.
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// The store as it is found after a power cut: of the batches that were not synced the first `survivors` are there,
    /// the others are gone. 0 is the worst case, [`usize::MAX`] is a process that was only killed.
    pub fn crash(mut self, survivors: usize) -> Self {
        for batch in self.unsynced.iter().take(survivors) {
            self.synced.apply(batch);
        }
        Self { seen: self.synced.clone(), synced: self.synced, unsynced: VecDeque::new() }
    }
}

impl Store for MemoryStore {
    fn get(&self, id: &UserId) -> Result<Option<Record>, StoreError> {
        Ok(self.seen.records.get(id).cloned())
    }

    fn meta(&self) -> Result<Meta, StoreError> {
        Ok(self.seen.meta)
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
        }
        Ok(())
    }
}

impl Snapshot for &Content {
    fn meta(&self) -> Meta {
        self.meta
    }

    fn records(&self) -> impl Iterator<Item = Result<(UserId, Record), StoreError>> {
        self.records.iter().map(|(id, record)| Ok((*id, record.clone())))
    }
}
