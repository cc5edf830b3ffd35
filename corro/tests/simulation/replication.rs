//! Following the other copy, and being followed: what `db_process::replication` does, without sockets.

use std::collections::VecDeque;
use std::mem;
use std::ops::ControlFlow;

use db_process::copy::rollback::{self, Comparison, has_nothing_for};
use db_process::copy::{FollowStart, follow};
use db_process::store::Store;
use protocol::message::REVISION;
use protocol::message::link::{FlushPoint, Peer, Position, Role};
use protocol::message::replication::{CopyChunk, Follow, LogBatch};
use protocol::placement::{replica_of, replicated_at};
use uuid::Uuid;

use crate::process::{Process, Todo};
use crate::worker::Job;
use crate::world::{Happening, MILLI, Replicated, Time, Towards, World};

/// How many frames may be unanswered.
const WINDOW: usize = 2;

/// What a copy knows of the one that it follows.
#[derive(Debug, Default)]
pub(crate) struct Following {
    pub(crate) peer: Option<Peer>,
    /// Counts the attempts: a late one is not meant any more.
    attempt: u64,
    pub(crate) stream: Option<u64>,
    /// Whether the source has sent anything of its copy.
    pub(crate) follows: bool,
    source: Option<Uuid>,
    gaps: u64,
    confirmed: Option<(u64, u64)>,
}

/// One follower, as its source sees it.
#[derive(Debug)]
pub(crate) struct Feeder {
    role: Role,
    /// Incarnation of the copy that follows.
    follower: Uuid,
    /// Chunks of a full copy that have not left.
    chunks: VecDeque<CopyChunk>,
    unmerged: VecDeque<u64>,
    /// Where the full copy ends.
    end: Option<Position>,
    /// The op-log is sent up to here; `None` during a full copy.
    sent: Option<u64>,
    unanswered: VecDeque<u64>,
    /// No frame of the op-log leaves before.
    rested: Time,
    /// Whether it waits for that.
    rests: bool,
}

impl World {
    pub(crate) fn set_peer(&mut self, place: u16, role: Role, peer: Option<Peer>) {
        let following = self.process(place).following.get_mut(role);
        if following.peer == peer {
            return;
        }
        following.peer = peer;
        self.stop_following(place, role);
        self.follow_later(place, role, 0);
    }

    fn follow_later(&mut self, place: u16, role: Role, millis: u64) {
        let following = self.process(place).following.get_mut(role);
        following.attempt += 1;
        let attempt = following.attempt;
        if following.peer.is_some() {
            self.todo(place, millis * MILLI + 1, (2 * millis + 1) * MILLI, Todo::Follow(role, attempt));
        }
    }

