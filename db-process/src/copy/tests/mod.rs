//! The rules of a copy, each as a short story on the store in memory.

use std::ops::ControlFlow;

use protocol::message::link::{Position, Write, WriteAnswer};
use protocol::message::replication::{LogBatch, LogEntry};
use protocol::{Change, Condition, Operation, Outcome, Record, UserId, Version};
use uuid::Uuid;

use super::follow::full_copy;
use super::{Copy, Limits};
use crate::store::{MemoryStore, Snapshot, Store};

mod asking;
mod auditing;
mod committing;
mod deciding;
mod erasing;
mod following;
mod property;
mod repeating;

/// Small enough to be filled by a test.
pub(super) const SMALL: Limits = Limits { recent: 4, log: 12, trim: 2 };

pub(super) fn id(n: u128) -> UserId {
    Uuid::from_u128(n)
}

pub(super) fn full(tag: u64) -> Change {
    Change {
        alive: Some(true),
        name: Some(format!("name {tag}")),
        email: Some(format!("{tag}@example.org")),
        group: Some(tag as i32),
        ..Change::default()
    }
}

pub(super) fn group(group: i32) -> Change {
    Change { group: Some(group), ..Change::default() }
}

pub(super) fn name(name: &str) -> Change {
    Change { name: Some(name.to_owned()), ..Change::default() }
}

pub(super) fn write(version: u64, user: u128, operation: Operation) -> Write {
    Write { version: Version(version), id: id(user), operation, condition: None, omit_user: false }
}

pub(super) fn create(version: u64, user: u128) -> Write {
    write(version, user, Operation::Create(full(version)))
}

pub(super) fn update(version: u64, user: u128, change: Change) -> Write {
    write(version, user, Operation::Update(change))
}

pub(super) fn delete(version: u64, user: u128) -> Write {
    write(version, user, Operation::Delete)
}

pub(super) fn only_if(versions: &[u64], write: Write) -> Write {
    let versions = versions.iter().copied().map(Version).collect();
    Write { condition: Some(Condition::Versions(versions)), ..write }
}

pub(super) fn if_any(write: Write) -> Write {
    Write { condition: Some(Condition::Any), ..write }
}

pub(super) fn new_copy(incarnation: u128) -> Copy<MemoryStore> {
    Copy::open(MemoryStore::new(id(incarnation)), SMALL).expect("memory")
}

/// Writes one batch and commits it.
pub(super) fn run(copy: &mut Copy<MemoryStore>, writes: Vec<Write>) -> Vec<WriteAnswer> {
    let answers = copy.write(writes).expect("memory");
    copy.commit().expect("memory");
    answers
}

/// An answer as one line: outcome, sequence, version and document.
pub(super) fn line(answer: &WriteAnswer) -> String {
    let user =
        answer.user.as_ref().map_or(String::new(), |found| format!(" v{} {}", found.0.0, found.1.get()));
    format!("{:?} {}{user}", answer.outcome, answer.sequence)
}

pub(super) fn lines(answers: &[WriteAnswer]) -> Vec<String> {
    answers.iter().map(line).collect()
}

pub(super) fn outcomes(answers: &[WriteAnswer]) -> Vec<Outcome> {
    answers.iter().map(|answer| answer.outcome).collect()
}

pub(super) fn document(user: u128, name: &str, email: &str, group: i32) -> String {
    format!(r#"{{"id":"{}","name":"{name}","email":"{email}","group":{group}}}"#, id(user))
}

pub(super) fn log(copy: &Copy<MemoryStore>, after: u64) -> Vec<LogEntry> {
    copy.store().log_after(after, usize::MAX).expect("memory").expect("an op-log that reaches back")
}

pub(super) fn records(copy: &Copy<MemoryStore>) -> Vec<(UserId, Record)> {
    let snapshot = copy.store().snapshot().expect("memory");
    snapshot.records().map(|record| record.expect("memory")).collect()
}

pub(super) fn batch(source: &Copy<MemoryStore>, after: u64) -> LogBatch {
    LogBatch { incarnation: source.meta().incarnation, lsn: source.flushed(), entries: log(source, after) }
}

/// Copies everything and returns how many chunks it took.
pub(super) fn fill(target: &mut Copy<MemoryStore>, source: &Copy<MemoryStore>) -> u64 {
    let mut chunks = Vec::new();
    full_copy(&source.store().snapshot().expect("memory"), SMALL.recent, |chunk| {
        chunks.push(chunk);
        ControlFlow::Continue(())
    })
    .expect("memory");
    let count = chunks.len() as u64;
    for chunk in chunks {
        target.merge_chunk(chunk).expect("memory");
        target.commit().expect("memory");
    }
    count
}

pub(super) fn position(incarnation: u128, sequence: u64) -> Position {
    Position { incarnation: id(incarnation), sequence }
}
