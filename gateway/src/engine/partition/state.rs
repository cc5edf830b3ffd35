//! The phases of a partition, and the transitions between them. Each transition asserts what has to be true
//! before it.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::ops::Deref;
use std::time::Duration;

use protocol::Version;
use protocol::message::link::{CopyReport, FlushPoint, Found, Role};
use protocol::message::query::Answer;
use uuid::Uuid;

use super::super::event::{RequestId, SessionId};
use super::super::session::QueuedWrite;
use super::coverage::{ConnectedCopy, Coverage};
use super::open_writes::OpenWrites;
use super::pace::Pace;

/// See the module.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(super) state: PartitionState,
    pub(super) coverage: Coverage,
    pub(super) open: OpenWrites,
    /// While a copy is about to lead: whether it answers reads already. Nothing is decided then, so it needs
    /// only what was acknowledged.
    pub(super) candidate_serves_reads: bool,
    /// The same of the old leader, in a move: it is there, and has everything as well.
    pub(super) old_leader_serves_reads: bool,
    /// The copy that does not lead, or is about to, got the tail up to this entry from this gateway.
    pub(super) preloaded_upto: u64,
    /// Part of the tail that is on its way there ahead of any promotion.
    pub(super) preload: Option<TailPreload>,
    /// Answers that show unanswered writes, by the newest such write.
    pub(super) deferred: BTreeMap<Version, Vec<(RequestId, DeferredAnswer)>>,
    /// Reads that only a silent leader could answer, until the other copy has the tail.
    pub(super) reads_awaiting_tail: Vec<RequestId>,
    /// Reads and questions that wait until it is settled which copy leads.
    pub(super) reads_awaiting_leader: Vec<RequestId>,
    /// Writes that wait for the same, in version order.
    pub(super) buffered_writes: VecDeque<QueuedWrite>,
    /// What the primary and the replica have said to be on their disks.
    pub(super) flushed: [Option<FlushPoint>; 2],
    /// Which of the copies is slow.
    pub(in crate::engine) pace: Pace,
}

/// What others may read of a partition. Only its own transitions change it.
#[derive(Debug)]
pub(crate) struct PartitionState {
    /// Whether there is another copy at all. In a ring of one nothing is ever replicated.
    pub(crate) replicated: bool,
    /// The leader or the candidate, as in the view.
    pub(crate) leader: Role,
    /// Whether the view is known to be right about this partition: no newer one can come from a process that
    /// is away.
    pub(in crate::engine) known: bool,
    /// Epoch of the view that last changed its leader.
    pub(in crate::engine) decided: u64,
    /// Whether enough processes have persisted that view, at any time.
    pub(in crate::engine) persisted: bool,
    /// A newer view says that the other copy is about to lead, which is not so yet.
    pub(in crate::engine) announced: Option<Announced>,
    pub(in crate::engine) phase: Phase,
    /// Whether the other copy may answer reads of settled users.
    pub(crate) other_is_current: bool,
    /// Since when requests wait for a copy to come back, where they do.
    pub(in crate::engine) waits_since: Option<Duration>,
    /// Writes are buffered until then, so that the copies can be compared.
    pub(in crate::engine) paused_until: Option<Duration>,
    /// A move that was given up is not tried again before.
    pub(in crate::engine) move_after: Duration,
    /// Incarnation of a copy that was rolled back and that the operator accepts as it is.
    pub(in crate::engine) accepted: Option<Uuid>,
}

impl Deref for Partition {
    type Target = PartitionState;

    fn deref(&self) -> &PartitionState {
        &self.state
    }
}

/// What a partition is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No copy that is there is known to hold every acknowledged write: requests are refused, or wait for a
    /// while in case one comes back (`waits_since`).
    Down,
    /// The leader serves.
    Serving { leader: SessionId },
    /// The leader serves reads and finishes the writes that it has; new ones are buffered until the other
    /// copy has all, and leads.
    Draining { leader: SessionId, since: Duration },
    /// The copy that the view names as leader does not serve before enough processes have persisted that
    /// view, and before it has the tail. Reads wait and writes are buffered.
    Confirming {
        candidate: SessionId,
        /// Number of the last frame of the tail, while it is not confirmed.
        merging: Option<u64>,
        since: Duration,
    },
}

/// A move that the processes learn of before it begins.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Announced {
    /// Of the view that says so.
    pub(in crate::engine) epoch: u64,
    pub(in crate::engine) since: Duration,
}

