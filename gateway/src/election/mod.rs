//! Which of several gateways is active, as a plain state machine.
//!
//! A gateway is *active*, a *standby* or a *candidate*. A standby becomes a candidate when a majority of
//! the db-processes is bound to no other gateway, after a random delay, and claims the next term at all of
//! them. With a majority of grants it is active. It stays so while it holds a *lease*: while a majority has
//! answered heartbeats that were sent less than [`LEASE`] ago. So no two gateways act at the same time,
//! although no gateway speaks to another one (see [`protocol::term`] for the terms and their sources).
//!
//! Where every process says that it knows one gateway only, there is nothing to elect: the gateway claims a
//! term of every process that connects, and needs neither a majority nor a lease.
//!
//! * [`Election`]: these rules.
//! * [`ElectedEngine`]: an engine that acts only while this gateway is active, and begins anew each time.

mod elected;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use protocol::message::REVISION;
use protocol::message::link::{
    Claim, Gateway, Heartbeat, Hello, Kept, Refusal, Refused, Release, Term, TermReport, ToProcess,
};
use protocol::placement::Place;
use protocol::term::{LAST_TERM, LEASE, majority};

use crate::engine::SessionId;
use crate::standing::{ActiveGateway, Standing};

pub use elected::ElectedEngine;

/// How often each process is sent a heartbeat.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(40);

/// A process from which nothing was heard for so long is not counted on by a standby.
const SILENCE: Duration = Duration::from_millis(500);

/// A standby waits for a random time below this before it claims a term, so that two seldom claim the same.
const DELAY: Duration = Duration::from_millis(60);

/// A candidate that has no majority by then gives up, and tries again later.
const CANDIDACY: Duration = Duration::from_millis(250);

/// An active gateway repeats a claim that was not granted after this time.
const CLAIM_AGAIN: Duration = Duration::from_millis(100);

/// One db-process, as the election sees it.
#[derive(Debug)]
struct Link {
    place: Place,
    report: TermReport,
    /// The term that it has granted to this gateway while this gateway was claiming or active.
    granted: Option<Term>,
    /// The claim that was sent last, and when.
    claimed: Option<(Term, Duration)>,
    heard: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Until any process says that there are other gateways, this one takes it that there are none.
    Alone {
        term: Term,
    },
    /// It claims a term then, if nothing changes.
    Standby {
        claim_at: Option<Duration>,
    },
    Candidate {
        term: Term,
        since: Duration,
    },
    Active {
        term: Term,
        raising: Option<Term>,
    },
    /// It has given its term up, and claims none any more.
    Retired,
}

/// What has to be done.
#[derive(Debug)]
pub(crate) enum Order {
    /// Send a message to a process.
    Send(SessionId, ToProcess),
    /// From now on this gateway is active.
    Begin(Term),
    /// From now on it is not, for that reason.
    End(&'static str),
}

/// See the [module](self).
#[derive(Debug)]
pub struct Election {
    me: Gateway,
    size: u16,
    state: State,
    links: BTreeMap<SessionId, Link>,
    /// Whether each process knows one gateway only, as it said last.
    sole: BTreeMap<Place, bool>,
    /// When the heartbeat was sent that each process has answered last, while it stood by this gateway. Also
    /// of processes that are gone: their promise holds.
    acknowledged: BTreeMap<Place, Duration>,
    /// Heartbeats sent, with their times; older ones than the lease are of no use.
    heartbeats: VecDeque<(u64, Duration)>,
    number: u64,
    /// State of a small generator of delays.
    random: u64,
    orders: Vec<Order>,
}

impl Election {
    /// Of a gateway that starts, in a ring of so many processes. `seed` is different for each gateway.
    pub fn new(me: Gateway, size: u16, seed: u64) -> Self {
        Self {
            me,
            size,
            state: State::Alone { term: 0 },
            links: BTreeMap::new(),
            sole: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            heartbeats: VecDeque::new(),
            number: 0,
            random: seed | 1,
            orders: Vec::new(),
        }
    }

    /// The term in which this gateway acts, if it does.
    pub fn term(&self) -> Option<Term> {
        match self.state {
            State::Alone { term } | State::Active { term, .. } => Some(term),
            State::Standby { .. } | State::Candidate { .. } | State::Retired => None,
        }
    }

    /// How old the lease is; `None` where none is needed or held.
    pub fn lease_age(&self, now: Duration) -> Option<Duration> {
        let begin = self.lease_begin().filter(|_| matches!(self.state, State::Active { .. }))?;
        Some(now.saturating_sub(begin))
    }

