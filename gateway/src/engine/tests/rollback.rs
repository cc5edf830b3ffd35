//! A copy comes back with less than was on its disk.

use protocol::message::link::{Compared, Counted, Expected, FlushPoint, Rollback};

use super::*;

impl Script {
    /// What a process got as expected of its copies.
    fn expected(&mut self, place: u16) -> Vec<Expected> {
        let expected = self.take(place, |message| matches!(message, ToProcess::Expected(_)));
        let expected = expected.into_iter().map(|message| match message {
            ToProcess::Expected(expected) => expected,
            _ => unreachable!("nothing else was taken"),
        });
        expected.collect()
    }

    fn primary(&mut self, place: u16) -> &mut CopyReport {
        &mut self.processes[usize::from(place)].copies.primary
    }

    /// The disk of a primary is as it was before anything was written.
    fn roll_back(&mut self, place: u16) {
        let primary = self.primary(place);
        (primary.head, primary.flushed) = (0, 0);
    }

    /// A process registers again, and says of its primary that it was rolled back.
    fn connect_rolled_back(&mut self, place: u16, known: u64) {
        let rollback = Rollback { of: Counted::Commit, found: 0, known };
        let primary = self.primary(place);
        (primary.complete, primary.rollback) = (false, Some(rollback));
        self.connect(place);
    }

    fn status(&self, partition: usize) -> (bool, String) {
        let partition = &self.engine.status().partitions[partition];
        (partition.reads, partition.waiting_for.clone().unwrap_or_default())
    }

    /// db-0 has led alone, while db-1 was away, and comes back without what it acknowledged then.
    fn rolled_back_alone() -> Self {
        let mut script = Self::formed(3);
        script.kill(1);
        script.create(user_of(0, 3, 0));
        script.apply_writes(0, Role::Primary);
        script.kill(0);
        script.roll_back(0);
        script
    }
}

#[test]
fn a_copy_does_not_lead_until_it_has_what_the_gateway_knows_of_its_disk() {
    let mut script = Script::formed(3);
    script.kill(1);
    let id = user_of(0, 3, 0);
    script.create(id);
    script.apply_writes(0, Role::Primary);
    script.kill(0);
    // It reported before it had got round to saying how much it has.
    script.primary(0).flushed = 0;
    script.connect(0);
    let incarnation = script.primary(0).incarnation;
    let known = Some(FlushPoint { incarnation, lsn: 1 });
    let expected = Expected { role: Role::Primary, flushed: known, followed: None };
    assert_eq!(script.expected(0), [expected]);
    assert!(!script.status(0).0, "it may have been rolled back");
    script.message(0, ToGateway::Compared(Compared { role: Role::Primary }));
    assert!(script.status(0).0, "it has all of it");
}

#[test]
fn one_that_was_rolled_back_waits_for_the_other_copy_and_is_filled_by_it() {
    let mut script = Script::rolled_back_alone();
    script.connect(0);
    assert_eq!(script.expected(0).len(), 1);
    // It compares, and leaves without an answer to anything.
    script.kill(0);
    script.connect_rolled_back(0, 1);
    let (served, waiting_for) = script.status(0);
    assert!(!served && waiting_for.contains("db-1 has to come back"), "{waiting_for}");
    assert!(script.reports.iter().any(|report| matches!(report, RingEvent::RolledBack { partition: 0, .. })));
    assert_eq!(script.last_notice(0).primary, Grant::Wait);
    // The tail has what was lost.
    script.connect(1);
    assert_eq!(script.confirm_merges(1), 1);
    let status = &script.engine.status().partitions[0];
    assert_eq!((status.lead.as_deref(), status.role), (Some("db-1"), Role::Replica));
    assert_eq!(script.last_notice(0).primary, Grant::Fill, "its op-log has nothing that db-1 lacks");
}

#[test]
fn it_is_not_discarded_before_the_other_copy_has_what_only_it_has() {
    let mut script = Script::rolled_back_alone();
    // Something is left that db-1 has not followed.
    script.primary(0).head = 3;
    script.connect_rolled_back(0, 9);
    script.connect(1);
    script.confirm_merges(1);
    assert_eq!(script.last_notice(0).primary, Grant::Wait);
    script.follow(0, 3);
    assert_eq!(script.last_notice(0).primary, Grant::Fill);
}

#[test]
fn the_operator_may_accept_what_is_left() {
    let mut script = Script::rolled_back_alone();
    script.connect_rolled_back(0, 1);
    let (_, waiting_for) = script.status(0);
    assert!(waiting_for.contains("accepts what db-0 has with `corro promote 0`"), "{waiting_for}");
    let mut commands = Vec::new();
    script.engine.promote(script.now, 0, &mut commands).expect("there is a copy");
    let accepts = |command: &Command| match command {
        Command::Send { message: ToProcess::RingNotice(notice), .. } => notice.primary == Grant::Accept,
        _ => false,
    };
    assert!(commands.iter().any(accepts));
    let view = script.engine.view.clone();
    let process = &mut script.processes[0];
    process.view = view;
    process.copies.primary =
        CopyReport { complete: true, incarnation: Uuid::from_u128(77), ..Process::fresh(1).copies.primary };
    script.copies_changed(0);
    assert!(script.status(0).0, "it leads, under a new incarnation");
}

#[test]
fn a_gateway_that_starts_hears_the_other_copy_before_a_copy_leads() {
    for away in [false, true] {
        let mut script = Script::formed(3);
        script.now = Duration::ZERO;
        script.restart_gateway();
        script.connect(2);
        script.connect(0);
        assert!(!script.status(0).0, "db-1 may know better");
        if away {
            script.pass(1_490, &[]);
            assert!(!script.status(0).0);
            script.pass(20, &[]);
        } else {
            script.connect(1);
        }
        assert!(script.status(0).0, "{away}");
    }
}

#[test]
fn what_the_other_copy_knows_is_compared_as_well() {
    let mut script = Script::formed(3);
    script.create(user_of(0, 3, 0));
    script.apply_writes(0, Role::Primary);
    script.follow(0, 1);
    script.now = Duration::ZERO;
    script.restart_gateway();
    script.roll_back(0);
    script.connect(2);
    script.connect(0);
    assert_eq!(script.expected(0).len(), 0, "nothing is known yet");
    script.connect(1);
    let followed = Position { incarnation: script.primary(0).incarnation, sequence: 1 };
    let expected = script.expected(0);
    assert_eq!(expected.iter().map(|expected| expected.followed).collect::<Vec<_>>(), [Some(followed)]);
    assert!(!script.status(0).0);
}
