//! The leader is lost, comes back, leaves, or fails back.

use std::sync::Arc;

use protocol::message::link::WriteBatch;

use super::*;

/// Where the writes of a partition of three are now: the leader's place and role.
fn leader(script: &Script, partition: usize) -> Option<(String, Role)> {
    let status = &script.engine.status().partitions[partition];
    status.lead.clone().map(|name| (name, status.role))
}

impl Script {
    /// A user is created, and read before the leader's answer comes. Returns the read, and the number of the
    /// frame that has no answer.
    fn create_seen_early(&mut self, id: UserId) -> (RequestId, u64) {
        self.create(id);
        let read = self.read(id);
        let batch = self.writes_sent_to(0);
        self.answer_reads_with(0, Some(batch.writes[0].version));
        (read, batch.batch)
    }

    /// The first frame of writes that has come to a process.
    fn writes_sent_to(&mut self, place: u16) -> Arc<WriteBatch> {
        let sent = self.take(place, |message| matches!(message, ToProcess::WriteBatch(_)));
        let ToProcess::WriteBatch(batch) = &sent[0] else { unreachable!("only writes were taken") };
        Arc::clone(batch)
    }

    /// A primary refuses the one write of a frame.
    fn refuse(&mut self, place: u16, batch: u64, outcome: Outcome) {
        let results = vec![WriteAnswer { outcome, sequence: 0, user: None }];
        self.message(
            place,
            ToGateway::WriteAnswers(WriteAnswers { batch, role: Role::Primary, lsn: 0, results }),
        );
    }
}

fn unanswered_writes(script: &Script, place: u16) -> usize {
    let batches = script.inbox.iter().filter(|(to, _)| *to == place);
    batches
        .filter_map(
            |(_, message)| {
                if let ToProcess::WriteBatch(batch) = message { Some(batch.writes.len()) } else { None }
            },
        )
        .sum()
}

#[test]
fn when_the_leader_is_lost_the_other_copy_gets_the_tail_and_leads() {
    let mut script = Script::formed(3);
    let id = user_of(0, 3, 0);
    script.create(id);
    let versions = script.apply_writes(0, Role::Primary);
    let in_flight = script.create(user_of(0, 3, 1));
    let sent = script.take(0, |message| matches!(message, ToProcess::WriteBatch(_)));
    script.kill(0);
    let read = script.read(id);
    let new = script.create(user_of(0, 3, 2));
    assert_eq!(
        (script.asked(), unanswered_writes(&script, 1)),
        (vec![], 0),
        "db-1 lacks an acknowledged write"
    );

    assert_eq!(script.confirm_merges(1), versions.len());
    assert_eq!(leader(&script, 0), Some(("db-1".to_owned(), Role::Replica)));
    assert_eq!(script.asked(), [(1, Role::Replica)]);
    script.answer_reads(1);
    assert!(matches!(script.read_result(read), Some(Ok(Some(_)))));
    // What was in flight is sent again with its version, and before what came later.
    let ToProcess::WriteBatch(batch) = &sent[0] else { unreachable!("only writes were taken") };
    let again = script.apply_writes(1, Role::Replica);
    assert_eq!(again.first(), Some(&batch.writes[0].version));
    assert!(again.is_sorted() && again.len() == 2);
    for request in [in_flight, new] {
        assert!(matches!(script.write_result(request), Some(Ok(_))), "the caller sees latency, nothing else");
    }
}

#[test]
fn no_copy_leads_by_a_view_that_is_not_persisted() {
    let mut script = Script::formed(3);
    script.processes[2].persists = false;
    script.kill(0);
    let write = script.create(user_of(0, 3, 0));
    assert_eq!(unanswered_writes(&script, 1), 0, "a gateway that restarts could overlook the view");
    script.processes[2].persists = true;
    let Some(view) = Some(script.last_notice(2).view.clone()) else { unreachable!("it was notified") };
    script.processes[2].view = view;
    script.copies_changed(2);
    script.apply_writes(1, Role::Replica);
    assert!(matches!(script.write_result(write), Some(Ok(_))));
}

