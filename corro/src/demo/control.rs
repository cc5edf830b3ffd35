//! How the second terminal reaches a demo: one line of JSON each way through a Unix socket.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::layout::Layout;

/// Stopping a process takes 5 s at most; an order needs no more than that and a little.
const DEADLINE: Duration = Duration::from_secs(10);

/// No order and no answer is longer.
const LONGEST_LINE: u64 = 64 * 1024;

/// What the second terminal asks for.
#[derive(Serialize, Deserialize, Debug, PartialEq, Eq)]
#[serde(tag = "order", rename_all = "snake_case")]
pub(crate) enum Order {
    /// End a process as `kill -9` does.
    Kill {
        /// Its name.
        process: String,
    },
    /// End a process as SIGTERM does.
    Stop {
        /// Its name.
        process: String,
    },
    /// Start a process again.
    Restart {
        /// Its name.
        process: String,
    },
    /// Make a process hang, as SIGSTOP does.
    Pause {
        /// Its name.
        process: String,
    },
    /// Let a process that hangs go on.
    Resume {
        /// Its name.
        process: String,
    },
    /// Say which processes run.
    Status,
    /// Say where the ring is.
    Ring,
}

/// What came of it.
#[derive(Serialize, Deserialize, Debug, PartialEq, Eq)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It is done, and this is what was done.
    Done {
        /// For a person.
        text: String,
    },
    /// It cannot be done.
    Refused {
        /// For a person.
        reason: String,
    },
    /// The processes, the gateway first.
    Processes {
        /// One line each.
        processes: Vec<ProcessStatus>,
    },
    /// Where the ring is.
    Ring(Whereabouts),
}

/// Where the ring of a demo is.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Whereabouts {
    /// HTTP port of the gateway.
    pub(crate) rest_port: u16,
    /// Number of db-processes.
    pub(crate) size: u16,
    /// Holds a folder of data for each db-process.
    pub(crate) data: PathBuf,
}

/// One process of the demo.
#[derive(Serialize, Deserialize, Debug, PartialEq, Eq)]
pub(crate) struct ProcessStatus {
    /// Such as `db-1`.
    pub(crate) process: String,
    /// Such as `runs as process 4711` or `ended: signal 9 (SIGKILL)`.
    pub(crate) state: String,
    /// While it runs.
    pub(crate) pid: Option<u32>,
}

/// An order, and the way back for its answer.
pub(crate) type Ordered = (Order, oneshot::Sender<Answer>);

/// Listens for orders and hands them on, as long as the demo runs.
pub(crate) async fn serve(listener: UnixListener, orders: mpsc::Sender<Ordered>) {
    while let Ok((stream, _)) = listener.accept().await {
        let orders = orders.clone();
        // A stranger's connection that says nothing must not keep others from being heard.
        tokio::spawn(async move {
            let _ = tokio::time::timeout(DEADLINE, answer_one(stream, orders)).await;
        });
    }
}

async fn answer_one(stream: UnixStream, orders: mpsc::Sender<Ordered>) -> anyhow::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    BufReader::new(reader.take(LONGEST_LINE)).read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line) {
        Ok(order) => {
            let (reply, answer) = oneshot::channel();
            orders.send((order, reply)).await?;
            answer.await?
        }
        Err(error) => Answer::Refused { reason: format!("this is not an order: {error}") },
    };
    writer.write_all(line_of(&answer)?.as_bytes()).await?;
    Ok(())
}

/// Gives an order to the demo that runs in this folder, and says what came of it in words.
///
/// # Errors
/// Where no demo runs there, or it refuses.
pub(crate) async fn send(layout: &Layout, order: &Order) -> anyhow::Result<String> {
    match answer(layout, order).await? {
        Answer::Done { text } => Ok(text),
        Answer::Refused { reason } => bail!(reason),
        Answer::Processes { processes } => Ok(table(&processes)),
        Answer::Ring(ring) => Ok(format!("a ring of {} on port {}", ring.size, ring.rest_port)),
    }
}

/// Asks the demo that runs in this folder where its ring is.
///
/// # Errors
/// Where no demo runs there, or it is of another version.
pub(crate) async fn whereabouts(layout: &Layout) -> anyhow::Result<Whereabouts> {
    match answer(layout, &Order::Ring).await? {
        Answer::Ring(ring) => Ok(ring),
        Answer::Refused { reason } => bail!(reason),
        other => bail!("the demo does not say where its ring is: {other:?}"),
    }
}

