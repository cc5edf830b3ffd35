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
//! are not reported here: `status` says so already.

use std::time::Duration;

use protocol::message::link::Role;
use protocol::placement::Partition as Number;

use super::Engine;
use super::event::{Command, RingEvent, SessionId};
use super::partition::Phase;

/// What lasts no longer is not reported.
const GRACE: Duration = Duration::from_secs(2);

/// How often the partitions are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A lag that was reported is over when it is no longer than this. One that stays around [`GRACE`] is
/// reported once.
const LAG_OVER: Duration = Duration::from_secs(1);

/// What was seen of one partition.
#[derive(Debug, Default)]
pub(crate) struct Replication {
    /// By the role of the copy that should follow and does not: since when.
    unlinked: [Option<Duration>; 2],
    /// Since when the copy that does not lead has had what it lacked when it came, and on which connection.
    caught_up: Option<(SessionId, Duration)>,
    /// The copy that was reported because its link is down.
    link: Option<Role>,
    /// The copy that was reported because of its lag.
    lag: Option<Role>,
}

impl Replication {
    /// Whether a link was reported that is down still.
    pub(crate) fn link_is_down(&self) -> bool {
        self.link.is_some()
    }
}

/// Of all partitions.
#[derive(Debug, Default)]
pub(super) struct Watch {
    looked: Duration,
    /// After the gateway stood still, what it has not taken in yet looks old. Nothing is judged before.
    not_before: Duration,
}

impl Engine {
    /// The gateway itself stood still for so long.
    pub(super) fn excuse_replication(&mut self, stall: Duration, now: Duration) {
        if stall >= GRACE / 2 {
            self.watch.not_before = now + GRACE;
        }
    }

    /// Looks at all partitions, when it is time, and reports what has begun or ended.
    pub(super) fn watch_replication(&mut self, now: Duration, commands: &mut Vec<Command>) {
        if !self.open || now < self.watch.looked + LOOK_INTERVAL || now < self.watch.not_before {
            return;
        }
        self.watch.looked = now;
        for number in 0..self.size {
            self.watch_links(now, number, commands);
            self.watch_lag(now, number, commands);
        }
    }

    fn watch_links(&mut self, now: Duration, number: Number, commands: &mut Vec<Command>) {
        for role in Role::ALL {
            let unlinked = self.lacks_link(number, role);
            let since = &mut self.partitions[usize::from(number)].replication.unlinked[role as usize];
            *since = unlinked.then(|| since.unwrap_or(now));
        }
        let before = self.partitions[usize::from(number)].replication.link;
        let after = self.unlinked(now, number).map(|(role, _)| role);
        match (before, after) {
            (None, Some(role)) => {
                self.partitions[usize::from(number)].replication.link = Some(role);
                let what = self.link_text(now, number).unwrap_or_default();
                commands.push(Command::Report(RingEvent::ReplicationImpaired { partition: number, what }));
            }
            (Some(role), None) => {
                self.partitions[usize::from(number)].replication.link = None;
                let (follower, source) = self.pair(number, role);
                let gone = self.missing(number, role).or_else(|| self.missing(number, role.other()));
                let what = gone.unwrap_or_else(|| format!("{follower} follows {source} again"));
                commands.push(Command::Report(RingEvent::ReplicationRestored { partition: number, what }));
            }
            _ => {}
        }
    }

    fn watch_lag(&mut self, now: Duration, number: Number, commands: &mut Vec<Command>) {
        let partition = &self.partitions[usize::from(number)];
        if matches!(partition.phase, Phase::Confirming { .. }) {
            return;
        }
        let role = partition.lead.other();
        let other = self.copy(number, role).filter(|copy| copy.report.complete && partition.serves());
        let current = partition.other_is_current();
        let caught_up = other.and_then(|other| {
            let known = partition.replication.caught_up.filter(|(session, _)| *session == other.session);
            known.or(current.then_some((other.session, now)))
        });
        // It is behind as of the moment at which it had caught up: it may have come back with much to do.
        let behind = caught_up.and_then(|(_, since)| Some(partition.oldest_unreplicated()?.max(since)));
        let lag = behind.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        let replication = &mut self.partitions[usize::from(number)].replication;
        replication.caught_up = caught_up;
        match replication.lag {
            None if lag > GRACE => {
                replication.lag = Some(role);
                let what = self.lag_text(now, number).unwrap_or_default();
                commands.push(Command::Report(RingEvent::ReplicationImpaired { partition: number, what }));
            }
            Some(reported) if lag <= LAG_OVER => {
                replication.lag = None;
                let name = self.pair(number, reported).0;
                let what = match self.missing(number, reported) {
                    Some(missing) => missing,
                    None if current => format!("{name} has caught up"),
                    None => format!("{name} has to catch up"),
                };
                commands.push(Command::Report(RingEvent::ReplicationRestored { partition: number, what }));
            }
            _ => {}
        }
    }

    /// Whether that copy should follow the other one, which is there, and does not.
    fn lacks_link(&self, number: Number, role: Role) -> bool {
        let (Some(follower), Some(source)) = (self.copy(number, role), self.copy(number, role.other()))
        else {
            return false;
        };
        let partition = &self.partitions[usize::from(number)];
        // One that is not complete is filled from the lead, and waits while there is none. One that was rolled
        // back is to be discarded first.
        let should = follower.report.rollback.is_none()
            && (follower.report.complete || partition.serves() && partition.lead != role);
        let following = self.session(follower.session).and_then(|session| session.following);
        should && source.report.complete && following.is_some_and(|following| !following.get(role))
    }

    /// The copy whose link is down for longer than the grace, and since when; first the one that does not
    /// lead.
    fn unlinked(&self, now: Duration, number: Number) -> Option<(Role, Duration)> {
        let partition = &self.partitions[usize::from(number)];
        [partition.lead.other(), partition.lead].into_iter().find_map(|role| {
            let since = partition.replication.unlinked[role as usize]?;
            (now.saturating_sub(since) > GRACE).then_some((role, since))
        })
    }

    /// What is wrong with the replication of a partition, for a person, where anything is that was reported.
    pub(crate) fn impaired(&self, number: Number) -> Option<String> {
        let replication = &self.partitions[usize::from(number)].replication;
        let link = replication.link.and_then(|_| self.link_text(self.ticked, number));
        link.or_else(|| replication.lag.and_then(|_| self.lag_text(self.ticked, number)))
    }

    fn link_text(&self, now: Duration, number: Number) -> Option<String> {
        let (role, since) = self.unlinked(now, number)?;
        let (follower, source) = self.pair(number, role);
        let seconds = now.saturating_sub(since).as_secs();
        Some(format!("{follower} does not follow {source} since {seconds} s: the link between them is down"))
    }

    fn lag_text(&self, now: Duration, number: Number) -> Option<String> {
        let partition = &self.partitions[usize::from(number)];
        let seconds = now.saturating_sub(partition.oldest_unreplicated()?).as_secs();
        let (other, lead) = self.pair(number, partition.lead.other());
        Some(format!("{other} has to catch up: it lacks writes that {lead} acknowledged {seconds} s ago"))
    }

    /// Names of the process of that copy, and of the other one.
    fn pair(&self, number: Number, role: Role) -> (String, String) {
        let name = |role| self.place_of(number, role).map(|place| self.name_of(place)).unwrap_or_default();
        (name(role), name(role.other()))
    }
}
