//! Joining, leaving, and being turned away.

use protocol::message::link::Refusal;

use super::*;

#[test]
fn nothing_is_served_before_all_are_there() {
    let mut script = Script::new(3);
    script.connect(0);
    script.connect(2);
    let request = script.read(user_of(0, 3, 0));
    let Some(Err(Unserved::Unavailable { waiting_for, .. })) = script.read_result(request) else {
        panic!("served by a ring that does not exist yet");
    };
    assert_eq!(waiting_for, "db-1 has to connect");
    script.connect(1);
    assert!(script.engine.status().ready);
    assert!(script.processes.iter().all(|process| process.ring.is_some_and(|ring| ring.formed)));
}

#[test]
fn a_forming_that_was_cut_short_is_done_again() {
    let mut script = Script::new(3);
    script.connect(0);
    let half_formed = Ring { id: Uuid::from_u128(0xdead), size: 3, formed: false };
    script.processes[1].ring = Some(half_formed);
    script.processes[1].copies.primary.complete = true;
    script.connect(1);
    script.connect(2);
    assert!(script.engine.status().ready);
    assert_eq!(script.processes[1].ring.map(|ring| ring.id), Some(Uuid::from_u128(0xca11)));
}

#[test]
fn a_gateway_that_restarts_finds_the_ring_and_asks_the_primary_until_the_replica_is_known_to_be_current() {
    let mut script = Script::formed(3);
    script.create(user_of(0, 3, 0));
    script.apply_writes(0, Role::Primary);
    script.restart_gateway();
    script.connect(1);
    let early = script.read(user_of(0, 3, 0));
    let refused = script.read_result(early);
    assert!(matches!(refused, Some(Err(Unserved::Unavailable { .. }))), "the replica may lack a write");
    script.connect(0);
    script.read(user_of(0, 3, 0));
    assert_eq!(script.asked(), [(0, Role::Primary)]);
    script.answer_reads(0);
    script.follow(0, 1);
    script.read(user_of(0, 3, 0));
    assert_eq!(script.asked(), [(1, Role::Replica)]);
    let found = RingEvent::RingKnown { ring: Uuid::from_u128(0xca11), size: 3, new: false };
    assert!(script.reports.contains(&found));
}

#[test]
fn the_data_say_how_large_the_ring_is() {
    let mut script = Script::formed(3);
    script.engine = gateway(2, 7);
    (0..3).for_each(|place| script.connect(place));
    assert_eq!(script.engine.status().size, 3);
    assert!(script.reports.contains(&RingEvent::SizeDiffers { ring: 3, configured: 2 }));
}

/// What was said of missing members, in order.
fn missing(script: &Script) -> Vec<&str> {
    let reports = script.reports.iter();
    let missing = reports.filter_map(|event| match event {
        RingEvent::MembersMissing { missing } => Some(missing.as_str()),
        _ => None,
    });
    missing.collect()
}

#[test]
fn a_gateway_that_has_started_says_which_processes_it_lacks_until_all_were_there() {
    let mut script = Script::new(3);
    assert_eq!(missing(&script), ["db-0, db-1, db-2 have to connect"]);
    script.connect(0);
    script.connect(2);
    script.pass(20, &[]);
    assert_eq!(missing(&script)[1..], ["db-1 has to connect"]);
    script.connect(1);
    script.pass(20, &[]);
    script.kill(0);
    script.pass(20, &[]);
    assert_eq!(missing(&script).len(), 2, "a loss has a line of its own");
    script.connect(0);
    script.restart_gateway();
    script.connect(1);
    script.pass(20, &[]);
    assert_eq!(
        missing(&script).last(),
        Some(&"db-0, db-2 have to connect"),
        "also in a ring that was formed"
    );
}

/// A process registers under that name.
fn connect_as(script: &mut Script, place: u16, name: &str) {
    let session = SessionId(900 + u64::from(place));
    script.processes[usize::from(place)].session = Some(session);
    let mut register = Box::new(script.register_message(place));
    register.instance = name.parse().expect("a name");
    script.step(Event::Register { session, host: String::new(), register });
}

#[test]
fn the_names_of_a_new_ring_share_their_stem_and_an_old_ring_keeps_its_names() {
    let mut script = Script::new(3);
    script.connect(0);
    connect_as(&mut script, 1, "node-1");
    let expected = Refusal::OtherStem { stem: "db-".to_owned() };
    assert!(!expected.is_final(), "it may be the others that have to be set right");
    assert_eq!(refusal(&script, 1), Some(expected));
    assert!(!script.engine.status().processes[1].connected);
    let mut script = Script::formed(3);
    script.restart_gateway();
    script.connect(0);
    connect_as(&mut script, 1, "node-1");
    assert_eq!(refusal(&script, 1), None);
    script.kill(1);
    script.processes[1] = Process::fresh(0xdead);
    connect_as(&mut script, 1, "node-1");
    assert_eq!(refusal(&script, 1), None, "its disk was replaced");
    let mut script = Script::formed(3);
    script.restart_gateway();
    script.connect(0);
    script.processes[1] = Process::fresh(0xdead);
    connect_as(&mut script, 1, "node-1");
    assert_eq!(refusal(&script, 1), None, "its disk was replaced, and the gateway has not seen it before");
}

/// The refusal that the last connection got.
fn refusal(script: &Script, place: u16) -> Option<Refusal> {
    script.inbox.iter().rev().find_map(|(to, message)| match message {
        ToProcess::Refused(refused) if *to == place => Some(refused.reason.clone()),
        _ => None,
    })
}

