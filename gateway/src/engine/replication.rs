//! Whether the two copies of each partition follow each other. It is reported, and nothing is decided by it.
//!
//! Two things are reported once they last longer than [`GRACE`] while both processes are registered:
//!
//! * A *link* is down: a copy that should follow the other one says that it does not, whether anything is
//!   written or not.
//! * The *lag* is long: the copy that does not lead had caught up, and the oldest acknowledged write that it
//!   is not known to have is older.
//!
//! Each is one warning in the log when it begins and one line when it ends, and what the partition waits for
//! meanwhile. A process that is away, a copy that is being filled and one that has come back and catches up
//! are not reported here: `waiting` says so already.

use std::time::Duration;

use protocol::message::link::Role;
use protocol::placement::Partition as Number;

use super::Engine;
use super::event::{RingEvent, SessionId};
use super::partition::Phase;

/// What lasts no longer is not reported.
const GRACE: Duration = Duration::from_secs(2);

/// How often the partitions are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A lag that was reported is over when it is no longer than this. One that stays around [`GRACE`] is
/// reported once.
const LAG_OVER: Duration = Duration::from_secs(1);

/// What was seen of all partitions.
#[derive(Debug, Default)]
pub(super) struct Watch {
    partitions: Vec<Watched>,
    looked: Duration,
    /// After the gateway stood still, what it has not taken in yet looks old. Nothing is judged before.
    not_before: Duration,
}

/// What was seen of one partition.
#[derive(Debug, Clone, Default)]
struct Watched {
    /// By the role of the copy that should follow and does not: since when.
    unlinked: [Option<Duration>; 2],
    /// Since when the copy that does not lead has had what it lacked when it came, and on which connection.
    caught_up: Option<(SessionId, Duration)>,
    /// The copy that was reported because its link is down.
    link: Option<Role>,
    /// The copy that was reported because of its lag.
    lag: Option<Role>,
}

impl Watch {
    pub(super) fn new(size: u16) -> Self {
        Self { partitions: vec![Watched::default(); usize::from(size)], ..Self::default() }
    }

    /// The gateway itself stood still for so long.
    pub(super) fn extend_deadlines(&mut self, stall: Duration, now: Duration) {
        if stall >= GRACE / 2 {
            self.not_before = now + GRACE;
        }
    }
}

impl Engine {
    /// Looks at all partitions, when it is time, and reports what has begun or ended.
    pub(super) fn watch_replication(&mut self) {
        let due = self.now >= self.watch.looked + LOOK_INTERVAL && self.now >= self.watch.not_before;
        if self.open && due {
            self.watch.looked = self.now;
            for number in 0..self.size {
                self.watch_links(number);
                self.watch_lag(number);
            }
        }
    }

    fn watched(&self, number: Number) -> &Watched {
        &self.watch.partitions[usize::from(number)]
    }

    fn watched_mut(&mut self, number: Number) -> &mut Watched {
        &mut self.watch.partitions[usize::from(number)]
    }

    fn watch_links(&mut self, number: Number) {
        let now = self.now;
        for role in Role::ALL {
            let unlinked = self.lacks_link(number, role);
            let since = &mut self.watched_mut(number).unlinked[role as usize];
            *since = unlinked.then(|| since.unwrap_or(now));
        }
        let after = self.unlinked(number).map(|(role, _)| role);
        match (self.watched(number).link, after) {
            (None, Some(role)) => {
                self.watched_mut(number).link = Some(role);
                let what = self.link_text(number).unwrap_or_default();
                self.report_event(RingEvent::ReplicationChanged { partition: number, impaired: true, what });
            }
            (Some(role), None) => {
                self.watched_mut(number).link = None;
                let gone = self.missing(number, role).or_else(|| self.missing(number, role.other()));
                let [follower, source] = [role, role.other()].map(|role| self.name_of_copy(number, role));
                let what = gone.unwrap_or_else(|| format!("{follower} follows {source} again"));
                self.report_event(RingEvent::ReplicationChanged { partition: number, impaired: false, what });
            }
            _ => {}
        }
    }

