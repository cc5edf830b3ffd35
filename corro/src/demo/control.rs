//! How the second terminal reaches a demo: one line of JSON each way through a Unix socket.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

use super::layout::Layout;

/// Stopping a process takes 5 s at most; an order needs no more than that and a little.
const DEADLINE: Duration = Duration::from_secs(10);

/// Between two looks at whether a demo has stopped.
const INTERVAL: Duration = Duration::from_millis(20);

/// No order and no answer is longer.
const LONGEST_LINE: u64 = 64 * 1024;

/// What can be done to a running demo, from a second terminal in the same folder.
#[derive(Subcommand, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(tag = "order", rename_all = "snake_case")]
pub(crate) enum Order {
    /// Kill a process as `kill -9` does
    Kill(Name),
    /// Stop a process as SIGTERM does; all of them and the demo, where none is named
    Stop(OneOrAll),
    /// Make a process hang as SIGSTOP does
    Pause(Name),
    /// Let a process that hangs continue
    Resume(Name),
    /// Start a process again; one that runs is stopped first
    Restart(Name),
    /// Say which processes run
    Status,
}

/// Names a process.
#[derive(Args, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// gateway, db-0, db-1, …
    pub(crate) process: String,
}

/// Names a process, or all.
#[derive(Args, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct OneOrAll {
    /// gateway, db-0, db-1, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) process: Option<String>,
}

/// What came of an order.
#[derive(Serialize, Deserialize, Debug, PartialEq, Eq)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It is done.
    Done {
        /// What was done, for a person.
        text: String,
    },
    /// It cannot be done.
    Refused {
        /// Why, for a person.
        reason: String,
    },
    /// The demo as it is.
    // Of a demo before 5789489, asked where its ring is: `ring`, without the processes.
    #[serde(alias = "ring")]
    Status(Status),
    /// What such a demo answers to `status`.
    Processes {
        /// The gateway first.
        processes: Vec<ProcessStatus>,
    },
}

/// A demo as it is.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// HTTP port of the gateway.
    pub(crate) rest_port: u16,
    /// Number of db-processes.
    pub(crate) size: u16,
    /// Holds a folder of data for each db-process.
    pub(crate) data: PathBuf,
    /// The gateway first.
    #[serde(default)]
    pub(crate) processes: Vec<ProcessStatus>,
}

/// One process of a demo.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProcessStatus {
    /// Such as `db-1`.
    pub(crate) process: String,
    /// Such as `runs as process 4711`.
    pub(crate) state: String,
    /// While it runs.
    pub(crate) pid: Option<u32>,
}

/// Listens for orders and has them obeyed, as long as the demo runs.
pub(crate) async fn serve<A>(listener: UnixListener, obey: impl Fn(Order) -> A + Clone + Send + 'static)
where
    A: Future<Output = Answer> + Send,
{
    while let Ok((stream, _)) = listener.accept().await {
        let obey = obey.clone();
        // A connection that sends nothing must not block the others.
        tokio::spawn(async move {
            let _ = timeout(DEADLINE, answer_one(stream, obey)).await;
        });
    }
}

async fn answer_one<A>(stream: UnixStream, obey: impl Fn(Order) -> A) -> anyhow::Result<()>
where
    A: Future<Output = Answer>,
{
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    BufReader::new(reader.take(LONGEST_LINE)).read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line) {
        Ok(order) => obey(order).await,
        Err(error) => Answer::Refused { reason: format!("this is not an order: {error}") },
    };
    writer.write_all(line_of(&answer)?.as_bytes()).await?;
    Ok(())
}

/// Gives an order to the demo that runs in this folder, and returns what came of it in words.
///
/// # Errors
/// Where no demo runs there, or it refuses.
pub(crate) async fn send(layout: &Layout, order: &Order) -> anyhow::Result<String> {
    match ask(layout, &line_of(order)?).await? {
        Answer::Done { .. } if matches!(order, Order::Stop(OneOrAll { process: None })) => {
            let gone = async {
                while layout.socket.exists() {
                    sleep(INTERVAL).await;
                }
            };
            timeout(DEADLINE, gone)
                .await
                .with_context(|| format!("the demo has not stopped after {DEADLINE:?}"))?;
            Ok("The demo has stopped".to_owned())
        }
        Answer::Done { text } => Ok(text),
        Answer::Refused { reason } => bail!(reason),
        Answer::Status(Status { processes, .. }) | Answer::Processes { processes } => {
            let line = |each: &ProcessStatus| format!("{:<8} {}", each.process, each.state);
            Ok(processes.iter().map(line).collect::<Vec<_>>().join("\n"))
        }
    }
}

