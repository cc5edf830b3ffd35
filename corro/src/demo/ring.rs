//! A demo that another command uses: one that runs already, or one of its own, which is a process like any
//! other demo, in a temporary folder and on free ports. Either is reached by the control socket.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::control::{Order, Status, send, status};
use super::layout::Layout;
use crate::client::Endpoint;
use crate::parent::send_signal;

/// A demo that has not opened its control socket within this time, or not ended, is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two attempts to reach it.
const INTERVAL: Duration = Duration::from_millis(20);

/// Where the db-processes of a demo keep their data.
#[derive(Debug)]
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

    /// Keeps a copy of the data of a process. It blocks.
    pub(crate) fn set_aside(&self, process: &str) -> anyhow::Result<()> {
        let copied = copy_folder(&self.of(process), &self.older(process));
        copied.with_context(|| format!("the data of {process} cannot be copied"))
    }

    /// Removes the data of a process, or replaces them by those that were set aside. It blocks, for a while
    /// if there is much.
    pub(crate) fn remove(&self, process: &str, put_older: bool) -> anyhow::Result<()> {
        let folder = self.of(process);
        let mut replaced = std::fs::remove_dir_all(&folder);
        if put_older {
            replaced = replaced.and_then(|()| std::fs::rename(self.older(process), &folder));
        }
        replaced.with_context(|| format!("{} cannot be replaced", folder.display()))
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
    data: Arc<DataFolder>,
    /// Of one that was started here.
    own: Option<(Child, TempDir)>,
}

impl DemoRing {
    /// The demo that runs in that folder.
    ///
    /// # Errors
    /// Where there is none.
    pub(crate) async fn running_in(folder: &Path) -> anyhow::Result<Self> {
        let layout = Layout::of(folder);
        let status = status(&layout).await?;
        Ok(Self::new(layout, status, None))
    }

    /// Starts a demo of so many db-processes with the command of [`crate::parent::child`].
    ///
    /// # Errors
    /// Where it does not start, with what it printed.
    pub(crate) async fn start(mut demo: Command, size: u16) -> anyhow::Result<Self> {
        let folder =
            tempfile::Builder::new().prefix("corro-drill-").tempdir().context("no temporary folder")?;
        let layout = Layout::of(folder.path());
        let printed = folder.path().join("demo.out");
        let output = File::create(&printed).with_context(|| printed.display().to_string())?;
        let mut child = demo
            .args(["demo", "--rest-port=0", "--socket-port=0"])
            .arg(format!("--db-processes={size}"))
            .arg("--folder")
            .arg(folder.path())
            // The ring is its own.
            .env_remove("API_TOKEN")
            .env_remove("API_TOKEN_FILE")
            .env_remove("API_TOKENS")
            .env_remove("API_TOKENS_FILE")
            .env_remove("ALLOW_ANONYMOUS")
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("no demo can be started")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match status(&layout).await {
                Ok(status) => return Ok(Self::new(layout, status, Some((child, folder)))),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => tokio::time::sleep(INTERVAL).await,
            }
            if child.try_wait().context("the demo cannot be waited for")?.is_some() {
                let printed = std::fs::read_to_string(&printed).unwrap_or_default();
                bail!("the demo has ended: {}", printed.trim_end());
            }
        }
    }

    fn new(layout: Layout, status: Status, own: Option<(Child, TempDir)>) -> Self {
        let data = Arc::new(DataFolder { folder: status.data, size: status.size });
        Self { layout, rest_port: status.rest_port, data, own }
    }

    /// HTTP port of its gateway.
    pub(crate) fn port(&self) -> u16 {
        self.rest_port
    }

    /// Its gateway, with its token. A demo of an earlier version has none.
    ///
    /// # Errors
    /// Where the token is not one.
    pub(crate) fn endpoint(&self) -> anyhow::Result<Endpoint> {
        let token = std::fs::read_to_string(&self.layout.token).ok();
        Endpoint::local(self.rest_port).with_token(token.as_deref())
    }

    pub(crate) fn data(&self) -> &Arc<DataFolder> {
        &self.data
    }

    /// The processes that run, by name, the gateway first.
    ///
    /// # Errors
    /// Where the demo has ended.
    pub(crate) async fn processes(&self) -> anyhow::Result<Vec<(String, u32)>> {
        let processes = status(&self.layout).await?.processes;
        Ok(processes.into_iter().filter_map(|status| Some((status.process, status.pid?))).collect())
    }

    /// Gives it an order.
    ///
    /// # Errors
    /// Where it refuses, or has ended.
    pub(crate) async fn order(&self, order: &Order) -> anyhow::Result<()> {
        send(&self.layout, order).await.map(drop)
    }

    /// Ends one that was started here, and removes what it wrote. With `keep` this stays, and its folder is
    /// returned.
    ///
    /// # Errors
    /// Where it does not end.
    pub(crate) async fn close(mut self, keep: bool) -> anyhow::Result<Option<PathBuf>> {
        let Some((mut child, folder)) = self.own.take() else { return Ok(None) };
        if let Some(pid) = child.id() {
            send_signal(pid, Signal::TERM).context("the demo cannot be stopped")?;
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
