//! Several gateways: the real elections and the real links of the db-processes, over a network that delays
//! and cuts, with processes that are killed, paused, and whose clocks drift.
//!
//! Users are left out. What is checked at every step: at most one gateway may act; a process takes nothing of
//! a term below one that it has granted, also after a restart; and when the faults are over, one gateway has
//! all processes registered within two seconds.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use corro::random::Random;
use db_process::identity::Grant;
use db_process::link::event::{Command as LinkCommand, Event as LinkEvent, LinkId, ProcessEvent, Todo};
use db_process::link::links::{Links, Target};
use db_process::link::retry::Backoff;
use gateway::election::{ElectedEngine, Election};
use gateway::engine::{Command, EngineConfig, Event, SessionId};
use protocol::message::REVISION;
use protocol::message::link::{
    CopyReport, CopyReports, Hello, Register, ReplicationAddress, Ring, ToGateway, ToProcess, View,
};
use protocol::{InstanceName, Version};
use uuid::Uuid;

/// Microseconds.
type Time = u64;

const MILLI: Time = 1_000;
const SECOND: Time = 1_000_000;

/// How long faults happen.
const TROUBLE: Time = 6 * SECOND;

/// How much faster or slower a clock may go, in thousandths: far more than a real one.
const DRIFT: u64 = 20;

#[derive(Debug)]
enum Up {
    Hello(Box<Hello>),
    Register(Box<Register>),
    Message(ToGateway),
    End,
}

#[derive(Debug)]
enum Happening {
    ToGateway(u64, Up),
    /// `None`: the connection ends.
    ToProcess(u64, Option<ToProcess>),
    TickGateway(usize, u64),
    TickProcess(usize, u64),
    Connect(usize, u64, LinkId),
    Persisted(usize, u64, Grant),
    StartGateway(usize),
    StartProcess(usize),
    Resume(usize),
    Fault,
}

struct Gateway {
    engine: Option<ElectedEngine>,
    life: u64,
    started: Time,
    paused: bool,
    backlog: Vec<Happening>,
    /// Its clock, in thousandths of the true one.
    pace: u64,
}

struct Process {
    links: Option<Links>,
    life: u64,
    started: Instant,
    begun: Time,
    grant: Grant,
    /// The highest term that it has ever granted.
    highest: u64,
    pace: u64,
    connections: BTreeMap<LinkId, u64>,
}

struct Connection {
    gateway: (usize, u64),
    process: (usize, u64),
    link: LinkId,
    cut: bool,
    open: bool,
    free: [Time; 2],
}