/// Asks the demo that runs in this folder for its processes, the gateway first.
///
/// # Errors
/// Where no demo runs there, or it is of another version.
pub(crate) async fn processes(layout: &Layout) -> anyhow::Result<Vec<ProcessStatus>> {
    match answer(layout, &Order::Status).await? {
        Answer::Processes { processes } => Ok(processes),
        Answer::Refused { reason } => bail!(reason),
        other => bail!("the demo does not say which processes run: {other:?}"),
    }
}

async fn answer(layout: &Layout, order: &Order) -> anyhow::Result<Answer> {
    let answer = tokio::time::timeout(DEADLINE, ask(layout, order)).await;
    answer.map_err(|_| anyhow!("the demo gives no answer within {DEADLINE:?}"))?
}

async fn ask(layout: &Layout, order: &Order) -> anyhow::Result<Answer> {
    let socket = layout.socket.display();
    let mut stream = UnixStream::connect(&layout.socket).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            anyhow!("no demo runs here (nobody answers at {socket}): start one, or go to the folder where one was started")
        }
        _ => anyhow!("{socket} cannot be reached: {error}"),
    })?;
    stream.write_all(line_of(order)?.as_bytes()).await?;
    let mut answer = String::new();
    BufReader::new(stream.take(LONGEST_LINE)).read_line(&mut answer).await?;
    serde_json::from_str(&answer).context("the demo ended before it answered")
}

fn line_of(message: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(message).map(|line| line + "\n")
}

fn table(processes: &[ProcessStatus]) -> String {
    let mut table = String::new();
    for ProcessStatus { process, state, .. } in processes {
        writeln!(table, "{process:<8} {state}").expect("a string takes all text");
    }
    table.truncate(table.trim_end().len());
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A demo that answers what `answer` makes of an order.
    fn demo(layout: &Layout, answer: fn(Order) -> Answer) {
        let (orders, mut ordered) = mpsc::channel::<Ordered>(1);
        tokio::spawn(serve(UnixListener::bind(&layout.socket).unwrap(), orders));
        tokio::spawn(async move {
            while let Some((order, reply)) = ordered.recv().await {
                reply.send(answer(order)).unwrap();
            }
        });
    }

    #[tokio::test]
    async fn orders_arrive_and_answers_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(folder.path());
        demo(&layout, |order| match order {
            Order::Kill { process } => Answer::Done { text: format!("{process} is killed") },
            Order::Restart { process } => Answer::Refused { reason: format!("{process} is not known") },
            Order::Status => Answer::Processes {
                processes: ["gateway", "db-0"]
                    .map(|name| ProcessStatus { process: name.into(), state: "runs".into(), pid: None })
                    .into(),
            },
            Order::Ring => Answer::Ring(Whereabouts { rest_port: 7, size: 2, data: "data".into() }),
            other => Answer::Refused { reason: format!("{other:?}") },
        });
        let kill = Order::Kill { process: "db-1".into() };
        assert_eq!(send(&layout, &kill).await.unwrap(), "db-1 is killed");
        let restart = Order::Restart { process: "db-9".into() };
        assert_eq!(send(&layout, &restart).await.unwrap_err().to_string(), "db-9 is not known");
        assert_eq!(send(&layout, &Order::Status).await.unwrap(), "gateway  runs\ndb-0     runs");
        assert_eq!(whereabouts(&layout).await.unwrap().rest_port, 7);
    }

    #[tokio::test]
    async fn nonsense_is_refused_and_harms_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(folder.path());
        demo(&layout, |_| Answer::Done { text: "done".into() });
        let mut stranger = UnixStream::connect(&layout.socket).await.unwrap();
        stranger.write_all(b"{\"order\":\"dance\"}\n").await.unwrap();
        let mut answer = String::new();
        BufReader::new(stranger).read_line(&mut answer).await.unwrap();
        assert!(matches!(serde_json::from_str(&answer).unwrap(), Answer::Refused { .. }), "{answer}");
        assert_eq!(send(&layout, &Order::Status).await.unwrap(), "done");
    }

    #[tokio::test]
    async fn without_a_demo_it_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(folder.path());
        let error = send(&layout, &Order::Status).await.unwrap_err().to_string();
        assert!(error.contains("no demo runs here"), "{error}");
        drop(UnixListener::bind(&layout.socket).unwrap()); // a socket that a killed demo left
        let error = send(&layout, &Order::Status).await.unwrap_err().to_string();
        assert!(error.contains("no demo runs here"), "{error}");
    }

    #[test]
    fn an_order_is_one_line() {
        let line = line_of(&Order::Kill { process: "db-1".into() }).unwrap();
        assert_eq!(line, "{\"order\":\"kill\",\"process\":\"db-1\"}\n");
    }
}
