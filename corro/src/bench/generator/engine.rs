//! The connections, each in a task of its own.

use std::collections::VecDeque;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::requests::{Expected, Requests};
use super::{Outcome, Spec};
use crate::bench::cpu::{Watched, cpu_times};
use crate::latencies::Latencies;

/// No answer is longer, or has more headers.
const LONGEST_ANSWER: usize = 64 << 10;
const MAX_HEADERS: usize = 32;

/// Silence after which the target is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the connections have in common.
struct Shared {
    address: SocketAddr,
    state: Mutex<State>,
    /// Of the users that are taken one after the other, so many are taken that the warm-up has to end.
    warm: Notify,
    /// A request is due, or the end has come.
    due: Notify,
}

struct State {
    requests: Requests,
    /// Open loop: the moments at which requests were due that wait for a connection.
    due: Option<VecDeque<Instant>>,
    /// Whether the warm-up is over.
    counts: bool,
    /// Whether no more requests are sent.
    ended: bool,
    latencies: Latencies,
    answers: u64,
    errors: u64,
    first_error: Option<String>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it has the state")
    }
}

/// Does what is asked for.
///
/// # Errors
/// Where the target is lost, or falls silent, or a process to watch has ended.
pub(in crate::bench) async fn run(spec: &Spec) -> anyhow::Result<Outcome> {
    let target = (spec.target.host.as_str(), spec.target.port);
    let shared = Arc::new(Shared {
        address: target.to_socket_addrs()?.next().context("no such address")?,
        state: Mutex::new(State {
            requests: Requests::new(spec),
            due: spec.rate.map(|_| VecDeque::new()),
            counts: false,
            ended: false,
            latencies: Latencies::default(),
            answers: 0,
            errors: 0,
            first_error: None,
        }),
        warm: Notify::new(),
        due: Notify::new(),
    });
    let mut processes = spec.processes.clone();
    processes.push(Watched { name: "generator".to_owned(), pid: std::process::id() });
    let mut connections = Vec::new();
    for _ in 0..spec.connections {
        connections.push(connect(shared.address).await?);
    }
    let mut tasks = JoinSet::new();
    for connection in connections {
        tasks.spawn(work(Arc::clone(&shared), connection));
    }
    if let Some(rate) = spec.rate {
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || make_due(&shared, Duration::from_secs(1) / rate));
    }
    tokio::select! {
        () = sleep(spec.warm_up) => {}
        () = shared.warm.notified() => {}
        done = until_ended(&mut tasks) => done?,
    }
    shared.state().counts = true;
    let before = cpu_times(&processes)?;
    let began = Instant::now();
    tokio::select! {
        () = sleep(spec.length) => {}
        () = silence(&shared) => bail!("no answer within {PATIENCE:?}"),
        done = until_ended(&mut tasks) => done?,
    }
    let seconds = began.elapsed().as_secs_f64();
    let after = cpu_times(&processes)?;
    let latencies = {
        let mut state = shared.state();
        (state.counts, state.ended) = (false, true);
        std::mem::take(&mut state.latencies)
    };
    shared.due.notify_waiters();
    // What is under way ends, so that nothing of it is left in what comes after.
    timeout(PATIENCE, until_ended(&mut tasks)).await.context("no answer")??;
    let state = shared.state();
    let of = |share| latencies.quantile(share).as_secs_f64();
    Ok(Outcome {
        requests: latencies.count(),
        errors: state.errors,
        first_error: state.first_error.clone(),
        seconds,
        p50: of(0.5),
        p99: of(0.99),
        p999: of(0.999),
        max: latencies.max().as_secs_f64(),
        cpu: after.into_iter().map(|(name, time)| (name.clone(), time - before[&name])).collect(),
        used: spec.users.start..spec.users.start + state.requests.taken(),
    })
}

async fn until_ended(tasks: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended.context("a connection's task has ended")??;
    }
    Ok(())
}

/// Returns when no answer comes any more.
async fn silence(shared: &Shared) {
    let mut before = None;
    loop {
        let answers = Some(shared.state().answers);
        if answers == before {
            return;
        }
        before = answers;
        sleep(PATIENCE).await;
    }
}

