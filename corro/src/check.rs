//! `corro check`: compares both copies of every partition of a running ring, and repairs them.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use gateway::scatter::check::{Begun, Check, CopyCheck, PartitionCheck, Verdict};
use protocol::message::query::Damage;
use reqwest::Method;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::target::GatewayArgs;
use crate::terminal::say;

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

/// Seconds within which a scan of a large ring ends, and a repair.
const PATIENCE: u64 = 600;

/// Between two checks during a repair.
const INTERVAL: Duration = Duration::from_millis(500);

/// What was begun.
#[derive(Deserialize)]
struct Repair {
    begun: Begun,
}

/// Checks, repairs if asked to, and checks again. Returns whether all copies are good in the end.
///
/// # Errors
/// Where a partition could not be checked.
pub(crate) async fn run(mut args: CheckArgs) -> anyhow::Result<bool> {
    args.gateway.patience.get_or_insert(PATIENCE);
    let client = args.gateway.client().await?;
    let path = format!("/api/cluster/check?scan={}", args.scan);
    let look = async || client.ask::<Check>(Method::GET, &path).await.context("the ring cannot be checked");
    let mut check = look().await?;
    print(&check);
    if args.repair && !check.equal {
        for partition in check.partitions.iter().filter(|each| each.verdict != Verdict::Equal) {
            repair(&client, partition.partition).await?;
        }
        let deadline = Instant::now() + args.gateway.patience();
        while !check.equal && Instant::now() < deadline {
            sleep(INTERVAL).await;
            check = look().await?;
        }
        print(&check);
    }
    let unknown = check.partitions.iter().filter(|each| each.verdict == Verdict::Unknown);
    let unknown: Vec<String> = unknown.map(|each| each.partition.to_string()).collect();
    match unknown.as_slice() {
        [] => {}
        [one] => bail!("partition {one} could not be checked"),
        several => bail!("partitions {} could not be checked", several.join(", ")),
    }
    if !check.equal && !args.repair {
        let scan = if args.scan { " --scan" } else { "" };
        say(&format!("`corro check{scan} --repair` repairs this while the ring serves"));
    }
    Ok(check.equal)
}

async fn repair(client: &Client, partition: u16) -> anyhow::Result<()> {
    let repair = client.ask(Method::POST, &format!("/api/cluster/repair/{partition}")).await;
    let repair: Repair = repair.with_context(|| format!("partition {partition} cannot be repaired"))?;
    let what = match repair.begun {
        Begun::Refill => "the damaged copy is being filled anew",
        Begun::Exchange => "the copies are being merged",
        Begun::Nothing => "nothing is wrong with it any more",
    };
    say(&format!("partition {partition}: {what}"));
    Ok(())
}

fn print(check: &Check) {
    check.partitions.iter().for_each(|each| say(&format!("partition {}: {}", each.partition, state(each))));
}

fn state(PartitionCheck { verdict, copies, buckets, why, .. }: &PartitionCheck) -> String {
    let all = |words: Vec<String>, between: &str| words.join(between);
    match verdict {
        Verdict::Equal => {
            let users = copies.first().map_or(0, |copy| copy.users);
            let what = if copies.len() == 1 { "one copy" } else { "equal" };
            format!("{what}, {users} users")
        }
        Verdict::Differs => {
            let users = |copy: &CopyCheck| {
                format!("{} users in the {} on {}", copy.users, copy.role.as_str(), copy.process)
            };
            let users = all(copies.iter().map(users).collect(), ", ");
            format!("the copies differ in {} of 256 buckets; {users}", buckets.len())
        }
        Verdict::Damaged => {
            let damaged = copies.iter().filter(|copy| !copy.damage.is_empty());
            let copy = |copy: &CopyCheck| {
                let damage = all(copy.damage.iter().map(damage).collect(), ", ");
                format!("the {} on {}: {damage}", copy.role.as_str(), copy.process)
            };
            format!("damaged is {}", all(damaged.map(copy).collect(), "; "))
        }
        Verdict::Unknown => {
            format!("its copies cannot be compared now: {}", why.as_deref().unwrap_or("no reason given"))
        }
    }
}

fn damage(damage: &Damage) -> String {
    match damage {
        Damage::Bucket(bucket) => format!("bucket {bucket}"),
        Damage::Count => "count wrong".to_owned(),
        Damage::Index => "index wrong".to_owned(),
        Damage::Unreadable(text) => format!("unreadable ({text})"),
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
        let lines: Vec<String> = check.partitions.iter().map(state).collect();
        assert_eq!(
            lines,
            [
                "equal, 7 users",
                "damaged is the primary on db-1: bucket 3, count wrong, unreadable (x)",
                "its copies cannot be compared now: db-2 has to come back",
                "the copies differ in 2 of 256 buckets; 7 users in the primary on db-3, \
                 8 users in the replica on db-0",
            ]
        );
    }
}
