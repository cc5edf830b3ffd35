//! The demo itself: starts the processes, waits until the ring is ready, and reports what becomes of them.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use db_process::remedy::WHAT_TO_DO;
use rustix::process::Signal;
use tokio::net::UnixListener;
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::banner::banner;
use super::children::{self, Ring, empty_if_large, last_line, manner};
use super::control::{self, Answer, OneOrAll, Order, ProcessStatus, Status};
use super::layout::Layout;
use super::{DemoSettings, ports};
use crate::terminal::say;

/// Between two requests for a health page.
const INTERVAL: Duration = Duration::from_millis(10);

/// How often to print again what is waited for.
const REMINDER: Duration = Duration::from_secs(5);

/// Between two checks of what the processes printed, and the largest size of that.
const OUTPUT_CHECK: Duration = Duration::from_secs(1);
const OUTPUT_BYTES: u64 = 16 << 20;

/// How long a process has to stop by itself, before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs a demo until `shutdown`.
///
/// # Errors
/// Where it cannot start: another demo in the folder, a port taken, a process that ends before the ring was
/// ready.
pub(crate) async fn run(settings: DemoSettings, shutdown: CancellationToken) -> anyhow::Result<()> {
    process::keep_files_private();
    let layout = Layout::of(&settings.folder);
    let _lock = layout.take()?;
    let ring = Ring {
        size: layout.ring_size(settings.db_processes)?,
        rest_port: ports::free(settings.rest_port, "REST_PORT").await?,
        socket_port: ports::free(settings.socket_port, "SOCKET_PORT").await?,
        token: layout.make_token()?,
        layout,
    };
    let socket = ring.layout.socket.clone();
    let (_folder, short) = ring.layout.short_socket().with_context(|| socket.display().to_string())?;
    let listener =
        UnixListener::bind(short).with_context(|| format!("{} cannot be made", socket.display()))?;
    let slots = ring.processes().into_iter().map(|process| (process, Mutex::default())).collect();
    let demo = Arc::new(Demo { ring, slots, shutdown });
    let obeying = tokio::spawn(control::serve(listener, {
        let demo = Arc::clone(&demo);
        move |order| Arc::clone(&demo).obey(order)
    }));
    let outcome = demo.run().await;
    obeying.abort();
    demo.stop().await;
    let _ = std::fs::remove_file(&socket);
    outcome
}

struct Demo {
    ring: Ring,
    /// By name, each process of the ring. A slot is locked while an order changes its process.
    slots: BTreeMap<String, Mutex<Slot>>,
    /// Ends the demo.
    shutdown: CancellationToken,
}

/// A process of the ring.
#[derive(Default)]
struct Slot {
    /// Where it runs, or has ended a moment ago.
    child: Option<Child>,
    /// How it ended last.
    ended: Option<String>,
}

impl Demo {
    async fn run(&self) -> anyhow::Result<()> {
        let started = Instant::now();
        let processes = self.ring.processes();
        for process in &processes {
            // Of the demo before; the daily log keeps it.
            let _ = std::fs::remove_file(self.ring.layout.output_of(process));
        }
        let (port, size) = (self.ring.rest_port, self.ring.size);
        say(&format!(
            "Starting a gateway on port {port} and {size} db-processes; waiting until every partition takes \
             reads and writes …"
        ));
        // The gateway first: the first connection of a db-process finds it listening.
        for (starting, path) in [(&processes[..1], "/health/live"), (&processes[1..], "/health/ready")] {
            for process in starting {
                let mut slot = self.slots[process].lock().await;
                // An order may have started it meanwhile.
                if slot.child.is_none() {
                    slot.child = Some(self.ring.start(process)?);
                }
            }
            self.watch(until_well(port, path), true).await?;
        }
        if self.shutdown.is_cancelled() {
            return Ok(());
        }
        let command = std::env::args().next().unwrap_or_default();
        say(&banner(&self.ring, started.elapsed(), &command));
        self.watch(std::future::pending(), false).await
    }

