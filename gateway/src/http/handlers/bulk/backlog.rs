//! The results that the caller has not read yet, and the body that reads them.
//!
//! A result that is done takes 26 bytes here, a quarter of its text, which is made when it is read. They lie in blocks, which
//! are taken from one budget for all bulk requests of the gateway.

use std::collections::VecDeque;
use std::io::Write;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use axum::body::{Bytes, HttpBody};
use hyper::body::Frame;
use protocol::{UserId, Version};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::place::Streams;
use super::window::Verdict;
use crate::http::input::etag::hexadecimal;

/// Size of a block.
const BLOCK: usize = 64 << 10;

/// What all backlogs together may hold; more than a million results.
const MAX_WAITING: usize = 32 << 20;

/// So many blocks every request may have, whatever the others hold.
const OWN_BLOCKS: usize = 2;

/// Text handed to the connection at once.
const PORTION: usize = 32 << 10;

/// How a result begins that is done: then its status less 200, the id, and the version, 0 where there is none.
const DONE: u8 = 1;
/// A text: then its length, 4 bytes.
const TEXT: u8 = 2;
/// Lines without anything in them: then how many, 8 bytes.
const SKIPPED: u8 = 3;

/// The results wait here for whoever reads them.
pub(super) fn channel(streams: Arc<Streams>) -> (Backlog, Results) {
    let shared = Arc::new(Shared {
        streams,
        state: Mutex::default(),
        read: Notify::new(),
        abandoned: CancellationToken::new(),
    });
    (Backlog { shared: Arc::clone(&shared), line: 0 }, Results { shared, line: 0 })
}

#[derive(Debug)]
struct Shared {
    streams: Arc<Streams>,
    state: Mutex<State>,
    /// Something was read while it was waited for.
    read: Notify,
    /// Nobody will read any more.
    abandoned: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    /// Only the last one is written to; a result lies in one of them. The first is read.
    blocks: VecDeque<Vec<u8>>,
    /// How much of the first block was read.
    start: usize,
    reader: Option<Waker>,
    finished: bool,
    /// What was not read in time was thrown away.
    broken: bool,
    /// Counts up with every portion read.
    portions: u64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it has the state; if it did, the process would end.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let left = self.state().blocks.len() * BLOCK;
        self.streams.waiting.fetch_sub(left, Ordering::Relaxed);
    }
}

/// The end at which results come in, in the order of their lines.
#[derive(Debug)]
pub(super) struct Backlog {
    shared: Arc<Shared>,
    /// Of the last result.
    line: u64,
}

impl Backlog {
    /// Whether there is room for more.
    pub(super) fn has_room(&self) -> bool {
        self.shared.streams.waiting.load(Ordering::Relaxed) < MAX_WAITING
            || self.shared.state().blocks.len() <= OWN_BLOCKS
    }

    /// How often something was read so far.
    pub(super) fn portions(&self) -> u64 {
        self.shared.state().portions
    }

    /// Waits until something is read.
    pub(super) async fn read(&self) {
        self.shared.read.notified().await;
    }

    /// Is cancelled when nobody will read any more.
    pub(super) fn abandoned(&self) -> CancellationToken {
        self.shared.abandoned.clone()
    }

    /// Adds results.
    pub(super) fn add(&mut self, results: impl Iterator<Item = (u64, Verdict)>) {
        let mut state = self.shared.state();
        let before = state.blocks.len();
        let mut any = false;
        for (line, verdict) in results {
            any = true;
            if line != self.line + 1 {
                let skipped = (line - self.line - 1).to_le_bytes();
                state.put(&[&[SKIPPED], &skipped]);
            }
            self.line = line;
            match verdict {
                Verdict::Done { status, id, version } => {
                    let version = version.unwrap_or(Version::ZERO).0.to_le_bytes();
                    state.put(&[&[DONE, (status.as_u16() - 200) as u8], id.as_bytes(), &version]);
                }
                Verdict::Problem(text) => state.put_text(&text),
            }
        }
        if any {
            self.added(state, before);
        }
    }

