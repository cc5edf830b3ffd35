//! What is measured: rings and the ceiling, each in processes of its own.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use url::Url;

use super::cpu::Watched;
use super::generator::Target;
use crate::drill::DemoRing;

/// One of those that are compared.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) name: &'static str,
    pub(super) target: Target,
    /// Its processes, where they are known.
    pub(super) processes: Vec<Watched>,
}

/// All that are compared, the ring in question first.
#[derive(Default)]
pub(super) struct Sides {
    pub(super) all: Vec<Side>,
    rings: Vec<DemoRing>,
    /// Killed when it is dropped.
    ceiling: Option<Child>,
}

impl Sides {
    /// A ring that runs somewhere.
    ///
    /// # Errors
    /// Where it is no `http` address.
    pub(super) fn running_ring(&mut self, url: &str, token: Option<&str>) -> anyhow::Result<()> {
        let parsed = Url::parse(url).with_context(|| format!("{url:?} is no address"))?;
        ensure!(parsed.scheme() == "http", "{url:?} is not allowed; allowed: http://host:port");
        let host = parsed.host_str().with_context(|| format!("{url:?} names no host"))?;
        let target = Target {
            host: host.trim_matches(['[', ']']).to_owned(), // around an IPv6 address
            port: parsed.port().unwrap_or(80),
            token: token.map(str::to_owned),
        };
        self.all.push(Side { name: "ring", target, processes: Vec::new() });
        Ok(())
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
        let own = std::env::current_exe().context("this executable cannot be found")?;
        let mut command = Command::new(executable.unwrap_or(&own));
        command.env("NODE_ENV", "production").env_remove("RUST_LOG");
        let ring = DemoRing::start_with(command, size).await.with_context(|| format!("the ring ({name})"))?;
        let port = Url::parse(&ring.url())?.port().context("the ring has a port")?;
        until_ready(port).await; // all processes run by then
        let processes = ring.processes().await?;
        self.rings.push(ring);
        self.all.push(Side {
            name,
            target: Target::here(port),
            processes: processes.into_iter().map(|(name, pid)| Watched { name, pid }).collect(),
        });
        Ok(())
    }

    /// Starts the ceiling.
    ///
    /// # Errors
    /// Where it does not start.
    pub(super) async fn ceiling(&mut self) -> anyhow::Result<()> {
        let mut child = own_command()?
            .arg("bench-ceiling")
            .stdout(Stdio::piped())
            .spawn()
            .context("the ceiling cannot be started")?;
        let output = child.stdout.take().context("its output is piped")?;
        let mut port = String::new();
        BufReader::new(output).read_line(&mut port).await.context("the ceiling does not say its port")?;
        let port = port.trim().parse().with_context(|| format!("the ceiling says {port:?} for its port"))?;
        let pid = child.id().context("the ceiling has ended")?;
        self.ceiling = Some(child);
        let processes = vec![Watched { name: "ceiling".to_owned(), pid }];
        self.all.push(Side { name: "ceiling", target: Target::here(port), processes });
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

/// This executable once more, as a child that ends with this process. Call it on the main thread: see
/// [`crate::parent::end_with`].
///
/// # Errors
/// If the system does not say where it is.
pub(super) fn own_command() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("this executable cannot be found")?);
    command
        .arg(format!("--exit-with-parent={}", std::process::id()))
        .stdin(Stdio::null())
        .process_group(0) // Ctrl-C is for the one that measures, which ends the others in order
        .kill_on_drop(true);
    Ok(command)
}

/// Returns when every partition takes reads and writes.
async fn until_ready(port: u16) {
    while let Ok(Err(_)) = tokio::task::spawn_blocking(move || process::probe(port, "/health/ready")).await {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