    fn stop_following(&mut self, place: u16, role: Role) {
        let following = self.process(place).following.get_mut(role);
        let Some(id) = following.stream.take() else { return };
        following.follows = false;
        self.tell_following(place);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.follower_open = false;
            if !stream.cut {
                self.replicate(id, Towards::Source, Replicated::End);
            }
        }
    }

    pub(crate) fn follow(&mut self, place: u16, role: Role, attempt: u64) {
        let process = self.process(place);
        let following = process.following.get(role);
        if following.attempt != attempt {
            return;
        }
        let Some(peer) = following.peer.clone() else { return };
        let Some(ring) = process.membership.as_ref().map(|kept| kept.ring) else { return };
        let life = process.life;
        let state = process.worker(role).state;
        let source = peer.instance.place();
        let there = self.process(source);
        if !there.up || there.port() != peer.port {
            return self.follow_later(place, role, 100);
        }
        let source_life = there.life;
        let id = self.open_stream((place, life, role), (source, source_life));
        let following = self.process(place).following.get_mut(role);
        following.stream = Some(id);
        following.source = None;
        following.confirmed = None;
        following.gaps = state.gaps;
        let follow = Follow {
            revision: REVISION,
            ring: ring.id,
            instance: Process::name(place),
            role: role.other(),
            incarnation: state.report.incarnation,
            position: state.report.position,
            flushed: state.report.flushed,
            other: state.report.other,
        };
        self.replicate(id, Towards::Source, Replicated::Follow(follow));
    }

    /// All streams of a process that has ended, end or are cut.
    pub(crate) fn end_streams(&mut self, place: u16, life: u64, power: bool) {
        let ids: Vec<u64> = self.streams.keys().copied().collect();
        for id in ids {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let follows = (stream.follower.0, stream.follower.1) == (place, life) && stream.follower_open;
            let feeds = stream.source == (place, life) && stream.source_open;
            stream.follower_open &= !follows;
            stream.source_open &= !feeds;
            match (follows, feeds) {
                (false, false) => {}
                _ if power => self.cut_stream(id),
                (true, _) => self.replicate(id, Towards::Source, Replicated::End),
                (_, true) => self.replicate(id, Towards::Follower, Replicated::End),
            }
        }
    }

    pub(crate) fn arrive_at_copy(&mut self, id: u64, towards: Towards, message: Replicated) {
        let Some(stream) = self.streams.get(&id) else { return };
        if stream.cut && !matches!(message, Replicated::End) {
            return;
        }
        let ((place, life), open) = match towards {
            Towards::Follower => ((stream.follower.0, stream.follower.1), stream.follower_open),
            Towards::Source => (stream.source, stream.source_open),
        };
        let role = stream.follower.2;
        let process = self.process(place);
        if !open || !process.up || process.life != life {
            return;
        }
        if process.paused {
            return process.backlog.push(Happening::Replication(id, towards, message));
        }
        match towards {
            Towards::Follower => self.follower_hears(place, role, id, message),
            Towards::Source => self.source_hears(place, id, message),
        }
    }

    fn follower_hears(&mut self, place: u16, role: Role, id: u64, message: Replicated) {
        self.note(|| format!("{place} {role:?} follows #{id} ← {message:?}"));
        if matches!(message, Replicated::Log(_) | Replicated::Chunk(_)) {
            self.process(place).following.get_mut(role).follows = true;
            self.tell_following(place);
        }
        match message {
            Replicated::Log(batch) => {
                let following = self.process(place).following.get_mut(role);
                if following.source.is_some_and(|source| source != batch.incarnation) {
                    panic!("the op-log of two copies on one connection");
                }
                following.source = Some(batch.incarnation);
                if !batch.entries.is_empty() {
                    self.give(place, role, Job::Apply(batch));
                }
            }
            Replicated::Chunk(chunk) => {
                self.give(place, role, Job::Chunk { stream: id, chunk });
            }
            Replicated::Declined(_) | Replicated::End => {
                if let Replicated::Declined(Some(known)) = message {
                    self.compare_disk(place, role, Some(known), None);
                }
                self.stop_following(place, role);
                self.follow_later(place, role, 50);
            }
            Replicated::Follow(_) | Replicated::ChunkMerged(_) | Replicated::Confirmed { .. } => {
                unreachable!("a source does not send {message:?}")
            }
        }
        self.confirm_progress(place, role);
    }

    /// A copy tells its source how far it is.
    pub(crate) fn confirm_progress(&mut self, place: u16, role: Role) {
        let state = self.process(place).worker(role).state;
        let following = self.process(place).following.get_mut(role);
        let Some(id) = following.stream else { return };
        if state.gaps != following.gaps {
            self.stop_following(place, role);
            return self.follow_later(place, role, 50);
        }
        let position = state.report.position.filter(|at| Some(at.incarnation) == following.source);
        let progress = position.map(|at| (at.sequence, state.durable));
        if let Some((applied, durable)) = progress.filter(|_| progress != following.confirmed) {
            following.confirmed = progress;
            let lsn = state.report.flushed;
            self.replicate(id, Towards::Source, Replicated::Confirmed { applied, durable, lsn });
        }
    }

    fn source_hears(&mut self, place: u16, id: u64, message: Replicated) {
        self.note(|| format!("{place} feeds #{id} ← {message:?}"));
        match message {
            Replicated::Follow(asked) => self.admit(place, id, &asked),
            Replicated::ChunkMerged(chunk) => {
                let Some(feeder) = self.feeder(id) else { return };
                assert_eq!(feeder.unmerged.pop_front(), Some(chunk), "chunks are answered in order");
                self.feed(place, id);
            }
            Replicated::Confirmed { applied, durable, lsn } => {
                let Some(feeder) = self.feeder(id) else { return };
                let Some(sent) = feeder.sent else { return };
                assert!(durable <= applied, "nothing is on disk before it is applied");
                if applied > sent {
                    // It had frames of an earlier stream in its queue.
                    return self.let_go(id, Replicated::End);
                }
                while feeder.unanswered.front().is_some_and(|last| *last <= applied) {
                    feeder.unanswered.pop_front();
                }
                let (role, incarnation) = (feeder.role, feeder.follower);
                self.give(place, role, Job::Confirm(durable, FlushPoint { incarnation, lsn }));
                self.feed(place, id);
            }
            Replicated::End => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.source_open = false;
                    stream.feeder = None;
                }
            }
            Replicated::Declined(_) | Replicated::Log(_) | Replicated::Chunk(_) => {
                unreachable!("a follower does not send {message:?}")
            }
        }
    }

    fn feeder(&mut self, id: u64) -> Option<&mut Feeder> {
        self.streams.get_mut(&id)?.feeder.as_mut()
    }

    /// A follower is not served any longer.
    fn let_go(&mut self, id: u64, why: Replicated) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.source_open = false;
            stream.feeder = None;
        }
        self.replicate(id, Towards::Follower, why);
    }

    fn admit(&mut self, place: u16, id: u64, asked: &Follow) {
        let size = self.config.size;
        let process = self.process(place);
        let ours = process.membership.as_ref().is_some_and(|kept| kept.ring.id == asked.ring);
        let neighbour = match asked.role {
            Role::Primary => replica_of(place, size),
            Role::Replica => replicated_at(place, size),
        };
        assert_eq!(neighbour, Some(asked.instance.place()), "only neighbours follow");
        let report = process.worker(asked.role).state.report;
        if !ours || !(report.complete || report.rollback.is_some()) {
            return self.let_go(id, Replicated::Declined(None));
        }
        let meta = *process.worker(asked.role).copy.meta();
        match rollback::compare(&meta, asked) {
            Comparison::Sound if has_nothing_for(&meta, asked) => {
                return self.let_go(id, Replicated::Declined(None));
            }
            Comparison::Sound => {}
            Comparison::Follower(known) => {
                return self.let_go(id, Replicated::Declined(Some(known)));
            }
            Comparison::Source(rollback) => {
                self.give(place, asked.role, Job::MarkRolledBack(rollback));
                return self.let_go(id, Replicated::Declined(None));
            }
        }
        let process = self.process(place);
        let meta = process.store(asked.role).meta().expect("a store in memory can be read");
        let start = follow::start_for(&meta, asked);
        let role = asked.role;
        let feeder = Feeder {
            role,
            follower: asked.incarnation,
            chunks: VecDeque::new(),
            unmerged: VecDeque::new(),
            end: None,
            sent: None,
            unanswered: VecDeque::new(),
            rested: 0,
            rests: false,
        };
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.feeder = Some(feeder);
        }
        self.start_feeding(place, id, role, start);
    }

    fn start_feeding(&mut self, place: u16, id: u64, role: Role, start: FollowStart) {
        let lsn = self.process(place).worker(role).state.report.flushed;
        let chunks = match start {
            FollowStart::Log { .. } => VecDeque::new(),
            FollowStart::Adopt { end } => {
                VecDeque::from([CopyChunk { end: Some(end), lsn, ..CopyChunk::default() }])
            }
            FollowStart::FullCopy => self.full_copy(place, role),
        };
        let Some(feeder) = self.feeder(id) else { return };
        feeder.end = chunks.back().and_then(|last| last.end);
        feeder.chunks = chunks;
        feeder.unanswered.clear();
        feeder.sent = match start {
            FollowStart::Log { after } => Some(after),
            _ => None,
        };
        if let FollowStart::Log { .. } = start {
            // Whoever follows learns at once whose op-log it is.
            let store = self.process(place).store(role);
            let incarnation = store.meta().expect("a store in memory can be read").incarnation;
            let entries = Vec::new();
            self.replicate(id, Towards::Follower, Replicated::Log(LogBatch { incarnation, lsn, entries }));
        }
        self.feed(place, id);
    }

    /// Everything as of now, in small chunks.
    fn full_copy(&mut self, place: u16, role: Role) -> VecDeque<CopyChunk> {
        let most = self.rng.between(1, 4) as usize;
        let recent = self.config.recent;
        let worker = self.process(place).worker(role);
        // What is copied has to last here as well: the follower will be taken to have nothing that this copy
        // lacks.
        worker.copy.sync().expect("a store in memory does not fail");
        let mut whole = Vec::new();
        let snapshot = worker.copy.store().snapshot().expect("a store in memory can be read");
        let copied = follow::full_copy(&snapshot, recent, |chunk| {
            whole.push(chunk);
            ControlFlow::Continue(())
        });
        copied.expect("a store in memory can be read");
        let (end, lsn) = whole.last().map_or((None, 0), |last| (last.end, last.lsn));
        let applied = whole.iter().flat_map(|chunk| chunk.applied.clone()).collect();
        let records: Vec<_> = whole.into_iter().flat_map(|chunk| chunk.records).collect();
        let mut chunks: VecDeque<CopyChunk> = records
            .chunks(most)
            .zip(0..)
            .map(|(records, chunk)| CopyChunk { chunk, records: records.to_vec(), ..CopyChunk::default() })
            .collect();
        let chunk = chunks.len() as u64;
        chunks.push_back(CopyChunk { chunk, records: Vec::new(), applied, end, lsn });
        chunks
    }

    /// A copy has changed: whoever follows it gets what is new.
    pub(crate) fn feed_followers(&mut self, place: u16, role: Role) {
        let life = self.process(place).life;
        let feeds = |stream: &crate::world::Stream| {
            stream.source == (place, life)
                && stream.source_open
                && stream.feeder.as_ref().is_some_and(|feeder| feeder.role == role)
        };
        let ids: Vec<u64> =
            self.streams.iter().filter(|(_, stream)| feeds(stream)).map(|(id, _)| *id).collect();
        for id in ids {
            self.feed(place, id);
        }
    }

    /// The time has come for another frame.
    pub(crate) fn feed_again(&mut self, place: u16, id: u64) {
        if let Some(feeder) = self.feeder(id) {
            feeder.rests = false;
            self.feed(place, id);
        }
    }

    /// Sends what there is to send, as far as the window has room and it is time.
    fn feed(&mut self, place: u16, id: u64) {
        let (now, pace) = (self.now, self.config.pace);
        let Some(feeder) = self.feeder(id) else { return };
        let (role, rested) = (feeder.role, feeder.rested);
        if feeder.sent.is_some() && now < rested && !self.process(place).is_moved(role) {
            let rests = self.feeder(id).map(|feeder| mem::replace(&mut feeder.rests, true));
            if rests == Some(false) {
                self.todo(place, rested - now, rested - now + 1, Todo::Feed(id));
            }
            return;
        }
        let limit = self.rng.between(1, 9) as usize;
        loop {
            let Some(feeder) = self.feeder(id) else { return };
            let role = feeder.role;
            let Some(sent) = feeder.sent else {
                if feeder.unmerged.len() < WINDOW
                    && let Some(chunk) = feeder.chunks.pop_front()
                {
                    feeder.unmerged.push_back(chunk.chunk);
                    self.replicate(id, Towards::Follower, Replicated::Chunk(chunk));
                } else if feeder.unmerged.is_empty() && feeder.chunks.is_empty() {
                    feeder.sent = feeder.end.map(|end| end.sequence);
                    // Whoever follows learns at once whose op-log it is.
                    let incarnation = feeder.end.expect("a full copy has an end").incarnation;
                    let (lsn, entries) = (0, Vec::new());
                    let batch = LogBatch { incarnation, lsn, entries };
                    self.replicate(id, Towards::Follower, Replicated::Log(batch));
                } else {
                    return;
                }
                continue;
            };
            if feeder.unanswered.len() >= WINDOW {
                return;
            }
            let store = self.process(place).store(role);
            let incarnation = store.meta().expect("a store in memory can be read").incarnation;
            let Some(entries) = store.log_after(sent, limit).expect("a store in memory can be read") else {
                self.start_feeding(place, id, role, FollowStart::FullCopy);
                return;
            };
            let Some(last) = entries.last().map(|entry| entry.sequence) else { return };
            if let Some(feeder) = self.feeder(id) {
                feeder.sent = Some(last);
                feeder.unanswered.push_back(last);
                feeder.rested = now + pace;
            }
            let lsn = self.process(place).worker(role).state.report.flushed;
            self.replicate(id, Towards::Follower, Replicated::Log(LogBatch { incarnation, lsn, entries }));
        }
    }
}
