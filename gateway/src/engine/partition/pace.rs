//! Which of the two copies of a partition is slow, found by comparison: a leader whose disk or link is slow
//! loses the leadership, and a machine that is slow in all its parts moves nothing.
//!
//! How long a write takes says little by itself. So both copies are asked for the same at the same time: to
//! merge an empty tail, which a copy answers after it has written and synced. That goes the way of a write:
//! link, queue, disk, and back. A leader that is writing is not asked: its oldest writes serve as well. Such
//! a *round* takes place only if there is reason for it: a leader owes the answer to a write, or a process
//! the answer to a beat, for longer than [`LATE`]; or one of the copies is slow, or may be.
//!
//! In a round a copy is slow if it takes longer than [`LATE`] and [`TIMES`] as long as the other one. A copy
//! counts as slow once it was so for [`SLOW_AFTER`]; time for which it was not counts twice against that. It
//! counts as slow until it was fast for a while, where slow time counts four times against that:
//! [`FIRST_WAIT`], and twice as long whenever it is found slow again soon after, up to [`LONGEST_WAIT`]. So a
//! disk that comes and goes moves the leader less and less often: five times in the first minute at most, and
//! later about twice a minute.
//!
//! It ends no connection (`failover` evicts a process whose disk hangs). It forgets all when the gateway
//! restarts.

use std::time::Duration;

use protocol::message::link::Role;

use super::super::event::SessionId;

/// An answer that takes no longer than this is not late, whatever the other copy does.
pub(in crate::engine) const LATE: Duration = Duration::from_millis(150);

/// A slow copy takes so many times as long as the other one.
const TIMES: u32 = 4;

/// A copy that was slow for so long counts as slow.
const SLOW_AFTER: Duration = Duration::from_secs(3);

/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(500);

/// A copy counts as slow until it has not been so for this long.
const FIRST_WAIT: Duration = Duration::from_secs(10);

/// The same for one that is found slow again and again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A copy that did not count as slow for so long begins with the first wait again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// What is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Beats are answered in time.
    Disk,
    /// Beats are answered late as well.
    Link,
}

impl Cause {
    /// Why a copy is slow, for a person.
    pub(crate) fn of_copy(self) -> &'static str {
        match self {
            Self::Disk => "its disk is slow",
            Self::Link => "its link is slow",
        }
    }

    /// The same as the reason for a new view.
    pub(in crate::engine) fn of_leader(self) -> &'static str {
        match self {
            Self::Disk => "the disk of the leader is slow",
            Self::Link => "the link to the leader is slow",
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    round: Option<Round>,
    /// There is reason for a round.
    suspected: bool,
    /// No round begins before.
    next: Duration,
    /// The time up to here has been counted for or against the copies.
    judged: Duration,
    /// By role.
    copies: [Standing; 2],
}

/// Both copies have something to write, and have not both answered. By role.
#[derive(Debug)]
struct Round {
    sent: [Sent; 2],
    /// How long the answer took.
    took: [Option<Duration>; 2],
}

/// What a copy has to answer.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Sent {
    pub(in crate::engine) session: SessionId,
    pub(in crate::engine) frame: Frame,
    pub(in crate::engine) at: Duration,
}

/// Its number is what tells frames of a kind apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Frame {
    /// Writes.
    Writes(u64),
    /// A hand-over.
    Merge(u64),
}

/// What is known of one copy.
#[derive(Debug, Default)]
struct Standing {
    /// For how long it was slow, less twice the time for which it was not.
    slowness: Duration,
    /// Set while it counts as slow.
    slow: Option<Cause>,
    /// While it counts as slow: for how long it was fast since, less four times the time for which it was
    /// not.
    fast: Duration,
    /// How long that has to be.
    wait: Duration,
    /// When it last ceased to count as slow.
    cleared: Option<Duration>,
}

impl Pace {
    /// Why a copy counts as slow, if it does.
    pub(crate) fn cause(&self, role: Role) -> Option<Cause> {
        self.copies[role as usize].slow
    }

    pub(in crate::engine) fn is_slow(&self, role: Role) -> bool {
        self.cause(role).is_some()
    }

    /// Whether nothing speaks against a copy: one that was slow a moment ago may be so again.
    pub(in crate::engine) fn trusts(&self, role: Role) -> bool {
        let copy = &self.copies[role as usize];
        copy.slow.is_none() && copy.slowness.is_zero()
    }

