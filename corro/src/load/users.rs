//! The users under load.

use std::sync::{Arc, Mutex, MutexGuard};

use uuid::Uuid;

use super::random::Random;
use super::user::{History, LoadedUser};

/// One of so many users is written by all connections.
const CONTENDED: usize = 20;

/// In so many of a hundred cases a writer takes one of those.
const CONTENDED_WRITES: u64 = 10;

/// A user with a longer history than this is replaced: what has to be checked stays small.
const LONGEST: usize = 400;

/// All users. Their places stay; who is at a place may change.
pub(super) struct Users {
    connections: usize,
    places: Mutex<Places>,
}

struct Places {
    now: Vec<Arc<LoadedUser>>,
    /// Replaced within this window: their histories are still to be checked.
    before: Vec<Arc<LoadedUser>>,
    /// Replaced in windows before: nobody asks for them any more.
    left: Vec<Uuid>,
}

impl Users {
    pub(super) fn new(count: usize, connections: usize) -> Self {
        let now = (0..count).map(|_| Arc::new(LoadedUser::fresh())).collect();
        Self { connections, places: Mutex::new(Places { now, before: Vec::new(), left: Vec::new() }) }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().expect("no one panics while he has the users")
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

    /// Everyone that was ever written.
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

    use super::super::user::{Action, Event, Outcome};
    use super::*;

    #[test]
    fn most_users_have_one_writer_and_some_have_all() {
        let users = Users::new(100, 8);
        let mut writers: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for connection in 0..8 {
            let mut random = Random::new(1, connection as u64);
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
            let (place, _) = users.to_write(connection, &mut Random::new(1, 1));
            assert!(place < 3);
        }
    }

    #[test]
    fn a_long_history_makes_room_for_another_user_and_is_not_lost() {
        let users = Users::new(1, 1);
        let (place, user) = users.to_read(&mut Random::new(1, 1));
        let read = Event { action: Action::Read, outcome: Outcome::Absent, sent: 1, answered: 2 };
        for _ in 0..LONGEST {
            users.noted(place, &user, user.note(read));
        }
        users.noted(place, &user, user.note(read)); // was under way
        let (_, next) = users.to_read(&mut Random::new(1, 1));
        assert_ne!(next.id, user.id);
        assert_eq!(users.all().len(), 2);
        let lengths: Vec<usize> = users.seal().iter().map(|history| history.events.len()).collect();
        assert_eq!(lengths, [0, LONGEST + 1]);
        assert_eq!(users.all().len(), 1);
        assert_eq!(users.ever().len(), 3);
    }
}
