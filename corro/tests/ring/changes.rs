//! Those who listen to changes, while processes are killed, hang and come back: every acknowledged change,
//! once, in order.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use uuid::Uuid;

use super::client::Client;
use super::processes::{DEADLINE, Ring};
use super::skip::skip;

/// An event as it was heard.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Heard {
    kind: String,
    id: String,
    data: Value,
}

/// Reads blocks of an event stream out of pieces.
#[derive(Default)]
struct Blocks(String);

impl Blocks {
    fn take(&mut self, piece: &[u8]) -> Vec<String> {
        self.0 += std::str::from_utf8(piece).unwrap();
        let mut blocks = Vec::new();
        while let Some((block, rest)) = self.0.split_once("\n\n") {
            let (block, rest) = (block.to_owned(), rest.to_owned());
            self.0 = rest;
            blocks.push(block);
        }
        blocks
    }
}

fn field<'a>(block: &'a str, name: &str) -> Option<&'a str> {
    block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Listens as an `EventSource` does: connects again when the stream breaks, with the id of the last event.
pub(crate) struct Listener {
    heard: Arc<Mutex<Vec<Heard>>>,
    task: JoinHandle<()>,
}

impl Listener {
    /// Returns when the stream has begun.
    pub(crate) async fn start(port: u16) -> Self {
        Self::resume(port, None).await
    }

