//! One partition: who leads it, who may answer its reads, and what its other copy is not known to have.
//!
//! The *lead* is the copy that takes the writes: the primary, or the replica while the primary is away. The
//! other copy follows it and answers reads. Five things keep reads truthful:
//!
//! * *Unsettled* users: those with a write that the other copy is not known to have (queued, in flight, or in
//!   the tail). Their reads go to the lead. If that is silent or slow, the other copy may answer them too as
//!   soon as it has all of their writes that were *acknowledged*: a write without an answer may as well come
//!   after the read. So what it lacks of the tail is handed to it *ahead* of any promotion (see `failover`).
//! * *Unanswered* writes: the lead may show a write to a reader before its answer has come here, and be lost
//!   with it. Then nobody else knows of that write. So what shows an unanswered write is told when the write
//!   is answered. What the other copy shows it has from the lead's op-log, so both have it, and it is told at
//!   once.
//! * The *target*: when a copy registers, the other one answers no reads until it has applied the lead's
//!   op-log as it stood then. Whatever happened while one of them was away is below the target.
//! * The *exchange*: a copy that led before may hold writes that nobody was told of. Until the lead has them
//!   too, one reader could see them and the next one not; so the lead has to have applied the other's op-log
//!   to its end.
//! * The *tail*: when the lead is lost, the other copy is handed every acknowledged write that it may lack
//!   before it leads. Where the tail does not reach back to what it has, it does not lead: a late truth is no
//!   truth.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use protocol::message::link::{CopyReport, FlushPoint, Found, Role, Versioned, Write};
use protocol::mutation::{self, Mutation};
use protocol::{Operation, UserId, Version};
use uuid::Uuid;

use super::event::{RequestId, SessionId};
use super::pace::Pace;
use super::replication::Replication;
use super::session::QueuedWrite;
use super::tail::Tail;

/// A copy that lacks no more than this many writes may take the lead while the leader is there.
const ALMOST: u64 = 512;

/// Room for so many unsettled users is kept. While the other copy is away there may be hundreds of thousands.
const USUAL: usize = 8_192;

/// See the module.
#[derive(Debug)]
pub(crate) struct Partition {
    /// False in a ring of one: there is no other copy, so nothing is ever replicated.
    replicated: bool,
    /// As in the view.
    pub(crate) lead: Role,
    /// Whether the view is known to be right about this partition: no newer one can come from a process that
    /// is away.
    pub(super) known: bool,
    /// Epoch of the view that last changed its lead.
    pub(super) decided: u64,
    /// Whether that view has been kept by enough processes at any time.
    pub(super) kept: bool,
    /// A newer view says that the other copy is about to lead, which is not so yet.
    pub(super) announced: Option<Announced>,
    pub(super) phase: Phase,
    /// Connection of the lead that serves.
    pub(super) lead_session: Option<SessionId>,
    /// The op-log of the last copy that led in earnest; `None` until one was seen.
    log: Option<LeadLog>,
    tail: Tail,
    /// Writes that the other copy is not known to have, by user; users with none are absent. Never iterated.
    unsettled: HashMap<UserId, Unsettled>,
    /// Writes that no lead has answered.
    unanswered: BTreeMap<Version, Unanswered>,
    /// The newest unanswered delete of a user: no answer to a read carries its version. Never iterated.
    deleting: HashMap<UserId, Version>,
    /// Whether the other copy may answer reads.
    other_reads: bool,
    /// While a copy is about to lead: whether it answers reads already. Nobody decides anything then, so all
    /// that it has to have is what was acknowledged.
    pub(super) reads_meanwhile: bool,
    /// The same of the last lead, in a move: it is there, and has everything as well.
    pub(super) last_lead_reads: bool,
    /// The copy that does not lead, or is about to, has the tail up to this entry, handed to it by this
    /// gateway.
    handed: u64,
    /// What is on its way there ahead of any promotion.
    pub(super) ahead: Option<Ahead>,
    /// Reads that only a silent lead could answer. They are tried again until another copy may.
    pub(super) stuck: Vec<RequestId>,
    /// Reads that wait until it is settled who leads.
    pub(super) waiting: Vec<RequestId>,
    /// Writes that wait for the same, in version order.
    pub(super) held: VecDeque<QueuedWrite>,
    /// Since when requests wait for a copy to come back, where they do.
    pub(super) waits_since: Option<Duration>,
    /// Writes are held until then, so that the copies can be compared.
    pub(super) hold_until: Option<Duration>,
    /// A move that came to nothing is not tried again before.
    pub(super) move_after: Duration,
    /// What the primary and the replica have said to be on their disks.
    flushed: [Option<FlushPoint>; 2],
    /// Incarnation of a copy that was rolled back and that the operator accepts as it is.
    pub(super) accepted: Option<Uuid>,
    pub(crate) replication: Replication,
    /// Which of the copies is slow.
    pub(crate) pace: Pace,
}

