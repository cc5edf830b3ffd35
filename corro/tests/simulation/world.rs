//! The world: the queue of what happens next, the network, and the way of an event.
//!
//! Everything happens at a time, in microseconds, and what happens at the same time happens in an order that
//! the seed decides. A connection keeps the order of its messages and nothing else does. When it ends in
//! order, as the kernel ends those of a killed process, what is under way still arrives; when it is cut, it
//! does not, and each side learns of it later or has to conclude it from silence.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use corro::random::Random;
use gateway::engine::Event;
use protocol::message::link::{Hello, Register, ToGateway, ToProcess};
use protocol::message::replication::{ChunkMerged, Confirmed, CopyChunk, Decline, Follow, LogBatch};

use crate::check::Checks;
use crate::client::Client;
use crate::config::Config;
use crate::faults::Faults;
use crate::gateway::Gateway;
use crate::lister::Lister;
use crate::process::{Process, Todo};
use crate::replication::Feed;

/// Microseconds since the beginning of the run.
pub(crate) type Time = u64;

pub(crate) const MILLI: Time = 1_000;
pub(crate) const SECOND: Time = 1_000_000;

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Happening {
    Gateway(u64, AtGateway),
    ToGateway(u64, Up),
    Process(u16, u64, Todo),
    ToProcess(u64, Down),
    Replication(u64, Towards, Replicated),
    Client(usize),
    List,
    /// A question of a client reaches the gateway.
    Ask(u64, Box<Event>),
    Fault,
    RestartGateway,
    RestartProcess(u16),
    ResumeProcess(u16),
    ResumeDisk(u16, u64),
    ResumeGateway,
    Reconnect,
}

/// What the gateway does by itself.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AtGateway {
    Tick,
    Flush,
}

/// From a process to the gateway.
#[derive(Debug)]
pub(crate) enum Up {
    Hello(Box<Hello>),
    Register(Box<Register>),
    Message(ToGateway),
    End,
}

/// From the gateway to a process.
#[derive(Debug)]
pub(crate) enum Down {
    Message(ToProcess),
    End,
}

/// Which end of a replication connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Towards {
    Follower,
    Source,
}

/// Between two processes.
#[derive(Debug)]
pub(crate) enum Replicated {
    Follow(Follow),
    Declined(Decline),
    Log(LogBatch),
    Chunk(CopyChunk),
    ChunkMerged(ChunkMerged),
    Confirmed(Confirmed),
    End,
}

/// A connection of a process to the gateway.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) place: u16,
    pub(crate) life: u64,
    pub(crate) gateway_open: bool,
    pub(crate) process_open: bool,
    /// Nothing arrives any more.
    pub(crate) cut: bool,
    up_free: Time,
    down_free: Time,
}

/// A connection of a follower to its source.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) follower: (u16, u64, protocol::message::link::Role),
    pub(crate) source: (u16, u64),
    pub(crate) follower_open: bool,
    pub(crate) source_open: bool,
    pub(crate) cut: bool,
    pub(crate) feed: Option<Box<Feed>>,
    to_follower_free: Time,
    to_source_free: Time,
}

/// See the module.
pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) rng: Random,
    pub(crate) now: Time,
    /// What the state machines get for time zero.
    epoch: Instant,
    /// Boxed, as it is moved around.
    queue: BTreeMap<(Time, u64, u64), Box<Happening>>,
    scheduled: u64,
    pub(crate) gateway: Gateway,
    pub(crate) processes: Vec<Process>,
    pub(crate) connections: BTreeMap<u64, Connection>,
    pub(crate) streams: BTreeMap<u64, Stream>,
    /// No process can connect to the gateway.
    pub(crate) unreachable: bool,
    /// While nothing passes between the gateway and any process: what would have arrived since.
    pub(crate) late: Option<Vec<Happening>>,
    /// The end of the last time of that kind.
    reconnected: Time,
    pub(crate) clients: Vec<Client>,
    pub(crate) lister: Lister,
    pub(crate) checks: Checks,
    pub(crate) faults: Faults,
    pub(crate) numbers: u64,
    pub(crate) steps: u64,
    /// The last lines, where they will be read.
    trace: Option<VecDeque<String>>,
    /// Of everything that happened.
    pub(crate) hash: u64,
}

/// How much longer a message takes over a slow link.
const SLOW_LINK: Time = 200 * MILLI;

const TRACE_LINES: usize = 60;

