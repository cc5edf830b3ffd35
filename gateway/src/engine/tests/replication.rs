//! Links between neighbours that are down, and lags that grow, are reported.

use protocol::message::link::Following;

use super::*;

impl Script {
    /// A formed ring in which every copy follows.
    fn following(size: u16) -> Self {
        let mut script = Self::formed(size);
        (0..size).for_each(|place| script.says_following(place, true, true));
        script.pass(3_000, &[]);
        assert_eq!(script.waits(), vec![None; usize::from(size)]);
        script
    }

    fn says_following(&mut self, place: u16, primary: bool, replica: bool) {
        self.message(place, ToGateway::Following(Following { primary, replica }));
    }

    /// What each partition waits for.
    fn waits(&self) -> Vec<Option<String>> {
        self.engine.status().partitions.into_iter().map(|partition| partition.waiting_for).collect()
    }

    /// What was reported: of which partition, whether it began, and what.
    fn replication_reports(&self) -> Vec<(u16, bool, String)> {
        let reports = self.reports.iter().filter_map(|report| match report {
            RingEvent::ReplicationChanged { partition, impaired, what } => {
                Some((*partition, *impaired, what.clone()))
            }
            _ => None,
        });
        reports.collect()
    }

    /// A write to a partition that its primary acknowledges.
    fn acknowledge_one(&mut self, partition: u16, nth: usize) {
        self.create(user_of(partition, self.processes.len() as u16, nth));
        self.apply_writes(partition, Role::Primary);
    }
}

fn link_down(seconds: u64) -> String {
    format!("db-2 does not follow db-1 since {seconds} s: the link between them is down")
}

fn lags(seconds: u64) -> String {
    format!("db-2 has to catch up: it lacks writes that db-1 acknowledged {seconds} s ago")
}

#[test]
fn a_link_that_is_down_is_reported_although_nothing_is_written() {
    let mut script = Script::following(3);
    script.says_following(2, true, false);
    script.pass(1_900, &[]);
    assert_eq!(script.waits(), [None, None, None]);
    script.pass(400, &[]);
    assert_eq!(script.waits(), [None, Some(link_down(2)), None]);
    script.pass(10_000, &[]);
    assert_eq!(script.waits(), [None, Some(link_down(12)), None]);
    let status = script.engine.status();
    assert!(status.ready, "it takes reads and writes all the same");
    assert!(status.partitions[1].both_read);
    let follows: Vec<_> = status.partitions[1].copies.iter().map(|copy| copy.follows).collect();
    assert_eq!(follows, [Some(true), Some(false)]);

    script.says_following(2, true, true);
    script.pass(200, &[]);
    assert_eq!(script.waits(), [None, None, None]);
    script.pass(5_000, &[]);
    let expected = [(1, true, link_down(2)), (1, false, "db-2 follows db-1 again".to_owned())];
    assert_eq!(script.replication_reports(), expected);
}

#[test]
fn a_link_that_is_down_both_ways_is_reported_once_for_the_copy_that_does_not_lead() {
    let mut script = Script::following(3);
    script.says_following(1, false, true);
    script.says_following(2, true, false);
    script.pass(3_000, &[]);
    assert_eq!(script.waits()[1], Some(link_down(2)));
    script.says_following(2, true, true);
    script.pass(200, &[]);
    let back = "db-1 does not follow db-2 since 3 s: the link between them is down";
    assert_eq!(script.waits()[1].as_deref(), Some(back));
    assert_eq!(script.replication_reports(), [(1, true, link_down(2))]);
    script.says_following(1, true, true);
    script.pass(200, &[]);
    assert_eq!(script.waits(), [None, None, None]);
    assert_eq!(script.replication_reports().len(), 2);
}

#[test]
fn a_link_that_comes_back_within_the_grace_is_not_reported() {
    let mut script = Script::following(3);
    for _ in 0..5 {
        script.says_following(2, true, false);
        script.pass(1_500, &[]);
        script.says_following(2, true, true);
        script.pass(500, &[]);
        assert_eq!(script.waits(), [None, None, None]);
    }
    assert_eq!(script.replication_reports(), []);
}

#[test]
fn a_process_that_does_not_say_whether_it_follows_is_not_taken_for_one_that_does_not() {
    let mut script = Script::formed(3);
    script.pass(5_000, &[]);
    assert_eq!(script.waits(), [None, None, None]);
    assert_eq!(script.engine.status().partitions[1].copies[1].follows, None);
    assert_eq!(script.replication_reports(), []);
}

#[test]
fn links_to_a_process_that_is_away_are_not_reported_and_it_gets_a_grace_when_it_is_back() {
    let mut script = Script::following(3);
    script.kill(1);
    script.says_following(0, false, true);
    script.says_following(2, true, false);
    script.pass(10_000, &[]);
    assert_eq!(script.waits()[0].as_deref(), Some("db-1 has to come back"));
    script.connect(1);
    script.says_following(1, false, false);
    script.pass(1_900, &[]);
    (0..3).for_each(|place| script.says_following(place, true, true));
    script.pass(5_000, &[]);
    assert_eq!(script.replication_reports(), []);
}

#[test]
fn a_link_that_is_down_when_its_process_is_lost_is_said_to_be_over() {
    let mut script = Script::following(3);
    script.says_following(2, true, false);
    script.pass(3_000, &[]);
    script.kill(2);
    script.pass(200, &[]);
    assert_eq!(script.waits()[1].as_deref(), Some("db-2 has to come back"));
    let expected = [(1, true, link_down(2)), (1, false, "db-2 has to come back".to_owned())];
    assert_eq!(script.replication_reports(), expected);
}

