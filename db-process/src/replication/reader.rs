//! Decodes what a follower is sent, and queues it at its copy.
//!
//! A copy that is **behind** is sent messages of hundreds of entries or records, one after the other, and to
//! decode one takes a millisecond. Then a thread of its own decodes them, with background priority
//! ([`crate::background`]). The window of the source bounds how many wait. A copy that has caught up is sent
//! a few entries at a time, which should be readable soon: they are decoded where they arrive. The first
//! message that is not full says that it has caught up.

use std::io;
use std::sync::mpsc;
use std::thread::yield_now;

use protocol::message::replication::{ChunkMerged, CopyChunk, ToFollower};
use protocol::message::{MAX_BATCH, Message};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::follower_state::Read;
use crate::link::Frame;
use crate::worker::CopyHandle;

/// A message of no more bytes has a few entries, or none and says that the other side is there.
const SHORT: usize = 1 << 10;

/// Decodes for one connection. The thread ends with it.
pub(super) struct Reader {
    copy: CopyHandle,
    reads: UnboundedSender<Read>,
    behind: bool,
    /// To the thread, while the copy is behind.
    backlog: Option<mpsc::Sender<Frame>>,
    /// Messages whose [`Read`] is still to come.
    unread: usize,
}

impl Reader {
    /// For a connection that was just opened, on which the copy may be behind; and what comes of its messages
    /// later.
    pub(super) fn new(copy: CopyHandle) -> (Self, UnboundedReceiver<Read>) {
        let (reads, receiver) = unbounded_channel();
        (Self { copy, reads, behind: true, backlog: None, unread: 0 }, receiver)
    }

    /// Decodes part of an op-log or of a full copy, now or later.
    ///
    /// # Errors
    /// If the system has no thread.
    pub(super) fn take(&mut self, frame: Frame) -> io::Result<Option<Read>> {
        self.behind |= frame.event == CopyChunk::EVENT;
        // Nothing may overtake what is with the thread.
        if !self.behind || (self.unread == 0 && frame.text.len() <= SHORT) {
            let read = read(&self.copy, &frame, &self.reads);
            self.unread += usize::from(read.is_none());
            return Ok(read);
        }
        let backlog = match self.backlog.take() {
            Some(backlog) => backlog,
            None => self.start()?,
        };
        // The thread is there as long as this is.
        let _ = backlog.send(frame);
        self.backlog = Some(backlog);
        self.unread += 1;
        Ok(None)
    }

    /// Takes note of what came later.
    pub(super) fn was_read(&mut self, read: &Read) {
        self.unread -= 1;
        if self.unread == 0 && matches!(read, Read::Log { entries: 1..MAX_BATCH, .. }) {
            self.behind = false;
            self.backlog = None;
        }
    }

    fn start(&self) -> io::Result<mpsc::Sender<Frame>> {
        let (copy, reads) = (self.copy.clone(), self.reads.clone());
        let (backlog, queue) = mpsc::channel::<Frame>();
        self.copy.help("behind", move || {
            // What is left of a connection that is over should not come between what the next one brings.
            for frame in queue.into_iter().take_while(|_| !reads.is_closed()) {
                if let Some(read) = read(&copy, &frame, &reads) {
                    // The receiver is gone if the connection is over.
                    let _ = reads.send(read);
                }
                yield_now();
            }
        })?;
        Ok(backlog)
    }
}

/// Queues a message at the copy. What comes of a part of a full copy is sent later.
fn read(copy: &CopyHandle, frame: &Frame, reads: &UnboundedSender<Read>) -> Option<Read> {
    match ToFollower::decode(&frame.event, &frame.text) {
        Ok(ToFollower::LogBatch(batch)) => {
            let (source, entries) = (batch.incarnation, batch.entries.len());
            if entries > 0 {
                copy.apply(batch);
            }
            Some(Read::Log { source, entries })
        }
        Ok(ToFollower::CopyChunk(received)) => {
            let (chunk, last) = (received.chunk, received.end.is_some());
            let filled = last && (chunk > 0 || !received.records.is_empty());
            let reads = reads.clone();
            copy.merge_chunk(received, move || {
                drop(reads.send(Read::Merged { answer: ChunkMerged { chunk }, last, filled }));
            });
            None
        }
        Ok(ToFollower::Declined(_)) | Err(_) => Some(Read::Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use protocol::message::link::{Position, Role};
    use protocol::message::replication::{LogBatch, LogEntry};
    use protocol::{Change, Version};

    use uuid::Uuid;

    use super::*;
    use crate::store::{BlockCache, RocksStore};
    use crate::worker;

    fn frame<M: Message>(message: &M) -> Frame {
        Frame { event: M::EVENT.to_owned(), text: message.encode() }
    }

    /// A copy that a full copy gave its position is sent a few entries more.
    #[tokio::test]
    async fn a_copy_that_is_not_behind_any_more_needs_no_thread() {
        let folder = tempfile::tempdir().unwrap();
        let store = RocksStore::open(&folder.path().join("replica"), &BlockCache::default()).unwrap();
        let mark = folder.path().join("replica.mark");
        let copy = worker::start(Role::Replica, store, &mark, unbounded_channel().0).unwrap();
        let (mut reader, mut reads) = Reader::new(copy.clone());

        let incarnation = Uuid::from_u128(1);
        let end = Some(Position { incarnation, sequence: 0 });
        assert!(reader.take(frame(&CopyChunk { end, ..CopyChunk::default() })).unwrap().is_none());
        let merged = reads.recv().await.unwrap();
        assert!(matches!(merged, Read::Merged { last: true, .. }), "{merged:?}");
        reader.was_read(&merged);
        assert_eq!((reader.unread, reader.behind), (0, true));

        let change = Change { alive: Some(true), ..Change::default() };
        let entry = |sequence| LogEntry {
            sequence,
            version: Version(sequence),
            id: Uuid::max(),
            change: change.clone(),
        };
        let batch = |range: std::ops::RangeInclusive<u64>| {
            frame(&LogBatch { incarnation, lsn: 1, entries: range.map(entry).collect() })
        };
        assert!(reader.take(batch(1..=100)).unwrap().is_none(), "the thread has it");
        assert!(reader.take(batch(101..=101)).unwrap().is_none(), "nothing overtakes it");
        for _ in 0..2 {
            reader.was_read(&reads.recv().await.unwrap());
        }
        assert_eq!((reader.unread, reader.behind, reader.backlog.is_none()), (0, false, true));
        assert!(matches!(reader.take(batch(102..=300)).unwrap(), Some(Read::Log { entries: 199, .. })));
        copy.stop();
        assert_eq!(copy.report().position.unwrap().sequence, 300);
    }
}
