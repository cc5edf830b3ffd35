//! Who is registered, the forming of the ring, and what each process is told about it.
//!
//! A ring is *formed* in two steps, so that one whose forming was cut short can be formed again, while one
//! that ever held a user cannot: first every process keeps the ring's id and counts its empty copies as
//! complete; when all have, they are told that the ring is formed, and keep that. Nothing is served before
//! all have confirmed it.

use std::time::Duration;

use protocol::message::REVISION;
use protocol::message::link::{
    Applied, CopiesChanged, CopyReport, CopyReports, Following, Grant, Refusal, Refused, Register,
    Registered, Ring, RingNotice, Role, View,
};
use protocol::mutation::{self, Mutation};
use protocol::placement::{InstanceName, Place, replica_of, replicated_at};

use super::Engine;
use super::event::{Command, RingEvent, SessionId, ToProcess};
use super::partition::{ConnectedCopy, Partition};
use super::purge::Purge;
use super::session::Session;

impl Engine {
    pub(super) fn register(
        &mut self,
        now: Duration,
        id: SessionId,
        host: String,
        register: Register,
        commands: &mut Vec<Command>,
    ) {
        if let Err(reason) = self.admit(&register) {
            let line = refusal_text(&register.instance, &register, &reason);
            commands.push(Command::Report(RingEvent::ProcessRefused {
                instance: register.instance.to_string(),
                host,
                reason: line,
            }));
            let message = ToProcess::Refused(Refused { reason });
            commands.push(Command::Send { session: id, message });
            return;
        }
        self.hear(now);
        if self.places.contains_key(&id) {
            self.lose(now, id, "it registered twice on one connection", commands);
        }
        let place = register.instance.place();
        if let Some(earlier) = self.sessions.get(&place).map(|session| session.id) {
            // The same data folder on a new connection: the earlier one is dead, its end was only not seen
            // yet.
            self.void(earlier, commands);
            self.lose(now, earlier, "it connected again", commands);
        }
        self.find_ring(&register, commands);
        commands.push(Command::Report(RingEvent::ProcessRegistered {
            instance: register.instance.to_string(),
            host: host.clone(),
            incarnation: register.incarnation,
        }));
        self.observe(&register.copies);
        let message = ToProcess::Registered(Registered { size: self.size });
        commands.push(Command::Send { session: id, message });
        self.places.insert(id, place);
        self.names.insert(place, register.instance.clone());
        let view = register.view.clone();
        self.sessions.insert(place, Session::new(id, host, register, now));
        self.compare_disks(place, commands);
        self.hear_of_disks(place);
        self.report_rollbacks(place, commands);
        self.form(commands);
        self.open();
        for role in Role::ALL {
            let Some(number) = self.partition_at(place, role) else { continue };
            let partition = &mut self.partitions[usize::from(number)];
            partition.forget_handed();
            if partition.lead != role {
                partition.other_arrived();
            }
        }
        self.learn_view(&view);
        // Who has registered decides for every partition what is known, and which views can be kept.
        self.reconsider_all(now, commands);
        self.notify(commands);
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

    /// Whether a registration may stand.
    fn admit(&self, register: &Register) -> Result<(), Refusal> {
        if register.revision != REVISION {
            return Err(Refusal::Revision { gateway: REVISION });
        }
        let formed = |ring: &Option<Ring>| ring.filter(|ring| ring.formed);
        match (formed(&self.ring), formed(&register.ring)) {
            (Some(ours), Some(theirs)) if ours.id != theirs.id => {
                return Err(Refusal::AnotherRing { serving: ours.id });
            }
            _ => {}
        }
        // A ring that the process remembers as formed says how large it is, unless another is known already.
        let size = formed(&self.ring).or(formed(&register.ring)).map_or(self.size, |ring| ring.size);
        let place = register.instance.place();
        if place >= size {
            return Err(Refusal::OutsideRing { size });
        }
        match self.sessions.get(&place) {
            Some(holder) if holder.incarnation != register.incarnation => {
                let holder_name = format!("{} at {}", holder.instance, holder.host);
                Err(Refusal::NameTaken { holder: holder_name, incarnation: holder.incarnation })
            }
            _ => Ok(()),
        }
    }

    /// A process that remembers a formed ring tells a gateway that has just started which one it serves.
    fn find_ring(&mut self, register: &Register, commands: &mut Vec<Command>) {
        let Some(ring) = register.ring.filter(|ring| ring.formed) else {
            return;
        };
        if self.ring.is_some_and(|ours| ours.formed) {
            return;
        }
        if ring.size != self.size {
            commands.push(Command::Report(RingEvent::SizeDiffers { ring: ring.size, configured: self.size }));
            self.resize(ring.size);
        }
        self.ring = Some(ring);
        commands.push(Command::Report(RingEvent::RingKnown { ring: ring.id, size: ring.size, new: false }));
    }

    /// Takes the forming of a new ring one step further, where all that the step needs is there.
    fn form(&mut self, commands: &mut Vec<Command>) {
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
            commands.push(Command::Report(RingEvent::RingKnown { ring: ring.id, size, new: true }));
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
            // The first view of a new ring: nobody could know of another.
            self.partitions.iter_mut().for_each(|partition| partition.known = true);
        }
    }

