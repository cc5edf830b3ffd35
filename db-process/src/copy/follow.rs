//! Following the other copy, and being followed by it.

use std::mem;
use std::ops::ControlFlow;

use protocol::Record;
use protocol::message::link::{FlushPoint, Position};
use protocol::message::packed::text_length;
use protocol::message::replication::{CopyChunk, Follow, LogBatch, LogEntry};
use protocol::message::{MAX_BATCH, MAX_FRAME_BYTES};
use protocol::mutation::{self, Mutation};
use thiserror::Error;
use uuid::Uuid;

use super::{Copy, recent};
use crate::store::{Meta, Origin, Snapshot, Store, StoreError};

/// From where a copy is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FollowStart {
    /// Send the op-log after this entry.
    Log {
        /// Sequence of the last entry that the follower has.
        after: u64,
    },
    /// The follower has everything up to `end`, though under no position in this op-log: this copy was filled
    /// from it. Send a single [`CopyChunk`] without records and with this end, which gives it the position;
    /// then the op-log.
    Adopt {
        /// The position to give.
        end: Position,
    },
    /// Send everything, then the op-log.
    FullCopy,
}

/// Entries do not join on to what the copy has. It has to ask again from its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("entry {sequence} of the op-log of {incarnation} does not follow on {position:?}")]
pub struct Gap {
    /// Whose op-log the entry is from.
    pub incarnation: Uuid,
    /// The entry.
    pub sequence: u64,
    /// What the copy has.
    pub position: Option<Position>,
}

/// Why entries of the other copy's op-log were not applied.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FollowError {
    /// They do not join on. What came before the gap is staged, the copy is sound.
    #[error(transparent)]
    Gap(#[from] Gap),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<S: Store> Copy<S> {
    /// Stages entries of the other copy's op-log, and the position after them. Nothing is promised:
    /// after a crash they come again.
    ///
    /// # Errors
    /// If there is a gap, or the database cannot be read.
    pub fn apply(&mut self, batch: LogBatch) -> Result<(), FollowError> {
        let ids: Vec<_> = batch.entries.iter().map(|entry| entry.id).collect();
        let stored = self.store.get_many(&ids)?;
        let source = FlushPoint { incarnation: batch.incarnation, lsn: batch.lsn };
        for (LogEntry { sequence, version, id, change }, stored) in batch.entries.into_iter().zip(stored) {
            let position = self.staged.meta.position;
            let followed = position.filter(|position| position.incarnation == batch.incarnation);
            match followed {
                Some(position) if sequence <= position.sequence => continue,
                Some(position) if sequence == position.sequence + 1 => {}
                _ => {
                    return Err(Gap { incarnation: batch.incarnation, sequence, position }.into());
                }
            }
            if change.purge.is_none() || !mutation::is(Mutation::PurgeNotFollowed) {
                let before = self.with_staged(&id, stored);
                self.put_change(id, before, version, &change, None)?;
            }
            self.staged.meta.position = Some(Position { incarnation: batch.incarnation, sequence });
            FlushPoint::advance(&mut self.staged.meta.other, source);
            self.dirty = true;
        }
        Ok(())
    }

    /// Stages part of a full copy. With `end`, its last part, the copy counts as complete and goes on from
    /// there, which will be on disk after the next commit.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn merge_chunk(&mut self, chunk: CopyChunk) -> Result<(), StoreError> {
        let CopyChunk { records, applied, end, lsn, .. } = chunk;
        let ids: Vec<_> = records.iter().map(|(id, _)| *id).collect();
        let stored = self.store.get_many(&ids)?;
        for ((id, theirs), stored) in records.into_iter().zip(stored) {
            let before = self.with_staged(&id, stored);
            if before.as_ref() == Some(&theirs) {
                continue;
            }
            // Some of it may have come by the own op-log, which cannot be distinguished.
            self.came_from_elsewhere(theirs.version());
            let mut merged = before.clone();
            if merged.as_mut().is_none_or(|ours| ours.merge(&theirs)) {
                self.put(id, before.as_ref(), merged.unwrap_or(theirs).into())?;
            }
        }
        for version in applied {
            self.remember_applied(version, None);
        }
        if let Some(end) = end {
            let meta = &mut self.staged.meta;
            if !meta.complete {
                meta.complete = true;
                meta.origin = Some(Origin { source: end.incarnation, head: meta.head });
                // What an earlier database at this place accepted is in the records, and in no op-log here.
                meta.floor = meta.version;
            }
            meta.position = Some(end);
            FlushPoint::advance(&mut meta.other, FlushPoint { incarnation: end.incarnation, lsn });
            self.dirty = true;
            self.promised = true;
        }
        Ok(())
    }
}

/// From where the follower that asks is to be served by a copy in that state.
pub fn start_for(meta: &Meta, follow: &Follow) -> FollowStart {
    let own = follow.position.filter(|position| position.incarnation == meta.incarnation);
    if let Some(Position { sequence, .. }) = own
        && meta.log_reaches(sequence)
    {
        return FollowStart::Log { after: sequence };
    }
    match meta.origin {
        Some(Origin { source, head }) if source == follow.incarnation && meta.log_reaches(head) => {
            FollowStart::Adopt { end: Position { incarnation: meta.incarnation, sequence: head } }
        }
        _ => FollowStart::FullCopy,
    }
}

