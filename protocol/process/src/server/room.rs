//! The places of a port: which connections have them, and which ends where there is none left.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tracing::warn;

use super::activity::{Activity, Shared};
use super::policy::Policy;
use crate::throttle::LogThrottle;

/// Of the places of a port or of an address, one in so many is made free at once: then a flood causes few
/// looks at all connections.
const AT_ONCE: usize = 32;

/// See the module.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) shared: Arc<Shared>,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    last: u64,
    /// By number, connections of callers that may be strangers.
    strangers: HashMap<u64, Arc<Activity>>,
    /// How many of them each address has.
    of_address: HashMap<IpAddr, usize>,
    members: usize,
    throttle: LogThrottle,
}

impl Places {
    fn take_out(&mut self, activity: &Activity) -> bool {
        let found = self.strangers.remove(&activity.number).is_some();
        if found && let Some(count) = self.of_address.get_mut(&activity.network()) {
            *count -= 1;
            if *count == 0 {
                self.of_address.remove(&activity.network());
            }
        }
        found
    }

    /// Those that wait for their callers, the longest first as far as they are `wanted`.
    fn waiting(&self, wanted: usize, fits: impl Fn(&Activity) -> bool) -> Vec<Arc<Activity>> {
        let place = |activity: &Arc<Activity>| activity.waits().map(|waits| (waits, Arc::clone(activity)));
        let strangers = self.strangers.values().filter(|activity| fits(activity));
        let mut waiting: Vec<_> = strangers.filter_map(place).collect();
        let wanted = wanted.min(waiting.len());
        if wanted < waiting.len() {
            waiting.select_nth_unstable_by_key(wanted, |(waits, _)| *waits);
            waiting.truncate(wanted);
        }
        waiting.sort_unstable_by_key(|(waits, _)| *waits);
        waiting.into_iter().map(|(_, activity)| activity).collect()
    }

    fn close(&mut self, activity: &Activity) {
        self.take_out(activity);
        activity.complete();
        activity.close();
    }
}

