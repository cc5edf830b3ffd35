//! Lanes: how single requests become batches.
//!
//! A lane is a queue with a small window of frames in flight. While the window is full, whatever arrives
//! waits; when an answer makes room, all that waited leaves as one frame. So batches are as large as the load
//! makes them and no request waits for a timer.

use std::collections::VecDeque;

use protocol::message::MAX_BATCH;

/// A queue of `Q` and the frames in flight, each with what is needed when its answer comes.
#[derive(Debug)]
pub(super) struct Lane<Q, F> {
    queue: VecDeque<Q>,
    /// Oldest first. Answers come in order, since a connection keeps order and its copy works in order.
    flights: VecDeque<(u64, F)>,
    window: usize,
    batches: u64,
}

impl<Q, F> Lane<Q, F> {
    pub(super) fn new(window: usize) -> Self {
        Self { queue: VecDeque::new(), flights: VecDeque::new(), window, batches: 0 }
    }

    pub(super) fn push(&mut self, item: Q) {
        self.queue.push_back(item);
    }

    /// Takes back what has not left.
    pub(super) fn take_queued(&mut self) -> VecDeque<Q> {
        std::mem::take(&mut self.queue)
    }

    /// How many wait to leave.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The frames in flight.
    pub(super) fn flights_mut(&mut self) -> impl Iterator<Item = &mut F> {
        self.flights.iter_mut().map(|(_, flight)| flight)
    }

    /// What has been in flight the longest.
    pub(super) fn oldest(&self) -> Option<&F> {
        self.flights.front().map(|(_, flight)| flight)
    }

    /// Whether nothing waits and nothing is in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.flights.is_empty()
    }

    /// The next batch with its number, if there is one and the window has room. The caller sends it and says
    /// what to keep by [`Self::departed`].
    pub(super) fn depart(&mut self) -> Option<(u64, Vec<Q>)> {
        if self.queue.is_empty() || self.flights.len() >= self.window {
            return None;
        }
        self.batches += 1;
        let count = self.queue.len().min(MAX_BATCH);
        Some((self.batches, self.queue.drain(..count).collect()))
    }

    pub(super) fn departed(&mut self, batch: u64, flight: F) {
        self.flights.push_back((batch, flight));
    }

    /// The flight of the batch that is answered now; `None` for a number that is not in flight, or an answer
    /// that does not fit: then the flight stays, to be abandoned with the connection.
    pub(super) fn land(&mut self, batch: u64, fits: impl Fn(&F) -> bool) -> Option<F> {
        let index = self.flights.iter().position(|(number, flight)| *number == batch && fits(flight))?;
        self.flights.remove(index).map(|(_, flight)| flight)
    }

    /// Gives up what is left: the queue, which never left, and the flights, whose fate is unknown.
    pub(super) fn abandon(self) -> (VecDeque<Q>, impl Iterator<Item = F>) {
        (self.queue, self.flights.into_iter().map(|(_, flight)| flight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_while_a_frame_is_in_flight_leaves_as_one_frame() {
        let mut lane: Lane<u32, Vec<u32>> = Lane::new(1);
        lane.push(1);
        let (first, items) = lane.depart().expect("the window is open");
        assert_eq!(items, [1]);
        lane.departed(first, items);
        (2..=400).for_each(|item| lane.push(item));
        assert!(lane.depart().is_none(), "one frame is in flight");
        assert_eq!(lane.land(first + 7, |_| true), None, "a number that was never sent");
        assert_eq!(lane.land(first, |flight| flight.len() == 2), None, "an answer that does not fit");
        assert_eq!(lane.land(first, |_| true), Some(vec![1]));
        let (second, items) = lane.depart().expect("the window is open again");
        assert_eq!((items.len(), items[0], lane.queued()), (MAX_BATCH, 2, 399 - MAX_BATCH));
        lane.departed(second, items);
        let (queue, flights) = lane.abandon();
        assert_eq!(queue.len(), 399 - MAX_BATCH);
        assert_eq!(flights.map(|flight| flight.len()).sum::<usize>(), MAX_BATCH);
    }
}
