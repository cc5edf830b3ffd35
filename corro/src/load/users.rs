//! The users under load.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use uuid::Uuid;

use super::history::{Action, Event, History, Outcome, State};
use crate::random::Random;

/// One of so many users is written by all connections.
const CONTENDED: usize = 20;

/// In so many of a hundred cases a writer takes one of those.
const CONTENDED_WRITES: u64 = 10;

/// A user with a longer history than this is replaced: what has to be checked stays small.
const LONGEST: usize = 400;

/// A user under load.
#[derive(Debug)]
pub(super) struct LoadedUser {
    pub(super) id: Uuid,
    initial: State,
    events: Mutex<Vec<Event>>,
    /// The number that was written last.
    last: AtomicU32,
    /// Whether it seems to exist. Only a hint for what to do next.
    exists: AtomicBool,
}

impl LoadedUser {
    /// One that does not exist yet.
    pub(super) fn fresh() -> Self {
        Self::known(Uuid::new_v4(), None, 0)
    }

    fn known(id: Uuid, initial: State, last: u32) -> Self {
        let exists = AtomicBool::new(initial.is_some());
        Self { id, initial, events: Mutex::default(), last: AtomicU32::new(last), exists }
    }

    /// A number that was not written to it yet.
    pub(super) fn next(&self) -> u32 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn seems_to_exist(&self) -> bool {
        self.exists.load(Ordering::Relaxed)
    }

    /// Adds to its history, and returns how long that is.
    pub(super) fn note(&self, event: Event) -> usize {
        match event.outcome {
            Outcome::User(_) | Outcome::Exists => self.exists.store(true, Ordering::Relaxed),
            Outcome::Gone | Outcome::Absent => self.exists.store(false, Ordering::Relaxed),
            Outcome::Unknown => {}
        }
        let mut events = self.events.lock().expect("no thread panics while it adds an event");
        events.push(event);
        events.len()
    }

    /// The history of the window that ends, and the user for the next one.
    ///
    /// It is the same user where it is known how it stands: nothing is unknown, and the last event is a read
    /// with nothing else under way. Else another one takes its place, as an unknown write may still come
    /// about.
    pub(super) fn seal(&self) -> (History, Self) {
        let events =
            std::mem::take(&mut *self.events.lock().expect("no thread panics while it adds an event"));
        let open = events.iter().any(|event| event.outcome == Outcome::Unknown);
        let last = self.last.load(Ordering::Relaxed);
        let next = match events.last().map(|event| (event.action, event.outcome)) {
            Some((Action::Read, Outcome::User(value))) if !open => Self::known(self.id, Some(value), last),
            Some((Action::Read, Outcome::Absent)) if !open => Self::known(self.id, None, last),
            _ => Self::fresh(),
        };
        (History { id: self.id, initial: self.initial, events }, next)
    }
}

/// All users. Their places stay; another user may take a place.
pub(super) struct Users {
    connections: usize,
    places: Mutex<Places>,
}

struct Places {
    now: Vec<Arc<LoadedUser>>,
    /// Replaced within this window: their histories are still to be checked.
    before: Vec<Arc<LoadedUser>>,
    /// Replaced in windows before: no request is about them any more.
    left: Vec<Uuid>,
}

impl Users {
    pub(super) fn new(count: usize, connections: usize) -> Self {
        let now = (0..count).map(|_| Arc::new(LoadedUser::fresh())).collect();
        Self { connections, places: Mutex::new(Places { now, before: Vec::new(), left: Vec::new() }) }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().expect("no thread panics while it has the users")
    }

    /// A user to read, with its place.
    pub(super) fn to_read(&self, random: &mut Random) -> (usize, Arc<LoadedUser>) {
        let places = self.places();
        let place = random.below(places.now.len());
        (place, Arc::clone(&places.now[place]))
    }

    /// A user that this connection may write, with its place: its own, or one of those that all write.
    pub(super) fn to_write(&self, connection: usize, random: &mut Random) -> (usize, Arc<LoadedUser>) {
        let places = self.places();
        let count = places.now.len();
        // Places of connection c: c, c + connections, …; those that all write are taken out of them.
        let own = count.saturating_sub(connection).div_ceil(self.connections);
        let contended = count / CONTENDED;
        let mut place = connection + self.connections * random.below(own.max(1));
        if (own == 0 || random.percent(CONTENDED_WRITES)) && contended > 0 {
            place = CONTENDED * random.below(contended);
        }
        place %= count;
        (place, Arc::clone(&places.now[place]))
    }

