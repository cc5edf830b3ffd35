//! The way of questions about a whole partition.

use protocol::message::query::{ChangesAnswer, CountAnswer, DigestAnswer, Listed, PageAnswer};

use super::*;

impl Script {
    fn ask(&mut self, partition: u16, query: Query) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.step(Event::Question { request, partition, query });
        request
    }

    pub(super) fn count(&mut self, partition: u16) -> RequestId {
        self.ask(partition, Query::CountQuery(CountQuery { query: 0, role: Role::Primary, group: None }))
    }

    fn page(&mut self, partition: u16, after: Option<UserId>) -> RequestId {
        let (query, role, filter) = (0, Role::Primary, Filter::All);
        self.ask(partition, Query::PageQuery(PageQuery { query, role, after, limit: 10, filter }))
    }

    fn ask_for_digests(&mut self, role: Role, scan: bool) -> RequestId {
        self.ask(0, Query::DigestQuery(DigestQuery { query: 0, role, scan }))
    }

    pub(super) fn delete(&mut self, id: UserId) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        let operation = Operation::Delete;
        self.step(Event::Write { request, id, operation, condition: None, omit_user: false, unix_millis: 5 });
        request
    }

    /// The copies that questions under way were put to: place and role.
    fn questioned(&self) -> Vec<(u16, Role)> {
        let queries = self.inbox.iter().filter_map(|(place, message)| match message {
            ToProcess::Query(query) => Some((*place, query)),
            _ => None,
        });
        queries.map(|(place, query)| (place, query.role())).collect()
    }

    /// A process answers the first of its questions, which has to be a count or one about its digests.
    pub(super) fn answer_count(&mut self, place: u16, count: u64) {
        let query = self.next_query(place);
        self.message(place, ToGateway::Answer(Answer::CountAnswer(CountAnswer { query, count })));
    }

    /// A process answers the first of its questions, which has to be a page.
    fn answer_page(&mut self, place: u16, ids: &[UserId], more: bool) {
        let query = self.next_query(place);
        let user = || RawValue::from_string("{}".to_owned()).expect("valid JSON");
        let users = ids.iter().map(|id| Listed(*id, Version(1), user())).collect();
        self.message(place, ToGateway::Answer(Answer::PageAnswer(PageAnswer { query, users, more })));
    }

    /// Number of the first question of a process.
    fn next_query(&mut self, place: u16) -> u64 {
        let mut queries = self.take(place, |message| matches!(message, ToProcess::Query(_))).into_iter();
        let Some(ToProcess::Query(first)) = queries.next() else { panic!("{place} was asked nothing") };
        self.inbox.extend(queries.map(|message| (place, message)));
        match first {
            Query::PageQuery(query) => query.query,
            Query::CountQuery(query) => query.query,
            Query::ChangesQuery(query) => query.query,
            Query::TombstoneQuery(query) => query.query,
            Query::DigestQuery(query) => query.query,
            Query::EraseQuery(query) => query.query,
        }
    }

    pub(super) fn answer(&self, request: RequestId) -> Option<&Result<Answer, Unserved>> {
        let mut results = self.answers.iter().filter(|(answered, _)| *answered == request);
        let result = results.next();
        assert!(results.next().is_none(), "a question is answered once");
        result.map(|(_, result)| result)
    }

    fn counted(&self, request: RequestId) -> Option<u64> {
        match self.answer(request)? {
            Ok(Answer::CountAnswer(answer)) => Some(answer.count),
            other => panic!("no count: {other:?}"),
        }
    }
}

#[test]
fn an_idle_ring_counts_and_lists_from_replicas() {
    let mut script = Script::formed(3);
    let count = script.count(0);
    assert_eq!(script.questioned(), [(1, Role::Replica)]);
    script.answer_count(1, 7);
    assert_eq!(script.counted(count), Some(7));
    let page = script.page(2, None);
    assert_eq!(script.questioned(), [(0, Role::Replica)]);
    script.answer_page(0, &[user_of(2, 3, 0)], true);
    let Some(Ok(Answer::PageAnswer(page))) = script.answer(page) else { panic!("no page") };
    assert!(page.users.len() == 1 && page.more);
}

