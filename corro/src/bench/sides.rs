//! What is measured: rings and the ceiling, each in processes of its own.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::time::timeout;
use uuid::Uuid;

use super::ceiling::{CERT_FILE, KEY_FILE};
use super::cpu::Watched;
use crate::client::Endpoint;
use crate::demo::DemoRing;
use crate::parent;

/// What has not started by then does not.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a ceiling with TLS is asked.
const HOST: &str = "127.0.0.1";

/// One of those that are compared.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) name: &'static str,
    pub(super) target: Endpoint,
    /// Its processes, where they are known.
    pub(super) processes: Vec<Watched>,
    /// Of a ring that stays: the users that it was asked to make.
    pub(super) made: Option<Made>,
}

/// Ids that a ring has chosen.
pub(super) type Made = Arc<Mutex<Vec<Uuid>>>;

/// All that are compared, the ring in question first.
#[derive(Default)]
pub(super) struct Sides {
    pub(super) all: Vec<Side>,
    rings: Vec<DemoRing>,
    /// Killed when it is dropped.
    ceiling: Option<Child>,
}

impl Sides {
    /// A ring that runs already.
    pub(super) fn running_ring(&mut self, target: Endpoint) {
        self.all.push(Side { name: "ring", target, processes: Vec::new(), made: Some(Made::default()) });
    }

    /// Starts a ring as it would run in production, with this executable where no other is given.
    ///
    /// # Errors
    /// Where it does not start.
    pub(super) async fn own_ring(
        &mut self,
        name: &'static str,
        executable: Option<&Path>,
        size: u16,
    ) -> anyhow::Result<()> {
        let mut command = parent::child(executable)?;
        command.env("NODE_ENV", "production").env_remove("RUST_LOG");
        let ring = DemoRing::start(command, size).await.with_context(|| format!("the ring ({name})"))?;
        let port = ring.port();
        until_ready(port).await?; // all processes run now
        let (processes, target) = (ring.processes().await?, ring.endpoint()?);
        self.rings.push(ring);
        let processes = processes.into_iter().map(|(name, pid)| Watched { name, pid }).collect();
        self.all.push(Side { name, target, processes, made: None });
        Ok(())
    }

    /// Starts the ceiling: with TLS, and a certificate of its own, where the ring is asked with https.
    ///
    /// # Errors
    /// Where it does not start.
    pub(super) async fn ceiling(&mut self) -> anyhow::Result<()> {
        let secure = self.all.first().is_some_and(|side| side.target.base.scheme() == "https");
        let folder = tempfile::tempdir().context("a temporary folder")?;
        let [cert, key] = ["cert", "key"].map(|name| folder.path().join(name));
        let mut command = parent::child(None)?;
        command.env_remove(CERT_FILE).env_remove(KEY_FILE);
        if secure {
            let made = rcgen::generate_simple_self_signed([HOST.to_owned()])?;
            std::fs::write(&cert, made.cert.pem())?;
            std::fs::write(&key, made.signing_key.serialize_pem())?;
            command.env(CERT_FILE, &cert).env(KEY_FILE, &key);
        }
        let mut child = command
            .arg("bench-ceiling")
            .stdout(Stdio::piped())
            .spawn()
            .context("the ceiling cannot be started")?;
        let output = child.stdout.take().context("its output is piped")?;
        let mut port = String::new();
        let read = timeout(PATIENCE, BufReader::new(output).read_line(&mut port)).await;
        read.context("the ceiling does not start")?.context("the ceiling does not print its port")?;
        let port: u16 =
            port.trim().parse().with_context(|| format!("the ceiling prints {port:?} as its port"))?;
        let pid = child.id().context("the ceiling has ended")?;
        self.ceiling = Some(child);
        let processes = vec![Watched { name: "ceiling".to_owned(), pid }];
        let target = match secure {
            true => Endpoint::parse(&format!("https://{HOST}:{port}"), None)?.trusting(Some(&cert))?,
            false => Endpoint::local(port),
        };
        self.all.push(Side { name: "ceiling", target, processes, made: None });
        Ok(())
    }

    /// Ends what was started.
    ///
    /// # Errors
    /// Where a ring does not end.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        for ring in self.rings {
            ring.close(false).await?;
        }
        Ok(())
    }
}

/// Returns when every partition takes reads and writes.
async fn until_ready(port: u16) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let probe = move || process::probe(port, "/health/ready");
    while let Ok(Err(why)) = tokio::task::spawn_blocking(probe).await {
        ensure!(Instant::now() < deadline, "the ring is not ready after {PATIENCE:?}: {why}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
