//! The gateway: the real engine, driven as the engine task drives it.

use std::time::Duration;

use corro::random::Random;
use gateway::election::{ElectedEngine, Election};
use gateway::engine::{Command, EngineConfig, Event, RequestId, RingEvent, SessionId};
use protocol::message::link::ToGateway;
use protocol::{UserId, Version};

use crate::config::Config;
use crate::feed::Feed;
use crate::world::{AtGateway, Down, Happening, MILLI, SECOND, Time, Up, World};

/// The gateway's process.
pub(crate) struct Gateway {
    pub(crate) engine: Option<ElectedEngine>,
    pub(crate) life: u64,
    started: Time,
    pub(crate) paused: bool,
    pub(crate) backlog: Vec<Happening>,
    flush_due: bool,
    /// Whether it has been ready since it started: before, it is not asked.
    pub(crate) was_ready: bool,
    /// What its wall clock shows beyond the time of the run, in milliseconds.
    pub(crate) wall: u64,
    config: EngineConfig,
}

impl Gateway {
    pub(crate) fn new(config: &Config, rng: &mut Random) -> Self {
        let config = EngineConfig {
            size: config.size,
            new_ring: rng.uuid(),
            tail_bytes: config.tail_bytes,
            // Its clock is set back and forth by up to half an hour.
            max_clock_offset: Duration::from_secs(3600),
        };
        Self {
            engine: None,
            life: 0,
            started: 0,
            paused: false,
            backlog: Vec::new(),
            flush_due: false,
            was_ready: false,
            wall: 1_000_000,
            config,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.engine.is_some()
    }

    /// The ring as a person is shown it: whether every partition is at home, and both its copies answer
    /// reads.
    pub(crate) fn is_whole(&self) -> bool {
        self.engine.as_ref().is_some_and(|engine| {
            let status = engine.status();
            status.ready
                && status.processes.iter().all(|process| process.connected)
                && status
                    .partitions
                    .iter()
                    .all(|partition| partition.waiting_for.is_none() && partition.unreplicated == 0)
        })
    }
}

impl World {
    pub(crate) fn start_gateway(&mut self) {
        if self.gateway.is_up() {
            return;
        }
        self.gateway.config.new_ring = self.rng.uuid();
        self.gateway.life += 1;
        let id = self.rng.uuid();
        let me = protocol::term::Gateway { id, name: "gateway".to_owned(), host: None, port: 1 };
        let election = Election::new(me, self.config.size, self.rng.next());
        let mut engine = ElectedEngine::new(self.gateway.config.clone(), election);
        engine.note_wall_clock(self.unix_millis());
        self.gateway.engine = Some(engine);
        self.gateway.started = self.now;
        self.gateway.was_ready = false;
        self.gateway.flush_due = false;
        self.note(|| "gateway starts".to_owned());
        let life = self.gateway.life;
        self.after(1, 10 * MILLI, Happening::Gateway(life, AtGateway::Tick));
        self.checks.feed = Feed::default();
    }

    /// There is always a subscriber, as soon as the gateway allows it.
    fn hear_changes(&mut self) {
        if !self.checks.feed.asked {
            self.checks.feed.asked = true;
            let request = RequestId(self.number());
            self.step(Event::Subscribe { request });
        }
    }

    /// Now and then tombstones go, but not at the end: when all is quiet the copies are compared.
    fn forget_deleted(&mut self) {
        if let Some(age) = self.config.purge_after
            && self.checks.asked < self.config.operations
            && self.rng.percent(20)
        {
            let upto = Version::at_unix_millis(self.unix_millis().saturating_sub(age));
            self.step(Event::Purge { upto });
        }
    }

    /// Now and then what is out of date goes from the op-logs, and what the operator wants.
    fn erase_now_and_then(&mut self) {
        let Some(age) = self.config.purge_after else { return };
        if self.checks.asked >= self.config.operations {
            return;
        }
        if self.rng.percent(20) {
            let upto = Version::at_unix_millis(self.unix_millis().saturating_sub(age));
            self.step(Event::EraseOld { upto, every: Duration::from_millis(20) });
        }
        if self.rng.percent(5) {
            let request = self.number();
            let id = UserId::from_u128(u128::from(self.rng.between(0, self.config.users)));
            // Of another one it is refused, which shows little.
            if self.checks.is_deleted(&id) {
                self.note(|| format!("operator asks {request} to forget user {}", id.as_u128()));
                self.checks.wanted.insert(request);
                self.step(Event::PurgeUser { request: RequestId(request), id });
            }
        }
    }

    /// In the end, when all is quiet: nothing that is out of date is left in any op-log.
    pub(crate) fn erase_all(&mut self) {
        if self.config.purge_after.is_none() {
            return;
        }
        // What a copy has followed is on its disk, and confirmed, a moment later.
        let settled = self.now + SECOND;
        while self.now < settled {
            self.advance();
        }
        let upto = Version(u64::MAX);
        let copies = 2 * usize::from(self.config.size);
        self.checks.erased.retain(|_, erased| *erased >= upto);
        while self.checks.erased.values().filter(|erased| **erased >= upto).count() < copies {
            self.step(Event::EraseOld { upto, every: Duration::ZERO });
            self.advance();
        }
    }

    pub(crate) fn kill_gateway(&mut self) {
        self.note(|| "gateway killed".to_owned());
        self.gateway.engine = None;
        self.gateway.paused = false;
        self.gateway.backlog.clear();
        let open: Vec<u64> =
            self.connections.iter().filter(|(_, each)| each.gateway_open).map(|(id, _)| *id).collect();
        for id in open {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.gateway_open = false;
            }
            self.send_down(id, Down::End);
        }
        self.clients_lose_gateway();
        self.lister_loses_gateway();
    }

