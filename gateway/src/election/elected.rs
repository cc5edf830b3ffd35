//! An engine that acts only while this gateway is active.
//!
//! It is the engine with the election before it. When the gateway becomes active, the engine begins as
//! after a start of the gateway, and learns everything from the registrations: there is no other way to
//! recover. When it is not active any more, all that the engine knew is forgotten, and nothing that it had
//! under way is answered from here.

use std::mem;
use std::time::Duration;

use protocol::Version;
use protocol::message::link::{Term, ToGateway};
use protocol::placement::{Partition, partition_of};
use uuid::Uuid;

use super::{Election, Order};
use crate::engine::{
    Command, Engine, EngineConfig, Event, OrderRefused, Repair, RingEvent, SessionId, Unserved,
};
use crate::standing::Standing;
use crate::status::ClusterStatus;

/// See the module.
#[derive(Debug)]
pub struct ElectedEngine {
    election: Election,
    engine: Engine,
    config: EngineConfig,
    /// When the engine began; its own time counts from there.
    begun: Duration,
    /// How many engines there were before.
    before: u128,
    wall_clock: u64,
    /// It hands over when all that is under way has been answered.
    closing: bool,
    /// Registrations that came while this gateway was a candidate, one for each connection.
    early: Vec<Event>,
    /// What was told last of the standing, and whether it may have changed since.
    standing: Option<Standing>,
    may_have_changed: bool,
}

impl ElectedEngine {
    /// Of a gateway that starts.
    pub fn new(config: EngineConfig, election: Election) -> Self {
        Self {
            election,
            engine: Engine::new(config.clone()),
            config,
            begun: Duration::ZERO,
            before: 0,
            wall_clock: 0,
            closing: false,
            early: Vec::new(),
            standing: None,
            may_have_changed: true,
        }
    }

    /// Takes note of the wall clock, as [`Engine::note_wall_clock`] does.
    pub fn note_wall_clock(&mut self, unix_millis: u64) {
        self.wall_clock = self.wall_clock.max(unix_millis);
        self.engine.note_wall_clock(self.wall_clock);
    }

    /// Takes note of an event at `now`, the time since the gateway started. It has to be looked at after the
    /// event has arrived, since that is when the lease has to hold. Appends what is to be done.
    pub fn step(&mut self, now: Duration, event: Event, commands: &mut Vec<Command>) {
        self.check(now, commands);
        match event {
            Event::Hello { session, hello } => {
                let orders = self.election.greeted(now, session, *hello);
                self.obey(now, orders, commands);
            }
            Event::Message { session, message: ToGateway::Granted(granted) } => {
                // A registration follows; one that came before was for an earlier claim.
                self.forget_early(session);
                let orders = self.election.granted(now, session, granted.term);
                self.obey(now, orders, commands);
            }
            Event::Message { session, message: ToGateway::TermReport(report) } => {
                let orders = self.election.reported(now, session, *report);
                self.may_have_changed = true;
                self.obey(now, orders, commands);
            }
            Event::Message { session, message: ToGateway::Kept(kept) } => {
                self.election.kept(now, session, kept);
            }
            Event::Register { session, .. } if !self.election.has_granted(session) => {}
            // The first ones come before the majority is there.
            Event::Register { session, .. } if !self.is_active() => {
                self.forget_early(session);
                self.early.push(event);
            }
            Event::Closed { session } => {
                self.election.closed(session);
                self.forget_early(session);
                self.may_have_changed = true;
                self.decide(now, Event::Closed { session }, commands);
            }
            Event::Tick => {
                let orders = self.election.ticked(now);
                self.obey(now, orders, commands);
                self.decide(now, Event::Tick, commands);
            }
            event => self.decide(now, event, commands),
        }
    }

    fn forget_early(&mut self, session: SessionId) {
        self.early.retain(|early| !matches!(early, Event::Register { session: of, .. } if *of == session));
    }

    fn decide(&mut self, now: Duration, event: Event, commands: &mut Vec<Command>) {
        if self.is_active() {
            self.engine.step(now.saturating_sub(self.begun), event, commands);
        } else {
            commands.extend(refuse(event, self.config.size));
        }
    }

    /// Sends what has queued up, as [`Engine::flush`] does.
    pub fn flush(&mut self, commands: &mut Vec<Command>) {
        if self.is_active() {
            self.engine.flush(commands);
        }
    }

    /// Whether this gateway would still act at that time, if it looked.
    pub fn acts_at(&self, now: Duration) -> bool {
        self.election.acts_at(now)
    }

    /// Whether this gateway is active.
    pub fn is_active(&self) -> bool {
        self.election.term().is_some()
    }

    /// The term in which this gateway is active; `None` where it is not.
    pub fn term(&self) -> Option<Term> {
        self.election.term()
    }

