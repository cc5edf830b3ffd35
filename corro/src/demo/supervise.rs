//! The demo itself: starts the processes, waits until the ring is ready, and says what becomes of them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use db_process::remedy::WHAT_TO_DO;
use rustix::process::Signal;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::banner::{banner, command};
use super::children::{End, Ending, Ring, Running, empty_if_large, last_line};
use super::control::{self, Answer, Order, Ordered, ProcessStatus, Whereabouts};
use super::layout::Layout;
use super::{DemoSettings, ports};

/// Between two looks at a health page.
const GLANCE: Duration = Duration::from_millis(10);

/// How often to say again what is waited for.
const REMINDER: Duration = Duration::from_secs(5);

/// Between two looks at what the processes printed, and how much of it may be there.
const OUTPUT_CHECK: Duration = Duration::from_secs(1);
const OUTPUT_BYTES: u64 = 16 << 20;

/// Prints a line. Where nobody reads any more, because the terminal is closed, the demo still ends in order.
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// Runs a demo until `shutdown`, or until its terminal is closed.
///
/// # Errors
/// Where it cannot start: another demo in the folder, a port taken, a process that ends before the ring was
/// ready.
pub(crate) async fn run(settings: DemoSettings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut closed = signal(SignalKind::hangup()).context("SIGHUP cannot be listened for")?;
    tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            closed.recv().await;
            shutdown.cancel();
        }
    });
    let layout = Layout::of(&settings.folder);
    let _lock = layout.take()?;
    let ring = Ring {
        size: layout.ring_size(settings.db_processes)?,
        rest_port: ports::free(settings.rest_port, "REST_PORT").await?,
        socket_port: ports::free(settings.socket_port, "SOCKET_PORT").await?,
        secret: format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()),
        layout,
    };
    let socket = ring.layout.socket.clone();
    let listener =
        UnixListener::bind(&socket).with_context(|| format!("{} cannot be made", socket.display()))?;
    let (orders, ordered) = mpsc::channel(16);
    tokio::spawn(control::serve(listener, orders));

    let mut demo = Demo { ring, processes: BTreeMap::new(), ends: JoinSet::new(), ordered };
    let outcome = demo.run(&shutdown).await;
    demo.stop().await;
    let _ = std::fs::remove_file(&socket);
    outcome
}

struct Demo {
    ring: Ring,
    processes: BTreeMap<String, State>,
    ends: JoinSet<End>,
    ordered: mpsc::Receiver<Ordered>,
}

/// Where a process is.
enum State {
    /// It runs.
    Runs(Running),
    /// It was asked to end; whoever waits for that is told, and with `again` it is started once more.
    Ends { running: Running, again: bool, waiting: Vec<oneshot::Sender<Answer>> },
    /// It does not run, and this is why.
    Ended(String),
}

impl Demo {
    async fn run(&mut self, shutdown: &CancellationToken) -> anyhow::Result<()> {
        let started = Instant::now();
        for process in self.ring.processes() {
            // Of the demo before; the daily log keeps it.
            let _ = std::fs::remove_file(self.ring.layout.output_of(&process));
        }
        say!(
            "Starting a gateway on port {} and {} db-processes; waiting until every partition takes reads \
             and writes …",
            self.ring.rest_port,
            self.ring.size
        );
        self.start("gateway")?;
        // The first connection of a db-process finds it listening, and so needs no second attempt.
        let alive = tokio::spawn(until_well(self.ring.rest_port, "/health/live"));
        self.follow(shutdown, alive, true).await?;
        for process in self.ring.processes().into_iter().skip(1) {
            self.start(&process)?;
        }
        let ready = tokio::spawn(until_well(self.ring.rest_port, "/health/ready"));
        self.follow(shutdown, ready, true).await?;
        if shutdown.is_cancelled() {
            return Ok(());
        }
        let executable = std::env::current_exe().context("this executable cannot be found")?;
        let folder = std::env::current_dir().context("the current folder cannot be found")?;
        let command = command(&executable, &folder, std::env::var_os("PATH").as_deref());
        say!("{}", banner(&self.ring, started.elapsed(), &command));
        let never = tokio::spawn(std::future::pending());
        self.follow(shutdown, never, false).await
    }

