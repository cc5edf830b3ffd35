//! The rules of the link to one gateway: when this process connects, what it reports, and what it answers.
//!
//! It connects, says hello, and is idle until the gateway holds the term. Then it registers with the state of
//! its copies, and answers reads, writes and questions, and each `Beat` through the same queue, so that an
//! answer to one means that work gets done. When the connection is over, or another gateway holds the term,
//! whatever was under way is forgotten; the gateway, or the next one, sends again what has no answer. Writes
//! that a copy still has are waited for before it registers: they are among what it registers with, so that
//! no other copy leads without them. That is for [`super::links`] to say, which knows all links.
//!
//! [`SessionState`] lives as long as the process. It opens no connection and reads no copy itself: it returns
//! [`Command`]s, and learns by [`Event`]s what came of them. [`super::gateway`] carries them out.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use process::LogThrottle;
use protocol::InstanceName;
use protocol::message::link::{
    Alive, Compared, CopyReport, Following, Gateway, Leaving, PerRole, Refusal, Refused, Register,
    Registered, Ring, Role, ToGateway, ToProcess,
};
use protocol::message::query::Query;
use tracing::{error, info, warn};

use super::event::{Command, Event, SessionId, Work};
use super::registration::Registration;
use super::retry::Backoff;
use super::turns::Turns;
use crate::node::plan::Contradiction;

/// How long the gateway may take to answer a registration.
const REGISTRATION_DEADLINE: Duration = Duration::from_secs(2);

/// A gateway that says nothing for that long is lost; it sends a beat several times a second.
const SILENCE: Duration = Duration::from_secs(2);

/// A link that held for that long was a good one: the next attempt comes quickly again.
const STABLE_AFTER: Duration = Duration::from_secs(2);

/// Writes that are not on disk after this time are logged.
const SLOW_DISK: Duration = Duration::from_secs(1);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct SessionState {
    name: InstanceName,
    /// URL of the gateway, for the log.
    url: String,
    /// There is no other gateway.
    sole: bool,
    phase: Phase,
    /// The process has to end.
    ended: Option<Result<(), String>>,
    /// Of the last registration.
    session: SessionId,
    /// The gateway, where it has claimed a term on this connection.
    gateway: Option<Gateway>,
    /// Batches of writes that the copies have not answered, also of earlier connections.
    writes: usize,
    /// A notice is being carried out.
    noticing: bool,
    turns: Turns,
    copies: PerRole<Option<CopyReport>>,
    following: Following,
    backoff: Backoff,
    throttle: LogThrottle,
}

#[derive(Debug)]
enum Phase {
    /// The next attempt is then.
    Waiting(Instant),
    Connecting,
    /// Connected. Something was heard of the gateway then.
    Idle {
        heard: Instant,
    },
    /// It registers when what the copies were sent before is on disk. If it is not then, that is logged.
    Draining {
        heard: Instant,
        slow_at: Option<Instant>,
    },
    /// It waits for what it registers with.
    Preparing {
        heard: Instant,
    },
    /// The answer to the registration has to come until then.
    Registering(Box<Register>, Instant),
    Registered(Box<Registration>),
    Ended,
}

/// Why a connection is given up.
enum Over {
    Lost(String),
    Refused(Refusal),
    /// What the gateway says cannot be true: another one may know better.
    Contradiction(Contradiction),
    /// A copy is not complete any more: the process registers anew, with what it has.
    RolledBack,
}

impl SessionState {
    /// Of the process of that name, which is to connect at once to the gateway at that URL.
    pub(super) fn new(name: InstanceName, url: String, sole: bool, now: Instant, backoff: Backoff) -> Self {
        Self {
            name,
            url,
            sole,
            phase: Phase::Waiting(now),
            ended: None,
            session: 0,
            gateway: None,
            writes: 0,
            noticing: false,
            turns: Turns::new(),
            copies: PerRole::default(),
            following: Following::default(),
            backoff,
            throttle: LogThrottle::default(),
        }
    }

