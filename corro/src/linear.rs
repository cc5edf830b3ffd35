//! Whether a history is linearizable: whether there is an order of all requests, each at a moment between its
//! call and its answer, that explains every answer.
//!
//! The search is that of Wing and Gong (1993) with the memory of Lowe (2017): a set of requests in the order
//! and the state that they lead to are looked at once. What a request does to a state is the caller's model.
//!
//! A request whose outcome is unknown has no answer: it may take effect at any later moment, or never.
//!
//! It does not say *which* request is at fault.

use std::collections::HashSet;
use std::hash::Hash;

/// Far more than histories of some hundred requests need. Beyond that a history is not decided.
const MOST_STATES: usize = 2_000_000;

/// When a request was made and answered, in any unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// When it was sent.
    pub called: u64,
    /// When it was answered; `None` where its outcome is unknown.
    pub answered: Option<u64>,
}

/// What a search comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// There is such an order.
    Linearizable,
    /// There is no such order.
    Violation,
    /// The search was given up.
    Undecided,
}

/// Looks for an order of the calls from the state `initial` on.
///
/// `after` gives the states that a call, named by its index, may lead to from a state; none where it cannot
/// have had its answer there. Calls that share a moment count as concurrent.
pub fn search<S, I>(initial: S, calls: &[Call], after: impl Fn(usize, S) -> I) -> Finding
where
    S: Copy + Eq + Hash,
    I: IntoIterator<Item = S>,
{
    let mut by_call: Vec<usize> = (0..calls.len()).collect();
    by_call.sort_by_key(|&index| calls[index].called);
    let answered = calls.iter().filter(|call| call.answered.is_some()).count();
    let nothing: Box<[u64]> = vec![0; calls.len().div_ceil(64)].into();
    let mut seen = HashSet::from([(nothing.clone(), initial)]);
    let mut stack = vec![(nothing, initial, answered)];
    while let Some((ordered, state, left)) = stack.pop() {
        if left == 0 {
            return Finding::Linearizable;
        }
        if seen.len() > MOST_STATES {
            return Finding::Undecided;
        }
        let mut next = candidates(calls, &by_call, &ordered);
        // The last one is tried first: the earliest call, and one whose answer is known.
        next.sort_by_key(|&index| (calls[index].answered.is_some(), std::cmp::Reverse(calls[index].called)));
        for index in next {
            for state in after(index, state) {
                let mut ordered = ordered.clone();
                ordered[index / 64] |= 1 << (index % 64);
                if seen.insert((ordered.clone(), state)) {
                    stack.push((ordered, state, left - usize::from(calls[index].answered.is_some())));
                }
            }
        }
    }
    Finding::Violation
}

/// The calls that may be next: those made before any that is not in the order yet was answered.
fn candidates(calls: &[Call], by_call: &[usize], ordered: &[u64]) -> Vec<usize> {
    let mut first_answer = u64::MAX;
    let mut candidates = Vec::new();
    for &index in by_call.iter().filter(|&&index| ordered[index / 64] & (1 << (index % 64)) == 0) {
        if calls[index].called > first_answer {
            break;
        }
        first_answer = first_answer.min(calls[index].answered.unwrap_or(u64::MAX));
        candidates.push(index);
    }
    candidates
}
