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

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use process::LogThrottle;
use protocol::InstanceName;
use protocol::message::link::{
    Alive, Compared, CopyReport, Following, Leaving, PerRole, Refusal, Refused, Register, Registered, Ring,
    Role, ToGateway, ToProcess,
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
        Self {
            name,
            url,
            phase: Phase::Waiting(now),
            session: 0,
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
            Event::Usage(usage) => {
                if self.registration().is_some() {
                    commands.push(Command::Send(ToGateway::ProcessUsage(usage)));
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
                self.copies = PerRole::both(|role| Some(*register.copies.get(role)));
                commands.push(Command::Register(register.clone()));
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

    fn receive(&mut self, now: Instant, message: ToProcess, commands: &mut Vec<Command>) {
        let session = self.session;
        let registration = match &mut self.phase {
            Phase::Registered(registration) => registration,
            Phase::Registering(..) => return self.answered(now, message, commands),
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
            ToProcess::Released(_) => self.end(Ok(()), commands),
            ToProcess::Refused(Refused { reason }) => self.over(now, Over::Refused(reason), commands),
            ToProcess::Registered(_) => {}
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
        self.phase = Phase::Registered(Box::new(Registration::new(*register, now)));
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
            Work::Writes => {
                self.writes -= 1;
                self.connect(commands);
            }
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
        self.turns.clear();
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
                let (reason, incarnation) = (refusal.explain(register), register.incarnation);
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

#[cfg(test)]
mod tests {
    use protocol::Version;
    use protocol::message::REVISION;
    use protocol::message::link::{
        Beat, CopyReports, Expected, Position, Released, ReplicationAddress, RingNotice, View, WriteAnswers,
        WriteBatch,
    };
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
            assert_eq!(self.step(Event::Connected(Box::new(register()))), ["Register"]);
            let registered = self.hear(ToProcess::Registered(Registered { size: 3 }));
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

        fn hear(&mut self, message: ToProcess) -> Vec<String> {
            self.step(Event::Message(message))
        }

        fn at_deadline(&mut self) -> Vec<String> {
            self.now = self.state.deadline().unwrap();
            self.step(Event::Tick)
        }

        fn done(&mut self, session: SessionId, work: Work) -> Vec<String> {
            let answers = WriteAnswers { batch: 1, role: Role::Primary, lsn: 1, results: Vec::new() };
            self.step(Event::Done { session, work, answer: ToGateway::WriteAnswers(answers) })
        }
    }

    const LOST: [&str; 2] = ["Registered(false)", "Disconnect"];

    fn writes() -> ToProcess {
        ToProcess::WriteBatch(Arc::new(WriteBatch { batch: 1, role: Role::Primary, writes: Vec::new() }))
    }

    #[test]
    fn it_registers_and_answers_beats() {
        let mut link = Script::registered();
        assert_eq!(link.hear(ToProcess::Beat(Beat { beat: 7 })), ["Send(Alive)"]);
        assert_eq!(link.hear(writes()), ["Write"]);
        assert_eq!(link.done(1, Work::Writes), ["Send(WriteAnswers)"]);
    }

    #[test]
    fn silence_is_noticed_and_every_sound_counts() {
        let mut link = Script::registered();
        link.now += SILENCE - Duration::from_millis(1);
        link.hear(ToProcess::Beat(Beat { beat: 7 }));
        assert_eq!(link.state.deadline(), Some(link.now + SILENCE));
        assert_eq!(link.at_deadline(), LOST);
        assert_eq!(link.at_deadline(), ["Connect"]);
    }

    #[test]
    fn an_unanswered_registration_is_given_up() {
        let mut link = Script::connecting();
        link.step(Event::Connected(Box::new(register())));
        assert!(link.hear(ToProcess::Beat(Beat { beat: 7 })).is_empty(), "it says nothing about it");
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
        assert_eq!(link.hear(ToProcess::RingNotice(notice(1))), ["Notice(1)"]);
        assert!(link.hear(ToProcess::RingNotice(notice(2))).is_empty());
        assert!(link.hear(ToProcess::RingNotice(notice(3))).is_empty());
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
            link.hear(ToProcess::RingNotice(notice(4)));
            link.hear(ToProcess::RingNotice(notice(5)));
            link.step(Event::Lost("closed".to_owned()));
            link.at_deadline();
            link.register();
            assert_eq!(link.step(Event::Noticed { session: 1, persisted }), expected);
        }
        let mut link = Script::registered();
        link.hear(ToProcess::RingNotice(notice(4)));
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
        assert_eq!(link.hear(ToProcess::Expected(expected)), ["Compare"]);
        assert_eq!(link.step(Event::Compared { role: Role::Primary, sound: true }), ["Send(Compared)"]);
        assert_eq!(link.step(Event::Compared { role: Role::Primary, sound: false }), LOST);
    }

    #[test]
    fn a_process_that_leaves_serves_until_it_is_released() {
        let mut link = Script::registered();
        assert_eq!(link.step(Event::Leave), ["Send(Leaving)"]);
        assert_eq!(link.hear(writes()), ["Write"]);
        let ended = ["Registered(false)", "Disconnect", "End(Ok(()))"];
        assert_eq!(link.hear(ToProcess::Released(Released {})), ended);
        let mut link = Script::registered();
        link.step(Event::Leave);
        assert_eq!(link.step(Event::Lost("closed".to_owned())), ended);
        assert_eq!(Script::connecting().step(Event::Leave), ["Disconnect", "End(Ok(()))"]);
    }

    #[test]
    fn a_refusal_is_final_or_tried_again() {
        let mut link = Script::connecting();
        link.step(Event::Connected(Box::new(register())));
        assert_eq!(link.hear(ToProcess::Refused(Refused { reason: Refusal::Void })), ["Disconnect"]);
        assert_eq!(link.at_deadline(), ["Connect"]);
        link.step(Event::Connected(Box::new(register())));
        let ended = link.hear(ToProcess::Refused(Refused { reason: Refusal::OutsideRing { size: 1 } }));
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
        let scan = || {
            ToProcess::Query(Query::DigestQuery(DigestQuery { query: 1, role: Role::Primary, scan: true }))
        };
        for expected in [vec!["Ask"], vec!["Ask"], vec![]] {
            assert_eq!(link.hear(ToProcess::Query(Query::PageQuery(page()))), expected);
        }
        assert_eq!(link.hear(scan()), ["Ask"]);
        assert!(link.hear(scan()).is_empty());
        assert_eq!(link.done(1, Work::Question), ["Send(WriteAnswers)", "Ask"]);
        assert_eq!(link.done(1, Work::Scan), ["Send(WriteAnswers)", "Ask"]);
        link.step(Event::Lost("closed".to_owned()));
        assert!(link.done(1, Work::Question).is_empty(), "the rest is forgotten");
    }
}
