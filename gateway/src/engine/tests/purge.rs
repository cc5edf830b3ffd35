//! Tombstones go when both copies have all that is older.

use protocol::message::query::{DigestAnswer, EraseAnswer, TombstoneAnswer};

use super::*;

const UPTO: Version = Version(u64::MAX);

impl Script {
    fn look(&mut self) {
        self.step(Event::Purge { upto: UPTO });
    }

    fn query_at(&mut self, place: u16, fits: impl Fn(&Query) -> bool) -> Option<Query> {
        let taken = self.take(place, |message| matches!(message, ToProcess::Query(query) if fits(query)));
        assert!(taken.len() <= 1, "one at a time: {taken:?}");
        taken.into_iter().next().map(|message| match message {
            ToProcess::Query(query) => query,
            _ => unreachable!("only queries were taken"),
        })
    }

    /// The copy at a place names these users.
    fn name(&mut self, place: u16, partition: u16, tombstones: &[(UserId, Version)]) -> Role {
        let of = |query: &Query| matches!(query, Query::TombstoneQuery(_));
        let queries = self.take(place, |message| matches!(message, ToProcess::Query(query) if of(query)));
        for message in queries {
            let ToProcess::Query(Query::TombstoneQuery(query)) = message else { unreachable!("only these") };
            let at = if query.role == Role::Primary { place } else { (place + 2) % 3 };
            if at != partition {
                self.inbox.push((place, ToProcess::Query(Query::TombstoneQuery(query))));
                continue;
            }
            let copy = *self.processes[usize::from(place)].copies.get(query.role);
            let answer = TombstoneAnswer {
                query: query.query,
                tombstones: tombstones.to_vec(),
                next: None,
                incarnation: copy.incarnation,
                head: copy.head,
            };
            self.message(place, ToGateway::Answer(Answer::TombstoneAnswer(answer)));
            return query.role;
        }
        panic!("{place} was not asked for tombstones of {partition}")
    }

    /// The other copy of partition 0 says where it is, if it was asked.
    fn compare(&mut self) -> bool {
        let Some(Query::DigestQuery(query)) =
            self.query_at(1, |query| matches!(query, Query::DigestQuery(_)))
        else {
            return false;
        };
        let CopyReport { incarnation, head, position, .. } = self.processes[1].copies.replica;
        let (users, records) = (0, 0);
        let (digests, damage) = (Vec::new(), Vec::new());
        let query = query.query;
        let answer = DigestAnswer { query, incarnation, head, position, users, records, digests, damage };
        self.message(1, ToGateway::Answer(Answer::DigestAnswer(answer)));
        true
    }

    /// What is asked of the leader of partition 0.
    fn purges(&self) -> Vec<Operation> {
        let mut all = Vec::new();
        for (place, message) in &self.inbox {
            if let ToProcess::WriteBatch(batch) = message
                && *place == 0
            {
                all.extend(batch.writes.iter().map(|write| write.operation.clone()));
            }
        }
        all
    }
}

fn dead() -> (UserId, Version) {
    (user_of(0, 3, 0), Version(3))
}

#[test]
fn a_tombstone_goes_when_each_copy_has_all_of_the_other() {
    let mut script = Script::formed(3);
    script.create(user_of(0, 3, 1));
    script.apply_writes(0, Role::Primary);
    // The other copy has accepted something that no other process has heard of.
    script.processes[1].copies.replica.head = 2;
    script.follow(0, 1);
    script.create(user_of(0, 3, 2));
    script.apply_writes(0, Role::Primary);

    script.look();
    script.name(0, 0, &[dead()]);
    assert!(!script.compare(), "it lacks a write of the leader");
    script.look();
    assert!(
        script
            .query_at(0, |query| matches!(query, Query::TombstoneQuery(query) if query.role == Role::Primary))
            .is_none()
    );
    script.follow(0, 2);
    script.pass(10, &[]);
    assert!(script.compare());
    assert_eq!(script.purges(), [], "the leader lacks two writes of the other");
    script.follow_back(0, 1);
    script.pass(10, &[]);
    assert_eq!(script.purges(), []);
    script.follow_back(0, 2);
    script.pass(10, &[]);
    assert_eq!(script.purges(), [Operation::Purge(Version(3))]);

    assert_eq!(script.engine.status().partitions[0].unreplicated, 0);
    script.apply_writes(0, Role::Primary);
    assert_eq!(script.engine.status().partitions[0].unreplicated, 1, "it is covered like any write");
    assert_eq!(script.published, [], "and not published");
    script.look();
    assert_eq!(script.name(1, 0, &[]), Role::Replica, "the other copy is next");
}

