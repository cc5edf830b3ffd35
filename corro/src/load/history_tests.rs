//! Good and bad histories.

use super::*;
use crate::random::Random;

fn value(number: u32) -> Value {
    Value { name: number, group: number }
}

fn event(sent: u64, answered: u64, action: Action, outcome: Outcome) -> Event {
    Event { action, outcome, sent, answered }
}

fn create(sent: u64, answered: u64, number: u32) -> Event {
    event(sent, answered, Action::Create(value(number)), Outcome::User(value(number)))
}

fn read(sent: u64, answered: u64, number: u32) -> Event {
    event(sent, answered, Action::Read, Outcome::User(value(number)))
}

fn absent(sent: u64, answered: u64) -> Event {
    event(sent, answered, Action::Read, Outcome::Absent)
}

/// Sets both numbers.
fn set(sent: u64, answered: u64, number: u32) -> Event {
    let action = Action::Update { name: Some(number), group: Some(number) };
    event(sent, answered, action, Outcome::User(value(number)))
}

fn unknown(event: Event) -> Event {
    Event { outcome: Outcome::Unknown, answered: 0, ..event }
}

fn is_good(events: &[Event]) {
    assert_eq!(check(None, events), Finding::Linearizable, "{events:#?}");
}

fn is_bad(events: &[Event]) {
    assert_eq!(check(None, events), Finding::Violation, "{events:#?}");
}

#[test]
fn nothing_and_one_after_the_other() {
    is_good(&[]);
    is_good(&[create(0, 1, 1), read(2, 3, 1), set(4, 5, 2), read(6, 7, 2)]);
    is_good(&[absent(0, 1), create(2, 3, 1), event(4, 5, Action::Delete, Outcome::Gone), absent(6, 7)]);
}

#[test]
fn a_read_after_an_acknowledged_write_must_find_it() {
    is_bad(&[create(0, 1, 1), set(2, 3, 2), read(4, 5, 1)]);
    is_bad(&[create(0, 1, 1), absent(2, 3)]);
    is_bad(&[absent(0, 1), read(2, 3, 1)]);
}

#[test]
fn a_read_beside_a_write_may_find_both_but_not_the_new_before_the_old() {
    let writes = [create(0, 1, 1), set(10, 20, 2)];
    is_good(&[writes[0], writes[1], read(11, 12, 1), read(13, 14, 2)]);
    is_bad(&[writes[0], writes[1], read(11, 12, 2), read(13, 14, 1)]);
    is_good(&[writes[0], writes[1], read(11, 14, 2), read(12, 13, 1)]);
}

#[test]
fn the_first_state_counts() {
    assert_eq!(check(Some(value(7)), &[read(0, 1, 7)]), Finding::Linearizable);
    assert_eq!(check(Some(value(7)), &[read(0, 1, 6)]), Finding::Violation);
    assert_eq!(check(Some(value(7)), &[absent(0, 1)]), Finding::Violation);
}

#[test]
fn an_unknown_write_may_come_at_once_or_later_or_never_but_not_twice() {
    let before = [create(0, 1, 1), unknown(set(2, 0, 2))];
    is_good(&[before[0], before[1], read(3, 4, 1)]);
    is_good(&[before[0], before[1], read(3, 4, 2)]);
    is_good(&[before[0], before[1], read(3, 4, 1), read(5, 6, 1), read(7, 8, 2)]);
    is_bad(&[before[0], before[1], read(3, 4, 2), read(5, 6, 1)]);
    is_bad(&[before[0], before[1], read(3, 4, 2), set(5, 6, 3), read(7, 8, 2)]);
    is_bad(&[create(0, 1, 1), read(2, 3, 2), unknown(set(4, 0, 2))]);
}

