//! `corro check`: whether both copies of every partition of a running ring are what they should be, and
//! making them good.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::load::client::{Client, Endpoint};

/// Where to check, and what.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Gateway of the ring
    #[arg(long, default_value = "http://localhost:3001", value_name = "URL")]
    url: String,
    /// What the gateway wants to be shown
    #[arg(long, env = "API_TOKEN", hide_env_values = true, value_name = "TEXT")]
    token: Option<String>,
    /// Read every record, too: finds what a disk has changed behind the digests, and takes seconds for a
    /// million users
    #[arg(long)]
    scan: bool,
    /// Make good what is found: a damaged copy is filled anew from the sound one, copies that differ are
    /// merged
    #[arg(long)]
    repair: bool,
}

/// A scan of a large ring takes so long; nothing else does.
const SCAN_WITHIN: Duration = Duration::from_secs(600);

/// What is being repaired is good within this time, or looked at by a person.
const REPAIR_WITHIN: Duration = Duration::from_secs(600);

/// Between two looks at what is being repaired.
const GLANCE: Duration = Duration::from_millis(500);

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

/// Checks, repairs where that is asked for, and checks again. Returns whether all is well in the end.
///
/// # Errors
/// Where nothing could be said of some partition.
pub(crate) async fn run(args: CheckArgs) -> anyhow::Result<bool> {
    let endpoint = Endpoint::parse(&args.url, args.token.as_deref())?;
    let mut client = Client::patient(endpoint, SCAN_WITHIN);
    let mut check = look(&mut client, args.scan).await?;
    tell(&check);
    if args.repair && !check.equal {
        let bad = check.partitions.iter().filter(|each| each.verdict != Verdict::Equal);
        for partition in bad.map(|each| each.partition).collect::<Vec<_>>() {
            begin(&mut client, partition).await?;
        }
        let deadline = Instant::now() + REPAIR_WITHIN;
        while !check.equal && Instant::now() < deadline {
            sleep(GLANCE).await;
            check = look(&mut client, args.scan).await?;
        }
        tell(&check);
    }
    if let Some(unknown) = check.partitions.iter().find(|each| each.verdict == Verdict::Unknown) {
        bail!("partition {} could not be checked", unknown.partition);
    }
    if !check.equal && !args.repair {
        let scan = if args.scan { " --scan" } else { "" };
        println!("`corro check{scan} --repair` makes this good while the ring serves");
    }
    Ok(check.equal)
}

async fn look(client: &mut Client, scan: bool) -> anyhow::Result<Check> {
    let path = format!("/api/cluster/check?scan={scan}");
    let answer = client.send(Method::GET, &path, None).await.context("the gateway does not answer")?;
    if answer.status != StatusCode::OK {
        bail!("the ring cannot be checked: {}", reason(answer.status, &answer.body));
    }
    serde_json::from_slice(&answer.body).context("the answer to a check is not understood")
}

async fn begin(client: &mut Client, partition: u16) -> anyhow::Result<()> {
    let path = format!("/api/cluster/repair/{partition}");
    let answer = client.send(Method::POST, &path, None).await.context("the gateway does not answer")?;
    if !answer.status.is_success() {
        bail!("partition {partition} cannot be repaired: {}", reason(answer.status, &answer.body));
    }
    let begun: Value = serde_json::from_slice(&answer.body).context("the answer is not understood")?;
    println!(
        "partition {partition}: {}",
        match begun["begun"].as_str() {
            Some("refill") => "the damaged copy is being filled anew",
            Some("exchange") => "the copies are being merged",
            _ => "nothing is wrong with it any more",
        }
    );
    Ok(())
}

/// What a problem says.
fn reason(status: StatusCode, body: &[u8]) -> String {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    problem["detail"].as_str().map_or_else(|| status.to_string(), str::to_owned)
}

fn tell(check: &Check) {
    for partition in &check.partitions {
        println!("{}", line(partition));
    }
}

/// A line about a partition, for a person.
fn line(partition: &Partition) -> String {
    let number = partition.partition;
    match partition.verdict {
        Verdict::Equal => {
            let users = partition.copies.first().map_or(0, |copy| copy.users);
            match partition.copies.len() {
                1 => format!("partition {number}: one copy, {users} users"),
                _ => format!("partition {number}: equal, {users} users"),
            }
        }
        Verdict::Differs => {
            let copies = partition.copies.iter();
            let users: Vec<String> = copies
                .map(|copy| format!("{} users in the {} on {}", copy.users, copy.role, copy.process))
                .collect();
            let buckets = partition.buckets.len();
            format!("partition {number}: the copies differ in {buckets} of 256 buckets; {}", users.join(", "))
        }
        Verdict::Damaged => {
            let damaged = partition.copies.iter().filter(|copy| !copy.damage.is_empty());
            let copies: Vec<String> = damaged
                .map(|copy| {
                    let damage: Vec<String> = copy.damage.iter().map(damage).collect();
                    format!("the {} on {}: {}", copy.role, copy.process, damage.join(", "))
                })
                .collect();
            format!("partition {number}: damaged is {}", copies.join("; "))
        }
        Verdict::Unknown => {
            format!(
                "partition {number}: not checked: {}",
                partition.why.as_deref().unwrap_or("no reason given")
            )
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
                    {"role":"primary","process":"db-1","users":7,"records":9,"damage":[{"bucket":3},"count",{"unreadable":"x"}]},
                    {"role":"replica","process":"db-2","users":7,"records":9,"damage":[]}]},
                {"partition":2,"verdict":"unknown","why":"db-2 has to come back","copies":[]},
                {"partition":3,"verdict":"differs","buckets":[1,2],"copies":[
                    {"role":"primary","process":"db-3","users":7,"records":9,"damage":[]},
                    {"role":"replica","process":"db-0","users":8,"records":9,"damage":[]}]}]}"#,
        )
        .unwrap();
        let lines: Vec<String> = check.partitions.iter().map(line).collect();
        assert_eq!(
            lines,
            [
                "partition 0: equal, 7 users",
                "partition 1: damaged is the primary on db-1: bucket 3, count wrong, unreadable (x)",
                "partition 2: not checked: db-2 has to come back",
                "partition 3: the copies differ in 2 of 256 buckets; 7 users in the primary on db-3, 8 users in the replica on db-0",
            ]
        );
    }
}