#[test]
fn a_tombstone_that_only_the_other_copy_has_is_purged_there() {
    let mut script = Script::formed(3);
    script.look();
    script.name(0, 0, &[]);
    script.look();
    script.processes[1].copies.replica.head = 1;
    script.name(1, 0, &[dead()]);
    script.pass(10, &[]);
    assert!(!script.compare(), "the leader may not know of the delete");
    script.follow_back(0, 1);
    script.pass(10, &[]);
    assert!(script.compare());
    assert_eq!(script.purges(), [Operation::Purge(Version(3))]);
}

#[test]
fn nothing_is_purged_while_a_process_is_away_or_the_lead_moves() {
    let prepared = || {
        let mut script = Script::formed(3);
        script.look();
        script.name(0, 0, &[dead()]);
        script
    };
    let mut script = prepared();
    script.kill(1);
    script.connect(1);
    script.pass(10, &[]);
    assert!(!script.compare(), "it is another connection: something older may be in its queues");

    let mut script = prepared();
    script.step(Event::Purge { upto: UPTO });
    script.kill(1);
    script.pass(10, &[]);
    script.look();
    let asked = script.take(0, |message| {
        matches!(message, ToProcess::Query(Query::TombstoneQuery(query)) if query.role == Role::Primary)
    });
    assert!(asked.is_empty());

    let mut script = prepared();
    let held = script.create(user_of(0, 3, 4));
    script.engine.pause_writes(script.now, 0);
    script.pass(10, &[]);
    script.compare();
    script.pass(10, &[]);
    assert_eq!(script.purges().len(), 1, "only the create");
    assert!(script.write_result(held).is_none());
}

#[test]
fn a_write_that_is_older_than_the_delete_is_waited_for() {
    let mut script = Script::formed(3);
    script.create(user_of(0, 3, 0));
    script.look();
    script.name(0, 0, &[(user_of(0, 3, 0), Version(u64::MAX - 1))]);
    script.pass(10, &[]);
    assert!(!script.compare());
    script.apply_writes(0, Role::Primary);
    script.follow(0, 1);
    script.pass(10, &[]);
    assert!(script.compare());
    assert_eq!(script.purges(), [Operation::Purge(Version(u64::MAX - 1))]);
}

impl Script {
    fn purge_user(&mut self, id: UserId) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.step(Event::PurgeUser { request, id });
        request
    }

    /// The questions to erase something, in each of which the copy says that it has.
    fn erase(&mut self) -> Vec<(u16, Role, Option<UserId>)> {
        let mut asked = Vec::new();
        for place in 0..self.processes.len() as u16 {
            while let Some(Query::EraseQuery(query)) =
                self.first_query_at(place, |query| matches!(query, Query::EraseQuery(_)))
            {
                asked.push((place, query.role, query.user));
                let answer = EraseAnswer { query: query.query, erased: true };
                self.message(place, ToGateway::Answer(Answer::EraseAnswer(answer)));
            }
        }
        asked
    }

    fn first_query_at(&mut self, place: u16, fits: impl Fn(&Query) -> bool) -> Option<Query> {
        let fits = |message: &ToProcess| matches!(message, ToProcess::Query(query) if fits(query));
        let at = self.inbox.iter().position(|(to, message)| *to == place && fits(message))?;
        match self.inbox.remove(at).1 {
            ToProcess::Query(query) => Some(query),
            _ => unreachable!("only a query was taken"),
        }
    }
}