    /// Watches the processes until `done` or the end of the demo. While `starting`, a process that ends is a
    /// failure, unless it says what to do: mostly that needs the others to run.
    async fn watch(&self, done: impl Future<Output = ()>, starting: bool) -> anyhow::Result<()> {
        let mut ended = signal(SignalKind::child()).context("SIGCHLD cannot be listened for")?;
        let mut output_check = tokio::time::interval(OUTPUT_CHECK);
        let mut done = pin!(done);
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return Ok(()),
                () = &mut done => return Ok(()),
                _ = ended.recv() => {}
                _ = output_check.tick() => {
                    for process in self.slots.keys() {
                        empty_if_large(&self.ring.layout.output_of(process), OUTPUT_BYTES);
                    }
                }
            }
            for process in self.slots.keys() {
                self.look_at(process, starting)?;
            }
        }
    }

    /// Reports a process that has ended by itself.
    ///
    /// # Errors
    /// Where that is a failure.
    fn look_at(&self, process: &str, starting: bool) -> anyhow::Result<()> {
        // An order that has the lock reports the end itself.
        let Ok(mut slot) = self.slots[process].try_lock() else { return Ok(()) };
        let Some(child) = &mut slot.child else { return Ok(()) };
        let status = child.try_wait().with_context(|| format!("{process} cannot be waited for"))?;
        let Some(status) = status else { return Ok(()) };
        let how = manner(status);
        let text = self.unexpected(process, &how);
        *slot = Slot { child: None, ended: Some(how) };
        let has_remedy = text.contains(WHAT_TO_DO);
        let runs = |(name, slot): (&String, &Mutex<Slot>)| {
            name != "gateway" && slot.try_lock().is_ok_and(|slot| slot.child.is_some())
        };
        if starting && !(has_remedy && self.slots.iter().any(runs)) {
            bail!(text);
        }
        say(&text);
        if has_remedy {
            let (folder, port) = (self.ring.layout.folder.display(), self.ring.rest_port);
            say(&format!(
                "{process} is not started again by itself; `corro demo restart {process} --folder {folder}` \
                 does it. The ring page is http://localhost:{port}/"
            ));
        }
        Ok(())
    }

    /// The text about a process that ended by itself.
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

    async fn obey(self: Arc<Self>, order: Order) -> Answer {
        let outcome = match order {
            Order::Status => return Answer::Status(self.status()),
            Order::Pause(name) => self.signal(&name.process, Signal::STOP, "hangs").await,
            Order::Resume(name) => self.signal(&name.process, Signal::CONT, "continues").await,
            Order::Kill(name) => self.end(&name.process, Signal::KILL, "is killed", false).await,
            Order::Stop(OneOrAll { process: None }) => {
                self.shutdown.cancel();
                Ok("the demo stops".to_owned())
            }
            Order::Stop(OneOrAll { process: Some(process) }) => {
                self.end(&process, Signal::TERM, "has stopped", false).await
            }
            Order::Restart(name) => self.end(&name.process, Signal::TERM, "has stopped", true).await,
        };
        match outcome {
            Ok(text) => Answer::Done { text },
            Err(error) => Answer::Refused { reason: format!("{error:#}") },
        }
    }

    fn slot(&self, process: &str) -> anyhow::Result<&Mutex<Slot>> {
        self.slots.get(process).with_context(|| {
            format!("there is no process {process:?}; there are {}", self.ring.processes().join(", "))
        })
    }

    async fn signal(&self, process: &str, signal: Signal, what: &str) -> anyhow::Result<String> {
        let slot = self.slot(process)?.lock().await;
        let child = slot.child.as_ref().with_context(|| format!("{process} does not run"))?;
        children::signal(child, signal).with_context(|| format!("{process} gets no signal"))?;
        Ok(format!("{process} {what}"))
    }

    /// Ends a process, if it runs, and starts it `again`.
    async fn end(&self, process: &str, with: Signal, done: &str, again: bool) -> anyhow::Result<String> {
        let mut slot = self.slot(process)?.lock().await;
        let mut text = process.to_owned();
        match &mut slot.child {
            Some(child) => {
                let status = children::end(child, with, PATIENCE).await;
                let how = manner(status.with_context(|| format!("{process} cannot be ended"))?);
                *slot = Slot { child: None, ended: Some(how) };
                text += &format!(" {done}{}", if again { ", and" } else { "" });
            }
            None if again => {}
            None => bail!("{process} does not run"),
        }
        if again {
            let child = self.ring.start(process)?;
            text += &format!(" runs again as process {}", child.id().unwrap_or_default());
            slot.child = Some(child);
        }
        say(&text);
        Ok(text)
    }

    fn status(&self) -> Status {
        let status = |process: String| {
            let (pid, state) = match self.slots[&process].try_lock().as_deref() {
                Err(_) => (None, "is asked to end".to_owned()),
                Ok(Slot { child: Some(child), .. }) => {
                    (child.id(), format!("runs as process {}", child.id().unwrap_or_default()))
                }
                Ok(Slot { ended: Some(how), .. }) => (None, format!("does not run ({how})")),
                Ok(_) => (None, "is not started yet".to_owned()),
            };
            ProcessStatus { process, state, pid }
        };
        let data = &self.ring.layout.data;
        Status {
            rest_port: self.ring.rest_port,
            size: self.ring.size,
            // The caller may be in another folder.
            data: std::path::absolute(data).unwrap_or_else(|_| data.clone()),
            processes: self.ring.processes().into_iter().map(status).collect(),
        }
    }

    /// Stops all that runs. Each has 5 s, all of them the same 5 s.
    async fn stop(&self) {
        let mut running = Vec::new();
        for (process, slot) in &self.slots {
            if let Some(child) = slot.lock().await.child.take() {
                let _ = children::signal(&child, Signal::TERM); // it may have ended
                running.push((process, child));
            }
        }
        if running.is_empty() {
            return;
        }
        say(&format!("Stopping {} processes …", running.len()));
        let deadline = Instant::now() + PATIENCE;
        for (process, mut child) in running {
            let left = deadline.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, child.wait()).await {
                Ok(Ok(status)) if status.success() => {}
                Ok(Ok(status)) => say(&format!("{process}: {}", manner(status))),
                Ok(Err(_)) | Err(_) => {
                    let _ = child.kill().await;
                    say(&format!("{process} did not stop, and is killed"));
                }
            }
        }
    }
}

/// Returns when the gateway answers 200; prints every 5 s what it answers instead.
async fn until_well(port: u16, path: &'static str) {
    let mut reminder = Instant::now() + REMINDER;
    // A probe blocks its thread for up to 2 s; children are started on the main thread alone, so this may be
    // another.
    while let Ok(Err(why)) = tokio::task::spawn_blocking(move || process::probe(port, path)).await {
        if Instant::now() > reminder {
            say(&format!("Still waiting: {why}"));
            reminder = Instant::now() + REMINDER;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