    fn watch_lag(&mut self, number: Number) {
        let partition = self.partition(number);
        if matches!(partition.phase, Phase::Confirming { .. }) {
            return;
        }
        let role = partition.leader.other();
        let current = partition.other_is_current;
        let other = self.complete_copy(number, role).filter(|_| partition.serves());
        let caught_up = other.and_then(|other| {
            let known = self.watched(number).caught_up.filter(|(session, _)| *session == other.session);
            known.or(current.then_some((other.session, self.now)))
        });
        // It lags as of the moment at which it had caught up: it may have come back with much to do.
        let behind = caught_up.and_then(|(_, since)| Some(partition.oldest_unreplicated()?.max(since)));
        let lag = behind.map_or(Duration::ZERO, |since| self.now.saturating_sub(since));
        let watched = self.watched_mut(number);
        watched.caught_up = caught_up;
        match watched.lag {
            None if lag > GRACE => {
                watched.lag = Some(role);
                let what = self.lag_text(number).unwrap_or_default();
                self.report_event(RingEvent::ReplicationChanged { partition: number, impaired: true, what });
            }
            Some(reported) if lag <= LAG_OVER => {
                watched.lag = None;
                let name = self.name_of_copy(number, reported);
                let what = match self.missing(number, reported) {
                    Some(missing) => missing,
                    None if current => format!("{name} has caught up"),
                    None => format!("{name} has to catch up"),
                };
                self.report_event(RingEvent::ReplicationChanged { partition: number, impaired: false, what });
            }
            _ => {}
        }
    }

    /// Whether that copy should follow the other one, which is there, and does not.
    fn lacks_link(&self, number: Number, role: Role) -> bool {
        let (Some(holder), Some(_)) = (self.holder(number, role), self.complete_copy(number, role.other()))
        else {
            return false;
        };
        let (follower, partition) = (holder.report(role), self.partition(number));
        // One that is not complete is filled from the leader, and waits while there is none. One that was
        // rolled back is to be discarded first.
        let should = follower.rollback.is_none()
            && (follower.complete || partition.serves() && partition.leader != role);
        should && holder.following.is_some_and(|following| !following.get(role))
    }

    /// The copy whose link is down for longer than the grace, and since when; first the one that does not
    /// lead.
    fn unlinked(&self, number: Number) -> Option<(Role, Duration)> {
        let leader = self.partition(number).leader;
        [leader.other(), leader].into_iter().find_map(|role| {
            let since = self.watched(number).unlinked[role as usize]?;
            (self.now.saturating_sub(since) > GRACE).then_some((role, since))
        })
    }

    /// Whether a link was reported that is down still.
    pub(crate) fn link_is_down(&self, number: Number) -> bool {
        self.watched(number).link.is_some()
    }

    /// What is wrong with the replication of a partition, for people, where anything is that was reported.
    pub(crate) fn impaired(&self, number: Number) -> Option<String> {
        let Watched { link, lag, .. } = self.watched(number);
        let link = link.and_then(|_| self.link_text(number));
        link.or_else(|| lag.and_then(|_| self.lag_text(number)))
    }

    fn link_text(&self, number: Number) -> Option<String> {
        let (role, since) = self.unlinked(number)?;
        let [follower, source] = [role, role.other()].map(|role| self.name_of_copy(number, role));
        let seconds = self.now.saturating_sub(since).as_secs();
        Some(format!("{follower} does not follow {source} since {seconds} s: the link between them is down"))
    }

    fn lag_text(&self, number: Number) -> Option<String> {
        let partition = self.partition(number);
        let role = partition.leader;
        let seconds = self.now.saturating_sub(partition.oldest_unreplicated()?).as_secs();
        let [leader, other] = [role, role.other()].map(|role| self.name_of_copy(number, role));
        Some(format!("{other} has to catch up: it lacks writes that {leader} acknowledged {seconds} s ago"))
    }
}