/// What a partition is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No copy that is there is known to hold every acknowledged write: requests are refused, or wait for a
    /// while in case one comes back (`waits_since`).
    Down,
    /// The lead serves.
    Serving,
    /// The lead serves reads and finishes the writes that it has; new ones are held until the other copy has
    /// all, and leads.
    Draining {
        /// When it began.
        since: Duration,
    },
    /// The copy that the view names as lead does not serve before enough processes keep that view, and before
    /// it has the tail. Reads wait and writes are held.
    Confirming {
        /// Connection of the copy that is to lead.
        session: SessionId,
        /// Number of the last frame of the tail, while it is not confirmed.
        merging: Option<u64>,
        /// When it began.
        since: Duration,
    },
}

/// A move that everybody is told of before it begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Announced {
    /// Of the view that says so.
    pub(super) epoch: u64,
    pub(super) since: Duration,
}

/// Part of the tail on its way to a copy that does not lead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ahead {
    /// Connection of that copy.
    pub(super) session: SessionId,
    /// Number of the last frame.
    pub(super) batch: u64,
    /// The tail up to this entry.
    pub(super) upto: u64,
}

/// The writes of one user that the other copy is not known to have.
#[derive(Debug, Clone, Copy, Default)]
struct Unsettled {
    /// How many have no answer.
    unanswered: u32,
    /// How many are in the tail.
    acknowledged: u32,
    /// Op-log entry of the last one of those.
    newest: u64,
}

/// A write that no lead has answered.
#[derive(Debug)]
struct Unanswered {
    id: UserId,
    /// Whether it was sent to a lead that was lost: the other copy may be the one that took it, and the only
    /// one.
    resent: bool,
    /// The reads that saw it.
    seen: Vec<SeenEarly>,
}

/// The answer to a read, while nobody may know what it shows.
#[derive(Debug)]
pub(super) struct SeenEarly {
    pub(super) request: RequestId,
    pub(super) role: Role,
    pub(super) found: Option<Found>,
}

#[derive(Debug, Clone, Copy)]
struct LeadLog {
    /// Whose it is.
    role: Role,
    incarnation: Uuid,
    /// See the module.
    target: u64,
    /// The copy that handed the lead over when this op-log had no entry: it has everything from before the
    /// first one, though it may not have followed this op-log yet.
    from: Option<Uuid>,
}

/// A connected copy, as far as the partition cares.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectedCopy {
    pub(super) session: SessionId,
    pub(super) report: CopyReport,
}

impl Partition {
    pub(super) fn new(replicated: bool, tail_bytes: usize) -> Self {
        Self {
            replicated,
            lead: Role::Primary,
            known: false,
            decided: 0,
            kept: false,
            announced: None,
            phase: Phase::Down,
            lead_session: None,
            log: None,
            tail: Tail::new(tail_bytes),
            unsettled: HashMap::new(),
            unanswered: BTreeMap::new(),
            deleting: HashMap::new(),
            other_reads: false,
            reads_meanwhile: false,
            last_lead_reads: false,
            handed: 0,
            ahead: None,
            stuck: Vec::new(),
            waiting: Vec::new(),
            held: VecDeque::new(),
            waits_since: None,
            hold_until: None,
            move_after: Duration::ZERO,
            flushed: [None; 2],
            accepted: None,
            replication: Replication::default(),
            pace: Pace::default(),
        }
    }

    /// Whether there is another copy at all.
    pub(crate) fn is_replicated(&self) -> bool {
        self.replicated
    }

    /// Whether no copy leads it.
    pub(crate) fn is_down(&self) -> bool {
        self.phase == Phase::Down
    }

    /// Whether a copy serves reads now.
    pub(super) fn serves(&self) -> bool {
        matches!(self.phase, Phase::Serving | Phase::Draining { .. })
    }

