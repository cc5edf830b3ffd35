//! A copy at work: the thread that owns it, and the handle by which everything else reaches it.
//!
//! Whatever changes the copy is a job in the queue of its thread (see [`thread`]) and is answered by calling
//! a closure on that thread, which should do no more than pass the answer on. Reading does not wait for the
//! thread: it goes straight to the database, on the thread that asks, and sees what the last finished round
//! left.
//!
//! When the database fails, the copy is **poisoned**: [`CopyFailure`] is sent once, and from then on nothing
//! is answered, neither writes, whose closures are dropped uncalled, nor reads, which are errors. There is no
//! way back but a restart.
//!
//! What it does not do: it does not bound its queue. The senders wait for answers before they send
//! more.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{JoinHandle, yield_now};

use protocol::message::MAX_BATCH;
use protocol::message::link::{CopyReport, FlushPoint, Found, Position, Role, Versioned, Write, WriteAnswer};
use protocol::message::query::{
    ChangesAnswer, ChangesQuery, CountAnswer, CountQuery, Damage, DigestAnswer, DigestQuery, PageAnswer,
    PageQuery, TombstoneAnswer, TombstoneQuery,
};
use protocol::message::replication::{CopyChunk, LogBatch, LogEntry};
use protocol::{Record, UserId, Version};
use tokio::sync::mpsc::{Sender, UnboundedSender};
use tokio::sync::watch;
use uuid::Uuid;

use crate::background::{Helpers, spawn};
use crate::copy::audit::audit;
use crate::copy::{Limits, asking, document, follow, rollback};
use crate::store::{DatabaseUsage, Meta, RocksReader, RocksStore, StoreError};

mod erase;
mod mark;
pub mod rounds;
mod thread;

pub use rounds::{CopyState, Job};

use erase::Erasing;
use mark::MarkFile;
use rounds::{Confirmed, Rounds};
use thread::Worker;

/// Sent once when the database of a copy fails.
#[derive(Debug, Clone)]
pub struct CopyFailure {
    /// Which copy.
    pub role: Role,
    /// What happened.
    pub error: StoreError,
}

/// One copy at work. Cheap to clone; the database closes when the last handle is dropped.
#[derive(Clone)]
pub struct CopyHandle {
    shared: Arc<Shared>,
}

struct Shared {
    role: Role,
    store: RocksReader,
    jobs: mpsc::Sender<Option<Job>>,
    state: watch::Receiver<CopyState>,
    poison: Arc<Poison>,
    confirmed: Arc<Mutex<Confirmed>>,
    /// The highest version of all that was ever queued.
    received: AtomicU64,
    /// Whether the log says that a record could not be read when tombstones were looked for.
    unreadable: AtomicBool,
    /// Taken when the copy is stopped.
    thread: Mutex<Option<JoinHandle<()>>>,
    /// What is left to erase.
    erasing: Mutex<Erasing>,
    /// It is to end, and with it what takes long.
    stopping: AtomicBool,
    /// Threads that read for a neighbour, or erase.
    helpers: Helpers,
}

/// Whether the database of the copy has failed.
struct Poison {
    role: Role,
    poisoned: AtomicBool,
    failed: UnboundedSender<CopyFailure>,
}

impl Poison {
    fn check(&self) -> Result<(), StoreError> {
        if self.poisoned.load(Ordering::Acquire) { Err(StoreError::Poisoned) } else { Ok(()) }
    }

    /// The database has failed. The first time, that is sent to the process.
    fn set(&self, error: &StoreError) {
        if !self.poisoned.swap(true, Ordering::AcqRel) {
            // The receiver is gone when the process is ending.
            let _ = self.failed.send(CopyFailure { role: self.role, error: error.clone() });
        }
    }

    /// Runs something on the database, unless it failed before.
    fn run<T>(&self, operation: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.check()?;
        operation().inspect_err(|error| self.set(error))
    }
}

