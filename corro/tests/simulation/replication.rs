//! Replication: the real rules of the follower and of the source, over streams that are made up.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use db_process::copy::follow;
use db_process::link::retry::Backoff;
use db_process::replication::follower_state::{self, FollowerState, Read};
use db_process::replication::source_state::{self, Declines, Event, Source, SourceState, admit};
use db_process::store::{Meta, Store};
use db_process::worker::rounds::Job;
use protocol::message::link::{Peer, Role};
use protocol::message::replication::{Confirmed, CopyChunk, Decline, Follow, LogBatch};
use uuid::Uuid;

use crate::process::{Process, Todo};
use crate::world::{Happening, Replicated, Time, Towards, World};

const SOUND: &str = "a store in memory can be read";

/// A copy that follows.
#[derive(Debug)]
pub(crate) struct Follower {
    state: FollowerState,
    /// The tick that is scheduled.
    tick: Option<Time>,
    /// The attempt to connect that is under way.
    attempt: Option<u64>,
    pub(crate) stream: Option<u64>,
    /// Whether the source has sent anything of its copy.
    pub(crate) follows: bool,
}

impl Follower {
    pub(crate) fn new(place: u16, role: Role, seed: u64) -> Self {
        let state = FollowerState::new(Process::name(place), role, Backoff::with_jitter_seed(seed));
        Self { state, tick: None, attempt: None, stream: None, follows: false }
    }
}

/// One follower, as its source has it.
#[derive(Debug)]
pub(crate) struct Feed {
    role: Role,
    /// Of the copy when the follower came.
    incarnation: Uuid,
    state: SourceState,
    tick: Option<Time>,
    /// What another thread reads, while one does.
    frames: Option<VecDeque<(Replicated, Event)>>,
    /// Numbers of the frames that the follower has not answered, as a check.
    unanswered: VecDeque<u64>,
}

impl World {
    pub(crate) fn set_peer(&mut self, place: u16, role: Role, peer: Option<Peer>) {
        self.step_follower(place, role, follower_state::Event::Peer(peer));
    }

    pub(crate) fn step_follower(&mut self, place: u16, role: Role, event: follower_state::Event) {
        let (now, mut commands) = (self.instant(), Vec::new());
        self.process(place).following.get_mut(role).state.step(now, event, &mut commands);
        for command in commands {
            self.follower_does(place, role, command);
        }
        let follower = self.process(place).following.get_mut(role);
        let (deadline, tick) = (follower.state.deadline(), follower.tick);
        if let Some(at) = self.next_tick(deadline, tick) {
            self.process(place).following.get_mut(role).tick = Some(at);
            self.todo_at(place, at, Todo::TickFollower(role, at));
        }
    }

    pub(crate) fn tick_follower(&mut self, place: u16, role: Role, at: Time) {
        let follower = self.process(place).following.get_mut(role);
        if follower.tick == Some(at) {
            follower.tick = None;
            self.step_follower(place, role, follower_state::Event::Tick);
        }
    }

    fn follower_does(&mut self, place: u16, role: Role, command: follower_state::Command) {
        use follower_state::Command;
        self.note(|| format!("{place} {role:?} follows: {command:?}"));
        let stream = self.process(place).following.get(role).stream;
        match (command, stream) {
            (Command::Connect(peer), _) => {
                let attempt = self.number();
                self.process(place).following.get_mut(role).attempt = Some(attempt);
                self.todo(place, 1, 1_000, Todo::OpenStream(role, attempt, peer));
            }
            (Command::Disconnect, stream) => {
                let follower = self.process(place).following.get_mut(role);
                (follower.attempt, follower.stream) = (None, None);
                if let Some(id) = stream
                    && let Some(stream) = self.streams.get_mut(&id)
                {
                    stream.follower_open = false;
                    if !stream.cut {
                        self.replicate(id, Towards::Source, Replicated::End);
                    }
                }
            }
            (Command::Follow(follow), Some(id)) => {
                self.replicate(id, Towards::Source, Replicated::Follow(*follow));
            }
            (Command::ChunkMerged(answer), Some(id)) => {
                self.replicate(id, Towards::Source, Replicated::ChunkMerged(answer));
            }
            (Command::Confirm(confirmed), Some(id)) => {
                self.check_confirmed(place, role, &confirmed);
                self.replicate(id, Towards::Source, Replicated::Confirmed(confirmed));
            }
            (Command::Compare(known), _) => {
                self.compare_disk(place, role, Some(known), None);
            }
            (Command::Follows(follows), _) => {
                self.process(place).following.get_mut(role).follows = follows;
                self.tell_following(place);
            }
            (command, _) => unreachable!("{command:?} without a stream, or of a repair"),
        }
    }

