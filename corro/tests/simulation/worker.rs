//! A copy at work: the real rounds, on a store in memory, with the time that they take.

use std::collections::VecDeque;
use std::mem;
use std::sync::mpsc::{Receiver, Sender, channel};

use db_process::copy::Limits;
use db_process::copy::erase::find;
use db_process::link::event::{Event, SessionId, Work};
use db_process::replication::follower_state::{self, Read};
use db_process::store::{MemoryStore, Store};
use db_process::worker::CopyState;
use db_process::worker::rounds::{Confirmed, Job, Marked, Rounds};
use protocol::Version;
use protocol::message::link::{
    CopyReport, FlushPoint, MergeBatch, Merged, Role, ToGateway, Write, WriteAnswers, WriteBatch,
};
use protocol::message::query::{Answer, EraseAnswer, EraseQuery};
use protocol::message::replication::{ChunkMerged, CopyChunk};
use uuid::Uuid;

use crate::process::Todo;
use crate::world::{Time, World};

const SOUND: &str = "a store in memory does not fail";

/// A job is completed.
#[derive(Debug)]
pub(crate) enum Completed {
    Written { session: SessionId, answers: WriteAnswers, writes: Vec<Write> },
    Merged { session: SessionId, merged: Merged },
    Chunk { stream: u64, read: Read },
    Stripped { session: SessionId, work: Work, query: EraseQuery },
}

/// See the module.
pub(crate) struct Worker {
    pub(crate) rounds: Rounds<MemoryStore>,
    queue: VecDeque<Job>,
    confirmed: Confirmed,
    /// The highest version of all that was ever queued.
    received: Version,
    busy: bool,
    pub(crate) state: CopyState,
    /// The sync that is scheduled.
    sync: Option<Time>,
    completing: Sender<Completed>,
    completed: Receiver<Completed>,
}

impl Worker {
    pub(crate) fn open(role: Role, store: MemoryStore, limits: Limits, marked: Option<Marked>) -> Self {
        let (rounds, received) = Rounds::open(role, store, limits, marked).expect(SOUND);
        let (completing, completed) = channel();
        let (state, queue, confirmed) = (rounds.state(), VecDeque::new(), Confirmed::default());
        Self { rounds, queue, confirmed, received, busy: false, state, sync: None, completing, completed }
    }

    /// The state, with the version of what is queued.
    pub(crate) fn report(&self) -> CopyReport {
        CopyReport { version: self.state.report.version.max(self.received), ..self.state.report }
    }

    /// The follower has that on disk.
    pub(crate) fn trim(&mut self, incarnation: Uuid, upto: u64, other: Option<FlushPoint>) {
        self.confirmed.advance(incarnation, upto, other);
    }

