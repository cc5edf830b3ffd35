//! Scripts for the rules of the links: one gateway, and two.

use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::Version;
use protocol::message::REVISION;
use protocol::message::link::{
    Beat, Claim, CopyReport, CopyReports, Expected, Gateway, Heartbeat, Position, Refusal, Refused, Register,
    Registered, Release, Released, ReplicationAddress, Ring, RingNotice, Role, ToGateway, ToProcess, View,
    WriteAnswers, WriteBatch,
};
use protocol::message::query::{DigestQuery, PageQuery, Query};
use protocol::term::PROMISE;
use uuid::Uuid;

use super::event::{Command, Event, LinkId, ProcessEvent, SessionId, Todo, Work};
use super::links::{Links, Target};
use super::retry::Backoff;
use crate::identity::Grant;
use crate::node::plan::Contradiction;

const SILENCE: Duration = Duration::from_secs(2);

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

/// The links of a process, and the time.
struct Script {
    state: Links,
    now: Instant,
}

impl Script {
    fn new(gateways: usize) -> Self {
        let now = Instant::now();
        let target = |link| Target { url: format!("ws://gateway-{link}"), host: format!("gateway-{link}") };
        let (name, targets) = ("db-1".parse().unwrap(), (0..gateways).map(target).collect());
        let backoff = || Backoff::with_jitter_seed(1);
        Self { state: Links::new(name, targets, Grant::default(), now, backoff), now }
    }

    /// Of a process that knows one gateway.
    fn connecting() -> Self {
        let mut script = Self::new(1);
        assert_eq!(script.at_deadline(), ["Connect"]);
        script
    }

    fn claimed() -> Self {
        let mut script = Self::connecting();
        script.claim();
        script
    }

    fn registered() -> Self {
        let mut script = Self::connecting();
        script.register();
        script
    }

    /// The connection is open, and the gateway holds the term.
    fn claim(&mut self) {
        assert_eq!(self.step(Event::Connected(None)), ["Hello"]);
        if self.hear(claim(1, 0)) == ["PersistGrant(1)"] {
            assert_eq!(self.happen(ProcessEvent::GrantPersisted), ["Send(Granted)", "Prepare"]);
        }
        assert_eq!(self.step(Event::Prepared(Box::new(register()))), ["Register"]);
    }

    fn register(&mut self) {
        self.claim();
        let registered = self.hear(ToProcess::Registered(Registered { size: 3 }));
        assert_eq!(registered, ["Registered(true)", "Send(Following)"]);
    }

    /// What is to be done, each by its name, and what is sent.
    fn step(&mut self, event: Event) -> Vec<String> {
        self.step_on(0, event)
    }

    fn step_on(&mut self, link: LinkId, event: Event) -> Vec<String> {
        let mut todos = Vec::new();
        self.state.step_on(self.now, link, event, &mut todos);
        words(&todos)
    }

    fn happen(&mut self, event: ProcessEvent) -> Vec<String> {
        let mut todos = Vec::new();
        self.state.step(self.now, event, &mut todos);
        words(&todos)
    }

    fn hear(&mut self, message: ToProcess) -> Vec<String> {
        self.step(Event::Message(message))
    }

    fn hear_on(&mut self, link: LinkId, message: ToProcess) -> Vec<String> {
        self.step_on(link, Event::Message(message))
    }

    fn at_deadline(&mut self) -> Vec<String> {
        self.now = self.state.deadline().unwrap();
        self.happen(ProcessEvent::Tick)
    }

    fn done(&mut self, session: SessionId, work: Work) -> Vec<String> {
        let answers = WriteAnswers { batch: 1, role: Role::Primary, lsn: 1, results: Vec::new() };
        self.step(Event::Done { session, work, answer: ToGateway::WriteAnswers(answers) })
    }
}

/// Those of the second link have a 2 behind.
fn words(todos: &[Todo]) -> Vec<String> {
    let name = |text: String| text.split(['(', ' ']).next().unwrap_or_default().to_owned();
    let short = |todo: &Todo| match todo {
        Todo::On(link, command) => {
            let word = match command {
                Command::Send(message) => format!("Send({})", name(format!("{message:?}"))),
                Command::Registered(_) => format!("{command:?}"),
                Command::Notice(_, notice) => format!("Notice({})", notice.view.epoch),
                command => name(format!("{command:?}")),
            };
            if *link == 0 { word } else { format!("{word} {}", link + 1) }
        }
        Todo::PersistGrant(grant) => format!("PersistGrant({})", grant.term),
        Todo::End(_) => format!("{todo:?}"),
    };
    todos.iter().map(short).collect()
}