    /// Whether it is time for a round; `suspected` if there is reason for one now.
    pub(in crate::engine) fn is_due(&mut self, now: Duration, suspected: bool) -> bool {
        self.suspected |= suspected;
        let reason = self.suspected || Role::ALL.iter().any(|&role| !self.trusts(role));
        reason && self.round.is_none() && now >= self.next
    }

    pub(in crate::engine) fn begin(&mut self, now: Duration, sent: [Sent; 2]) {
        self.round = Some(Round { sent, took: [None; 2] });
        // Of a time without rounds nothing is known, unless it is a pause between two.
        if now.saturating_sub(self.judged) > 2 * PAUSE {
            self.judged = now;
        }
    }

    /// A round is over without a result if one of its connections is gone.
    pub(in crate::engine) fn goes_on_with(&mut self, sessions: Option<[SessionId; 2]>) {
        self.round.take_if(|round| Some(round.sent.map(|sent| sent.session)) != sessions);
    }

    /// Takes note of an answer. Returns whether it is one to a round.
    pub(in crate::engine) fn answered(&mut self, now: Duration, session: SessionId, frame: Frame) -> bool {
        let Some(round) = &mut self.round else { return false };
        let is_it = |sent: &Sent| (sent.session, sent.frame) == (session, frame);
        let Some(role) = round.sent.iter().position(is_it) else { return false };
        round.took[role].get_or_insert(now.saturating_sub(round.sent[role].at));
        true
    }

    /// A copy that was to lead did not get to its disk what it needed for that, for so long that it is given
    /// up.
    pub(in crate::engine) fn hangs(&mut self, now: Duration, role: Role) {
        self.copies[role as usize].was_slow(SLOW_AFTER, now, Cause::Disk);
    }

    /// The gateway stood still for so long: that says nothing of the copies.
    pub(in crate::engine) fn extend_deadlines(&mut self, stall: Duration, now: Duration) {
        let sent = self.round.iter_mut().flat_map(|round| &mut round.sent).map(|sent| &mut sent.at);
        sent.chain([&mut self.judged]).for_each(|time| *time = (*time + stall).min(now));
    }

    /// Counts the time since the last judgement for or against each copy, as soon as the round allows it.
    /// `trips`: how long beats take, by role. Returns whether a copy counts as slow from now on, or no more.
    pub(in crate::engine) fn judge(&mut self, now: Duration, trips: [Duration; 2]) -> bool {
        let Some(round) = &self.round else { return false };
        // A copy that has not answered took at least so long; with the other one's answer that may be enough.
        let took = [0, 1].map(|role| round.took[role].unwrap_or(now.saturating_sub(round.sent[role].at)));
        let slow = [0, 1].map(|role| {
            let other = 1 - role;
            round.took[other].is_some() && took[role] > LATE.max(took[other] * TIMES)
        });
        let over = round.took.iter().all(Option::is_some);
        if !over && slow == [false; 2] {
            return false;
        }
        let passed = now.saturating_sub(std::mem::replace(&mut self.judged, now));
        let mut news = false;
        for role in 0..2 {
            let copy = &mut self.copies[role];
            if slow[role] {
                let cause = if trips[role] > LATE { Cause::Link } else { Cause::Disk };
                news |= copy.was_slow(passed, now, cause);
            } else if round.took[role].is_some() {
                // Also where the other one is still awaited: all that time it was not slow.
                news |= copy.was_not_slow(passed, now);
            }
        }
        if over {
            self.round = None;
            self.suspected = false;
            self.next = now + PAUSE;
        }
        news
    }
}

impl Standing {
    fn was_slow(&mut self, passed: Duration, now: Duration, cause: Cause) -> bool {
        self.fast = self.fast.saturating_sub(passed * 4);
        self.slowness = (self.slowness + passed).min(SLOW_AFTER);
        if self.slow.is_some() || self.slowness < SLOW_AFTER {
            return false;
        }
        let again = self.cleared.is_some_and(|cleared| now.saturating_sub(cleared) < FORGIVEN_AFTER);
        self.wait = if again { (self.wait * 2).min(LONGEST_WAIT) } else { FIRST_WAIT };
        self.slow = Some(cause);
        self.fast = Duration::ZERO;
        true
    }

    fn was_not_slow(&mut self, passed: Duration, now: Duration) -> bool {
        self.slowness = self.slowness.saturating_sub(passed * 2);
        self.fast += passed;
        if self.slow.is_none() || self.fast < self.wait {
            return false;
        }
        self.slow = None;
        self.slowness = Duration::ZERO;
        self.cleared = Some(now);
        true
    }
}
