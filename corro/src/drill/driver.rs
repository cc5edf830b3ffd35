//! What carries out the faults: the demo, docker-compose, or the person at the terminal.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use tokio::process::Command;
use tokio::time::timeout;

use super::faults::{Cycle, Fault};
use crate::demo::{DataFolder, DemoRing, Name, OneOrAll, Order};

/// docker-compose stops a container within 10 s, and kills it then.
const COMPOSE: Duration = Duration::from_secs(120);

/// What a drill is done with.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DriverKind {
    /// A demo: one started for the drill, or the one that runs in --folder
    Demo,
    /// docker-compose, or docker compose, in this folder
    Compose,
    /// You: the drill says what to do
    Manual,
}

impl DriverKind {
    /// The faults that it can do. docker-compose keeps its volumes, so it cannot touch the data.
    pub(crate) fn faults(self) -> &'static [Fault] {
        match self {
            Self::Demo | Self::Manual => Fault::value_variants(),
            Self::Compose => &[Fault::Stop, Fault::Kill, Fault::Hang, Fault::Gateway],
        }
    }
}

/// Carries out the faults.
pub(crate) enum Driver {
    Demo(Box<DemoRing>),
    /// The program and its first arguments: `docker-compose`, or `docker compose`. The services are called
    /// `gateway`, `db-0`, `db-1` and so on.
    Compose(&'static [&'static str]),
    /// Prints what to do, and waits for Enter.
    Manual,
}

impl Driver {
    /// Finds docker-compose.
    ///
    /// # Errors
    /// Where it cannot be run.
    pub(crate) async fn compose() -> anyhow::Result<Self> {
        for command in [["docker-compose"].as_slice(), &["docker", "compose"]] {
            if output(command, &["version"]).await.is_ok_and(|output| output.status.success()) {
                return Ok(Self::Compose(command));
            }
        }
        bail!("neither docker-compose nor docker compose can be run")
    }

    /// Does what has to be done before a fault, while there is no load. Data that are to be put back later
    /// are copied; the process is paused meanwhile, so the copy is what a disk has at one moment.
    pub(crate) async fn prepare(&self, Cycle { fault, process }: &Cycle) -> anyhow::Result<()> {
        let (Self::Demo(demo), Fault::Rollback) = (self, fault) else { return Ok(()) };
        let name = || Name { process: process.clone() };
        demo.order(&Order::Pause(name())).await?;
        let copied = blocking(demo.data(), process, DataFolder::set_aside).await;
        demo.order(&Order::Resume(name())).await?;
        copied
    }

    /// Makes the fault happen: the process is down, or hangs, when this returns.
    pub(crate) async fn begin(&self, cycle: &Cycle) -> anyhow::Result<()> {
        let Cycle { fault, process } = cycle;
        match self {
            Self::Demo(demo) => {
                let name = Name { process: process.clone() };
                demo.order(&match fault {
                    Fault::Stop => Order::Stop(OneOrAll { process: Some(name.process) }),
                    Fault::Hang => Order::Pause(name),
                    Fault::Kill | Fault::Wipe | Fault::Rollback | Fault::Gateway => Order::Kill(name),
                })
                .await?;
                match fault {
                    Fault::Wipe => blocking(demo.data(), process, |data, of| data.remove(of, false)).await,
                    Fault::Rollback => blocking(demo.data(), process, |data, of| data.remove(of, true)).await,
                    _ => Ok(()),
                }
            }
            Self::Compose(command) => compose(command, verbs(*fault).0, process).await,
            Self::Manual => ask(&words(cycle).0).await,
        }
    }

    /// Ends the fault: the process is started again, or continues.
    pub(crate) async fn end(&self, cycle: &Cycle) -> anyhow::Result<()> {
        let Cycle { fault, process } = cycle;
        match self {
            Self::Demo(demo) => {
                let name = Name { process: process.clone() };
                let hangs = *fault == Fault::Hang;
                demo.order(&if hangs { Order::Resume(name) } else { Order::Restart(name) }).await
            }
            Self::Compose(command) => compose(command, verbs(*fault).1, process).await,
            Self::Manual => ask(&words(cycle).1).await,
        }
    }

    /// Where the data of the processes are, where they can be read.
    pub(crate) fn data(&self) -> Option<&Arc<DataFolder>> {
        match self {
            Self::Demo(demo) => Some(demo.data()),
            Self::Compose(_) | Self::Manual => None,
        }
    }