fn claim(term: u64, gateway: u128) -> ToProcess {
    let id = Uuid::from_u128(gateway);
    let gateway = Gateway { id, name: "gateway".to_owned(), host: None, port: 3001 };
    ToProcess::Claim(Box::new(Claim { term, gateway, register: true }))
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
    let mut link = Script::claimed();
    assert!(link.hear(ToProcess::Beat(Beat { beat: 7 })).is_empty(), "it says nothing about it");
    assert_eq!(link.at_deadline(), ["Disconnect"]);
}

/// What follows a claim of a process that has granted that before.
const GRANTED: [&str; 2] = ["Send(Granted)", "Prepare"];

#[test]
fn it_registers_again_when_what_it_was_sent_is_on_disk() {
    let mut link = Script::registered();
    link.hear(writes());
    link.hear(writes());
    assert_eq!(link.step(Event::Lost("closed".to_owned())), LOST);
    assert_eq!(link.at_deadline(), ["Connect"]);
    assert_eq!(link.step(Event::Connected(None)), ["Hello"]);
    assert_eq!(link.hear(claim(1, 0)), GRANTED[..1]);
    assert!(link.at_deadline().is_empty(), "it waits for the writes");
    assert!(link.done(1, Work::Writes).is_empty());
    assert_eq!(link.done(1, Work::Writes), ["Prepare"]);
    assert_eq!(link.step(Event::Prepared(Box::new(register()))), ["Register"]);
    link.hear(ToProcess::Registered(Registered { size: 3 }));
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
fn it_registers_when_an_earlier_notice_is_on_disk_or_contradicted() {
    let contradiction = || Contradiction::EmptyInFormedRing(Role::Primary);
    for persisted in [Ok((None, 4)), Err(contradiction())] {
        let mut link = Script::registered();
        link.hear(ToProcess::RingNotice(notice(4)));
        link.hear(ToProcess::RingNotice(notice(5)));
        link.step(Event::Lost("closed".to_owned()));
        link.at_deadline();
        link.step(Event::Connected(None));
        assert_eq!(link.hear(claim(1, 0)), GRANTED[..1]);
        assert_eq!(link.step(Event::Noticed { session: 1, persisted }), ["Prepare"]);
    }
    let mut link = Script::registered();
    link.hear(ToProcess::RingNotice(notice(4)));
    assert_eq!(link.step(Event::Noticed { session: 1, persisted: Err(contradiction()) }), LOST);
}

#[test]
fn what_changes_of_a_copy_is_reported() {
    let mut link = Script::registered();
    assert!(link.happen(ProcessEvent::Copy(Role::Replica, copy(true, 1))).is_empty());
    assert_eq!(link.happen(ProcessEvent::Copy(Role::Replica, copy(true, 2))), ["Send(Applied)"]);
    let another = CopyReport { incarnation: Uuid::from_u128(2), ..copy(true, 2) };
    assert_eq!(link.happen(ProcessEvent::Copy(Role::Replica, another)), ["SendChanges"]);
    assert_eq!(link.happen(ProcessEvent::Copy(Role::Replica, copy(false, 2))), LOST, "it was rolled back");
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
    assert_eq!(link.happen(ProcessEvent::Leave), ["Send(Leaving)"]);
    assert_eq!(link.hear(writes()), ["Write"]);
    let ended = ["Registered(false)", "Disconnect", "End(Ok(()))"];
    assert_eq!(link.hear(ToProcess::Released(Released {})), ended);
    let mut link = Script::registered();
    link.happen(ProcessEvent::Leave);
    assert_eq!(link.step(Event::Lost("closed".to_owned())), ended);
    assert_eq!(Script::connecting().happen(ProcessEvent::Leave), ["Disconnect", "End(Ok(()))"]);
}

#[test]
fn a_refusal_is_final_or_tried_again() {
    let mut link = Script::claimed();
    assert_eq!(link.hear(ToProcess::Refused(Refused { reason: Refusal::Void })), ["Disconnect"]);
    assert_eq!(link.at_deadline(), ["Connect"]);
    link.claim();
    let ended = link.hear(ToProcess::Refused(Refused { reason: Refusal::OutsideRing { size: 1 } }));
    assert_eq!(ended[0], "Disconnect");
    assert!(ended[1].contains("1 places") && ended[1].contains("place 1"), "{ended:?}");
    let mut link = Script::connecting();
    link.step(Event::Connected(None));
    let ended = link.hear(ToProcess::Refused(Refused { reason: Refusal::Revision { gateway: 99 } }));
    assert!(ended[1].contains("99"), "before it is claimed: {ended:?}");
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
        || ToProcess::Query(Query::DigestQuery(DigestQuery { query: 1, role: Role::Primary, scan: true }));
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

/// A process with two gateways, of which the first holds the term.
fn two() -> Script {
    let mut links = Script::new(2);
    assert_eq!(links.at_deadline(), ["Connect", "Connect 2"]);
    links.now += PROMISE;
    assert_eq!(links.step_on(0, Event::Connected(None)), ["Hello"]);
    assert_eq!(links.step_on(1, Event::Connected(None)), ["Hello 2"]);
    links.happen(ProcessEvent::Tick);
    assert_eq!(links.hear(claim(1, 1)), ["PersistGrant(1)"]);
    let granted = ["Send(Granted)", "Send(TermReport) 2", "Prepare"];
    assert_eq!(links.happen(ProcessEvent::GrantPersisted), granted);
    links.step(Event::Prepared(Box::new(register())));
    links.hear(ToProcess::Registered(Registered { size: 3 }));
    links
}

fn heartbeat(active: bool) -> ToProcess {
    ToProcess::Heartbeat(Heartbeat { number: 1, active })
}

#[test]
fn the_other_gateway_is_heard_and_not_obeyed() {
    let mut links = two();
    assert!(links.hear_on(1, writes()).is_empty());
    assert_eq!(links.hear_on(1, heartbeat(true)), ["Send(Kept) 2"]);
    assert_eq!(links.hear_on(1, claim(2, 2)), ["Send(TermReport) 2"], "it is bound to the first one");
    assert_eq!(links.hear(writes()), ["Write"]);
    links.now += PROMISE;
    let free = links.happen(ProcessEvent::Tick);
    assert_eq!(free, ["Send(TermReport)", "Send(TermReport) 2"]);
    assert_eq!(links.hear(heartbeat(true)), ["Send(TermReport)", "Send(TermReport) 2", "Send(Kept)"]);
    assert_eq!(links.hear_on(1, claim(2, 2)), ["Send(TermReport) 2"], "it is bound again");
}

#[test]
fn what_the_gateway_before_sends_is_not_taken_and_what_it_sent_is_waited_for() {
    let mut links = two();
    links.hear(writes());
    links.now += PROMISE;
    links.happen(ProcessEvent::Tick);
    assert_eq!(links.hear_on(1, claim(2, 2)), ["Registered(false)", "PersistGrant(2)"]);
    assert!(links.hear(writes()).is_empty(), "before the grant is on disk");
    assert_eq!(links.hear_on(1, claim(3, 2)), ["Send(TermReport) 2"], "one after the other");
    let granted = links.happen(ProcessEvent::GrantPersisted);
    assert_eq!(granted, ["Send(Granted) 2", "Send(TermReport)"]);
    assert!(links.hear(writes()).is_empty());
    assert_eq!(links.done(1, Work::Writes), ["Prepare 2"]);
    assert_eq!(links.step_on(1, Event::Prepared(Box::new(register()))), ["Register 2"]);
    links.hear_on(1, ToProcess::Registered(Registered { size: 3 }));
    assert_eq!(links.hear_on(1, writes()), ["Write 2"]);
    assert_eq!(links.state.registered(), Some((1, 1)));
}

#[test]
fn a_release_lets_the_next_gateway_in_at_once() {
    let mut links = two();
    let released = links.hear(ToProcess::Release(Release {}));
    assert_eq!(released, ["Registered(false)", "Send(TermReport)", "Send(TermReport) 2"]);
    assert!(links.hear_on(1, ToProcess::Release(Release {})).is_empty(), "it holds nothing");
    assert_eq!(links.hear_on(1, claim(2, 2)), ["PersistGrant(2)"]);
}

#[test]
fn a_raised_term_leaves_the_registration_as_it_is() {
    let mut links = two();
    links.hear(writes());
    let ToProcess::Claim(mut raised) = claim(9, 1) else { unreachable!("made above") };
    raised.register = false;
    assert_eq!(links.hear(ToProcess::Claim(raised)), ["PersistGrant(9)"]);
    assert_eq!(links.hear(writes()), ["Write"]);
    assert_eq!(links.happen(ProcessEvent::GrantPersisted), ["Send(Granted)", "Send(TermReport) 2"]);
    assert_eq!(links.done(1, Work::Writes), ["Send(WriteAnswers)"]);
}