#[test]
fn a_ring_of_two_survives_the_loss_of_one() {
    let mut script = Script::formed(2);
    script.kill(0);
    let write = script.create(user_of(0, 2, 0));
    script.apply_writes(1, Role::Replica);
    assert!(matches!(script.write_result(write), Some(Ok(_))));
}

#[test]
fn a_primary_that_comes_back_takes_the_lead_when_it_has_caught_up() {
    let mut script = Script::formed(3);
    script.kill(0);
    script.create(user_of(0, 3, 0));
    script.apply_writes(1, Role::Replica);
    script.processes[0].copies.primary.position = None;
    script.connect(0);
    assert_eq!(leader(&script, 0), Some(("db-1".to_owned(), Role::Replica)), "db-0 lacks a write");
    let in_flight = script.create(user_of(0, 3, 1));
    script.follow_back(0, 1);
    // Almost: from here on new writes are buffered, while db-1 finishes what it has.
    let held = script.create(user_of(0, 3, 2));
    assert_eq!(unanswered_writes(&script, 1), 1);
    script.apply_writes(1, Role::Replica);
    assert!(matches!(script.write_result(in_flight), Some(Ok(_))));
    assert!(script.write_result(held).is_none());
    script.follow_back(0, 2);
    assert_eq!(leader(&script, 0), Some(("db-0".to_owned(), Role::Primary)));
    script.apply_writes(0, Role::Primary);
    assert!(matches!(script.write_result(held), Some(Ok(_))));
    assert_eq!(unanswered_writes(&script, 1), 0);
}

#[test]
fn a_move_that_takes_too_long_is_given_up_and_tried_again_later() {
    let mut script = Script::formed(3);
    script.kill(0);
    script.create(user_of(0, 3, 0));
    script.apply_writes(1, Role::Replica);
    script.connect(0);
    script.follow_back(0, 0);
    let held = script.create(user_of(0, 3, 1));
    assert_eq!(unanswered_writes(&script, 1), 0);
    script.pass(300, &[]);
    assert_eq!(script.apply_writes(1, Role::Replica).len(), 1, "sent to the leader that it has");
    assert!(matches!(script.write_result(held), Some(Ok(_))));
    script.pass(1_000, &[]);
    script.follow_back(0, 2);
    assert_eq!(leader(&script, 0), Some(("db-0".to_owned(), Role::Primary)));
}

#[test]
fn a_move_is_announced_and_persisted_before_any_write_waits_and_reads_never_do() {
    let mut script = Script::formed(3);
    let (id, other) = (user_of(0, 3, 0), user_of(0, 3, 1));
    script.processes.iter_mut().for_each(|process| process.persists = false);
    script.message(0, ToGateway::Leaving(Leaving {}));
    script.pass(60, &[]);
    let lead_of = |script: &Script| script.last_notice(1).view.leaders[0];
    assert_eq!((lead_of(&script).role, lead_of(&script).promoting), (Role::Replica, true));
    let early = script.create(id);
    assert_eq!(
        unanswered_writes(&script, 0),
        1,
        "no process has persisted the view yet, so the leader serves on"
    );
    script.apply_writes(0, Role::Primary);
    assert!(matches!(script.write_result(early), Some(Ok(_))));

    script.syncs = false;
    for place in [1, 2] {
        script.processes[place].persists = true;
        script.processes[place].view = script.last_notice(place as u16).view.clone();
        script.copies_changed(place as u16);
    }
    let held = script.create(other);
    assert_eq!(unanswered_writes(&script, 0), 0);
    script.follow(0, 1);
    script.read(id);
    assert_eq!(script.asked(), [(0, Role::Primary)], "both have everything, and none decides anything");
    assert_eq!(unanswered_writes(&script, 1), 0);
    script.confirm_merges(1);
    assert_eq!(leader(&script, 0), Some(("db-1".to_owned(), Role::Replica)));
    script.apply_writes(1, Role::Replica);
    assert!(matches!(script.write_result(held), Some(Ok(_))));
    assert!(!lead_of(&script).promoting);
}

