//! Whether the history of one user is linearizable: whether all replies fit one order in
//! which each operation takes effect at one moment between its call and its answer.
//!
//! The search is `corro`'s; here is the model of a user. An operation whose outcome is unknown may take
//! effect at any later moment, or never. It may also be merged when newer writes are there already, as when a
//! process wakes up that had it in its buffers while another copy led and a gateway died: then it sets only
//! the fields that no write has set since.
//!
//! Every create and update sets the group to a number of its own, so a group is the name of a write. A
//! version belongs to one write, so conditions and answers speak of groups here too.

use corro::linear::{self, Call, Finding};

/// A live user: the write that was applied to it last, and the last one that named it.
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

/// The caller's reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
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
    pub(crate) reply: Reply,
}

type State = Option<Live>;

impl Op {
    /// The state after it, if its reply fits the state before it.
    fn step(&self, state: State) -> Option<State> {
        let (reply, after) = self.decide(state);
        let fits = match self.reply {
            Reply::Unknown => true,
            Reply::AppliedUnseen => matches!(reply, Reply::Applied(_)),
            exactly => exactly == reply,
        };
        fits.then_some(after)
    }

    /// The state after it, if it came late, below a newer write that set the group only. Its condition held
    /// when it was decided.
    fn step_late(&self, state: State) -> Option<State> {
        let name = match (&self.reply, &self.asked) {
            (Reply::Unknown, Asked::Create(Live { name, .. })) => *name,
            (Reply::Unknown, Asked::Update { name: Some(name), .. }) => *name,
            (Reply::Unknown, Asked::Delete) => return state.map(|_| None),
            _ => return None,
        };
        state.map(|live| Some(Live { name, ..live }))
    }

    fn decide(&self, state: State) -> (Reply, State) {
        let holds = |live: &Live| match &self.condition {
            None | Some(Match::Any) => true,
            Some(Match::Groups(groups)) => groups.contains(&live.group),
        };
        match (&self.asked, state) {
            (Asked::Read, _) => (Reply::Seen(state), state),
            (Asked::Create(_), None) if self.condition.is_some() => (Reply::PreconditionFailed, state),
            (Asked::Create(live), None) => (Reply::Applied(Some(*live)), Some(*live)),
            (_, None) => (Reply::NotFound, state),
            (_, Some(live)) if !holds(&live) => (Reply::PreconditionFailed, state),
            (Asked::Create(_), Some(_)) => (Reply::Exists, state),
            (Asked::Touch, Some(_)) => (Reply::Unchanged(state), state),
            (Asked::Update { group, name }, Some(live)) => {
                let after = Some(Live { group: *group, name: name.unwrap_or(live.name) });
                (Reply::Applied(after), after)
            }
            (Asked::Delete, Some(_)) => (Reply::Applied(None), None),
        }
    }
}

/// Whether the history is linearizable, beginning without a user.
pub(crate) fn is_linearizable(history: &[Op]) -> bool {
    let ops: Vec<&Op> = history.iter().filter(|op| matters(op, history)).collect();
    let call =
        |op: &&Op| Call { called: op.called, answered: (op.answered != u64::MAX).then_some(op.answered) };
    let calls: Vec<Call> = ops.iter().map(call).collect();
    let after = |index: usize, state| {
        let op: &Op = ops[index];
        op.step(state).into_iter().chain(op.step_late(state))
    };
    match linear::search(None, &calls, after) {
        Finding::Linearizable => true,
        Finding::Violation => false,
        Finding::Undecided => panic!("a history of {} operations is too tangled to be decided", ops.len()),
    }
}

