//! The rules of the link to the gateway: when this process connects, what it reports, and what it answers.
//!
//! It connects and registers with the state of its copies. Then it answers reads, writes and questions, and
//! each `Beat` through the same queue, so that an answer to one means that work gets done. Whenever the
//! connection is over, whatever was under way on it is forgotten, and it registers anew: the gateway sends
//! again what it has no answer for. Writes that a copy still has are waited for first: they are among what
//! it registers with, so that no other copy leads without them.
//!
//! [`SessionState`] lives as long as the process. It opens no connection and reads no copy itself: it returns
//! [`Command`]s, and learns by [`Event`]s what came of them. [`super::gateway`] carries them out.

use std::collections::VecDeque;
use std::mem;
use std::time::{Duration, Instant};

use protocol::InstanceName;
use protocol::message::REVISION;
use protocol::message::link::{
    Alive, Applied, Compared, CopyReport, CopyReports, Expected, Following, Leaving, MergeBatch, ReadBatch,
    Refusal, Register, Ring, RingNotice, Role, WriteBatch,
};
use protocol::message::query::{CountQuery, Renew};
use protocol::mutation::{self, Mutation};
use tracing::{error, info, warn};

use super::messages::{FromGateway, Query, ToGateway};
use super::retry::{Backoff, LogThrottle};
use crate::node::PerRole;
use crate::node::plan::Contradiction;

/// How long the gateway may take to answer a registration.
const REGISTRATION_DEADLINE: Duration = Duration::from_secs(2);

/// A gateway that says nothing for that long is lost; it sends a beat several times a second.
const SILENCE: Duration = Duration::from_secs(2);

/// A link that held for that long was a good one: the next attempt comes quickly again.
const STABLE_AFTER: Duration = Duration::from_secs(2);

/// Writes that are not on disk after this time are logged.
const SLOW_DISK: Duration = Duration::from_secs(1);

/// This many questions about a whole copy are answered at once. More would take the processors from reads and
/// writes, and finish no sooner.
const QUESTIONS: usize = 2;

/// The same for scans, which take so long that nothing else should wait for them.
const SCANS: usize = 1;

/// Number of a connection; none is used twice.
pub type SessionId = u64;

/// What a copy, or another thread, was given to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Writes.
    Writes,
    /// The tail of a lost leader.
    Merge,
    /// A question about a whole copy.
    Question,
    /// A question that reads every record.
    Scan,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The connection is open; with this the process registers.
    Connected(Box<Register>),
    /// The connection could not be opened, or is over.
    Lost(String),
    /// The gateway sent a message.
    Message(FromGateway),
    /// Some work is done.
    Done {
        /// The connection that it came from.
        session: SessionId,
        /// What it was.
        work: Work,
        /// What to answer.
        answer: ToGateway,
    },
    /// A notice has been carried out, or cannot be true.
    Noticed {
        /// The connection that it came from.
        session: SessionId,
        /// The ring and the epoch of the view that are on disk now.
        persisted: Result<(Option<Ring>, u64), Contradiction>,
    },
    /// A copy was compared with what is known of its disk.
    Compared {
        /// Which copy.
        role: Role,
        /// It has lost nothing.
        sound: bool,
    },
    /// State of a copy has changed.
    Copy(Role, CopyReport),
    /// Which copies follow has changed.
    Following(Following),
    /// The process is to leave the ring.
    Leave,
    /// The time of [`SessionState::deadline`] has come.
    Tick,
}

/// What has to be done, in this order.
#[derive(Debug)]
pub enum Command {
    /// Open a connection. Owes [`Event::Connected`] or [`Event::Lost`].
    Connect,
    /// Close it, or give up opening it.
    Disconnect,
    /// Whether the gateway counts on this process has changed.
    Registered(bool),
    /// Send a message.
    Send(ToGateway),
    /// Send what has changed of the registration.
    SendChanges,
    /// Look users up, and send the answer at once.
    Read(ReadBatch),
    /// Look a number up, and send the answer at once.
    Count(CountQuery),
    /// Have a copy decide writes. Owes [`Event::Done`].
    Write(SessionId, WriteBatch),
    /// Have a copy merge changes. Owes [`Event::Done`].
    Merge(SessionId, MergeBatch),
    /// Have another thread answer a question. Owes [`Event::Done`].
    Ask(SessionId, Work, Query),
    /// Carry out a notice of the ring. Owes [`Event::Noticed`].
    Notice(SessionId, RingNotice),
    /// Compare a copy with what is known of its disk. Owes [`Event::Compared`].
    Compare(Expected),
    /// Have a copy repaired.
    Renew(Renew),
    /// The link has ended, with an error that has to be put right before another attempt makes sense.
    End(Result<(), String>),
}

