//! Who is registered, the forming of the ring, and what each process is told about it.
//!
//! A ring is *formed* in two steps, so that one whose forming was cut short can be formed again, while one that ever
//! held a user cannot: first every process keeps the ring's id and counts its empty copies as complete; when all have,
//! they are told that the ring is formed, and keep that. Nothing is served before all have confirmed it.

use std::time::Duration;

use protocol::message::link::{
    Applied, CopiesChanged, CopyReport, Grant, MergeBatch, Merged, Refusal, Refused, Register, Registered,
    Ring, RingNotice, Role, Versioned,
};
use protocol::message::{MAX_BATCH, REVISION};
use protocol::placement::{InstanceName, Place, replica_of, replicated_at};

use super::Routing;
use super::event::{Command, RingEvent, SessionId, ToProcess};
use super::partition::{ConnectedCopy, Partition, Serving};
use super::session::Session;

impl Routing {
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
        if self.places.contains_key(&id) {
            self.lose(id, "it registered twice on one connection", commands);
        }
        let place = register.instance.place();
        if let Some(earlier) = self.sessions.get(&place).map(|session| session.id) {
            // The same data folder on a new connection: the earlier one is dead, its end was only not seen yet.
            self.void(earlier, commands);
            self.lose(earlier, "it connected again", commands);
        }
        self.find_ring(&register, commands);
        commands.push(Command::Report(RingEvent::ProcessRegistered {
            instance: register.instance.to_string(),
            host: host.clone(),
            incarnation: register.incarnation,
        }));
        for role in Role::ALL {
            self.clock.observe(register.copies.get(role).version);
        }
        let message = ToProcess::Registered(Registered { size: self.size });
        commands.push(Command::Send { session: id, message });
        self.places.insert(id, place);
        self.names.insert(place, register.instance.clone());
        self.sessions.insert(place, Session::new(id, host, register, now));
        self.form(commands);
        self.open(commands);
        self.replica_arrived_at(place, commands);
        self.place_changed(place, commands);
        self.notify(commands);
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

    /// Opens the ring for requests, once: when its members are known to have joined, or remember that they had.
    fn open(&mut self, commands: &mut Vec<Command>) {
        let Some(ring) = self.ring.filter(|ring| ring.formed && !self.open) else {
            return;
        };
        let formed_before = ring.id != self.config.new_ring;
        let all_know = self.sessions.len() == usize::from(self.size)
            && self.sessions.values().all(|session| session.ring == Some(ring));
        if formed_before || all_know {
            self.open = true;
            for number in 0..self.size {
                self.reconsider(number, commands);
            }
        }
    }

    pub(super) fn copies_changed(
        &mut self,
        place: Place,
        changed: CopiesChanged,
        commands: &mut Vec<Command>,
    ) {
        let Some(session) = self.sessions.get_mut(&place) else {
            return;
        };
        session.ring = changed.ring;
        session.copies = changed.copies;
        for role in Role::ALL {
            self.clock.observe(changed.copies.get(role).version);
        }
        self.form(commands);
        self.open(commands);
        self.place_changed(place, commands);
        self.notify(commands);
    }

    pub(super) fn applied(&mut self, place: Place, applied: Applied, commands: &mut Vec<Command>) {
        let Some(session) = self.sessions.get_mut(&place) else {
            return;
        };
        match applied.role {
            Role::Primary => session.copies.primary.position = Some(applied.position),
            Role::Replica => session.copies.replica.position = Some(applied.position),
        }
        if applied.role == Role::Replica
            && let Some(number) = replicated_at(place, self.size)
        {
            let report = session.copies.replica;
            let partition = &mut self.partitions[usize::from(number)];
            let before = partition.replica_is_current();
            partition.replica_applied(Some(&report));
            if partition.replica_is_current() && !before {
                self.report_serving(number, commands);
            }
        }
    }

    /// Forgets a connection: what it was asked is asked elsewhere or answered with why not.
    pub(super) fn lose(&mut self, id: SessionId, how: &'static str, commands: &mut Vec<Command>) {
        let Some(place) = self.places.remove(&id) else {
            return;
        };
        let Some(session) = self.sessions.remove(&place) else {
            return;
        };
        commands
            .push(Command::Report(RingEvent::ProcessLost { instance: session.instance.to_string(), how }));
        self.abandon_writes(place, session.writes, commands);
        self.place_changed(place, commands);
        self.abandon_reads(id, session.reads, commands);
        self.notify(commands);
    }

    /// Gives up a connection whose messages make no sense; what it was asked is asked elsewhere.
    pub(super) fn distrust(&mut self, place: Place, why: &'static str, commands: &mut Vec<Command>) {
        let Some(id) = self.sessions.get(&place).map(|session| session.id) else {
            return;
        };
        self.void(id, commands);
        self.lose(id, why, commands);
    }

    /// Tells a connection that it counts no longer.
    pub(super) fn void(&self, session: SessionId, commands: &mut Vec<Command>) {
        let message = ToProcess::Refused(Refused { reason: Refusal::Void });
        commands.push(Command::Send { session, message });
    }

    /// Decides anew who serves the two partitions that a process has copies of.
    fn place_changed(&mut self, place: Place, commands: &mut Vec<Command>) {
        self.reconsider(place, commands);
        if let Some(number) = replicated_at(place, self.size) {
            self.reconsider(number, commands);
        }
    }

