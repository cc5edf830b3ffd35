//! Moving the lead: away from a process that is lost or leaves, and home again.
//!
//! * *Promotion*. The lead is lost. The other copy, if it and the tail together have every acknowledged
//!   write, is made the lead: a view says so (as *promoting*), the tail is handed over, and when the view is
//!   kept and the tail merged, the copy leads. The writes that the lost lead had not answered are sent again,
//!   before all others and with the versions that they had; a copy that knows such a version already answers
//!   from memory.
//! * *Move*. Both copies are there. It is announced by a view that names the other copy as *promoting*; when
//!   enough processes keep that, new writes are held. When the lead has answered those that it has, the other
//!   copy has followed to the end, and all of it is on its disk, it leads, and the held writes go there: one
//!   fsync later, whatever the disks of the others do. A second view says so, as after a promotion. So the
//!   lead goes home to a primary that has come back, and away from a process that was asked to stop.
//!
//! A leader that is much slower than its other copy (see `pace`) is moved away from as well: between two
//! frames, so that nothing has to wait for it any more, and not home again while the primary is the slow one.
//!
//! A process that answers beats but no writes is given up as if it were lost, where others can lead in its
//! place at once.
//!
//! If a move comes to nothing, the last lead leads again, by a newer view. If there is no copy that may lead,
//! the partition is *down*: what was sent is answered as unknown, what was not as refused, and all that comes
//! meanwhile is refused at once. Before that, all of it waits where the gateway itself may be cut off (see
//! `cut_off`).

use std::time::Duration;

use protocol::Operation;
use protocol::message::MAX_BATCH;
use protocol::message::link::{Lead, MergeBatch, Merged, Released, Role, Versioned};
use protocol::mutation::{self, Mutation};
use protocol::placement::Partition as Number;

use super::Engine;
use super::event::{Command, PromotionRefused, SessionId, ToProcess, Unserved};
use super::feed::Settled;
use super::pace::Frame;
use super::partition::{Ahead, Announced, ConnectedCopy, Phase, has_all_of};
use super::session::{QueuedWrite, Session};

/// Writes are held no longer than this for a move; then it is given up.
const DRAIN_WITHIN: Duration = Duration::from_millis(200);

/// The same for a move away from a leader that is slow: what the other copy lacks may come from its disk or
/// over its link.
const DRAIN_SLOW_WITHIN: Duration = Duration::from_secs(1);

/// A move that was announced begins within this time, or is given up.
const BEGIN_WITHIN: Duration = Duration::from_secs(1);

/// The same for a move away from a leader that is slow: it begins when that has answered what it was sent.
const BEGIN_SLOW_WITHIN: Duration = Duration::from_secs(5);

/// A move that was given up is tried again after this time.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A promotion that takes longer than this has failed.
const CONFIRM_WITHIN: Duration = Duration::from_secs(3);

/// When a process wants to go, the lead moves after this time, unless all of them want to go by then.
const LEAVE_AFTER: Duration = Duration::from_millis(40);

/// A copy that lacks more writes than this is not handed them ahead of a promotion: that would be a load of
/// its own.
const AHEAD: usize = 16 * MAX_BATCH;

/// Writes that a lead has not answered for so long hang, with its disk most likely: all else that it does may
/// be well.
const HANGS_AFTER: Duration = Duration::from_secs(2);

/// Who has not answered writes for so long may be about to hang as well, on the same disk perhaps.
const IN_DOUBT_AFTER: Duration = Duration::from_millis(500);

/// A process that wants to go is let go after this time, whatever may still depend on it.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