#[test]
fn a_stranger_with_a_name_that_is_taken_is_refused_and_changes_nothing() {
    let mut script = Script::formed(3);
    let before = script.engine.status();
    let real = script.processes[1].clone();
    script.processes[1] = Process::fresh(0xbad);
    script.connect(1);
    assert_eq!(refusal(&script, 1), Some(Refusal::NameTaken), "it learns nothing of the other one");
    let Some(RingEvent::ProcessRefused { reason, .. }) = script.reports.last() else { panic!("no report") };
    let details = format!("db-1 at 127.0.0.1, with data folder {}", real.incarnation);
    assert!(reason.contains(&details), "the log of the gateway has it: {reason}");
    assert_eq!(script.engine.status(), before);
}

#[test]
fn places_outside_the_ring_other_rings_and_other_revisions_are_refused_for_good() {
    let mut script = Script::formed(3);
    script.kill(2);
    let good = script.processes[2].clone();
    let foreign = |register: &mut Register| {
        register.ring = Some(Ring { id: Uuid::from_u128(5), size: 3, formed: true });
    };
    let outside = |register: &mut Register| register.instance = "db-3".parse().expect("a name");
    let modern = |register: &mut Register| register.revision += 1;
    type Spoil<'a> = &'a dyn Fn(&mut Register);
    let cases: [(Spoil, Refusal); 3] = [
        (&foreign, Refusal::AnotherRing),
        (&outside, Refusal::OutsideRing { size: 3 }),
        (&modern, Refusal::Revision { gateway: REVISION }),
    ];
    for (spoil, expected) in cases {
        script.processes[2] = good.clone();
        let session = SessionId(900 + script.inbox.len() as u64);
        script.processes[2].session = Some(session);
        let mut register = Box::new(script.register_message(2));
        spoil(&mut register);
        script.step(Event::Register { session, host: String::new(), register });
        assert!(expected.is_final());
        assert_eq!(refusal(&script, 2), Some(expected));
    }
}

#[test]
fn a_process_that_connects_again_replaces_its_dead_connection() {
    let mut script = Script::formed(3);
    let request = script.read(user_of(0, 3, 0));
    script.inbox.clear();
    script.connect(1);
    script.pass(200, &[1]);
    assert_eq!(script.asked(), [(0, Role::Primary)], "what the dead connection was asked is asked elsewhere");
    script.answer_reads(0);
    assert!(matches!(script.read_result(request), Some(Ok(_))));
}

#[test]
fn a_silent_process_is_lost_and_learns_of_it() {
    let mut script = Script::formed(3);
    script.pass(700, &[1]);
    assert_eq!(refusal(&script, 1), Some(Refusal::Void));
    assert!(!script.engine.status().processes[1].connected);
    assert!(script.engine.status().processes[0].connected);
}

#[test]
fn a_gateway_that_stood_still_itself_takes_no_process_for_lost() {
    let mut script = Script::formed(3);
    script.now += Duration::from_secs(3);
    script.step(Event::Tick);
    assert!(script.engine.status().processes.iter().all(|process| process.connected));
}

#[test]
fn a_process_whose_data_are_ahead_of_the_clock_is_refused_and_changes_no_version() {
    let mut script = Script::formed(3);
    let minute = |millis: u64| Version::at_unix_millis(WALL + 60_000 + millis);
    for version in [minute(1), Version(u64::MAX)] {
        script.kill(1);
        script.processes[1].copies.replica.version = version;
        script.connect(1);
        let seconds = (version.unix_millis() - WALL).div_ceil(1000);
        assert_eq!(refusal(&script, 1), Some(Refusal::ClockAhead { seconds }));
        assert!(!Refusal::ClockAhead { seconds }.is_final(), "the clock may be set right");
    }
    // A clock that was set right a moment ago.
    script.engine.note_wall_clock(WALL + 1);
    script.processes[1].copies.replica.version = minute(1);
    script.connect(1);
    assert!(script.engine.status().processes[1].connected);
    // One that is set back changes nothing.
    script.engine.note_wall_clock(5);
    script.copies_changed(1);
    assert!(script.engine.status().processes[1].connected);
    script.processes[1].copies.replica.version = minute(2);
    script.copies_changed(1);
    assert_eq!(refusal(&script, 1), Some(Refusal::Void), "a change is no way around it");
    assert!(!script.engine.status().processes[1].connected);
}

#[test]
fn a_view_near_the_end_of_all_numbers_is_refused() {
    let mut script = Script::formed(3);
    let epoch = script.engine.status().epoch;
    script.kill(1);
    script.processes[1].view.epoch = u64::MAX;
    script.connect(1);
    assert_eq!(refusal(&script, 1), Some(Refusal::Void));
    assert!(script.engine.status().epoch - epoch < 10);
}

#[test]
fn notices_name_the_neighbours_that_are_there() {
    let mut script = Script::formed(3);
    let notice = script.last_notice(0);
    let port = |peer: &Option<protocol::message::link::Peer>| peer.as_ref().map(|peer| peer.port);
    assert_eq!((port(&notice.successor), port(&notice.predecessor)), (Some(4001), Some(4002)));
    script.kill(2);
    assert_eq!(port(&script.last_notice(0).predecessor), None);
}

#[test]
fn an_answer_that_fits_nothing_ends_the_connection_on_which_it_came() {
    let mut script = Script::formed(3);
    let request = script.read(user_of(0, 3, 0));
    script.message(1, ToGateway::ReadAnswers(ReadAnswers { batch: 1, results: Vec::new() }));
    assert_eq!(refusal(&script, 1), Some(Refusal::Void));
    script.answer_reads(0);
    assert!(matches!(script.read_result(request), Some(Ok(Some(_)))), "asked elsewhere");
}