/// See the [module](self).
#[derive(Debug)]
pub struct SessionState {
    name: InstanceName,
    /// URL of the gateway, for the log.
    url: String,
    phase: Phase,
    /// Of the last connection.
    session: SessionId,
    /// Batches of writes that the copies have not answered, also of earlier connections.
    writes: usize,
    /// A notice is being carried out.
    noticing: bool,
    questions: Turns,
    scans: Turns,
    copies: PerRole<Option<CopyReport>>,
    following: Following,
    backoff: Backoff,
    throttle: LogThrottle,
}

#[derive(Debug)]
enum Phase {
    /// The next attempt is then.
    Waiting(Instant),
    /// It waits for writes of earlier connections; a disk that is still not done then is logged.
    Draining {
        slow_at: Option<Instant>,
    },
    Connecting,
    /// The answer to the registration has to come until then.
    Registering(Box<Register>, Instant),
    Registered(Box<Registration>),
    Ended,
}

/// A registered connection.
#[derive(Debug)]
struct Registration {
    register: Register,
    since: Instant,
    heard: Instant,
    leaving: bool,
    /// What the gateway knows of the copies.
    reported: PerRole<CopyReport>,
    /// The ring, and the epoch of the view, that it knows to be on disk.
    persisted: (Option<Ring>, u64),
    /// The newest notice that has not been begun: each states all of it, so only that counts.
    notice: Option<RingNotice>,
}

/// Questions of one kind, which are answered a few at a time.
#[derive(Debug)]
struct Turns {
    work: Work,
    free: usize,
    waiting: VecDeque<Query>,
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
    pub fn new(name: InstanceName, url: String, now: Instant, backoff: Backoff) -> Self {
        let turns = |work, free| Turns { work, free, waiting: VecDeque::new() };
        Self {
            name,
            url,
            phase: Phase::Waiting(now),
            session: 0,
            writes: 0,
            noticing: false,
            questions: turns(Work::Question, QUESTIONS),
            scans: turns(Work::Scan, SCANS),
            copies: PerRole::default(),
            following: Following::default(),
            backoff,
            throttle: LogThrottle::default(),
        }
    }

    /// Takes note of what happened, and says what has to be done.
    pub fn step(&mut self, now: Instant, event: Event, commands: &mut Vec<Command>) {
        match event {
            Event::Message(message) => self.receive(now, message, commands),
            Event::Done { session, work, answer } => self.done(session, work, answer, commands),
            Event::Copy(role, report) => {
                *self.copies.get_mut(role) = Some(report);
                self.report(now, role, commands);
            }
            Event::Following(following) => {
                self.following = following;
                if self.registration().is_some() {
                    commands.push(Command::Send(ToGateway::Following(following)));
                }
            }
            Event::Noticed { session, persisted } => self.noticed(now, session, persisted, commands),
            Event::Compared { role, sound: true } => {
                commands.push(Command::Send(ToGateway::Compared(Compared { role })));
            }
            Event::Compared { sound: false, .. } => self.over(now, Over::RolledBack, commands),
            Event::Connected(register) if matches!(self.phase, Phase::Connecting) => {
                self.session += 1;
                // What changes from here on is news to the gateway.
                let CopyReports { primary, replica } = register.copies;
                self.copies = PerRole { primary: Some(primary), replica: Some(replica) };
                commands.push(Command::Send(ToGateway::Register(register.clone())));
                self.phase = Phase::Registering(register, now + REGISTRATION_DEADLINE);
            }
            Event::Connected(_) => {}
            Event::Lost(reason) => self.over(now, Over::Lost(reason), commands),
            Event::Leave => match self.registration() {
                Some(registration) => {
                    registration.leaving = true;
                    commands.push(Command::Send(ToGateway::Leaving(Leaving {})));
                }
                // Nothing depends on a process that is not registered.
                None => self.end(Ok(()), commands),
            },
            Event::Tick => self.tick(now, commands),
        }
    }

