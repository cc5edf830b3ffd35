//! A registered db-process: its connection, what it said of its copies, and the lanes to it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use protocol::UserId;
use protocol::message::link::{
    CopyReport, CopyReports, Following, Peer, ReplicationAddress, Ring, RingNotice, Role, Write, WriteBatch,
};
use protocol::message::usage::ProcessUsage;
use protocol::placement::InstanceName;
use uuid::Uuid;

use super::event::{RequestId, SessionId};
use super::lane::Lane;

/// Frames of reads in flight to one process: the wait for the one answer is what forms the next batch.
const READ_WINDOW: usize = 1;

/// Frames of writes in flight to one copy. A second one would be on its way while the first is being fsynced,
/// but it halves the batches: every frame, every fsync and all that replication does then serves half as many
/// writes, and where the processors are busy that costs a quarter of the throughput
/// (`resources/docs/decisions.md`).
const WRITE_WINDOW: usize = 1;

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) id: SessionId,
    pub(super) instance: InstanceName,
    /// Host that the connection came from.
    pub(crate) host: String,
    /// Of the data folder.
    pub(crate) incarnation: Uuid,
    pub(super) replication: ReplicationAddress,
    pub(super) ring: Option<Ring>,
    pub(super) copies: CopyReports,
    /// How often each copy was asked whether it has what is known of its disk, and has not answered.
    pub(super) asked: [u32; 2],
    /// Which of its copies follow the other one of their partition; `None` until it says so.
    pub(crate) following: Option<Following>,
    /// What it uses of its machine, as it last said.
    pub(crate) usage: Option<Box<ProcessUsage>>,
    /// The last notice sent: one is sent only if it differs.
    pub(super) notice: Option<RingNotice>,
    /// When anything was last heard of it.
    pub(super) heard: Duration,
    /// Beats that were sent to it, and have no answer.
    pub(super) unanswered_beats: u32,
    pub(super) reads: Lane<QueuedRead, Vec<QueuedRead>>,
    /// To each of its copies; only one that leads gets any.
    writes: [Lane<QueuedWrite, WriteFlight>; 2],
    /// Whether it had persisted a view of the formed ring when it registered; an emptied process has
    /// forgotten it.
    registered_with_view: bool,
    /// Of the view that it has persisted.
    pub(super) epoch: u64,
    /// Since when it is to stop.
    pub(super) leaving: Option<Duration>,
    /// Whether it was released.
    pub(super) released: bool,
}

/// A read on its way to one copy.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueuedRead {
    pub(super) request: RequestId,
    pub(super) role: Role,
    pub(super) id: UserId,
}

/// A write on its way to the leader.
#[derive(Debug)]
pub(super) struct QueuedWrite {
    pub(super) request: RequestId,
    pub(super) write: Write,
    /// Whether it was sent before, to a leader that was lost: it may have been applied.
    pub(super) sent: bool,
}

/// A frame of writes whose outcomes are not known yet.
#[derive(Debug)]
pub(super) struct WriteFlight {
    /// When it left.
    pub(super) since: Duration,
    pub(super) requests: Vec<RequestId>,
    pub(super) batch: Arc<WriteBatch>,
}

impl WriteFlight {
    /// The writes again, to be sent to another leader.
    fn into_queued(self) -> impl Iterator<Item = QueuedWrite> {
        let writes = Arc::unwrap_or_clone(self.batch).writes;
        let requests = self.requests.into_iter();
        requests.zip(writes).map(|(request, write)| QueuedWrite { request, write, sent: true })
    }
}

impl Session {
    pub(super) fn new(
        id: SessionId,
        host: String,
        register: protocol::message::link::Register,
        now: Duration,
    ) -> Self {
        Self {
            id,
            instance: register.instance,
            host,
            incarnation: register.incarnation,
            replication: register.replication,
            ring: register.ring,
            copies: register.copies,
            asked: [0; 2],
            following: None,
            usage: None,
            notice: None,
            heard: now,
            unanswered_beats: 0,
            reads: Lane::new(READ_WINDOW),
            writes: [Lane::new(WRITE_WINDOW), Lane::new(WRITE_WINDOW)],
            registered_with_view: register.ring.is_some_and(|ring| ring.formed),
            epoch: register.view.epoch,
            leaving: None,
            released: false,
        }
    }

    /// Whether the view that it registered with is the newest that it ever received. Where a copy was rolled
    /// back, the view may have been as well.
    pub(super) fn remembers(&self) -> bool {
        self.registered_with_view && Role::ALL.iter().all(|&role| self.copies.get(role).rollback.is_none())
    }

    /// What it said of one of its copies. A copy is not complete before it has answered what is known of its
    /// disk.
    pub(super) fn report(&self, role: Role) -> CopyReport {
        let mut report = *self.copies.get(role);
        report.complete &= self.asked[role as usize] == 0;
        report
    }

    /// The lane to one of its copies.
    pub(super) fn writes(&mut self, role: Role) -> &mut Lane<QueuedWrite, WriteFlight> {
        &mut self.writes[role as usize]
    }

    /// Takes back the writes of that copy that have no answer, in version order.
    pub(super) fn take_writes(&mut self, role: Role) -> VecDeque<QueuedWrite> {
        let lane = std::mem::replace(self.writes(role), Lane::new(WRITE_WINDOW));
        let (queue, flights) = lane.abandon();
        flights.flat_map(WriteFlight::into_queued).chain(queue).collect()
    }

    /// Whether no write is queued for that copy or in flight to it.
    pub(super) fn is_drained(&self, role: Role) -> bool {
        self.writes[role as usize].is_empty()
    }

    /// For how long it has not answered the oldest writes that were sent to it; zero where none are in
    /// flight.
    pub(super) fn owes_for(&self, now: Duration) -> Duration {
        let oldest = Role::ALL.into_iter().filter_map(|role| self.oldest_writes(role));
        oldest.map(|(_, since)| now.saturating_sub(since)).max().unwrap_or_default()
    }

    /// The oldest writes that a copy has not answered: the number of the frame, and when it left.
    pub(super) fn oldest_writes(&self, role: Role) -> Option<(u64, Duration)> {
        self.writes[role as usize].oldest().map(|flight| (flight.batch.batch, flight.since))
    }

    /// For so long neither silence nor a late answer said anything.
    pub(super) fn extend_deadlines(&mut self, stall: Duration, now: Duration) {
        let flights = self.writes.iter_mut().flat_map(Lane::flights_mut);
        let times = flights.map(|flight| &mut flight.since).chain([&mut self.heard]);
        times.for_each(|time| *time = (*time + stall).min(now));
    }

    /// Where its neighbours find it.
    pub(super) fn peer(&self) -> Peer {
        Peer {
            instance: self.instance.clone(),
            host: self.replication.host.clone().unwrap_or_else(|| self.host.clone()),
            port: self.replication.port,
        }
    }
}