impl Room {
    pub(super) fn new(policy: Policy) -> Self {
        Self { shared: Arc::new(Shared::new(policy)), places: Mutex::default() }
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.shared.policy
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // Each change is whole before anything that can panic.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection. Where there is none, those that wait longest for their callers lose
    /// theirs; where none waits, there is no place.
    pub(super) fn enter(&self, address: SocketAddr) -> Option<Arc<Activity>> {
        let mut places = self.places();
        places.last += 1;
        let activity = Arc::new(Activity::new(places.last, address, Arc::clone(&self.shared)));
        let network = activity.network();
        let Policy { connections, per_address, .. } = *self.policy();
        if places.of_address.get(&network).copied().unwrap_or_default() >= per_address {
            self.make_room(&mut places, per_address, |other| other.network() == network)?;
        }
        if places.strangers.len() >= connections {
            self.make_room(&mut places, connections, |_| true)?;
        }
        *places.of_address.entry(network).or_default() += 1;
        places.strangers.insert(activity.number, Arc::clone(&activity));
        Some(activity)
    }

    /// Frees some of so many places; `None` where nothing waits.
    fn make_room(&self, places: &mut Places, of: usize, fits: impl Fn(&Activity) -> bool) -> Option<()> {
        let closed = places.waiting((of / AT_ONCE).max(1), fits);
        closed.iter().for_each(|activity| places.close(activity));
        self.log(places, closed.len());
        (!closed.is_empty()).then_some(())
    }

    /// Closes connections until unfinished requests have a quarter less than they may.
    pub(super) fn make_space(&self) {
        let mut places = self.places();
        let mut closed = 0;
        for activity in places.waiting(usize::MAX, |activity| activity.unfinished() > 0) {
            if self.shared.unfinished() <= self.policy().unfinished / 4 * 3 {
                break;
            }
            places.close(&activity);
            closed += 1;
        }
        self.log(&mut places, closed);
    }

    fn log(&self, places: &mut Places, closed: usize) {
        if places.throttle.is_time(Instant::now()) {
            let (port, open) = (self.policy().port, places.strangers.len());
            if closed > 0 {
                warn!(port, open, closed, "no room for more: the connections that wait longest are closed");
            } else {
                warn!(port, open, "no room for more: the newest connections are rejected");
            }
        }
    }

    /// The connection is no stranger's any more. Returns false where there are as many as there may be, or
    /// its place was taken a moment ago.
    pub(super) fn admit(&self, activity: &Activity) -> bool {
        let mut places = self.places();
        if activity.is_admitted() {
            return true;
        }
        match self.policy().members {
            Some(most) if places.members >= most => return false,
            // It may have been closed a moment ago.
            Some(_) if !places.take_out(activity) => return false,
            Some(_) => places.members += 1,
            None => {}
        }
        activity.set_admitted();
        true
    }

    /// The connection has ended.
    pub(super) fn leave(&self, activity: &Activity) {
        activity.complete();
        let mut places = self.places();
        if !places.take_out(activity) && activity.is_admitted() && self.policy().members.is_some() {
            places.members -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::activity::Exchange;
    use super::*;

    fn room(connections: usize, per_address: usize) -> Room {
        let unfinished = 1000;
        let inner = false;
        Room::new(Policy { connections, per_address, unfinished, inner, ..Policy::inner("TEST", 2) })
    }

    fn from(room: &Room, host: u8) -> Option<Arc<Activity>> {
        room.enter(SocketAddr::from(([10, 0, 0, host], 1)))
    }

    #[test]
    fn the_one_that_waits_longest_makes_room() {
        let room = room(3, 3);
        let [a, b, c] = [1, 2, 3].map(|host| from(&room, host).unwrap());
        let exchange = Exchange::begin(&a);
        let d = from(&room, 4).unwrap();
        assert_eq!([&a, &b, &c, &d].map(|activity| activity.is_closed()), [false, true, false, false]);
        // It has its answer, and waits only from now on.
        drop(exchange);
        from(&room, 5).unwrap();
        assert_eq!([&a, &c, &d].map(|activity| activity.is_closed()), [false, true, false]);
        room.leave(&b);
        room.leave(&c);
        assert_eq!(room.places().strangers.len(), 3, "each place is given back once");
    }

    #[test]
    fn a_body_that_does_not_come_is_closed_after_all_that_send_no_request() {
        let room = room(2, 2);
        let [a, b] = [1, 2].map(|host| from(&room, host).unwrap());
        let _body = Exchange::begin(&a);
        a.awaits_body(true);
        let c = from(&room, 3).unwrap();
        assert!(b.is_closed() && !a.is_closed());
        let _other = Exchange::begin(&c);
        assert!(from(&room, 4).is_some() && a.is_closed());
    }

    #[test]
    fn where_none_waits_there_is_no_room() {
        let room = room(2, 2);
        let [a, b] = [1, 2].map(|host| from(&room, host).unwrap());
        let _exchanges = [&a, &b].map(Exchange::begin);
        assert!(from(&room, 3).is_none());
        room.leave(&a);
        assert!(from(&room, 3).is_some());
    }

    #[test]
    fn on_a_port_of_the_ring_each_stranger_may_lose_its_place() {
        let room = Room::new(Policy { connections: 1, ..Policy::inner("TEST", 2) });
        let busy = from(&room, 1).unwrap();
        let _exchange = Exchange::begin(&busy);
        assert!(from(&room, 2).is_some() && busy.is_closed());
    }

    #[test]
    fn an_address_takes_places_from_itself_alone() {
        let room = room(4, 2);
        let other = from(&room, 1).unwrap();
        let own = [2, 2].map(|host| from(&room, host).unwrap());
        for _ in 0..10 {
            assert!(from(&room, 2).is_some());
        }
        assert!(own.iter().all(|activity| activity.is_closed()) && !other.is_closed());
        assert_eq!(room.places().of_address[&other.network()], 1);
        assert_eq!(room.places().strangers.len(), 3);
    }

    #[test]
    fn members_have_places_of_their_own_and_are_never_closed() {
        let room = room(1, 1);
        let members = [1, 1].map(|host| {
            let activity = from(&room, host).unwrap();
            assert!(room.admit(&activity));
            activity
        });
        let stranger = from(&room, 1).unwrap();
        assert!(!room.admit(&stranger), "there are as many as there may be");
        assert!(from(&room, 1).is_some() && stranger.is_closed());
        assert!(members.iter().all(|activity| !activity.is_closed()));
        room.leave(&members[0]);
        assert!(!room.admit(&stranger), "it has lost its place");
        assert!(room.admit(&from(&room, 1).unwrap()));
    }

    #[tokio::test]
    async fn unfinished_requests_end_where_they_are_too_large_together() {
        let room = room(9, 9);
        let callers = [1, 2, 3, 4].map(|host| from(&room, host).unwrap());
        let [silent, rest @ ..] = &callers;
        for activity in rest {
            activity.received(300);
        }
        assert!(
            tokio::time::timeout(Duration::from_millis(1), room.shared.crowded.notified()).await.is_err()
        );
        rest[0].complete();
        rest[0].received(500);
        tokio::time::timeout(Duration::from_secs(9), room.shared.crowded.notified())
            .await
            .expect("it is crowded");
        room.make_space();
        assert_eq!(rest.each_ref().map(|activity| activity.is_closed()), [true, false, false]);
        assert!(!silent.is_closed(), "it holds nothing");
        assert_eq!(room.shared.unfinished(), 600);
        callers.iter().for_each(|activity| room.leave(activity));
        assert_eq!(room.shared.unfinished(), 0);
    }
}
