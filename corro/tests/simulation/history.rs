//! Whether the history of one user is linearizable: whether all that callers were told fits one order in
//! which each operation takes effect at one moment between its call and its answer.
//!
//! The search is that of Wing and Gong (1993) with the memory of Lowe (2017): a set of operations done and
//! the state that it led to are looked at once. An operation whose outcome is unknown may take effect at any
//! later moment, or never. It may also be merged when newer writes are there already, as when a process wakes
//! up that had it in its buffers while another copy led and a gateway died: then it sets only what nobody has
//! set since.
//!
//! Every create and update sets the group to a number of its own, so a group is the name of a write. A
//! version belongs to one write, so conditions and answers speak of groups here too.

use std::collections::HashSet;

/// A live user: who wrote it last, and who named it last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Live {
    pub(crate) group: i32,
    pub(crate) name: i32,
}

/// What a caller asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Read,
    Create(Live),
    Update {
        group: i32,
        name: Option<i32>,
    },
    /// An update without fields.
    Touch,
    Delete,
}

/// `If-Match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Match {
    Any,
    Groups(Vec<i32>),
}

/// What the caller was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// Answer to a read.
    Seen(Option<Live>),
    /// With the user as it is then; `None` after a delete.
    Applied(Option<Live>),
    /// With the user as it was some time later, which is a read of its own.
    AppliedUnseen,
    Unchanged(Option<Live>),
    Exists,
    NotFound,
    PreconditionFailed,
    /// It may have taken effect, or may yet, or never.
    Unknown,
}

/// One operation. The moments are numbers that are never used twice.
#[derive(Debug, Clone)]
pub(crate) struct Op {
    pub(crate) called: u64,
    /// `u64::MAX` where the outcome is unknown.
    pub(crate) answered: u64,
    pub(crate) asked: Asked,
    pub(crate) condition: Option<Match>,
    pub(crate) told: Told,
}

type State = Option<Live>;

impl Op {
    /// The state after it, if what was told of it fits the state before it.
    fn step(&self, state: State) -> Option<State> {
        let (told, after) = self.decide(state);
        let fits = match self.told {
            Told::Unknown => true,
            Told::AppliedUnseen => matches!(told, Told::Applied(_)),
            exactly => exactly == told,
        };
        fits.then_some(after)
    }

    /// The state after it, if it came late, below a newer write that set the group only. Its condition held
    /// when it was decided.
    fn step_late(&self, state: State) -> Option<State> {
        let name = match (&self.told, &self.asked) {
            (Told::Unknown, Asked::Create(Live { name, .. })) => *name,
            (Told::Unknown, Asked::Update { name: Some(name), .. }) => *name,
            (Told::Unknown, Asked::Delete) => return state.map(|_| None),
            _ => return None,
        };
        state.map(|live| Some(Live { name, ..live }))
    }

    fn decide(&self, state: State) -> (Told, State) {
        let holds = |live: &Live| match &self.condition {
            None | Some(Match::Any) => true,
            Some(Match::Groups(groups)) => groups.contains(&live.group),
        };
        match (&self.asked, state) {
            (Asked::Read, _) => (Told::Seen(state), state),
            (Asked::Create(_), None) if self.condition.is_some() => (Told::PreconditionFailed, state),
            (Asked::Create(live), None) => (Told::Applied(Some(*live)), Some(*live)),
            (_, None) => (Told::NotFound, state),
            (_, Some(live)) if !holds(&live) => (Told::PreconditionFailed, state),
            (Asked::Create(_), Some(_)) => (Told::Exists, state),
            (Asked::Touch, Some(_)) => (Told::Unchanged(state), state),
            (Asked::Update { group, name }, Some(live)) => {
                let after = Some(Live { group: *group, name: name.unwrap_or(live.name) });
                (Told::Applied(after), after)
            }
            (Asked::Delete, Some(_)) => (Told::Applied(None), None),
        }
    }
}

