//! The loop over all connections, with `epoll`.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::requests::{Expected, Requests};
use super::wire::Wire;
use super::{Outcome, Spec};
use crate::bench::cpu::{CpuTimes, Watched, cpu_times};
use crate::bench::sides::Made;
use crate::client::Endpoint;
use crate::latencies::Latencies;

/// No answer is longer, or has more headers.
const LONGEST_ANSWER: usize = 64 << 10;
const MAX_HEADERS: usize = 32;

/// Silence after which the target is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the timer is called among the events; the connections are called by their place.
const TIMER: u64 = u64::MAX;

/// A generator at work.
pub(super) struct Engine {
    target: Endpoint,
    address: SocketAddr,
    epoll: OwnedFd,
    /// Wakes for the next request that is due: the timeout of `epoll` itself is in whole milliseconds, in
    /// which several are.
    timer: OwnedFd,
    connections: Vec<Connection>,
    /// Those without a request under way, the one that has rested longest first, so that none rests until it
    /// is closed.
    idle: VecDeque<usize>,
    requests: Requests,
    /// Open loop: the moments at which requests were due that wait for a connection, and when the next one
    /// is.
    waiting: VecDeque<Instant>,
    next_due: Option<Instant>,
    interval: Option<Duration>,
    processes: Vec<Watched>,
    warm_up: Duration,
    length: Duration,
    first_user: u64,
    request: Vec<u8>,
    measured: Measured,
    made: Option<Made>,
    shutdown: CancellationToken,
}

/// One keep-alive connection.
struct Connection {
    stream: Wire,
    /// What has come of the answer.
    buffer: Vec<u8>,
    filled: usize,
    /// The request under way, and the moment from which it counts.
    under_way: Option<(Instant, Expected)>,
}

/// What was seen so far.
#[derive(Default)]
struct Measured {
    /// Whether the warm-up is over.
    counts: bool,
    latencies: Latencies,
    errors: u64,
    first_error: Option<String>,
}

impl Engine {
    /// # Errors
    /// Where a connection cannot be made.
    pub(super) fn new(spec: &Spec) -> anyhow::Result<Self> {
        let addresses = spec.target.base.socket_addrs(|| None).with_context(|| spec.target.to_string())?;
        let address = *addresses.first().context("no such address")?;
        let mut engine = Self {
            target: spec.target.clone(),
            address,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            timer: timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?,
            connections: Vec::new(),
            idle: (0..spec.connections as usize).collect(),
            requests: Requests::new(spec),
            waiting: VecDeque::new(),
            next_due: None,
            interval: spec.rate.map(|rate| Duration::from_secs(1) / rate),
            processes: spec.processes.clone(),
            warm_up: spec.warm_up,
            length: spec.length,
            first_user: spec.users.start,
            request: Vec::new(),
            measured: Measured::default(),
            made: spec.made.clone(),
            shutdown: spec.shutdown.clone(),
        };
        let timer = epoll::EventData::new_u64(TIMER);
        epoll::add(&engine.epoll, &engine.timer, timer, epoll::EventFlags::IN)?;
        engine.processes.push(Watched { name: "generator".to_owned(), pid: std::process::id() });
        for place in 0..spec.connections as usize {
            let connection = engine.connect(place)?;
            engine.connections.push(connection);
        }
        Ok(engine)
    }

    fn connect(&self, place: usize) -> anyhow::Result<Connection> {
        let stream = Wire::connect(&self.target, &self.address, PATIENCE)?;
        let data = epoll::EventData::new_u64(place as u64);
        epoll::add(&self.epoll, stream.tcp(), data, epoll::EventFlags::IN)?;
        Ok(Connection { stream, buffer: vec![0; LONGEST_ANSWER], filled: 0, under_way: None })
    }

    /// # Errors
    /// Where the target is lost, or falls silent, or a process to watch has ended.
    pub(super) fn run(mut self) -> anyhow::Result<Outcome> {
        let started = Instant::now();
        if self.interval.is_some() {
            self.next_due = Some(started);
        } else {
            self.ask_all(started)?;
        }
        // Users that are taken one after the other have to last.
        self.go_on_until(started.checked_add(self.warm_up), self.requests.users() / 10)?;
        let (began, before) = self.begin()?;
        let all_used = self.go_on_until(began.checked_add(self.length), u64::MAX)?;
        let seconds = began.elapsed().as_secs_f64();
        let after = cpu_times(&self.processes)?;
        let latencies = std::mem::take(&mut self.measured.latencies);
        if !all_used {
            self.drain()?;
        }
        let of = |share| latencies.quantile(share).as_secs_f64();
        Ok(Outcome {
            requests: latencies.count(),
            errors: self.measured.errors,
            first_error: self.measured.first_error,
            seconds,
            p50: of(0.5),
            p99: of(0.99),
            p999: of(0.999),
            max: latencies.max().as_secs_f64(),
            cpu: after.into_iter().map(|(name, time)| (name.clone(), time - before[&name])).collect(),
            used: self.first_user..self.first_user + self.requests.taken(),
        })
    }