#[test]
fn when_the_target_of_a_move_is_lost_the_lead_leads_on_by_a_newer_view() {
    let mut script = Script::formed(3);
    script.kill(0);
    script.processes[0].copies.primary.position = None;
    script.connect(0);
    let epoch = script.engine.status().epoch;
    script.processes.iter_mut().for_each(|process| process.persists = false);
    script.follow_back(0, 0);
    let held = script.create(user_of(0, 3, 0));
    assert_eq!(script.engine.status().epoch, epoch + 1, "a view names db-0, and is not persisted yet");
    script.processes.iter_mut().for_each(|process| process.persists = true);
    script.kill(0);
    assert_eq!(leader(&script, 0), Some(("db-1".to_owned(), Role::Replica)));
    assert!(script.engine.status().epoch > epoch + 1);
    script.apply_writes(1, Role::Replica);
    assert!(matches!(script.write_result(held), Some(Ok(_))));
}

#[test]
fn a_copy_that_lacks_more_than_the_tail_covers_does_not_lead() {
    let mut script = Script::formed(3);
    script.kill(1);
    for nth in 0..12_000 {
        script.create(user_of(0, 3, nth % 4));
        script.apply_writes(0, Role::Primary);
    }
    script.connect(1);
    let in_flight = script.create(user_of(0, 3, 0));
    script.kill(0);
    script.pass(300, &[]);
    assert!(matches!(script.write_result(in_flight), Some(Err(Unserved::OutcomeUnknown { .. }))));
    let read = script.read(user_of(0, 3, 0));
    let Some(Err(Unserved::Unavailable { waiting_for, .. })) = script.read_result(read) else {
        panic!("an older state was shown");
    };
    assert_eq!(waiting_for, "db-0 has to come back");
    let write = script.create(user_of(0, 3, 0));
    assert!(matches!(script.write_result(write), Some(Err(Unserved::Unavailable { .. }))));
    script.connect(0);
    script.read(user_of(0, 3, 0));
    assert_eq!(script.asked(), [(0, Role::Primary)]);
}

#[test]
fn reads_wait_until_both_copies_have_what_only_the_returned_one_knew() {
    let mut script = Script::formed(3);
    script.create(user_of(0, 3, 0));
    script.kill(0);
    // The write had reached the disk of db-0; only its answer was lost. It was sent again, to db-1.
    script.apply_writes(1, Role::Replica);
    script.processes[0].copies.primary.head = 1;
    script.connect(0);
    script.follow_back(0, 1);
    assert_eq!(
        leader(&script, 0),
        Some(("db-1".to_owned(), Role::Replica)),
        "db-1 has to follow db-0 as well"
    );
    script.read(user_of(0, 3, 1));
    assert_eq!(script.asked(), [(1, Role::Replica)]);
    script.answer_reads(1);
    script.follow(0, 1);
    assert_eq!(leader(&script, 0), Some(("db-0".to_owned(), Role::Primary)));
    script.read(user_of(0, 3, 1));
    assert_eq!(script.asked(), [(1, Role::Replica)], "both have everything");
}

#[test]
fn a_leader_that_comes_back_before_another_could_take_over_leads_on() {
    let mut script = Script::formed(3);
    script.kill(1);
    script.create(user_of(0, 3, 0));
    script.apply_writes(0, Role::Primary);
    script.kill(0);
    assert_eq!(leader(&script, 0), None);
    script.connect(0);
    assert_eq!(leader(&script, 0), Some(("db-0".to_owned(), Role::Primary)));
}

#[test]
fn a_late_confirmation_of_an_earlier_hand_over_counts_for_nothing() {
    let mut script = Script::formed(3);
    script.create(user_of(0, 3, 0));
    script.apply_writes(0, Role::Primary);
    script.kill(0);
    let late = script.take(1, |message| matches!(message, ToProcess::MergeBatch(_)));
    script.kill(1);
    script.connect(1);
    let ToProcess::MergeBatch(batch) = &late[0] else { unreachable!("only merges were taken") };
    script.message(1, ToGateway::Merged(Merged { batch: batch.batch, role: Role::Replica, lsn: 0 }));
    script.read(user_of(0, 3, 0));
    assert_eq!(script.asked(), []);
    assert_eq!(script.confirm_merges(1), 1);
    assert_eq!(script.asked(), [(1, Role::Replica)]);
}