    pub(crate) fn pause_gateway(&mut self, millis: u64) {
        self.note(|| format!("gateway stands still for {millis} ms"));
        self.gateway.paused = true;
        self.after(millis * MILLI, (millis + 1) * MILLI, Happening::ResumeGateway);
    }

    pub(crate) fn resume_gateway(&mut self) {
        if !std::mem::take(&mut self.gateway.paused) {
            return;
        }
        self.note(|| "gateway goes on".to_owned());
        let mut backlog = std::mem::take(&mut self.gateway.backlog);
        // The engine task looks at the time first.
        backlog.sort_by_key(|each| !matches!(each, Happening::Gateway(_, AtGateway::Tick)));
        for happening in backlog {
            self.happen_here(happening);
        }
    }

    pub(crate) fn gateway_does(&mut self, what: AtGateway) {
        match what {
            AtGateway::Tick => {
                let life = self.gateway.life;
                self.after(10 * MILLI, 11 * MILLI, Happening::Gateway(life, AtGateway::Tick));
                let unix_millis = self.unix_millis();
                if let Some(engine) = &mut self.gateway.engine {
                    engine.note_wall_clock(unix_millis);
                }
                self.step(Event::Tick);
                self.hear_changes();
                self.forget_deleted();
                self.erase_now_and_then();
                if !self.gateway.was_ready {
                    let ready = self.gateway.engine.as_ref().is_some_and(|engine| engine.status().ready);
                    self.gateway.was_ready = ready;
                }
            }
            AtGateway::Flush => {
                self.gateway.flush_due = false;
                let mut commands = Vec::new();
                if let Some(engine) = &mut self.gateway.engine {
                    engine.flush(&mut commands);
                }
                self.carry_out(commands);
            }
        }
    }

    pub(crate) fn arrive_at_gateway(&mut self, id: u64, message: Up) {
        let Some(connection) = self.connections.get(&id) else { return };
        let place = connection.place;
        let lost = connection.cut && !matches!(message, Up::End);
        if lost || !connection.gateway_open || !self.gateway.is_up() {
            return;
        }
        if self.gateway.paused {
            return self.gateway.backlog.push(Happening::ToGateway(id, message));
        }
        let session = SessionId(id);
        match message {
            Up::Hello(hello) => {
                self.note(|| format!("gateway ← {place} #{id} {hello:?}"));
                self.step(Event::Hello { session, hello });
            }
            Up::Register(register) => {
                self.note(|| format!("gateway ← {place} #{id} {register:?}"));
                self.step(Event::Register { session, host: format!("host-{place}"), register });
            }
            Up::Message(message) => {
                if let ToGateway::WriteAnswers(answers) = &message {
                    self.expect_answers(id, answers);
                }
                if self.is_tracing() && !matches!(message, ToGateway::Alive(_) | ToGateway::Kept(_)) {
                    self.note(|| format!("gateway ← {place} #{id} {message:?}"));
                }
                self.step(Event::Message { session, message });
                self.checks.arriving.clear();
            }
            Up::End => {
                self.note(|| format!("gateway ← {place} #{id} ended"));
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.gateway_open = false;
                }
                self.step(Event::Closed { session });
            }
        }
    }

    pub(crate) fn step(&mut self, event: Event) {
        let now = Duration::from_micros(self.now - self.gateway.started);
        let mut commands = Vec::new();
        let Some(engine) = &mut self.gateway.engine else { return };
        engine.step(now, event, &mut commands);
        self.carry_out(commands);
        if !std::mem::replace(&mut self.gateway.flush_due, true) {
            let life = self.gateway.life;
            self.after(1, 200, Happening::Gateway(life, AtGateway::Flush));
        }
    }

    fn carry_out(&mut self, commands: Vec<Command>) {
        let mut failed = Vec::new();
        for command in commands {
            match command {
                Command::Send { session: SessionId(id), message } => {
                    let open = self.connections.get(&id).is_some_and(|connection| connection.gateway_open);
                    if open {
                        self.check_sent(id, &message);
                        self.send_down(id, Down::Message(message));
                    } else if !failed.contains(&id) {
                        failed.push(id);
                    }
                }
                Command::AnswerRead { request: RequestId(request), result } => {
                    self.read_answered(request, result);
                }
                Command::AnswerWrite { request, result, .. }
                    if request.is_own() || self.checks.wanted.remove(&request.0) =>
                {
                    self.purged(&result);
                }
                Command::AnswerWrite { request: RequestId(request), result, .. } => {
                    self.write_answered(request, result);
                }
                Command::AnswerQuestion { request: RequestId(request), result } => {
                    self.question_answered(request, result);
                }
                Command::AnswerSubscribe { result, .. } => self.checks.feed.asked = result.is_ok(),
                Command::BeginFeed { after } => self.checks.feed.begin(after),
                Command::Publish(news) => {
                    self.note(|| format!("published: {news:?}"));
                    news.into_iter().for_each(|published| self.checks.feed.publish(published));
                }
                Command::StepDown => unreachable!("there is no other gateway"),
                Command::AnswerSize { .. } => unreachable!("n is known here"),
                Command::Report(event) => self.report(&event),
            }
        }
        for id in failed {
            self.step(Event::Closed { session: SessionId(id) });
        }
    }

    fn report(&mut self, event: &RingEvent) {
        self.note(|| format!("gateway: {event:?}"));
    }

    /// Milliseconds since 1970, as the gateway has it.
    pub(crate) fn unix_millis(&self) -> u64 {
        self.gateway.wall + self.now / MILLI
    }

    /// How long the ring may take to be whole again.
    pub(crate) const WHOLE_WITHIN: Time = 20 * SECOND;
}
