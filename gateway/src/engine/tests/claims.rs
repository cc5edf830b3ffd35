//! A second connection with the name and the data folder of a process that is registered.

use std::time::Duration;

use protocol::message::link::{Refusal, Refused};

use super::*;
use crate::engine::claims::ANSWERS_WITHIN;

const NEWCOMER: SessionId = SessionId(900);

/// Something registers with all that db-1 would.
fn claim(script: &mut Script, session: SessionId) {
    let register = Box::new(script.register_message(1));
    script.step(Event::Register { session, host: "10.0.0.9".to_owned(), register });
}

fn refused(script: &Script, session: SessionId) -> Option<&Refusal> {
    script.strays.iter().find_map(|(to, message)| match message {
        ToProcess::Refused(Refused { reason }) if *to == session => Some(reason),
        _ => None,
    })
}

fn is_registered(script: &Script, session: SessionId) -> bool {
    script.strays.iter().any(|(to, message)| *to == session && matches!(message, ToProcess::Registered(_)))
}

fn ticks(script: &mut Script, time: Duration) {
    for _ in 0..time.as_millis() / 10 {
        script.now += Duration::from_millis(10);
        script.step(Event::Tick);
    }
}

#[test]
fn one_that_is_alive_keeps_its_name() {
    let mut script = Script::formed(3);
    script.pass(100, &[]);
    let before = script.engine.status().processes;
    claim(&mut script, NEWCOMER);
    assert_eq!(refused(&script, NEWCOMER), None, "it is asked first");
    let asked = script.inbox.iter().filter(|(to, message)| *to == 1 && matches!(message, ToProcess::Beat(_)));
    assert!(asked.count() > 0);
    script.pass(10, &[]);
    assert_eq!(refused(&script, NEWCOMER), Some(&Refusal::NameTaken));
    let connected = |processes: &[crate::status::ProcessStatus]| {
        processes.iter().map(|process| (process.connected, process.incarnation.clone())).collect::<Vec<_>>()
    };
    assert_eq!(connected(&script.engine.status().processes), connected(&before));
    script.pass(1000, &[]);
    assert!(!is_registered(&script, NEWCOMER));
}

#[test]
fn an_answer_to_an_earlier_beat_proves_nothing() {
    let mut script = Script::formed(3);
    script.pass(100, &[]);
    claim(&mut script, NEWCOMER);
    script.message(1, ToGateway::Alive(Alive { beat: 1 }));
    assert_eq!(refused(&script, NEWCOMER), None);
    ticks(&mut script, ANSWERS_WITHIN);
    assert!(is_registered(&script, NEWCOMER));
}

#[test]
fn one_whose_connection_ends_makes_room_at_once() {
    let mut script = Script::formed(3);
    script.pass(100, &[]);
    claim(&mut script, NEWCOMER);
    assert!(!is_registered(&script, NEWCOMER));
    script.kill(1);
    assert!(is_registered(&script, NEWCOMER));
}

#[test]
fn one_that_says_nothing_makes_room_before_it_would_be_silent() {
    let mut script = Script::formed(3);
    script.pass(100, &[]);
    claim(&mut script, NEWCOMER);
    ticks(&mut script, ANSWERS_WITHIN - Duration::from_millis(10));
    assert!(!is_registered(&script, NEWCOMER));
    ticks(&mut script, Duration::from_millis(10));
    assert!(is_registered(&script, NEWCOMER));
}

#[test]
fn only_one_waits_and_one_that_leaves_waits_no_longer() {
    let mut script = Script::formed(3);
    script.pass(100, &[]);
    claim(&mut script, NEWCOMER);
    let second = SessionId(901);
    claim(&mut script, second);
    assert_eq!(refused(&script, second), Some(&Refusal::NameTaken));
    script.step(Event::Closed { session: NEWCOMER });
    ticks(&mut script, ANSWERS_WITHIN);
    assert!(!is_registered(&script, NEWCOMER));
    assert!(script.engine.status().processes[1].connected, "nothing was asked of it any more");
}

#[test]
fn a_gateway_that_stood_still_waits_for_the_answer() {
    let mut script = Script::formed(3);
    script.pass(100, &[]);
    claim(&mut script, NEWCOMER);
    script.now += Duration::from_secs(3);
    script.step(Event::Tick);
    assert!(!is_registered(&script, NEWCOMER));
    script.pass(10, &[]);
    assert_eq!(refused(&script, NEWCOMER), Some(&Refusal::NameTaken));
}
