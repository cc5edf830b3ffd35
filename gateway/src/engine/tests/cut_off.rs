//! Nothing is heard of any process: the gateway is cut off.

use super::*;

const ALL: &[u16] = &[0, 1, 2];

impl Script {
    /// All connections end at once: whatever is sent afterwards on any of them is lost.
    fn break_all(&mut self) {
        let ended = self.processes.iter_mut().filter_map(|process| process.session.take());
        let ended: Vec<SessionId> = ended.collect();
        self.inbox.clear();
        ended.into_iter().for_each(|session| self.step(Event::Closed { session }));
    }

    /// Versions of the writes that a process was sent and has not answered.
    fn writes_of(&self, place: u16) -> Vec<Version> {
        let sent =
            self.inbox.iter().filter(|(to, _)| *to == place).filter_map(|(_, message)| match message {
                ToProcess::WriteBatch(batch) => Some(batch.writes.iter().map(|write| write.version)),
                _ => None,
            });
        sent.flatten().collect()
    }

    fn is_refused(&self, write: RequestId) -> bool {
        matches!(self.write_result(write), Some(Err(Unserved::Unavailable { .. })))
    }

    fn is_unknown(&self, write: RequestId) -> bool {
        matches!(self.write_result(write), Some(Err(Unserved::OutcomeUnknown { .. })))
    }

    fn lost(&self) -> usize {
        let lost = |report: &&RingEvent| matches!(report, RingEvent::ProcessLost { .. });
        self.reports.iter().filter(lost).count()
    }
}

#[test]
fn what_comes_late_from_all_processes_is_waited_for_and_none_is_lost() {
    let mut script = Script::formed(3);
    let (first, second) = (user_of(0, 3, 0), user_of(0, 3, 1));
    let sent = script.create(first);
    let queued = script.create(second);
    let read = script.read(first);
    script.pass(1_900, ALL);
    let meanwhile = (script.read(user_of(1, 3, 0)), script.create(user_of(1, 3, 0)));
    script.pass(50, ALL);
    assert_eq!((script.reads.len(), script.writes.len(), script.lost()), (0, 0, 0));
    assert!(script.reports.contains(&RingEvent::CutOff));
    // It was a long time for writes without an answer, too.
    script.pass(100, &[]);
    script.apply_writes(0, Role::Primary);
    script.apply_writes(0, Role::Primary);
    script.apply_writes(1, Role::Primary);
    (0..3).for_each(|place| script.answer_reads(place));
    script.pass(3_000, &[]);
    for write in [sent, queued, meanwhile.1] {
        assert!(matches!(script.write_result(write), Some(Ok(_))));
    }
    for read in [read, meanwhile.0] {
        assert!(matches!(script.read_result(read), Some(Ok(_))));
    }
    assert_eq!((script.lost(), script.engine.status().epoch), (0, 0), "none was lost, nothing was moved");
}

#[test]
fn after_two_seconds_everything_is_answered_and_all_begins_again() {
    let mut script = Script::formed(3);
    script.syncs = false;
    let sent = script.create(user_of(0, 3, 0));
    let queued = script.create(user_of(0, 3, 1));
    let read = script.read(user_of(0, 3, 0));
    script.pass(2_050, ALL);
    assert_eq!((script.reads.len(), script.writes.len()), (0, 0));
    script.pass(100, ALL);
    assert!(script.is_unknown(sent), "it may have been applied");
    assert!(script.is_refused(queued), "it was never sent");
    assert!(matches!(script.read_result(read), Some(Err(Unserved::Unavailable { .. }))));
    let late = script.create(user_of(0, 3, 2));
    assert!(script.is_refused(late), "at once");
    (0..3).for_each(|place| script.connect(place));
    let again = script.create(user_of(0, 3, 2));
    script.apply_writes(0, Role::Primary);
    assert!(matches!(script.write_result(again), Some(Ok(_))));
}

