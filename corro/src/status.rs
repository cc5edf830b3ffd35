//! `corro status`: the ring as a table, or as JSON.

use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

use clap::Args;
use gateway::status::{ClusterStatus, PartitionStatus, ProcessStatus};
use reqwest::Method;
use serde_json::Value;
use tokio::time::sleep;

use crate::client::Client;
use crate::target::GatewayArgs;

/// `corro status`.
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// Print what the gateway answers, as JSON
    #[arg(long)]
    json: bool,
    /// Print it again and again, every so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..))]
    watch: Option<u64>,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// Prints the ring. Returns whether every partition takes reads and writes.
///
/// # Errors
/// Where there is no answer, unless it is watched. Where the output is closed, it ends.
pub(crate) async fn run(args: StatusArgs) -> anyhow::Result<bool> {
    let client = args.gateway.client().await?;
    let Some(seconds) = args.watch else {
        let (ready, text) = look(&client, args.json).await?;
        let _ = writeln!(stdout(), "{text}"); // the exit code says it, too
        return Ok(ready);
    };
    let clear = if stdout().is_terminal() && !args.json { "\x1b[2J\x1b[H" } else { "" };
    loop {
        let found = look(&client, args.json).await;
        let (ready, text) = found.unwrap_or_else(|error| (false, format!("no answer: {error:#}")));
        if writeln!(stdout(), "{clear}{text}").is_err() {
            return Ok(ready);
        }
        sleep(Duration::from_secs(seconds)).await;
    }
}

async fn look(client: &Client, json: bool) -> anyhow::Result<(bool, String)> {
    let found: Value = client.ask(Method::GET, "/api/cluster").await?;
    let text = json.then(|| found.to_string());
    let cluster: ClusterStatus = serde_json::from_value(found)?;
    Ok((cluster.ready, text.unwrap_or_else(|| shown(&cluster))))
}

fn shown(cluster: &ClusterStatus) -> String {
    let ClusterStatus { ring, size, epoch, ready, processes, partitions, .. } = cluster;
    let ring = ring.as_deref().unwrap_or("not formed yet");
    let ready = if *ready { "ready" } else { "NOT READY" };
    let process = |process: &ProcessStatus| {
        let leads = partitions.iter().filter(|each| each.lead.as_ref() == Some(&process.name));
        let leads: Vec<String> = leads.map(|each| each.partition.to_string()).collect();
        let address = process.address.clone().unwrap_or_default();
        [process.name.clone(), yes(process.connected), address, leads.join(" ")]
    };
    let partition = |each: &PartitionStatus| {
        let lead = each.lead.clone().unwrap_or_else(|| "none".to_owned());
        let PartitionStatus {
            partition, reads, writes, both_read, unreplicated, unreplicated_millis, ..
        } = each;
        let behind = format!("{unreplicated} ({unreplicated_millis} ms)");
        let waiting_for = each.waiting_for.clone().unwrap_or_default();
        [partition.to_string(), lead, yes(*reads), yes(*writes), yes(*both_read), behind, waiting_for]
    };
    let processes = table(["PROCESS", "CONNECTED", "ADDRESS", "LEADS"], processes.iter().map(process));
    let header = ["PARTITION", "LEADER", "READS", "WRITES", "BOTH READ", "UNREPLICATED", "WAITING FOR"];
    let partitions = table(header, partitions.iter().map(partition));
    format!("ring {ring}: {size} db-processes, epoch {epoch}, {ready}\n\n{processes}\n{partitions}")
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

/// Columns as wide as they need to be, two spaces between them.
fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(header.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_and_partitions_are_lines_of_a_table() {
        let cluster = serde_json::from_str(
            r#"{"ring":"r","size":2,"epoch":7,"ready":false,"events":[],
            "served":{"reads_by_replica":0,"reads_by_primary":0,"reads_hedged":0,"writes":0},
            "processes":[
            {"name":"db-0","place":0,"connected":true,"address":"127.0.0.1","frames":1},
            {"name":"db-1","place":1,"connected":false,"frames":0}],
            "partitions":[
            {"partition":0,"lead":"db-0","role":"primary","reads":true,"writes":true,"both_read":false,
            "unreplicated":12,"unreplicated_millis":340,"link_down":false,"copies":[],
            "waiting_for":"db-1 has to come back"},
            {"partition":1,"role":"primary","reads":false,"writes":false,"both_read":false,
            "unreplicated":0,"unreplicated_millis":0,"link_down":false,"copies":[]}]}"#,
        )
        .unwrap();
        assert_eq!(
            shown(&cluster),
            "ring r: 2 db-processes, epoch 7, NOT READY\n\n\
             PROCESS  CONNECTED  ADDRESS    LEADS\n\
             db-0     yes        127.0.0.1  0\n\
             db-1     no\n\n\
             PARTITION  LEADER  READS  WRITES  BOTH READ  UNREPLICATED  WAITING FOR\n\
             0          db-0    yes    yes     no         12 (340 ms)   db-1 has to come back\n\
             1          none    no     no      no         0 (0 ms)\n"
        );
    }
}