    /// Takes note of what happened, and says what has to be done.
    pub(super) fn step(&mut self, now: Instant, event: Event, commands: &mut Vec<Command>) {
        match event {
            Event::Message(message) => self.receive(now, message, commands),
            Event::Done { session, work, answer } => self.done(session, work, answer, commands),
            Event::Noticed { session, persisted } => self.noticed(now, session, persisted, commands),
            Event::Compared { role, sound: true } => {
                commands.push(Command::Send(ToGateway::Compared(Compared { role })));
            }
            Event::Compared { sound: false, .. } => self.over(now, Over::RolledBack, commands),
            Event::Connected(_) => {
                if matches!(self.phase, Phase::Connecting) {
                    self.phase = Phase::Idle { heard: now };
                }
            }
            Event::Prepared(register) => {
                if matches!(self.phase, Phase::Preparing { .. }) {
                    self.session += 1;
                    // What changes from here on is news to the gateway.
                    self.copies = PerRole::both(|role| Some(*register.copies.get(role)));
                    commands.push(Command::Register(register.clone()));
                    self.phase = Phase::Registering(register, now + REGISTRATION_DEADLINE);
                }
            }
            Event::Lost(reason) => self.over(now, Over::Lost(reason), commands),
        }
    }

    /// The state of a copy has changed.
    pub(super) fn copy_changed(
        &mut self,
        now: Instant,
        role: Role,
        report: CopyReport,
        commands: &mut Vec<Command>,
    ) {
        *self.copies.get_mut(role) = Some(report);
        self.report(now, role, commands);
    }

    /// Which copies follow has changed.
    pub(super) fn following_changed(&mut self, following: Following, commands: &mut Vec<Command>) {
        self.following = following;
        self.tell(ToGateway::Following(following), commands);
    }

    /// Sends something if the process is registered here.
    pub(super) fn tell(&mut self, message: ToGateway, commands: &mut Vec<Command>) {
        if self.registration().is_some() {
            commands.push(Command::Send(message));
        }
    }

    /// The process is to leave. Returns whether something depends on it here, so that it has to wait.
    pub(super) fn leave(&mut self, commands: &mut Vec<Command>) -> bool {
        let Some(registration) = self.registration() else { return false };
        registration.leaving = true;
        commands.push(Command::Send(ToGateway::Leaving(Leaving {})));
        true
    }

    /// The process is to leave, and has just registered at another gateway perhaps.
    pub(super) fn leave_again(&mut self, commands: &mut Vec<Command>) {
        if self.registration().is_some_and(|registration| !registration.leaving) {
            self.leave(commands);
        }
    }

    /// Whether the connection is open.
    pub(super) fn is_connected(&self) -> bool {
        !matches!(self.phase, Phase::Waiting(_) | Phase::Connecting | Phase::Ended)
    }

    /// The gateway that has claimed a term on this connection.
    pub(super) fn gateway(&self) -> Option<&Gateway> {
        self.gateway.as_ref().filter(|_| self.is_connected())
    }

    /// A gateway claims a term here.
    pub(super) fn claimed_by(&mut self, gateway: Gateway) {
        self.gateway = Some(gateway);
    }

    /// The gateway holds the term: the process registers as soon as nothing is under way.
    pub(super) fn begin_registration(&mut self, now: Instant, commands: &mut Vec<Command>) {
        self.demote(now, commands);
        if matches!(self.phase, Phase::Idle { .. }) {
            self.phase = Phase::Draining { heard: now, slow_at: Some(now + SLOW_DISK) };
        }
    }

    /// Whether the copies, or a notice, are still at work for this link.
    pub(super) fn is_at_work(&self) -> bool {
        self.writes > 0 || self.noticing
    }

    /// Nothing is under way any more, on any link: registers if that was waited for.
    pub(super) fn drained(&mut self, commands: &mut Vec<Command>) {
        let Phase::Draining { heard, slow_at } = self.phase else { return };
        if slow_at.is_none() {
            info!(name = %self.name, "its disk goes on");
        }
        self.phase = Phase::Preparing { heard };
        commands.push(Command::Prepare);
    }

    /// The gateway does not hold the term, or not any more: what it sends from now on is not taken.
    pub(super) fn demote(&mut self, now: Instant, commands: &mut Vec<Command>) {
        match &self.phase {
            Phase::Registered(_) => {
                commands.push(Command::Registered(false));
                self.turns.clear();
            }
            Phase::Registering(..) | Phase::Draining { .. } | Phase::Preparing { .. } => {}
            _ => return,
        }
        self.phase = Phase::Idle { heard: now };
    }