/// Asks the demo that runs in this folder how it is.
///
/// # Errors
/// Where no demo runs there, or it is of another version.
pub(crate) async fn status(layout: &Layout) -> anyhow::Result<Status> {
    match ask(layout, &line_of(&Order::Status)?).await? {
        Answer::Status(status) => Ok(status),
        Answer::Processes { processes } => match ask(layout, "{\"order\":\"ring\"}\n").await? {
            Answer::Status(status) => Ok(Status { processes, ..status }),
            other => bail!("the demo does not say where its ring is: {other:?}"),
        },
        other => bail!("the demo does not say how it is: {other:?}"),
    }
}

async fn ask(layout: &Layout, order: &str) -> anyhow::Result<Answer> {
    let answer = timeout(DEADLINE, exchange(layout, order)).await;
    answer.map_err(|_| anyhow!("the demo gives no answer within {DEADLINE:?}"))?
}

async fn exchange(layout: &Layout, order: &str) -> anyhow::Result<Answer> {
    let socket = layout.socket.display();
    let stream = match layout.short_socket() {
        Ok((_folder, socket)) => UnixStream::connect(socket).await,
        Err(error) => Err(error),
    };
    let mut stream = stream.map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => anyhow!(
            "no demo runs here (nothing answers at {socket}): start one, or go to the folder where one was \
             started"
        ),
        _ => anyhow!("{socket} cannot be reached: {error}"),
    })?;
    stream.write_all(order.as_bytes()).await?;
    let mut answer = String::new();
    BufReader::new(stream.take(LONGEST_LINE)).read_line(&mut answer).await?;
    serde_json::from_str(&answer).context("the demo ended before it answered")
}

fn line_of(message: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(message).map(|line| line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A demo that answers what `answer` makes of an order.
    fn demo(layout: &Layout, answer: fn(Order) -> Answer) {
        let listener = UnixListener::bind(&layout.socket).unwrap();
        tokio::spawn(serve(listener, move |order| std::future::ready(answer(order))));
    }

    #[tokio::test]
    async fn orders_arrive_and_answers_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(folder.path());
        demo(&layout, |order| match order {
            Order::Kill(Name { process }) => Answer::Done { text: format!("{process} is killed") },
            Order::Restart(Name { process }) => Answer::Refused { reason: format!("{process} is not known") },
            Order::Status => Answer::Status(Status {
                rest_port: 7,
                size: 2,
                data: "data".into(),
                processes: ["gateway", "db-0"]
                    .map(|name| ProcessStatus { process: name.into(), state: "runs".into(), pid: None })
                    .into(),
            }),
            other => Answer::Refused { reason: format!("{other:?}") },
        });
        let kill = Order::Kill(Name { process: "db-1".into() });
        assert_eq!(send(&layout, &kill).await.unwrap(), "db-1 is killed");
        let restart = Order::Restart(Name { process: "db-9".into() });
        assert_eq!(send(&layout, &restart).await.unwrap_err().to_string(), "db-9 is not known");
        assert_eq!(send(&layout, &Order::Status).await.unwrap(), "gateway  runs\ndb-0     runs");
        assert_eq!(status(&layout).await.unwrap().rest_port, 7);
    }

    #[tokio::test]
    async fn nonsense_is_refused_and_harms_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(folder.path());
        demo(&layout, |_| Answer::Done { text: "done".into() });
        let mut stream = UnixStream::connect(&layout.socket).await.unwrap();
        stream.write_all(b"{\"order\":\"dance\"}\n").await.unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await.unwrap();
        assert!(matches!(serde_json::from_str(&answer).unwrap(), Answer::Refused { .. }), "{answer}");
        assert_eq!(send(&layout, &Order::Status).await.unwrap(), "done");
    }

    #[tokio::test]
    async fn a_demo_of_an_earlier_version_is_understood() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(folder.path());
        let listener = UnixListener::bind(&layout.socket).unwrap();
        tokio::spawn(async move {
            for answer in [
                r#"{"answer":"processes","processes":[{"process":"gateway","state":"runs","pid":7}]}"#,
                r#"{"answer":"ring","rest_port":3001,"size":3,"data":"data"}"#,
            ] {
                let (stream, _) = listener.accept().await.unwrap();
                let (reader, mut writer) = stream.into_split();
                BufReader::new(reader).read_line(&mut String::new()).await.unwrap();
                writer.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let Status { rest_port, size, processes, .. } = status(&layout).await.unwrap();
        assert_eq!((rest_port, size, processes[0].pid), (3001, 3, Some(7)));
    }

    #[tokio::test]
    async fn a_folder_may_have_a_long_name() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(&folder.path().join("x".repeat(200)));
        std::fs::create_dir(&layout.folder).unwrap();
        let (_folder, socket) = layout.short_socket().unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        tokio::spawn(serve(listener, |_| std::future::ready(Answer::Done { text: "done".into() })));
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
        let line = line_of(&Order::Kill(Name { process: "db-1".into() })).unwrap();
        assert_eq!(line, "{\"order\":\"kill\",\"process\":\"db-1\"}\n");
        assert_eq!(line_of(&Order::Stop(OneOrAll { process: None })).unwrap(), "{\"order\":\"stop\"}\n");
    }
}
