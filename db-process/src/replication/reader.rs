//! Reads what a follower is sent, and hands it to its copy.
//!
//! A copy that is **behind** is sent messages of hundreds of entries or records, one after the other, and to read one takes a
//! millisecond. Then a thread of its own reads them, which gives way to whoever answers callers ([`crate::background`]). The
//! window of the other side sees to it that no more than a few wait. A copy that has caught up is sent a few entries at a time, which
//! should be readable soon: they are read where they arrive. The first message that is not full says that it has.

use std::io;
use std::sync::mpsc;

use protocol::message::replication::{ChunkMerged, CopyChunk, LogBatch};
use protocol::message::{MAX_BATCH, Message};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use uuid::Uuid;

use crate::background::let_others_go_first;
use crate::link::Frame;
use crate::worker::CopyHandle;

/// What came of a message.
#[derive(Debug)]
pub(super) enum Read {
    /// Part of the op-log is queued at the copy.
    Log {
        /// Of the copy whose op-log it is.
        source: Uuid,
        /// How many entries there were.
        entries: usize,
    },
    /// A part of a full copy is merged, and the last one is on disk.
    Merged {
        /// What the other side waits for.
        answer: ChunkMerged,
        /// Whether it was the last one.
        last: bool,
        /// Whether it was the last one of a copy that had anything.
        filled: bool,
    },
    /// It is no message.
    Nonsense,
}

/// A message of no more bytes has a few entries, or none and says that the other side is there.
const SHORT: usize = 1 << 10;

/// Reads for one connection. The thread ends with it.
pub(super) struct Reader {
    copy: CopyHandle,
    reads: UnboundedSender<Read>,
    behind: bool,
    /// To the thread, while the copy is behind.
    backlog: Option<mpsc::Sender<Frame>>,
    /// So many messages are with the thread.
    unread: usize,
}

impl Reader {
    /// For a connection that was just opened, on which the copy may be behind; and where what the thread read is told.
    pub(super) fn new(copy: CopyHandle) -> (Self, UnboundedReceiver<Read>) {
        let (reads, receiver) = unbounded_channel();
        (Self { copy, reads, behind: true, backlog: None, unread: 0 }, receiver)
    }

    /// Reads part of an op-log or of a full copy, now or in a while.
    ///
    /// # Errors
    /// If the system has no thread.
    pub(super) fn take(&mut self, frame: Frame) -> io::Result<Option<Read>> {
        self.behind |= frame.event == CopyChunk::EVENT;
        // Nothing may overtake what is with the thread.
        if !self.behind || (self.unread == 0 && frame.text.len() <= SHORT) {
            return Ok(read(&self.copy, &frame, &self.reads));
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

    /// Takes note of what the thread told.
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
                    // Nobody wants to know any more where the connection is over.
                    let _ = reads.send(read);
                }
                let_others_go_first();
            }
        })?;
        Ok(backlog)
    }
}

/// Hands a message to the copy. What comes of a part of a full copy is told later.
fn read(copy: &CopyHandle, frame: &Frame, reads: &UnboundedSender<Read>) -> Option<Read> {
    if frame.event == LogBatch::EVENT {
        let Ok(batch) = LogBatch::decode(&frame.text) else { return Some(Read::Nonsense) };
        let (source, entries) = (batch.incarnation, batch.entries.len());
        if entries > 0 {
            copy.apply(batch);
        }
        return Some(Read::Log { source, entries });
    }
    let Ok(received) = CopyChunk::decode(&frame.text) else { return Some(Read::Nonsense) };
    let (chunk, last) = (received.chunk, received.end.is_some());
    let filled = last && (chunk > 0 || !received.records.is_empty());
    let reads = reads.clone();
    copy.merge_chunk(received, move || {
        drop(reads.send(Read::Merged { answer: ChunkMerged { chunk }, last, filled }));
    });
    None
}