    pub(super) fn copies_changed(
        &mut self,
        now: Duration,
        place: Place,
        changed: CopiesChanged,
        commands: &mut Vec<Command>,
    ) {
        let Some(session) = self.sessions.get_mut(&place) else { return };
        session.ring = changed.ring;
        session.epoch = changed.epoch;
        session.copies = changed.copies;
        self.observe(&changed.copies);
        self.hear_of_disks(place);
        self.form(commands);
        self.open();
        self.find_known();
        self.reconsider_all(now, commands);
        self.notify(commands);
    }

    fn reconsider_all(&mut self, now: Duration, commands: &mut Vec<Command>) {
        for number in 0..self.size {
            self.reconsider(now, number, commands);
        }
    }

    pub(super) fn applied(
        &mut self,
        now: Duration,
        place: Place,
        applied: Applied,
        commands: &mut Vec<Command>,
    ) {
        let Some(session) = self.sessions.get_mut(&place) else { return };
        session.copies.get_mut(applied.role).position = Some(applied.position);
        let Some(number) = self.partition_at(place, applied.role) else { return };
        self.reconsider(now, number, commands);
        if self.report(number, applied.role.other()).is_some_and(|other| other.rollback.is_some()) {
            // This may have been all that the other copy was kept for.
            self.notify(commands);
        }
    }

    /// A process says which of its copies follow.
    pub(super) fn follow(&mut self, place: Place, following: Following) {
        if let Some(session) = self.sessions.get_mut(&place) {
            session.following = Some(following);
        }
    }

    /// Forgets a connection: what it was asked is asked elsewhere or answered with why not.
    pub(super) fn lose(
        &mut self,
        now: Duration,
        id: SessionId,
        how: &'static str,
        commands: &mut Vec<Command>,
    ) {
        let Some(place) = self.places.remove(&id) else { return };
        let Some(mut session) = self.sessions.remove(&place) else { return };
        commands
            .push(Command::Report(RingEvent::ProcessLost { instance: session.instance.to_string(), how }));
        for role in Role::ALL {
            let Some(number) = self.partition_at(place, role) else { continue };
            // Before all that came later: a partition's writes keep their order, whoever decides them.
            let partition = &mut self.partitions[usize::from(number)];
            let mut first = session.take_writes(role);
            for queued in first.iter().filter(|queued| queued.sent) {
                partition.sent_in_vain(queued.write.version);
            }
            if mutation::is(Mutation::ResendAsNew) {
                first.iter_mut().for_each(|queued| queued.write.version = self.clock.next(0));
            }
            first.append(&mut partition.held);
            partition.held = first;
            self.drop_kept(number);
        }
        // One that was asked to stop has a reason of its own.
        if self.sessions.is_empty() && session.leaving.is_none() {
            self.lost_the_last(now);
        }
        self.reconsider_all(now, commands);
        self.abandon_reads(id, session.reads, commands);
        self.abandon_questions(id, commands);
        self.notify(commands);
    }

    /// Gives up a connection whose messages make no sense; what it was asked is asked elsewhere.
    pub(super) fn distrust(
        &mut self,
        now: Duration,
        place: Place,
        why: &'static str,
        commands: &mut Vec<Command>,
    ) {
        let Some(id) = self.sessions.get(&place).map(|session| session.id) else {
            return;
        };
        self.void(id, commands);
        self.lose(now, id, why, commands);
    }