    fn begin(&mut self) -> anyhow::Result<(Instant, CpuTimes)> {
        self.measured.counts = true;
        let before = cpu_times(&self.processes)?;
        Ok((Instant::now(), before))
    }

    /// Sends and receives, until then or until so many users are taken. Returns true where there is nothing
    /// more to send and all is answered.
    fn go_on_until(&mut self, end: Option<Instant>, taken: u64) -> anyhow::Result<bool> {
        let mut events = Vec::with_capacity(self.connections.len());
        loop {
            if self.shutdown.is_cancelled() {
                self.drain()?;
                bail!("interrupted");
            }
            let mut now = Instant::now();
            if end.is_some_and(|end| now >= end) || self.requests.taken() > taken {
                return Ok(false);
            }
            self.send_what_is_due(now)?;
            if self.idle.len() == self.connections.len() && self.interval.is_none() {
                return Ok(true);
            }
            let wake = [end, self.next_due].into_iter().flatten().min();
            self.wait(&mut events, now, wake)?;
            now = Instant::now();
            for place in places(&mut events) {
                self.read(place, now, true)?;
            }
        }
    }

    /// Takes what is under way off the wire, so that nothing of it is left in what comes after.
    fn drain(&mut self) -> anyhow::Result<()> {
        self.measured.counts = false;
        let mut events = Vec::with_capacity(self.connections.len());
        while self.idle.len() < self.connections.len() {
            let now = Instant::now();
            self.wait(&mut events, now, None)?;
            for place in places(&mut events) {
                self.read(place, now, false)?;
            }
        }
        Ok(())
    }

