//! The way of reads and writes, in good times and bad.

use super::*;

#[test]
fn an_idle_ring_reads_from_replicas() {
    let mut script = Script::formed(3);
    let request = script.read(user_of(0, 3, 0));
    assert_eq!(script.asked(), [(1, Role::Replica)]);
    script.answer_reads(1);
    assert!(matches!(script.read_result(request), Some(Ok(Some(_)))));
    let served = script.engine.status().served;
    assert_eq!((served.reads_by_replica, served.reads_by_primary), (1, 0));
}

#[test]
fn a_user_with_a_write_that_the_replica_may_lack_is_read_from_the_lead() {
    let mut script = Script::formed(3);
    let (written, other) = (user_of(0, 3, 0), user_of(0, 3, 1));
    let create = script.create(written);
    script.read(written);
    assert_eq!(script.asked(), [(0, Role::Primary)], "the write is in flight");
    script.answer_reads(0);

    script.apply_writes(0, Role::Primary);
    assert!(matches!(script.write_result(create), Some(Ok(_))));
    script.read(written);
    assert_eq!(script.asked(), [(0, Role::Primary)], "acknowledged, and in the tail");
    script.answer_reads(0);
    script.read(other);
    assert_eq!(script.asked(), [(1, Role::Replica)], "others are not touched");
    script.answer_reads(1);

    script.follow(0, 1);
    script.read(written);
    assert_eq!(script.asked(), [(1, Role::Replica)], "the replica has it");
    assert_eq!(script.engine.status().partitions[0].unreplicated, 0);
}

#[test]
fn a_replica_that_is_faster_than_the_answer_keeps_nothing_in_the_tail() {
    let mut script = Script::formed(3);
    let id = user_of(0, 3, 0);
    script.create(id);
    script.follow(0, 1);
    script.read(id);
    assert_eq!(script.asked(), [(0, Role::Primary)], "the outcome is not known yet");
    script.answer_reads(0);
    script.apply_writes(0, Role::Primary);
    assert_eq!(script.engine.status().partitions[0].unreplicated, 0);
    script.read(id);
    assert_eq!(script.asked(), [(1, Role::Replica)]);
}

#[test]
fn reads_under_way_to_a_lost_process_are_asked_of_the_other_copy() {
    let mut script = Script::formed(3);
    let first = script.read(user_of(0, 3, 0));
    let queued = script.read(user_of(0, 3, 1));
    assert_eq!(script.asked(), [(1, Role::Replica)], "one frame is in flight, the second read waits");
    script.kill(1);
    assert_eq!(script.asked(), [(0, Role::Primary), (0, Role::Primary)], "asked again");
    script.answer_reads(0);
    assert!(matches!(script.read_result(first), Some(Ok(Some(_)))));
    assert!(matches!(script.read_result(queued), Some(Ok(Some(_)))));
}

#[test]
fn a_slow_read_is_sent_to_the_other_copy_too_and_answered_once() {
    let mut script = Script::formed(3);
    let request = script.read(user_of(0, 3, 0));
    script.pass(50, &[]);
    assert_eq!(script.asked(), [(1, Role::Replica), (0, Role::Primary)]);
    script.answer_reads(0);
    assert!(matches!(script.read_result(request), Some(Ok(Some(_)))));
    script.answer_reads(1);
    assert!(script.read_result(request).is_some());
    assert_eq!(script.engine.status().served.reads_hedged, 1);
}

#[test]
fn a_slow_read_is_not_sent_to_a_replica_that_lacks_an_acknowledged_write() {
    let mut script = Script::formed(3);
    let id = user_of(0, 3, 0);
    script.create(id);
    script.apply_writes(0, Role::Primary);
    script.read(id);
    script.pass(100, &[]);
    assert_eq!(script.asked(), [(0, Role::Primary)]);
    assert_eq!(script.confirm_merges(1), 0, "the leader is there, and will answer");
    script.follow(0, 1);
    script.pass(10, &[]);
    assert_eq!(script.asked(), [(0, Role::Primary), (1, Role::Replica)], "now it has the write");
}