    /// Puts another user in the place of one whose history has become long.
    pub(super) fn noted(&self, place: usize, user: &Arc<LoadedUser>, length: usize) {
        if length < LONGEST {
            return;
        }
        let mut places = self.places();
        if Arc::ptr_eq(&places.now[place], user) {
            places.now[place] = Arc::new(LoadedUser::fresh());
            places.before.push(Arc::clone(user));
        }
    }

    /// All whose histories belong to this window.
    pub(super) fn all(&self) -> Vec<Arc<LoadedUser>> {
        let places = self.places();
        places.now.iter().chain(&places.before).cloned().collect()
    }

    /// Ends the window: hands over all histories, and makes the users of the next one.
    pub(super) fn seal(&self) -> Vec<History> {
        let mut places = self.places();
        let Places { now, before, left } = &mut *places;
        let mut histories = Vec::with_capacity(now.len() + before.len());
        for place in now {
            let (history, next) = place.seal();
            if next.id != history.id {
                left.push(history.id);
            }
            histories.push(history);
            *place = Arc::new(next);
        }
        for user in before.drain(..) {
            left.push(user.id);
            histories.push(user.seal().0);
        }
        histories
    }

    /// All users that were ever written.
    pub(super) fn ever(&self) -> Vec<Uuid> {
        let places = self.places();
        places
            .now
            .iter()
            .chain(&places.before)
            .map(|user| user.id)
            .chain(places.left.iter().copied())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::history::Value;
    use super::*;

    fn event(action: Action, outcome: Outcome) -> Event {
        Event { action, outcome, sent: 1, answered: 2 }
    }

    #[test]
    fn most_users_have_one_writer_and_some_have_all() {
        let users = Users::new(100, 8);
        let mut writers: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for connection in 0..8 {
            let mut random = Random::stream(1, connection as u64);
            for _ in 0..5_000 {
                writers.entry(users.to_write(connection, &mut random).0).or_default().insert(connection);
            }
        }
        assert_eq!(writers.len(), 100, "every user is written");
        for (place, writers) in writers {
            let expected = if place % CONTENDED == 0 { 8 } else { 1 };
            assert_eq!(writers.len(), expected, "place {place}");
        }
    }

    #[test]
    fn fewer_users_than_connections_are_written_all_the_same() {
        let users = Users::new(3, 8);
        for connection in 0..8 {
            let (place, _) = users.to_write(connection, &mut Random::new(1));
            assert!(place < 3);
        }
    }

    #[test]
    fn a_long_history_makes_room_for_another_user_and_is_not_lost() {
        let users = Users::new(1, 1);
        let (place, user) = users.to_read(&mut Random::new(1));
        let read = Event { action: Action::Read, outcome: Outcome::Absent, sent: 1, answered: 2 };
        for _ in 0..LONGEST {
            users.noted(place, &user, user.note(read));
        }
        users.noted(place, &user, user.note(read)); // was under way
        let (_, next) = users.to_read(&mut Random::new(1));
        assert_ne!(next.id, user.id);
        assert_eq!(users.all().len(), 2);
        let lengths: Vec<usize> = users.seal().iter().map(|history| history.events.len()).collect();
        assert_eq!(lengths, [0, LONGEST + 1]);
        assert_eq!(users.all().len(), 1);
        assert_eq!(users.ever().len(), 3);
    }

    #[test]
    fn a_known_user_goes_on_and_an_unknown_one_is_replaced() {
        let value = Value { name: 1, group: 2 };
        let user = LoadedUser::fresh();
        assert_eq!((user.next(), user.next()), (1, 2));
        user.note(event(Action::Create(value), Outcome::User(value)));
        assert_eq!(user.note(event(Action::Read, Outcome::User(value))), 2);
        let (history, next) = user.seal();
        assert_eq!((history.initial, history.events.len()), (None, 2));
        assert_eq!((next.id, next.initial, next.next()), (user.id, Some(value), 3));
        assert!(next.seems_to_exist());

        next.note(event(Action::Delete, Outcome::Unknown));
        next.note(event(Action::Read, Outcome::User(value)));
        let (history, after) = next.seal();
        assert_eq!(history.initial, Some(value));
        assert_ne!(after.id, user.id, "the delete may still come about");
        assert!(!after.seems_to_exist());
    }
}
