//! The link of a db-process to the gateway: the real rules, over connections that are made up.

use std::collections::BTreeMap;
use std::time::Instant;

use db_process::copy::{asking, document};
use db_process::identity::Grant;
use db_process::link::event::{Command, Event, ProcessEvent, SessionId, Todo as LinkTodo, Work};
use db_process::link::links::{Links, Target};
use db_process::link::retry::Backoff;
use db_process::node::plan::{Plan, plan};
use db_process::store::Store;
use protocol::message::REVISION;
use protocol::message::link::{
    Expected, Following, ReadAnswers, ReadBatch, Register, ReplicationAddress, RingNotice, Role, ToGateway,
    ToProcess,
};
use protocol::message::query::{Answer, CountAnswer, Query};

use crate::process::{Process, Todo};
use crate::world::{Down, Happening, MILLI, Time, Up, World};

const SOUND: &str = "a store in memory can be read";

/// See the module.
pub(crate) struct Link {
    state: Links,
    /// The tick that is scheduled.
    tick: Option<Time>,
    /// The attempt to connect that is under way.
    attempt: Option<u64>,
    pub(crate) connection: Option<u64>,
    /// Which connection a session of the state was.
    sessions: BTreeMap<SessionId, u64>,
}

impl Link {
    /// Of a process that tries to connect first at that time.
    pub(crate) fn new(place: u16, grant: Grant, begins: Instant, seed: u64) -> Self {
        let backoff = || Backoff::with_jitter_seed(seed);
        let gateway = Target { url: String::new(), host: "gateway".to_owned() };
        let state = Links::new(Process::name(place), vec![gateway], grant, begins, backoff);
        Self { state, tick: None, attempt: None, connection: None, sessions: BTreeMap::new() }
    }

    pub(crate) fn is_registered(&self) -> bool {
        self.state.registered().is_some()
    }

    /// The connection of a session, if the process is still registered on it.
    pub(crate) fn open(&self, session: SessionId) -> Option<u64> {
        self.connection.filter(|_| self.state.registered() == Some((0, session)))
    }

    /// The connection of a session, over or not.
    pub(crate) fn connection_of(&self, session: SessionId) -> u64 {
        self.sessions[&session]
    }
}

impl World {
    pub(crate) fn step_link(&mut self, place: u16, event: Event) {
        let (now, mut todos) = (self.instant(), Vec::new());
        self.process(place).link.state.step_on(now, 0, event, &mut todos);
        self.links_do(place, todos);
    }

    pub(crate) fn step_links(&mut self, place: u16, event: ProcessEvent) {
        let (now, mut todos) = (self.instant(), Vec::new());
        self.process(place).link.state.step(now, event, &mut todos);
        self.links_do(place, todos);
    }

    fn links_do(&mut self, place: u16, todos: Vec<LinkTodo>) {
        let life = self.process(place).life;
        for todo in todos {
            match todo {
                LinkTodo::On(_, command) => self.link_does(place, command),
                LinkTodo::PersistGrant(grant) => {
                    let (least, most) = self.disk_takes(place).unwrap_or((20, 5 * MILLI));
                    self.todo(place, least, most, Todo::GrantPersisted(grant));
                }
                LinkTodo::End(Ok(())) => self.exit(place),
                LinkTodo::End(Err(reason)) => panic!("{place} is refused for good: {reason}"),
            }
            let process = self.process(place);
            if !process.up || process.life != life {
                return;
            }
        }
        let link = &self.process(place).link;
        let (deadline, tick) = (link.state.deadline(), link.tick);
        if let Some(at) = self.next_tick(deadline, tick) {
            self.process(place).link.tick = Some(at);
            self.todo_at(place, at, Todo::TickLink(at));
        }
    }

    pub(crate) fn tick_link(&mut self, place: u16, at: Time) {
        let link = &mut self.process(place).link;
        if link.tick == Some(at) {
            link.tick = None;
            self.step_links(place, ProcessEvent::Tick);
        }
    }