impl World {
    pub(crate) fn new(config: Config, tracing: bool) -> Self {
        let mut rng = Random::new(config.seed);
        let processes = (0..config.size).map(|place| Process::new(place, &mut rng)).collect();
        let gateway = Gateway::new(&config, &mut rng);
        let clients = (0..config.clients).map(|_| Client::default()).collect();
        let mut world = Self {
            checks: Checks::new(&config),
            faults: Faults::default(),
            rng,
            now: 0,
            epoch: Instant::now(),
            queue: BTreeMap::new(),
            scheduled: 0,
            gateway,
            processes,
            connections: BTreeMap::new(),
            streams: BTreeMap::new(),
            unreachable: false,
            late: None,
            reconnected: 0,
            clients,
            lister: Lister::default(),
            numbers: 0,
            steps: 0,
            trace: tracing.then(VecDeque::new),
            hash: 0,
            config,
        };
        world.start_gateway();
        for place in 0..world.config.size {
            world.after(1, 300 * MILLI, Happening::RestartProcess(place));
        }
        for client in 0..world.config.clients {
            world.after(10 * MILLI, 20 * MILLI, Happening::Client(client));
        }
        world.after(10 * MILLI, 100 * MILLI, Happening::List);
        world.after(200 * MILLI, 400 * MILLI, Happening::Fault);
        world
    }

    /// The time, as the state machines get it.
    pub(crate) fn instant(&self) -> Instant {
        self.epoch + Duration::from_micros(self.now)
    }

    /// When a state machine with that deadline has to look at the time, unless a tick is scheduled before.
    pub(crate) fn next_tick(&self, deadline: Option<Instant>, scheduled: Option<Time>) -> Option<Time> {
        let at = (deadline? - self.epoch).as_nanos().div_ceil(1_000) as Time;
        let at = at.max(self.now + 1);
        scheduled.is_none_or(|scheduled| at < scheduled).then_some(at)
    }

    /// Schedules something for a moment between `from` and `to` from now.
    pub(crate) fn after(&mut self, from: Time, to: Time, what: Happening) {
        let at = self.now + self.rng.between(from, to.max(from + 1));
        self.at(at, what);
    }

