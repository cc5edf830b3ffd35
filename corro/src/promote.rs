//! `corro promote`: the operator's decision that the copy that is there may lead a partition, although the
//! last leader may have writes that no other copy has.
//!
//! Before, it prints what the gateway knows: the last leader, which processes are away, what the copy that
//! would lead has. It asks for confirmation on a terminal, and prints the result. Nothing is decided here:
//! the gateway decides whether a partition may be promoted, and refuses where nothing has to be given up.

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use hyper::Method;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::Instant;

use crate::client::{Client, GatewayArgs};
use crate::terminal::say;

/// A copy that may lead does so within milliseconds, once enough disks have persisted the view.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(20);

/// `corro promote`.
#[derive(Args, Debug)]
pub(crate) struct PromoteArgs {
    /// Number of the partition, from 0 on
    partition: u16,
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// The part of `/api/cluster` that matters here.
#[derive(Deserialize, Debug)]
struct Cluster {
    partitions: Vec<Partition>,
}

#[derive(Deserialize, Debug)]
struct Partition {
    partition: u16,
    lead: Option<String>,
    role: String,
    unreplicated: u64,
    waiting_for: Option<String>,
    copies: Vec<CopyOf>,
}

#[derive(Deserialize, Debug)]
struct CopyOf {
    process: String,
    role: String,
    connected: bool,
    complete: bool,
    rolled_back: Option<RolledBack>,
    version: Option<u64>,
    lag: Option<u64>,
}

#[derive(Deserialize, Debug)]
struct RolledBack {
    of: String,
    found: u64,
    known: u64,
}

/// Promotes, if the operator confirms it.
///
/// # Errors
/// Where there is no such gateway or partition, where it is served, or where no copy can lead it.
pub(crate) async fn run(args: PromoteArgs) -> anyhow::Result<()> {
    let mut client = Client::new(args.gateway.endpoint()?);
    let number = args.partition;
    let partition = look(&mut client, number).await?;
    if let Some(leader) = &partition.lead {
        bail!("partition {number} is led by {leader}: there is nothing to promote");
    }
    say(&partition.before());
    if !args.yes && !confirmed(number)? {
        say("Nothing was changed.");
        return Ok(());
    }
    let _: IgnoredAny = client.ask(Method::POST, &format!("/api/cluster/promote/{number}")).await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let partition = look(&mut client, number).await?;
        if let Some(leader) = &partition.lead {
            say(&partition.after(leader));
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "partition {number} has no leader yet: see /api/cluster");
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn look(client: &mut Client, number: u16) -> anyhow::Result<Partition> {
    let Cluster { partitions } = client.ask(Method::GET, "/api/cluster").await?;
    let size = partitions.len();
    let partition = partitions.into_iter().find(|partition| partition.partition == number);
    partition.with_context(|| format!("there is no partition {number} in a ring of {size}"))
}

/// Asks on the terminal.
fn confirmed(number: u16) -> anyhow::Result<bool> {
    let input = std::io::stdin();
    ensure!(input.is_terminal(), "there is no terminal to ask on; --yes promotes without asking");
    print!("Promote partition {number}? [y/N] ");
    std::io::stdout().flush()?;
    let mut line = String::new();
    input.lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

impl Partition {
    /// What is known before.
    fn before(&self) -> String {
        let waiting_for = self.waiting_for.as_deref().unwrap_or("it is not known what it waits for");
        let mut lines = vec![format!("Partition {} is not served: {waiting_for}.", self.partition)];
        for copy in &self.copies {
            let led = if copy.role == self.role { "led last as far as is known; " } else { "" };
            lines.push(format!("  {:8} {:10} {led}{}", copy.role, copy.process, copy.state()));
        }
        lines.push(match self.unreplicated {
            0 => "The gateway has no writes in hand that a copy may lack.".to_owned(),
            writes => format!("The gateway has {writes} acknowledged writes in hand, and will add them."),
        });
        lines.push(
            "Acknowledged writes that only the copy has that led last will be missing until it comes back; \
             then they\nare merged in, each field below what was written meanwhile. If it never comes back, \
             they are lost."
                .to_owned(),
        );
        lines.join("\n")
    }

    /// What has become of it.
    fn after(&self, lead: &str) -> String {
        let mut line = format!("Partition {} is led by {lead}, and takes reads and writes.", self.partition);
        if let Some(waiting_for) = &self.waiting_for {
            line.push_str(&format!(" To be whole again, {waiting_for}."));
        }
        line
    }
}

impl CopyOf {
    fn state(&self) -> String {
        if !self.connected {
            return "away".to_owned();
        }
        if let Some(RolledBack { of, found, known }) = &self.rolled_back {
            return format!(
                "here, and its disk has lost something: it ends at {of} {found}, and had {of} {known}"
            );
        }
        if !self.complete {
            return "here, and has never held the whole partition".to_owned();
        }
        let newest = match self.version {
            Some(0) | None => "nothing was ever written to it".to_owned(),
            Some(version) => format!("its newest write is version {version}"),
        };
        match self.lag {
            Some(0) => format!("here, {newest}; it has all that this gateway saw acknowledged"),
            Some(lag) => format!("here, {newest}; it lacks {lag} writes that this gateway saw acknowledged"),
            None => {
                format!("here, {newest}; this gateway has not seen who led, so what it lacks is not known")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(lag: &str) -> Partition {
        let text = format!(
            r#"{{"partition":1,"lead":null,"role":"primary","unreplicated":0,
            "waiting_for":"db-1 has to come back","copies":[
            {{"process":"db-1","role":"primary","connected":false,"complete":false,"version":null,
            "lag":null}},
            {{"process":"db-2","role":"replica","connected":true,"complete":true,"version":77,
            "lag":{lag}}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn it_says_who_led_who_is_away_and_what_is_not_known() {
        let text = partition("null").before();
        for part in
            ["not served: db-1 has to come back", "db-1       led last", "away", "version 77", "not known"]
        {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(partition("3").before().contains("lacks 3 writes"));
        assert!(partition("0").before().contains("all that this gateway saw"));
    }
}