#[test]
fn a_refused_create_or_delete_says_how_the_user_was() {
    let refused = |sent, answered| event(sent, answered, Action::Create(value(9)), Outcome::Exists);
    is_good(&[create(0, 1, 1), refused(2, 3)]);
    is_bad(&[refused(0, 1), create(2, 3, 1)]);
    is_bad(&[create(0, 1, 1), event(2, 3, Action::Delete, Outcome::Absent)]);
    is_bad(&[create(0, 1, 1), event(2, 3, Action::Delete, Outcome::Gone), create(4, 5, 2), absent(6, 7)]);
    // Two creates at once: one of them is refused, and it cannot be both.
    is_good(&[create(0, 10, 1), event(0, 10, Action::Create(value(2)), Outcome::Exists), read(11, 12, 1)]);
    is_bad(&[create(0, 10, 1), create(0, 10, 2)]);
}

#[test]
fn partial_updates_of_different_fields_both_stay() {
    let name = |sent, answered, outcome| {
        event(sent, answered, Action::Update { name: Some(2), group: None }, Outcome::User(outcome))
    };
    let group = |sent, answered, outcome| {
        event(sent, answered, Action::Update { name: None, group: Some(3) }, Outcome::User(outcome))
    };
    let both = Value { name: 2, group: 3 };
    is_good(&[create(0, 1, 1), name(2, 9, Value { name: 2, group: 1 }), group(2, 9, both)]);
    is_good(&[create(0, 1, 1), name(2, 9, both), group(2, 9, Value { name: 1, group: 3 })]);
    // Each without the other's: one of them was lost.
    is_bad(&[
        create(0, 1, 1),
        name(2, 9, Value { name: 2, group: 1 }),
        group(2, 9, Value { name: 1, group: 3 }),
    ]);
}

/// Requests of several clients on a real register, each done at some moment between its sending and its
/// answer.
fn true_history(seed: u64, clients: u64, length: usize) -> Vec<Event> {
    let mut random = Random::new(seed);
    let (mut state, mut events, mut free) = (None, Vec::new(), vec![0_u64; clients as usize]);
    let mut now = 0;
    for number in 1..=length {
        let client = random.below(free.len());
        // Done at `now`; sent before it and answered after it, by a client that has one request at a time.
        now += 1 + random.next() % 3;
        if free[client] >= now {
            now = free[client] + 1;
        }
        let sent = free[client].max(now.saturating_sub(random.next() % 12)) + u64::from(free[client] == now);
        let number = u32::try_from(number).unwrap();
        let action = match random.below(10) {
            0..4 => Action::Read,
            4 => Action::Delete,
            5 => Action::Create(value(number)),
            6 => Action::Update { name: Some(number), group: None },
            _ => Action::Update { name: None, group: Some(number) },
        };
        let outcomes = [Outcome::Gone, Outcome::Absent, Outcome::Exists];
        let possible = |outcome| action.after(state, outcome).map(|next| (outcome, next));
        let done = outcomes.into_iter().find_map(possible).unwrap_or_else(|| {
            let next = action.after(state, Outcome::Unknown).unwrap();
            (Outcome::User(next.unwrap()), next)
        });
        let answered = now + random.next() % 12;
        free[client] = answered + 1;
        state = done.1;
        let lost = random.percent(3) && action != Action::Read;
        let outcome = if lost { Outcome::Unknown } else { done.0 };
        events.push(event(sent.min(now), answered, action, outcome));
    }
    events
}

#[test]
fn what_a_register_really_did_is_always_linearizable() {
    for seed in 0..200 {
        let events = true_history(seed, 6, 120);
        assert_eq!(check(None, &events), Finding::Linearizable, "seed {seed}");
    }
}

#[test]
fn one_changed_answer_in_a_long_history_is_found() {
    let mut found = 0;
    for seed in 0..100 {
        let mut events = true_history(seed, 6, 120);
        let Some(read) = events.iter().rposition(|event| {
            event.action == Action::Read && matches!(event.outcome, Outcome::User(_)) && event.sent > 100
        }) else {
            continue;
        };
        // A number that was never written.
        events[read].outcome = Outcome::User(value(1_000_000));
        assert_eq!(check(None, &events), Finding::Violation, "seed {seed}");
        found += 1;
    }
    assert!(found > 50, "{found}");
}

#[test]
fn a_history_of_four_hundred_requests_of_many_clients_is_decided() {
    let events = true_history(1, 64, 400);
    assert_eq!(check(None, &events), Finding::Linearizable);
}