    /// Tells a connection that it counts no longer.
    pub(super) fn void(&self, session: SessionId, commands: &mut Vec<Command>) {
        let message = ToProcess::Refused(Refused { reason: Refusal::Void });
        commands.push(Command::Send { session, message });
    }

    /// The partition of which a process holds the copy with that role.
    pub(super) fn partition_at(&self, place: Place, role: Role) -> Option<u16> {
        match role {
            Role::Primary => Some(place),
            Role::Replica => replicated_at(place, self.size),
        }
    }

    /// The copy of a partition, if its process is connected.
    pub(super) fn copy(&self, number: u16, role: Role) -> Option<ConnectedCopy> {
        let session = self.sessions.get(&self.place_of(number, role)?)?;
        let mut report = *session.copies.get(role);
        report.complete &= session.asked[role as usize] == 0;
        Some(ConnectedCopy { session: session.id, report })
    }

    pub(crate) fn report(&self, number: u16, role: Role) -> Option<CopyReport> {
        self.copy(number, role).map(|copy| copy.report)
    }

    pub(super) fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(self.places.get(&id)?)
    }

    pub(super) fn session_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(self.places.get(&id)?)
    }

    /// Sends each process the ring as it looks from its place, where that has changed.
    pub(super) fn notify(&mut self, commands: &mut Vec<Command>) {
        let Some(ring) = self.ring else { return };
        let places: Vec<Place> = self.sessions.keys().copied().collect();
        for place in places {
            if !self.may_be_told(place, ring) {
                continue;
            }
            let peer =
                |place: Option<Place>| place.and_then(|place| self.sessions.get(&place)).map(Session::peer);
            let notice = RingNotice {
                ring,
                view: self.view.clone(),
                successor: peer(replica_of(place, self.size)),
                predecessor: peer(replicated_at(place, self.size)),
                primary: self.grant(ring, place, Role::Primary),
                replica: self.grant(ring, place, Role::Replica),
            };
            let Some(session) = self.sessions.get_mut(&place) else { continue };
            if session.notice.as_ref() != Some(&notice) {
                let message = ToProcess::Ring(notice.clone());
                commands.push(Command::Send { session: session.id, message });
                session.notice = Some(notice);
            }
        }
    }

    /// What a copy may do if it is not complete: it is filled from the other one while that leads.
    fn grant(&self, ring: Ring, place: Place, role: Role) -> Grant {
        let Some(number) = self.partition_at(place, role).filter(|_| ring.formed) else {
            return if ring.formed { Grant::Wait } else { Grant::Empty };
        };
        let partition = &self.partitions[usize::from(number)];
        let leads = partition.serves() && partition.lead != role;
        if self.report(number, role).is_some_and(|copy| copy.rollback.is_some()) {
            return self.grant_rolled_back(number, role, leads);
        }
        if leads || mutation::is(Mutation::FillFromAny) { Grant::Fill } else { Grant::Wait }
    }

    pub(super) fn resize(&mut self, size: u16) {
        self.size = size;
        self.frames = vec![0; usize::from(size)];
        self.view = View::first(size);
        self.partitions = (0..size).map(|_| Partition::new(size > 1, self.config.tail_bytes)).collect();
        self.purges = (0..size).map(|_| Purge::new()).collect();
    }
}

fn refusal_text(instance: &InstanceName, register: &Register, reason: &Refusal) -> String {
    match reason {
        Refusal::Revision { gateway } => {
            format!("it speaks revision {} and this gateway {gateway}", register.revision)
        }
        Refusal::NameTaken { holder, incarnation } => format!(
            "{instance} is registered already: {holder} with data folder {incarnation}, this one has {}",
            register.incarnation
        ),
        Refusal::OutsideRing { size } => {
            format!("place {} is not in a ring of {size}", instance.place())
        }
        Refusal::AnotherRing { serving } => format!(
            "its data belong to ring {}, and this gateway serves ring {serving}",
            register.ring.map_or_else(String::new, |ring| ring.id.to_string())
        ),
        Refusal::Void => "its registration is void".to_owned(),
    }
}
