//! A copy at work, as `db_process::worker` drives it: rounds of everything that is queued, one commit, then
//! the answers.

use std::collections::VecDeque;
use std::mem;

use db_process::copy::{Copy, FollowError, report};
use db_process::store::MemoryStore;
use gateway::routing::FromProcess;
use protocol::Version;
use protocol::message::link::{
    CopyReport, FlushPoint, Merged, Role, Rollback, Versioned, Write, WriteAnswers,
};
use protocol::message::replication::{CopyChunk, LogBatch};
use uuid::Uuid;

use crate::process::Todo;
use crate::world::{MILLI, Replicated, Towards, Up, World};

/// Something to do for a copy.
#[derive(Debug)]
pub(crate) enum Job {
    Write { connection: u64, batch: u64, writes: Vec<Write> },
    Merge { connection: u64, batch: u64, changes: Vec<Versioned>, other: Option<FlushPoint> },
    Apply(LogBatch),
    Chunk { stream: u64, chunk: CopyChunk },
    CountAsComplete,
    MarkRolledBack(Rollback),
    AcceptRollback(Uuid),
    Confirm(u64, FlushPoint),
}

impl Job {
    /// The highest version of what is in it.
    fn version(&self) -> Version {
        let versions: Vec<Version> = match self {
            Self::Write { writes, .. } => writes.iter().map(|write| write.version).collect(),
            Self::Merge { changes, .. } => changes.iter().map(|change| change.version).collect(),
            Self::Apply(batch) => batch.entries.iter().map(|entry| entry.version).collect(),
            Self::Chunk { chunk, .. } => chunk.records.iter().map(|(_, record)| record.version()).collect(),
            Self::CountAsComplete | Self::MarkRolledBack(_) | Self::AcceptRollback(_) | Self::Confirm(..) => {
                Vec::new()
            }
        };
        versions.into_iter().max().unwrap_or(Version::ZERO)
    }
}

/// What leaves after the commit.
#[derive(Debug)]
enum Promise {
    Written { connection: u64, answers: WriteAnswers, writes: Vec<Write> },
    Merged { connection: u64, merged: Merged },
    Chunk { stream: u64, chunk: u64 },
}

/// What a copy tells continuously.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct State {
    pub(crate) report: CopyReport,
    pub(crate) durable: u64,
    pub(crate) gaps: u64,
}

impl State {
    fn of(copy: &Copy<MemoryStore>, gaps: u64) -> Self {
        Self { report: report(copy.meta(), copy.flushed()), durable: copy.durable(), gaps }
    }
}

/// See the module.
pub(crate) struct Worker {
    pub(crate) copy: Copy<MemoryStore>,
    queue: VecDeque<Job>,
    /// The highest version of all that was ever queued.
    received: Version,
    busy: bool,
    promises: Vec<Promise>,
    pub(crate) state: State,
    gaps: u64,
    sync_due: bool,
}

impl Worker {
    pub(crate) fn new(copy: Copy<MemoryStore>) -> Self {
        let state = State::of(&copy, 0);
        let (queue, promises) = (VecDeque::new(), Vec::new());
        Self { copy, queue, received: Version::ZERO, busy: false, promises, state, gaps: 0, sync_due: false }
    }

    /// The state, with the version of what is queued.
    pub(crate) fn report(&self) -> CopyReport {
        CopyReport { version: self.state.report.version.max(self.received), ..self.state.report }
    }

    /// Whether it has writes that it has not answered.
    pub(crate) fn writes(&self) -> bool {
        self.queue.iter().any(|job| matches!(job, Job::Write { .. }))
            || self.promises.iter().any(|promise| matches!(promise, Promise::Written { .. }))
    }

    /// Takes everything that is queued, and commits once.
    fn work(&mut self, role: Role) {
        for job in mem::take(&mut self.queue) {
            self.stage(role, job);
        }
        self.copy.commit().expect("a store in memory does not fail");
    }

    fn stage(&mut self, role: Role, job: Job) {
        const SOUND: &str = "a store in memory does not fail";
        match job {
            Job::Write { connection, batch, writes } => {
                let results = self.copy.write(writes.clone()).expect(SOUND);
                // What is on disk then is known when it leaves.
                let answers = WriteAnswers { batch, role, lsn: 0, results };
                self.promises.push(Promise::Written { connection, answers, writes });
            }
            Job::Merge { connection, batch, changes, other } => {
                self.copy.merge(changes, other).expect(SOUND);
                self.promises.push(Promise::Merged { connection, merged: Merged { batch, role, lsn: 0 } });
            }
            Job::Apply(batch) => match self.copy.apply(batch) {
                Ok(()) => {}
                Err(FollowError::Gap(_)) => self.gaps += 1,
                Err(FollowError::Store(error)) => panic!("{SOUND}: {error}"),
            },
            Job::Chunk { stream, chunk } => {
                let number = chunk.chunk;
                self.copy.merge_chunk(chunk).expect(SOUND);
                self.promises.push(Promise::Chunk { stream, chunk: number });
            }
            Job::CountAsComplete => self.copy.count_as_complete(),
            Job::MarkRolledBack(rollback) => self.copy.mark_rolled_back(rollback),
            Job::AcceptRollback(incarnation) => self.copy.accept_rollback(incarnation),
            Job::Confirm(upto, other) => self.copy.confirm(upto, Some(other)),
        }
    }

