//! The lines in flight: what was asked of the ring and is not answered, and what has to wait behind it.

use std::collections::VecDeque;
use std::io::Write;

use axum::http::StatusCode;
use protocol::{UserId, Version};
use tokio::time::Instant;

use crate::http::input::etag::hexadecimal;

/// A line that was asked of the ring.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    pub(super) line: u64,
    pub(super) id: UserId,
    /// `create`, `update` or `delete`.
    pub(super) op: &'static str,
    /// When it is done.
    pub(super) success: StatusCode,
    /// Then the outcome counts as unknown.
    pub(super) deadline: Instant,
}

impl Asking {
    /// The result of a line that is done, as a line: with the version of the user, where one is left.
    pub(super) fn done(&self, version: Version) -> Vec<u8> {
        let mut text = Vec::with_capacity(128);
        let (line, status, id) = (self.line, self.success.as_u16(), self.id.hyphenated());
        write!(text, r#"{{"line":{line},"status":{status},"id":"{id}""#).expect("a vector takes all");
        if self.success != StatusCode::NO_CONTENT {
            text.extend_from_slice(br#","etag":"\""#);
            text.extend_from_slice(&hexadecimal(version.0));
            text.extend_from_slice(br#"\"""#);
        }
        text.extend_from_slice(b"}\n");
        text
    }
}

#[derive(Debug)]
enum Slot {
    Asking(Asking),
    /// The text of the result.
    Known(Vec<u8>),
}

/// The lines from the oldest one without a result on, in their order.
#[derive(Debug, Default)]
pub(super) struct Window {
    slots: VecDeque<Slot>,
    /// How many have left at the front: the ticket of the first slot.
    gone: u64,
}

impl Window {
    /// How many lines there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Adds a line that is asked of the ring. Returns its ticket.
    pub(super) fn ask(&mut self, asking: Asking) -> u64 {
        self.slots.push_back(Slot::Asking(asking));
        self.gone + self.slots.len() as u64 - 1
    }

    /// Adds the result of a line.
    pub(super) fn know(&mut self, result: Vec<u8>) {
        self.slots.push_back(Slot::Known(result));
    }

    /// Settles the line with that ticket; one that has its result already keeps it.
    pub(super) fn settle(&mut self, ticket: u64, result: impl FnOnce(&Asking) -> Vec<u8>) {
        let index = ticket.checked_sub(self.gone).and_then(|index| usize::try_from(index).ok());
        if let Some(slot) = index.and_then(|index| self.slots.get_mut(index))
            && let Slot::Asking(asking) = slot
        {
            *slot = Slot::Known(result(asking));
        }
    }

    /// When the line at the front is late, while it has no result. The others were asked later.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.slots.front() {
            Some(Slot::Asking(asking)) => Some(asking.deadline),
            _ => None,
        }
    }

    /// Settles all lines that are late.
    pub(super) fn expire(&mut self, now: Instant, mut result: impl FnMut(&Asking) -> Vec<u8>) {
        for slot in &mut self.slots {
            if let Slot::Asking(asking) = slot {
                if asking.deadline > now {
                    break;
                }
                *slot = Slot::Known(result(asking));
            }
        }
    }

    /// The result of the oldest line, where it has one.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let Slot::Known(result) = self.slots.pop_front_if(|slot| matches!(slot, Slot::Known(_)))? else {
            return None;
        };
        self.gone += 1;
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn asking(line: u64, deadline: Instant) -> Asking {
        let id = UserId::from_u128(u128::from(line));
        Asking { line, id, op: "update", success: StatusCode::OK, deadline }
    }

    fn done(asking: &Asking) -> Vec<u8> {
        vec![asking.line as u8]
    }

    fn taken(window: &mut Window) -> Vec<u8> {
        std::iter::from_fn(|| window.take()).flatten().collect()
    }

    #[test]
    fn results_leave_in_the_order_of_the_lines() {
        let (mut window, now) = (Window::default(), Instant::now());
        let first = window.ask(asking(1, now));
        let second = window.ask(asking(2, now));
        window.know(vec![4]);
        window.settle(second, done);
        assert_eq!((taken(&mut window), window.len()), (vec![], 3));
        window.settle(first, done);
        assert_eq!(taken(&mut window), [1, 2, 4]);
        let fourth = window.ask(asking(5, now));
        window.settle(first, |_| panic!("it is gone"));
        window.settle(fourth, done);
        window.settle(fourth, |_| panic!("it has its result"));
        assert_eq!(taken(&mut window), [5]);
        assert_eq!(window.take(), None);
    }

    #[test]
    fn what_is_late_is_settled_and_nothing_else() {
        let (mut window, now) = (Window::default(), Instant::now());
        let later = now + Duration::from_secs(1);
        window.ask(asking(1, now));
        let second = window.ask(asking(2, now));
        window.ask(asking(3, later));
        window.settle(second, done);
        assert_eq!(window.deadline(), Some(now));
        window.expire(now, |asking| vec![100 + asking.line as u8]);
        assert_eq!(window.deadline(), None, "the one at the front has its result");
        assert_eq!((window.take(), window.take()), (Some(vec![101]), Some(vec![2])));
        assert_eq!((window.take(), window.deadline()), (None, Some(later)));
    }
}