impl Engine {
    /// Looks at a partition again after one of its processes came, went or changed.
    pub(super) fn reconsider(&mut self, now: Duration, number: Number, commands: &mut Vec<Command>) {
        let index = usize::from(number);
        if !self.open || !self.partitions[index].known {
            return;
        }
        let before = self.shown(number);
        match self.partitions[index].phase {
            Phase::Serving | Phase::Draining { .. } if self.lead_is_there(number) => {}
            Phase::Confirming { session, .. } if self.places.contains_key(&session) => {
                if !self.partitions[index].kept && !self.could_be_kept(number) {
                    self.go_down(now, number, commands);
                }
            }
            _ => self.find_lead(now, number, commands),
        }
        self.advance(now, number, commands);
        if before != self.shown(number) {
            self.report_serving(number, commands);
        }
    }

    /// Goes on with whatever a partition is in the middle of, as far as that is possible now.
    pub(super) fn advance(&mut self, now: Duration, number: Number, commands: &mut Vec<Command>) {
        self.compare_copies(number);
        match self.partitions[usize::from(number)].phase {
            Phase::Serving => self.consider_move(now, number, commands),
            Phase::Draining { since } => self.drain(now, since, number, commands),
            Phase::Confirming { session, merging: None, .. } => self.confirm(number, session, commands),
            Phase::Confirming { .. } | Phase::Down => {}
        }
        self.release_waiting(number, commands);
    }

    /// The lead, if there is one, is gone, or there was none: somebody else may lead.
    fn find_lead(&mut self, now: Duration, number: Number, commands: &mut Vec<Command>) {
        let index = usize::from(number);
        self.partitions[index].lead_session = None;
        // As it was when the lead was last there: it decides nothing more.
        let other_read = self.partitions[index].other_is_current();
        let named = self.view.leads[index];
        // The copy that led last in earnest has everything, whatever was planned since.
        let sound = self.partitions[index].last_lead().or((!named.promoting).then_some(named.role));
        let complete = |copy: &ConnectedCopy| copy.report.complete;
        if let Some(role) = sound {
            if let Some(copy) = self.copy(number, role).filter(complete) {
                if self.awaits_witness(now, number, role) {
                    return self.go_down(now, number, commands);
                }
                let lead = Lead { role, promoting: false };
                if named != lead {
                    self.change_view(number, lead, "it has everything", commands);
                }
                if !self.partitions[index].kept && !self.could_be_kept(number) {
                    return self.go_down(now, number, commands);
                }
                return self.begin_to_confirm(now, number, copy.session, None, commands);
            }
            let other = self.copy(number, role.other());
            if let Some(other) = other.filter(|copy| self.partitions[index].covers(&copy.report))
                && self.could_be_kept(number)
            {
                let mut lacking = self.partitions[index].lacking(&other.report);
                if mutation::is(Mutation::TailNotReplayed) {
                    lacking.clear();
                }
                let lead = Lead { role: role.other(), promoting: true };
                self.change_view(number, lead, "the lead is lost", commands);
                self.begin_to_confirm(now, number, other.session, Some(&lacking), commands);
                self.partitions[index].reads_meanwhile = other_read;
                return;
            }
            if named != (Lead { role, promoting: false }) && self.partitions[index].phase != Phase::Down {
                self.change_view(number, Lead { role, promoting: false }, "nobody else may lead", commands);
            }
        } else if let [Some(primary), Some(replica)] = Role::ALL.map(|role| self.copy(number, role))
            && complete(&primary)
            && complete(&replica)
            && has_all_of(Some(&primary.report), Some(&replica.report))
            && has_all_of(Some(&replica.report), Some(&primary.report))
        {
            // A gateway died in a promotion. Whatever was acknowledged is in one of the copies, so it is in
            // both now.
            let lead = Lead { role: Role::Primary, promoting: false };
            self.change_view(number, lead, "both copies have exchanged what they have", commands);
            return self.begin_to_confirm(now, number, primary.session, Some(&[]), commands);
        }
        self.go_down(now, number, commands);
    }

