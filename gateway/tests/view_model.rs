//! The rules of the view, as a model that is looked at exhaustively: whatever happens in whatever order, up
//! to a few losses of processes and of the gateway, no copy leads without everything that was acknowledged,
//! and no gateway that starts believes a leader that another has followed.
//!
//! The model is one partition of a ring of three: the primary copy is at place 0, the replica at place 1, and
//! the process at place 2 only persists views. It says in a hundred lines what `engine::view` and
//! `engine::failover` do in a thousand: a rule that changes there changes here. A step is one thing
//! that one part does: a process persists the view, a write is applied, its answer arrives, an entry of an
//! op-log is followed, something dies. Between any two steps anything else may happen. The simulation of the
//! `corro` crate drives the real code, but by chance; this is complete, but not the real code.
//!
//! The search is breadth first over a set of the states that were seen. A model checker as a library would
//! bring a few dozen packages and a web server for these twenty lines.
//!
//! What the model leaves out: emptied disks, power cuts, a tail that overflows, reads, and writes that are
//! sent again.

use std::collections::HashSet;

/// Primary or replica: its place, too.
type Role = usize;
/// One bit a write, in the order in which they were taken.
type Writes = u8;

/// In a ring of two the last one is never there.
const PLACES: usize = 3;
/// More views than a gateway makes here.
const GAP: u8 = 20;
/// Of three.
const MAJORITY: usize = 2;