    /// Whether no copy leads it, and requests are refused.
    pub(super) fn refuses(&self) -> bool {
        self.phase == Phase::Down && self.waits_since.is_none()
    }

    /// No copy leads from now on. Requests may wait where this gateway has seen the partition served, so that
    /// it knows the newest version in it: those that wait have versions already.
    pub(super) fn go_down(&mut self, now: Duration) {
        if self.phase != Phase::Down && self.log.is_some() {
            self.waits_since.get_or_insert(now);
        }
        self.phase = Phase::Down;
        self.lead_session = None;
        self.announced = None;
        self.exchanged(None, None);
    }

    /// Whether this gateway has relied on its view of the partition.
    pub(super) fn is_decided(&self) -> bool {
        self.log.is_some() || self.phase != Phase::Down
    }

    /// The role of the last copy that led in earnest: it holds every acknowledged write.
    pub(super) fn last_lead(&self) -> Option<Role> {
        self.log.map(|log| log.role)
    }

    /// What a copy has said to be on its disk.
    pub(super) fn flushed(&self, role: Role) -> Option<FlushPoint> {
        self.flushed[role as usize]
    }

    /// A copy has said what is on its disk.
    pub(super) fn hear_flushed(&mut self, role: Role, point: FlushPoint) {
        FlushPoint::advance(&mut self.flushed[role as usize], point);
    }

    /// Which copy answers the reads of this user, if any may now.
    pub(super) fn reader(&self, id: &UserId) -> Option<Role> {
        let settled = !self.unsettled.contains_key(id) || mutation::is(Mutation::ReadUnsettled);
        match self.phase {
            _ if self.serves() => {
                let other = self.other_reads && settled && !self.pace.is_slow(self.lead.other());
                Some(if other { self.lead.other() } else { self.lead })
            }
            Phase::Confirming { .. } => Role::ALL.into_iter().find(|&role| self.may_read(role, id)),
            _ => None,
        }
    }

    /// Whether the copy of that role may answer the reads of this user now.
    pub(super) fn may_read(&self, role: Role, id: &UserId) -> bool {
        match self.phase {
            Phase::Serving | Phase::Draining { .. } => {
                role == self.lead || self.other_reads && !self.lacks(id)
            }
            Phase::Confirming { .. } if role == self.lead => self.reads_meanwhile && !self.lacks(id),
            Phase::Confirming { .. } => self.last_lead_reads,
            Phase::Down => false,
        }
    }

    /// Whether the tail has writes of this user that the copy may lack which does not lead, or is about to.
    fn lacks(&self, id: &UserId) -> bool {
        let unsettled = self.unsettled.get(id);
        unsettled.is_some_and(|writes| writes.acknowledged > 0 && writes.newest > self.handed)
    }

    /// Which copy answers questions about all users, while one serves.
    pub(super) fn lister(&self) -> Role {
        let other = self.other_may_list() && !self.pace.is_slow(self.lead.other());
        if other { self.lead.other() } else { self.lead }
    }

    /// Whether the other copy may answer questions about all users: nobody may be unsettled.
    pub(super) fn other_may_list(&self) -> bool {
        self.other_reads && (self.unsettled.is_empty() || mutation::is(Mutation::ReadUnsettled))
    }

    /// Whether the other copy may answer reads of users without unsettled writes.
    pub(crate) fn other_is_current(&self) -> bool {
        self.other_reads
    }

    pub(crate) fn unreplicated(&self) -> usize {
        self.tail.len()
    }

    /// When the oldest write was acknowledged that the other copy is not known to have.
    pub(crate) fn oldest_unreplicated(&self) -> Option<Duration> {
        self.tail.oldest()
    }

    /// A write was taken on.
    pub(super) fn take_on(&mut self, write: &Write) {
        if self.replicated {
            self.unsettled.entry(write.id).or_default().unanswered += 1;
            let unanswered = Unanswered { id: write.id, resent: false, seen: Vec::new() };
            self.unanswered.insert(write.version, unanswered);
            if write.operation == Operation::Delete {
                self.deleting.insert(write.id, write.version);
            }
        }
    }

    /// A write was answered, or is given up. Returns the reads that saw it before.
    pub(super) fn answered(&mut self, id: UserId, version: Version) -> Vec<SeenEarly> {
        if self.deleting.get(&id) == Some(&version) {
            self.deleting.remove(&id);
        }
        self.unanswered.remove(&version).map(|unanswered| unanswered.seen).unwrap_or_default()
    }