#[test]
fn a_process_that_lost_its_disk_is_filled_before_it_leads_again() {
    let mut script = Script::formed(3);
    script.create(user_of(1, 3, 0));
    script.apply_writes(1, Role::Primary);
    script.kill(1);
    script.processes[1] = Process::fresh(0x500);
    script.connect(1);
    // Its primary may be filled only from a copy that has the whole tail, and leads.
    assert_eq!((script.last_notice(1).primary, script.last_notice(1).replica), (Grant::Wait, Grant::Fill));
    assert_eq!(script.confirm_merges(2), 1);
    assert_eq!(script.last_notice(1).primary, Grant::Fill);
    let write = script.create(user_of(1, 3, 0));
    script.apply_writes(2, Role::Replica);
    assert!(matches!(script.write_result(write), Some(Ok(_))), "writes go on meanwhile");

    script.processes[1].copies.primary.complete = true;
    script.processes[1].copies.replica.complete = true;
    script.copies_changed(1);
    assert_eq!(leader(&script, 1), Some(("db-2".to_owned(), Role::Replica)));
    script.follow_back(1, 1);
    assert_eq!(leader(&script, 1), Some(("db-1".to_owned(), Role::Primary)));
    script.read(user_of(1, 3, 0));
    assert_eq!(script.asked(), [(2, Role::Replica)], "it has everything that is not in the new op-log");
    script.answer_reads(2);

    // Nor has it to follow the new op-log before the emptied process may be lost again.
    let write = script.create(user_of(1, 3, 1));
    script.apply_writes(1, Role::Primary);
    assert!(matches!(script.write_result(write), Some(Ok(_))));
    script.read(user_of(1, 3, 1));
    assert_eq!(script.asked(), [(1, Role::Primary)]);
    script.kill(1);
    assert_eq!(script.confirm_merges(2), 1, "what it lacks is in the tail");
    assert_eq!(leader(&script, 1), Some(("db-2".to_owned(), Role::Replica)));
}

#[test]
fn a_process_that_leaves_is_released_when_its_partition_is_led_elsewhere() {
    let mut script = Script::formed(3);
    let in_flight = script.create(user_of(0, 3, 0));
    script.message(0, ToGateway::Leaving(Leaving {}));
    let released =
        |script: &Script| script.inbox.iter().any(|(_, message)| matches!(message, ToProcess::Released(_)));
    script.pass(60, &[]);
    let held = script.create(user_of(0, 3, 1));
    assert!(!released(&script));
    script.apply_writes(0, Role::Primary);
    assert!(matches!(script.write_result(in_flight), Some(Ok(_))));
    script.follow(0, 1);
    assert_eq!(leader(&script, 0), Some(("db-1".to_owned(), Role::Replica)));
    script.pass(10, &[]);
    assert!(released(&script));
    script.apply_writes(1, Role::Replica);
    assert!(matches!(script.write_result(held), Some(Ok(_))));
    script.pass(100, &[]);
    assert_eq!(
        leader(&script, 0),
        Some(("db-1".to_owned(), Role::Replica)),
        "it does not fail back to one that leaves"
    );
}

#[test]
fn processes_that_all_leave_do_not_hand_leads_around() {
    let mut script = Script::formed(3);
    (0..3).for_each(|place| script.message(place, ToGateway::Leaving(Leaving {})));
    script.pass(20, &[]);
    let released =
        script.inbox.iter().filter(|(_, message)| matches!(message, ToProcess::Released(_))).count();
    assert_eq!((released, script.engine.status().epoch), (3, 0));
}