    fn wait(
        &self,
        events: &mut Vec<epoll::Event>,
        now: Instant,
        wake: Option<Instant>,
    ) -> anyhow::Result<()> {
        let pause = wake.map_or(PATIENCE, |wake| wake.saturating_duration_since(now).min(PATIENCE));
        let timespec = |time: Duration| Timespec {
            tv_sec: time.as_secs() as i64,
            tv_nsec: i64::from(time.subsec_nanos()),
        };
        if self.interval.is_some() {
            // Set anew it is silent again, so it need not be read. Zero would be never.
            let it_value = timespec(pause.max(Duration::from_nanos(1)));
            let once = Itimerspec { it_interval: timespec(Duration::ZERO), it_value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        }
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&timespec(pause))) {
            Ok(_) if pause == PATIENCE && events.iter().all(|event| event.data.u64() == TIMER) => {
                bail!("no answer within {PATIENCE:?}")
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Open loop: whatever is due by now goes out, as long as there are connections.
    fn send_what_is_due(&mut self, now: Instant) -> anyhow::Result<()> {
        while let (Some(due), Some(interval)) = (self.next_due, self.interval)
            && due <= now
        {
            self.waiting.push_back(due);
            self.next_due = Some(due + interval);
        }
        while !self.waiting.is_empty()
            && let Some(place) = self.idle.pop_front()
        {
            let due = self.waiting.pop_front().context("it is not empty")?;
            if !self.ask(place, due)? {
                self.next_due = None; // all users are taken
                self.waiting.clear();
                break;
            }
        }
        Ok(())
    }

    /// Closed loop: each connection begins.
    fn ask_all(&mut self, now: Instant) -> anyhow::Result<()> {
        for place in std::mem::take(&mut self.idle) {
            self.ask(place, now)?;
        }
        Ok(())
    }

    /// Sends a request. Returns false where there is none any more.
    fn ask(&mut self, place: usize, counts_from: Instant) -> anyhow::Result<bool> {
        let Some(expected) = self.requests.next(&mut self.request) else {
            self.idle.push_back(place);
            return Ok(false);
        };
        let connection = &mut self.connections[place];
        connection.under_way = Some((counts_from, expected));
        // The connection is empty, and a request far smaller than its buffer: what cannot be written is a
        // lost connection.
        if let Err(error) = connection.stream.write_all(&self.request) {
            self.broken(place, &error.to_string())?;
        }
        Ok(true)
    }

    /// Reads what has come. With `go_on` the next request follows an answer.
    fn read(&mut self, place: usize, now: Instant, go_on: bool) -> anyhow::Result<()> {
        let connection = &mut self.connections[place];
        let (status, length) = loop {
            let received = match connection.stream.read(&mut connection.buffer[connection.filled..]) {
                Ok(0) => return self.broken(place, "the connection was closed"),
                Ok(received) => received,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    return Ok(());
                }
                Err(error) => return self.broken(place, &error.to_string()),
            };
            connection.filled += received;
            match whole(&connection.buffer[..connection.filled])? {
                Some(answer) => break answer,
                // TLS may have more of it already, of which `epoll` knows nothing.
                None if matches!(connection.stream, Wire::Tls(_)) => {}
                None => return Ok(()),
            }
        };
        let Some((counts_from, expected)) = connection.under_way.take() else {
            bail!("an answer to nothing: {status}");
        };
        if length != connection.filled {
            bail!("more than one answer to one request");
        }
        if status == expected.status || status == expected.or {
            if let Some(made) = self.made.as_ref().filter(|_| status == 201)
                && let Some(id) = id_made(&connection.buffer[..length])
            {
                made.lock().expect("no thread panics while it adds an id").push(id);
            }
            if self.measured.counts {
                self.measured.latencies.record(now.saturating_duration_since(counts_from));
            }
        } else {
            let text = String::from_utf8_lossy(&connection.buffer[..length]).into_owned();
            self.failed(text);
        }
        self.connections[place].filled = 0;
        if go_on && self.interval.is_none() {
            self.ask(place, now)?;
        } else {
            self.idle.push_back(place);
        }
        Ok(())
    }

    fn failed(&mut self, what: String) {
        self.measured.errors += 1;
        self.measured.first_error.get_or_insert(what);
    }

    /// Makes a connection anew. Its request is not repeated. One that had none under way was closed for
    /// resting too long: that is no error, and it rests on.
    fn broken(&mut self, place: usize, what: &str) -> anyhow::Result<()> {
        let rested = self.connections[place].under_way.is_none();
        self.connections[place] = self.connect(place)?;
        if rested {
            return Ok(());
        }
        self.failed(what.to_owned());
        if self.interval.is_none() {
            self.ask(place, Instant::now())?;
        } else {
            self.idle.push_back(place);
        }
        Ok(())
    }
}

/// The connections on which something has happened.
fn places(events: &mut Vec<epoll::Event>) -> impl Iterator<Item = usize> {
    events.drain(..).map(|event| event.data.u64()).filter(|place| *place != TIMER).map(|place| place as usize)
}

/// The status of the answer at the beginning of `bytes` and its whole length; `None` where it is not all
/// there yet.
///
/// # Errors
/// Where it is not HTTP, or of a length that only the end of the connection would tell.
fn whole(bytes: &[u8]) -> anyhow::Result<Option<(u16, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let head = match answer.parse(bytes).context("the answer is not HTTP")? {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial => return Ok(None),
    };
    let status = answer.code.context("an answer has a status")?;
    let length = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = match length {
        Some(header) => std::str::from_utf8(header.value)?.parse().context("the length of a body")?,
        None if matches!(status, 204 | 304) => 0,
        None => bail!("an answer {status} of unknown length"),
    };
    let whole = head + length;
    Ok((bytes.len() >= whole).then_some((status, whole)))
}

/// The id of a user that was made: the end of its `Location`.
fn id_made(answer: &[u8]) -> Option<Uuid> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut answer_head = httparse::Response::new(&mut headers);
    answer_head.parse(answer).ok()?;
    let location = answer_head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("location"))?;
    Uuid::try_parse_ascii(location.value.rsplit(|byte| *byte == b'/').next()?).ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::bench::Kind;
    use crate::client::Endpoint;

    #[test]
    fn only_a_connection_with_a_request_under_way_breaks() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let spec = Spec {
            target: Endpoint::local(server.local_addr().unwrap().port()),
            processes: Vec::new(),
            kind: Kind::Get,
            connections: 2,
            rate: Some(1),
            warm_up: Duration::ZERO,
            length: Duration::ZERO,
            users: 0..10,
            seed: 1,
            made: None,
            ids: None,
            shutdown: CancellationToken::new(),
        };
        let mut engine = Engine::new(&spec).unwrap();
        engine.broken(0, "closed").unwrap();
        assert_eq!((engine.measured.errors, engine.idle.make_contiguous()), (0, [0, 1].as_mut_slice()));
        let place = engine.idle.pop_front().unwrap();
        assert!(engine.ask(place, Instant::now()).unwrap());
        engine.broken(place, "closed").unwrap();
        assert_eq!((engine.measured.errors, engine.idle.make_contiguous()), (1, [1, 0].as_mut_slice()));
    }

    #[test]
    fn an_answer_is_whole_at_its_last_byte() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx: y\r\n\r\nhi";
        for end in 0..text.len() {
            assert_eq!(whole(&text[..end]).unwrap(), None, "{end}");
        }
        assert_eq!(whole(text).unwrap(), Some((200, text.len())));
        assert_eq!(whole(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap(), Some((204, 27)));
    }

    #[test]
    fn the_id_that_was_made_is_found() {
        let id = Uuid::from_u128(7);
        let text = format!("HTTP/1.1 201 Created\r\nlocation: /below/api/user/{id}\r\n\r\n");
        assert_eq!(id_made(text.as_bytes()), Some(id));
        assert_eq!(id_made(b"HTTP/1.1 201 Created\r\n\r\n"), None);
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for bad in
            ["SSH-2.0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"]
        {
            assert!(whole(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