#[test]
fn while_the_leader_is_silent_the_other_copy_gets_what_it_lacks_and_answers_reads() {
    let mut script = Script::formed(3);
    let (id, other) = (user_of(0, 3, 0), user_of(0, 3, 1));
    script.create(id);
    script.apply_writes(0, Role::Primary);
    let read = script.read(id);
    script.pass(60, &[0]);
    assert_eq!(
        script.asked(),
        [(0, Role::Primary)],
        "db-1 was sent the write, and has not said that it has it"
    );
    assert_eq!(script.confirm_merges(1), 1);
    assert_eq!(script.asked(), [(0, Role::Primary), (1, Role::Replica)]);
    script.answer_reads(1);
    assert!(matches!(script.read_result(read), Some(Ok(Some(_)))));
    // A new read does not even try the silent one, neither as leader nor as replica.
    script.take(0, |message| matches!(message, ToProcess::ReadBatch(_)));
    script.read(id);
    script.read(other);
    assert_eq!(script.asked(), [(1, Role::Replica)], "the second read waits for the first");
    script.answer_reads(1);
    script.answer_reads(1);
    script.read(user_of(2, 3, 0));
    assert_eq!(script.asked(), [(2, Role::Primary)]);
    assert_eq!(script.engine.status().epoch, 0, "it was a suspicion");
    // It was wrong: what the leader acknowledges from now on only the leader has.
    script.message(0, ToGateway::Alive(Alive { beat: 0 }));
    script.create(id);
    script.apply_writes(0, Role::Primary);
    script.take(2, |_| true);
    script.read(id);
    script.read(id);
    script.pass(40, &[]);
    assert_eq!(script.asked(), []);
}

#[test]
fn a_write_without_an_answer_may_come_after_a_read_unless_both_copies_have_it() {
    let mut script = Script::formed(3);
    let id = user_of(0, 3, 0);
    let write = script.create(id);
    let sent = script.take(0, |message| matches!(message, ToProcess::WriteBatch(_)));
    let ToProcess::WriteBatch(batch) = &sent[0] else { unreachable!("only writes were taken") };
    let before = script.read(id);
    script.pass(60, &[0]);
    assert_eq!(script.asked(), [(0, Role::Primary), (1, Role::Replica)]);
    script.answer_reads_with(1, None);
    assert!(matches!(script.read_result(before), Some(Ok(None))));
    // What db-1 shows of it, it has from db-0.
    let after = script.read(id);
    script.answer_reads_with(1, Some(batch.writes[0].version));
    assert!(matches!(script.read_result(after), Some(Ok(Some(_)))));
    assert!(script.write_result(write).is_none());
}

#[test]
fn a_read_without_an_answer_is_given_up() {
    let mut script = Script::formed(1);
    let request = script.read(user_of(0, 1, 0));
    script.pass(5_100, &[]);
    assert!(matches!(script.read_result(request), Some(Err(Unserved::Unavailable { .. }))));
}

#[test]
fn a_ring_of_one_serves_without_a_replica() {
    let mut script = Script::formed(1);
    let id = user_of(0, 1, 0);
    let create = script.create(id);
    script.apply_writes(0, Role::Primary);
    assert!(matches!(script.write_result(create), Some(Ok(_))));
    script.read(id);
    assert_eq!(script.asked(), [(0, Role::Primary)]);
    assert_eq!(script.engine.status().partitions[0].unreplicated, 0);
    assert_eq!(script.engine.status().partitions[0].waiting_for, None);
}

#[test]
fn versions_rise_above_all_that_registered_copies_hold() {
    let mut script = Script::formed(3);
    script.kill(2);
    script.processes[2].copies.replica.version = Version(u64::from(u32::MAX) << 20);
    script.connect(2);
    script.create(user_of(0, 3, 0));
    let versions = script.inbox.iter().filter_map(|(_, message)| match message {
        ToProcess::WriteBatch(batch) => Some(batch.writes[0].version),
        _ => None,
    });
    assert_eq!(versions.collect::<Vec<_>>(), [Version((u64::from(u32::MAX) << 20) + 1)]);
}

#[test]
fn what_comes_just_after_a_start_waits_for_the_ring_but_not_for_long() {
    let mut script = Script::formed(3);
    script.now = Duration::from_millis(100);
    script.restart_gateway();
    let (read, write) = (script.read(user_of(0, 3, 0)), script.create(user_of(0, 3, 1)));
    let elsewhere = script.read(user_of(2, 3, 0));
    script.connect(0);
    assert_eq!(script.asked(), [], "which copy leads is not known yet");
    // Its version is greater than all that the ring has seen, though it came before a process said what that
    // is.
    script.processes[1].copies.primary.version = Version(u64::from(u32::MAX) << 20);
    script.connect(1);
    assert_eq!(script.asked(), [(1, Role::Replica)]);
    script.answer_reads(1);
    assert!(matches!(script.read_result(read), Some(Ok(Some(_)))));
    assert!(script.apply_writes(0, Role::Primary)[0] > Version(u64::from(u32::MAX) << 20));
    assert!(matches!(script.write_result(write), Some(Ok(_))));
    assert!(script.read_result(elsewhere).is_none());
    script.pass(2_100, &[]);
    assert!(matches!(script.read_result(elsewhere), Some(Err(Unserved::Unavailable { .. }))));
}