    pub(crate) fn at(&mut self, at: Time, what: Happening) {
        self.scheduled += 1;
        let order = self.rng.next();
        self.queue.insert((at, order, self.scheduled), Box::new(what));
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// One line of the trace; `text` is only asked for where it is read.
    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE_LINES {
                trace.pop_front();
            }
            let mut line = format!("{:>10.3} ms  ", self.now as f64 / MILLI as f64);
            let mut said = text();
            said.truncate(400);
            line.push_str(&said);
            if std::env::var_os("CORRO_TRACE").is_some() {
                println!("{line}");
            }
            trace.push_back(line);
        }
    }

    pub(crate) fn is_tracing(&self) -> bool {
        self.trace.is_some()
    }

    pub(crate) fn trace_text(&self) -> String {
        let mut text = String::new();
        for line in self.trace.iter().flatten() {
            let _ = writeln!(text, "{line}");
        }
        text
    }

    pub(crate) fn mix(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }

    /// The next thing happens.
    pub(crate) fn advance(&mut self) {
        let Some(((at, _, _), happening)) = self.queue.pop_first() else {
            panic!("nothing happens any more");
        };
        assert!(at >= self.now, "time goes on");
        self.now = at;
        self.steps += 1;
        self.mix(at);
        self.happen(*happening);
    }

    pub(crate) fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Gateway(life, what) => {
                if self.gateway.life == life && self.gateway.is_up() {
                    if self.gateway.paused {
                        return self.gateway.backlog.push(Happening::Gateway(life, what));
                    }
                    self.gateway_does(what);
                }
            }
            Happening::ToGateway(id, message) => match &mut self.late {
                Some(late) => late.push(Happening::ToGateway(id, message)),
                None => self.arrive_at_gateway(id, message),
            },
            Happening::Process(place, life, todo) => {
                let process = &mut self.processes[usize::from(place)];
                if process.life == life && process.up {
                    if process.paused {
                        return process.backlog.push(Happening::Process(place, life, todo));
                    }
                    self.process_does(place, todo);
                }
            }
            Happening::ToProcess(id, message) => match &mut self.late {
                Some(late) => late.push(Happening::ToProcess(id, message)),
                None => self.arrive_at_process(id, message),
            },
            Happening::Replication(id, towards, message) => self.arrive_at_copy(id, towards, message),
            Happening::Client(client) => self.client_acts(client),
            Happening::List => self.lister_acts(),
            Happening::Ask(life, event) => {
                if self.gateway.life == life && self.gateway.is_up() {
                    if self.gateway.paused {
                        return self.gateway.backlog.push(Happening::Ask(life, event));
                    }
                    self.step(*event);
                }
            }
            Happening::Fault => self.consider_fault(),
            Happening::RestartGateway => self.start_gateway(),
            Happening::RestartProcess(place) => self.start_process(place),
            Happening::ResumeProcess(place) => self.resume_process(place),
            Happening::ResumeDisk(place, life) => self.resume_disk(place, life),
            Happening::ResumeGateway => self.resume_gateway(),
            Happening::Reconnect => self.reconnect(),
        }
    }

    /// What was waiting in a process that stood still. A message has arrived, so it is not late, even if the
    /// gateway was cut off meanwhile: what was sent behind it would overtake it otherwise.
    pub(crate) fn happen_here(&mut self, happening: Happening) {
        match happening {
            Happening::ToGateway(id, message) => self.arrive_at_gateway(id, message),
            Happening::ToProcess(id, message) => self.arrive_at_process(id, message),
            other => self.happen(other),
        }
    }

    /// How long a message between these processes, or one of them and the gateway, is on its way: usually
    /// short, sometimes not.
    fn delay(&mut self, places: &[u16]) -> Time {
        let slow = |place: &&u16| self.now < self.processes[usize::from(**place)].link_slow_until;
        let more = SLOW_LINK * places.iter().filter(slow).count() as Time;
        let most = if self.rng.percent(self.config.late) { 20 * MILLI } else { self.config.delay };
        more + self.rng.between(20, most.max(21))
    }

    pub(crate) fn connect(&mut self, place: u16) -> u64 {
        let id = self.number();
        let connection = Connection {
            place,
            life: self.processes[usize::from(place)].life,
            gateway_open: true,
            process_open: true,
            cut: false,
            up_free: 0,
            down_free: 0,
        };
        self.connections.insert(id, connection);
        id
    }

    pub(crate) fn send_up(&mut self, id: u64, message: Up) {
        let Some(place) = self.connections.get(&id).map(|connection| connection.place) else { return };
        let at = self.now + self.delay(&[place]);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.up_free = connection.up_free.max(at) + 1;
        let at = connection.up_free;
        self.at(at, Happening::ToGateway(id, message));
    }

    pub(crate) fn send_down(&mut self, id: u64, message: Down) {
        let Some(place) = self.connections.get(&id).map(|connection| connection.place) else { return };
        let at = self.now + self.delay(&[place]);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.down_free = connection.down_free.max(at) + 1;
        let at = connection.down_free;
        self.at(at, Happening::ToProcess(id, message));
    }

    pub(crate) fn open_stream(
        &mut self,
        follower: (u16, u64, protocol::message::link::Role),
        source: (u16, u64),
    ) -> u64 {
        let id = self.number();
        let stream = Stream {
            follower,
            source,
            follower_open: true,
            source_open: true,
            cut: false,
            feed: None,
            to_follower_free: 0,
            to_source_free: 0,
        };
        self.streams.insert(id, stream);
        id
    }

    pub(crate) fn replicate(&mut self, id: u64, towards: Towards, message: Replicated) {
        let Some(stream) = self.streams.get(&id) else { return };
        let places = [stream.follower.0, stream.source.0];
        let at = self.now + self.delay(&places);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let free = match towards {
            Towards::Follower => &mut stream.to_follower_free,
            Towards::Source => &mut stream.to_source_free,
        };
        *free = (*free).max(at) + 1;
        let at = *free;
        self.at(at, Happening::Replication(id, towards, message));
    }

    /// The connection is cut: what is under way is lost, and the sides learn of it some time, or never.
    pub(crate) fn cut(&mut self, id: u64, process_learns: bool) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.cut = true;
        if self.rng.percent(50) {
            self.after(MILLI, 700 * MILLI, Happening::ToGateway(id, Up::End));
        }
        if process_learns && self.rng.percent(50) {
            self.after(MILLI, 700 * MILLI, Happening::ToProcess(id, Down::End));
        }
    }

    /// For so long nothing passes between the gateway and any process. What is under way comes late; where
    /// connections `breaks`, both sides learn of it at once, and none can be made meanwhile.
    pub(crate) fn cut_off(&mut self, millis: u64, breaks: bool) {
        self.note(|| format!("the gateway is cut off for {millis} ms; connections break: {breaks}"));
        if breaks {
            self.unreachable = true;
            let open = self.connections.iter().filter(|(_, each)| each.gateway_open || each.process_open);
            let open: Vec<u64> = open.map(|(id, _)| *id).collect();
            for id in open {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.cut = true;
                }
                self.after(MILLI, 20 * MILLI, Happening::ToGateway(id, Up::End));
                self.after(MILLI, 20 * MILLI, Happening::ToProcess(id, Down::End));
            }
        } else {
            self.late = Some(Vec::new());
        }
        self.after(millis * MILLI, (millis + 1) * MILLI, Happening::Reconnect);
    }

    fn reconnect(&mut self) {
        self.note(|| "the gateway is cut off no longer".to_owned());
        self.unreachable = false;
        self.reconnected = self.now;
        for happening in self.late.take().unwrap_or_default() {
            self.happen(happening);
        }
    }

    /// Whether the gateway is cut off, or hardly knows yet that it is so no longer.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.unreachable || self.late.is_some() || self.now < self.reconnected + 100 * MILLI
    }

    /// A connection between two processes is cut: the source notices by its pings, the follower perhaps only
    /// by the silence.
    pub(crate) fn cut_stream(&mut self, id: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.cut = true;
        if self.rng.percent(50) {
            self.after(MILLI, 3 * SECOND, Happening::Replication(id, Towards::Follower, Replicated::End));
        }
        self.after(MILLI, 4 * SECOND, Happening::Replication(id, Towards::Source, Replicated::End));
    }
}