    /// Which gateway is active, as far as it is known here.
    pub fn standing(&self) -> Standing {
        if let Some(term) = self.term() {
            return Standing::Active { term };
        }
        let reports = self.links.values().map(|link| &link.report);
        let newest = reports.filter(|report| !report.free).max_by_key(|report| report.term);
        let holder = newest.and_then(|report| Some((report.term, report.holder.as_ref()?)));
        let active = holder.filter(|(_, holder)| holder.id != self.me.id).map(|(term, holder)| {
            let host = holder.host.as_deref().unwrap_or_default();
            let rest = match host.contains(':') && !host.starts_with('[') {
                true => format!("[{host}]:{}", holder.port),
                false => format!("{host}:{}", holder.port),
            };
            ActiveGateway { id: holder.id, name: holder.name.clone(), rest, term }
        });
        Standing::Standby { active }
    }

    /// Looks whether the lease still holds. To be called before anything is decided at that time.
    pub(crate) fn check(&mut self, now: Duration) -> Vec<Order> {
        if self.term().is_some() && !self.acts_at(now) {
            self.step_down("its lease has ended");
        }
        std::mem::take(&mut self.orders)
    }

    /// Whether this gateway would still act at that time, if it looked.
    pub(crate) fn acts_at(&self, now: Duration) -> bool {
        match self.state {
            State::Alone { .. } => true,
            State::Active { .. } => self.lease_begin().is_some_and(|begin| now < begin + LEASE),
            State::Standby { .. } | State::Candidate { .. } | State::Retired => false,
        }
    }

    /// A process has connected.
    pub(crate) fn greeted(&mut self, now: Duration, session: SessionId, hello: Hello) -> Vec<Order> {
        if hello.revision != REVISION {
            let refused = Refused { reason: Refusal::Revision { gateway: REVISION } };
            return vec![Order::Send(session, ToProcess::Refused(refused))];
        }
        if hello.term.term > LAST_TERM {
            // No gateway has counted so far, and no higher term could be claimed of the other processes.
            let refused = Refused { reason: Refusal::Void };
            return vec![Order::Send(session, ToProcess::Refused(refused))];
        }
        if let Some(ring) = hello.ring.filter(|ring| ring.formed) {
            self.size = ring.size;
        }
        let place = hello.instance.place();
        self.sole.insert(place, hello.sole);
        let link = Link { place, report: hello.term, granted: None, claimed: None, heard: now };
        self.links.insert(session, link);
        self.count_gateways();
        self.tick(now);
        std::mem::take(&mut self.orders)
    }

    /// A process has granted what was claimed.
    pub(crate) fn granted(&mut self, now: Duration, session: SessionId, term: Term) -> Vec<Order> {
        let wanted = self.claimed_term();
        let Some(link) = self.links.get_mut(&session) else { return Vec::new() };
        link.heard = now;
        let Some((claimed, sent)) = link.claimed.filter(|(claimed, _)| *claimed == term) else {
            return Vec::new();
        };
        if wanted.is_none_or(|wanted| claimed > wanted) {
            return Vec::new();
        }
        link.granted = Some(term);
        link.report = TermReport { term, holder: Some(self.me.clone()), free: false };
        let last = self.acknowledged.entry(link.place).or_default();
        *last = sent.max(*last);
        self.tick(now);
        std::mem::take(&mut self.orders)
    }

    /// A process says what it has granted to others.
    pub(crate) fn reported(&mut self, now: Duration, session: SessionId, report: TermReport) -> Vec<Order> {
        let Some(link) = self.links.get_mut(&session) else { return Vec::new() };
        link.heard = now;
        if report.term > LAST_TERM {
            return Vec::new();
        }
        if report.holder.as_ref().is_none_or(|holder| holder.id != self.me.id) {
            link.granted = None;
        }
        link.report = report;
        self.tick(now);
        std::mem::take(&mut self.orders)
    }

    /// A process has answered a heartbeat.
    pub(crate) fn kept(&mut self, now: Duration, session: SessionId, kept: Kept) {
        let Some(link) = self.links.get_mut(&session) else { return };
        link.heard = now;
        let sent = self.heartbeats.iter().find(|(number, _)| *number == kept.number).map(|(_, at)| *at);
        if let Some(sent) = sent.filter(|_| kept.held && link.granted.is_some()) {
            let last = self.acknowledged.entry(link.place).or_default();
            *last = sent.max(*last);
        }
    }

    /// A connection has ended.
    pub(crate) fn closed(&mut self, session: SessionId) {
        self.links.remove(&session);
    }

    /// Whether the process on that connection has granted what this gateway holds, or claims.
    pub(crate) fn has_granted(&self, session: SessionId) -> bool {
        self.links.get(&session).is_some_and(|link| link.granted.is_some())
    }