    /// Publishes the state. Returns whether it is news.
    fn publish(&mut self) -> bool {
        let now = State::of(&self.copy, self.gaps);
        mem::replace(&mut self.state, now) != now
    }
}

impl World {
    /// Queues a job for a copy.
    pub(crate) fn give(&mut self, place: u16, role: Role, job: Job) {
        let worker = self.process(place).worker(role);
        worker.received = worker.received.max(job.version());
        worker.queue.push_back(job);
        if !mem::replace(&mut worker.busy, true) {
            self.todo(place, 1, 200, Todo::Round(role));
        }
    }

    pub(crate) fn round(&mut self, place: u16, role: Role) {
        let (slow, most) = (self.disk_takes(place), self.config.round);
        let worker = self.process(place).worker(role);
        worker.work(role);
        // Where nothing was promised to anybody, nothing was synced.
        let slow = slow.filter(|_| !worker.promises.is_empty());
        self.remember_flushed(place, role);
        let (least, most) = slow.unwrap_or((20, most));
        self.todo(place, least, most, Todo::Tell(role));
    }

    pub(crate) fn tell(&mut self, place: u16, role: Role) {
        let worker = self.process(place).worker(role);
        let news = worker.publish();
        let promises = mem::take(&mut worker.promises);
        let again = !worker.queue.is_empty();
        worker.busy = again;
        let sync = worker.copy.unsynced() && !mem::replace(&mut worker.sync_due, true);
        if again {
            self.todo(place, 1, 50, Todo::Round(role));
        }
        if sync {
            self.todo(place, 50 * MILLI, 51 * MILLI, Todo::Sync(role));
        }
        if news {
            self.spread(place, role);
        }
        for promise in promises {
            self.keep_promise(place, role, promise);
        }
    }

    fn keep_promise(&mut self, place: u16, role: Role, promise: Promise) {
        let linked = self.process(place).link.connection;
        let flushed = self.process(place).worker(role).copy.flushed();
        match promise {
            Promise::Written { connection, answers, writes } => {
                let answers = WriteAnswers { lsn: flushed, ..answers };
                let open =
                    self.connections.get(&connection).is_some_and(|connection| connection.gateway_open);
                self.check_on_disk(place, role, &writes, &answers, linked == Some(connection) && open);
                if linked == Some(connection) {
                    self.send_up(connection, Up::Message(FromProcess::Written(answers)));
                }
            }
            Promise::Merged { connection, merged } => {
                let merged = Merged { lsn: flushed, ..merged };
                if linked == Some(connection) {
                    self.send_up(connection, Up::Message(FromProcess::Merged(merged)));
                }
            }
            Promise::Chunk { stream, chunk } => {
                if self.process(place).following.get(role).stream == Some(stream) {
                    self.replicate(stream, Towards::Source, Replicated::ChunkMerged(chunk));
                }
            }
        }
    }

    pub(crate) fn sync(&mut self, place: u16, role: Role) {
        let slow = self.disk_takes(place);
        let worker = self.process(place).worker(role);
        if let Some((least, most)) = slow {
            // One thread does both: a sync comes after the round, and rounds wait for it.
            if worker.busy {
                return self.todo(place, MILLI, 2 * MILLI, Todo::Sync(role));
            }
            worker.busy = true;
            self.todo(place, least, most, Todo::Tell(role));
        }
        let worker = self.process(place).worker(role);
        worker.sync_due = false;
        worker.copy.sync().expect("a store in memory does not fail");
        self.remember_flushed(place, role);
        let worker = self.process(place).worker(role);
        if !worker.busy && worker.publish() {
            self.spread(place, role);
        }
    }

    /// Whoever watches the copy gets to know: the gateway, the source that it follows, its followers.
    fn spread(&mut self, place: u16, role: Role) {
        self.todo(place, 1, 100, Todo::Report(role));
        self.confirm_progress(place, role);
        self.feed_followers(place, role);
    }

    /// Finishes what is queued and writes everything out, when the process ends in order.
    pub(crate) fn finish(&mut self, place: u16, role: Role) {
        let worker = self.process(place).worker(role);
        worker.work(role);
        worker.copy.sync().expect("a store in memory does not fail");
        self.remember_flushed(place, role);
    }

    /// The process remembers beside the database what is on disk.
    fn remember_flushed(&mut self, place: u16, role: Role) {
        let process = self.process(place);
        let copy = &process.worker(role).copy;
        let mark = FlushPoint { incarnation: copy.meta().incarnation, lsn: copy.flushed() };
        *process.marks.get_mut(role) = Some(mark);
    }
}