    /// When to call [`Self::tick`], if nothing else happens before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Waiting(at) | Phase::Registering(_, at) => Some(*at),
            Phase::Idle { heard } | Phase::Preparing { heard } => Some(*heard + SILENCE),
            Phase::Draining { heard, slow_at } => {
                Some(slow_at.map_or(*heard + SILENCE, |at| at.min(*heard + SILENCE)))
            }
            Phase::Registered(registration) => Some(registration.heard + SILENCE),
            Phase::Connecting | Phase::Ended => None,
        }
    }

    /// Number of the connection on which the process is registered, where it is.
    pub(super) fn registered(&self) -> Option<SessionId> {
        matches!(self.phase, Phase::Registered(_)).then_some(self.session)
    }

    fn registration(&mut self) -> Option<&mut Registration> {
        match &mut self.phase {
            Phase::Registered(registration) => Some(registration),
            _ => None,
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant, commands: &mut Vec<Command>) {
        let silent = |heard: Instant| heard + SILENCE <= now;
        match &mut self.phase {
            Phase::Waiting(at) if *at <= now => {
                self.phase = Phase::Connecting;
                self.gateway = None;
                commands.push(Command::Connect);
            }
            Phase::Idle { heard } | Phase::Preparing { heard } | Phase::Draining { heard, .. }
                if silent(*heard) =>
            {
                self.over(now, Over::Lost(format!("nothing heard for {SILENCE:?}")), commands);
            }
            Phase::Draining { slow_at, .. } if slow_at.is_some_and(|at| at <= now) => {
                let name = self.name.as_str();
                warn!(name, "its disk hangs: it registers when what it was sent before is there");
                *slow_at = None;
            }
            Phase::Registering(_, at) if *at <= now => {
                self.over(now, Over::Lost(format!("nothing heard for {REGISTRATION_DEADLINE:?}")), commands);
            }
            Phase::Registered(registration) if silent(registration.heard) => {
                self.over(now, Over::Lost(format!("nothing heard for {SILENCE:?}")), commands);
            }
            _ => {}
        }
    }

    /// Something was heard of the gateway.
    pub(super) fn hear(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Idle { heard } | Phase::Preparing { heard } | Phase::Draining { heard, .. } => {
                *heard = now;
            }
            Phase::Registered(registration) => registration.heard = now,
            _ => {}
        }
    }

    fn receive(&mut self, now: Instant, message: ToProcess, commands: &mut Vec<Command>) {
        let session = self.session;
        let registration = match &mut self.phase {
            Phase::Registered(registration) => registration,
            Phase::Registering(..) => return self.answered(now, message, commands),
            Phase::Idle { .. } => {
                if let ToProcess::Refused(Refused { reason }) = message {
                    self.over(now, Over::Refused(reason), commands);
                }
                return;
            }
            _ => return,
        };
        registration.heard = now;
        match message {
            ToProcess::Beat(beat) => {
                commands.push(Command::Send(ToGateway::Alive(Alive { beat: beat.beat })));
            }
            ToProcess::ReadBatch(batch) => commands.push(Command::Read(batch)),
            ToProcess::WriteBatch(batch) => {
                self.writes += 1;
                commands.push(Command::Write(session, Arc::unwrap_or_clone(batch)));
            }
            ToProcess::MergeBatch(batch) => commands.push(Command::Merge(session, batch)),
            ToProcess::Query(Query::CountQuery(query)) => commands.push(Command::Count(query)),
            ToProcess::Query(query) => self.turns.ask(session, query, commands),
            ToProcess::RingNotice(notice) => {
                registration.notify(notice);
                self.notice(commands);
            }
            ToProcess::Expected(expected) => commands.push(Command::Compare(expected)),
            ToProcess::Renew(renew) => commands.push(Command::Renew(renew)),
            ToProcess::Released(_) => self.end(Ok(())),
            ToProcess::Refused(Refused { reason }) => self.over(now, Over::Refused(reason), commands),
            // These are for all links together.
            ToProcess::Registered(_)
            | ToProcess::Claim(_)
            | ToProcess::Release(_)
            | ToProcess::Heartbeat(_) => {}
        }
    }

    /// The gateway answers the registration. Beats may come before, and say nothing about it.
    fn answered(&mut self, now: Instant, message: ToProcess, commands: &mut Vec<Command>) {
        let size = match message {
            ToProcess::Registered(Registered { size }) => size,
            ToProcess::Refused(Refused { reason }) => return self.over(now, Over::Refused(reason), commands),
            _ => return,
        };
        let Phase::Registering(register, _) = mem::replace(&mut self.phase, Phase::Ended) else { return };
        let (incarnation, url) = (register.incarnation, self.url.as_str());
        info!(name = %self.name, %incarnation, gateway = url, size, "registered");
        self.phase = Phase::Registered(Box::new(Registration::new(&register, now)));
        commands.push(Command::Registered(true));
        commands.push(Command::Send(ToGateway::Following(self.following)));
        Role::ALL.into_iter().for_each(|role| self.report(now, role, commands));
    }

    /// Reports what has changed of a copy, if it matters to the gateway.
    fn report(&mut self, now: Instant, role: Role, commands: &mut Vec<Command>) {
        let Some(current) = *self.copies.get(role) else { return };
        let rolled_back = self.registration().is_some_and(|it| it.report(role, current, commands).is_err());
        if rolled_back {
            self.over(now, Over::RolledBack, commands);
        }
    }

    fn done(&mut self, session: SessionId, work: Work, answer: ToGateway, commands: &mut Vec<Command>) {
        // The gateway asks again for what an earlier connection was to answer.
        if self.registered() == Some(session) {
            commands.push(Command::Send(answer));
        }
        match work {
            Work::Writes => self.writes -= 1,
            Work::Merge => {}
            Work::Question | Work::Scan => self.turns.done(self.session, work, commands),
        }
    }

    /// Begins with the newest notice, unless another one is being carried out: to persist a view takes as
    /// long as the disk does.
    fn notice(&mut self, commands: &mut Vec<Command>) {
        let (session, noticing) = (self.session, self.noticing);
        if let Some(registration) = self.registration()
            && !noticing
            && let Some(notice) = registration.take_notice()
        {
            commands.push(Command::Notice(session, notice));
            self.noticing = true;
        }
    }

    fn noticed(
        &mut self,
        now: Instant,
        session: SessionId,
        persisted: Result<(Option<Ring>, u64), Contradiction>,
        commands: &mut Vec<Command>,
    ) {
        self.noticing = false;
        let current = self.session;
        let Some(registration) = self.registration() else { return };
        match persisted {
            Ok(persisted) => registration.persisted(persisted, commands),
            Err(error) if session == current => {
                return self.over(now, Over::Contradiction(error), commands);
            }
            Err(_) => {}
        }
        self.notice(commands);
    }

    /// Gives the connection up, and tries again later, unless that is pointless.
    fn over(&mut self, now: Instant, over: Over, commands: &mut Vec<Command>) {
        if matches!(self.phase, Phase::Waiting(_) | Phase::Ended) {
            return;
        }
        let phase = mem::replace(&mut self.phase, Phase::Ended);
        if let Phase::Registered(registration) = &phase {
            commands.push(Command::Registered(false));
            self.throttle.reset();
            if now >= registration.since + STABLE_AFTER {
                self.backoff.reset();
            }
        }
        commands.push(Command::Disconnect);
        self.turns.clear();
        if matches!(&phase, Phase::Registered(registration) if registration.leaving) {
            self.ended = Some(Ok(()));
            return;
        }
        let Self { name, url, throttle, .. } = self;
        match (&over, &phase) {
            (Over::Lost(reason), Phase::Registered(_)) => warn!(%name, url, reason, "gateway lost"),
            (Over::Lost(reason), _) => {
                if throttle.allows(reason, now) {
                    warn!(%name, reason, "no gateway yet; trying on");
                }
            }
            (Over::Refused(refusal), _) => {
                let reason = refusal.explain(name);
                if refusal.is_final() && self.sole {
                    error!(%name, url, reason, "refused by the gateway");
                    self.ended = Some(Err(reason));
                    return;
                }
                if throttle.allows(&reason, now) {
                    warn!(%name, url, reason, "refused by the gateway; trying on");
                }
            }
            (Over::Contradiction(error), _) => {
                if throttle.allows(&error.to_string(), now) {
                    warn!(%name, url, reason = %error, "the gateway contradicts what is known; trying on");
                }
            }
            (Over::RolledBack, _) => {}
        }
        self.phase = Phase::Waiting(now + self.backoff.next_delay());
    }

    fn end(&mut self, outcome: Result<(), String>) {
        self.ended = Some(outcome);
    }

    /// Whether the process has to end on account of this link.
    pub(super) fn take_end(&mut self) -> Option<Result<(), String>> {
        self.ended.take()
    }

    /// The process ends.
    pub(super) fn close(&mut self, commands: &mut Vec<Command>) {
        let phase = mem::replace(&mut self.phase, Phase::Ended);
        if matches!(phase, Phase::Registered(_)) {
            commands.push(Command::Registered(false));
        }
        if !matches!(phase, Phase::Waiting(_) | Phase::Ended) {
            commands.push(Command::Disconnect);
        }
    }
}
