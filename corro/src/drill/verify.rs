//! What the histories of a window prove.

use serde::Serialize;

use crate::linear::Finding;
use crate::load::history::{Event, History, check};

/// So many bad histories are kept whole; the others are counted.
const KEPT: usize = 3;

/// What became of all histories so far.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Histories {
    pub(crate) checked: u64,
    /// Requests in them.
    pub(crate) requests: u64,
    /// Not linearizable.
    pub(crate) violations: u64,
    /// Too tangled to be decided.
    pub(crate) undecided: u64,
    /// Histories whose acknowledged writes contradict each other or what was found at the end.
    pub(crate) lost_writes: u64,
    /// Reads that found an older state than they had to.
    pub(crate) stale_reads: u64,
    /// The first bad ones.
    pub(crate) examples: Vec<History>,
}

impl Histories {
    /// Checks the histories of a window.
    pub(crate) fn of(histories: Vec<History>) -> Self {
        let mut all = Self::default();
        for history in histories.into_iter().filter(|history| !history.events.is_empty()) {
            all.checked += 1;
            all.requests += history.events.len() as u64;
            match check(history.initial, &history.events) {
                Finding::Linearizable => continue,
                Finding::Undecided => all.undecided += 1,
                Finding::Violation => {
                    all.violations += 1;
                    all.explain(&history);
                }
            }
            all.keep(history);
        }
        all
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.checked += other.checked;
        self.requests += other.requests;
        self.violations += other.violations;
        self.undecided += other.undecided;
        self.lost_writes += other.lost_writes;
        self.stale_reads += other.stale_reads;
        for history in other.examples {
            self.keep(history);
        }
    }

    fn keep(&mut self, history: History) {
        if self.examples.len() < KEPT {
            self.examples.push(history);
        }
    }

    /// Says whether a bad history lost a write, or has reads that are too old.
    ///
    /// The writes with what was found at the end must fit by themselves: where they do not, a write is lost.
    /// Each other read must fit with the writes. Where all of them do so alone, they contradict each other,
    /// so at least one is stale.
    fn explain(&mut self, history: &History) {
        let fits = |read: Option<usize>| {
            let events = history.events.iter().enumerate();
            let chosen = events.filter(|(index, event)| !event.action.is_read() || Some(*index) == read);
            check(history.initial, chosen.map(|(_, event)| event)) != Finding::Violation
        };
        let last = history.events.len() - 1;
        if !fits(is_last_look(&history.events).then_some(last)) {
            self.lost_writes += 1;
            return;
        }
        let reads = (0..last).filter(|index| history.events[*index].action.is_read());
        self.stale_reads += (reads.filter(|read| !fits(Some(*read))).count() as u64).max(1);
    }
}

/// Whether the history ends with a read that nothing else was beside.
fn is_last_look(events: &[Event]) -> bool {
    let [before @ .., last] = events else { return false };
    last.action.is_read() && before.iter().all(|event| event.answered <= last.sent)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::load::history::{Action, Outcome, Value};

    fn value(number: u32) -> Value {
        Value { name: number, group: number }
    }

    /// One request after the other: writes of a number, and reads that find one.
    fn history(steps: &[(char, u32)]) -> History {
        let event = |(index, (step, number)): (usize, &(char, u32))| {
            let number = value(*number);
            let action = match step {
                'c' => Action::Create(number),
                'w' => Action::Update { name: Some(number.name), group: Some(number.group) },
                _ => Action::Read,
            };
            let sent = index as u64 * 10;
            Event { action, outcome: Outcome::User(number), sent, answered: sent + 5 }
        };
        History { id: Uuid::nil(), initial: None, events: steps.iter().enumerate().map(event).collect() }
    }

    fn counts(steps: &[(char, u32)]) -> (u64, u64, u64) {
        let all = Histories::of(vec![history(steps)]);
        assert_eq!((all.checked, all.requests, all.undecided), (1, steps.len() as u64, 0));
        assert_eq!(all.examples.len() as u64, all.violations);
        (all.violations, all.lost_writes, all.stale_reads)
    }

    #[test]
    fn a_good_history_has_nothing() {
        assert_eq!(counts(&[('c', 1), ('r', 1), ('w', 2), ('r', 2)]), (0, 0, 0));
    }

    #[test]
    fn an_old_read_that_is_made_good_later_is_stale() {
        assert_eq!(counts(&[('c', 1), ('w', 2), ('r', 1), ('r', 1), ('r', 2)]), (1, 0, 2));
    }

    #[test]
    fn a_write_that_is_not_there_at_the_end_is_lost() {
        assert_eq!(counts(&[('c', 1), ('w', 2), ('r', 2), ('r', 1)]), (1, 1, 0));
        assert_eq!(counts(&[('c', 1), ('c', 2)]), (1, 1, 0));
    }

    #[test]
    fn reads_that_contradict_only_each_other_are_stale() {
        let mut history = history(&[('c', 1), ('w', 2), ('r', 2), ('r', 1), ('r', 2)]);
        history.events[1].answered = 1_000; // the write is beside all of the reads but the last
        history.events[4].sent = 1_001;
        history.events[4].answered = 1_002;
        let all = Histories::of(vec![history]);
        assert_eq!((all.violations, all.lost_writes, all.stale_reads), (1, 0, 1));
    }

    #[test]
    fn sums_keep_the_first_examples() {
        let mut all = Histories::default();
        for _ in 0..KEPT + 2 {
            all.add(Histories::of(vec![history(&[('c', 1), ('r', 2), ('r', 1)]), history(&[('c', 1)])]));
        }
        assert_eq!((all.checked, all.violations), (2 * (KEPT as u64 + 2), KEPT as u64 + 2));
        assert_eq!(all.examples.len(), KEPT);
    }
}
