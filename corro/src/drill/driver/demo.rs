//! A demo as driver. One started for the drill is a process like any other demo, in a temporary folder and on
//! free ports; so the drill needs but one way to its ring, the control socket.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::super::faults::{Cycle, Fault};
use crate::demo::{Layout, Order, Whereabouts, processes, send, whereabouts};

/// A demo that has not opened its control socket by then, or not ended by then, is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks whether it is open.
const GLANCE: Duration = Duration::from_millis(20);

/// Where the db-processes of a demo keep their data.
#[derive(Clone, Debug)]
pub(crate) struct DataFolder {
    folder: PathBuf,
    /// Number of db-processes.
    pub(crate) size: u16,
}

impl DataFolder {
    /// The database of a copy.
    pub(crate) fn copy(&self, place: u16, role: &str) -> PathBuf {
        self.of(&format!("db-{place}")).join(role)
    }

    fn of(&self, process: &str) -> PathBuf {
        self.folder.join(process)
    }

    fn older(&self, process: &str) -> PathBuf {
        self.folder.join(format!("{process}.older"))
    }
}

/// Copies a folder with all that is in it. What was there is removed first.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A running demo.
pub(crate) struct DemoRing {
    layout: Layout,
    rest_port: u16,
    data: DataFolder,
    own: Option<Own>,
}

/// A demo that was started for the drill, or for another measurement.
struct Own {
    child: Child,
    folder: TempDir,
}

impl DemoRing {
    /// The demo that runs in that folder.
    ///
    /// # Errors
    /// Where there is none.
    pub(crate) async fn running_in(folder: &Path) -> anyhow::Result<Self> {
        let layout = Layout::of(folder);
        let ring = whereabouts(&layout).await?;
        Ok(Self::new(layout, ring, None))
    }

    /// Starts a demo of so many db-processes with this executable. Call it on the main thread: see
    /// [`crate::parent::end_with`].
    ///
    /// # Errors
    /// Where it does not start, with what it said.
    pub(crate) async fn start(size: u16) -> anyhow::Result<Self> {
        let executable = std::env::current_exe().context("this executable cannot be found")?;
        Self::start_with(Command::new(executable), size).await
    }

    /// The same with another executable, or another environment.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub(crate) async fn start_with(mut demo: Command, size: u16) -> anyhow::Result<Self> {
        let folder =
            tempfile::Builder::new().prefix("corro-drill-").tempdir().context("no temporary folder")?;
        let layout = Layout::of(folder.path());
        let said = folder.path().join("demo.out");
        let output = File::create(&said).with_context(|| said.display().to_string())?;
        let child = demo
            .args(["demo", "--rest-port=0", "--socket-port=0"])
            .arg(format!("--db-processes={size}"))
            .arg("--folder")
            .arg(folder.path())
            .arg(format!("--exit-with-parent={}", std::process::id()))
            .env_remove("API_TOKEN") // the ring is the drill's own
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0) // Ctrl-C is for the drill, which ends the demo in order
            .kill_on_drop(true)
            .spawn()
            .context("no demo can be started")?;
        let mut own = Own { child, folder };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match whereabouts(&layout).await {
                Ok(ring) => return Ok(Self::new(layout, ring, Some(own))),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => tokio::time::sleep(GLANCE).await,
            }
            if own.child.try_wait().context("the demo cannot be waited for")?.is_some() {
                let said = std::fs::read_to_string(&said).unwrap_or_default();
                bail!("the demo has ended: {}", said.trim_end());
            }
        }
    }

    fn new(layout: Layout, ring: Whereabouts, own: Option<Own>) -> Self {
        let data = DataFolder { folder: ring.data, size: ring.size };
        Self { layout, rest_port: ring.rest_port, data, own }
    }

    /// Where its gateway is.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.rest_port)
    }

    pub(crate) fn data(&self) -> &DataFolder {
        &self.data
    }

    /// Its processes by name, the gateway first.
    ///
    /// # Errors
    /// Where the demo has ended.
    pub(crate) async fn processes(&self) -> anyhow::Result<Vec<(String, u32)>> {
        let processes = processes(&self.layout).await?;
        Ok(processes.into_iter().filter_map(|status| Some((status.process, status.pid?))).collect())
    }

    /// Sets a copy of the data aside where they are to be taken back. The process stands still meanwhile, so
    /// the copy is what a disk has at one moment.
    pub(super) async fn prepare(&self, Cycle { fault, process }: &Cycle) -> anyhow::Result<()> {
        if *fault != Fault::Rollback {
            return Ok(());
        }
        self.order(&Order::Pause { process: process.clone() }).await?;
        let (from, to) = (self.data.of(process), self.data.older(process));
        let copied = tokio::task::spawn_blocking(move || copy_folder(&from, &to)).await;
        self.order(&Order::Resume { process: process.clone() }).await?;
        copied?.with_context(|| format!("the data of {process} cannot be copied"))
    }

    pub(super) async fn begin(&self, Cycle { fault, process }: &Cycle) -> anyhow::Result<()> {
        let name = process.clone();
        let order = match fault {
            Fault::Stop => Order::Stop { process: name },
            Fault::Kill | Fault::Wipe | Fault::Rollback | Fault::Gateway => Order::Kill { process: name },
            Fault::Hang => Order::Pause { process: name },
        };
        self.order(&order).await?;
        if matches!(fault, Fault::Wipe | Fault::Rollback) {
            let folder = self.data.of(process);
            let older = (*fault == Fault::Rollback).then(|| self.data.older(process));
            // Removing it takes a while where there is much in it; the load goes on meanwhile.
            let replaced = tokio::task::spawn_blocking({
                let folder = folder.clone();
                move || {
                    std::fs::remove_dir_all(&folder)?;
                    older.map_or(Ok(()), |older| std::fs::rename(older, folder))
                }
            });
            replaced.await?.with_context(|| format!("{} cannot be replaced", folder.display()))?;
        }
        Ok(())
    }

    pub(super) async fn end(&self, Cycle { fault, process }: &Cycle) -> anyhow::Result<()> {
        let process = process.clone();
        let order = match fault {
            Fault::Hang => Order::Resume { process },
            Fault::Stop | Fault::Kill | Fault::Wipe | Fault::Rollback | Fault::Gateway => {
                Order::Restart { process }
            }
        };
        self.order(&order).await
    }

    async fn order(&self, order: &Order) -> anyhow::Result<()> {
        send(&self.layout, order).await.map(drop)
    }

    /// Ends one that was started here, and removes what it wrote. With `keep` that stays, and where it is is
    /// returned.
    ///
    /// # Errors
    /// Where it does not end.
    pub(crate) async fn close(mut self, keep: bool) -> anyhow::Result<Option<PathBuf>> {
        let Some(Own { mut child, folder }) = self.own.take() else { return Ok(None) };
        if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)) {
            kill_process(pid, Signal::TERM).context("the demo cannot be stopped")?;
        }
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
        ended.context("the demo does not stop")?.context("the demo cannot be waited for")?;
        if keep {
            return Ok(Some(folder.keep()));
        }
        folder.close().context("the temporary folder cannot be removed")?;
        Ok(None)
    }
}