/// A deliberate bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bug {
    BelieveFirstView,
    PromoteUncovered,
    TailNotReplayed,
    MoveUndrained,
    /// A copy leads as soon as its view is made.
    LeadByViewNotKept,
    /// A move is announced as if it were done.
    AnnounceAsDone,
    /// A gateway that starts numbers its views from the last one that it received.
    NoGap,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct View {
    epoch: u8,
    leader: Role,
    promoting: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Copy {
    /// Accepted here.
    log: Writes,
    /// Applied of the other's op-log.
    followed: Writes,
    /// Handed over by a gateway.
    merged: Writes,
}

impl Copy {
    fn has(self) -> Writes {
        self.log | self.followed | self.merged
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Phase {
    Down,
    Serving,
    Draining,
    Confirming { merged: bool },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Gateway {
    view: View,
    /// What its first view leaves out.
    gap: u8,
    registered: [bool; PLACES],
    known: bool,
    phase: Phase,
    leader: Role,
    /// Epoch of the view that says so, and whether it was persisted.
    decided: u8,
    persisted: bool,
    announced: Option<u8>,
    last_leader: Option<Role>,
    /// A copy that has followed these lacks nothing but the tail.
    base: Writes,
    tail: Writes,
    /// Sent to the leader, and not answered.
    unanswered: Writes,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct State {
    /// n: two or three.
    size: usize,
    up: [bool; PLACES],
    /// On disk.
    views: [View; PLACES],
    copies: [Copy; 2],
    gateway: Option<Gateway>,
    acknowledged: Writes,
    /// The newest view by which a copy ever led.
    relied: (u8, Role),
    left: Left,
}

/// How often something may still happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Left {
    losses: u8,
    gateways: u8,
    writes: u8,
    moves: u8,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    StartGateway,
    LoseGateway,
    Lose(usize),
    Return(usize),
    Register(usize),
    Keep(usize),
    Follow(Role),
    Merge,
    Apply,
    Answer,
    Announce,
    Begin,
    Drained,
    GiveUp,
}

/// All there are; most cannot happen most of the time.
fn steps() -> impl Iterator<Item = Step> {
    use Step::{
        Announce, Answer, Apply, Begin, Drained, Follow, GiveUp, Keep, Lose, LoseGateway, Merge, Register,
        Return, StartGateway,
    };
    let each = (0..PLACES).flat_map(|place| [Lose(place), Return(place), Register(place), Keep(place)]);
    let all = [
        StartGateway,
        LoseGateway,
        Follow(0),
        Follow(1),
        Merge,
        Apply,
        Answer,
        Announce,
        Begin,
        Drained,
        GiveUp,
    ];
    each.chain(all)
}

impl State {
    fn first(size: usize, left: Left) -> Self {
        Self {
            size,
            up: std::array::from_fn(|place| place < size),
            views: [View::default(); PLACES],
            copies: [Copy::default(); 2],
            gateway: None,
            acknowledged: 0,
            relied: (0, 0),
            left,
        }
    }

    /// The state after a step, if that can happen now.
    fn after(&self, step: Step, bug: Option<Bug>) -> Option<Self> {
        let mut next = *self;
        match step {
            Step::StartGateway => next.start_gateway(bug)?,
            Step::LoseGateway => {
                next.gateway.take()?;
                next.left.gateways = next.left.gateways.checked_sub(1)?;
            }
            Step::Lose(place) => {
                next.left.losses = next.left.losses.checked_sub(1)?;
                next.lose(place)?;
            }
            Step::Return(place) => {
                (!next.up[place] && place < next.size).then_some(())?;
                next.up[place] = true;
            }
            Step::Register(place) => next.register(place, bug)?,
            Step::Keep(place) => {
                let view = next.gateway.filter(|gateway| gateway.registered[place])?.view;
                (view.epoch > next.views[place].epoch).then_some(())?;
                next.views[place] = view;
            }
            Step::Follow(role) => {
                (next.up[0] && next.up[1]).then_some(())?;
                let missing = next.copies[1 - role].log & !next.copies[role].followed;
                (missing != 0).then_some(())?;
                next.copies[role].followed |= 1 << missing.trailing_zeros();
            }
            Step::Merge => {
                let gateway = next.gateway.as_mut()?;
                (gateway.phase == Phase::Confirming { merged: false }).then_some(())?;
                gateway.phase = Phase::Confirming { merged: true };
                if bug != Some(Bug::TailNotReplayed) {
                    next.copies[gateway.leader].merged |= gateway.tail;
                }
            }
            Step::Apply => {
                let gateway = next.gateway.as_mut().filter(|gateway| gateway.phase == Phase::Serving)?;
                next.left.writes = next.left.writes.checked_sub(1)?;
                let write: Writes = 1 << (7 - next.left.writes);
                next.copies[gateway.leader].log |= write;
                gateway.unanswered |= write;
            }
            Step::Answer => {
                let gateway = next.gateway.as_mut()?;
                (gateway.unanswered != 0).then_some(())?;
                next.acknowledged |= gateway.unanswered;
                gateway.tail |= std::mem::take(&mut gateway.unanswered);
            }
            Step::Announce => {
                next.left.moves = next.left.moves.checked_sub(1)?;
                next.announce(bug)?;
            }
            Step::Begin => {
                let gateway = next.gateway?;
                let epoch = gateway.announced.filter(|_| gateway.phase == Phase::Serving)?;
                next.is_persisted(gateway, 1 - gateway.leader, epoch, bug).then_some(())?;
                next.gateway.as_mut()?.phase = Phase::Draining;
            }
            Step::Drained => {
                let gateway = next.gateway.as_mut().filter(|gateway| gateway.phase == Phase::Draining)?;
                let other = 1 - gateway.leader;
                let followed = (gateway.base | gateway.tail) & !next.copies[other].followed == 0;
                let drained = gateway.unanswered == 0 || bug == Some(Bug::MoveUndrained);
                (followed && drained && gateway.registered[other]).then_some(())?;
                gateway.go_by(View { leader: other, promoting: true, ..gateway.view });
                gateway.phase = Phase::Confirming { merged: false };
            }
            Step::GiveUp => {
                let gateway = next.gateway.as_mut()?;
                matches!(gateway.phase, Phase::Serving | Phase::Draining).then_some(())?;
                gateway.announced.take()?;
                gateway.phase = Phase::Serving;
                let epoch = gateway.after(gateway.view.epoch);
                gateway.view = View { epoch, leader: gateway.leader, promoting: false };
            }
        }
        next.settle(bug);
        Some(next)
    }

    fn start_gateway(&mut self, bug: Option<Bug>) -> Option<()> {
        self.gateway.is_none().then_some(())?;
        self.gateway = Some(Gateway {
            view: View::default(),
            gap: if bug == Some(Bug::NoGap) { 0 } else { GAP },
            registered: [false; PLACES],
            known: false,
            phase: Phase::Down,
            leader: 0,
            decided: 0,
            persisted: false,
            announced: None,
            last_leader: None,
            base: 0,
            tail: 0,
            unanswered: 0,
        });
        Some(())
    }

    fn lose(&mut self, place: usize) -> Option<()> {
        self.up[place].then_some(())?;
        self.up[place] = false;
        if let Some(gateway) = &mut self.gateway {
            gateway.registered[place] = false;
            if gateway.leader == place {
                // None of them is acknowledged. They are sent again in earnest; here they may come back with
                // their leader.
                gateway.unanswered = 0;
            }
        }
        Some(())
    }

    fn register(&mut self, place: usize, bug: Option<Bug>) -> Option<()> {
        let (size, up, view) = (self.size, self.up[place], self.views[place]);
        let gateway = self.gateway.as_mut().filter(|gateway| up && !gateway.registered[place])?;
        gateway.registered[place] = true;
        if view.epoch > gateway.view.epoch {
            let ours = std::mem::replace(&mut gateway.view, view);
            if gateway.last_leader.is_none() && gateway.phase == Phase::Down {
                (gateway.leader, gateway.decided, gateway.persisted) = (view.leader, view.epoch, false);
            } else if (ours.leader, ours.promoting) != (view.leader, view.promoting) {
                // This gateway has relied on its own view since.
                gateway.view = View { epoch: gateway.after(view.epoch), ..ours };
            }
        }
        let both = gateway.registered[0] && gateway.registered[1];
        gateway.known |=
            both || size > 2 && gateway.count() >= MAJORITY || bug == Some(Bug::BelieveFirstView);
        Some(())
    }

    fn announce(&mut self, bug: Option<Bug>) -> Option<()> {
        let copies = self.copies;
        let gateway = self.gateway.as_mut().filter(|gateway| gateway.phase == Phase::Serving)?;
        let (leader, other) = (gateway.leader, 1 - gateway.leader);
        let exchanged = copies[other].log & !copies[leader].followed == 0;
        (gateway.announced.is_none() && gateway.registered[other] && exchanged).then_some(())?;
        let promoting = bug != Some(Bug::AnnounceAsDone);
        gateway.view = View { epoch: gateway.after(gateway.view.epoch), leader: other, promoting };
        gateway.announced = Some(gateway.view.epoch);
        Some(())
    }

    fn is_persisted(&self, gateway: Gateway, role: Role, epoch: u8, bug: Option<Bug>) -> bool {
        let persists = |place: usize| gateway.registered[place] && self.views[place].epoch >= epoch;
        let persisting = (0..PLACES).filter(|&place| persists(place)).count();
        let enough = persists(role) && (self.size == 2 || persisting >= MAJORITY || persists(1 - role));
        enough || bug == Some(Bug::LeadByViewNotKept)
    }

    /// What the gateway does at once.
    fn settle(&mut self, bug: Option<Bug>) {
        let Some(mut gateway) = self.gateway.filter(|gateway| gateway.known) else { return };
        let there = gateway.registered[gateway.leader];
        match gateway.phase {
            Phase::Serving | Phase::Draining | Phase::Confirming { .. } if there => {}
            _ => self.find_leader(&mut gateway, bug),
        }
        gateway.persisted |= self.is_persisted(gateway, gateway.leader, gateway.decided, bug);
        if gateway.phase == (Phase::Confirming { merged: true }) && gateway.persisted {
            gateway.phase = Phase::Serving;
            if gateway.last_leader != Some(gateway.leader)
                || gateway.base | gateway.tail != self.copies[gateway.leader].log
            {
                (gateway.base, gateway.tail) = (self.copies[gateway.leader].log, 0);
            }
            gateway.last_leader = Some(gateway.leader);
            let now = (gateway.decided, gateway.leader);
            assert!(now == self.relied || now.0 > self.relied.0, "{now:?} leads after {:?}", self.relied);
            self.relied = now;
            if gateway.view.promoting {
                gateway.go_by(View { promoting: false, ..gateway.view });
            }
        }
        self.gateway = Some(gateway);
    }

    fn find_leader(&self, gateway: &mut Gateway, bug: Option<Bug>) {
        let named = gateway.view;
        let can_be_persisted = self.size == 2 || gateway.count() >= MAJORITY;
        let before = std::mem::replace(&mut gateway.phase, Phase::Down);
        gateway.announced = gateway.announced.filter(|_| before == Phase::Serving);
        match gateway.last_leader.or((!named.promoting).then_some(named.leader)) {
            Some(leader) if gateway.registered[leader] => {
                gateway.go_by(View { leader, promoting: false, ..named });
                if gateway.persisted || can_be_persisted {
                    gateway.phase = Phase::Confirming { merged: true };
                }
            }
            Some(leader) => {
                let other = 1 - leader;
                // This gateway has seen who led, so it has what the other one may lack.
                let covered =
                    gateway.last_leader.is_some() && gateway.base & !self.copies[other].followed == 0;
                if gateway.registered[other]
                    && can_be_persisted
                    && (covered || bug == Some(Bug::PromoteUncovered))
                {
                    gateway.go_by(View { leader: other, promoting: true, ..named });
                    gateway.phase = Phase::Confirming { merged: false };
                } else if before != Phase::Down {
                    gateway.go_by(View { leader, promoting: false, ..named });
                }
            }
            None => {
                let all_of = |role: Role| self.copies[1 - role].log & !self.copies[role].followed == 0;
                if gateway.registered[0] && gateway.registered[1] && all_of(0) && all_of(1) {
                    gateway.go_by(View { leader: 0, promoting: false, ..named });
                    gateway.phase = Phase::Confirming { merged: false };
                }
            }
        }
    }

    /// What must be true.
    fn check(&self) {
        let Some(gateway) = &self.gateway else { return };
        if matches!(gateway.phase, Phase::Serving | Phase::Draining) {
            let has = self.copies[gateway.leader].has();
            assert!(
                self.acknowledged & !has == 0,
                "{} leads with {has:b}, and {:b} are acknowledged",
                gateway.leader,
                self.acknowledged
            );
        }
    }

    /// Whether the partition is served in the end, when nothing is lost any more.
    fn recovers(mut self) -> bool {
        self.left = Left { losses: 0, gateways: 0, writes: 0, moves: 0 };
        while let Some(next) =
            steps().filter(|step| !matches!(step, Step::GiveUp)).find_map(|step| self.after(step, None))
        {
            self = next;
        }
        self.check();
        self.gateway.is_some_and(|gateway| gateway.phase == Phase::Serving)
    }
}

impl Gateway {
    fn count(&self) -> usize {
        self.registered.iter().filter(|registered| **registered).count()
    }

    /// The epoch of its next view.
    fn after(&mut self, last: u8) -> u8 {
        last + 1 + std::mem::take(&mut self.gap)
    }

    /// Goes by a view: the one that there is, the one that was announced, or a new one.
    fn go_by(&mut self, view: View) {
        let announced = self.announced.take().filter(|_| view == self.view);
        if view != self.view {
            self.view = View { epoch: self.after(self.view.epoch), ..view };
        }
        if announced.is_some() || self.decided != self.view.epoch {
            (self.decided, self.persisted) = (self.view.epoch, false);
        }
        self.leader = view.leader;
    }
}

/// Looks at every state that can be reached. Returns how many there are; panics where one breaks a promise,
/// and says how it came to that.
fn explore(size: usize, left: Left, bug: Option<Bug>) -> usize {
    let first = State::first(size, left);
    let mut seen = HashSet::from([first]);
    // Each with the number of the one before it, and the step from there.
    let mut states = vec![(first, 0, Step::StartGateway)];
    let mut at = 0;
    while at < states.len() {
        let state = states[at].0;
        let look = || {
            state.check();
            assert!(bug.is_some() || state.recovers(), "it is never served again");
            steps().filter_map(|step| Some((state.after(step, bug)?, step))).collect::<Vec<_>>()
        };
        let after = std::panic::catch_unwind(look).unwrap_or_else(|broken| {
            let mut way = Vec::new();
            let mut last = at;
            while last != 0 {
                way.push(states[last].2);
                last = states[last].1;
            }
            way.reverse();
            println!("{bug:?}: {way:?}, then {state:?}");
            std::panic::resume_unwind(broken)
        });
        states.extend(
            after.into_iter().filter(|(next, _)| seen.insert(*next)).map(|(next, step)| (next, at, step)),
        );
        at += 1;
    }
    states.len()
}

#[test]
fn no_order_of_events_breaks_a_promise() {
    for size in [2, 3] {
        for left in [
            Left { losses: 1, gateways: 1, writes: 2, moves: 1 },
            Left { losses: 2, gateways: 1, writes: 1, moves: 1 },
            Left { losses: 1, gateways: 2, writes: 1, moves: 1 },
        ] {
            println!("{size}, {left:?}: {} states", explore(size, left, None));
        }
    }
}

#[test]
fn each_bug_is_found() {
    let one_gateway = Left { losses: 1, gateways: 1, writes: 1, moves: 1 };
    let two_gateways = Left { losses: 1, gateways: 2, writes: 0, moves: 0 };
    for (size, left, bug) in [
        (2, one_gateway, Bug::BelieveFirstView),
        (3, one_gateway, Bug::PromoteUncovered),
        (3, one_gateway, Bug::TailNotReplayed),
        (3, one_gateway, Bug::MoveUndrained),
        (3, one_gateway, Bug::LeadByViewNotKept),
        (3, one_gateway, Bug::AnnounceAsDone),
        (3, two_gateways, Bug::NoGap),
    ] {
        let found = std::panic::catch_unwind(|| explore(size, left, Some(bug)));
        assert!(found.is_err(), "{bug:?} is not found in {found:?} states");
    }
}
