//! Holding writes, and making copies good.

use protocol::message::query::{Renew, Renewal};

use super::*;
use crate::engine::{OrderRefused, Repair};

impl Script {
    fn repair(&mut self, partition: u16, repair: Repair) -> Result<(), OrderRefused> {
        let mut commands = Vec::new();
        let result = self.engine.repair(partition, repair, &mut commands);
        for command in commands {
            let Command::Send { session, message } = command else { panic!("only orders are sent") };
            self.receive(session, message);
        }
        result
    }

    fn renewals(&self) -> Vec<(u16, Renew)> {
        let orders = self.inbox.iter().filter_map(|(place, message)| match message {
            ToProcess::Renew(renew) => Some((*place, *renew)),
            _ => None,
        });
        orders.collect()
    }

    fn has_writes(&self, place: u16) -> bool {
        self.inbox.iter().any(|(to, message)| *to == place && matches!(message, ToProcess::WriteBatch(_)))
    }
}

#[test]
fn writes_are_buffered_and_sent_in_their_order() {
    let mut script = Script::formed(3);
    script.create(user_of(0, 3, 0));
    script.engine.pause_writes(script.now, 0);
    let held = [script.create(user_of(0, 3, 1)), script.create(user_of(0, 3, 2))];
    let elsewhere = script.create(user_of(1, 3, 0));
    assert_eq!(script.apply_writes(0, Role::Primary).len(), 1, "what was under way is finished");
    assert!(!script.has_writes(0));
    script.apply_writes(1, Role::Primary);
    assert!(script.write_result(elsewhere).is_some(), "another partition is not touched");
    script.engine.resume_writes(0);
    let late = script.create(user_of(0, 3, 3));
    let mut versions = script.apply_writes(0, Role::Primary);
    versions.extend(script.apply_writes(0, Role::Primary));
    assert!(versions.len() == 3 && versions.is_sorted());
    assert!(held.iter().chain([&late]).all(|&write| matches!(script.write_result(write), Some(Ok(_)))));
}

#[test]
fn writes_that_are_held_and_forgotten_are_held_for_a_moment_only() {
    let mut script = Script::formed(3);
    script.engine.pause_writes(script.now, 0);
    let held = script.create(user_of(0, 3, 0));
    script.pass(150, &[]);
    assert!(!script.has_writes(0));
    script.pass(100, &[]);
    script.apply_writes(0, Role::Primary);
    assert!(matches!(script.write_result(held), Some(Ok(_))));
}

#[test]
fn writes_that_are_buffered_when_the_leader_is_lost_go_to_the_next() {
    let mut script = Script::formed(3);
    script.engine.pause_writes(script.now, 0);
    let held = script.create(user_of(0, 3, 0));
    script.kill(0);
    script.apply_writes(1, Role::Replica);
    assert!(matches!(script.write_result(held), Some(Ok(_))));
}

#[test]
fn a_copy_is_renewed_only_while_the_other_is_there_and_current() {
    let mut script = Script::formed(3);
    assert_eq!(script.repair(0, Repair::Discard(Role::Primary)), Ok(()));
    let incarnation = script.processes[0].copies.primary.incarnation;
    let discard = Renew { role: Role::Primary, incarnation, how: Renewal::Discard };
    assert_eq!(script.renewals(), [(0, discard)]);

    let mut script = Script::formed(3);
    assert_eq!(script.repair(1, Repair::Exchange), Ok(()));
    let sent: Vec<(u16, Role)> =
        script.renewals().iter().map(|(place, renew)| (*place, renew.role)).collect();
    assert_eq!(sent, [(1, Role::Primary), (2, Role::Replica)]);

    for repair in [Repair::Exchange, Repair::Discard(Role::Primary), Repair::Discard(Role::Replica)] {
        let refused = |result| matches!(result, Err(OrderRefused::NotRepairable { partition: 0, .. }));
        let mut script = Script::formed(3);
        script.kill(1);
        assert!(refused(script.repair(0, repair)), "{repair:?} while db-1 is away");
        script.connect(1);
        script.create(user_of(0, 3, 0));
        script.apply_writes(0, Role::Primary);
        script.processes[1].copies.replica.position = None;
        script.kill(1);
        script.connect(1);
        assert!(refused(script.repair(0, repair)), "{repair:?} while db-1 lacks something");
        assert!(script.renewals().is_empty());
        let nothing = OrderRefused::NoSuchPartition { partition: 3, size: 3 };
        assert_eq!(script.repair(3, repair), Err(nothing));
    }
    assert!(Script::formed(1).repair(0, Repair::Discard(Role::Primary)).is_err(), "there is no other copy");
}

#[test]
fn writes_that_are_buffered_when_a_move_begins_go_to_the_new_leader() {
    let mut script = Script::formed(3);
    script.kill(0);
    script.create(user_of(0, 3, 0));
    script.apply_writes(1, Role::Replica);
    script.processes[0].copies.primary.position = None;
    script.connect(0);
    script.engine.pause_writes(script.now, 0);
    let held = script.create(user_of(0, 3, 1));
    script.follow_back(0, 1);
    assert_eq!(script.engine.status().partitions[0].role, Role::Primary, "it has failed back");
    script.apply_writes(0, Role::Primary);
    assert!(matches!(script.write_result(held), Some(Ok(_))));
}