#[test]
fn a_user_is_purged_at_once_when_the_operator_wants_it_but_not_before_both_copies_have_all() {
    let mut script = Script::formed(3);
    let user = user_of(0, 3, 0);
    script.create(user);
    let wanted = script.purge_user(user);
    script.pass(10, &[]);
    assert!(!script.compare(), "an older write has no answer");
    let created = script.apply_writes(0, Role::Primary);
    script.pass(10, &[]);
    assert!(!script.compare(), "the other copy lacks it");
    script.follow(0, 1);
    script.pass(10, &[]);
    assert!(script.compare());
    let [Operation::Purge(upto)] = script.purges()[..] else { panic!("{:?}", script.purges()) };
    let versions = script.apply_writes(0, Role::Primary);
    assert!(created[0] < upto && upto < versions[0], "all that was written before is forgotten");
    assert!(matches!(script.write_result(wanted), Some(Ok(_))));
    script.follow(0, 2);

    // Those that come meanwhile wait, and share the next exchange.
    let first = script.purge_user(user);
    let others = [1, 2].map(|nth| script.purge_user(user_of(0, 3, nth)));
    assert!(script.compare());
    script.apply_writes(0, Role::Primary);
    assert!(script.write_result(first).is_some());
    assert!(others.iter().all(|request| script.write_result(*request).is_none()));
    script.follow(0, 3);
    script.pass(20, &[]);
    assert!(script.compare());
    script.apply_writes(0, Role::Primary);
    assert!(others.iter().all(|request| matches!(script.write_result(*request), Some(Ok(_)))));
}

#[test]
fn a_purge_that_the_operator_wants_is_refused_where_a_copy_is_away_or_goes() {
    let mut script = Script::formed(3);
    let wanted = script.purge_user(user_of(0, 3, 0));
    script.kill(1);
    script.pass(10, &[]);
    assert!(matches!(script.write_result(wanted), Some(Err(Unserved::Unavailable { partition: 0, .. }))));
    let wanted = script.purge_user(user_of(0, 3, 0));
    script.pass(10, &[]);
    assert!(matches!(script.write_result(wanted), Some(Err(Unserved::Unavailable { partition: 0, .. }))));
    assert_eq!(script.purges(), []);
}

#[test]
fn each_copy_is_asked_to_erase_now_and_then_and_rests_when_it_took_long() {
    let mut script = Script::formed(3);
    let every = Duration::from_secs(2);
    let old = || Event::EraseOld { upto: UPTO, every };
    script.step(old());
    assert_eq!(script.erase(), [], "not at once");
    script.pass(2_000, &[]);
    script.step(old());
    script.step(old());
    assert_eq!(script.erase().len(), 6, "both copies of each partition, once");
    script.pass(1_000, &[]);
    script.step(old());
    assert_eq!(script.erase(), []);
    script.pass(1_000, &[]);
    script.kill(2);
    script.step(old());
    script.pass(500, &[]);
    assert_eq!(script.erase().len(), 4, "those that are there");
    script.connect(2);
    script.pass(2_500, &[]);
    script.step(old());
    let away = |asked: &(u16, Role, _)| asked.0 == 2;
    assert!(script.erase().iter().all(away), "the others rest for twenty times as long as they took");
    script.pass(7_500, &[]);
    script.step(old());
    assert!(!script.erase().is_empty());
    assert_eq!(script.answers.len(), 0, "no caller asked");

    script.requests += 1;
    let (request, id) = (RequestId(script.requests), user_of(1, 3, 0));
    script.step(Event::EraseInCopy { request, id, role: Role::Replica });
    assert_eq!(script.erase(), [(2, Role::Replica, Some(id))]);
    assert!(matches!(script.answers[..], [(answered, Ok(_))] if answered == request));
}

#[test]
fn a_ring_of_one_purges_alone() {
    let mut script = Script::formed(1);
    script.look();
    let Some(Query::TombstoneQuery(query)) = script.query_at(0, |_| true) else { panic!("it is asked") };
    let copy = script.processes[0].copies.primary;
    let (incarnation, head) = (copy.incarnation, copy.head);
    let tombstones = vec![(user_of(0, 1, 0), Version(1))];
    let answer = TombstoneAnswer { query: query.query, tombstones, next: None, incarnation, head };
    script.message(0, ToGateway::Answer(Answer::TombstoneAnswer(answer)));
    assert_eq!(script.purges(), [Operation::Purge(Version(1))]);
}
