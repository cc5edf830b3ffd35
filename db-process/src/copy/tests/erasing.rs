//! What the records do not have any more goes from the op-log, and nothing else.

use protocol::message::link::Role;
use protocol::message::query::{ChangesQuery, EraseQuery};

use super::*;
use crate::copy::asking::changes;
use crate::copy::erase::{find, is_gone};

fn query(upto: u64, user: Option<u128>, alone: bool) -> EraseQuery {
    EraseQuery { query: 0, role: Role::Primary, upto: Version(upto), user: user.map(id), alone }
}

/// Erases from the op-log what is found, one entry at a time. Returns whether there is more to come.
fn erase(copy: &mut Copy<MemoryStore>, query: &EraseQuery, confirmed: u64) -> bool {
    let mut found = Vec::new();
    let snapshot = copy.store().snapshot().expect("memory");
    let later = find(&snapshot, query, confirmed, 1, |entries| {
        found.extend(entries);
        Ok(())
    });
    drop(snapshot);
    copy.confirm(confirmed, None);
    copy.strip(copy.meta().incarnation, found, query.alone);
    copy.commit().expect("memory");
    later.expect("memory")
}

/// The names, addresses and groups in the op-log.
fn fields(copy: &Copy<MemoryStore>) -> Vec<(Option<String>, Option<String>, Option<i32>)> {
    let entries = log(copy, copy.meta().trimmed).into_iter();
    entries.map(|entry| (entry.change.name, entry.change.email, entry.change.group)).collect()
}

fn some(name: &str, email: &str, group: i32) -> (Option<String>, Option<String>, Option<i32>) {
    (Some(name.to_owned()), Some(email.to_owned()), Some(group))
}

#[test]
fn old_values_go_and_current_ones_stay() {
    let mut copy = new_copy(1);
    run(&mut copy, vec![create(1, 7), create(2, 8), update(3, 7, name("new")), update(4, 7, group(9))]);
    let all = query(9, None, false);
    assert!(erase(&mut copy, &all, 0), "the other copy has nothing yet");
    assert_eq!(fields(&copy)[0], some("name 1", "1@example.org", 1));
    assert!(erase(&mut copy, &query(0, None, false), 4), "nothing is old enough");
    assert_eq!(fields(&copy)[0], some("name 1", "1@example.org", 1));
    assert!(!erase(&mut copy, &all, 4), "nothing will be left");
    let email = Some("1@example.org".to_owned());
    let new = (Some("new".to_owned()), None, None);
    let expected = [(None, email, None), some("name 2", "2@example.org", 2), new, (None, None, Some(9))];
    assert_eq!(fields(&copy), expected);
    let replaced = [copy.take_replaced(), copy.take_replaced()];
    assert_eq!(replaced, [true, false]);
    erase(&mut copy, &all, 4);
    assert!(!copy.take_replaced(), "there is nothing left to erase");
    // Another copy that follows this op-log comes to the same.
    let mut other = new_copy(2);
    other.count_as_complete();
    let start = LogBatch { entries: Vec::new(), ..batch(&copy, 0) };
    other.apply(start).expect("nothing");
    fill(&mut other, &copy);
    assert_eq!(records(&other), records(&copy));
}

#[test]
fn nothing_is_left_of_a_purged_user_and_repetitions_are_answered_as_before() {
    let mut copy = new_copy(1);
    let writes = vec![create(1, 7), update(2, 7, group(3)), delete(4, 7)];
    run(&mut copy, writes.clone());
    run(&mut copy, vec![write(5, 7, Operation::Purge(Version(4)))]);
    let before = lines(&run(&mut copy, writes.clone()));
    assert!(!is_gone(&copy.store().snapshot().expect("memory"), &id(7)).expect("memory"));
    erase(&mut copy, &query(0, Some(7), false), 4);
    assert!(is_gone(&copy.store().snapshot().expect("memory"), &id(7)).expect("memory"));
    let nothing = (None, None, None);
    assert_eq!(fields(&copy), [nothing.clone(), nothing.clone(), nothing.clone(), nothing]);
    assert_eq!(lines(&run(&mut copy, writes.clone())), before, "from memory");
    let mut copy = Copy::open(copy.into_store().crash(usize::MAX), SMALL).expect("memory");
    assert_eq!(outcomes(&run(&mut copy, writes)), [Outcome::Applied; 3], "and after a restart");

    // A client that reads from the beginning learns that it is gone, and no more.
    let asked = ChangesQuery { query: 0, role: Role::Primary, after: Version::ZERO, upto: Version(99) };
    let seen = changes(&copy.store().snapshot().expect("memory"), &asked).expect("memory");
    let seen: Vec<_> = seen.changes.iter().map(|change| (change.version.0, change.change.alive)).collect();
    assert_eq!(seen, [(4, Some(false))]);
}

#[test]
fn a_user_all_of_whose_fields_were_replaced_is_still_said_to_have_been_created() {
    let mut copy = new_copy(1);
    run(&mut copy, vec![create(1, 7), update(2, 7, Change { alive: None, ..full(2) })]);
    erase(&mut copy, &query(9, None, true), 0);
    let asked = ChangesQuery { query: 0, role: Role::Primary, after: Version::ZERO, upto: Version(99) };
    let seen = changes(&copy.store().snapshot().expect("memory"), &asked).expect("memory").changes;
    assert_eq!(seen[0].change, Change { alive: Some(true), ..Change::default() });
    assert_eq!(seen[1].change, Change { alive: None, ..full(2) });
}

#[test]
fn what_is_gone_meanwhile_or_is_of_another_op_log_is_not_written_anew() {
    let mut copy = new_copy(1);
    run(&mut copy, (1..=8).map(|n| create(n, u128::from(n))).collect());
    let mut entries = log(&copy, 0);
    entries.iter_mut().for_each(|entry| entry.change = Change::default());
    copy.strip(id(9), entries.clone(), true);
    copy.confirm(5, None);
    copy.commit().expect("memory");
    assert_eq!(copy.meta().trimmed, 4);
    copy.strip(id(1), entries, false);
    copy.commit().expect("memory");
    let left: Vec<bool> = fields(&copy).iter().map(|(name, ..)| name.is_some()).collect();
    assert_eq!(left, [false, true, true, true], "5 alone is there, and confirmed");
}