    /// Does what there is to do, until `done` or `shutdown`. While `starting`, a process that ends is a
    /// failure, unless it says what to do: mostly that needs the others to run.
    async fn follow(
        &mut self,
        shutdown: &CancellationToken,
        mut done: tokio::task::JoinHandle<()>,
        starting: bool,
    ) -> anyhow::Result<()> {
        let mut output_check = tokio::time::interval(OUTPUT_CHECK);
        loop {
            tokio::select! {
                _ = output_check.tick() => {
                    for process in self.ring.processes() {
                        empty_if_large(&self.ring.layout.output_of(&process), OUTPUT_BYTES);
                    }
                }
                () = shutdown.cancelled() => {
                    done.abort();
                    return Ok(());
                }
                result = &mut done => return result.context("the health check ended"),
                Some((order, reply)) = self.ordered.recv() => self.obey(order, reply),
                Some(end) = self.ends.join_next() => {
                    let end = end.context("a process is no longer watched")?;
                    let by_itself = end.asked.is_none();
                    let process = end.process.clone();
                    let told = self.ended(end)?;
                    if starting && by_itself && !self.goes_on_without(&told) {
                        done.abort();
                        bail!(told);
                    }
                    say!("{told}");
                    if told.contains(WHAT_TO_DO) {
                        let (folder, port) = (self.ring.layout.folder.display(), self.ring.rest_port);
                        say!(
                            "{process} is not started again by itself; `corro demo restart {process} --folder \
                             {folder}` does it. The ring page is http://localhost:{port}/"
                        );
                    }
                }
            }
        }
    }

    fn start(&mut self, process: &str) -> anyhow::Result<u32> {
        let running = self.ring.start(process, &mut self.ends)?;
        let pid = running.pid;
        self.processes.insert(process.to_owned(), State::Runs(running));
        Ok(pid)
    }

    /// Takes note of an end, starts the process again where that was asked for, and says what happened.
    fn ended(&mut self, end: End) -> anyhow::Result<String> {
        let End { process, status, asked } = end;
        let how = manner(&status.with_context(|| format!("{process} cannot be waited for"))?);
        let mut told = match asked {
            Some(Ending::Kill) => format!("{process} is killed"),
            Some(Ending::Stop) => format!("{process} has stopped"),
            None => self.unexpected(&process, &how),
        };
        let before = self.processes.insert(process.clone(), State::Ended(how));
        if let Some(State::Ends { again, waiting, .. }) = before {
            if again {
                told = match self.start(&process) {
                    Ok(pid) => format!("{told}, and runs again as process {pid}"),
                    Err(error) => format!("{told}; {error:#}"),
                };
            }
            for reply in waiting {
                let _ = reply.send(Answer::Done { text: told.clone() });
            }
        }
        Ok(told)
    }

    /// Whether the others run on while a process is seen to that ended by itself with these words.
    fn goes_on_without(&self, told: &str) -> bool {
        let runs =
            |(process, state): (&String, &State)| process != "gateway" && matches!(state, State::Runs(_));
        told.contains(WHAT_TO_DO) && self.processes.iter().any(runs)
    }

    /// What to say of a process that ended by itself.
    fn unexpected(&self, process: &str, how: &str) -> String {
        let output = self.ring.layout.output_of(process);
        let last = last_line(&output).unwrap_or_else(|| "nothing".to_owned());
        if process == "gateway" && ports::is_taken(&last) {
            let ports = [(self.ring.rest_port, "REST_PORT"), (self.ring.socket_port, "SOCKET_PORT")];
            let (port, variable) =
                ports.into_iter().find(|(port, _)| last.contains(&port.to_string())).unwrap_or(ports[0]);
            return ports::taken(port, variable);
        }
        format!("{process} ended by itself ({how}); the last line in {}: {last}", output.display())
    }

    fn obey(&mut self, order: Order, reply: oneshot::Sender<Answer>) {
        let (process, ending, again) = match order {
            Order::Kill { process } => (process, Ending::Kill, false),
            Order::Stop { process } => (process, Ending::Stop, false),
            Order::Restart { process } => (process, Ending::Stop, true),
            at_once => {
                let _ = reply.send(self.answer(at_once));
                return;
            }
        };
        let answer = match self.processes.remove(&process) {
            Some(State::Runs(running)) => {
                running.end(ending);
                self.processes.insert(process, State::Ends { running, again, waiting: vec![reply] });
                return; // the answer follows with the end
            }
            Some(State::Ends { running, mut waiting, .. }) => {
                running.end(ending);
                waiting.push(reply);
                // The last order counts.
                self.processes.insert(process, State::Ends { running, again, waiting });
                return;
            }
            Some(ended @ State::Ended(_)) => {
                self.processes.insert(process.clone(), ended);
                if again { self.restart(&process) } else { refused(format!("{process} does not run")) }
            }
            None => self.unknown(&process),
        };
        let _ = reply.send(answer);
    }