/// An unknown operation that leaves no trace need not be tried: one that reads, and an update of which no
/// reply shows a field.
fn matters(op: &Op, history: &[Op]) -> bool {
    let shown = |group: i32, name: Option<i32>| {
        history.iter().any(|other| match other.reply {
            Reply::Seen(Some(live)) | Reply::Applied(Some(live)) | Reply::Unchanged(Some(live)) => {
                live.group == group || Some(live.name) == name
            }
            // A condition that failed may have failed for it.
            Reply::PreconditionFailed => true,
            _ => false,
        }) || history
            .iter()
            .any(|other| matches!(&other.condition, Some(Match::Groups(groups)) if groups.contains(&group)))
    };
    match (&op.reply, &op.asked) {
        (Reply::Unknown, Asked::Read | Asked::Touch) => false,
        (Reply::Unknown, Asked::Update { group, name }) => shown(*group, *name),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(called: u64, answered: u64, asked: Asked, reply: Reply) -> Op {
        Op { called, answered, asked, condition: None, reply }
    }

    fn live(group: i32) -> Live {
        Live { group, name: group }
    }

    fn create(called: u64, answered: u64, group: i32) -> Op {
        op(called, answered, Asked::Create(live(group)), Reply::Applied(Some(live(group))))
    }

    fn read(called: u64, answered: u64, seen: Option<i32>) -> Op {
        op(called, answered, Asked::Read, Reply::Seen(seen.map(live)))
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
        let delete = |called, answered| op(called, answered, Asked::Delete, Reply::Applied(None));
        assert!(is_linearizable(&[create(0, 1, 7), delete(2, 3), read(4, 5, None)]));
        assert!(!is_linearizable(&[create(0, 1, 7), delete(2, 3), delete(4, 5)]));
        assert!(!is_linearizable(&[create(0, 1, 7), create(2, 3, 8)]));
        assert!(!is_linearizable(&[create(0, 1, 7), delete(2, 3), read(4, 5, Some(7))]));
    }

    #[test]
    fn an_unknown_write_may_come_late_or_never_but_not_twice() {
        let lost = |group| op(2, u64::MAX, Asked::Create(live(group)), Reply::Unknown);
        assert!(is_linearizable(&[lost(7), read(3, 4, None), read(5, 6, None)]));
        assert!(is_linearizable(&[lost(7), read(3, 4, None), read(5, 6, Some(7))]));
        assert!(!is_linearizable(&[lost(7), read(3, 4, Some(7)), read(5, 6, None)]));
        let delete = op(5, 6, Asked::Delete, Reply::Applied(None));
        assert!(!is_linearizable(&[lost(7), read(3, 4, Some(7)), delete, read(7, 8, Some(7))]));
    }

    #[test]
    fn an_unknown_update_that_is_merged_late_sets_what_no_write_has_set_since() {
        let lost = op(2, u64::MAX, Asked::Update { group: 8, name: Some(8) }, Reply::Unknown);
        let asked = Asked::Update { group: 9, name: None };
        let newer = op(3, 4, asked, Reply::Applied(Some(Live { group: 9, name: 7 })));
        let seen = |name| op(5, 6, Asked::Read, Reply::Seen(Some(Live { group: 9, name })));
        assert!(is_linearizable(&[create(0, 1, 7), lost.clone(), newer.clone(), seen(8)]));
        assert!(is_linearizable(&[create(0, 1, 7), lost, newer.clone(), seen(7)]));
        assert!(!is_linearizable(&[create(0, 1, 7), newer, seen(8)]));
    }

    #[test]
    fn conditions_and_partial_updates_are_checked() {
        let update = |called, group, condition, reply| Op {
            condition,
            ..op(called, called + 1, Asked::Update { group, name: None }, reply)
        };
        let after = Reply::Applied(Some(Live { group: 8, name: 7 }));
        let on = |group| Some(Match::Groups(vec![group]));
        assert!(is_linearizable(&[create(0, 1, 7), update(2, 8, on(7), after)]));
        assert!(!is_linearizable(&[create(0, 1, 7), update(2, 8, on(6), after)]));
        assert!(is_linearizable(&[create(0, 1, 7), update(2, 8, on(6), Reply::PreconditionFailed)]));
        assert!(!is_linearizable(&[create(0, 1, 7), update(2, 8, None, Reply::Applied(Some(live(8))))]));
        let touch = op(4, 5, Asked::Touch, Reply::Unchanged(Some(Live { group: 8, name: 7 })));
        assert!(is_linearizable(&[create(0, 1, 7), update(2, 8, None, after), touch]));
        assert!(!is_linearizable(&[update(2, 8, None, after)]));
        assert!(is_linearizable(&[update(2, 8, None, Reply::NotFound)]));
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
                Reply::Applied(state),
            ));
            history.push(op(
                10 * n + 6,
                10 * n + 8,
                Asked::Read,
                Reply::Seen(Some(Live { group: last, name: 1 })),
            ));
            if n % 40 == 0 {
                let asked = Asked::Update { group: -1 - n as i32, name: None };
                history.push(op(10 * n + 7, u64::MAX, asked, Reply::Unknown));
            }
            last = group;
        }
        assert!(is_linearizable(&history));
        history.push(op(9_000, 9_001, Asked::Read, Reply::Seen(Some(Live { group: 5, name: 1 }))));
        assert!(!is_linearizable(&history));
    }
}