/// Whether the history is linearizable, beginning without a user.
pub(crate) fn is_linearizable(history: &[Op]) -> bool {
    let mut ops: Vec<&Op> = history.iter().filter(|op| matters(op, history)).collect();
    ops.sort_by_key(|op| op.called);
    let words = ops.len().div_ceil(64);
    let certain = ops.iter().filter(|op| op.answered != u64::MAX).count();
    let mut seen: HashSet<(Vec<u64>, State)> = HashSet::new();
    let mut stack = vec![(vec![0_u64; words], None, 0_usize)];
    while let Some((done, state, count)) = stack.pop() {
        if count == certain {
            return true;
        }
        let is_done = |index: usize| done[index / 64] & (1 << (index % 64)) != 0;
        let open = |index: &usize| !is_done(*index);
        let first = (0..ops.len()).filter(open).map(|index| ops[index].answered).min().unwrap_or(u64::MAX);
        for index in (0..ops.len()).take_while(|&index| ops[index].called < first).filter(open) {
            let certain = usize::from(ops[index].answered != u64::MAX);
            for after in ops[index].step(state).into_iter().chain(ops[index].step_late(state)) {
                let mut next = done.clone();
                next[index / 64] |= 1 << (index % 64);
                if seen.insert((next.clone(), after)) {
                    stack.push((next, after, count + certain));
                }
            }
        }
    }
    false
}

