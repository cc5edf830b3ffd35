//! Which processes are registered, and the forming of the ring.
//!
//! A ring is *formed* in two steps, so that an interrupted forming can be repeated, while a ring that ever
//! held a user cannot be formed again: first every process persists the ring's id and counts its empty copies
//! as complete; when all have, they learn that the ring is formed, and persist that. Nothing is served before
//! all have confirmed it.

use protocol::Version;
use protocol::message::REVISION;
use protocol::message::link::{
    Applied, CopiesChanged, CopyReports, Refusal, Refused, Register, Registered, Ring, Role, ToProcess,
};
use protocol::mutation::{self, Mutation};
use protocol::placement::Place;

use super::Engine;
use super::event::{RingEvent, SessionId};
use super::partition::Partition;
use super::session::Session;

/// No gateway numbers views so far. Beyond it there is as much room again, so that no counting on overflows.
const LAST_EPOCH: u64 = 1 << 62;

/// Why a registration does not stand.
pub(super) struct Rejection {
    /// What the process learns: nothing by which it could take the place of another one.
    refusal: Refusal,
    /// For the log of the gateway.
    details: Option<String>,
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, details: None }
    }
}

impl Rejection {
    /// Another process has its name.
    pub(super) fn name_taken(holder: &Session, register: &Register) -> Self {
        let Session { instance, host, incarnation, .. } = holder;
        let own = register.incarnation;
        let details = format!("{instance} at {host}, with data folder {incarnation}; this one has {own}");
        Self { refusal: Refusal::NameTaken, details: Some(details) }
    }
}

impl Engine {
    pub(super) fn register(&mut self, id: SessionId, host: String, register: Box<Register>) {
        if let Err(rejection) = self.admit(&register) {
            return self.reject(id, host, &register, rejection);
        }
        self.hear();
        if self.places.contains_key(&id) {
            self.lose(id, "it registered twice on one connection");
        }
        let place = register.instance.place();
        if self.is_contested(place) {
            return self.contest(place, id, host, register);
        }
        if let Some(earlier) = self.sessions.get(&place).map(|session| session.id) {
            // The same data folder on a new connection: the end of the earlier one was not seen yet.
            self.evict(earlier, "it connected again");
        }
        self.find_ring(&register);
        self.report_event(RingEvent::ProcessRegistered {
            instance: register.instance.to_string(),
            host: host.clone(),
            incarnation: register.incarnation,
        });
        self.observe(&register.copies);
        self.send(id, ToProcess::Registered(Registered { size: self.size }));
        self.places.insert(id, place);
        self.names.insert(place, register.instance.clone());
        self.changed.insert(place, self.now);
        let view = register.view.clone();
        self.sessions.insert(place, Session::new(id, host, *register, self.now));
        self.compare_disks(place);
        self.note_flush_points(place);
        self.report_rollbacks(place);
        self.form();
        self.open();
        for (role, number) in self.copies_at(place) {
            self.partition_mut(number).copy_arrived(role);
        }
        self.learn_view(&view);
        // The processes that are registered decide for every partition what is known, and which views can be
        // persisted.
        self.reconsider_all();
        self.notify();
    }

    /// By how many seconds the data of a process are ahead of the wall clock, if that is more than a clock
    /// that was set right can explain. To observe them would take all later versions there, for good.
    fn seconds_ahead(&self, copies: &CopyReports) -> Option<u64> {
        let newest = Role::ALL.iter().map(|&role| copies.get(role).version.unix_millis()).max()?;
        let offset = u64::try_from(self.config.max_clock_offset.as_millis()).unwrap_or(u64::MAX);
        let latest = self.wall_clock.saturating_add(offset).min(Version::LAST_MILLIS);
        (newest > latest).then(|| newest.saturating_sub(self.wall_clock).div_ceil(1000))
    }

    /// No version is given again that is in a copy.
    fn observe(&mut self, copies: &CopyReports) {
        for role in Role::ALL {
            let version = copies.get(role).version;
            if version > self.clock.last() {
                self.feed.found_newer(version);
            }
            self.clock.observe(version);
        }
    }

    /// Turns a registration away.
    pub(super) fn reject(
        &mut self,
        id: SessionId,
        host: String,
        register: &Register,
        Rejection { refusal, details }: Rejection,
    ) {
        let (instance, mut reason) = (register.instance.to_string(), refusal.explain(&register.instance));
        reason.extend(details.iter().flat_map(|details| [": ", details]));
        self.report_event(RingEvent::ProcessRefused { instance, host, reason });
        self.send(id, ToProcess::Refused(Refused { reason: refusal }));
    }

