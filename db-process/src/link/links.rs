//! All links of this process to gateways, as one state machine: it keeps a connection to each gateway, and
//! takes orders from the one that holds the term.
//!
//! * [`super::terms`] decides who that is.
//! * [`super::session_state`] has the rules of each link.
//! * Here is what concerns all of them: a grant is sent when it is on disk; the link of the gateway before is
//!   idle from the moment at which another one gets the grant; the process registers once everything is on
//!   disk that it was sent before, on whatever link; and every gateway hears what changes of the grant.
//!
//! Like the rules of one link it opens no connection and reads no copy: it returns [`Todo`]s.

use std::time::Instant;

use protocol::InstanceName;
use protocol::message::REVISION;
use protocol::message::link::{Claim, Gateway, Granted, Heartbeat, Hello, Kept, Ring, ToGateway, ToProcess};

use super::event::{Command, Event, LinkId, ProcessEvent, SessionId, Todo};
use super::retry::Backoff;
use super::session_state::SessionState;
use super::terms::{Decision, Terms};
use crate::identity::Grant;

/// See the [module](self).
#[derive(Debug)]
pub struct Links {
    name: InstanceName,
    terms: Terms,
    sessions: Vec<SessionState>,
    /// Host of each gateway, as this process reaches it.
    hosts: Vec<String>,
    /// The claim whose grant is on its way to the disk, and where it came from.
    claimed: Option<(LinkId, Claim)>,
    leaving: bool,
}

/// A gateway, as this process reaches it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its URL, for the log.
    pub url: String,
    /// The host in it.
    pub host: String,
}

impl Links {
    /// Of the process of that name, which is to connect to these gateways at once, and has granted that.
    pub fn new(
        name: InstanceName,
        gateways: Vec<Target>,
        grant: Grant,
        now: Instant,
        backoff: impl Fn() -> Backoff,
    ) -> Self {
        let sole = gateways.len() == 1;
        let hosts = gateways.iter().map(|gateway| gateway.host.clone()).collect();
        let session = |Target { url, .. }| SessionState::new(name.clone(), url, sole, now, backoff());
        let sessions = gateways.into_iter().map(session).collect();
        Self { terms: Terms::new(sole, grant, now), sessions, hosts, claimed: None, leaving: false, name }
    }

    /// Takes note of what happened to the process, and says what has to be done.
    pub fn step(&mut self, now: Instant, event: ProcessEvent, todos: &mut Vec<Todo>) {
        match event {
            ProcessEvent::GrantPersisted => self.grant_persisted(now, todos),
            ProcessEvent::Copy(role, report) => {
                self.on_all(todos, |session, commands| session.copy_changed(now, role, report, commands));
            }
            ProcessEvent::Following(following) => {
                self.on_all(todos, |session, commands| session.following_changed(following, commands));
            }
            ProcessEvent::Usage(usage) => self.on_all(todos, |session, commands| {
                session.tell(ToGateway::ProcessUsage(usage.clone()), commands);
            }),
            ProcessEvent::Leave => {
                self.leaving = true;
                let mut waits = false;
                self.on_all(todos, |session, commands| waits |= session.leave(commands));
                // Nothing depends on a process that is not registered.
                if !waits {
                    self.end(Ok(()), todos);
                }
            }
            ProcessEvent::Tick => {
                self.on_all(todos, |session, commands| session.tick(now, commands));
                if self.terms.has_changed(now) {
                    self.report(now, None, todos);
                }
            }
        }
        self.settle(todos);
    }

    /// Takes note of what happened on a link, and says what has to be done.
    pub fn step_on(&mut self, now: Instant, link: LinkId, event: Event, todos: &mut Vec<Todo>) {
        match event {
            Event::Message(ToProcess::Claim(claim)) => self.claim(now, link, *claim, todos),
            Event::Message(ToProcess::Heartbeat(heartbeat)) => self.heartbeat(now, link, heartbeat, todos),
            Event::Message(ToProcess::Release(_)) => {
                if self.holds(link) {
                    self.terms.release();
                    self.on(link, todos, |session, commands| session.demote(now, commands));
                    self.terms.has_changed(now);
                    self.report(now, None, todos);
                }
            }
            Event::Connected(ring) => {
                self.on(link, todos, |session, commands| {
                    session.step(now, Event::Connected(ring), commands);
                });
                self.greet(now, link, ring, todos);
            }
            event => self.on(link, todos, |session, commands| session.step(now, event, commands)),
        }
        if self.leaving {
            self.on(link, todos, SessionState::leave_again);
        }
        self.settle(todos);
    }