    /// Does what `db_process::link::gateway` does.
    fn link_does(&mut self, place: u16, command: Command) {
        match command {
            Command::Connect => {
                let attempt = self.number();
                self.process(place).link.attempt = Some(attempt);
                self.todo(place, 1, 500, Todo::Connect(attempt));
            }
            Command::Disconnect => self.hang_up(place),
            Command::Registered(_) => {}
            Command::Hello(hello) => {
                if let Some(id) = self.process(place).link.connection {
                    self.send_up(id, Up::Hello(hello));
                }
            }
            Command::Prepare => {
                let process = self.process(place);
                let register = Register {
                    revision: REVISION,
                    instance: Process::name(place),
                    incarnation: process.incarnation,
                    ring: process.membership.as_ref().map(|kept| kept.ring),
                    view: process.view(),
                    replication: ReplicationAddress { host: None, port: process.port() },
                    copies: process.reports(),
                };
                if let Some(id) = process.link.connection {
                    let session = process.link.sessions.len() as SessionId + 1;
                    process.link.sessions.insert(session, id);
                }
                self.step_link(place, Event::Prepared(Box::new(register)));
            }
            Command::Register(register) => {
                if let Some(id) = self.process(place).link.connection {
                    self.send_up(id, Up::Register(register));
                }
            }
            Command::Send(message) => self.tell_gateway(place, message),
            Command::SendChanges => {
                let changes = self.process(place).changes();
                self.tell_gateway(place, ToGateway::CopiesChanged(Box::new(changes)));
            }
            Command::Read(batch) => self.look_up(place, &batch),
            Command::Count(query) => {
                let count = self.process(place).store(query.role).meta().expect(SOUND).users;
                let answer = CountAnswer { query: query.query, count };
                self.tell_gateway(place, ToGateway::Answer(Answer::CountAnswer(answer)));
            }
            Command::Write(session, batch) => self.give_writes(place, session, batch),
            Command::Merge(session, batch) => self.give_merge(place, session, batch),
            Command::Ask(session, work, Query::EraseQuery(query)) => {
                self.todo(place, 1, 20 * MILLI, Todo::Erase(session, work, query));
            }
            Command::Ask(session, work, query) => {
                self.todo(place, 1, 2 * MILLI, Todo::Answer(session, work, query));
            }
            Command::Notice(session, notice) => self.take_notice(place, session, notice),
            Command::Compare(Expected { role, flushed, followed }) => {
                let sound = self.compare_disk(place, role, flushed, followed);
                self.step_link(place, Event::Compared { role, sound });
            }
            Command::Renew(_) => unreachable!("no repair is asked for"),
        }
    }

    /// An attempt to connect to the gateway ends.
    pub(crate) fn connect_process(&mut self, place: u16, attempt: u64) {
        if self.process(place).link.attempt != Some(attempt) {
            return;
        }
        self.process(place).link.attempt = None;
        if !self.gateway.is_up() || self.unreachable {
            return self.step_link(place, Event::Lost("refused".to_owned()));
        }
        let id = self.connect(place);
        let process = self.process(place);
        process.link.connection = Some(id);
        let ring = process.membership.as_ref().map(|kept| kept.ring);
        self.step_link(place, Event::Connected(ring));
    }