    /// The copy is to lead as soon as its view is kept. One that did not lead before is handed what it lacks
    /// first, even if that is nothing: when it says that all is merged, what it has followed is on its disk,
    /// too.
    fn begin_to_confirm(
        &mut self,
        now: Duration,
        number: Number,
        session: SessionId,
        tail: Option<&[Versioned]>,
        commands: &mut Vec<Command>,
    ) {
        let role = self.view.leads[usize::from(number)].role;
        let merging = tail.map(|tail| self.hand_over(number, session, role, tail, commands));
        let partition = &mut self.partitions[usize::from(number)];
        partition.phase = Phase::Confirming { session, merging, since: now };
        partition.reads_meanwhile = false;
        partition.last_lead_reads = false;
    }

    /// Sends changes to a copy, as one frame at least. Returns the number of the last one: when that is
    /// merged, so is everything before.
    pub(super) fn hand_over(
        &mut self,
        number: Number,
        session: SessionId,
        role: Role,
        changes: &[Versioned],
        commands: &mut Vec<Command>,
    ) -> u64 {
        let other = self.partitions[usize::from(number)].flushed(role.other());
        let mut left = changes;
        loop {
            let (frame, rest) = left.split_at(left.len().min(MAX_BATCH));
            self.merges += 1;
            let message = MergeBatch { batch: self.merges, role, changes: frame.to_vec(), other };
            commands.push(Command::Send { session, message: ToProcess::Merge(message) });
            left = rest;
            if left.is_empty() {
                return self.merges;
            }
        }
    }

    /// The lead is silent, and reads wait for it: the other copy is handed what it lacks of the tail, so that
    /// it can answer them. To merge what it gets by the op-log as well changes nothing.
    pub(super) fn hand_ahead(&mut self, number: Number, commands: &mut Vec<Command>) {
        let partition = &self.partitions[usize::from(number)];
        let (role, upto) = (partition.lead.other(), partition.tail_head());
        let Some(other) = self.copy(number, role).filter(|_| partition.other_is_current()) else { return };
        let lacking = partition.not_handed(&other.report);
        let handed = partition.ahead.is_some() || mutation::is(Mutation::WaitForSilent);
        if handed || lacking.is_empty() || lacking.len() > AHEAD {
            return;
        }
        let batch = self.hand_over(number, other.session, role, &lacking, commands);
        let partition = &mut self.partitions[usize::from(number)];
        partition.ahead = Some(Ahead { session: other.session, batch, upto });
        if mutation::is(Mutation::ReadBeforeMerged) {
            partition.has_merged(upto);
        }
    }

    /// The copy that is to lead leads, if its view is kept.
    fn confirm(&mut self, number: Number, session: SessionId, commands: &mut Vec<Command>) {
        if !self.is_kept(number) {
            return;
        }
        let role = self.view.leads[usize::from(number)].role;
        let Some(lead) = self.copy(number, role).filter(|copy| copy.session == session) else { return };
        let other = self.report(number, role.other());
        let partition = &mut self.partitions[usize::from(number)];
        partition.serve(role, lead, other.as_ref());
        let held = std::mem::take(&mut partition.held);
        if let Some(session) = self.session_mut(session) {
            held.into_iter().for_each(|write| session.writes(role).push(write));
        }
        if self.view.leads[usize::from(number)].promoting {
            self.change_view(number, Lead { role, promoting: false }, "it has everything", commands);
        }
    }

    /// A copy has merged one frame of a tail, and all before it.
    pub(super) fn merged(&mut self, now: Duration, place: u16, merged: Merged, commands: &mut Vec<Command>) {
        let Some(from) = self.sessions.get(&place).map(|session| session.id) else { return };
        let Some(number) = self.partition_at(place, merged.role) else { return };
        self.hear_flushed(place, merged.role, merged.lsn);
        let at = self.credible(now);
        let partition = &mut self.partitions[usize::from(number)];
        if partition.pace.answered(at, from, Frame::Merge(merged.batch)) {
            return;
        }
        if let Some(Ahead { upto, .. }) =
            partition.ahead.take_if(|ahead| (ahead.session, ahead.batch) == (from, merged.batch))
        {
            partition.has_merged(upto);
            self.free_stuck(number, commands);
            return self.release_waiting(number, commands);
        }
        if let Phase::Confirming { session, merging, .. } = &mut partition.phase
            && *session == from
            && *merging == Some(merged.batch)
        {
            *merging = None;
            partition.has_merged(partition.tail_head());
            self.reconsider(now, number, commands);
            self.notify(commands);
        }
    }