/// Cuts a snapshot, all of which is on disk, into the chunks of a full copy, none larger than a sixteenth of
/// a frame, for as long as `send` goes on. Behind the records come the last operations that made them, at
/// most `recent`.
///
/// # Errors
/// If the database cannot be read.
pub fn full_copy(
    snapshot: &impl Snapshot,
    recent: usize,
    mut send: impl FnMut(CopyChunk) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let Meta { incarnation, head: sequence, lsn, .. } = snapshot.meta();
    let mut cut = Cut::default();
    for item in snapshot.records() {
        let (id, record) = item?;
        if cut.is_full_with(record_size(&record)) && send(cut.take()).is_break() {
            return Ok(());
        }
        cut.next.records.push((id, record));
    }
    for version in recent::read(snapshot, recent)?.0.versions() {
        if cut.is_full_with(VERSION_SIZE) && send(cut.take()).is_break() {
            return Ok(());
        }
        cut.next.applied.push(version);
    }
    // Nothing is left to do if the receiver is gone.
    let _ = send(CopyChunk { end: Some(Position { incarnation, sequence }), lsn, ..cut.next });
    Ok(())
}

/// Cuts the op-log behind `after` as it is in a snapshot into frames, for as long as `send` goes on: none
/// where it does not reach back that far. What does not fill a frame any more is left.
///
/// # Errors
/// If the database cannot be read.
pub fn log_to_head(
    snapshot: &impl Snapshot,
    after: u64,
    mut send: impl FnMut(Vec<LogEntry>) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    if !snapshot.meta().log_reaches(after) {
        return Ok(());
    }
    let (mut frame, mut size) = (Vec::new(), 0);
    for entry in snapshot.log(after) {
        let entry = entry?;
        size += entry_size(&entry);
        if size > ROOM && !frame.is_empty() {
            size = entry_size(&entry);
            if send(mem::take(&mut frame)).is_break() {
                return Ok(());
            }
        }
        frame.push(entry);
        if frame.len() == FAR_BATCH {
            size = 0;
            if send(mem::take(&mut frame)).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The chunk of a full copy that is being filled.
#[derive(Default)]
struct Cut {
    next: CopyChunk,
    size: usize,
}

impl Cut {
    /// Counts on something of that size. Returns whether the chunk has to leave first.
    fn is_full_with(&mut self, size: usize) -> bool {
        let full = self.size > 0 && self.size + size > CHUNK;
        self.size = if full { size } else { self.size + size };
        full
    }

    /// The chunk as it is; the next one begins.
    fn take(&mut self) -> CopyChunk {
        let chunk = self.next.chunk + 1;
        mem::replace(&mut self.next, CopyChunk { chunk, ..CopyChunk::default() })
    }
}

/// Cuts entries off that would not fit into one frame. One always stays, so that there is progress.
pub fn fit_frame(entries: &mut Vec<LogEntry>) {
    let mut size = 0;
    let fitting = entries.iter().take_while(|entry| {
        size += entry_size(entry);
        size <= ROOM
    });
    let count = fitting.count().max(1);
    entries.truncate(count);
}

/// So many entries travel in one frame to a follower that is far behind.
pub(super) const FAR_BATCH: usize = 2 * MAX_BATCH;

/// What a chunk of a full copy holds: so little that no request waits for it noticeably, so much that
/// there are not too many.
const CHUNK: usize = ROOM / 16;

/// What a frame holds beside the envelope.
pub(super) const ROOM: usize = MAX_FRAME_BYTES - 1_024;

/// No less than the size of a version as JSON, with a comma.
const VERSION_SIZE: usize = 21;

/// No less than the size of the record and its id in a message.
fn record_size(record: &Record) -> usize {
    text_length(86 + record.name.1.len() + record.email.1.len())
}

/// No less than the size of the entry in a message.
fn entry_size(entry: &LogEntry) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    text_length(70 + text(&entry.change.name) + text(&entry.change.email))
}

#[cfg(test)]
mod tests {
    use protocol::message::Message;
    use protocol::{Change, Fingerprint, Version};

    use super::*;

    #[test]
    fn sizes_are_never_underestimated() {
        let worst = Change {
            alive: Some(false),
            name: Some("\u{1f}".repeat(256)),
            email: Some("\"".repeat(254)),
            group: Some(i32::MIN),
            request: Some(Fingerprint { key: 1, body: 2 }),
            purge: Some(Version(3)),
        };
        let (incarnation, sequence, version) = (Uuid::nil(), u64::MAX, Version(u64::MAX));
        let mut record = Record::from_change(Version(4), &worst);
        record.apply(Version(5), &Change { name: worst.name.clone(), ..Change::default() });
        record.apply(Version(6), &Change { email: worst.email.clone(), ..Change::default() });
        record.apply(Version(7), &Change { group: worst.group, ..Change::default() });
        let chunk = |records| CopyChunk { records, ..CopyChunk::default() }.encode().len();
        let size = chunk(vec![(Uuid::max(), record.clone()); 9]) - chunk(Vec::new());
        assert!((9 * record_size(&record) - 90..=9 * record_size(&record)).contains(&size), "{size} bytes");

        let entry = LogEntry { sequence, version, id: Uuid::max(), change: worst };
        let batch = |entries| LogBatch { incarnation, lsn: u64::MAX, entries }.encode().len();
        let size = batch(vec![entry.clone(); 9]) - batch(Vec::new());
        assert!((9 * entry_size(&entry) - 90..=9 * entry_size(&entry)).contains(&size), "{size} bytes");

        let mut entries = vec![entry; 3_000];
        fit_frame(&mut entries);
        let size = batch(entries.clone());
        assert!((1_000..3_000).contains(&entries.len()) && size < MAX_FRAME_BYTES, "{size} bytes");
        entries[0].change.name = Some("n".repeat(MAX_FRAME_BYTES));
        fit_frame(&mut entries);
        assert_eq!(entries.len(), 1, "an entry that is too large alone goes alone");
    }
}