struct World {
    rng: Random,
    now: Time,
    queue: BTreeMap<(Time, u64), Happening>,
    scheduled: u64,
    gateways: Vec<Gateway>,
    processes: Vec<Process>,
    connections: BTreeMap<u64, Connection>,
    /// Gateway and process between which nothing passes, until then.
    cuts: BTreeMap<(usize, usize), Time>,
    ring: Ring,
    /// How often a gateway became active.
    elections: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Random::new(seed);
        let count = 2 + (rng.next() % 2) as usize;
        let size = 3 + 2 * (rng.next() % 2) as u16;
        let pace = |rng: &mut Random| rng.between(1_000 - DRIFT, 1_000 + DRIFT);
        let gateways = (0..count)
            .map(|_| Gateway {
                engine: None,
                life: 0,
                started: 0,
                paused: false,
                backlog: Vec::new(),
                pace: pace(&mut rng),
            })
            .collect();
        let processes = (0..size)
            .map(|_| Process {
                links: None,
                life: 0,
                started: Instant::now(),
                begun: 0,
                grant: Grant::default(),
                highest: 0,
                pace: pace(&mut rng),
                connections: BTreeMap::new(),
            })
            .collect();
        let ring = Ring { id: Uuid::from_u128(1), size, formed: true };
        let mut world = Self {
            rng,
            now: 0,
            queue: BTreeMap::new(),
            scheduled: 0,
            gateways,
            processes,
            connections: BTreeMap::new(),
            cuts: BTreeMap::new(),
            ring,
            elections: 0,
        };
        for gateway in 0..count {
            world.after(0, 200 * MILLI, Happening::StartGateway(gateway));
        }
        for process in 0..usize::from(size) {
            world.after(0, 200 * MILLI, Happening::StartProcess(process));
        }
        world.after(SECOND, 2 * SECOND, Happening::Fault);
        world
    }

    fn after(&mut self, from: Time, to: Time, what: Happening) {
        let at = self.now + self.rng.between(from, to.max(from + 1));
        self.at(at, what);
    }

    fn at(&mut self, at: Time, what: Happening) {
        self.scheduled += 1;
        self.queue.insert((at, self.scheduled), what);
    }

    fn run(&mut self) {
        let end = TROUBLE + 6 * SECOND;
        while let Some(((at, _), happening)) = self.queue.pop_first() {
            if at > end {
                return;
            }
            self.now = at;
            self.happen(happening);
            self.check();
        }
    }

    fn check(&self) {
        let acting = |gateway: &&Gateway| {
            let now = gateway_time(gateway, self.now);
            gateway.engine.as_ref().is_some_and(|engine| engine.acts_at(now))
        };
        let acting: Vec<Option<u64>> = self
            .gateways
            .iter()
            .filter(acting)
            .map(|gateway| gateway.engine.as_ref().and_then(ElectedEngine::term))
            .filter(|term| *term != Some(0))
            .collect();
        assert!(acting.len() <= 1, "several gateways may act: terms {acting:?}");
    }

    fn happen(&mut self, happening: Happening) {
        let gateway = match &happening {
            Happening::TickGateway(gateway, _) => Some(*gateway),
            Happening::ToGateway(id, _) => self.connections.get(id).map(|connection| connection.gateway.0),
            _ => None,
        };
        if let Some(gateway) = gateway.filter(|gateway| self.gateways[*gateway].paused) {
            return self.gateways[gateway].backlog.push(happening);
        }
        match happening {
            Happening::StartGateway(gateway) => self.start_gateway(gateway),
            Happening::StartProcess(process) => self.start_process(process),
            Happening::TickGateway(gateway, life) => {
                if self.gateways[gateway].life == life {
                    self.after(10 * MILLI, 11 * MILLI, Happening::TickGateway(gateway, life));
                    self.step_gateway(gateway, Event::Tick);
                }
            }
            Happening::TickProcess(process, life) => {
                if self.processes[process].life == life {
                    self.after(5 * MILLI, 10 * MILLI, Happening::TickProcess(process, life));
                    self.step_process(process, None, ProcessEvent::Tick);
                }
            }
            Happening::Connect(process, life, link) => self.connect(process, life, link),
            Happening::Persisted(process, life, grant) => {
                if self.processes[process].life == life {
                    assert!(grant.term > self.processes[process].highest, "a term is granted twice");
                    self.processes[process].highest = grant.term;
                    self.processes[process].grant = grant;
                    self.step_process(process, None, ProcessEvent::GrantPersisted);
                }
            }
            Happening::ToGateway(id, message) => self.arrive_at_gateway(id, message),
            Happening::ToProcess(id, message) => self.arrive_at_process(id, message),
            Happening::Resume(gateway) => {
                self.gateways[gateway].paused = false;
                let mut backlog = std::mem::take(&mut self.gateways[gateway].backlog);
                backlog.sort_by_key(|each| !matches!(each, Happening::TickGateway(..)));
                backlog.into_iter().for_each(|each| self.happen(each));
            }
            Happening::Fault => self.fault(),
        }
    }

    fn fault(&mut self) {
        if self.now >= TROUBLE {
            return;
        }
        self.after(20 * MILLI, 900 * MILLI, Happening::Fault);
        let gateway = self.rng.next() as usize % self.gateways.len();
        let process = self.rng.next() as usize % self.processes.len();
        match self.rng.next() % 6 {
            0 => {
                self.end_gateway(gateway);
                self.after(10 * MILLI, 900 * MILLI, Happening::StartGateway(gateway));
            }
            1 if !self.gateways[gateway].paused => {
                self.gateways[gateway].paused = true;
                self.after(10 * MILLI, SECOND, Happening::Resume(gateway));
            }
            2 => {
                self.end_process(process);
                self.after(10 * MILLI, 900 * MILLI, Happening::StartProcess(process));
            }
            3 => {
                let until = self.now + self.rng.between(50 * MILLI, SECOND);
                self.cuts.insert((gateway, process), until);
            }
            4 => {
                let until = self.now + self.rng.between(50 * MILLI, SECOND);
                for process in 0..self.processes.len() {
                    self.cuts.insert((gateway, process), until);
                }
            }
            _ => {
                if let Some(engine) = &mut self.gateways[gateway].engine
                    && engine.close()
                {
                    let now = gateway_time(&self.gateways[gateway], self.now);
                    let mut commands = Vec::new();
                    if let Some(engine) = &mut self.gateways[gateway].engine {
                        engine.retire(now, &mut commands);
                    }
                    self.carry_out(gateway, commands);
                    self.end_gateway(gateway);
                    self.after(10 * MILLI, 900 * MILLI, Happening::StartGateway(gateway));
                }
            }
        }
    }

    fn start_gateway(&mut self, gateway: usize) {
        if self.gateways[gateway].engine.is_some() {
            return;
        }
        let id = self.rng.uuid();
        let me = protocol::term::Gateway { id, name: format!("gateway-{gateway}"), host: None, port: 1 };
        // Some expect another ring than the one that they find.
        let election = Election::new(me, 3, self.rng.next());
        let config = EngineConfig {
            size: 3,
            new_ring: self.rng.uuid(),
            tail_bytes: 1 << 20,
            max_clock_offset: Duration::from_secs(60),
        };
        let here = &mut self.gateways[gateway];
        here.engine = Some(ElectedEngine::new(config, election));
        here.life += 1;
        here.started = self.now;
        let life = here.life;
        self.after(1, 10 * MILLI, Happening::TickGateway(gateway, life));
    }

    fn end_gateway(&mut self, gateway: usize) {
        let here = &mut self.gateways[gateway];
        here.engine = None;
        here.life += 1;
        here.paused = false;
        here.backlog.clear();
        let ended: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, each)| each.gateway.0 == gateway)
            .map(|(id, _)| *id)
            .collect();
        ended.into_iter().for_each(|id| self.send_down(id, None));
    }

    fn start_process(&mut self, process: usize) {
        if self.processes[process].links.is_some() {
            return;
        }
        let seed = self.rng.next();
        let target = |gateway| Target { url: format!("ws://gateway-{gateway}"), host: "here".to_owned() };
        let targets = (0..self.gateways.len()).map(target).collect();
        let here = &mut self.processes[process];
        let grant = here.grant.clone();
        let backoff = || Backoff::with_jitter_seed(seed);
        here.begun = self.now;
        here.links = Some(Links::new(name_of(process), targets, grant, here.started, backoff));
        here.life += 1;
        let life = here.life;
        self.after(1, 5 * MILLI, Happening::TickProcess(process, life));
    }

    fn end_process(&mut self, process: usize) {
        let here = &mut self.processes[process];
        here.links = None;
        here.life += 1;
        let ended = std::mem::take(&mut here.connections);
        ended.into_values().for_each(|id| self.send_up(id, Up::End));
    }

    fn step_gateway(&mut self, gateway: usize, event: Event) {
        let now = gateway_time(&self.gateways[gateway], self.now);
        let mut commands = Vec::new();
        let Some(engine) = &mut self.gateways[gateway].engine else { return };
        let before = engine.term();
        engine.note_wall_clock(1_700_000_000_000);
        engine.step(now, event, &mut commands);
        let after = engine.term();
        self.elections += u64::from(before.is_none() && after.is_some());
        self.carry_out(gateway, commands);
    }

    fn carry_out(&mut self, _: usize, commands: Vec<Command>) {
        for command in commands {
            if let Command::Send { session: SessionId(id), message } = command {
                self.send_down(id, Some(message));
            }
        }
    }

    /// What happened on a link, or to the process as a whole.
    fn step_process(&mut self, process: usize, on: Option<(LinkId, LinkEvent)>, event: ProcessEvent) {
        let here = &mut self.processes[process];
        let now = here.started + scaled(self.now - here.begun, here.pace);
        let mut todos = Vec::new();
        let Some(links) = &mut here.links else { return };
        match on {
            Some((link, event)) => links.step_on(now, link, event, &mut todos),
            None => links.step(now, event, &mut todos),
        }
        let life = here.life;
        for todo in todos {
            match todo {
                Todo::On(link, command) => self.link_does(process, link, command),
                Todo::PersistGrant(grant) => {
                    self.after(20, 5 * MILLI, Happening::Persisted(process, life, grant));
                }
                Todo::End(ended) => panic!("process {process} ends: {ended:?}"),
            }
        }
    }

    fn link_does(&mut self, process: usize, link: LinkId, command: LinkCommand) {
        let life = self.processes[process].life;
        let connection = self.processes[process].connections.get(&link).copied();
        let up = match command {
            LinkCommand::Connect => return self.after(1, 500, Happening::Connect(process, life, link)),
            LinkCommand::Disconnect => {
                self.processes[process].connections.remove(&link);
                Up::End
            }
            LinkCommand::Hello(hello) => Up::Hello(hello),
            LinkCommand::Register(register) => Up::Register(register),
            LinkCommand::Send(message) => Up::Message(message),
            LinkCommand::Prepare => {
                let register = Box::new(self.register(process));
                let prepared = LinkEvent::Prepared(register);
                return self.step_process(process, Some((link, prepared)), ProcessEvent::Tick);
            }
            LinkCommand::Notice(session, notice) => {
                let persisted = Ok((Some(notice.ring), notice.view.epoch));
                let noticed = LinkEvent::Noticed { session, persisted };
                return self.step_process(process, Some((link, noticed)), ProcessEvent::Tick);
            }
            _ => return,
        };
        if let Some(id) = connection {
            self.send_up(id, up);
        }
    }

    fn register(&self, process: usize) -> Register {
        let copy = |number: u128| CopyReport {
            incarnation: Uuid::from_u128(100 + 2 * process as u128 + number),
            complete: true,
            head: 0,
            position: None,
            version: Version::ZERO,
            flushed: 0,
            other: None,
            rollback: None,
        };
        Register {
            revision: REVISION,
            instance: name_of(process),
            incarnation: Uuid::from_u128(10 + process as u128),
            ring: Some(self.ring),
            view: View::first(self.ring.size),
            replication: ReplicationAddress { host: None, port: 1 },
            copies: CopyReports { primary: copy(0), replica: copy(1) },
        }
    }

    fn connect(&mut self, process: usize, life: u64, link: LinkId) {
        if self.processes[process].life != life {
            return;
        }
        let cut = self.is_cut(link, process);
        let event = if self.gateways[link].engine.is_none() || cut {
            LinkEvent::Lost("refused".to_owned())
        } else {
            self.scheduled += 1;
            let id = self.scheduled;
            let connection = Connection {
                gateway: (link, self.gateways[link].life),
                process: (process, life),
                link,
                cut: false,
                open: true,
                free: [0, 0],
            };
            self.connections.insert(id, connection);
            self.processes[process].connections.insert(link, id);
            LinkEvent::Connected(Some(self.ring))
        };
        self.step_process(process, Some((link, event)), ProcessEvent::Tick);
    }

    fn is_cut(&self, gateway: usize, process: usize) -> bool {
        self.cuts.get(&(gateway, process)).is_some_and(|until| self.now < *until)
    }

    /// When something that is sent now arrives; `None` where it is lost, and so all that follows.
    fn arrival(&mut self, id: u64, up: bool) -> Option<Time> {
        let (gateway, process) = {
            let connection = self.connections.get(&id)?;
            (connection.gateway.0, connection.process.0)
        };
        let most = if self.rng.percent(2) { 60 * MILLI } else { MILLI };
        let at = self.now + self.rng.between(20, most);
        let cut = self.is_cut(gateway, process);
        let connection = self.connections.get_mut(&id)?;
        connection.cut |= cut;
        if connection.cut {
            return None;
        }
        let free = &mut connection.free[usize::from(up)];
        *free = (*free).max(at) + 1;
        Some(*free)
    }

    fn send_up(&mut self, id: u64, message: Up) {
        if let Some(at) = self.arrival(id, true) {
            self.at(at, Happening::ToGateway(id, message));
        }
    }

    fn send_down(&mut self, id: u64, message: Option<ToProcess>) {
        if let Some(at) = self.arrival(id, false) {
            self.at(at, Happening::ToProcess(id, message));
        }
    }

    fn arrive_at_gateway(&mut self, id: u64, message: Up) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (gateway, life) = connection.gateway;
        if self.gateways[gateway].life != life || !connection.open {
            return;
        }
        let session = SessionId(id);
        let event = match message {
            Up::Hello(hello) => Event::Hello { session, hello },
            Up::Register(register) => Event::Register { session, host: "there".to_owned(), register },
            Up::Message(message) => Event::Message { session, message },
            Up::End => {
                connection.open = false;
                Event::Closed { session }
            }
        };
        self.step_gateway(gateway, event);
    }

    fn arrive_at_process(&mut self, id: u64, message: Option<ToProcess>) {
        let Some(connection) = self.connections.get(&id) else { return };
        let ((process, life), link) = (connection.process, connection.link);
        let here = &self.processes[process];
        if here.life != life || here.connections.get(&link) != Some(&id) {
            return;
        }
        let event = match message {
            Some(message) => LinkEvent::Message(message),
            None => LinkEvent::Lost("the gateway ended".to_owned()),
        };
        self.step_process(process, Some((link, event)), ProcessEvent::Tick);
    }

    /// The faults have been over for a while.
    fn check_end(&self) {
        let active: Vec<&ElectedEngine> = self
            .gateways
            .iter()
            .filter_map(|gateway| gateway.engine.as_ref())
            .filter(|engine| engine.is_active())
            .collect();
        assert_eq!(active.len(), 1, "one gateway is active");
        let status = active[0].status();
        let connected = status.processes.iter().filter(|process| process.connected).count();
        assert_eq!(connected, self.processes.len(), "all processes are registered there");
    }
}

fn name_of(process: usize) -> InstanceName {
    format!("db-{process}").parse().expect("a name with its place")
}

fn scaled(time: Time, pace: u64) -> Duration {
    Duration::from_micros(time * pace / 1_000)
}

fn gateway_time(gateway: &Gateway, now: Time) -> Duration {
    scaled(now - gateway.started, gateway.pace)
}

#[test]
fn no_two_gateways_act_and_one_always_comes_back() {
    let seeds = std::env::var("CORRO_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(150);
    let only = std::env::var("CORRO_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    let mut elections = 0;
    for seed in only.map_or(0..seeds, |seed| seed..seed + 1) {
        let ran = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.run();
            world.check_end();
            world.elections
        });
        match ran {
            Ok(more) => elections += more,
            Err(_) => panic!("CORRO_SEED={seed} repeats it"),
        }
    }
    println!("{elections} elections");
    assert!(only.is_some() || elections > 2 * seeds, "{elections} elections in {seeds} runs");
}