#[test]
fn a_gateway_that_starts_believes_the_newest_view_of_a_majority() {
    let mut script = Script::formed(3);
    script.kill(0);
    script.create(user_of(0, 3, 0));
    script.apply_writes(1, Role::Replica);
    script.restart_gateway();
    // db-0 was away when it lost the leadership, and does not know.
    script.connect(0);
    assert_eq!(leader(&script, 0), None);
    script.connect(2);
    assert_eq!(leader(&script, 0), None, "db-2 knows that db-1 leads");
    let read = script.read(user_of(0, 3, 0));
    let Some(Err(Unserved::Unavailable { waiting_for, .. })) = script.read_result(read) else {
        panic!("an older state was shown");
    };
    assert_eq!(waiting_for, "db-1 has to come back");
    script.connect(1);
    assert_eq!(leader(&script, 0), Some(("db-1".to_owned(), Role::Replica)));
}

#[test]
fn a_gateway_that_starts_serves_what_it_can_while_one_process_is_away() {
    let mut script = Script::formed(3);
    script.restart_gateway();
    script.connect(0);
    script.connect(1);
    assert_eq!(leader(&script, 0), Some(("db-0".to_owned(), Role::Primary)));
    assert_eq!(leader(&script, 1), Some(("db-1".to_owned(), Role::Primary)));
    assert_eq!(leader(&script, 2), None, "db-0 may lack what db-2 has acknowledged");
}

#[test]
fn a_promotion_that_a_gateway_did_not_live_to_finish_waits_for_both_copies() {
    let mut script = Script::formed(3);
    script.create(user_of(0, 3, 0));
    script.apply_writes(0, Role::Primary);
    script.kill(0);
    assert!(script.processes[2].view.leaders[0].promoting);
    // The tail is gone.
    script.restart_gateway();
    script.connect(1);
    script.connect(2);
    assert_eq!(leader(&script, 0), None);
    script.connect(0);
    assert_eq!(leader(&script, 0), None);
    script.syncs = false;
    script.follow(0, 1);
    script.follow_back(0, 0);
    assert!(!script.last_notice(2).view.leaders[0].promoting, "notified before anything else happens");
    script.confirm_merges(0);
    assert_eq!(leader(&script, 0), Some(("db-0".to_owned(), Role::Primary)));
}

#[test]
fn the_operator_may_accept_a_loss_and_what_was_lost_comes_back_later() {
    let mut script = Script::formed(3);
    script.create(user_of(0, 3, 0));
    script.apply_writes(0, Role::Primary);
    script.kill(0);
    script.restart_gateway();
    script.connect(1);
    script.connect(2);
    let promote = |script: &mut Script, partition| {
        let mut commands = Vec::new();
        let result = script.engine.promote(script.now, partition, &mut commands);
        commands.into_iter().for_each(|command| {
            if let Command::Send { session, message } = command {
                script.receive(session, message);
            }
        });
        result
    };
    assert_eq!(promote(&mut script, 1), Err(OrderRefused::Served { partition: 1 }));
    assert_eq!(promote(&mut script, 3), Err(OrderRefused::NoSuchPartition { partition: 3, size: 3 }));
    assert_eq!(leader(&script, 0), None, "what db-0 acknowledged last may be nowhere else");
    assert_eq!(promote(&mut script, 0), Ok(()));
    assert_eq!(leader(&script, 0), Some(("db-1".to_owned(), Role::Replica)));
    let write = script.create(user_of(0, 3, 1));
    script.apply_writes(1, Role::Replica);
    assert!(matches!(script.write_result(write), Some(Ok(_))));
    // db-0 comes back with what only it has: both follow each other, and the leadership fails back.
    script.connect(0);
    script.follow(0, 1);
    script.follow_back(0, 1);
    assert_eq!(leader(&script, 0), Some(("db-0".to_owned(), Role::Primary)));
}

#[test]
fn a_copy_that_is_not_there_is_not_promoted() {
    let mut script = Script::formed(3);
    script.kill(1);
    script.kill(0);
    let mut commands = Vec::new();
    let refused = script.engine.promote(script.now, 0, &mut commands);
    assert!(matches!(refused, Err(OrderRefused::NoCandidate { partition: 0, .. })), "{refused:?}");
    assert!(commands.is_empty());
}