#[test]
fn a_copy_that_is_being_filled_follows_and_one_that_cannot_be_filled_does_not() {
    let mut script = Script::following(3);
    script.kill(2);
    script.processes[2] = Process::fresh(900);
    script.connect(2);
    assert_eq!(script.waits()[1].as_deref(), Some("db-2 has to be filled"));
    // The other way round: db-1 follows an empty copy, which declines that.
    script.says_following(1, false, true);
    script.says_following(2, true, true);
    script.pass(10_000, &[]);
    assert_eq!(script.waits()[1].as_deref(), Some("db-2 has to be filled"));
    assert_eq!(script.replication_reports(), []);
    script.says_following(2, true, false);
    script.pass(2_200, &[]);
    assert_eq!(script.waits()[1], Some(link_down(2)));
}

#[test]
fn a_lag_is_reported_when_its_oldest_write_is_older_than_two_seconds() {
    let mut script = Script::following(3);
    script.acknowledge_one(1, 0);
    for nth in 1..=19 {
        script.pass(100, &[]);
        script.acknowledge_one(1, nth);
    }
    assert_eq!(script.waits(), [None, None, None]);
    script.pass(300, &[]);
    assert_eq!(script.waits(), [None, Some(lags(2)), None]);
    script.pass(10_000, &[]);
    assert_eq!(script.waits(), [None, Some(lags(12)), None]);
    let partition = script.engine.status().partitions.swap_remove(1);
    assert_eq!((partition.unreplicated, partition.unreplicated_millis), (20, 12_200));
    assert!(script.engine.status().ready);

    script.follow(1, 20);
    assert_eq!(script.waits(), [None, None, None]);
    assert_eq!(script.engine.status().partitions[1].unreplicated_millis, 0);
    script.pass(5_000, &[]);
    let expected = [(1, true, lags(2)), (1, false, "db-2 has caught up".to_owned())];
    assert_eq!(script.replication_reports(), expected);
}

#[test]
fn a_lag_around_two_seconds_is_reported_once() {
    let mut script = Script::following(3);
    (0..20).for_each(|nth| {
        script.acknowledge_one(1, nth);
        script.pass(100, &[]);
    });
    for nth in 20..60 {
        script.acknowledge_one(1, nth);
        script.pass(100, &[]);
        // Between 1.6 and 2.4 s behind.
        let behind = 16 + (nth as u64 / 4 * 4) % 9;
        script.follow(1, nth as u64 - behind.min(nth as u64));
    }
    assert_eq!(script.replication_reports().len(), 1, "{:?}", script.replication_reports());
}

#[test]
fn a_copy_that_comes_back_catches_up_without_a_report() {
    let mut script = Script::following(3);
    script.kill(2);
    for nth in 0..10 {
        script.acknowledge_one(1, nth);
        script.pass(1_000, &[]);
    }
    assert_eq!(script.waits()[1].as_deref(), Some("db-2 has to come back"));
    script.connect(2);
    script.says_following(2, true, true);
    script.pass(4_000, &[]);
    assert_eq!(script.waits()[1].as_deref(), Some("db-2 has to catch up"));
    // It has what there was when it came; what was written since is old by now.
    script.acknowledge_one(1, 10);
    script.pass(4_000, &[]);
    script.follow(1, 10);
    script.follow_back(1, 0);
    script.pass(1_500, &[]);
    assert_eq!(script.waits()[1], None);
    script.follow(1, 11);
    script.pass(3_000, &[]);
    assert_eq!(script.replication_reports(), []);
}

#[test]
fn a_lag_that_the_tail_cannot_hold_stays_reported() {
    let mut script = Script::following(3);
    script.acknowledge_one(1, 0);
    script.pass(2_300, &[]);
    assert_eq!(script.waits()[1], Some(lags(2)));
    let name = "n".repeat(400_000);
    for nth in 1..6 {
        script.requests += 1;
        let (request, id) = (RequestId(script.requests), user_of(1, 3, nth));
        let operation =
            Operation::Create(Change { alive: Some(true), name: Some(name.clone()), ..Change::default() });
        script.step(Event::Write {
            request,
            id,
            operation,
            condition: None,
            omit_user: true,
            unix_millis: 5,
        });
        script.apply_writes(1, Role::Primary);
    }
    script.pass(3_000, &[]);
    assert!(!script.engine.status().partitions[1].both_read);
    assert_eq!(script.waits()[1], Some(lags(5)));
    script.follow(1, 6);
    script.pass(200, &[]);
    assert_eq!(script.waits()[1], None);
    assert_eq!(script.replication_reports().len(), 2);
}

#[test]
fn a_gateway_that_stood_still_reports_nothing_that_it_only_did_not_hear_of() {
    let mut script = Script::following(3);
    script.acknowledge_one(1, 0);
    script.says_following(2, true, false);
    script.now += Duration::from_secs(30);
    script.step(Event::Tick);
    script.pass(500, &[]);
    script.follow(1, 1);
    script.says_following(2, true, true);
    script.pass(5_000, &[]);
    assert_eq!(script.replication_reports(), []);
    // It is on its guard again.
    script.says_following(2, true, false);
    script.pass(3_000, &[]);
    assert_eq!(script.replication_reports().len(), 1);
}

#[test]
fn a_ring_of_one_follows_nothing() {
    let mut script = Script::formed(1);
    script.says_following(0, false, false);
    script.acknowledge_one(0, 0);
    script.pass(5_000, &[]);
    assert_eq!(script.waits(), [None]);
    assert_eq!(script.engine.status().partitions[0].copies[0].follows, None);
    assert_eq!(script.replication_reports(), []);
}