#[test]
fn when_all_connections_end_writes_are_sent_again_in_their_order_and_reads_are_no_older() {
    let mut script = Script::formed(3);
    let (id, other) = (user_of(0, 3, 0), user_of(0, 3, 1));
    let sent = script.create(id);
    let first = script.writes_of(0);
    let queued = script.create(other);
    let read = script.read(id);
    script.break_all();
    let (late, count) = (script.create(user_of(0, 3, 2)), script.count(0));
    script.pass(1_500, &[]);
    assert_eq!((script.reads.len(), script.writes.len(), script.answers.len()), (0, 0, 0));
    // The leader had applied what it was sent; only its answer is lost. The other copy has not followed that
    // yet.
    script.processes[0].copies.primary.head = 1;
    (0..3).for_each(|place| script.connect(place));
    let again = script.writes_of(0);
    assert_eq!(again.len(), 3);
    assert_eq!(again[0], first[0], "sent first, with the version that it had");
    assert!(again.is_sorted(), "and then all that came later");
    assert_eq!(script.asked(), [(0, Role::Primary)]);
    script.read(user_of(0, 3, 5));
    script.pass(50, &[]);
    assert!(script.asked().iter().all(|asked| *asked == (0, Role::Primary)), "the other copy lacks a write");
    script.apply_writes(0, Role::Primary);
    script.answer_reads(0);
    for write in [sent, queued, late] {
        assert!(matches!(script.write_result(write), Some(Ok(_))));
    }
    assert!(matches!(script.read_result(read), Some(Ok(_))));
    script.answer_count(0, 3);
    assert!(matches!(script.answer(count), Some(Ok(_))));
    assert_eq!(script.lost(), 3);
}

#[test]
fn the_copy_that_comes_back_first_leads_with_the_tail() {
    let mut script = Script::formed(3);
    let id = user_of(0, 3, 0);
    script.create(id);
    script.apply_writes(0, Role::Primary);
    script.break_all();
    let read = script.read(id);
    script.pass(500, &[]);
    script.connect(1);
    script.connect(2);
    assert_eq!(script.asked(), [], "it has not followed that write");
    assert_eq!(script.confirm_merges(1), 1);
    assert_eq!(script.asked(), [(1, Role::Replica)]);
    script.answer_reads(1);
    assert!(matches!(script.read_result(read), Some(Ok(_))));
}

#[test]
fn where_others_are_there_a_partition_that_is_down_refuses_after_a_moment() {
    let mut script = Script::formed(3);
    let sent = script.create(user_of(0, 3, 0));
    script.kill(0);
    script.kill(1);
    let read = script.read(user_of(0, 3, 1));
    script.pass(150, &[]);
    assert_eq!((script.reads.len(), script.writes.len()), (0, 0), "the third may be cut off as well");
    script.pass(100, &[]);
    assert!(script.is_unknown(sent));
    assert!(matches!(script.read_result(read), Some(Err(Unserved::Unavailable { .. }))));
    let late = script.read(user_of(0, 3, 1));
    assert!(matches!(script.read_result(late), Some(Err(Unserved::Unavailable { .. }))), "at once");
    script.connect(0);
    script.read(user_of(0, 3, 1));
    assert_eq!(script.asked(), [(0, Role::Primary)]);
}

#[test]
fn some_connections_may_end_while_others_are_silent() {
    let mut script = Script::formed(3);
    let sent = script.create(user_of(0, 3, 0));
    script.kill(0);
    script.kill(1);
    script.pass(1_000, &[2]);
    assert_eq!((script.writes.len(), script.lost()), (0, 2));
    script.connect(0);
    script.connect(1);
    script.pass(10, &[]);
    script.apply_writes(0, Role::Primary);
    script.apply_writes(1, Role::Replica);
    assert!(matches!(script.write_result(sent), Some(Ok(_))));
    assert_eq!(script.lost(), 2);
}

#[test]
fn the_last_process_that_is_there_counts_as_all() {
    let mut script = Script::formed(3);
    script.kill(1);
    script.pass(1_000, &[]);
    script.kill(2);
    script.pass(1_000, &[]);
    let (silent, elsewhere) = (script.create(user_of(0, 3, 0)), script.create(user_of(1, 3, 0)));
    assert!(script.is_refused(elsewhere), "both of its copies have been away before");
    script.pass(1_500, ALL);
    assert!(script.write_result(silent).is_none());
    script.break_all();
    script.pass(400, &[]);
    assert!(script.write_result(silent).is_none());
    script.connect(0);
    assert_eq!(script.writes_of(0).len(), 1);
}

