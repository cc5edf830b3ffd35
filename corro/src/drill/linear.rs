//! Whether the history of a user is linearizable: whether there is one order of all requests, in which each
//! is between the moment it was sent and the moment it was answered, that gives every answer.
//!
//! The search is Wing and Gong's with Lowe's improvements (G. Lowe, "Testing for linearizability", 2017):
//! walk along the sendings and answers in the order of time; whatever is under way may be next in the order;
//! who meets an answer whose request is not in the order yet has gone wrong and goes one step back. What is
//! in the order, together with the user that results, is remembered, so that no such pair is looked at twice.
//!
//! An unknown request has no answer in time: it may come at any later place, or never.
//!
//! It does not say *which* request is at fault; [`super::verify`] draws conclusions.

use std::collections::HashSet;

use crate::load::user::{Action, Event, Outcome, State, Value};

/// Far more than histories of some hundred requests need. A history beyond that is reported as not decided.
const STEPS: usize = 2_000_000;

/// What a search comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    Linearizable,
    /// There is no such order.
    Violation,
    /// The search was given up.
    Undecided,
}

/// Checks the history of a user that was `initial` before.
pub(crate) fn check<'a>(initial: State, events: impl IntoIterator<Item = &'a Event>) -> Finding {
    let events: Vec<&Event> = events.into_iter().collect();
    Search::new(&events).run(initial, &events)
}

/// The user after a request with that outcome; `None` where it cannot have had that outcome.
fn after(state: State, action: Action, outcome: Outcome) -> Option<State> {
    let unknown = outcome == Outcome::Unknown;
    let (next, expected) = match (action, state) {
        (Action::Read, Some(value)) => (state, Outcome::User(value)),
        (Action::Create(value), None) => (Some(value), Outcome::User(value)),
        (Action::Create(_), Some(_)) => (state, Outcome::Exists),
        (Action::Update { name, group }, Some(old)) => {
            let new = Value { name: name.unwrap_or(old.name), group: group.unwrap_or(old.group) };
            (Some(new), Outcome::User(new))
        }
        (Action::Delete, Some(_)) => (None, Outcome::Gone),
        (Action::Read | Action::Update { .. } | Action::Delete, None) => (None, Outcome::Absent),
    };
    (unknown || outcome == expected).then_some(next)
}

/// The end of the line.
const END: usize = usize::MAX;

/// Sendings and answers in the order of time, as a line that requests are lifted out of and put back into.
struct Search {
    /// The sending of request `i` is entry `2 i`, its answer entry `2 i + 1`.
    next: Vec<usize>,
    before: Vec<usize>,
    first: usize,
    /// Known requests that are not in the order yet.
    left: usize,
}

impl Search {
    fn new(events: &[&Event]) -> Self {
        let mut entries: Vec<(u64, usize)> = Vec::with_capacity(events.len() * 2);
        for (index, event) in events.iter().enumerate() {
            entries.push((event.sent, 2 * index));
            if event.outcome != Outcome::Unknown {
                entries.push((event.answered, 2 * index + 1));
            }
        }
        // At the same moment sendings go first: what may have been under way together counts as that.
        entries.sort_unstable_by_key(|(at, entry)| (*at, entry % 2, *entry));
        let (mut next, mut before) = (vec![END; 2 * events.len()], vec![END; 2 * events.len()]);
        for pair in entries.windows(2) {
            next[pair[0].1] = pair[1].1;
            before[pair[1].1] = pair[0].1;
        }
        let first = entries.first().map_or(END, |(_, entry)| *entry);
        let left = events.iter().filter(|event| event.outcome != Outcome::Unknown).count();
        Self { next, before, first, left }
    }

    fn run(mut self, initial: State, events: &[&Event]) -> Finding {
        let mut ordered = Ordered::new(events.len());
        let mut seen: HashSet<(Ordered, State)> = HashSet::new();
        let mut taken: Vec<(usize, State)> = Vec::new();
        let (mut state, mut at) = (initial, self.first);
        while self.left > 0 {
            if at != END && at.is_multiple_of(2) {
                let request = at / 2;
                if let Some(next) = after(state, events[request].action, events[request].outcome) {
                    ordered.flip(request);
                    if seen.insert((ordered.clone(), next)) {
                        taken.push((request, state));
                        state = next;
                        self.lift(request, events[request]);
                        at = self.first;
                        continue;
                    }
                    ordered.flip(request);
                }
                at = self.next[at];
            } else {
                let Some((request, previous)) = taken.pop() else { return Finding::Violation };
                if seen.len() > STEPS {
                    return Finding::Undecided;
                }
                state = previous;
                ordered.flip(request);
                self.put_back(request, events[request]);
                at = self.next[2 * request];
            }
        }
        Finding::Linearizable
    }

    fn lift(&mut self, request: usize, event: &Event) {
        self.unlink(2 * request);
        if event.outcome != Outcome::Unknown {
            self.unlink(2 * request + 1);
            self.left -= 1;
        }
    }

    /// The reverse of the lift that came last.
    fn put_back(&mut self, request: usize, event: &Event) {
        if event.outcome != Outcome::Unknown {
            self.link(2 * request + 1);
            self.left += 1;
        }
        self.link(2 * request);
    }

    fn unlink(&mut self, entry: usize) {
        let (before, next) = (self.before[entry], self.next[entry]);
        self.join(before, next);
    }

    fn link(&mut self, entry: usize) {
        let (before, next) = (self.before[entry], self.next[entry]);
        if before == END {
            self.first = entry;
        } else {
            self.next[before] = entry;
        }
        if next != END {
            self.before[next] = entry;
        }
    }

    fn join(&mut self, before: usize, next: usize) {
        if before == END {
            self.first = next;
        } else {
            self.next[before] = next;
        }
        if next != END {
            self.before[next] = before;
        }
    }
}

/// Which requests are in the order, a bit each.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Ordered(Box<[u64]>);

impl Ordered {
    fn new(requests: usize) -> Self {
        Self(vec![0; requests.div_ceil(64)].into_boxed_slice())
    }

    fn flip(&mut self, request: usize) {
        self.0[request / 64] ^= 1 << (request % 64);
    }
}

#[cfg(test)]
#[path = "linear_tests.rs"]
mod tests;