    /// Begins to move the lead home to the primary, or away from a process that wants to go.
    fn consider_move(&mut self, now: Duration, number: Number, commands: &mut Vec<Command>) {
        let partition = &self.partitions[usize::from(number)];
        let role = partition.lead;
        let (Some(lead), Some(other)) = (self.copy(number, role), self.copy(number, role.other())) else {
            return self.withdraw(number, commands);
        };
        let wants_to_go =
            |copy: &ConnectedCopy| self.session(copy.session).and_then(|session| session.leaving).is_some();
        let trusted = partition.pace.trusts(role.other());
        let home = role == Role::Replica && trusted;
        let away = self.must_move_away(now, lead.session);
        let better = trusted && !self.is_in_doubt(now, &other) && !mutation::is(Mutation::SlowLeads);
        let cause = partition.pace.cause(role).filter(|_| better);
        let almost = partition.is_almost(&other.report);
        if (home || away || cause.is_some())
            && !wants_to_go(&other)
            && other.report.complete
            && almost
            && has_all_of(Some(&lead.report), Some(&other.report))
            && now >= partition.move_after
            && self.could_be_kept(number)
        {
            match partition.announced {
                // A process whose disk hangs would keep nothing, and only hold writes up.
                None if !away && !self.keeps_newest_view(other.session) => {}
                None => {
                    let why = match cause {
                        Some(cause) => cause.of_leader(),
                        None if home => "the primary is back",
                        None => "the lead leaves",
                    };
                    self.announce(now, number, why, commands);
                    self.notify(commands);
                }
                // Between two frames of a slow leader: who was held then need not wait for its disk or its
                // link.
                Some(_) if cause.is_some() && !self.owes_nothing(lead.session, role) => {}
                Some(Announced { epoch, .. }) if self.is_kept_for(number, role.other(), epoch) => {
                    self.hold(lead.session, now, number);
                    return self.drain(now, now, number, commands);
                }
                Some(_) => {}
            }
        }
        let within = if cause.is_some() { BEGIN_SLOW_WITHIN } else { BEGIN_WITHIN };
        let partition = &mut self.partitions[usize::from(number)];
        if partition.announced.is_some_and(|announced| now.saturating_sub(announced.since) > within) {
            partition.move_after = now + TRY_AGAIN_AFTER;
            self.withdraw(number, commands);
            self.notify(commands);
        }
    }

    /// Writes wait from now on, and so do those that have not left: the lead has only to answer what it was
    /// sent.
    fn hold(&mut self, lead: SessionId, now: Duration, number: Number) {
        let role = self.partitions[usize::from(number)].lead;
        let queued = self.session_mut(lead).map(|session| session.writes(role).take_queued());
        let partition = &mut self.partitions[usize::from(number)];
        // Some may be held already, for a comparison of the copies.
        let mut first = queued.unwrap_or_default();
        first.append(&mut partition.held);
        partition.held = first;
        partition.phase = Phase::Draining { since: now };
    }