    /// Obeys an order that ends no process.
    fn answer(&self, order: Order) -> Answer {
        match order {
            Order::Pause { process } => self.signal(&process, Signal::STOP, "hangs"),
            Order::Resume { process } => self.signal(&process, Signal::CONT, "goes on"),
            Order::Ring => Answer::Ring(self.whereabouts()),
            Order::Status => Answer::Processes { processes: self.status() },
            Order::Kill { .. } | Order::Stop { .. } | Order::Restart { .. } => {
                unreachable!("answered once the process has ended")
            }
        }
    }

    fn signal(&self, process: &str, signal: Signal, what: &str) -> Answer {
        match self.processes.get(process) {
            Some(State::Runs(running) | State::Ends { running, .. }) => match running.signal(signal) {
                Ok(()) => Answer::Done { text: format!("{process} {what}") },
                Err(error) => refused(format!("{process} gets no signal: {error}")),
            },
            Some(State::Ended(_)) => refused(format!("{process} does not run")),
            None => self.unknown(process),
        }
    }

    fn unknown(&self, process: &str) -> Answer {
        let known = self.ring.processes().join(", ");
        refused(format!("there is no process {process:?}; there are {known}"))
    }

    fn whereabouts(&self) -> Whereabouts {
        let data = &self.ring.layout.data;
        Whereabouts {
            rest_port: self.ring.rest_port,
            size: self.ring.size,
            // Whoever asks may be in another folder.
            data: std::path::absolute(data).unwrap_or_else(|_| data.clone()),
        }
    }

    fn restart(&mut self, process: &str) -> Answer {
        match self.start(process) {
            Ok(pid) => {
                let text = format!("{process} runs again as process {pid}");
                say!("{text}");
                Answer::Done { text }
            }
            Err(error) => refused(format!("{error:#}")),
        }
    }

    fn status(&self) -> Vec<ProcessStatus> {
        let state = |process: &str| match self.processes.get(process) {
            Some(State::Runs(running)) => format!("runs as process {}", running.pid),
            Some(State::Ends { running, .. }) => {
                format!("runs as process {}, and is asked to end", running.pid)
            }
            Some(State::Ended(how)) => format!("does not run ({how})"),
            None => "is not started yet".to_owned(),
        };
        let pid = |process: &str| match self.processes.get(process) {
            Some(State::Runs(running) | State::Ends { running, .. }) => Some(running.pid),
            Some(State::Ended(_)) | None => None,
        };
        self.ring
            .processes()
            .into_iter()
            .map(|process| ProcessStatus { state: state(&process), pid: pid(&process), process })
            .collect()
    }

    /// Stops all that runs. Each has 5 s, all of them the same 5 s.
    async fn stop(&mut self) {
        if self.ends.is_empty() {
            return;
        }
        say!("Stopping {} processes …", self.ends.len());
        for state in self.processes.values() {
            if let State::Runs(running) | State::Ends { running, .. } = state {
                running.end(Ending::Stop);
            }
        }
        while let Some(end) = self.ends.join_next().await {
            if let Ok(End { process, status: Ok(status), .. }) = end
                && !status.success()
            {
                say!("{process}: {}", manner(&status));
            }
        }
    }
}

fn refused(reason: String) -> Answer {
    Answer::Refused { reason }
}

/// How a process ended, in words.
fn manner(status: &ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(9)) => "signal 9, SIGKILL".to_owned(),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Returns when the gateway answers 200; says every 5 s what it answers instead.
async fn until_well(port: u16, path: &'static str) {
    let mut reminder = Instant::now() + REMINDER;
    // A probe blocks its thread for up to 2 s; children are started on the main thread alone, so this may be
    // another.
    while let Ok(Err(why)) = tokio::task::spawn_blocking(move || process::probe(port, path)).await {
        if Instant::now() > reminder {
            say!("Still waiting: {why}");
            reminder = Instant::now() + REMINDER;
        }
        tokio::time::sleep(GLANCE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_said_in_words() {
        assert_eq!(manner(&ExitStatus::from_raw(9)), "signal 9, SIGKILL");
        assert_eq!(manner(&ExitStatus::from_raw(6)), "signal 6");
        assert_eq!(manner(&ExitStatus::from_raw(1 << 8)), "exit code 1");
    }
}