/// Part of the tail on its way to a copy that does not lead.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct TailPreload {
    /// Connection of that copy.
    pub(in crate::engine) session: SessionId,
    /// Number of the last frame.
    pub(in crate::engine) batch: u64,
    /// The tail up to this entry.
    pub(in crate::engine) upto: u64,
}

/// An answer that waits until the writes that it shows are answered.
#[derive(Debug)]
pub(in crate::engine) enum DeferredAnswer {
    /// By the copy of that role.
    Read(Role, Option<Found>),
    Question(Answer),
}

impl Partition {
    pub(in crate::engine) fn new(replicated: bool, tail_bytes: usize) -> Self {
        Self {
            state: PartitionState {
                replicated,
                leader: Role::Primary,
                known: false,
                decided: 0,
                persisted: false,
                announced: None,
                phase: Phase::Down,
                other_is_current: false,
                waits_since: None,
                paused_until: None,
                move_after: Duration::ZERO,
                accepted: None,
            },
            coverage: Coverage::new(tail_bytes),
            open: OpenWrites::default(),
            candidate_serves_reads: false,
            old_leader_serves_reads: false,
            preloaded_upto: 0,
            preload: None,
            deferred: BTreeMap::new(),
            reads_awaiting_tail: Vec::new(),
            reads_awaiting_leader: Vec::new(),
            buffered_writes: VecDeque::new(),
            flushed: [None; 2],
            pace: Pace::default(),
        }
    }

    /// Whether no copy leads it.
    pub(crate) fn is_down(&self) -> bool {
        self.phase == Phase::Down
    }

    /// Whether a copy serves reads and a leader is known.
    pub(in crate::engine) fn serves(&self) -> bool {
        self.leader_session().is_some()
    }

    /// Connection of the leader that serves.
    pub(in crate::engine) fn leader_session(&self) -> Option<SessionId> {
        match self.phase {
            Phase::Serving { leader } | Phase::Draining { leader, .. } => Some(leader),
            Phase::Confirming { .. } | Phase::Down => None,
        }
    }

    /// Whether no copy leads it, and requests are refused.
    pub(in crate::engine) fn refuses(&self) -> bool {
        self.is_down() && self.waits_since.is_none()
    }

    /// Whether this gateway has relied on its view of the partition.
    pub(in crate::engine) fn is_decided(&self) -> bool {
        self.last_leader().is_some() || !self.is_down()
    }

    /// The role of the last copy that led: it holds every acknowledged write.
    pub(in crate::engine) fn last_leader(&self) -> Option<Role> {
        self.coverage.last_leader()
    }

    /// The view is known to be right about this partition.
    pub(in crate::engine) fn set_known(&mut self) {
        self.state.known = true;
    }

    /// Takes over what a newer view says, by a process that has just registered.
    pub(in crate::engine) fn learn(&mut self, leader: Role, epoch: u64) {
        assert!(!self.is_decided(), "this gateway has relied on its own view");
        (self.state.leader, self.state.decided, self.state.persisted) = (leader, epoch, false);
    }

    /// Enough processes have persisted the view that names the leader.
    pub(in crate::engine) fn set_persisted(&mut self) {
        self.state.persisted = true;
    }

    /// A view of that epoch says that the other copy is about to lead.
    pub(in crate::engine) fn announce(&mut self, epoch: u64, now: Duration) {
        assert!(matches!(self.phase, Phase::Serving { .. }), "only a leader that serves can be moved");
        assert!(self.announced.is_none(), "a partition has one move at a time");
        self.state.announced = Some(Announced { epoch, since: now });
    }

    /// A move that was announced takes place, or is given up.
    pub(in crate::engine) fn take_announced(&mut self) -> Option<Announced> {
        self.state.announced.take()
    }

    /// A move is not tried again before.
    pub(in crate::engine) fn move_not_before(&mut self, time: Duration) {
        self.state.move_after = time;
    }

    /// The view of that epoch names the copy that is to lead.
    pub(in crate::engine) fn name_leader(&mut self, leader: Role, epoch: u64) {
        assert!(self.announced.is_none(), "what was announced has taken place or is given up");
        (self.state.leader, self.state.decided, self.state.persisted) = (leader, epoch, false);
    }