/// Opens the copy in that database and starts its thread. `mark` is the file beside the database that
/// remembers how much of it was on disk: a copy that has less now was rolled back.
///
/// # Errors
/// If the database or the file cannot be read or written, or no thread can be started.
pub fn start(
    role: Role,
    store: RocksStore,
    mark: &Path,
    failed: UnboundedSender<CopyFailure>,
) -> Result<CopyHandle, StoreError> {
    let (mark, marked) = MarkFile::open(mark).map_err(|error| StoreError::file(mark, &error))?;
    let reader = store.reader();
    let (rounds, version) = Rounds::open(role, store, Limits::default(), marked)?;
    let poison = Arc::new(Poison { role, poisoned: AtomicBool::new(false), failed });
    let (jobs, queue) = mpsc::channel();
    let (sender, state) = watch::channel(rounds.state());
    let confirmed = Arc::default();
    let worker = Worker {
        rounds,
        queue,
        state: sender,
        poison: Arc::clone(&poison),
        confirmed: Arc::clone(&confirmed),
        mark,
        stopping: false,
    };
    let thread =
        spawn(format!("copy-{}", role.as_str()), move || worker.run()).map_err(StoreError::no_thread)?;
    Ok(CopyHandle {
        shared: Arc::new(Shared {
            role,
            store: reader,
            jobs,
            state,
            poison,
            confirmed,
            received: AtomicU64::new(version.0),
            unreadable: AtomicBool::new(false),
            thread: Mutex::new(Some(thread)),
            erasing: Mutex::default(),
            stopping: AtomicBool::new(false),
            helpers: Helpers::default(),
        }),
    })
}

impl CopyHandle {
    /// Which of the two copies of the process it is.
    pub fn role(&self) -> Role {
        self.shared.role
    }

    /// Looks a live user up.
    ///
    /// # Errors
    /// If the database fails, now or before.
    pub fn read(&self, id: &UserId) -> Result<Option<Found>, StoreError> {
        let record = self.shared.poison.run(|| self.shared.store.get(id))?;
        Ok(record.and_then(|record| document::live(*id, record)))
    }