    /// What is reported as applied is in the store, and what is reported as durable is on disk.
    fn check_confirmed(&self, place: u16, role: Role, confirmed: &Confirmed) {
        let store = self.processes[usize::from(place)].store(role);
        let position = |meta: &Meta| meta.position.map_or(0, |at| at.sequence);
        let (applied, durable) = (position(&store.meta().expect(SOUND)), position(store.synced_meta()));
        assert!(
            confirmed.applied <= applied && confirmed.durable <= durable,
            "the {role:?} of {place} confirms {confirmed:?}, has applied {applied} and on disk {durable}"
        );
    }

    /// An attempt to connect ends.
    pub(crate) fn open_follower(&mut self, place: u16, role: Role, attempt: u64, peer: &Peer) {
        let process = self.process(place);
        if process.following.get(role).attempt != Some(attempt) {
            return;
        }
        let ring = process.membership.as_ref().expect("no neighbour is known outside a ring").ring.id;
        let (life, copy) = (process.life, process.worker(role).state);
        let source = peer.instance.place();
        let there = self.process(source);
        if !there.up || there.port() != peer.port {
            let lost = follower_state::Event::Lost("refused".to_owned());
            return self.step_follower(place, role, lost);
        }
        let source_life = there.life;
        let id = self.open_stream((place, life, role), (source, source_life));
        let follower = self.process(place).following.get_mut(role);
        (follower.attempt, follower.stream) = (None, Some(id));
        self.step_follower(place, role, follower_state::Event::Connected { ring, copy });
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

    /// Does what `db_process::replication::client` and its reader do with a message.
    fn follower_hears(&mut self, place: u16, role: Role, id: u64, message: Replicated) {
        self.note(|| format!("{place} {role:?} follows #{id} ← {message:?}"));
        match message {
            Replicated::Log(batch) => {
                self.step_follower(place, role, follower_state::Event::Heard);
                let (source, entries) = (batch.incarnation, batch.entries.len());
                if entries > 0 {
                    self.give(place, role, Job::Apply(batch));
                }
                let read = Read::Log { source, entries };
                self.step_follower(place, role, follower_state::Event::Read(read));
            }
            Replicated::Chunk(chunk) => {
                self.step_follower(place, role, follower_state::Event::Heard);
                self.give_chunk(place, role, id, chunk);
            }
            Replicated::Declined(reason) => {
                self.step_follower(place, role, follower_state::Event::Declined(reason));
            }
            Replicated::End => {
                self.step_follower(place, role, follower_state::Event::Lost("it left".to_owned()));
            }
            Replicated::Follow(_) | Replicated::ChunkMerged(_) | Replicated::Confirmed(_) => {
                unreachable!("a source does not send {message:?}")
            }
        }
    }

    /// Part of a full copy is merged.
    pub(crate) fn chunk_merged(&mut self, place: u16, role: Role, stream: u64, read: Read) {
        if self.process(place).following.get(role).stream == Some(stream) {
            self.step_follower(place, role, follower_state::Event::Read(read));
        }
    }

    fn source_hears(&mut self, place: u16, id: u64, message: Replicated) {
        self.note(|| format!("{place} feeds #{id} ← {message:?}"));
        match message {
            Replicated::Follow(asked) => self.admit(place, id, asked),
            Replicated::ChunkMerged(merged) => {
                if let Some(feed) = self.feed(id) {
                    feed.unanswered.pop_front();
                }
                self.step_source(place, id, Event::ChunkMerged(merged));
            }
            Replicated::Confirmed(confirmed) => {
                if let Some(feed) = self.feed(id) {
                    while feed.unanswered.front().is_some_and(|last| *last <= confirmed.applied) {
                        feed.unanswered.pop_front();
                    }
                }
                self.step_source(place, id, Event::Confirmed(confirmed));
            }
            Replicated::End => self.close_source(id),
            Replicated::Declined(_) | Replicated::Log(_) | Replicated::Chunk(_) => {
                unreachable!("a follower does not send {message:?}")
            }
        }
    }

    fn feed(&mut self, id: u64) -> Option<&mut Feed> {
        self.streams.get_mut(&id)?.feed.as_deref_mut()
    }

    fn close_source(&mut self, id: u64) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.source_open = false;
            stream.feed = None;
        }
    }

    fn admit(&mut self, place: u16, id: u64, follow: Follow) {
        let (limits, now) = (self.config.source.clone(), self.instant());
        let process = self.process(place);
        let role = follow.role;
        let ring = process.membership.as_ref().map(|kept| kept.ring);
        let meta = process.store(role).meta().expect(SOUND);
        match admit(&Source { place, ring, meta }, &follow) {
            Ok(start) => {
                let mut commands = Vec::new();
                let state = SourceState::new(limits, follow, start, now, &mut commands);
                let (incarnation, unanswered) = (meta.incarnation, VecDeque::new());
                let feed = Feed { role, incarnation, state, tick: None, frames: None, unanswered };
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.feed = Some(Box::new(feed));
                }
                self.carry_out_source(place, id, commands);
                self.feed_followers(place, role);
            }
            Err(Declines { reason, rollback }) => {
                assert!(!matches!(reason, Decline::NotANeighbour | Decline::Revision), "{reason:?}");
                if let Some(rollback) = rollback {
                    self.give(place, role, Job::MarkRolledBack(rollback));
                }
                self.replicate(id, Towards::Follower, Replicated::Declined(reason));
                self.close_source(id);
            }
        }
    }

    /// A copy has changed, or its leader: its followers may get more.
    pub(crate) fn feed_followers(&mut self, place: u16, role: Role) {
        let life = self.process(place).life;
        let feeds = |stream: &crate::world::Stream| {
            stream.source == (place, life) && stream.feed.as_ref().is_some_and(|feed| feed.role == role)
        };
        let ids: Vec<u64> =
            self.streams.iter().filter(|(_, stream)| feeds(stream)).map(|(id, _)| *id).collect();
        let moving = self.process(place).is_moved(role);
        let head = self.process(place).worker(role).state.report.head;
        for id in ids {
            self.step_source(place, id, Event::Moving(moving));
            self.step_source(place, id, Event::Head(head));
        }
    }

    pub(crate) fn tick_source(&mut self, place: u16, id: u64, at: Time) {
        let Some(feed) = self.feed(id) else { return };
        if feed.tick == Some(at) {
            feed.tick = None;
            self.step_source(place, id, Event::Tick);
        }
    }

    fn step_source(&mut self, place: u16, id: u64, event: Event) {
        let (now, mut commands) = (self.instant(), Vec::new());
        let Some(feed) = self.feed(id) else { return };
        feed.state.step(now, event, &mut commands);
        self.carry_out_source(place, id, commands);
    }

    /// Does what `db_process::replication::server` does: carries commands out, and what they lead to.
    fn carry_out_source(&mut self, place: u16, id: u64, mut commands: Vec<source_state::Command>) {
        loop {
            let mut events = Vec::new();
            for command in commands.drain(..) {
                events.extend(self.source_does(place, id, command));
            }
            let Some(feed) = self.feed(id) else { return };
            if events.is_empty() && feed.state.has_room() {
                match feed.frames.as_mut().map(VecDeque::pop_front) {
                    Some(Some((message, sent))) => {
                        self.send_frame(id, message);
                        events.push(sent);
                    }
                    Some(None) => {
                        feed.frames = None;
                        events.push(Event::ReadToEnd);
                    }
                    None => {}
                }
            }
            if events.is_empty() {
                break;
            }
            let now = self.instant();
            let Some(feed) = self.feed(id) else { return };
            for event in events {
                feed.state.step(now, event, &mut commands);
            }
        }
        let Some(feed) = self.feed(id) else { return };
        let (deadline, tick) = (feed.state.deadline(), feed.tick);
        if let Some(at) = self.next_tick(Some(deadline), tick) {
            if let Some(feed) = self.feed(id) {
                feed.tick = Some(at);
            }
            self.todo_at(place, at, Todo::TickSource(id, at));
        }
    }

    fn source_does(&mut self, place: u16, id: u64, command: source_state::Command) -> Option<Event> {
        use source_state::Command;
        let role = self.feed(id)?.role;
        let report = self.process(place).worker(role).state.report;
        let (incarnation, lsn) = (report.incarnation, report.flushed);
        match command {
            Command::KeepAlive => {
                let batch = LogBatch { incarnation, lsn, entries: Vec::new() };
                self.replicate(id, Towards::Follower, Replicated::Log(batch));
            }
            Command::SendLog(after) => {
                let most = self.rng.between(1, 9) as usize;
                let entries = self.process(place).store(role).log_after(after, most).expect(SOUND);
                let Some(entries) = entries else { return Some(Event::Trimmed) };
                let last = entries.last()?.sequence;
                self.send_frame(id, Replicated::Log(LogBatch { incarnation, lsn, entries }));
                return Some(Event::LogSent(last));
            }
            Command::ReadToHead(after) => {
                let most = self.rng.between(1, 9) as usize;
                let entries = self.process(place).store(role).log_after(after, usize::MAX).expect(SOUND);
                let frames = entries.unwrap_or_default();
                // What does not fill a frame is left.
                let frames = frames.chunks_exact(most).map(|entries| {
                    let last = entries.last().expect("no frame is empty").sequence;
                    let batch = LogBatch { incarnation, lsn, entries: entries.to_vec() };
                    (Replicated::Log(batch), Event::LogSent(last))
                });
                self.feed(id)?.frames = Some(frames.collect());
            }
            Command::ReadEverything => {
                let parts = self.full_copy(place, role).into_iter().map(|part| {
                    let sent = Event::ChunkSent { chunk: part.chunk, end: part.end };
                    (Replicated::Chunk(part), sent)
                });
                let feed = self.feed(id)?;
                feed.frames = Some(parts.collect());
                feed.unanswered.clear();
            }
            Command::Adopt(end) => {
                let chunk = CopyChunk { end: Some(end), lsn, ..CopyChunk::default() };
                self.send_frame(id, Replicated::Chunk(chunk));
            }
            Command::Trim { upto, other } => {
                let of = self.feed(id)?.incarnation;
                self.process(place).worker(role).trim(of, upto, other);
            }
            Command::Close(what) => {
                self.note(|| format!("{place} feeds #{id} no more: it sent {what}"));
                self.close_source(id);
            }
            Command::Stop => unreachable!("a store in memory can be read"),
        }
        None
    }

    /// Sends a frame that the follower answers; of those the protocol allows four at a time.
    fn send_frame(&mut self, id: u64, message: Replicated) {
        let number = match &message {
            Replicated::Log(batch) => batch.entries.last().expect("a frame has entries").sequence,
            Replicated::Chunk(chunk) => chunk.chunk,
            other => unreachable!("{other:?} is not answered"),
        };
        if let Some(feed) = self.feed(id) {
            feed.unanswered.push_back(number);
            assert!(feed.unanswered.len() <= 4, "frames {:?} are unanswered at once", feed.unanswered);
        }
        self.replicate(id, Towards::Follower, message);
    }

    /// Everything as of now, in small chunks.
    fn full_copy(&mut self, place: u16, role: Role) -> VecDeque<CopyChunk> {
        let most = self.rng.between(1, 4) as usize;
        let recent = self.config.recent;
        // What is copied has to last here as well: the follower will be taken to have nothing that this copy
        // lacks.
        self.sync_now(place, role);
        let mut whole = Vec::new();
        let worker = self.process(place).worker(role);
        let snapshot = worker.rounds.copy().store().snapshot().expect(SOUND);
        let copied = follow::full_copy(&snapshot, recent, |chunk| {
            whole.push(chunk);
            ControlFlow::Continue(())
        });
        copied.expect(SOUND);
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
}