    /// Whether a registration may stand.
    fn admit(&self, register: &Register) -> Result<(), Rejection> {
        if register.revision != REVISION {
            return Err(Refusal::Revision { gateway: REVISION }.into());
        }
        let formed = |ring: &Option<Ring>| ring.filter(|ring| ring.formed);
        let (ours, theirs) = (formed(&self.ring), formed(&register.ring));
        if let (Some(ours), Some(theirs)) = (ours, theirs)
            && ours.id != theirs.id
        {
            let details = format!("it serves ring {}, and the data belong to ring {}", ours.id, theirs.id);
            return Err(Rejection { refusal: Refusal::AnotherRing, details: Some(details) });
        }
        // A ring that the process remembers as formed says how large it is, unless another is known already.
        let size = ours.or(theirs).map_or(self.size, |ring| ring.size);
        let place = register.instance.place();
        if place >= size {
            return Err(Refusal::OutsideRing { size }.into());
        }
        match self.sessions.get(&place) {
            Some(holder) if holder.incarnation != register.incarnation => {
                return Err(Rejection::name_taken(holder, register));
            }
            _ => {}
        }
        if register.view.epoch > LAST_EPOCH {
            let details = Some("no view has such a number".to_owned());
            return Err(Rejection { refusal: Refusal::Void, details });
        }
        if let Some(seconds) = self.seconds_ahead(&register.copies) {
            return Err(Refusal::ClockAhead { seconds }.into());
        }
        // A ring that was formed with such names goes on, and takes a process whose disk was replaced.
        let new = ours.is_none() && theirs.is_none() && self.names.get(&place) != Some(&register.instance);
        let other = self.sessions.values().find(|other| other.instance.stem() != register.instance.stem());
        match other.filter(|_| new) {
            Some(other) => Err(Refusal::OtherStem { stem: other.instance.stem().to_owned() }.into()),
            None => Ok(()),
        }
    }

    /// A process that remembers a formed ring says to a gateway that has just started which one it serves.
    fn find_ring(&mut self, register: &Register) {
        let Some(ring) = register.ring.filter(|ring| ring.formed) else { return };
        if self.ring.is_some_and(|ours| ours.formed) {
            return;
        }
        if ring.size != self.size {
            self.report_event(RingEvent::SizeDiffers { ring: ring.size, configured: self.size });
            self.resize(ring.size);
        }
        self.ring = Some(ring);
        self.report_event(RingEvent::RingKnown { ring: ring.id, size: ring.size, new: false });
    }

    /// Takes the forming of a new ring one step further, where all that the step needs is there.
    fn form(&mut self) {
        if self.sessions.len() < usize::from(self.size) {
            return;
        }
        let size = self.size;
        let ring = *self.ring.get_or_insert(Ring { id: self.config.new_ring, size, formed: false });
        let joined = |session: &Session| {
            session.ring.is_some_and(|theirs| theirs.id == ring.id)
                && Role::ALL.iter().all(|&role| session.copies.get(role).complete)
        };
        if !ring.formed && self.sessions.values().all(joined) {
            self.ring = Some(Ring { formed: true, ..ring });
            self.report_event(RingEvent::RingKnown { ring: ring.id, size, new: true });
        }
    }

    /// Opens the ring for requests, once: when its members are known to have joined, or remember that they
    /// had.
    fn open(&mut self) {
        let Some(ring) = self.ring.filter(|ring| ring.formed && !self.open) else { return };
        let formed_before = ring.id != self.config.new_ring;
        let all_know = self.sessions.len() == usize::from(self.size)
            && self.sessions.values().all(|session| session.ring == Some(ring));
        self.open = formed_before || all_know;
        if all_know && !formed_before {
            // The first view of a new ring: there can be no other.
            self.partitions.iter_mut().for_each(Partition::set_known);
        }
    }

    pub(super) fn copies_changed(&mut self, place: Place, changed: CopiesChanged) {
        let implausible = self.seconds_ahead(&changed.copies).is_some();
        let Some(session) = self.sessions.get_mut(&place) else { return };
        if implausible {
            let id = session.id;
            return self.evict(id, "its data are ahead of the clock");
        }
        session.ring = changed.ring;
        session.epoch = changed.epoch;
        session.copies = changed.copies;
        self.observe(&changed.copies);
        self.note_flush_points(place);
        self.form();
        self.open();
        self.find_known();
        self.reconsider_all();
        self.notify();
    }

    fn reconsider_all(&mut self) {
        (0..self.size).for_each(|number| self.reconsider(number));
    }

    pub(super) fn applied(&mut self, place: Place, applied: Applied) {
        let Some(session) = self.sessions.get_mut(&place) else { return };
        session.copies.get_mut(applied.role).position = Some(applied.position);
        let Some(number) = self.partition_at(place, applied.role) else { return };
        self.reconsider(number);
        if self.report(number, applied.role.other()).is_some_and(|other| other.rollback.is_some()) {
            // The rolled back copy may have been waiting for just that.
            self.notify();
        }
    }

    /// Forgets a connection: what it was asked is asked elsewhere or refused.
    pub(super) fn lose(&mut self, id: SessionId, how: &'static str) {
        let Some(place) = self.places.remove(&id) else { return };
        let Some(mut session) = self.sessions.remove(&place) else { return };
        self.changed.insert(place, self.now);
        self.report_event(RingEvent::ProcessLost { instance: session.instance.to_string(), how });
        for (role, number) in self.copies_at(place) {
            let mut first = session.take_writes(role);
            if mutation::is(Mutation::ResendAsNew) {
                first.iter_mut().for_each(|queued| queued.write.version = self.clock.next(0));
            }
            self.partition_mut(number).buffer_first(first);
        }
        // One that was asked to stop has a reason of its own.
        if self.sessions.is_empty() && session.leaving.is_none() {
            self.cut_off.get_or_insert(self.now);
        }
        self.reconsider_all();
        self.abandon_reads(id, session.reads);
        self.abandon_questions(id);
        for (_, number) in self.copies_at(place) {
            self.retry_deferred(number);
        }
        self.notify();
        self.settle_claim(place);
    }

    /// Gives up a connection, and lets it know. What it was asked is asked elsewhere.
    pub(super) fn evict(&mut self, id: SessionId, why: &'static str) {
        self.send(id, ToProcess::Refused(Refused { reason: Refusal::Void }));
        self.lose(id, why);
    }
}