    /// Looks several users up, in their order.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub fn read_many(&self, ids: &[UserId]) -> Result<Vec<Option<Found>>, StoreError> {
        let records = self.shared.poison.run(|| self.shared.store.get_many(ids))?;
        let found = |(id, record): (&UserId, Option<Record>)| document::live(*id, record?);
        Ok(ids.iter().zip(records).map(found).collect())
    }

    /// Decides writes. `done` gets the answers when what they rest on is on disk, and the LSN of the last
    /// commit there.
    pub fn write(&self, writes: Vec<Write>, done: impl FnOnce(Vec<WriteAnswer>, u64) + Send + 'static) {
        self.send(Job::Write { writes, done: Box::new(done) });
    }

    /// Merges changes that the other copy accepted, of whose disk `other` is known. `done` is called when
    /// they are on disk, with the LSN of the last commit there.
    pub fn merge(
        &self,
        changes: Vec<Versioned>,
        other: Option<FlushPoint>,
        done: impl FnOnce(u64) + Send + 'static,
    ) {
        self.send(Job::Merge { changes, other, done: Box::new(done) });
    }

    /// Applies entries of the other copy's op-log. They are readable soon and on disk a little later; both
    /// shows in the state, and so does a batch that does not join on.
    pub fn apply(&self, batch: LogBatch) {
        self.send(Job::Apply(batch));
    }

    /// Merges part of a full copy. With `end`, the last part, `done` is called when all of it is on disk.
    pub fn merge_chunk(&self, chunk: CopyChunk, done: impl FnOnce() + Send + 'static) {
        self.send(Job::Chunk { chunk, done: Box::new(|_| done()) });
    }

    /// The other copy has the op-log of that incarnation on disk up to here, and that much of its own
    /// database. It is not worth waking the thread: it sees to it when it next writes.
    pub fn trim(&self, incarnation: Uuid, upto: u64, other: Option<FlushPoint>) {
        let mut confirmed = self.shared.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        confirmed.advance(incarnation, upto, other);
    }

    /// The state after each round; the latest value counts.
    pub fn state(&self) -> watch::Receiver<CopyState> {
        self.shared.state.clone()
    }

    /// The state as of now, with the version of what is still queued: that will be in the copy in a moment,
    /// and no other write may get a version below it.
    pub fn report(&self) -> CopyReport {
        let received = Version(self.shared.received.load(Ordering::Relaxed));
        let report = self.shared.state.borrow().report;
        CopyReport { version: report.version.max(received), ..report }
    }

    /// Compares the copy with what is known of its disk, and with how far the other copy has followed it.
    /// Where it has less, it is [marked](Job::MarkRolledBack). Returns whether it is sound.
    ///
    /// # Errors
    /// If the database fails, now or before.
    pub fn compare(
        &self,
        flushed: Option<FlushPoint>,
        followed: Option<Position>,
    ) -> Result<bool, StoreError> {
        let meta = self.meta()?;
        let lost = rollback::lost(&meta, flushed, followed);
        lost.into_iter().for_each(|rollback| self.send(Job::MarkRolledBack(rollback)));
        // It may have been found out a moment ago, by the other copy.
        Ok(lost.or(meta.rollback).is_none())
    }

    /// Committed state of the copy.
    ///
    /// # Errors
    /// If the database fails, now or before.
    pub fn meta(&self) -> Result<Meta, StoreError> {
        self.shared.poison.run(|| self.shared.store.meta())
    }

    /// What its database takes of disk and memory.
    ///
    /// # Errors
    /// If the database fails, now or before.
    pub fn database_usage(&self) -> Result<DatabaseUsage, StoreError> {
        self.shared.poison.run(|| self.shared.store.usage())
    }

    /// Entries of the own op-log after `sequence`, as many as fit into one frame: none at the head. `None`
    /// where the op-log no longer reaches back that far. All of them are on disk.
    ///
    /// # Errors
    /// If the database fails, now or before.
    pub fn log_after(&self, sequence: u64) -> Result<Option<Vec<LogEntry>>, StoreError> {
        let mut entries = self.shared.poison.run(|| self.shared.store.log_after(sequence, MAX_BATCH))?;
        if let Some(entries) = &mut entries {
            follow::fit_frame(entries);
        }
        Ok(entries)
    }

    /// Live users in id order. It takes milliseconds.
    ///
    /// # Errors
    /// If the database fails, now or before.
    pub fn page(&self, query: &PageQuery) -> Result<PageAnswer, StoreError> {
        self.shared.poison.run(|| asking::page(&self.shared.store.snapshot()?, query))
    }

    /// How many live users there are: no more than a look, at what is stored and at what is about to be.
    ///
    /// # Errors
    /// If the database fails, now or before.
    pub fn count(&self, query: &CountQuery) -> Result<CountAnswer, StoreError> {
        let store = &self.shared.store;
        let count = self.shared.poison.run(|| match query.group {
            Some(group) => store.group_count(group),
            None => Ok(store.meta()?.users),
        })?;
        Ok(CountAnswer { query: query.query, count })
    }

    /// Changes from the op-log, all of them on disk. It takes milliseconds.
    ///
    /// # Errors
    /// If the database fails, now or before.
    pub fn changes(&self, query: &ChangesQuery) -> Result<ChangesAnswer, StoreError> {
        self.shared.poison.run(|| asking::changes(&self.shared.store.snapshot()?, query))
    }

    /// Tombstones among the next records. It takes milliseconds. No client asked for those records, so if
    /// one of them cannot be read there are no tombstones, and the copy is not poisoned, as with a scan.
    ///
    /// # Errors
    /// If the database failed before.
    pub fn tombstones(&self, query: &TombstoneQuery) -> Result<TombstoneAnswer, StoreError> {
        let Shared { store, poison, role, .. } = &*self.shared;
        poison.check()?;
        let found = store.snapshot().and_then(|snapshot| asking::tombstones(&snapshot, query));
        Ok(found.unwrap_or_else(|error| {
            if !self.shared.unreadable.swap(true, Ordering::Relaxed) {
                let role = role.as_str();
                tracing::warn!(
                    role, %error,
                    "deleted users are not forgotten: `corro check --scan` tells more"
                );
            }
            let CopyReport { incarnation, head, .. } = self.report();
            TombstoneAnswer { query: query.query, tombstones: Vec::new(), next: None, incarnation, head }
        }))
    }

    /// What the copy holds, in short. A scan reads everything, which takes seconds for a million users. What
    /// it cannot read it reports as damage; the copy is not poisoned by that.
    ///
    /// # Errors
    /// If the database failed before, or fails without a scan.
    pub fn digests(&self, query: &DigestQuery) -> Result<DigestAnswer, StoreError> {
        let (store, poison) = (&self.shared.store, &self.shared.poison);
        if !query.scan {
            return poison.run(|| asking::digests(&store.snapshot()?, query.query));
        }
        poison.check()?;
        let scanned = store.snapshot().and_then(|snapshot| {
            let damage = audit(&snapshot);
            Ok(DigestAnswer { damage, ..asking::digests(&snapshot, query.query)? })
        });
        Ok(scanned.unwrap_or_else(|error| {
            let CopyReport { incarnation, head, position, .. } = self.report();
            let damage = vec![Damage::Unreadable(error.to_string())];
            let (query, digests) = (query.query, Vec::new());
            DigestAnswer { query, incarnation, head, position, users: 0, records: 0, digests, damage }
        }))
    }

    /// Sends what `make` makes of everything as of now, in chunks of much less than a frame, the last one
    /// with the position. It is done by a [helper](Self::help), waits where the channel is full, and ends
    /// when the receiver is dropped. A channel that closes without a last chunk means that the database
    /// failed.
    pub fn full_copy<T: Send + 'static>(
        &self,
        make: impl Fn(CopyChunk) -> T + Send + 'static,
        chunks: Sender<T>,
    ) {
        let store = self.shared.store.clone();
        self.read_for_a_neighbour("full-copy", move || {
            let snapshot = store.snapshot()?;
            // What is copied has to last here as well: the follower will be taken to have nothing that this
            // copy lacks.
            store.sync()?;
            let recent = Limits::default().recent;
            follow::full_copy(&snapshot, recent, |chunk| send_on(&chunks, make(chunk)))
        });
    }

    /// Sends what `make` makes of the own op-log after that entry, as it is now, a frame at a time, in the
    /// same way. A channel that closes before anything was sent means that the op-log no longer reaches back
    /// that far, or that the database failed.
    pub fn log_to_head<T: Send + 'static>(
        &self,
        after: u64,
        make: impl Fn(Vec<LogEntry>) -> T + Send + 'static,
        frames: Sender<T>,
    ) {
        let store = self.shared.store.clone();
        self.read_for_a_neighbour("op-log", move || {
            follow::log_to_head(&store.snapshot()?, after, |entries| send_on(&frames, make(entries)))
        });
    }

    fn read_for_a_neighbour(
        &self,
        what: &'static str,
        read: impl FnOnce() -> Result<(), StoreError> + Send + 'static,
    ) {
        let poison = Arc::clone(&self.shared.poison);
        // An error is reported where the copy is poisoned.
        let started = self.help(what, move || drop(poison.run(read)));
        if let Err(error) = started {
            let role = self.shared.role.as_str();
            tracing::warn!(role, %error, "no thread reads the {what} for a neighbour");
        }
    }

    /// Merges what earlier starts have left in small tables, on a thread of its own.
    pub fn merge_small_tables(&self) {
        let (store, poison) = (self.shared.store.clone(), Arc::clone(&self.shared.poison));
        // An error is reported where the copy is poisoned.
        if let Err(error) = self.help("merge", move || drop(poison.run(|| store.merge_small_tables()))) {
            tracing::warn!(role = self.shared.role.as_str(), %error, "small tables are not merged");
        }
    }

    /// Does that on a thread of its own with [background priority](crate::background), which has to end
    /// before the copy is stopped.
    ///
    /// # Errors
    /// If the system has no thread.
    pub(crate) fn help(&self, what: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.shared.helpers.start(format!("{what}-{}", self.shared.role.as_str()), work)
    }

    /// Finishes what is queued, writes everything out and ends the thread. Blocks until then, and until the
    /// threads have ended that read for a neighbour, which they do when their receiver is gone. What is sent
    /// afterwards is never answered.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        let _ = self.shared.jobs.send(None);
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let ended = thread.is_none_or(|thread| thread.join().is_ok());
        // All is on disk. What is under way in the background need not come to an end.
        self.shared.store.cancel_background_work();
        if !(self.shared.helpers.join() && ended) {
            tracing::error!(role = self.shared.role.as_str(), "a thread of the copy panicked");
        }
    }

    /// Queues something to do. Where it is completed, it is when what the [`Job`] promises holds.
    pub fn send(&self, job: Job) {
        self.shared.received.fetch_max(job.version().0, Ordering::Relaxed);
        // The thread has ended if the copy failed or was stopped.
        let _ = self.shared.jobs.send(Some(job));
    }
}

/// Sends that once there is room, and goes on unless the receiver is gone.
fn send_on<T>(to: &Sender<T>, what: T) -> ControlFlow<()> {
    let sent = to.blocking_send(what);
    yield_now();
    if sent.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}