    fn drain(&mut self, now: Duration, since: Duration, number: Number, commands: &mut Vec<Command>) {
        let partition = &self.partitions[usize::from(number)];
        let role = partition.lead;
        let Some(lead) = self.copy(number, role) else { return };
        let other = self.copy(number, role.other()).filter(|copy| partition.lag(&copy.report).is_some());
        let within = if partition.pace.is_slow(role) { DRAIN_SLOW_WITHIN } else { DRAIN_WITHIN };
        let drained = self.session(lead.session).is_some_and(|session| session.is_drained(role));
        match other {
            Some(other)
                if (drained || mutation::is(Mutation::MoveUndrained))
                    && partition.lag(&other.report) == Some(0) =>
            {
                let lead = Lead { role: role.other(), promoting: true };
                let other_read = partition.other_is_current();
                self.change_view(number, lead, "as announced", commands);
                self.begin_to_confirm(now, number, other.session, Some(&[]), commands);
                let partition = &mut self.partitions[usize::from(number)];
                partition.reads_meanwhile = other_read;
                partition.last_lead_reads = true;
                self.notify(commands);
            }
            Some(_) if now.saturating_sub(since) <= within => {}
            _ => {
                let partition = &mut self.partitions[usize::from(number)];
                partition.phase = Phase::Serving;
                partition.move_after = now + TRY_AGAIN_AFTER;
                let held = std::mem::take(&mut partition.held);
                if let Some(session) = self.session_mut(lead.session) {
                    held.into_iter().for_each(|write| session.writes(role).push(write));
                }
                self.withdraw(number, commands);
                self.notify(commands);
            }
        }
    }

    /// No copy leads: what waits is answered with why not, unless it may wait on (see `cut_off`).
    fn go_down(&mut self, now: Duration, number: Number, commands: &mut Vec<Command>) {
        let partition = &mut self.partitions[usize::from(number)];
        partition.go_down(now);
        if partition.refuses() {
            self.give_up(number, commands);
        }
    }

    /// No copy leads, and nothing waits for that any longer: what was sent is answered as unknown, the rest
    /// as refused.
    pub(super) fn give_up(&mut self, number: Number, commands: &mut Vec<Command>) {
        let waiting_for = self.waiting_for(number);
        let partition = &mut self.partitions[usize::from(number)];
        partition.waits_since = None;
        let mut seen = Vec::new();
        for QueuedWrite { request, write, sent } in std::mem::take(&mut partition.held) {
            seen.append(&mut partition.answered(write.id, write.version));
            partition.settle(write.id);
            let unserved = if sent {
                let purges = matches!(write.operation, Operation::Purge(_));
                let news = if purges { Settled::Nothing } else { Settled::Unknown(write.id) };
                self.feed.settle(write.version, news);
                Unserved::OutcomeUnknown { partition: number }
            } else {
                self.feed.settle(write.version, Settled::Nothing);
                Unserved::Unavailable { partition: number, waiting_for: waiting_for.clone() }
            };
            commands.push(Command::AnswerWrite { request, version: write.version, result: Err(unserved) });
        }
        self.publish(commands);
        self.tell_early(false, seen, commands);
        self.release_waiting(number, commands);
    }

    /// The operator accepts that acknowledged writes may be lost which only the copy has that led last: the
    /// other copy leads, with what is in the tail. When the lost copy comes back, what it has is merged in.
    /// If no other one is there but a copy that was rolled back, it is accepted as it is.
    ///
    /// # Errors
    /// If the partition is served, or nobody could lead it.
    pub fn promote(
        &mut self,
        now: Duration,
        number: Number,
        commands: &mut Vec<Command>,
    ) -> Result<(), PromotionRefused> {
        let size = self.size;
        let Some(partition) = self.partitions.get(usize::from(number)) else {
            return Err(PromotionRefused::NoSuchPartition { partition: number, size });
        };
        if partition.phase != Phase::Down {
            return Err(PromotionRefused::Served { partition: number });
        }
        // Nobody is down whose last lead is there. Of a promotion that a gateway did not live to finish,
        // either copy may be the one that is there.
        let copies = Role::ALL.map(|role| (role, self.copy(number, role)));
        let there =
            copies.iter().find_map(|&(role, copy)| Some((role, copy.filter(|copy| copy.report.complete)?)));
        let possible = self.open && self.could_be_kept(number);
        let Some((role, copy)) = there.filter(|_| possible) else {
            if possible && self.accept_rolled_back(number, commands) {
                return Ok(());
            }
            let waiting_for = self.waiting_for(number);
            return Err(PromotionRefused::Nobody { partition: number, waiting_for });
        };
        // What the lost lead was sent it may have applied, and the other copy would decide it anew.
        self.give_up(number, commands);
        let tail = self.partitions[usize::from(number)].lacking(&copy.report);
        self.change_view(number, Lead { role, promoting: false }, "the operator has promoted it", commands);
        let partition = &mut self.partitions[usize::from(number)];
        partition.known = true;
        partition.give_up_last_lead();
        self.begin_to_confirm(now, number, copy.session, Some(&tail), commands);
        self.reconsider(now, number, commands);
        self.notify(commands);
        Ok(())
    }