    /// Which gateway is active, where that is news since the last call.
    pub fn news_of_standing(&mut self) -> Option<Standing> {
        if !mem::replace(&mut self.may_have_changed, false) {
            return None;
        }
        let standing = match self.closing {
            // Its requests are for the next one.
            true if self.is_active() => Standing::Standby { active: None },
            _ => self.election.standing(),
        };
        (self.standing.as_ref() != Some(&standing)).then(|| {
            self.standing = Some(standing.clone());
            standing
        })
    }

    /// Begins to hand over to another gateway, if there is one: from now on it says that none is active, so
    /// that no more requests come. Returns whether [`Self::retire`] is to be called when all that are under
    /// way have their answers.
    pub fn close(&mut self) -> bool {
        self.closing = self.election.has_successor();
        self.may_have_changed = true;
        self.closing
    }

    /// Gives the term up.
    pub fn retire(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let orders = self.election.retire();
        self.obey(now, orders, commands);
    }

    /// Whether a process still stands by this gateway, though it has given its term up.
    pub fn is_held(&self) -> bool {
        self.election.is_held()
    }

    /// As [`Engine::is_idle`].
    pub fn is_idle(&self) -> bool {
        self.engine.is_idle()
    }

    /// As [`Engine::status`].
    pub fn status(&self) -> ClusterStatus {
        self.engine.status()
    }

    /// As [`Engine::pause_writes`].
    pub fn pause_writes(&mut self, now: Duration, partition: Partition) {
        self.engine.pause_writes(now.saturating_sub(self.begun), partition);
    }

    /// As [`Engine::resume_writes`].
    pub fn resume_writes(&mut self, partition: Partition) {
        self.engine.resume_writes(partition);
    }

    /// As [`Engine::repair`].
    ///
    /// # Errors
    /// As there.
    pub fn repair(
        &mut self,
        partition: Partition,
        repair: Repair,
        commands: &mut Vec<Command>,
    ) -> Result<(), OrderRefused> {
        self.engine.repair(partition, repair, commands)
    }

    /// As [`Engine::promote`].
    ///
    /// # Errors
    /// As there.
    pub fn promote(
        &mut self,
        now: Duration,
        partition: Partition,
        commands: &mut Vec<Command>,
    ) -> Result<(), OrderRefused> {
        self.engine.promote(now.saturating_sub(self.begun), partition, commands)
    }

    /// Before anything is decided: whether the lease holds.
    pub fn check(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let orders = self.election.check(now);
        self.obey(now, orders, commands);
    }

    fn obey(&mut self, now: Duration, orders: Vec<Order>, commands: &mut Vec<Command>) {
        self.may_have_changed |= !orders.is_empty();
        for order in orders {
            match order {
                Order::Send(session, message) => commands.push(Command::Send { session, message }),
                Order::Begin(term) => {
                    self.begin_anew(now);
                    commands.push(Command::Report(RingEvent::GatewayActive { term }));
                    for register in mem::take(&mut self.early) {
                        let granted = match &register {
                            Event::Register { session, .. } => self.election.has_granted(*session),
                            _ => false,
                        };
                        if granted {
                            self.decide(now, register, commands);
                        }
                    }
                }
                Order::End(why) => {
                    self.begin_anew(now);
                    commands.extend([Command::StepDown, Command::Report(RingEvent::GatewayStandby { why })]);
                }
            }
        }
    }

    /// Forgets the ring.
    fn begin_anew(&mut self, now: Duration) {
        self.before += 1;
        // A ring that the engine before has formed was formed before, not here.
        let new_ring = Uuid::from_u128(self.config.new_ring.as_u128().wrapping_add(self.before));
        let engine = Engine::new(EngineConfig { new_ring, ..self.config.clone() });
        drop(mem::replace(&mut self.engine, engine));
        self.engine.note_wall_clock(self.wall_clock);
        self.begun = now;
    }
}

/// The answer to a request that came to a gateway that is not active. Nothing was done.
fn refuse(event: Event, size: u16) -> Option<Command> {
    let unserved =
        |partition| Unserved::Unavailable { partition, waiting_for: "another gateway takes over".to_owned() };
    Some(match event {
        Event::Read { request, id } => {
            Command::AnswerRead { request, result: Err(unserved(partition_of(&id, size))) }
        }
        Event::Write { request, id, .. } | Event::PurgeUser { request, id } => Command::AnswerWrite {
            request,
            version: Version::ZERO,
            result: Err(unserved(partition_of(&id, size))),
        },
        Event::Question { request, partition, .. } => {
            Command::AnswerQuestion { request, result: Err(unserved(partition)) }
        }
        Event::EraseInCopy { request, id, .. } => {
            Command::AnswerQuestion { request, result: Err(unserved(partition_of(&id, size))) }
        }
        Event::Size { request } => Command::AnswerSize { request, result: Err(unserved(0)) },
        Event::Subscribe { request } => Command::AnswerSubscribe { request, result: Err(unserved(0)) },
        _ => return None,
    })
}