    /// When to send [`ProcessEvent::Tick`], if nothing else happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let links = self.sessions.iter().filter_map(SessionState::deadline);
        links.chain(self.terms.deadline()).min()
    }

    /// The link and the number of the registration, where the process is registered.
    pub fn registered(&self) -> Option<(LinkId, SessionId)> {
        let registered = |(link, session): (LinkId, &SessionState)| Some((link, session.registered()?));
        self.sessions.iter().enumerate().find_map(registered)
    }

    fn greet(&mut self, now: Instant, link: LinkId, ring: Option<Ring>, todos: &mut Vec<Todo>) {
        if !self.sessions[link].is_connected() {
            return;
        }
        let hello = Hello {
            revision: REVISION,
            instance: self.name.clone(),
            ring,
            sole: self.terms.is_sole(),
            term: self.terms.report(now),
        };
        todos.push(Todo::On(link, Command::Hello(Box::new(hello))));
    }

    fn claim(&mut self, now: Instant, link: LinkId, mut claim: Claim, todos: &mut Vec<Todo>) {
        if !self.sessions[link].is_connected() {
            return;
        }
        self.sessions[link].hear(now);
        // The other gateways reach it where this process does, unless it says otherwise.
        claim.gateway.host.get_or_insert_with(|| self.hosts[link].clone());
        self.sessions[link].claimed_by(claim.gateway.clone());
        match self.terms.claim(now, &claim) {
            Decision::Granted => self.granted(now, link, &claim, todos),
            Decision::Rejected => {
                let report = ToGateway::TermReport(Box::new(self.terms.report(now)));
                todos.push(Todo::On(link, Command::Send(report)));
            }
            Decision::Persist(grant) => {
                // Nothing of an earlier term is taken any more.
                for other in 0..self.sessions.len() {
                    if !self.holds(other) {
                        self.on(other, todos, |session, commands| session.demote(now, commands));
                    }
                }
                self.claimed = Some((link, claim));
                todos.push(Todo::PersistGrant(grant));
            }
        }
    }

    fn grant_persisted(&mut self, now: Instant, todos: &mut Vec<Todo>) {
        self.terms.persisted(now);
        self.terms.has_changed(now);
        let Some((link, claim)) = self.claimed.take() else { return };
        // It may have been lost meanwhile, or be the connection of another gateway.
        let there = self.sessions[link].gateway() == Some(&claim.gateway);
        if there {
            self.granted(now, link, &claim, todos);
        }
        self.report(now, there.then_some(link), todos);
    }

    fn granted(&mut self, now: Instant, link: LinkId, claim: &Claim, todos: &mut Vec<Todo>) {
        todos.push(Todo::On(link, Command::Send(ToGateway::Granted(Granted { term: claim.term }))));
        self.terms.heartbeat(now);
        if claim.register {
            self.on(link, todos, |session, commands| session.begin_registration(now, commands));
        }
    }

    fn heartbeat(&mut self, now: Instant, link: LinkId, heartbeat: Heartbeat, todos: &mut Vec<Todo>) {
        self.sessions[link].hear(now);
        let held = self.holds(link);
        if held && heartbeat.active {
            self.terms.heartbeat(now);
            if self.terms.has_changed(now) {
                self.report(now, None, todos);
            }
        }
        let kept = ToGateway::Kept(Kept { number: heartbeat.number, held });
        todos.push(Todo::On(link, Command::Send(kept)));
    }

    /// Whether the gateway at the other end of that link holds the term.
    fn holds(&self, link: LinkId) -> bool {
        self.sessions[link].gateway().is_some_and(|gateway: &Gateway| self.terms.is_held_by(gateway))
    }

    /// Tells every gateway, but one, what has changed of the grant.
    fn report(&mut self, now: Instant, but: Option<LinkId>, todos: &mut Vec<Todo>) {
        let report = self.terms.report(now);
        for (link, session) in self.sessions.iter().enumerate() {
            if Some(link) != but && session.is_connected() {
                let report = ToGateway::TermReport(Box::new(report.clone()));
                todos.push(Todo::On(link, Command::Send(report)));
            }
        }
    }

    /// Registers where that was waited for, and ends where a link says so.
    fn settle(&mut self, todos: &mut Vec<Todo>) {
        if !self.sessions.iter().any(SessionState::is_at_work) {
            self.on_all(todos, SessionState::drained);
        }
        if let Some(outcome) = self.sessions.iter_mut().find_map(SessionState::take_end) {
            self.end(outcome, todos);
        }
    }

    fn end(&mut self, outcome: Result<(), String>, todos: &mut Vec<Todo>) {
        self.on_all(todos, SessionState::close);
        todos.push(Todo::End(outcome));
    }

    fn on_all(&mut self, todos: &mut Vec<Todo>, mut step: impl FnMut(&mut SessionState, &mut Vec<Command>)) {
        for link in 0..self.sessions.len() {
            self.on(link, todos, &mut step);
        }
    }

    fn on(
        &mut self,
        link: LinkId,
        todos: &mut Vec<Todo>,
        step: impl FnOnce(&mut SessionState, &mut Vec<Command>),
    ) {
        let mut commands = Vec::new();
        step(&mut self.sessions[link], &mut commands);
        todos.extend(commands.into_iter().map(|command| Todo::On(link, command)));
    }
}
