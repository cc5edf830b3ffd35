//! What is published, in which order, and where subscribers begin.

use super::*;

impl Script {
    fn subscribe(&mut self) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.step(Event::Subscribe { request });
        request
    }

    fn start_of(&self, request: RequestId) -> Option<&Result<FeedStart, Unserved>> {
        self.subscribed.iter().find(|(answered, _)| *answered == request).map(|(_, result)| result)
    }

    fn begins(&self, request: RequestId) -> Option<Version> {
        self.start_of(request).map(|result| result.as_ref().expect("a start").from)
    }

    fn published(&self) -> Vec<Version> {
        let versions: Vec<Version> = self.published.iter().map(Published::version).collect();
        assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
        versions
    }
}

#[test]
fn changes_leave_in_the_order_in_which_they_were_asked_for() {
    let mut script = Script::formed(3);
    script.subscribe();
    script.create(user_of(0, 3, 0));
    script.create(user_of(1, 3, 0));
    script.create(user_of(0, 3, 1));
    let second = script.apply_writes(1, Role::Primary);
    assert!(script.published().is_empty(), "an older one is not settled");
    let first = script.apply_writes(0, Role::Primary);
    assert_eq!(script.published(), [first[0], second[0]]);
    let third = script.apply_writes(0, Role::Primary);
    assert_eq!(script.published(), [first[0], second[0], third[0]]);
    let Published::Change(change) = &script.published[1] else { panic!("a change") };
    assert_eq!((change.id, change.change.name.as_deref()), (user_of(1, 3, 0), Some("n")));
}

#[test]
fn what_comes_to_nothing_is_not_published_and_holds_nothing_up() {
    let mut script = Script::formed(3);
    script.subscribe();
    script.create(user_of(0, 3, 0));
    script.create(user_of(1, 3, 0));
    let applied = script.apply_writes(1, Role::Primary);
    script.refuse_writes(0, Role::Primary);
    assert_eq!(script.published(), applied);
}

#[test]
fn without_a_subscriber_nothing_is_published() {
    let mut script = Script::formed(3);
    script.create(user_of(0, 3, 0));
    script.apply_writes(0, Role::Primary);
    assert_eq!((script.begun, script.published()), (None, vec![]));
    script.subscribe();
    script.create(user_of(0, 3, 1));
    script.apply_writes(0, Role::Primary);
    assert_eq!(script.published().len(), 1);
    script.step(Event::Unheard);
    script.create(user_of(0, 3, 2));
    script.apply_writes(0, Role::Primary);
    assert_eq!(script.published().len(), 1);
}

#[test]
fn a_subscriber_begins_when_all_that_is_older_is_settled() {
    let mut script = Script::formed(3);
    script.create(user_of(0, 3, 0));
    let subscriber = script.subscribe();
    script.create(user_of(1, 3, 0));
    let newer = script.apply_writes(1, Role::Primary);
    assert_eq!(script.start_of(subscriber), None, "the write before it may still be applied");
    let older = script.apply_writes(0, Role::Primary);
    assert_eq!(script.begins(subscriber), Some(older[0]));
    assert_eq!(
        (script.begun, script.published()),
        (Some(older[0]), newer),
        "what is older is in the op-logs"
    );
    let another = script.subscribe();
    assert_eq!(script.begins(another), script.published().last().copied());
}

#[test]
fn a_promotion_holds_the_feed_and_loses_nothing() {
    let mut script = Script::formed(3);
    script.subscribe();
    script.create(user_of(0, 3, 0));
    script.create(user_of(1, 3, 0));
    let other = script.apply_writes(1, Role::Primary);
    script.kill(0);
    assert!(script.published().is_empty());
    script.confirm_merges(1);
    let again = script.apply_writes(1, Role::Replica);
    assert_eq!(script.published(), [again[0], other[0]], "sent again with the version that it had");
}

#[test]
fn a_partition_that_is_down_holds_nothing_up() {
    let mut script = Script::formed(3);
    script.subscribe();
    script.create(user_of(0, 3, 0));
    script.create(user_of(1, 3, 0));
    let other = script.apply_writes(2, Role::Replica);
    assert!(other.is_empty());
    script.kill(1);
    script.kill(0);
    script.pass(300, &[]);
    let unknown: Vec<UserId> = script
        .published
        .iter()
        .filter_map(|published| match published {
            Published::Unknown { id, .. } => Some(*id),
            Published::Change(_) => None,
        })
        .collect();
    assert_eq!(unknown, [user_of(0, 3, 0)], "it was sent and may have been applied");
}

#[test]
fn a_gateway_that_has_just_started_knows_every_partition_before_a_subscriber_begins() {
    let mut script = Script::formed(3);
    script.restart_gateway();
    let subscriber = script.subscribe();
    script.connect(0);
    script.connect(1);
    assert_eq!(script.start_of(subscriber), None, "what db-2 has may be newer");
    script.processes[2].copies.primary.version = Version(900 << 16);
    script.connect(2);
    script.follow_all();
    script.step(Event::Tick);
    assert_eq!(script.begins(subscriber), Some(Version(900 << 16)));
}

#[test]
fn a_subscriber_that_waits_too_long_learns_what_it_waits_for() {
    let mut script = Script::formed(3);
    script.restart_gateway();
    let subscriber = script.subscribe();
    script.now += Duration::from_millis(3_010);
    script.step(Event::Tick);
    assert!(matches!(script.start_of(subscriber), Some(Err(Unserved::Unavailable { .. }))));
}

/// The clock of the gateway before was ahead, and one of its processes comes back only after others were
/// served.
#[test]
fn places_below_what_was_found_too_late_say_nothing() {
    let mut script = Script::formed(3);
    script.restart_gateway();
    script.connect(0);
    script.connect(1);
    script.create(user_of(0, 3, 0));
    let given = script.apply_writes(0, Role::Primary);
    assert_eq!(given.len(), 1, "db-0 is served already");
    let newer = Version(900 << 16);
    assert!(given[0] < newer);
    script.processes[2].copies.primary.version = newer;
    script.connect(2);
    script.follow_all();
    let subscriber = script.subscribe();
    let start = script.start_of(subscriber).expect("all are served").as_ref().expect("a start");
    assert_eq!((start.from, start.floor), (newer, newer));
}