    /// Ends what was started for the drill, and removes what it wrote. With `keep` this stays, and its folder
    /// is returned.
    pub(crate) async fn close(self, keep: bool) -> anyhow::Result<Option<PathBuf>> {
        match self {
            Self::Demo(demo) => demo.close(keep).await,
            Self::Compose(_) | Self::Manual => Ok(None),
        }
    }
}

/// Works on the data of a process; the load continues meanwhile.
async fn blocking(
    data: &Arc<DataFolder>,
    process: &str,
    work: fn(&DataFolder, &str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (data, process) = (Arc::clone(data), process.to_owned());
    tokio::task::spawn_blocking(move || work(&data, &process)).await?
}

/// What begins a fault and what ends it, for docker-compose.
fn verbs(fault: Fault) -> (&'static str, &'static str) {
    match fault {
        Fault::Stop => ("stop", "start"),
        Fault::Hang => ("pause", "unpause"),
        Fault::Kill | Fault::Gateway => ("kill", "start"),
        Fault::Wipe | Fault::Rollback => {
            unreachable!("docker-compose is not asked for faults that it cannot do")
        }
    }
}

async fn compose(command: &[&str], verb: &str, process: &str) -> anyhow::Result<()> {
    let output = output(command, &[verb, process]).await?;
    if !output.status.success() {
        let printed = String::from_utf8_lossy(&output.stderr);
        let last = printed.trim_end().lines().last().unwrap_or("it prints nothing");
        bail!("{} {verb} {process}: {last}", command.join(" "));
    }
    Ok(())
}

async fn output(command: &[&str], arguments: &[&str]) -> anyhow::Result<Output> {
    let mut child = Command::new(command[0]);
    let child = child.args(&command[1..]).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let words = || [command, arguments].concat().join(" ");
    let output = timeout(COMPOSE, child.output()).await;
    output
        .with_context(|| format!("{} takes longer than {COMPOSE:?}", words()))?
        .with_context(|| format!("{} cannot be run", words()))
}

/// What a person has to do to begin a fault and to end it.
fn words(Cycle { fault, process }: &Cycle) -> (String, String) {
    let begin = match fault {
        Fault::Stop => format!("Stop {process} (SIGTERM)"),
        Fault::Kill | Fault::Gateway => format!("Kill {process} (SIGKILL)"),
        Fault::Hang => format!("Make {process} hang (SIGSTOP)"),
        Fault::Wipe => format!("Kill {process} (SIGKILL) and remove its data folder"),
        Fault::Rollback => {
            format!("Kill {process} (SIGKILL) and replace its data folder by an older copy of it")
        }
    };
    let end = match fault {
        Fault::Hang => format!("After 3 s let {process} continue (SIGCONT)"),
        _ => format!("Start {process} again"),
    };
    (begin, end)
}

async fn ask(what: &str) -> anyhow::Result<()> {
    let _ = write!(std::io::stdout(), "\n{what}, then press Enter: ");
    let _ = std::io::stdout().flush();
    let read = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    let length = read.await?.context("nothing can be read from the terminal")?;
    ensure!(length > 0, "the terminal is closed, so Enter cannot be pressed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compose_has_a_verb_for_each_fault_that_it_can_do() {
        for fault in DriverKind::Compose.faults() {
            assert_ne!(verbs(*fault).0, verbs(*fault).1, "{fault}");
        }
        assert!(![Fault::Wipe, Fault::Rollback].iter().any(|it| DriverKind::Compose.faults().contains(it)));
    }

    #[tokio::test]
    async fn a_command_that_fails_is_named_with_its_last_line() {
        let script = "echo first >&2; echo no such service: $1 >&2; exit 1";
        let error = compose(&["sh", "-c", script], "stop", "db-9").await.unwrap_err().to_string();
        assert!(error.ends_with("stop db-9: no such service: db-9"), "{error}");
        let missing = compose(&["/no/such/program"], "stop", "db-9").await.unwrap_err().to_string();
        assert!(missing.contains("cannot be run"), "{missing}");
    }

    #[test]
    fn a_person_is_asked_for_the_process_and_what_to_do() {
        let cycle = |fault| Cycle { fault, process: "db-1".to_owned() };
        assert_eq!(words(&cycle(Fault::Stop)).0, "Stop db-1 (SIGTERM)");
        assert!(words(&cycle(Fault::Wipe)).0.contains("remove its data folder"));
        assert_eq!(words(&cycle(Fault::Kill)).1, "Start db-1 again");
    }
}