    /// The same after the event with that id.
    pub(crate) async fn resume(port: u16, last: Option<String>) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(Self::run(port, last, Arc::clone(&heard), begun));
        has_begun.await.unwrap();
        Self { heard, task }
    }

    async fn run(
        port: u16,
        mut last: Option<String>,
        heard: Arc<Mutex<Vec<Heard>>>,
        begun: tokio::sync::oneshot::Sender<()>,
    ) {
        let mut begun = Some(begun);
        loop {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await {
                Self::listen(stream, &mut last, &heard, &mut begun).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn listen(
        stream: TcpStream,
        last: &mut Option<String>,
        heard: &Mutex<Vec<Heard>>,
        begun: &mut Option<tokio::sync::oneshot::Sender<()>>,
    ) {
        let Ok((mut sender, connection)) = handshake(TokioIo::new(stream)).await else { return };
        tokio::spawn(connection);
        let mut request = Request::get("/api/user/changes").header("host", "localhost");
        if let Some(last) = last {
            request = request.header("last-event-id", last.as_str());
        }
        let Ok(response) = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await else {
            return;
        };
        if response.status() != StatusCode::OK {
            assert_eq!(
                response.status(),
                StatusCode::SERVICE_UNAVAILABLE,
                "it may have to wait, and no more"
            );
            return;
        }
        let (mut body, mut blocks) = (response.into_body(), Blocks::default());
        while let Some(Ok(frame)) = body.frame().await {
            for block in blocks.take(frame.data_ref().map_or(&[][..], |data| data)) {
                if let Some(id) = field(&block, "id") {
                    *last = Some(id.to_owned());
                    begun.take().map(|begun| begun.send(()));
                }
                if let (Some(kind), Some(data)) = (field(&block, "event"), field(&block, "data")) {
                    let id = field(&block, "id").unwrap_or_else(|| panic!("it was dismissed: {block}"));
                    let data = serde_json::from_str(data).unwrap();
                    heard.lock().unwrap().push(Heard { kind: kind.to_owned(), id: id.to_owned(), data });
                }
            }
        }
    }

    /// Waits until it has heard an event, and returns all that it heard.
    pub(crate) async fn until(&self, id: &str) -> Vec<Heard> {
        let start = Instant::now();
        loop {
            let heard = self.heard.lock().unwrap().clone();
            if heard.iter().any(|event| event.id == id) {
                return heard;
            }
            assert!(start.elapsed() < DEADLINE, "waited in vain for {id} after {:?}", heard.last());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Every acknowledged change by its version: what a listener has to hear.
type Acknowledged = Arc<Mutex<BTreeMap<String, Heard>>>;

/// Writers with a few users each; a write that is not acknowledged is not written down.
struct Writers {
    acknowledged: Acknowledged,
    stop: Arc<std::sync::atomic::AtomicBool>,
    tasks: JoinSet<()>,
}

impl Writers {
    async fn start(port: u16, count: usize, pause: Duration) -> Self {
        let (acknowledged, stop) = (Acknowledged::default(), Arc::default());
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let client = Client::new(port);
            tasks.spawn(write(client, Arc::clone(&acknowledged), Arc::clone(&stop), pause));
        }
        Self { acknowledged, stop, tasks }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    async fn until_more(&self, more: usize) {
        let goal = self.count() + more;
        let start = Instant::now();
        while self.count() < goal {
            assert!(start.elapsed() < DEADLINE, "the writers do not get on");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn finish(mut self) -> BTreeMap<String, Heard> {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.acknowledged.lock().unwrap().clone()
    }
}

async fn write(
    mut client: Client,
    acknowledged: Acknowledged,
    stop: Arc<std::sync::atomic::AtomicBool>,
    pause: Duration,
) {
    let mut count = 0;
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let id = Uuid::new_v4();
        for step in 0..8 {
            count += 1;
            let (kind, data) = match step {
                0 => {
                    ("created", json!({"id": id, "name": "Ana", "email": "ana@example.org", "group": count}))
                }
                _ => ("updated", json!({"id": id, "group": count})),
            };
            let answer = match step {
                0 => client.post(&data).await,
                _ => client.put(&data).await,
            };
            if let (true, Some(tag)) = (answer.status.is_success(), answer.tag) {
                let heard = Heard { kind: kind.to_owned(), id: tag.clone(), data };
                assert!(acknowledged.lock().unwrap().insert(tag, heard).is_none(), "a version is given once");
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// All that was acknowledged was heard once and in order; what else was heard is no acknowledged change.
fn compare(acknowledged: &BTreeMap<String, Heard>, heard: &[Heard]) {
    assert!(heard.is_sorted_by(|one, next| one.id < next.id), "in order, and nothing twice");
    let by_id: BTreeMap<&str, &Heard> = heard.iter().map(|event| (event.id.as_str(), event)).collect();
    for (id, change) in acknowledged {
        assert_eq!(by_id.get(id.as_str()), Some(&change), "an acknowledged change, as it was heard");
    }
}

#[tokio::test]
async fn every_acknowledged_change_is_heard_while_db_processes_are_killed_and_hang() {
    let mut ring = Ring::start(3).await;
    let listeners = [
        Listener::start(ring.rest_port).await,
        Listener::start(ring.rest_port).await,
        Listener::start(ring.rest_port).await,
    ];
    let writers = Writers::start(ring.rest_port, 16, Duration::ZERO).await;
    writers.until_more(500).await;
    ring.kill(1);
    writers.until_more(1_000).await;
    ring.start_process(1);
    ring.until_ready().await;
    writers.until_more(500).await;
    ring.signal(2, rustix::process::Signal::STOP);
    ring.until("the silence is noticed", |cluster| cluster["processes"][2]["connected"] == false).await;
    writers.until_more(500).await;
    ring.signal(2, rustix::process::Signal::CONT);
    ring.until_ready().await;
    writers.until_more(500).await;
    let acknowledged = writers.finish().await;
    let (last, _) = acknowledged.last_key_value().unwrap();
    for listener in &listeners {
        let heard = listener.until(last).await;
        compare(&acknowledged, &heard);
        assert_eq!(heard.len(), acknowledged.len(), "and nothing else");
    }
    println!("{} changes heard by each of {}", acknowledged.len(), listeners.len());
}

/// There is no subscriber while it happens, and the gateway that published the rest is gone: it is in the
/// op-logs.
#[tokio::test]
async fn what_happened_before_a_restart_of_the_gateway_is_heard_after_it() {
    let mut ring = Ring::start(3).await;
    let listener = Listener::start(ring.rest_port).await;
    let writers = Writers::start(ring.rest_port, 8, Duration::ZERO).await;
    writers.until_more(300).await;
    let mut acknowledged = writers.finish().await;
    let (last, _) = acknowledged.last_key_value().unwrap();
    let heard = listener.until(last).await;
    drop(listener);
    let last = heard.last().map(|event| event.id.clone());

    // Leads move there and back, so that both op-logs of a partition have some of it.
    ring.kill(0);
    let writers = Writers::start(ring.rest_port, 8, Duration::ZERO).await;
    writers.until_more(1_000).await;
    ring.start_process(0);
    ring.until_ready().await;
    writers.until_more(1_000).await;
    acknowledged.extend(writers.finish().await);
    for orderly in [false, true] {
        match orderly {
            true => drop(ring.stop_all()),
            false => ring.kill_gateway(),
        }
        ring.start_gateway();
        if orderly {
            (0..3).for_each(|place| ring.start_process(place));
        }
        let resumed = Listener::resume(ring.rest_port, last.clone()).await;
        ring.until_ready().await;
        let writers = Writers::start(ring.rest_port, 8, Duration::ZERO).await;
        writers.until_more(200).await;
        acknowledged.extend(writers.finish().await);
        let (newest, _) = acknowledged.last_key_value().unwrap();
        let mut all = heard.clone();
        all.extend(resumed.until(newest).await);
        compare(&acknowledged, &all);
        assert_eq!(all.len(), acknowledged.len(), "and nothing else");
        println!("{} changes after {} from before the restart", all.len() - heard.len(), heard.len());
    }
}

/// A program that ends with the test, however that ends.
struct Ending(std::process::Child);

impl Drop for Ending {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Python with the socket.io client of its package index, in a folder of its own; `None` says why there is
/// none.
fn python(folder: &std::path::Path) -> Result<std::path::PathBuf, String> {
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let run = |command: &mut Command| match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(said(&output)),
        Err(error) => Err(error.to_string()),
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    let python = folder.join("bin/python");
    let packages = ["python-socketio>=5.11,<6", "aiohttp>=3.9,<4"];
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--timeout", "10"]).args(packages))?;
    Ok(python)
}

#[tokio::test]
async fn a_foreign_socket_io_client_hears_every_change_and_comes_back() {
    let folder = tempfile::TempDir::new().unwrap();
    let python = match python(&folder.path().join("venv")) {
        Ok(python) => python,
        Err(why) => return skip(&format!("no socket.io client for Python here: {why}")),
    };
    let mut ring = Ring::start(3).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/changes.py");
    let _clients: Vec<Ending> = ["websocket", "polling"]
        .map(|transport| {
            let output = std::fs::File::create(folder.path().join(transport)).unwrap();
            let mut command = Command::new(&python);
            command.arg(script).arg(format!("http://127.0.0.1:{}", ring.rest_port)).arg(transport);
            Ending(command.stdout(output).spawn().unwrap())
        })
        .into();
    let heard = |transport: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(folder.path().join(transport)).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let until = async |transports: &[&str], what: &str, holds: &dyn Fn(&[Value]) -> bool| {
        for transport in transports {
            let start = Instant::now();
            while !holds(&heard(transport)) {
                assert!(
                    start.elapsed() < DEADLINE,
                    "{transport}: waited in vain until {what}: {:?}",
                    heard(transport)
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let both = ["websocket", "polling"];
    until(&both, "they have joined", &|heard| heard.iter().any(|event| event["event"] == "subscribed")).await;
    let writers = Writers::start(ring.rest_port, 4, Duration::from_millis(5)).await;
    writers.until_more(100).await;
    ring.kill(1);
    writers.until_more(200).await;
    ring.start_process(1);
    ring.until_ready().await;
    let mut acknowledged = writers.finish().await;
    let joined = |event: &Value| event["event"] == "subscribed";
    let heard_by = |transport: &str, acknowledged: &BTreeMap<String, Heard>| {
        let heard: Vec<Heard> = heard(transport)
            .into_iter()
            .filter(|event| event["data"].is_object())
            .map(|mut event| Heard {
                kind: event["event"].as_str().unwrap().to_owned(),
                id: event["id"].as_str().unwrap().to_owned(),
                data: event["data"].take(),
            })
            .collect();
        compare(acknowledged, &heard);
        println!("{} changes heard over {transport}", heard.len());
    };
    let (last, _) = acknowledged.last_key_value().unwrap();
    until(&both, "they have heard all", &|heard| heard.iter().any(|event| event["id"] == **last)).await;
    both.iter().for_each(|transport| heard_by(transport, &acknowledged));

    // They come back by themselves, and go on where they were, with what happened before they were there
    // again.
    ring.kill_gateway();
    ring.start_gateway();
    ring.until_ready().await;
    let writers = Writers::start(ring.rest_port, 4, Duration::from_millis(5)).await;
    writers.until_more(100).await;
    acknowledged.extend(writers.finish().await);
    let (last, _) = acknowledged.last_key_value().unwrap();
    until(&both, "they have heard all", &|heard| {
        heard.iter().filter(|event| joined(event)).count() >= 2
            && heard.iter().any(|event| event["id"] == **last)
    })
    .await;
    both.iter().for_each(|transport| heard_by(transport, &acknowledged));
}
