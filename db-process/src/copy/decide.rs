//! What a write comes to: decided against the record as it is now.

use protocol::message::link::{Found, Write, WriteAnswer};
use protocol::message::replication::LogEntry;
use protocol::{Change, Operation, Outcome, Record, Register, UserId, Version};

use super::recent::Remembered;
use super::{Copy, document};
use crate::store::{Late, Store, StoreError, encoding};

/// What is to be done about a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is allowed: write it and give it a place in the op-log.
    Accept,
    /// The record shows that it was applied before: say so, and write nothing.
    Repeated,
    /// Nothing is written.
    Answer(Outcome),
    /// The same request under the same `Idempotency-Key` was done in this version: show what it showed.
    ShowAsCreated(Version),
}

/// Decides a write against what is known of its user.
///
/// Usually a write is newer than all that the record holds. One that is older was under way while the newer
/// ones were applied, so it may be answered as of any moment since it set out. It is answered as of just
/// before the user was born or died, where the record knows of that: an old operation neither changes a user
/// that was made after it, nor brings back one that was deleted after it.
pub fn decide(record: Option<&Record>, write: &Write) -> Decision {
    if let Operation::Purge(of) = write.operation {
        // Where there is no record, the other copy may have one.
        let is_dead = record.is_none_or(|record| !record.is_alive() && record.version() <= of);
        let refused = Decision::Answer(Outcome::PreconditionFailed);
        return if is_dead { Decision::Accept } else { refused };
    }
    if record.is_some_and(|record| carries(record, write.version)) {
        return Decision::Repeated;
    }
    let refused = |outcome| Decision::Answer(outcome);
    let unmet =
        |live: &Record| write.condition.as_ref().is_some_and(|condition| !condition.holds(live.version()));
    if let Operation::Create(Change { request: Some(asked), .. }) = &write.operation
        && let Some(Register(version, known)) = record.and_then(|record| record.request.as_ref())
        && known.key == asked.key
    {
        let same = known.body == asked.body;
        return if same { Decision::ShowAsCreated(*version) } else { refused(Outcome::KeyReused) };
    }
    let live = record.filter(|record| record.is_alive());
    match (&write.operation, live) {
        // `If-Match` never holds where there is no user.
        (Operation::Create(_), None) if write.condition.is_some() => refused(Outcome::PreconditionFailed),
        (Operation::Create(_), None) if record.is_some_and(|dead| dead.alive.0 > write.version) => {
            refused(Outcome::Exists)
        }
        (Operation::Create(_), None) => Decision::Accept,
        (Operation::Update(_) | Operation::Delete, None) => refused(Outcome::NotFound),
        (Operation::Update(_) | Operation::Delete, Some(live)) if live.alive.0 > write.version => {
            refused(Outcome::NotFound)
        }
        (_, Some(live)) if unmet(live) => refused(Outcome::PreconditionFailed),
        (Operation::Create(_), Some(_)) => refused(Outcome::Exists),
        (Operation::Update(change), Some(_)) if change.is_empty() => refused(Outcome::Unchanged),
        (Operation::Update(_) | Operation::Delete, Some(_)) => Decision::Accept,
        (Operation::Purge(_), _) => unreachable!("a purge is decided above"),
    }
}

/// Whether one of the registers was set by the operation of that version.
fn carries(record: &Record, version: Version) -> bool {
    [record.alive.0, record.name.0, record.email.0, record.group.0].contains(&version)
}

impl<S: Store> Copy<S> {
    /// Decides writes in their order and stages what is allowed. The answers may leave after the next commit.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn write(&mut self, writes: Vec<Write>) -> Result<Vec<WriteAnswer>, StoreError> {
        // Even a refusal may rest on something that was replicated and is not on disk yet.
        self.promised = true;
        let ids: Vec<_> = writes.iter().map(|write| write.id).collect();
        let stored = self.store.get_many(&ids)?;
        writes.into_iter().zip(stored).map(|(write, stored)| self.write_one(write, stored)).collect()
    }

    /// `stored` is the record as it is in the store.
    fn write_one(&mut self, write: Write, stored: Option<Record>) -> Result<WriteAnswer, StoreError> {
        let sequence = self.staged.meta.head;
        if let Some(known) = self.recent.get(write.version) {
            let user = if write.omit_user { None } else { self.shown_before(&write, known)? };
            let sequence = known.sequence.unwrap_or(sequence);
            return Ok(WriteAnswer { outcome: Outcome::Applied, sequence, user });
        }
        let record = self.with_staged(&write.id, stored);
        if self.recopies && matches!(write.operation, Operation::Purge(_)) {
            return Ok(WriteAnswer { outcome: Outcome::PreconditionFailed, sequence, user: None });
        }
        let change = || write.operation.change();
        let (outcome, user) = match decide(record.as_ref(), &write) {
            Decision::Accept => return self.accept(write, record),
            Decision::Repeated => {
                let shown = record.filter(|_| !write.omit_user);
                let left = |record| document::left_by(write.id, write.version, &change(), record);
                (Outcome::Applied, shown.and_then(left))
            }
            Decision::ShowAsCreated(version) => {
                let created = Record::from_change(version, &change());
                (Outcome::Repeated, document::left_by(write.id, version, &change(), created))
            }
            Decision::Answer(outcome) => {
                (outcome, record.and_then(|record| document::live(write.id, record)))
            }
        };
        Ok(WriteAnswer { outcome, sequence, user })
    }

    /// Stages an allowed write, with the next number of the op-log.
    fn accept(&mut self, write: Write, before: Option<Record>) -> Result<WriteAnswer, StoreError> {
        let Write { version, id, operation, omit_user, .. } = write;
        let change = operation.into_change();
        let sequence = self.staged.meta.head + 1;
        self.put_change(id, before, version, &change, Some(sequence))?;
        let left = if omit_user { None } else { self.record(&id)? };
        let user = left.and_then(|record| document::left_by(id, version, &change, record));
        let before = self.staged.log.last().map_or(self.staged.meta.head, |entry| entry.sequence);
        assert_eq!(before + 1, sequence, "the op-log has no gaps");
        self.staged.log.push(LogEntry { sequence, version, id, change });
        let meta = &mut self.staged.meta;
        if version <= meta.top {
            meta.late = Some(Late { sequence, top: meta.top });
        }
        meta.top = meta.top.max(version);
        meta.head = sequence;
        self.dirty = true;
        Ok(WriteAnswer { outcome: Outcome::Applied, sequence, user })
    }

    /// What a repeated operation showed when it was applied.
    fn shown_before(&self, write: &Write, known: &Remembered) -> Result<Option<Found>, StoreError> {
        let id: UserId = write.id;
        match &known.left {
            Some(bytes) => {
                let record =
                    encoding::read_record(bytes).map_err(StoreError::unreadable("a remembered record"))?;
                Ok(document::live(id, record))
            }
            None => {
                let (record, change) = (self.record(&id)?, write.operation.change());
                Ok(record.and_then(|record| document::left_by(id, write.version, &change, record)))
            }
        }
    }
}