    /// Time has passed.
    pub(crate) fn ticked(&mut self, now: Duration) -> Vec<Order> {
        self.send_heartbeats(now);
        self.tick(now);
        std::mem::take(&mut self.orders)
    }

    /// Whether there are other gateways, so that one of them may take over.
    pub(crate) fn has_successor(&self) -> bool {
        matches!(self.state, State::Active { .. })
    }

    /// Gives the term up, for good: this gateway stops.
    pub(crate) fn retire(&mut self) -> Vec<Order> {
        if self.term().is_some() {
            self.step_down("it hands over to another gateway");
            let release = |session: &SessionId| Order::Send(*session, ToProcess::Release(Release {}));
            self.orders.extend(self.links.keys().map(release));
        }
        self.state = State::Retired;
        std::mem::take(&mut self.orders)
    }

    /// Whether a process still stands by this gateway, though it has given its term up.
    pub(crate) fn is_held(&self) -> bool {
        let mine = |link: &Link| link.report.holder.as_ref().is_some_and(|holder| holder.id == self.me.id);
        self.state == State::Retired && self.links.values().any(|link| mine(link) && !link.report.free)
    }

    /// The term that this gateway holds or claims.
    fn claimed_term(&self) -> Option<Term> {
        match self.state {
            State::Alone { .. } => Some(LAST_TERM),
            State::Candidate { term, .. } => Some(term),
            State::Active { term, raising } => Some(raising.unwrap_or(term)),
            State::Standby { .. } | State::Retired => None,
        }
    }

    /// Since when the gateway may act: a majority has answered what was sent then, or later.
    fn lease_begin(&self) -> Option<Duration> {
        let members = self.acknowledged.iter().filter(|(place, _)| **place < self.size);
        let mut times: Vec<Duration> = members.map(|(_, sent)| *sent).collect();
        times.sort_unstable_by(|one, other| other.cmp(one));
        times.get(majority(self.size) - 1).copied()
    }

    /// A process has said whether it knows other gateways.
    fn count_gateways(&mut self) {
        let several = self.sole.values().any(|sole| !sole);
        match self.state {
            State::Alone { term: 0 } if several => self.step_down("there are other gateways"),
            State::Alone { term } if several => self.state = State::Active { term, raising: None },
            State::Active { term, .. } if !several => self.state = State::Alone { term },
            State::Standby { .. } | State::Candidate { .. } if !several => {
                self.state = State::Alone { term: 0 };
                self.orders.push(Order::Begin(0));
            }
            _ => {}
        }
    }

    fn tick(&mut self, now: Duration) {
        match self.state {
            State::Alone { .. } => self.claim_of_sole(now),
            State::Standby { claim_at } => self.consider(now, claim_at),
            State::Candidate { term, since } => self.count(now, term, since),
            State::Active { raising, .. } => self.hold(now, raising),
            State::Retired => {}
        }
    }

    /// Every process that knows only this gateway is claimed, with a term of its own.
    fn claim_of_sole(&mut self, now: Duration) {
        let due = |link: &Link| {
            link.granted.is_none() && link.claimed.is_none_or(|(_, at)| now >= at + CLAIM_AGAIN)
        };
        let due: Vec<SessionId> =
            self.links.iter().filter(|(_, link)| due(link)).map(|(session, _)| *session).collect();
        for session in due {
            let State::Alone { term } = self.state else { return };
            let Some(link) = self.links.get(&session) else { continue };
            let known = link.report.term;
            let is_mine = link.report.holder.as_ref().is_some_and(|holder| holder.id == self.me.id);
            let next = match known {
                LAST_TERM.. if !is_mine => continue,
                // One that comes back: its grant is on its disk already.
                _ if is_mine => known,
                // All that is granted here rises together, so that the next gateway claims above it.
                _ => term.max(known + 1),
            };
            self.state = State::Alone { term: term.max(next) };
            self.claim(now, session, next);
        }
    }

    /// A standby looks whether it should become a candidate.
    fn consider(&mut self, now: Duration, claim_at: Option<Duration>) {
        let free = |link: &&Link| {
            let own = link.report.holder.as_ref().is_some_and(|holder| holder.id == self.me.id);
            (link.report.free || own) && now.saturating_sub(link.heard) < SILENCE
        };
        let free = self.places(self.links.values().filter(free));
        let claim_at = match claim_at {
            _ if free < majority(self.size) => None,
            Some(at) if now < at => Some(at),
            None => Some(now + self.delay()),
            Some(_) => {
                let term = self.next_term();
                if term > LAST_TERM {
                    return;
                }
                self.state = State::Candidate { term, since: now };
                let sessions: Vec<SessionId> = self.links.keys().copied().collect();
                sessions.into_iter().for_each(|session| self.claim(now, session, term));
                return;
            }
        };
        self.state = State::Standby { claim_at };
    }