    fn hang_up(&mut self, place: u16) {
        let link = &mut self.process(place).link;
        link.attempt = None;
        let Some(id) = link.connection.take() else { return };
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.process_open = false;
            if !connection.cut {
                self.send_up(id, Up::End);
            }
        }
    }

    fn tell_gateway(&mut self, place: u16, message: ToGateway) {
        if let Some(id) = self.process(place).link.connection {
            self.send_up(id, Up::Message(message));
        }
    }

    pub(crate) fn arrive_at_process(&mut self, id: u64, message: Down) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (place, life) = (connection.place, connection.life);
        let lost = connection.cut && !matches!(message, Down::End);
        let process = self.process(place);
        if lost || process.life != life || !process.up {
            return;
        }
        if process.paused {
            return process.backlog.push(Happening::ToProcess(id, message));
        }
        if process.link.connection != Some(id) {
            return;
        }
        let message = match message {
            Down::End => {
                self.note(|| format!("{place} #{id}: the gateway hung up"));
                return self.step_link(place, Event::Lost("the gateway hung up".to_owned()));
            }
            Down::Message(message) => message,
        };
        if !matches!(message, ToProcess::Beat(_) | ToProcess::Heartbeat(_)) {
            self.note(|| format!("{place} #{id} ← {message:?}"));
        }
        self.step_link(place, Event::Message(message));
    }

    fn look_up(&mut self, place: u16, batch: &ReadBatch) {
        let process = self.process(place);
        let mut results = Vec::new();
        for (role, ids) in [(Role::Primary, &batch.primary), (Role::Replica, &batch.replica)] {
            for id in ids {
                let record = process.store(role).get(id).expect(SOUND);
                results.push(record.and_then(|record| document::live(*id, record)));
            }
        }
        self.tell_gateway(place, ToGateway::ReadAnswers(ReadAnswers { batch: batch.batch, results }));
    }

    /// Another thread answers a question about one of the copies.
    pub(crate) fn answer_question(&mut self, place: u16, session: SessionId, work: Work, query: &Query) {
        let snapshot = |role| self.processes[usize::from(place)].store(role).snapshot().expect(SOUND);
        let answer = match query {
            Query::PageQuery(query) => {
                Answer::PageAnswer(asking::page(&snapshot(query.role), query).expect(SOUND))
            }
            Query::CountQuery(_) => unreachable!("it is answered at once"),
            Query::EraseQuery(_) => unreachable!("it has a thread of its own"),
            Query::ChangesQuery(query) => {
                Answer::ChangesAnswer(asking::changes(&snapshot(query.role), query).expect(SOUND))
            }
            Query::TombstoneQuery(query) => {
                Answer::TombstoneAnswer(asking::tombstones(&snapshot(query.role), query).expect(SOUND))
            }
            Query::DigestQuery(query) => {
                Answer::DigestAnswer(asking::digests(&snapshot(query.role), query.query).expect(SOUND))
            }
        };
        self.step_link(place, Event::Done { session, work, answer: ToGateway::Answer(answer) });
    }

    fn take_notice(&mut self, place: u16, session: SessionId, notice: RingNotice) {
        let process = self.process(place);
        let reports = process.reports();
        let planned = plan(process.membership.as_ref(), &reports, notice);
        let plan = planned.unwrap_or_else(|contradiction| panic!("a notice for {place}: {contradiction}"));
        let slow = self.disk_takes(place);
        let (least, most) = match &plan.persist {
            Some(_) => slow.unwrap_or((20, 5 * MILLI)),
            None => (1, 20),
        };
        self.todo(place, least, most, Todo::Persisted(session, Box::new(plan)));
    }

    /// A grant is on disk.
    pub(crate) fn grant_persisted(&mut self, place: u16, grant: Grant) {
        self.process(place).grant = grant;
        self.step_links(place, ProcessEvent::GrantPersisted);
    }

    /// The ring or the view of a notice is on disk.
    pub(crate) fn persisted(&mut self, place: u16, session: SessionId, mut plan: Plan) {
        if let Some(membership) = plan.persist.take() {
            self.process(place).membership = Some(membership);
            Role::ALL.into_iter().for_each(|role| self.feed_followers(place, role));
        }
        self.carry_plan_out(place, plan);
        if self.process(place).up {
            let persisted = Ok(self.process(place).kept());
            self.step_link(place, Event::Noticed { session, persisted });
        }
    }

    /// The state of a copy has changed.
    pub(crate) fn report_copy(&mut self, place: u16, role: Role) {
        let report = self.process(place).worker(role).state.report;
        self.step_links(place, ProcessEvent::Copy(role, report));
    }

    /// A copy follows, or no longer.
    pub(crate) fn tell_following(&mut self, place: u16) {
        let process = self.process(place);
        let follows = |role| process.following.get(role).follows;
        let following = Following { primary: follows(Role::Primary), replica: follows(Role::Replica) };
        self.step_links(place, ProcessEvent::Following(following));
    }
}