    /// The oldest write that no lead has answered.
    pub(super) fn first_unanswered(&self) -> Option<Version> {
        self.unanswered.keys().next().copied()
    }

    /// The newest write that no lead has answered of the users that fit.
    pub(super) fn last_unanswered(&self, fit: impl Fn(&UserId) -> bool) -> Option<Version> {
        let fitting = self.unanswered.iter().rev().find(|(_, unanswered)| fit(&unanswered.id));
        fitting.map(|(version, _)| *version)
    }

    /// A write without an answer was sent to a lead that is lost now.
    pub(super) fn sent_in_vain(&mut self, version: Version) {
        if let Some(write) = self.unanswered.get_mut(&version) {
            write.resent = true;
        }
    }

    /// Keeps the answer to a read that may show an unanswered write, until that is answered. Gives it back if
    /// it may be told.
    pub(super) fn keep_early(&mut self, id: UserId, seen: SeenEarly) -> Option<SeenEarly> {
        let version = seen.found.as_ref().map(|found| found.0).or_else(|| self.deleting.get(&id).copied());
        let version = version.filter(|_| !mutation::is(Mutation::ReadUnanswered));
        match version.and_then(|version| self.unanswered.get_mut(&version)) {
            Some(unanswered) if seen.role == self.lead || unanswered.resent => {
                unanswered.seen.push(seen);
                None
            }
            _ => Some(seen),
        }
    }

    /// A write of the user that had no answer is known to be at the other copy, or was not applied, or is
    /// given up.
    pub(super) fn settle(&mut self, id: UserId) {
        self.change_unsettled(id, |writes| writes.unanswered -= 1);
    }

    /// A write of the user is in the tail no more: it is known to be at the other copy, or covered by the
    /// target.
    fn leaves_tail(&mut self, id: UserId) {
        self.change_unsettled(id, |writes| writes.acknowledged -= 1);
    }

    fn change_unsettled(&mut self, id: UserId, change: impl FnOnce(&mut Unsettled)) {
        if let Entry::Occupied(mut entry) = self.unsettled.entry(id) {
            let writes = entry.get_mut();
            change(writes);
            if (writes.unanswered, writes.acknowledged) == (0, 0) {
                entry.remove();
            }
        }
        if self.unsettled.is_empty() && self.unsettled.capacity() > USUAL {
            self.unsettled.shrink_to(USUAL);
        }
    }

    /// The lead has acknowledged a write that it applied.
    pub(super) fn acknowledge(
        &mut self,
        now: Duration,
        sequence: u64,
        write: Versioned,
        other: Option<&CopyReport>,
    ) {
        if !self.replicated {
            return;
        }
        if sequence <= self.tail.head() {
            // An operation that was sent again, answered from memory: the other copy is where it came from.
            return self.settle(write.id);
        }
        if self.applied_by(other) >= Some(sequence) {
            // The other copy was faster than the answer, so it has all before it as well.
            self.settle(write.id);
            return self.restart_tail(sequence);
        }
        self.change_unsettled(write.id, |writes| {
            writes.unanswered -= 1;
            writes.acknowledged += 1;
            writes.newest = sequence;
        });
        for id in self.tail.push(now, sequence, write) {
            // What the tail lets go, only the op-log can bring: the other copy is not current until it has
            // it.
            self.raise_target(self.tail.base());
            self.other_reads = false;
            self.leaves_tail(id);
        }
    }

    /// One of the copies has applied more of the other's op-log, or the other copy has come or gone.
    pub(super) fn exchanged(&mut self, lead: Option<&CopyReport>, other: Option<&CopyReport>) {
        if let Some(applied) = self.applied_by(other) {
            for id in self.tail.release(applied) {
                self.leaves_tail(id);
            }
        }
        self.other_reads = self.serves()
            && other.is_some_and(|report| report.complete)
            && (self.applied_by(other) >= Some(self.log.map_or(u64::MAX, |log| log.target))
                || mutation::is(Mutation::TargetIgnored))
            && has_all_of(lead, other);
    }

    /// The other copy has come back, perhaps with less than it had: it has to reach the lead as it stands.
    pub(super) fn other_arrived(&mut self) {
        self.raise_target(self.tail.head());
    }