/// Open loop: makes one request due in each interval, on a thread of its own: the timers of tokio are in
/// whole milliseconds, in which several may be due.
fn make_due(shared: &Shared, interval: Duration) {
    let mut next = Instant::now() + interval;
    loop {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let mut state = shared.state();
        if state.ended {
            return;
        }
        while next <= Instant::now() {
            state.due.get_or_insert_default().push_back(next);
            shared.due.notify_one();
            next += interval;
        }
    }
}

async fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).await.with_context(|| address.to_string())?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One connection: one request after the other, until there are no more.
async fn work(shared: Arc<Shared>, mut stream: TcpStream) -> anyhow::Result<()> {
    let (mut request, mut buffer) = (Vec::new(), vec![0; LONGEST_ANSWER]);
    while let Some((counts_from, expected)) = next(&shared, &mut request).await {
        // A server may close a connection that has rested for long: that is no error.
        if !matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        {
            stream = connect(shared.address).await?;
        }
        let answer = exchange(&mut stream, &request, &mut buffer).await;
        let took = counts_from.elapsed();
        let is_broken = answer.is_err();
        let error = match answer {
            Ok((status, _)) if status == expected.status || status == expected.or => None,
            Ok((_, length)) => Some(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            Err(error) => Some(format!("{error:#}")),
        };
        {
            let mut state = shared.state();
            state.answers += 1;
            match error {
                None if state.counts => state.latencies.record(took),
                None => {}
                Some(error) => {
                    state.errors += 1;
                    state.first_error.get_or_insert(error);
                }
            }
        }
        if is_broken {
            stream = connect(shared.address).await?; // its request is not repeated
        }
    }
    Ok(())
}

/// Writes the next request, once it is due, and returns the moment from which it counts; `None` at the end.
async fn next(shared: &Shared, request: &mut Vec<u8>) -> Option<(Instant, Expected)> {
    loop {
        {
            let mut state = shared.state();
            let due = match &mut state.due {
                None => Some(Instant::now()),
                Some(due) => due.pop_front(),
            };
            if state.ended {
                return None;
            }
            if let Some(due) = due {
                let expected = state.requests.next(request);
                // Users that are taken one after the other have to last.
                if !state.counts && state.requests.taken() > state.requests.users() / 10 {
                    shared.warm.notify_one();
                }
                if expected.is_none() {
                    state.ended = true;
                    shared.due.notify_waiters();
                }
                return expected.map(|expected| (due, expected));
            }
        }
        shared.due.notified().await;
    }
}

/// Sends a request. Returns the status of the answer and its length in the buffer.
async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut [u8]) -> anyhow::Result<(u16, usize)> {
    stream.write_all(request).await?;
    let mut filled = 0;
    loop {
        let received = stream.read(&mut buffer[filled..]).await?;
        ensure!(received > 0, "the connection was closed");
        filled += received;
        if let Some((status, length)) = whole(&buffer[..filled])? {
            ensure!(length == filled, "more than one answer to one request");
            return Ok((status, length));
        }
    }
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

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::bench::Kind;
    use crate::client::Endpoint;

    /// Runs one connection with ten requests a second against a server that closes the first connection: at
    /// once, or when it has a request.
    async fn errors(at_once: bool) -> u64 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut first = true;
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let closes = std::mem::take(&mut first);
                if closes && at_once {
                    continue;
                }
                tokio::spawn(async move {
                    while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0 && !closes) {
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                    }
                });
            }
        });
        let spec = Spec {
            target: Endpoint::local(port),
            processes: Vec::new(),
            kind: Kind::Get,
            connections: 1,
            rate: Some(10),
            warm_up: Duration::ZERO,
            length: Duration::from_millis(350),
            users: 0..10,
            seed: 1,
        };
        let outcome = run(&spec).await.unwrap();
        assert!(outcome.requests > 0);
        outcome.errors
    }

    #[tokio::test]
    async fn only_a_connection_with_a_request_under_way_breaks() {
        assert_eq!((errors(true).await, errors(false).await), (0, 1));
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
    fn what_is_no_answer_is_an_error() {
        for bad in
            ["SSH-2.0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"]
        {
            assert!(whole(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