    /// When to send [`Event::Tick`], if nothing else happens before.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Waiting(at) | Phase::Registering(_, at) => Some(*at),
            Phase::Draining { slow_at } => *slow_at,
            Phase::Registered(registration) => Some(registration.heard + SILENCE),
            Phase::Connecting | Phase::Ended => None,
        }
    }

    /// Number of the connection on which the process is registered, where it is.
    pub fn registered(&self) -> Option<SessionId> {
        matches!(self.phase, Phase::Registered(_)).then_some(self.session)
    }

    fn registration(&mut self) -> Option<&mut Registration> {
        match &mut self.phase {
            Phase::Registered(registration) => Some(registration),
            _ => None,
        }
    }

    fn tick(&mut self, now: Instant, commands: &mut Vec<Command>) {
        match &mut self.phase {
            Phase::Waiting(at) if *at <= now => {
                self.phase = Phase::Draining { slow_at: Some(now + SLOW_DISK) };
                self.connect(commands);
            }
            Phase::Draining { slow_at } if slow_at.is_some_and(|at| at <= now) => {
                let name = self.name.as_str();
                warn!(name, "its disk hangs: it registers when what it was sent before is there");
                *slow_at = None;
            }
            Phase::Registering(_, at) if *at <= now => {
                self.over(now, Over::Lost(format!("nothing heard for {REGISTRATION_DEADLINE:?}")), commands);
            }
            Phase::Registered(registration) if registration.heard + SILENCE <= now => {
                self.over(now, Over::Lost(format!("nothing heard for {SILENCE:?}")), commands);
            }
            _ => {}
        }
    }

    /// Connects, once the writes of earlier connections are on disk.
    fn connect(&mut self, commands: &mut Vec<Command>) {
        let Phase::Draining { slow_at } = self.phase else { return };
        if self.writes == 0 {
            if slow_at.is_none() {
                info!(name = %self.name, "its disk goes on");
            }
            self.phase = Phase::Connecting;
            commands.push(Command::Connect);
        }
    }

    fn receive(&mut self, now: Instant, message: FromGateway, commands: &mut Vec<Command>) {
        let session = self.session;
        let registration = match &mut self.phase {
            Phase::Registered(registration) => registration,
            Phase::Registering(..) => return self.answered(now, message, commands),
            _ => return,
        };
        registration.heard = now;
        match message {
            FromGateway::Beat(beat) => {
                commands.push(Command::Send(ToGateway::Alive(Alive { beat: beat.beat })));
            }
            FromGateway::Reads(batch) => commands.push(Command::Read(batch)),
            FromGateway::Writes(batch) => {
                self.writes += 1;
                commands.push(Command::Write(session, batch));
            }
            FromGateway::Merge(batch) => commands.push(Command::Merge(session, batch)),
            FromGateway::Query(Query::Count(query)) => commands.push(Command::Count(query)),
            FromGateway::Query(Query::Digests(query)) if query.scan => {
                self.scans.ask(session, Query::Digests(query), commands);
            }
            FromGateway::Query(query) => self.questions.ask(session, query, commands),
            FromGateway::Notice(notice) => {
                if mutation::is(Mutation::StaleNotice) && registration.notice.is_some() {
                    return;
                }
                registration.notice = Some(notice);
                self.notice(commands);
            }
            FromGateway::Expected(expected) => commands.push(Command::Compare(expected)),
            FromGateway::Renew(renew) => commands.push(Command::Renew(renew)),
            FromGateway::Released => self.end(Ok(()), commands),
            FromGateway::Refused(reason) => self.over(now, Over::Refused(reason), commands),
            FromGateway::Registered(_) => {}
        }
    }

    /// The gateway answers the registration. Beats may come before, and say nothing about it.
    fn answered(&mut self, now: Instant, message: FromGateway, commands: &mut Vec<Command>) {
        let size = match message {
            FromGateway::Registered(registered) => registered.size,
            FromGateway::Refused(reason) => return self.over(now, Over::Refused(reason), commands),
            _ => return,
        };
        let Phase::Registering(register, _) = mem::replace(&mut self.phase, Phase::Ended) else { return };
        let (incarnation, url) = (register.incarnation, self.url.as_str());
        info!(name = %self.name, %incarnation, gateway = url, size, "registered");
        let copies = register.copies;
        self.phase = Phase::Registered(Box::new(Registration {
            since: now,
            heard: now,
            leaving: false,
            reported: PerRole { primary: copies.primary, replica: copies.replica },
            persisted: (register.ring, register.view.epoch),
            notice: None,
            register: *register,
        }));
        commands.push(Command::Registered(true));
        commands.push(Command::Send(ToGateway::Following(self.following)));
        Role::ALL.into_iter().for_each(|role| self.report(now, role, commands));
    }

    /// Reports what has changed of a copy, if it matters to the gateway.
    fn report(&mut self, now: Instant, role: Role, commands: &mut Vec<Command>) {
        let Some(current) = *self.copies.get(role) else { return };
        let Some(registration) = self.registration() else { return };
        let before = mem::replace(registration.reported.get_mut(role), current);
        if before.complete && !current.complete {
            self.over(now, Over::RolledBack, commands);
        } else if (before.complete, before.incarnation) != (current.complete, current.incarnation) {
            info!(copy = role.as_str(), complete = current.complete, "copy changed");
            commands.push(Command::SendChanges);
        } else if let Some(position) = current.position.filter(|_| before.position != current.position) {
            commands.push(Command::Send(ToGateway::Applied(Applied { role, position })));
        }
    }

    fn done(&mut self, session: SessionId, work: Work, answer: ToGateway, commands: &mut Vec<Command>) {
        // The gateway asks again for what an earlier connection was to answer.
        if self.registered() == Some(session) {
            commands.push(Command::Send(answer));
        }
        match work {
            Work::Writes => {
                self.writes -= 1;
                self.connect(commands);
            }
            Work::Merge => {}
            Work::Question => self.questions.done(self.session, commands),
            Work::Scan => self.scans.done(self.session, commands),
        }
    }

    /// Begins with the newest notice, unless another one is being carried out: to persist a view takes as
    /// long as the disk does.
    fn notice(&mut self, commands: &mut Vec<Command>) {
        let (session, noticing) = (self.session, self.noticing);
        if let Some(registration) = self.registration()
            && !noticing
            && let Some(notice) = registration.notice.take()
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
            // It may have come from an earlier connection, and be news on this one all the same.
            Ok(persisted) if registration.persisted != persisted => {
                registration.persisted = persisted;
                commands.push(Command::SendChanges);
            }
            Err(error) if session == current => {
                return self.over(now, Over::Contradiction(error), commands);
            }
            Ok(_) | Err(_) => {}
        }
        self.notice(commands);
    }

    /// Gives the connection up, and tries again later, unless that is pointless.
    fn over(&mut self, now: Instant, over: Over, commands: &mut Vec<Command>) {
        if matches!(self.phase, Phase::Waiting(_) | Phase::Draining { .. } | Phase::Ended) {
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
        self.questions.waiting.clear();
        self.scans.waiting.clear();
        let leaving = matches!(&phase, Phase::Registered(registration) if registration.leaving);
        let Self { name, url, throttle, .. } = self;
        match (&over, &phase) {
            _ if leaving => return commands.push(Command::End(Ok(()))),
            (Over::Lost(reason), Phase::Registered(_)) => warn!(%name, reason, "gateway lost"),
            (Over::Lost(reason), _) => {
                if throttle.allows(reason, now) {
                    warn!(%name, reason, "no gateway yet; trying on");
                }
            }
            (Over::Refused(refusal), phase) => {
                let register = match phase {
                    Phase::Registering(register, _) => register,
                    Phase::Registered(registration) => &registration.register,
                    _ => unreachable!("no message comes on a connection that is not open"),
                };
                let (reason, incarnation) = (explain(refusal, register), register.incarnation);
                if refusal.is_final() {
                    error!(%name, %incarnation, url, reason, "refused by the gateway");
                    return commands.push(Command::End(Err(reason)));
                }
                if throttle.allows(&reason, now) {
                    warn!(%name, %incarnation, url, reason, "refused by the gateway; trying on");
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

    fn end(&mut self, outcome: Result<(), String>, commands: &mut Vec<Command>) {
        if matches!(mem::replace(&mut self.phase, Phase::Ended), Phase::Registered(_)) {
            commands.push(Command::Registered(false));
        }
        commands.extend([Command::Disconnect, Command::End(outcome)]);
    }
}

impl Turns {
    fn ask(&mut self, session: SessionId, query: Query, commands: &mut Vec<Command>) {
        self.waiting.push_back(query);
        self.next(session, commands);
    }

    fn done(&mut self, session: SessionId, commands: &mut Vec<Command>) {
        self.free += 1;
        self.next(session, commands);
    }

    fn next(&mut self, session: SessionId, commands: &mut Vec<Command>) {
        if self.free > 0
            && let Some(query) = self.waiting.pop_front()
        {
            self.free -= 1;
            commands.push(Command::Ask(session, self.work, query));
        }
    }
}

/// A refusal, for a person.
fn explain(refusal: &Refusal, register: &Register) -> String {
    let name = &register.instance;
    match refusal {
        Refusal::Revision { gateway } => {
            format!("it speaks revision {gateway}, {name} speaks {REVISION}: start the same version of both")
        }
        Refusal::NameTaken { holder, incarnation } => format!(
            "another process is registered as {name}: it came from {holder} and its data are {incarnation}, \
             this one's are {}",
            register.incarnation
        ),
        Refusal::OutsideRing { size } => {
            format!("the ring has {size} places, and {name} would have place {}", name.place())
        }
        Refusal::AnotherRing { serving } => {
            let ring = register.ring.map_or_else(|| "none".to_owned(), |ring| ring.id.to_string());
            format!("it serves ring {serving}, the data of {name} belong to ring {ring}")
        }
        Refusal::Void => format!("it took {name} for lost"),
    }
}

#[cfg(test)]
mod tests {
    use protocol::Version;
    use protocol::message::link::{Beat, Position, Registered, ReplicationAddress, View, WriteAnswers};
    use protocol::message::query::{DigestQuery, PageQuery};
    use uuid::Uuid;

    use super::*;

    fn copy(complete: bool, applied: u64) -> CopyReport {
        let position = Some(Position { incarnation: Uuid::from_u128(9), sequence: applied });
        CopyReport {
            incarnation: Uuid::from_u128(1),
            complete,
            head: 0,
            position,
            version: Version::ZERO,
            flushed: 0,
            other: None,
            rollback: None,
        }
    }

    fn register() -> Register {
        Register {
            revision: REVISION,
            instance: "db-1".parse().unwrap(),
            incarnation: Uuid::from_u128(3),
            ring: None,
            view: View::default(),
            replication: ReplicationAddress { host: None, port: 1 },
            copies: CopyReports { primary: copy(true, 1), replica: copy(true, 1) },
        }
    }

    fn notice(epoch: u64) -> RingNotice {
        RingNotice {
            ring: Ring { id: Uuid::nil(), size: 3, formed: true },
            view: View { epoch, ..View::first(3) },
            successor: None,
            predecessor: None,
            primary: protocol::message::link::Grant::Wait,
            replica: protocol::message::link::Grant::Wait,
        }
    }

    /// A link and its time.
    struct Script {
        state: SessionState,
        now: Instant,
    }

    impl Script {
        fn new() -> Self {
            let (now, backoff) = (Instant::now(), Backoff::with_jitter_seed(1));
            let state = SessionState::new("db-1".parse().unwrap(), "ws://gateway".to_owned(), now, backoff);
            Self { state, now }
        }

        fn connecting() -> Self {
            let mut script = Self::new();
            assert_eq!(script.at_deadline(), ["Connect"]);
            script
        }

        fn registered() -> Self {
            let mut script = Self::connecting();
            script.register();
            script
        }

        fn register(&mut self) {
            assert_eq!(self.step(Event::Connected(Box::new(register()))), ["Send(Register)"]);
            let registered = self.hear(FromGateway::Registered(Registered { size: 3 }));
            assert_eq!(registered, ["Registered(true)", "Send(Following)"]);
        }

        /// The commands, each by its name, and what is sent.
        fn step(&mut self, event: Event) -> Vec<String> {
            let mut commands = Vec::new();
            self.state.step(self.now, event, &mut commands);
            let name = |text: String| text.split(['(', ' ']).next().unwrap_or_default().to_owned();
            let short = |command: &Command| match command {
                Command::Send(message) => format!("Send({})", name(format!("{message:?}"))),
                Command::Registered(_) | Command::End(_) => format!("{command:?}"),
                Command::Notice(_, notice) => format!("Notice({})", notice.view.epoch),
                command => name(format!("{command:?}")),
            };
            commands.iter().map(short).collect()
        }

        fn hear(&mut self, message: FromGateway) -> Vec<String> {
            self.step(Event::Message(message))
        }

        fn at_deadline(&mut self) -> Vec<String> {
            self.now = self.state.deadline().unwrap();
            self.step(Event::Tick)
        }

        fn done(&mut self, session: SessionId, work: Work) -> Vec<String> {
            let answers = WriteAnswers { batch: 1, role: Role::Primary, lsn: 1, results: Vec::new() };
            self.step(Event::Done { session, work, answer: ToGateway::Written(answers) })
        }
    }

    const LOST: [&str; 2] = ["Registered(false)", "Disconnect"];

    fn writes() -> FromGateway {
        FromGateway::Writes(WriteBatch { batch: 1, role: Role::Primary, writes: Vec::new() })
    }

    #[test]
    fn it_registers_and_answers_beats() {
        let mut link = Script::registered();
        assert_eq!(link.hear(FromGateway::Beat(Beat { beat: 7 })), ["Send(Alive)"]);
        assert_eq!(link.hear(writes()), ["Write"]);
        assert_eq!(link.done(1, Work::Writes), ["Send(Written)"]);
    }

    #[test]
    fn silence_is_noticed_and_every_sound_counts() {
        let mut link = Script::registered();
        link.now += SILENCE - Duration::from_millis(1);
        link.hear(FromGateway::Beat(Beat { beat: 7 }));
        assert_eq!(link.state.deadline(), Some(link.now + SILENCE));
        assert_eq!(link.at_deadline(), LOST);
        assert_eq!(link.at_deadline(), ["Connect"]);
    }

    #[test]
    fn an_unanswered_registration_is_given_up() {
        let mut link = Script::connecting();
        link.step(Event::Connected(Box::new(register())));
        assert!(link.hear(FromGateway::Beat(Beat { beat: 7 })).is_empty(), "it says nothing about it");
        assert_eq!(link.at_deadline(), ["Disconnect"]);
    }

    #[test]
    fn it_registers_again_when_what_it_was_sent_is_on_disk() {
        let mut link = Script::registered();
        link.hear(writes());
        link.hear(writes());
        assert_eq!(link.step(Event::Lost("closed".to_owned())), LOST);
        assert!(link.at_deadline().is_empty(), "it waits for the writes");
        assert!(link.at_deadline().is_empty(), "also when they take long");
        assert!(link.done(1, Work::Writes).is_empty());
        assert_eq!(link.done(1, Work::Writes), ["Connect"]);
        link.register();
        assert!(link.done(1, Work::Merge).is_empty(), "of an earlier connection");
    }

    #[test]
    fn the_newest_notice_counts_and_is_begun_when_the_last_one_is_on_disk() {
        let mut link = Script::registered();
        assert_eq!(link.hear(FromGateway::Notice(notice(1))), ["Notice(1)"]);
        assert!(link.hear(FromGateway::Notice(notice(2))).is_empty());
        assert!(link.hear(FromGateway::Notice(notice(3))).is_empty());
        let ring = notice(1).ring;
        let persisted = Ok((Some(ring), 1));
        assert_eq!(link.step(Event::Noticed { session: 1, persisted }), ["SendChanges", "Notice(3)"]);
        let persisted = Ok((Some(ring), 3));
        assert_eq!(link.step(Event::Noticed { session: 1, persisted }), ["SendChanges"]);
    }

    #[test]
    fn what_an_earlier_connection_had_persisted_is_news_and_what_it_contradicts_is_not() {
        let contradiction = || Contradiction::EmptyInFormedRing(Role::Primary);
        for (persisted, expected) in
            [(Ok((None, 4)), vec!["SendChanges"]), (Ok((None, 0)), vec![]), (Err(contradiction()), vec![])]
        {
            let mut link = Script::registered();
            link.hear(FromGateway::Notice(notice(4)));
            link.hear(FromGateway::Notice(notice(5)));
            link.step(Event::Lost("closed".to_owned()));
            link.at_deadline();
            link.register();
            assert_eq!(link.step(Event::Noticed { session: 1, persisted }), expected);
        }
        let mut link = Script::registered();
        link.hear(FromGateway::Notice(notice(4)));
        assert_eq!(link.step(Event::Noticed { session: 1, persisted: Err(contradiction()) }), LOST);
    }

    #[test]
    fn what_changes_of_a_copy_is_reported() {
        let mut link = Script::registered();
        assert!(link.step(Event::Copy(Role::Replica, copy(true, 1))).is_empty());
        assert_eq!(link.step(Event::Copy(Role::Replica, copy(true, 2))), ["Send(Applied)"]);
        let another = CopyReport { incarnation: Uuid::from_u128(2), ..copy(true, 2) };
        assert_eq!(link.step(Event::Copy(Role::Replica, another)), ["SendChanges"]);
        assert_eq!(link.step(Event::Copy(Role::Replica, copy(false, 2))), LOST, "it was rolled back");
    }

    #[test]
    fn a_copy_that_lost_something_ends_the_connection() {
        let mut link = Script::registered();
        let expected = Expected { role: Role::Primary, flushed: None, followed: None };
        assert_eq!(link.hear(FromGateway::Expected(expected)), ["Compare"]);
        assert_eq!(link.step(Event::Compared { role: Role::Primary, sound: true }), ["Send(Compared)"]);
        assert_eq!(link.step(Event::Compared { role: Role::Primary, sound: false }), LOST);
    }

    #[test]
    fn a_process_that_leaves_serves_until_it_is_released() {
        let mut link = Script::registered();
        assert_eq!(link.step(Event::Leave), ["Send(Leaving)"]);
        assert_eq!(link.hear(writes()), ["Write"]);
        let ended = ["Registered(false)", "Disconnect", "End(Ok(()))"];
        assert_eq!(link.hear(FromGateway::Released), ended);
        let mut link = Script::registered();
        link.step(Event::Leave);
        assert_eq!(link.step(Event::Lost("closed".to_owned())), ended);
        assert_eq!(Script::connecting().step(Event::Leave), ["Disconnect", "End(Ok(()))"]);
    }

    #[test]
    fn a_refusal_is_final_or_tried_again() {
        let mut link = Script::connecting();
        link.step(Event::Connected(Box::new(register())));
        assert_eq!(link.hear(FromGateway::Refused(Refusal::Void)), ["Disconnect"]);
        assert_eq!(link.at_deadline(), ["Connect"]);
        link.step(Event::Connected(Box::new(register())));
        let ended = link.hear(FromGateway::Refused(Refusal::OutsideRing { size: 1 }));
        assert_eq!(ended[0], "Disconnect");
        assert!(ended[1].contains("1 places") && ended[1].contains("place 1"), "{ended:?}");
    }

    #[test]
    fn two_questions_and_one_scan_are_answered_at_once() {
        let mut link = Script::registered();
        let page = || PageQuery {
            query: 1,
            role: Role::Primary,
            after: None,
            limit: 1,
            filter: protocol::message::query::Filter::All,
        };
        let scan =
            || FromGateway::Query(Query::Digests(DigestQuery { query: 1, role: Role::Primary, scan: true }));
        for expected in [vec!["Ask"], vec!["Ask"], vec![]] {
            assert_eq!(link.hear(FromGateway::Query(Query::Page(page()))), expected);
        }
        assert_eq!(link.hear(scan()), ["Ask"]);
        assert!(link.hear(scan()).is_empty());
        assert_eq!(link.done(1, Work::Question), ["Send(Written)", "Ask"]);
        assert_eq!(link.done(1, Work::Scan), ["Send(Written)", "Ask"]);
        link.step(Event::Lost("closed".to_owned()));
        assert!(link.done(1, Work::Question).is_empty(), "the rest is forgotten");
    }
}