    /// A process was asked to stop.
    pub(super) fn leave(&mut self, now: Duration, place: u16) {
        if let Some(session) = self.sessions.get_mut(&place) {
            session.leaving.get_or_insert(now);
        }
    }

    /// Lets go whoever wants to and is not needed; gives up promotions that take too long.
    pub(super) fn look_after(&mut self, now: Duration, commands: &mut Vec<Command>) {
        for number in 0..self.size {
            match self.partitions[usize::from(number)].phase {
                Phase::Confirming { since, .. } if now.saturating_sub(since) > CONFIRM_WITHIN => {
                    self.go_down(now, number, commands);
                    self.give_up(number, commands);
                    self.report_serving(number, commands);
                }
                Phase::Down if self.partitions[usize::from(number)].known && self.is_worth_a_try(number) => {
                    self.reconsider(now, number, commands);
                }
                _ => self.advance(now, number, commands),
            }
        }
        let all_leave = self.sessions.values().all(|session| session.leaving.is_some());
        let places: Vec<u16> = self.sessions.keys().copied().collect();
        for place in places {
            let Some(session) = self.sessions.get(&place) else { continue };
            let (id, Some(since)) = (session.id, session.leaving) else { continue };
            let waited = now.saturating_sub(since);
            let needed = Role::ALL.iter().any(|&role| self.is_needed(place, role));
            if session.released {
                continue;
            }
            if all_leave || waited > LEAVE_WITHIN || (waited > LEAVE_AFTER && !needed) {
                commands.push(Command::Send { session: id, message: ToProcess::Released(Released {}) });
                if let Some(session) = self.sessions.get_mut(&place) {
                    session.released = true;
                }
            }
        }
    }

    fn owes_nothing(&self, lead: SessionId, role: Role) -> bool {
        self.session(lead).is_none_or(|session| session.oldest_writes(role).is_none())
    }

    /// Whether a copy has not answered writes for a while.
    pub(super) fn is_in_doubt(&self, now: Duration, copy: &ConnectedCopy) -> bool {
        self.session(copy.session).is_none_or(|session| session.owes_for(now) >= IN_DOUBT_AFTER)
    }

    /// Gives up connections on which beats are answered, but no writes, where others can lead instead. What
    /// they still write is merged when they have caught up.
    pub(super) fn give_hanging_up(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let hangs = |session: &Session| session.owes_for(now) > HANGS_AFTER;
        let hanging: Vec<u16> =
            self.sessions.iter().filter(|(_, session)| hangs(session)).map(|(place, _)| *place).collect();
        for place in hanging {
            if Role::ALL.iter().all(|&role| self.can_do_without(now, place, role)) {
                self.distrust(now, place, "its writes hang", commands);
            }
        }
        for number in 0..self.size {
            if let Some(place) = self.hangs_in_move(now, number) {
                let partition = &mut self.partitions[usize::from(number)];
                // Otherwise it would be tried again as soon as that process is back, and hold writes up each
                // time.
                partition.pace.hangs(now, partition.lead);
                self.distrust(now, place, "it was to lead, and hangs", commands);
            }
        }
    }