    /// Adds a last line that is about none of the lines.
    pub(super) fn add_last(&mut self, text: &[u8]) {
        let mut state = self.shared.state();
        let before = state.blocks.len();
        state.put_text(text);
        self.added(state, before);
    }

    fn added(&self, mut state: MutexGuard<'_, State>, blocks_before: usize) {
        let taken = (state.blocks.len() - blocks_before) * BLOCK;
        self.shared.streams.waiting.fetch_add(taken, Ordering::Relaxed);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// No more will come.
    pub(super) fn finish(&self) {
        let mut state = self.shared.state();
        state.finished = true;
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    /// Throws away what nobody reads; whoever tries after all finds the response broken off.
    pub(super) fn give_up(&self) {
        let mut state = self.shared.state();
        let left = std::mem::take(&mut state.blocks);
        (state.start, state.broken) = (0, true);
        self.shared.streams.waiting.fetch_sub(left.len() * BLOCK, Ordering::Relaxed);
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }
}

impl State {
    fn put(&mut self, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if self.blocks.back().is_none_or(|block| block.len() + length > BLOCK) {
            self.blocks.push_back(Vec::with_capacity(BLOCK.max(length)));
        }
        let block = self.blocks.back_mut().expect("there is one now");
        parts.iter().for_each(|part| block.extend_from_slice(part));
    }

    fn put_text(&mut self, text: &[u8]) {
        let length = u32::try_from(text.len()).expect("a problem with a line is short");
        self.put(&[&[TEXT], &length.to_le_bytes(), text]);
    }

    /// Takes one result and writes its text. Returns the number of its line; `None` where there is no result.
    fn take(&mut self, line: u64, text: &mut Vec<u8>, freed: &mut usize) -> Option<u64> {
        let block = self.blocks.front()?;
        let mut rest = &block[self.start..];
        let mut bytes = |count: usize| {
            let (taken, after) = rest.split_at(count);
            rest = after;
            taken
        };
        let line = match bytes(1)[0] {
            DONE => {
                let status = 200 + u16::from(bytes(1)[0]);
                let id = UserId::from_slice(bytes(16)).expect("16 bytes");
                write_done(text, line + 1, status, id, Version(number(bytes(8))));
                line + 1
            }
            TEXT => {
                let length = number(bytes(4)) as usize;
                text.extend_from_slice(bytes(length));
                line + 1
            }
            SKIPPED => line + number(bytes(8)),
            other => unreachable!("no result begins with {other}"),
        };
        self.start = block.len() - rest.len();
        if self.start == block.len() {
            self.start = 0;
            self.blocks.pop_front();
            *freed += BLOCK;
        }
        Some(line)
    }
}

/// Little endian, of up to 8 bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn write_done(text: &mut Vec<u8>, line: u64, status: u16, id: UserId, version: Version) {
    let mut buffer = [0; 36];
    let id: &str = id.hyphenated().encode_lower(&mut buffer);
    write!(text, r#"{{"line":{line},"status":{status},"id":"{id}""#).expect("a vector takes all");
    if version != Version::ZERO {
        text.extend_from_slice(br#","etag":"\""#);
        text.extend_from_slice(&hexadecimal(version.0));
        text.extend_from_slice(br#"\"""#);
    }
    text.extend_from_slice(b"}\n");
}

/// The end at which results are read: the body of the response.
#[derive(Debug)]
pub(super) struct Results {
    shared: Arc<Shared>,
    /// Of the last result.
    line: u64,
}

impl HttpBody for Results {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let mut state = this.shared.state();
        if state.broken {
            return Poll::Ready(Some(Err(std::io::ErrorKind::TimedOut.into())));
        }
        let (mut text, mut freed) = (Vec::new(), 0);
        while text.len() < PORTION
            && let Some(line) = state.take(this.line, &mut text, &mut freed)
        {
            this.line = line;
        }
        if text.is_empty() {
            if state.finished {
                return Poll::Ready(None);
            }
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        state.portions += 1;
        this.shared.streams.waiting.fetch_sub(freed, Ordering::Relaxed);
        drop(state);
        this.shared.read.notify_one();
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(text)))))
    }
}

impl Drop for Results {
    fn drop(&mut self) {
        self.shared.abandoned.cancel();
    }
}
