//! `corro check`: compares both copies of every partition of a running ring, and repairs them.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use hyper::Method;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::client::{Client, GatewayArgs};

/// `corro check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Read every record, too: finds what a disk has changed behind the digests, and takes seconds for a
    /// million users
    #[arg(long)]
    scan: bool,
    /// Repair what is found: a damaged copy is filled anew from the sound one, copies that differ are merged
    #[arg(long)]
    repair: bool,
}

/// A scan of a large ring, and a repair, end within this time.
const WITHIN: Duration = Duration::from_secs(600);

/// Between two checks during a repair.
const INTERVAL: Duration = Duration::from_millis(500);

#[derive(Deserialize, Debug)]
struct Check {
    equal: bool,
    partitions: Vec<Partition>,
}

#[derive(Deserialize, Debug)]
struct Partition {
    partition: u16,
    verdict: Verdict,
    #[serde(default)]
    buckets: Vec<u8>,
    why: Option<String>,
    copies: Vec<CopyFound>,
}

#[derive(Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Equal,
    Differs,
    Damaged,
    Unknown,
}

#[derive(Deserialize, Debug)]
struct CopyFound {
    role: String,
    process: String,
    users: u64,
    damage: Vec<Value>,
}

#[derive(Deserialize)]
struct Repair {
    begun: Option<String>,
}

/// Checks, repairs if asked to, and checks again. Returns whether all copies are good in the end.
///
/// # Errors
/// Where a partition could not be checked.
pub(crate) async fn run(args: CheckArgs) -> anyhow::Result<bool> {
    let mut client = Client::patient(args.gateway.endpoint()?, WITHIN);
    let path = format!("/api/cluster/check?scan={}", args.scan);
    let mut check: Check = client.ask(Method::GET, &path).await.context("the ring cannot be checked")?;
    print(&check);
    if args.repair && !check.equal {
        for partition in check.partitions.iter().filter(|each| each.verdict != Verdict::Equal) {
            repair(&mut client, partition.partition).await?;
        }
        let deadline = Instant::now() + WITHIN;
        while !check.equal && Instant::now() < deadline {
            sleep(INTERVAL).await;
            check = client.ask(Method::GET, &path).await.context("the ring cannot be checked")?;
        }
        print(&check);
    }
    if let Some(unknown) = check.partitions.iter().find(|each| each.verdict == Verdict::Unknown) {
        bail!("partition {} could not be checked", unknown.partition);
    }
    if !check.equal && !args.repair {
        let scan = if args.scan { " --scan" } else { "" };
        println!("`corro check{scan} --repair` repairs this while the ring serves");
    }
    Ok(check.equal)
}

async fn repair(client: &mut Client, partition: u16) -> anyhow::Result<()> {
    let repair = client.ask(Method::POST, &format!("/api/cluster/repair/{partition}")).await;
    let repair: Repair = repair.with_context(|| format!("partition {partition} cannot be repaired"))?;
    let what = match repair.begun.as_deref() {
        Some("refill") => "the damaged copy is being filled anew",
        Some("exchange") => "the copies are being merged",
        _ => "nothing is wrong with it any more",
    };
    println!("partition {partition}: {what}");
    Ok(())
}

fn print(check: &Check) {
    for partition in &check.partitions {
        println!("partition {}: {}", partition.partition, partition.state());
    }
}

impl Partition {
    fn state(&self) -> String {
        match self.verdict {
            Verdict::Equal => {
                let users = self.copies.first().map_or(0, |copy| copy.users);
                let what = if self.copies.len() == 1 { "one copy" } else { "equal" };
                format!("{what}, {users} users")
            }
            Verdict::Differs => {
                let users = |copy: &CopyFound| {
                    format!("{} users in the {} on {}", copy.users, copy.role, copy.process)
                };
                let users = self.copies.iter().map(users).collect::<Vec<_>>().join(", ");
                format!("the copies differ in {} of 256 buckets; {users}", self.buckets.len())
            }
            Verdict::Damaged => {
                let damaged = self.copies.iter().filter(|copy| !copy.damage.is_empty());
                let copy = |copy: &CopyFound| {
                    let damage = copy.damage.iter().map(damage).collect::<Vec<_>>().join(", ");
                    format!("the {} on {}: {damage}", copy.role, copy.process)
                };
                format!("damaged is {}", damaged.map(copy).collect::<Vec<_>>().join("; "))
            }
            Verdict::Unknown => {
                format!("not checked: {}", self.why.as_deref().unwrap_or("no reason given"))
            }
        }
    }
}

/// A kind of damage as the ring writes it: a word, or a word with a value.
fn damage(value: &Value) -> String {
    match value {
        Value::String(word) => format!("{word} wrong"),
        Value::Object(members) => {
            let parts = members.iter().map(|(word, value)| match value {
                Value::String(text) => format!("{word} ({text})"),
                other => format!("{word} {other}"),
            });
            parts.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_process_and_copy() {
        let check: Check = serde_json::from_str(
            r#"{"equal":false,"partitions":[
                {"partition":0,"verdict":"equal","copies":[
                    {"role":"primary","process":"db-0","users":7,"records":9,"damage":[]},
                    {"role":"replica","process":"db-1","users":7,"records":9,"damage":[]}]},
                {"partition":1,"verdict":"damaged","copies":[
                    {"role":"primary","process":"db-1","users":7,"records":9,
                     "damage":[{"bucket":3},"count",{"unreadable":"x"}]},
                    {"role":"replica","process":"db-2","users":7,"records":9,"damage":[]}]},
                {"partition":2,"verdict":"unknown","why":"db-2 has to come back","copies":[]},
                {"partition":3,"verdict":"differs","buckets":[1,2],"copies":[
                    {"role":"primary","process":"db-3","users":7,"records":9,"damage":[]},
                    {"role":"replica","process":"db-0","users":8,"records":9,"damage":[]}]}]}"#,
        )
        .unwrap();
        let lines: Vec<String> = check.partitions.iter().map(Partition::state).collect();
        assert_eq!(
            lines,
            [
                "equal, 7 users",
                "damaged is the primary on db-1: bucket 3, count wrong, unreadable (x)",
                "not checked: db-2 has to come back",
                "the copies differ in 2 of 256 buckets; 7 users in the primary on db-3, \
                 8 users in the replica on db-0",
            ]
        );
    }
}