#[test]
fn while_any_user_of_the_partition_is_unsettled_the_lead_answers() {
    let mut script = Script::formed(3);
    script.create(user_of(0, 3, 0));
    script.apply_writes(0, Role::Primary);
    let counts = [script.count(0), script.page(0, Some(user_of(0, 3, 5)))];
    assert_eq!(script.questioned(), [(0, Role::Primary); 2], "the replica may lack a write");
    script.count(1);
    assert_eq!(script.questioned()[2], (2, Role::Replica), "another partition is not touched");
    script.answer_count(0, 1);
    script.answer_page(0, &[], false);
    assert!(counts.iter().all(|&request| matches!(script.answer(request), Some(Ok(_)))));
    script.follow(0, 1);
    script.next_query(2);
    script.count(0);
    assert_eq!(script.questioned(), [(1, Role::Replica)]);
}

#[test]
fn a_count_that_may_show_an_unanswered_write_is_given_when_that_is_answered() {
    let mut script = Script::formed(3);
    script.create(user_of(0, 3, 0));
    let count = script.count(0);
    script.create(user_of(0, 3, 1));
    script.answer_count(0, 1);
    assert_eq!(script.counted(count), None, "the write could come to nothing");
    script.create(user_of(0, 3, 2));
    // The first frame has the first write, the next the other two, one of which the count cannot show.
    script.apply_writes(0, Role::Primary);
    assert_eq!(script.counted(count), None, "the second one could still come to nothing");
    script.apply_writes(0, Role::Primary);
    assert_eq!(script.counted(count), Some(1));
}

#[test]
fn a_refused_write_lets_the_count_go_too() {
    let mut script = Script::formed(3);
    script.create(user_of(0, 3, 0));
    let count = script.count(0);
    script.answer_count(0, 1);
    script.refuse_writes(0, Role::Primary);
    assert_eq!(script.counted(count), Some(1), "a copy that refuses a write has not shown it");
}

#[test]
fn a_count_that_showed_what_is_lost_with_the_lead_is_asked_again() {
    let mut script = Script::formed(3);
    script.syncs = false;
    script.create(user_of(0, 3, 0));
    let count = script.count(0);
    script.answer_count(0, 1);
    script.kill(0);
    assert_eq!((script.counted(count), script.questioned()), (None, vec![]), "db-1 is about to lead");
    script.confirm_merges(1);
    assert_eq!(script.questioned(), [(1, Role::Replica)]);
    script.answer_count(1, 0);
    assert_eq!(script.counted(count), None, "the write was sent again, and may be shown");
    script.refuse_writes(1, Role::Replica);
    assert_eq!(script.counted(count), Some(0));
}

#[test]
fn a_page_waits_only_for_writes_of_users_within_it() {
    let mut script = Script::formed(3);
    let mut ids: Vec<UserId> = (0..4).map(|nth| user_of(0, 3, nth)).collect();
    ids.sort();
    script.delete(ids[2]);
    let before = script.page(0, None);
    script.answer_page(0, &ids[..2], true);
    assert!(matches!(script.answer(before), Some(Ok(_))), "it ends before the user that is being deleted");
    let after = script.page(0, Some(ids[2]));
    script.answer_page(0, &ids[3..], false);
    assert!(matches!(script.answer(after), Some(Ok(_))), "it begins after");
    let across = script.page(0, Some(ids[0]));
    script.answer_page(0, &[ids[1], ids[3]], true);
    assert!(script.answer(across).is_none(), "the user may be there yet");
    let open = script.page(0, Some(ids[0]));
    script.answer_page(0, &ids[1..2], false);
    assert!(script.answer(open).is_none(), "it says that there is no user beyond");
    script.apply_writes(0, Role::Primary);
    assert!([across, open].iter().all(|&page| matches!(script.answer(page), Some(Ok(_)))));
}

#[test]
fn questions_under_way_to_a_lost_process_are_asked_of_the_other_copy() {
    let mut script = Script::formed(3);
    let count = script.count(0);
    script.kill(1);
    assert_eq!(script.questioned(), [(0, Role::Primary)]);
    script.answer_count(0, 3);
    assert_eq!(script.counted(count), Some(3));
}

#[test]
fn a_slow_question_is_put_to_the_other_copy_too_and_answered_once() {
    let mut script = Script::formed(3);
    let count = script.count(0);
    script.pass(150, &[]);
    assert_eq!(script.questioned(), [(1, Role::Replica), (0, Role::Primary)]);
    script.answer_count(0, 3);
    script.answer_count(1, 4);
    assert_eq!(script.counted(count), Some(3), "the first answer counts");
    assert!(script.reports.iter().all(|report| !matches!(report, RingEvent::ProcessLost { .. })));

    script.create(user_of(0, 3, 0));
    script.count(0);
    script.pass(150, &[]);
    assert_eq!(script.questioned(), [(0, Role::Primary)], "the replica may lack the write");
}