/// An unknown operation that leaves no trace need not be tried: one that reads, and an update of which nobody
/// saw a field.
fn matters(op: &Op, history: &[Op]) -> bool {
    let shown = |group: i32, name: Option<i32>| {
        history.iter().any(|other| match other.told {
            Told::Seen(Some(live)) | Told::Applied(Some(live)) | Told::Unchanged(Some(live)) => {
                live.group == group || Some(live.name) == name
            }
            // A condition that failed may have failed for it.
            Told::PreconditionFailed => true,
            _ => false,
        }) || history
            .iter()
            .any(|other| matches!(&other.condition, Some(Match::Groups(groups)) if groups.contains(&group)))
    };
    match (&op.told, &op.asked) {
        (Told::Unknown, Asked::Read | Asked::Touch) => false,
        (Told::Unknown, Asked::Update { group, name }) => shown(*group, *name),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(called: u64, answered: u64, asked: Asked, told: Told) -> Op {
        Op { called, answered, asked, condition: None, told }
    }

    fn live(group: i32) -> Live {
        Live { group, name: group }
    }

    fn create(called: u64, answered: u64, group: i32) -> Op {
        op(called, answered, Asked::Create(live(group)), Told::Applied(Some(live(group))))
    }

    fn read(called: u64, answered: u64, seen: Option<i32>) -> Op {
        op(called, answered, Asked::Read, Told::Seen(seen.map(live)))
    }

    #[test]
    fn reads_see_the_last_write_or_one_that_is_under_way() {
        assert!(is_linearizable(&[read(0, 1, None), create(2, 3, 7), read(4, 5, Some(7))]));
        assert!(!is_linearizable(&[create(2, 3, 7), read(4, 5, None)]));
        assert!(is_linearizable(&[create(2, 6, 7), read(3, 4, None), read(5, 7, Some(7))]));
        assert!(!is_linearizable(&[create(2, 9, 7), read(3, 4, Some(7)), read(5, 6, None)]), "back in time");
    }

    #[test]
    fn a_write_takes_effect_once() {
        let delete = |called, answered| op(called, answered, Asked::Delete, Told::Applied(None));
        assert!(is_linearizable(&[create(0, 1, 7), delete(2, 3), read(4, 5, None)]));
        assert!(!is_linearizable(&[create(0, 1, 7), delete(2, 3), delete(4, 5)]));
        assert!(!is_linearizable(&[create(0, 1, 7), create(2, 3, 8)]));
        assert!(!is_linearizable(&[create(0, 1, 7), delete(2, 3), read(4, 5, Some(7))]));
    }

    #[test]
    fn an_unknown_write_may_come_late_or_never_but_not_twice() {
        let lost = |group| op(2, u64::MAX, Asked::Create(live(group)), Told::Unknown);
        assert!(is_linearizable(&[lost(7), read(3, 4, None), read(5, 6, None)]));
        assert!(is_linearizable(&[lost(7), read(3, 4, None), read(5, 6, Some(7))]));
        assert!(!is_linearizable(&[lost(7), read(3, 4, Some(7)), read(5, 6, None)]));
        let delete = op(5, 6, Asked::Delete, Told::Applied(None));
        assert!(!is_linearizable(&[lost(7), read(3, 4, Some(7)), delete, read(7, 8, Some(7))]));
    }

    #[test]
    fn an_unknown_update_that_is_merged_late_sets_what_nobody_has_set_since() {
        let lost = op(2, u64::MAX, Asked::Update { group: 8, name: Some(8) }, Told::Unknown);
        let asked = Asked::Update { group: 9, name: None };
        let newer = op(3, 4, asked, Told::Applied(Some(Live { group: 9, name: 7 })));
        let seen = |name| op(5, 6, Asked::Read, Told::Seen(Some(Live { group: 9, name })));
        assert!(is_linearizable(&[create(0, 1, 7), lost.clone(), newer.clone(), seen(8)]));
        assert!(is_linearizable(&[create(0, 1, 7), lost, newer.clone(), seen(7)]));
        assert!(!is_linearizable(&[create(0, 1, 7), newer, seen(8)]));
    }

    #[test]
    fn conditions_and_partial_updates_are_checked() {
        let update = |called, group, condition, told| Op {
            condition,
            ..op(called, called + 1, Asked::Update { group, name: None }, told)
        };
        let after = Told::Applied(Some(Live { group: 8, name: 7 }));
        let on = |group| Some(Match::Groups(vec![group]));
        assert!(is_linearizable(&[create(0, 1, 7), update(2, 8, on(7), after)]));
        assert!(!is_linearizable(&[create(0, 1, 7), update(2, 8, on(6), after)]));
        assert!(is_linearizable(&[create(0, 1, 7), update(2, 8, on(6), Told::PreconditionFailed)]));
        assert!(!is_linearizable(&[create(0, 1, 7), update(2, 8, None, Told::Applied(Some(live(8))))]));
        let touch = op(4, 5, Asked::Touch, Told::Unchanged(Some(Live { group: 8, name: 7 })));
        assert!(is_linearizable(&[create(0, 1, 7), update(2, 8, None, after), touch]));
        assert!(!is_linearizable(&[update(2, 8, None, after)]));
        assert!(is_linearizable(&[update(2, 8, None, Told::NotFound)]));
    }

    /// Many concurrent operations and unknown ones do not blow the search up.
    #[test]
    fn long_histories_are_decided_quickly() {
        let mut history = vec![create(0, 1, 1)];
        let mut last = 1;
        for n in 0..300_u64 {
            let group = 2 + n as i32;
            let state = Some(Live { group, name: 1 });
            history.push(op(
                10 * n + 5,
                10 * n + 9,
                Asked::Update { group, name: None },
                Told::Applied(state),
            ));
            history.push(op(
                10 * n + 6,
                10 * n + 8,
                Asked::Read,
                Told::Seen(Some(Live { group: last, name: 1 })),
            ));
            if n % 40 == 0 {
                let asked = Asked::Update { group: -1 - n as i32, name: None };
                history.push(op(10 * n + 7, u64::MAX, asked, Told::Unknown));
            }
            last = group;
        }
        assert!(is_linearizable(&history));
        history.push(op(9_000, 9_001, Asked::Read, Told::Seen(Some(Live { group: 5, name: 1 }))));
        assert!(!is_linearizable(&history));
    }
}