    /// Publishes the state. Returns whether it is news.
    fn publish(&mut self) -> bool {
        let now = self.rounds.state();
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

    pub(crate) fn give_writes(&mut self, place: u16, session: SessionId, batch: WriteBatch) {
        let WriteBatch { batch, role, writes } = batch;
        let (completing, decided) = (self.process(place).worker(role).completing.clone(), writes.clone());
        let done = Box::new(move |results, lsn| {
            let answers = WriteAnswers { batch, role, lsn, results };
            drop(completing.send(Completed::Written { session, answers, writes: decided }));
        });
        self.give(place, role, Job::Write { writes, done });
    }

    pub(crate) fn give_merge(&mut self, place: u16, session: SessionId, batch: MergeBatch) {
        let MergeBatch { batch, role, changes, other } = batch;
        let completing = self.process(place).worker(role).completing.clone();
        let done = Box::new(move |lsn| {
            drop(completing.send(Completed::Merged { session, merged: Merged { batch, role, lsn } }));
        });
        self.give(place, role, Job::Merge { changes, other, done });
    }

    /// Takes what is out of date from the op-log. Files are not written here.
    pub(crate) fn erase(&mut self, place: u16, session: SessionId, work: Work, query: EraseQuery) {
        let worker = self.process(place).worker(query.role);
        let (confirmed, incarnation) = (worker.confirmed, worker.state.report.incarnation);
        let completing = worker.completing.clone();
        let mut pieces = Vec::new();
        let snapshot = worker.rounds.copy().store().snapshot().expect(SOUND);
        let found = find(&snapshot, &query, confirmed.upto(), 3, |entries| {
            pieces.push(entries);
            Ok(())
        });
        drop(snapshot);
        found.expect(SOUND);
        for entries in pieces {
            let done = Box::new(|_| ());
            self.give(
                place,
                query.role,
                Job::Strip { incarnation, entries, alone: query.alone, confirmed, done },
            );
        }
        let done = Box::new(move |_| drop(completing.send(Completed::Stripped { session, work, query })));
        let (entries, alone) = (Vec::new(), query.alone);
        self.give(place, query.role, Job::Strip { incarnation, entries, alone, confirmed, done });
    }

    pub(crate) fn give_chunk(&mut self, place: u16, role: Role, stream: u64, chunk: CopyChunk) {
        let (answer, last) = (ChunkMerged { chunk: chunk.chunk }, chunk.end.is_some());
        let filled = last && (chunk.chunk > 0 || !chunk.records.is_empty());
        let completing = self.process(place).worker(role).completing.clone();
        let done = Box::new(move |_| {
            drop(completing.send(Completed::Chunk { stream, read: Read::Merged { answer, last, filled } }));
        });
        self.give(place, role, Job::Chunk { chunk, done });
    }

    /// A round begins: it is committed at once here, and known only when the disk would be done.
    pub(crate) fn round(&mut self, place: u16, role: Role) {
        let (slow, most) = (self.disk_takes(place), self.config.round);
        self.work(place, role);
        // A round that has not to last is not synced.
        let synced = self.process(place).worker(role).rounds.sync_at().is_none();
        let (least, most) = slow.filter(|_| synced).unwrap_or((20, most));
        self.todo(place, least, most, Todo::Tell(role));
    }

    fn work(&mut self, place: u16, role: Role) {
        let now = self.instant();
        let Worker { rounds, queue, confirmed, .. } = self.process(place).worker(role);
        if rounds.sync_at().is_some_and(|at| at <= now) {
            rounds.sync().expect(SOUND);
        }
        while !rounds.is_full()
            && let Some(job) = queue.pop_front()
        {
            rounds.stage(job).expect(SOUND);
        }
        rounds.commit(now, *confirmed).expect(SOUND);
        self.remember_flushed(place, role);
    }

    pub(crate) fn tell(&mut self, place: u16, role: Role) {
        let worker = self.process(place).worker(role);
        let news = worker.publish();
        worker.rounds.complete();
        let completed: Vec<Completed> = worker.completed.try_iter().collect();
        worker.busy = !worker.queue.is_empty();
        if worker.busy {
            self.todo(place, 1, 50, Todo::Round(role));
        }
        self.schedule_sync(place, role);
        if news {
            self.spread(place, role);
        }
        for completed in completed {
            self.complete(place, role, completed);
        }
    }

    fn complete(&mut self, place: u16, role: Role, completed: Completed) {
        match completed {
            Completed::Written { session, answers, writes } => {
                let link = &self.process(place).link;
                let (linked, connection) = (link.open(session).is_some(), link.connection_of(session));
                let open =
                    self.connections.get(&connection).is_some_and(|connection| connection.gateway_open);
                self.check_on_disk(place, role, &writes, &answers, linked && open);
                let (work, answer) = (Work::Writes, ToGateway::WriteAnswers(answers));
                self.step_link(place, Event::Done { session, work, answer });
            }
            Completed::Merged { session, merged } => {
                let answer = ToGateway::Merged(merged);
                self.step_link(place, Event::Done { session, work: Work::Merge, answer });
            }
            Completed::Chunk { stream, read } => self.chunk_merged(place, role, stream, read),
            Completed::Stripped { session, work, query } => {
                self.checks.erased.insert((place, role), query.upto);
                let answer = Answer::EraseAnswer(EraseAnswer { query: query.query, erased: true });
                self.step_link(place, Event::Done { session, work, answer: ToGateway::Answer(answer) });
            }
        }
    }

    fn schedule_sync(&mut self, place: u16, role: Role) {
        let worker = self.process(place).worker(role);
        let (sync_at, sync) = (worker.rounds.sync_at(), worker.sync);
        if let Some(at) = self.next_tick(sync_at, sync) {
            self.process(place).worker(role).sync = Some(at);
            self.todo_at(place, at, Todo::Sync(role, at));
        }
    }

    pub(crate) fn sync(&mut self, place: u16, role: Role, at: Time) {
        let now = self.instant();
        let worker = self.process(place).worker(role);
        if worker.sync != Some(at) {
            return;
        }
        worker.sync = None;
        // One thread does both: during a round it is not done.
        if worker.busy {
            return;
        }
        if worker.rounds.sync_at().is_some_and(|at| at <= now) {
            self.sync_now(place, role);
        } else {
            self.schedule_sync(place, role);
        }
    }

    /// Brings to disk what was committed. It is known when the disk would be done.
    pub(crate) fn sync_now(&mut self, place: u16, role: Role) {
        let (least, most) = self.disk_takes(place).unwrap_or((1, 20));
        let worker = self.process(place).worker(role);
        worker.rounds.sync().expect(SOUND);
        let busy = mem::replace(&mut worker.busy, true);
        self.remember_flushed(place, role);
        if !busy {
            self.todo(place, least, most, Todo::Tell(role));
        }
    }

    /// The state of a copy is published to the gateway, the source that it follows, and its followers.
    fn spread(&mut self, place: u16, role: Role) {
        self.todo(place, 1, 100, Todo::Report(role));
        let state = self.process(place).worker(role).state;
        self.step_follower(place, role, follower_state::Event::Copy(state));
        self.feed_followers(place, role);
    }

    /// Finishes what is queued and writes everything out, when the process ends in order.
    pub(crate) fn finish(&mut self, place: u16, role: Role) {
        self.work(place, role);
        while !self.process(place).worker(role).queue.is_empty() {
            self.process(place).worker(role).rounds.complete();
            self.work(place, role);
        }
        self.process(place).worker(role).rounds.sync().expect(SOUND);
        self.remember_flushed(place, role);
    }

    /// The process remembers beside the database what is on disk.
    fn remember_flushed(&mut self, place: u16, role: Role) {
        let process = self.process(place);
        let marked = process.worker(role).rounds.marked();
        *process.marks.get_mut(role) = Some(marked);
    }
}
