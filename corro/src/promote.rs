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
use gateway::status::{ClusterStatus, CopyStatus, PartitionStatus, RolledBack};
use protocol::message::link::Rollback;
use reqwest::Method;
use serde::de::IgnoredAny;
use tokio::time::Instant;

use crate::client::Client;
use crate::target::GatewayArgs;
use crate::terminal::say;

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

/// Promotes, if the operator confirms it.
///
/// # Errors
/// Where there is no such gateway or partition, where it is served, or where no copy can lead it.
pub(crate) async fn run(args: PromoteArgs) -> anyhow::Result<()> {
    let client = args.gateway.client().await?;
    let number = args.partition;
    let partition = look(&client, number).await?;
    if let Some(leader) = &partition.lead {
        bail!("partition {number} is led by {leader}: there is nothing to promote");
    }
    say(&before(&partition));
    if !args.yes && !confirmed(number)? {
        say("Nothing was changed.");
        return Ok(());
    }
    let _: IgnoredAny = client.ask(Method::POST, &format!("/api/cluster/promote/{number}")).await?;
    // Milliseconds, once enough disks have persisted the view.
    let deadline = Instant::now() + args.gateway.patience();
    loop {
        let partition = look(&client, number).await?;
        if let Some(leader) = &partition.lead {
            say(&after(&partition, leader));
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "partition {number} has no leader yet: see /api/cluster");
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn look(client: &Client, number: u16) -> anyhow::Result<PartitionStatus> {
    let ClusterStatus { partitions, .. } = client.ask(Method::GET, "/api/cluster").await?;
    let size = partitions.len();
    let partition = partitions.into_iter().find(|partition| partition.partition == number);
    partition.with_context(|| format!("there is no partition {number} in a ring of {size}"))
}

/// Asks on the terminal.
fn confirmed(number: u16) -> anyhow::Result<bool> {
    let input = std::io::stdin();
    ensure!(input.is_terminal(), "there is no terminal to ask on; --yes promotes without asking");
    let mut output = std::io::stderr();
    write!(output, "Promote partition {number}? [y/N] ")?;
    output.flush()?;
    let mut line = String::new();
    input.lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// What is known before.
fn before(partition: &PartitionStatus) -> String {
    let PartitionStatus { partition: number, role, unreplicated, waiting_for, copies, .. } = partition;
    let waiting_for = waiting_for.as_deref().unwrap_or("it is not known what it waits for");
    let mut text = format!("Partition {number} is not served: {waiting_for}.\n");
    for copy in copies {
        let led = if copy.role == *role { "led last as far as is known; " } else { "" };
        text += &format!("  {:8} {:10} {led}{}\n", copy.role.as_str(), copy.process, state(copy));
    }
    text += &match unreplicated {
        0 => "The gateway has no writes in hand that a copy may lack.\n".to_owned(),
        1 => "The gateway has 1 acknowledged write in hand, and will add it.\n".to_owned(),
        writes => format!("The gateway has {writes} acknowledged writes in hand, and will add them.\n"),
    };
    text + "Acknowledged writes that only the copy has that led last will be missing until it comes back; \
            then they\nare merged in, each field below what was written meanwhile. If it never comes back, \
            they are lost."
}

/// What has become of it.
fn after(partition: &PartitionStatus, lead: &str) -> String {
    let mut line = format!("Partition {} is led by {lead}, and takes reads and writes.", partition.partition);
    if let Some(waiting_for) = &partition.waiting_for {
        line += &format!(" To be whole again, {waiting_for}.");
    }
    line
}

fn state(copy: &CopyStatus) -> String {
    if !copy.connected {
        return "away".to_owned();
    }
    if let Some(RolledBack { of, found, known }) = copy.rolled_back {
        return format!("here, and its disk has lost something: {}", Rollback { of, found, known });
    }
    if !copy.complete {
        return "here, and has never held the whole partition".to_owned();
    }
    let newest = match copy.version {
        Some(0) | None => "nothing was ever written to it".to_owned(),
        Some(version) => format!("its newest write is version {version}"),
    };
    match copy.lag {
        Some(0) => format!("here, {newest}; it has all that this gateway saw acknowledged"),
        Some(1) => format!("here, {newest}; it lacks 1 write that this gateway saw acknowledged"),
        Some(lag) => format!("here, {newest}; it lacks {lag} writes that this gateway saw acknowledged"),
        None => format!("here, {newest}; this gateway has not seen who led, so what it lacks is not known"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(lag: &str) -> PartitionStatus {
        let text = format!(
            r#"{{"partition":1,"lead":null,"role":"primary","unreplicated":0,"unreplicated_millis":0,
            "reads":false,"writes":false,"both_read":false,"link_down":false,
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
        let text = before(&partition("null"));
        for part in
            ["not served: db-1 has to come back", "db-1       led last", "away", "version 77", "not known"]
        {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(before(&partition("3")).contains("lacks 3 writes"));
        assert!(before(&partition("1")).contains("lacks 1 write that"));
        let one = before(&PartitionStatus { unreplicated: 1, ..partition("0") });
        assert!(one.contains("1 acknowledged write in hand"), "{one}");
        assert!(before(&partition("0")).contains("all that this gateway saw"));
    }
}