    fn reconsider(&mut self, number: u16, commands: &mut Vec<Command>) {
        if !self.open {
            return;
        }
        let before = (self.partitions[usize::from(number)].serving, self.replica_is_current(number));
        let lead = self.copy(number, Role::Primary).filter(|copy| copy.report.complete);
        let replica = self.copy(number, Role::Replica);
        let partition = &mut self.partitions[usize::from(number)];
        match lead {
            Some(lead)
                if partition.lead_session != Some(lead.session) || partition.serving != Serving::Lead =>
            {
                partition.lead_session = Some(lead.session);
                partition.lead_arrived(&lead.report, replica.map(|copy| copy.report).as_ref());
            }
            Some(_) => partition.replica_applied(replica.map(|copy| copy.report).as_ref()),
            None => {
                partition.lead_session = None;
                let lacking = partition.without_lead(replica);
                if let (false, Some(replica)) = (lacking.is_empty(), replica) {
                    self.hand_over(number, replica.session, &lacking, commands);
                }
            }
        }
        if before != (self.partitions[usize::from(number)].serving, self.replica_is_current(number)) {
            self.report_serving(number, commands);
        }
        self.release_waiting(number, commands);
    }

    /// Sends a replica what it lacks.
    fn hand_over(
        &mut self,
        number: u16,
        session: SessionId,
        lacking: &[Versioned],
        commands: &mut Vec<Command>,
    ) {
        for changes in lacking.chunks(MAX_BATCH) {
            self.merges += 1;
            let message = MergeBatch { batch: self.merges, role: Role::Replica, changes: changes.to_vec() };
            commands.push(Command::Send { session, message: ToProcess::Merge(message) });
        }
        self.partitions[usize::from(number)].serving = Serving::HandingOver { session, until: self.merges };
    }

    /// The replica has merged one frame of a tail, and all before it.
    pub(super) fn handed_over(&mut self, place: Place, merged: Merged, commands: &mut Vec<Command>) {
        let Some(number) = replicated_at(place, self.size) else {
            return;
        };
        let Some(replica) = self.copy(number, Role::Replica) else {
            return;
        };
        let partition = &mut self.partitions[usize::from(number)];
        if partition.serving != (Serving::HandingOver { session: replica.session, until: merged.batch }) {
            return;
        }
        partition.take_over(replica.report.incarnation);
        self.report_serving(number, commands);
        self.release_waiting(number, commands);
        self.notify(commands);
    }

    fn replica_arrived_at(&mut self, place: Place, commands: &mut Vec<Command>) {
        let Some(number) = replicated_at(place, self.size) else {
            return;
        };
        let report = self.replica_report(number);
        let before = self.replica_is_current(number);
        self.partitions[usize::from(number)].replica_arrived(report.as_ref());
        if before != self.replica_is_current(number) {
            self.report_serving(number, commands);
        }
    }

    /// The copy of a partition, if its process is connected.
    pub(super) fn copy(&self, number: u16, role: Role) -> Option<ConnectedCopy> {
        let place = match role {
            Role::Primary => number,
            Role::Replica => replica_of(number, self.size)?,
        };
        let session = self.sessions.get(&place)?;
        Some(ConnectedCopy { session: session.id, report: *session.copies.get(role) })
    }

    pub(super) fn replica_report(&self, number: u16) -> Option<CopyReport> {
        self.copy(number, Role::Replica).map(|copy| copy.report)
    }

    fn replica_is_current(&self, number: u16) -> bool {
        self.partitions[usize::from(number)].replica_is_current()
    }

    /// Sends each process the ring as it looks from its place, where that has changed.
    fn notify(&mut self, commands: &mut Vec<Command>) {
        let Some(ring) = self.ring else { return };
        let places: Vec<Place> = self.sessions.keys().copied().collect();
        for place in places {
            let peer =
                |place: Option<Place>| place.and_then(|place| self.sessions.get(&place)).map(Session::peer);
            let predecessor = replicated_at(place, self.size);
            let notice = RingNotice {
                ring,
                successor: peer(replica_of(place, self.size)),
                predecessor: peer(predecessor),
                primary: self.grant(ring, Some(place), Serving::Replica),
                replica: self.grant(ring, predecessor, Serving::Lead),
            };
            let Some(session) = self.sessions.get_mut(&place) else {
                continue;
            };
            if session.notice.as_ref() != Some(&notice) {
                let message = ToProcess::Ring(notice.clone());
                commands.push(Command::Send { session: session.id, message });
                session.notice = Some(notice);
            }
        }
    }

    /// What a copy may do if it is not complete, when its partition must be served by `source` for it to be filled.
    fn grant(&self, ring: Ring, partition: Option<u16>, source: Serving) -> Grant {
        match partition {
            _ if !ring.formed => Grant::Empty,
            Some(number) if self.partitions[usize::from(number)].serving == source => Grant::Fill,
            _ => Grant::Wait,
        }
    }

    pub(super) fn resize(&mut self, size: u16) {
        self.size = size;
        self.frames = vec![0; usize::from(size)];
        self.partitions = (0..size).map(|_| Partition::new(size > 1, self.config.tail_bytes)).collect();
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