#[test]
fn no_read_shows_a_write_that_may_be_lost_with_the_leader() {
    let mut script = Script::formed(3);
    let id = user_of(0, 3, 0);
    let write = script.create(id);
    let read = script.read(id);
    assert_eq!(script.asked(), [(0, Role::Primary)]);
    // The write is on the disk of db-0, its answer is not here yet.
    let batch = script.writes_sent_to(0);
    script.answer_reads_with(0, Some(batch.writes[0].version));
    assert!(script.read_result(read).is_none(), "db-1 does not know of it");

    script.kill(0);
    assert!(script.read_result(read).is_none());
    assert_eq!(script.asked(), [(1, Role::Replica)], "what db-0 has shown counts no longer");
    // It was sent again, with the same version.
    assert_eq!(script.apply_writes(1, Role::Replica), [batch.writes[0].version]);
    assert!(matches!(script.write_result(write), Some(Ok(_))));
    script.answer_reads_with(1, Some(batch.writes[0].version));
    assert!(matches!(script.read_result(read), Some(Ok(Some(_)))));
}

#[test]
fn a_read_that_saw_what_never_came_to_be_is_asked_again() {
    let mut script = Script::formed(3);
    let id = user_of(0, 3, 0);
    let (read, _) = script.create_seen_early(id);
    script.kill(0);
    script.refuse_writes(1, Role::Replica);
    assert_eq!(script.asked(), [(1, Role::Replica)]);
    script.answer_reads_with(1, None);
    assert!(matches!(script.read_result(read), Some(Ok(None))));
}

#[test]
fn a_read_that_found_no_user_says_so_when_there_was_none_to_delete() {
    let mut script = Script::formed(3);
    let id = user_of(0, 3, 0);
    script.delete(id);
    let read = script.read(id);
    let batch = script.writes_sent_to(0).batch;
    script.answer_reads_with(0, None);
    assert!(script.read_result(read).is_none(), "the delete may be why");
    script.delete(id);
    script.refuse(0, batch, Outcome::NotFound);
    assert!(matches!(script.read_result(read), Some(Ok(None))), "whatever comes after it");
}

#[test]
fn a_read_that_is_asked_again_is_hedged_again() {
    let mut script = Script::formed(3);
    let id = user_of(0, 3, 0);
    let (read, _) = script.create_seen_early(id);
    script.pass(50, &[]);
    script.kill(1);
    assert_eq!(script.asked(), [(0, Role::Primary)], "it is not known what becomes of the write");
    script.connect(1);
    script.pass(50, &[0]);
    assert_eq!(script.asked(), [(0, Role::Primary), (1, Role::Replica)], "db-0 does not answer");
    script.answer_reads_with(1, None);
    assert!(matches!(script.read_result(read), Some(Ok(None))));
}

#[test]
fn a_view_that_only_both_holders_persist_is_not_overlooked() {
    let mut script = Script::formed(5);
    (2..5).for_each(|place| script.processes[place].persists = false);
    script.message(0, ToGateway::Leaving(Leaving {}));
    script.pass(60, &[]);
    assert_eq!(leader(&script, 0), Some(("db-1".to_owned(), Role::Replica)));
    let write = script.create(user_of(0, 5, 0));
    script.apply_writes(1, Role::Replica);
    assert!(matches!(script.write_result(write), Some(Ok(_))));
    script.restart_gateway();
    (2..5).for_each(|place| script.connect(place));
    script.connect(0);
    assert_eq!(leader(&script, 0), None, "db-0 has persisted that db-1 leads");
    script.connect(1);
    assert_eq!(leader(&script, 0), Some(("db-1".to_owned(), Role::Replica)));
}