#[test]
fn a_question_without_an_answer_is_given_up() {
    let mut script = Script::formed(1);
    let count = script.count(0);
    script.pass(5_100, &[]);
    assert!(matches!(script.answer(count), Some(Err(Unserved::Unavailable { partition: 0, .. }))));
    script.answer_count(0, 9);
    assert!(script.answer(count).is_some_and(Result::is_err), "too late");
}

#[test]
fn a_partition_that_is_down_is_not_counted_and_one_that_does_not_exist_neither() {
    let mut script = Script::formed(3);
    script.kill(0);
    script.kill(1);
    script.pass(300, &[]);
    for partition in [0, 3] {
        let count = script.count(partition);
        assert!(matches!(script.answer(count), Some(Err(Unserved::Unavailable { .. }))));
    }
}

#[test]
fn digests_and_changes_are_asked_of_the_copy_that_is_named() {
    let mut script = Script::formed(3);
    script.create(user_of(0, 3, 0));
    let digests = script.ask_for_digests(Role::Replica, false);
    let changes = ChangesQuery { query: 0, role: Role::Primary, after: Version(0), upto: Version(9) };
    let changes = script.ask(0, Query::ChangesQuery(changes));
    assert_eq!(script.questioned(), [(1, Role::Replica), (0, Role::Primary)]);
    let query = script.next_query(0);
    let answer =
        ChangesAnswer { query, changes: vec![], more: false, floor: Version(0), foreign: Version(0) };
    script.message(0, ToGateway::Answer(Answer::ChangesAnswer(answer)));
    assert!(matches!(script.answer(changes), Some(Ok(Answer::ChangesAnswer(_)))));
    script.kill(1);
    let Some(Err(Unserved::Unavailable { waiting_for, .. })) = script.answer(digests) else {
        panic!("no other copy can answer for this one")
    };
    assert_eq!(waiting_for, "db-1 has to come back");
    let digests = script.ask_for_digests(Role::Primary, true);
    script.pass(6_000, &[1]);
    let query = script.next_query(0);
    let answer = DigestAnswer {
        query,
        incarnation: Uuid::nil(),
        head: 0,
        position: None,
        users: 0,
        records: 0,
        digests: vec![],
        damage: vec![],
    };
    script.message(0, ToGateway::Answer(Answer::DigestAnswer(answer)));
    assert!(matches!(script.answer(digests), Some(Ok(_))), "a scan may take its time");
}

#[test]
fn a_process_that_answers_something_else_is_not_trusted() {
    let (low, high) = (UserId::from_u128(1), UserId::from_u128(2));
    let pages = [(vec![high, low], false), (vec![low], false), (vec![], true), (vec![high; 2], false)];
    for (ids, more) in pages {
        let mut script = Script::formed(3);
        let page = script.page(0, Some(low));
        script.answer_page(1, &ids, more);
        assert!(script.answer(page).is_none(), "{ids:?}");
        assert_eq!(script.questioned(), [(0, Role::Primary)], "asked elsewhere");
    }
    let mut script = Script::formed(3);
    let page = script.page(0, None);
    script.answer_count(1, 1);
    assert_eq!((script.answer(page).is_none(), script.questioned()), (true, vec![(0, Role::Primary)]));
}

#[test]
fn just_after_a_start_questions_wait_for_the_ring_and_so_does_its_size() {
    let mut script = Script::formed(3);
    script.now = Duration::from_millis(100);
    script.restart_gateway();
    let count = script.count(0);
    script.requests += 1;
    script.step(Event::Size { request: RequestId(script.requests) });
    assert!(script.sizes.is_empty());
    script.connect(0);
    script.connect(1);
    assert_eq!(script.sizes, [Ok(3)]);
    assert_eq!(script.questioned(), [(1, Role::Replica)]);
    script.answer_count(1, 2);
    assert_eq!(script.counted(count), Some(2));
    let elsewhere = script.count(2);
    assert!(script.answer(elsewhere).is_none());
    script.pass(2_100, &[]);
    assert!(matches!(script.answer(elsewhere), Some(Err(Unserved::Unavailable { .. }))));
}