    /// A move has begun: the leader finishes what it was sent. `queued` has not left.
    pub(in crate::engine) fn drain(&mut self, queued: VecDeque<QueuedWrite>, now: Duration) {
        let Phase::Serving { leader } = self.phase else { panic!("only a leader that serves can drain") };
        assert!(self.announced.is_some(), "a move is announced before it begins");
        self.state.phase = Phase::Draining { leader, since: now };
        self.buffer_first(queued);
    }

    /// A move has come to nothing: the leader goes on.
    pub(in crate::engine) fn end_drain(&mut self) {
        let Phase::Draining { leader, .. } = self.phase else { panic!("only a move can come to nothing") };
        self.state.phase = Phase::Serving { leader };
    }

    /// The copy that the view names is to lead, as soon as its view is persisted and the frame `merging` is
    /// merged. Which copies answer reads until then: the candidate, and the old leader.
    pub(in crate::engine) fn begin_confirming(
        &mut self,
        candidate: SessionId,
        merging: Option<u64>,
        reads: [bool; 2],
        now: Duration,
    ) {
        assert!(self.announced.is_none(), "the view names the candidate");
        self.state.phase = Phase::Confirming { candidate, merging, since: now };
        [self.candidate_serves_reads, self.old_leader_serves_reads] = reads;
    }

    /// A copy has merged that frame. Returns whether it is the candidate, and has the whole tail now.
    pub(in crate::engine) fn candidate_merged(&mut self, from: SessionId, batch: u64) -> bool {
        match &mut self.state.phase {
            Phase::Confirming { candidate, merging, .. } if (*candidate, *merging) == (from, Some(batch)) => {
                *merging = None;
                self.preloaded_upto = self.preloaded_upto.max(self.coverage.tail().head());
                true
            }
            _ => false,
        }
    }

    /// The candidate leads from now on.
    pub(in crate::engine) fn serve(&mut self, leader: ConnectedCopy, other: Option<&CopyReport>) {
        let ConnectedCopy { session, report } = leader;
        let Phase::Confirming { candidate, merging: None, .. } = self.phase else {
            panic!("a copy leads when it has the tail");
        };
        assert_eq!(candidate, session, "the copy that leads is the candidate");
        assert!(self.persisted, "a copy leads by a view that is persisted");
        let moved_from = other.filter(|_| self.old_leader_serves_reads).map(|other| other.incarnation);
        if let Some(left) = self.coverage.lead(self.leader, &report, moved_from) {
            self.tail_restarted(left);
        }
        self.state.phase = Phase::Serving { leader: session };
        self.state.waits_since = None;
        self.compare(Some(&report), other);
    }

    /// No copy leads from now on. Requests may wait where this gateway has seen the partition served, so that
    /// it knows the newest version in it: those that wait have versions already.
    pub(in crate::engine) fn go_down(&mut self, now: Duration) {
        if !self.is_down() && self.last_leader().is_some() {
            self.state.waits_since.get_or_insert(now);
        }
        self.state.phase = Phase::Down;
        self.state.announced = None;
        self.compare(None, None);
    }

    /// What waits is refused now. Returns the writes.
    pub(in crate::engine) fn refuse(&mut self) -> VecDeque<QueuedWrite> {
        self.state.waits_since = None;
        mem::take(&mut self.buffered_writes)
    }

    /// The operator gives up what only the last leader may have. `accepted`: a copy that was rolled back, and
    /// is accepted as it is.
    pub(in crate::engine) fn accept_loss(&mut self, accepted: Option<Uuid>) {
        assert!(self.is_down(), "nothing has to be given up while a copy leads");
        self.state.known = true;
        self.state.accepted = accepted.or(self.accepted);
        self.coverage.forget_last_leader();
    }

    /// The gateway stood still for so long.
    pub(in crate::engine) fn extend_deadlines(&mut self, stall: Duration, now: Duration) {
        if let Some(since) = &mut self.state.waits_since {
            *since = (*since + stall).min(now);
        }
        self.pace.extend_deadlines(stall, now);
    }

    /// What a copy has said to be on its disk.
    pub(in crate::engine) fn flushed(&self, role: Role) -> Option<FlushPoint> {
        self.flushed[role as usize]
    }

    /// A copy has said what is on its disk.
    pub(in crate::engine) fn note_flushed(&mut self, role: Role, point: FlushPoint) {
        FlushPoint::advance(&mut self.flushed[role as usize], point);
    }
}