    /// Where the copy is that was to lead, does not get that to its disk, and keeps the last lead from going
    /// on.
    fn hangs_in_move(&self, now: Duration, number: Number) -> Option<u16> {
        let partition = &self.partitions[usize::from(number)];
        let Phase::Confirming { session, merging, since } = partition.phase else { return None };
        let place = *self.places.get(&session)?;
        let keeps = self.session(session).is_some_and(|session| session.epoch >= partition.decided);
        let last_lead = partition.last_lead().and_then(|role| self.copy(number, role))?;
        let late = now.saturating_sub(since) > HANGS_AFTER && (merging.is_some() || !keeps);
        (late && last_lead.session != session && last_lead.report.complete).then_some(place)
    }

    /// Whether the partition, if it is led at that place, would be led elsewhere at once.
    fn can_do_without(&self, now: Duration, place: u16, role: Role) -> bool {
        let Some(number) = self.partition_at(place, role) else { return true };
        let partition = &self.partitions[usize::from(number)];
        if partition.lead != role || partition.phase == Phase::Down {
            return true;
        }
        let stays = |copy: &ConnectedCopy| {
            self.session(copy.session).is_some_and(|session| session.leaving.is_none())
        };
        let other = self.copy(number, role.other());
        other.is_some_and(|other| {
            partition.covers(&other.report) && stays(&other) && !self.is_in_doubt(now, &other)
        }) && (self.size <= 2 || self.sessions.len() > self.majority())
    }

    /// Whether a partition is led at that place, and could be led elsewhere.
    fn is_needed(&self, place: u16, role: Role) -> bool {
        let Some(number) = self.partition_at(place, role) else { return false };
        let partition = &self.partitions[usize::from(number)];
        let other = self.copy(number, role.other()).filter(|copy| copy.report.complete);
        let other_stays = other
            .and_then(|copy| self.session(copy.session))
            .is_some_and(|session| session.leaving.is_none());
        // A gateway that starts and finds no more than what was announced needs both copies.
        let settled = self.is_kept_for(number, partition.lead, partition.decided);
        partition.lead == role && partition.phase != Phase::Down && other_stays
            || matches!(partition.phase, Phase::Draining { .. } | Phase::Confirming { .. })
            || partition.phase == Phase::Serving && !settled
    }

    fn must_move_away(&self, now: Duration, lead: SessionId) -> bool {
        let since = self.session(lead).and_then(|session| session.leaving);
        since.is_some_and(|since| now.saturating_sub(since) > LEAVE_AFTER)
            && self.sessions.values().any(|session| session.leaving.is_none())
    }

    /// Whether any copy of a partition that is down is there.
    fn is_worth_a_try(&self, number: Number) -> bool {
        Role::ALL.iter().any(|&role| self.copy(number, role).is_some_and(|copy| copy.report.complete))
    }

    fn lead_is_there(&self, number: Number) -> bool {
        let partition = &self.partitions[usize::from(number)];
        let copy = self.copy(number, partition.lead);
        copy.is_some_and(|copy| Some(copy.session) == partition.lead_session)
    }

    fn compare_copies(&mut self, number: Number) {
        let role = self.partitions[usize::from(number)].lead;
        let (lead, other) = (self.report(number, role), self.report(number, role.other()));
        self.partitions[usize::from(number)].exchanged(lead.as_ref(), other.as_ref());
    }

    /// What a person is shown of a partition: a line in the log for each change.
    fn shown(&self, number: Number) -> (bool, Role, bool, bool) {
        let partition = &self.partitions[usize::from(number)];
        let confirming = matches!(partition.phase, Phase::Confirming { .. });
        (partition.serves(), partition.lead, partition.other_is_current(), confirming)
    }
}