#[test]
fn a_ring_of_one_waits_for_its_process() {
    let mut script = Script::formed(1);
    let id = user_of(0, 1, 0);
    let sent = script.create(id);
    let first = script.writes_of(0);
    script.kill(0);
    let read = script.read(id);
    script.pass(1_900, &[]);
    script.connect(0);
    assert_eq!(script.writes_of(0), first);
    script.apply_writes(0, Role::Primary);
    script.answer_reads(0);
    assert!(matches!(script.write_result(sent), Some(Ok(_))));
    assert!(matches!(script.read_result(read), Some(Ok(_))));
    let sent = script.create(id);
    script.kill(0);
    script.pass(2_050, &[]);
    assert!(script.is_unknown(sent));
}

#[test]
fn a_silence_that_began_before_is_not_forgiven() {
    let mut script = Script::formed(3);
    script.syncs = false;
    script.pass(300, &[1]);
    script.pass(1_500, ALL);
    script.pass(150, &[1]);
    assert_eq!(script.lost(), 0, "300 ms of its own, and 150");
    script.pass(100, &[1]);
    assert_eq!(script.lost(), 1);
}

#[test]
fn a_gateway_that_stood_still_while_it_was_cut_off_looks_first_what_has_come() {
    let mut script = Script::formed(3);
    let sent = script.create(user_of(0, 3, 0));
    script.break_all();
    script.pass(100, &[]);
    script.now += Duration::from_secs(3);
    script.step(Event::Tick);
    assert!(script.write_result(sent).is_none());
    (0..3).for_each(|place| script.connect(place));
    assert_eq!(script.writes_of(0).len(), 1);
}

#[test]
fn the_operator_does_not_hand_on_what_the_lost_lead_may_have_applied() {
    let mut script = Script::formed(3);
    let sent = script.create(user_of(0, 3, 0));
    script.break_all();
    let late = script.create(user_of(0, 3, 1));
    script.pass(100, &[]);
    // It has an op-log of which nothing is known: it does not lead by itself.
    script.processes[1].copies.replica.position = None;
    script.connect(1);
    script.connect(2);
    let mut commands = Vec::new();
    assert_eq!(script.engine.promote(script.now, 0, &mut commands), Ok(()));
    let results: Vec<bool> = commands
        .iter()
        .filter_map(|command| match command {
            Command::AnswerWrite { request, result: Err(Unserved::OutcomeUnknown { .. }), .. } => {
                Some(*request == sent)
            }
            Command::AnswerWrite { request, result: Err(Unserved::Unavailable { .. }), .. } => {
                Some(*request == late)
            }
            _ => None,
        })
        .collect();
    assert_eq!(results, [true, true]);
}

#[test]
fn no_more_wait_than_there_is_room_for() {
    let mut script = Script::formed(1);
    script.kill(0);
    for nth in 0..16_384 {
        script.create(user_of(0, 1, nth % 4));
        script.read(user_of(0, 1, nth % 4));
    }
    assert_eq!((script.reads.len(), script.writes.len()), (0, 0));
    let (read, write) = (script.read(user_of(0, 1, 0)), script.create(user_of(0, 1, 0)));
    assert!(matches!(script.read_result(read), Some(Err(Unserved::Overloaded { .. }))));
    assert!(matches!(script.write_result(write), Some(Err(Unserved::Overloaded { .. }))));
}

#[test]
fn no_request_waits_for_a_process_that_was_asked_to_stop() {
    let mut script = Script::formed(1);
    script.message(0, ToGateway::Leaving(Leaving {}));
    script.pass(100, &[]);
    script.kill(0);
    let read = script.read(user_of(0, 1, 0));
    script.pass(250, &[]);
    assert!(matches!(script.read_result(read), Some(Err(Unserved::Unavailable { .. }))));
}