#[test]
fn an_emptied_process_does_not_count_among_those_that_tell_the_view() {
    let mut script = Script::formed(3);
    script.kill(0);
    script.create(user_of(0, 3, 0));
    script.apply_writes(1, Role::Replica);
    script.processes[2] = Process::fresh(0x500);
    script.restart_gateway();
    script.connect(0);
    script.connect(2);
    assert_eq!(leader(&script, 0), None, "db-1 leads, and only db-1 and the lost disk of db-2 knew");
    // Nor does it the next time, after a gateway that knew no more than itself.
    script.restart_gateway();
    script.connect(0);
    script.connect(2);
    assert_eq!(leader(&script, 0), None);
    script.connect(1);
    assert_eq!(leader(&script, 0), Some(("db-1".to_owned(), Role::Replica)));
}

#[test]
fn a_copy_leads_when_what_it_has_followed_is_on_its_disk() {
    let mut script = Script::formed(3);
    script.create(user_of(0, 3, 0));
    script.apply_writes(0, Role::Primary);
    // Applied there, which is not to say synced; the tail is empty again.
    script.follow(0, 1);
    script.syncs = false;
    script.kill(0);
    let write = script.create(user_of(0, 3, 1));
    assert_eq!(unanswered_writes(&script, 1), 0);
    assert_eq!(script.confirm_merges(1), 0, "nothing is lacking");
    script.apply_writes(1, Role::Replica);
    assert!(matches!(script.write_result(write), Some(Ok(_))));
}

#[test]
fn a_leader_that_answers_beats_but_no_writes_is_evicted_where_another_copy_can_lead() {
    let mut script = Script::formed(3);
    script.processes[0].persists = false;
    let write = script.create(user_of(0, 3, 0));
    script.pass(1_500, &[]);
    assert_eq!(leader(&script, 0), Some(("db-0".to_owned(), Role::Primary)), "a disk may be slow");
    script.pass(1_000, &[]);
    assert_eq!(leader(&script, 0), Some(("db-1".to_owned(), Role::Replica)));
    script.apply_writes(1, Role::Replica);
    assert!(matches!(script.write_result(write), Some(Ok(_))), "the caller sees latency, nothing else");

    // Its connection works, and its copy lacks little; but it does not get the leadership back while it keeps
    // nothing.
    script.connect(0);
    let epoch = script.engine.status().epoch;
    script.pass(3_000, &[]);
    assert_eq!(script.engine.status().epoch, epoch, "no move is announced");
    let meanwhile = script.create(user_of(0, 3, 1));
    script.apply_writes(1, Role::Replica);
    assert!(matches!(script.write_result(meanwhile), Some(Ok(_))), "no write is buffered");

    script.processes[0].persists = true;
    script.processes[0].view = script.last_notice(0).view.clone();
    script.copies_changed(0);
    script.follow_back(0, 2);
    script.pass(100, &[]);
    assert_eq!(leader(&script, 0), Some(("db-0".to_owned(), Role::Primary)));
}

#[test]
fn a_leader_that_answers_no_writes_stays_where_no_other_would_be_better() {
    // Both hang: it is the disk of both, or the machine.
    let mut script = Script::formed(3);
    for partition in 0..2 {
        script.create(user_of(partition, 3, 0));
    }
    script.pass(3_000, &[]);
    assert_eq!(leader(&script, 0), Some(("db-0".to_owned(), Role::Primary)));
    // db-2 can lead in the place of db-1, and answers.
    assert_eq!(leader(&script, 1), Some(("db-2".to_owned(), Role::Replica)));

    // The other copy is not there.
    let mut script = Script::formed(3);
    script.kill(1);
    script.create(user_of(0, 3, 0));
    script.pass(3_000, &[]);
    assert_eq!(leader(&script, 0), Some(("db-0".to_owned(), Role::Primary)));

    // The gateway itself stood still.
    let mut script = Script::formed(3);
    script.create(user_of(0, 3, 0));
    script.now += Duration::from_secs(3);
    script.step(Event::Tick);
    script.pass(1_500, &[]);
    assert_eq!(leader(&script, 0), Some(("db-0".to_owned(), Role::Primary)));
}