    /// One of the copies has come, and what was handed to it before counts no longer.
    pub(super) fn forget_handed(&mut self) {
        self.handed = 0;
        self.ahead = None;
        self.last_lead_reads = false;
    }

    /// The copy that does not lead, or is about to, has merged the tail up to this entry.
    pub(super) fn has_merged(&mut self, upto: u64) {
        self.handed = self.handed.max(upto);
    }

    /// The newest entry of the tail.
    pub(super) fn tail_head(&self) -> u64 {
        self.tail.head()
    }

    /// A copy serves as the lead from now on.
    pub(super) fn serve(&mut self, role: Role, lead: ConnectedCopy, other: Option<&CopyReport>) {
        let ConnectedCopy { session, report } = lead;
        let same_log = self.log.is_some_and(|log| log.incarnation == report.incarnation);
        let from = match self.log {
            Some(log) if same_log => log.from,
            _ if mutation::is(Mutation::HandedUnknown) => None,
            _ if self.last_lead_reads && report.head == 0 => other.map(|last_lead| last_lead.incarnation),
            _ => None,
        };
        if !(same_log && self.tail.head() == report.head) {
            // Writes whose answers never came are in there, or it is another log: only the target covers
            // them.
            self.restart_tail(report.head);
        }
        self.log = Some(LeadLog { role, incarnation: report.incarnation, target: report.head, from });
        self.lead = role;
        self.lead_session = Some(session);
        self.phase = Phase::Serving;
        self.waits_since = None;
        self.exchanged(Some(&report), other);
    }

    /// Forgets who led last: the operator gives up what only that copy may have.
    pub(super) fn give_up_last_lead(&mut self) {
        self.log = None;
    }

    /// Whether a copy, together with the tail, has every acknowledged write of the last lead.
    pub(super) fn covers(&self, copy: &CopyReport) -> bool {
        let covered = self.applied_by(Some(copy)) >= Some(self.tail.base());
        copy.complete && (covered || mutation::is(Mutation::PromoteUncovered))
    }

    /// What a copy lacks of the tail.
    pub(super) fn lacking(&self, copy: &CopyReport) -> Vec<Versioned> {
        self.tail.after(self.applied_by(Some(copy)).unwrap_or(0)).cloned().collect()
    }

    /// What a copy lacks of the tail that was not handed to it already.
    pub(super) fn not_handed(&self, copy: &CopyReport) -> Vec<Versioned> {
        let has = self.applied_by(Some(copy)).unwrap_or(0).max(self.handed);
        self.tail.after(has).cloned().collect()
    }

    /// How many acknowledged writes a copy lacks; `None` where that is not known.
    pub(crate) fn lag(&self, copy: &CopyReport) -> Option<u64> {
        Some(self.tail.head().saturating_sub(self.applied_by(Some(copy))?))
    }

    /// Whether a copy lacks so little that it may lead in a moment.
    pub(super) fn is_almost(&self, copy: &CopyReport) -> bool {
        self.lag(copy).is_some_and(|lag| lag <= ALMOST)
    }

    /// How far a copy has the op-log of the last lead, as far as that is known.
    fn applied_by(&self, copy: Option<&CopyReport>) -> Option<u64> {
        let (log, copy) = (self.log?, copy?);
        match copy.position {
            Some(position) if position.incarnation == log.incarnation => Some(position.sequence),
            _ => (log.from == Some(copy.incarnation)).then_some(0),
        }
    }

    fn raise_target(&mut self, sequence: u64) {
        if let Some(log) = &mut self.log {
            log.target = log.target.max(sequence);
        }
    }

    fn restart_tail(&mut self, sequence: u64) {
        for id in self.tail.restart(sequence).collect::<Vec<_>>() {
            self.leaves_tail(id);
        }
        self.forget_handed();
    }
}

/// Whether `reader` has applied all of the op-log of `source`. While it does not lead, that has a fixed end.
pub(super) fn has_all_of(reader: Option<&CopyReport>, source: Option<&CopyReport>) -> bool {
    let (Some(reader), Some(source)) = (reader, source) else { return false };
    let applied = reader.position.filter(|position| position.incarnation == source.incarnation);
    source.head == 0
        || applied.is_some_and(|position| position.sequence >= source.head)
        || mutation::is(Mutation::ExchangeIgnored)
}