    /// A candidate counts its grants.
    fn count(&mut self, now: Duration, term: Term, since: Duration) {
        let granted = |link: &&Link| link.granted == Some(term);
        if self.places(self.links.values().filter(granted)) >= majority(self.size) {
            self.state = State::Active { term, raising: None };
            self.orders.push(Order::Begin(term));
        } else if now >= since + CANDIDACY {
            for (session, link) in &mut self.links {
                if link.granted.take().is_some() {
                    self.orders.push(Order::Send(*session, ToProcess::Release(Release {})));
                }
            }
            self.acknowledged.clear();
            self.state = State::Standby { claim_at: Some(now + self.delay()) };
        }
    }

    /// The active gateway claims its term of processes that come later. If one has granted a higher term to a
    /// gateway that did not get a majority, it raises its own above that.
    fn hold(&mut self, now: Duration, mut raising: Option<Term>) {
        if let Some(raised) = raising {
            let granted = |link: &&Link| link.granted.is_some_and(|granted| granted >= raised);
            if self.places(self.links.values().filter(granted)) >= majority(self.size) {
                (self.state, raising) = (State::Active { term: raised, raising: None }, None);
            }
        }
        let State::Active { term, .. } = self.state else { return };
        let wanted = raising.unwrap_or(term);
        let missing = |link: &Link| {
            let other = link.report.holder.as_ref().is_some_and(|holder| holder.id != self.me.id);
            let above = link.report.term > wanted || (link.report.term == wanted && other);
            link.granted.is_none() && above
        };
        if self.links.values().any(missing) {
            let next = self.next_term();
            if next > LAST_TERM {
                return;
            }
            raising = Some(next);
            self.state = State::Active { term, raising };
        }
        let wanted = raising.unwrap_or(term);
        let due = |link: &Link| {
            let lacks = link.granted.is_none_or(|granted| granted < wanted);
            let waits = |(claimed, at): (Term, Duration)| claimed == wanted && now < at + CLAIM_AGAIN;
            lacks && !link.claimed.is_some_and(waits)
        };
        let due: Vec<SessionId> =
            self.links.iter().filter(|(_, link)| due(link)).map(|(session, _)| *session).collect();
        due.into_iter().for_each(|session| self.claim(now, session, wanted));
    }

    fn claim(&mut self, now: Duration, session: SessionId, term: Term) {
        let Some(link) = self.links.get_mut(&session) else { return };
        link.claimed = Some((term, now));
        // One that has granted an earlier term of the same time in office is registered.
        let claim = Claim { term, gateway: self.me.clone(), register: link.granted.is_none() };
        self.orders.push(Order::Send(session, ToProcess::Claim(Box::new(claim))));
    }

    fn step_down(&mut self, why: &'static str) {
        self.state = State::Standby { claim_at: None };
        self.acknowledged.clear();
        for link in self.links.values_mut() {
            (link.granted, link.claimed) = (None, None);
        }
        self.orders.push(Order::End(why));
    }

    fn send_heartbeats(&mut self, now: Duration) {
        if self.heartbeats.back().is_some_and(|(_, sent)| now < *sent + HEARTBEAT_INTERVAL) {
            return;
        }
        self.number += 1;
        while self.heartbeats.front().is_some_and(|(_, sent)| now >= *sent + LEASE) {
            self.heartbeats.pop_front();
        }
        self.heartbeats.push_back((self.number, now));
        let active = self.claimed_term().is_some();
        let heartbeat = Heartbeat { number: self.number, active };
        let send = |session: &SessionId| Order::Send(*session, ToProcess::Heartbeat(heartbeat));
        self.orders.extend(self.links.keys().map(send));
    }

    /// How many different processes of the ring these are.
    fn places<'a>(&self, links: impl Iterator<Item = &'a Link>) -> usize {
        let mut places: Vec<Place> =
            links.map(|link| link.place).filter(|place| *place < self.size).collect();
        places.sort_unstable();
        places.dedup();
        places.len()
    }

    fn next_term(&self) -> Term {
        let own = self.claimed_term().unwrap_or(0);
        let reported = self.links.values().map(|link| link.report.term).max().unwrap_or(0);
        own.max(reported).saturating_add(1)
    }

    /// A random time below [`DELAY`] (xorshift, Marsaglia 2003).
    fn delay(&mut self) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        DELAY.mul_f64((self.random % 1024) as f64 / 1024.0)
    }
}
