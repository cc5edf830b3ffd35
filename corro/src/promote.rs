//! `corro promote`: the operator's word that a partition may be led by the copy that is there, though the one
//! that led last may have writes that nobody else has.
//!
//! It says before what the gateway knows: who led, who is away, what the copy that would lead has. It asks,
//! on a terminal, and it says after what has become of it. Nothing is decided here: whether the partition may
//! be promoted at all is the gateway's to say, and it refuses where nothing has to be given up.

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::Instant;

use crate::load::client::{Answer, Client, Endpoint};

/// A copy that may lead does so within milliseconds, when enough disks have kept that.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks.
const GLANCE: Duration = Duration::from_millis(20);

/// `corro promote`.
#[derive(Args, Debug)]
pub(crate) struct PromoteArgs {
    /// Number of the partition, from 0 on
    partition: u16,
    /// The gateway
    #[arg(long, default_value = "http://localhost:3001", value_name = "URL")]
    url: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// What the gateway wants to be shown
    #[arg(long, env = "API_TOKEN", hide_env_values = true, value_name = "TEXT")]
    token: Option<String>,
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

#[derive(Deserialize, Debug)]
struct Problem {
    detail: String,
}

/// Promotes, unless the operator thinks better of it.
///
/// # Errors
/// Where there is no such gateway or partition, where it is served, or where nobody can lead it.
pub(crate) async fn run(args: PromoteArgs) -> anyhow::Result<()> {
    let mut client = Client::new(Endpoint::parse(&args.url, args.token.as_deref())?);
    let partition = look(&mut client, args.partition).await?;
    if let Some(lead) = &partition.lead {
        bail!("partition {} is led by {lead}: there is nothing to promote", partition.partition);
    }
    say(&partition.before());
    if !args.yes && !confirmed(args.partition)? {
        say("Nothing was changed.");
        return Ok(());
    }
    let answer = client.send(Method::POST, &format!("/api/cluster/promote/{}", args.partition), None).await?;
    ensure!(answer.status == StatusCode::OK, "{}", reason(&answer));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let partition = look(&mut client, args.partition).await?;
        if let Some(lead) = &partition.lead {
            say(&partition.after(lead));
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "nobody leads partition {} yet: see /api/cluster", args.partition);
        tokio::time::sleep(GLANCE).await;
    }
}

async fn look(client: &mut Client, number: u16) -> anyhow::Result<Partition> {
    let answer = client.send(Method::GET, "/api/cluster", None).await?;
    ensure!(answer.status == StatusCode::OK, "/api/cluster: {}", reason(&answer));
    let cluster: Cluster =
        serde_json::from_slice(&answer.body).context("/api/cluster says nothing that is understood")?;
    let size = cluster.partitions.len();
    let partition = cluster.partitions.into_iter().find(|partition| partition.partition == number);
    partition.with_context(|| format!("there is no partition {number} in a ring of {size}"))
}

/// What the gateway says of a request that it refuses.
fn reason(answer: &Answer) -> String {
    match serde_json::from_slice::<Problem>(&answer.body) {
        Ok(problem) => problem.detail,
        Err(_) => format!("the gateway answers {}", answer.status),
    }
}

/// Asks on the terminal.
fn confirmed(number: u16) -> anyhow::Result<bool> {
    let input = std::io::stdin();
    ensure!(input.is_terminal(), "there is nobody to ask; --yes promotes without asking");
    print!("Promote partition {number}? [y/N] ");
    std::io::stdout().flush()?;
    let mut line = String::new();
    input.lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

fn say(text: &str) {
    // Whoever has closed the output does not want to read it.
    let _ = writeln!(std::io::stdout(), "{text}");
}

impl Partition {
    /// What is known before.
    fn before(&self) -> String {
        let waiting_for = self.waiting_for.as_deref().unwrap_or("nobody knows what it waits for");
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
            "Acknowledged writes that only the copy has that led last will be missing until it comes back; then they are\n\
             merged in, each field below what was written meanwhile. If it never comes back, they are lost."
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
            r#"{{"partition":1,"lead":null,"role":"primary","unreplicated":0,"waiting_for":"db-1 has to come back",
            "copies":[{{"process":"db-1","role":"primary","connected":false,"complete":false,"version":null,"lag":null}},
            {{"process":"db-2","role":"replica","connected":true,"complete":true,"version":77,"lag":{lag}}}]}}"#
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
