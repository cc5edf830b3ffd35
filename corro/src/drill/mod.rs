//! `corro drill`: shows that a ring survives the loss of any one process.
//!
//! A load reads and writes by many connections, and notes the history of every user. Under that load, cycle
//! after cycle, a process is stopped, killed, made to hang or robbed of its disk, and comes back. After each
//! cycle the load rests for a moment: every user is read once more, every history is checked for
//! linearizability, what the ring counts is compared with what it lists, and both copies of every partition
//! are compared on disk. At the end come a verdict and the exit code.
//!
//! [`faults`] plans, [`driver`] carries the faults out, [`mod@run`] does one cycle after the other;
//! [`verify`] judges the histories, [`copies`] the disks; [`ring`] asks the ring whether it is whole, and
//! counts its users; [`report`] sums up, [`mod@verdict`] and [`html`] show that, [`progress`] shows what
//! happens meanwhile.
//!
//! It does not drill two faults at once, and with a ring that it has not started it cannot read the disks,
//! unless that is a demo on this machine.

mod copies;
mod driver;
mod faults;
mod html;
mod progress;
mod report;
mod ring;
mod run;
mod verdict;
mod verify;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::client::Endpoint;
use crate::demo::DemoRing;
use crate::parent;
use crate::target::GatewayArgs;
use crate::terminal::say;
use driver::{Driver, DriverKind};
use faults::{Fault, Target, plan};
use report::{Report, Setup};
use ring::Ring;
use run::Drill;
use verdict::verdict;

/// `corro drill`.
#[derive(Args, Debug)]
pub(crate) struct DrillArgs {
    /// What carries out the faults
    #[arg(long, value_enum, default_value_t = DriverKind::Demo)]
    driver: DriverKind,
    /// Folder of a running demo [default: a demo of its own, in a temporary folder]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Size of a ring of its own
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = ring_size(), conflicts_with = "folder")]
    db_processes: u16,
    /// How often something is broken
    #[arg(long, default_value_t = 12, value_name = "N", value_parser = from(1))]
    cycles: u64,
    /// What is done, separated by commas [default: all but gateway, as far as the driver can]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FAULTS")]
    faults: Vec<Fault>,
    /// To which process: db-1, all (each in turn), or random
    #[arg(long, default_value = "all", value_name = "PROCESS")]
    target: Target,
    /// Keep-alive connections, each with one request under way
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = from(1))]
    connections: u64,
    /// Share of reads, in percent; a quarter as many of the connections only read
    #[arg(long, default_value_t = 50, value_name = "PERCENT", value_parser = from(0).range(0..=100))]
    reads: u64,
    /// Users under load at a time
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = from(1))]
    users: u64,
    /// Connections beside those that create with an Idempotency-Key, and retry
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = from(0).range(0..=1_000))]
    retrying: u64,
    /// Repeats the choices of a drill [default: by chance]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Write all figures to this file
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
    /// Write a page with the timeline to this file
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
    // For the drivers compose and manual, and for the token of a running demo.
    #[command(flatten)]
    gateway: GatewayArgs,
}

fn from(least: u64) -> RangedU64ValueParser {
    clap::value_parser!(u64).range(least..=1_000_000)
}

fn ring_size() -> RangedU64ValueParser<u16> {
    RangedU64ValueParser::new().range(2..=64)
}

/// Drills, and returns whether the ring has kept its promise.
///
/// # Errors
/// Where the drill cannot be carried out: no such ring, a fault that the driver cannot do.
pub(crate) async fn run(args: DrillArgs) -> anyhow::Result<bool> {
    let shutdown = process::shutdown_on_signal();
    let faults = chosen_faults(&args)?;
    for file in args.report.iter().chain(&args.html) {
        write(file, "")?; // better now than after an hour
    }
    let (driver, endpoint) = open(&args).await?;
    let report = drill(&args, &faults, &driver, endpoint, &shutdown).await;
    // The logs help to find out why it failed.
    let failed = report.as_ref().is_ok_and(|report| !report.passed && !shutdown.is_cancelled());
    let kept = driver.close(failed).await?;
    let report = report?;
    say(&verdict(&report));
    if let Some(folder) = kept {
        say(&format!("Its logs and its data are kept in {}", folder.display()));
    }
    if let Some(file) = &args.report {
        write(file, &serde_json::to_string_pretty(&report)?)?;
    }
    if let Some(file) = &args.html {
        write(file, &html::page(&report))?;
    }
    Ok(report.passed)
}

/// Finds or starts what carries out the faults, with its gateway.
async fn open(args: &DrillArgs) -> anyhow::Result<(Driver, Endpoint)> {
    let given = async || args.gateway.token.endpoint(&args.gateway.url).await;
    let demo = match (args.driver, &args.folder) {
        (DriverKind::Compose, _) => return Ok((Driver::compose().await?, given().await?)),
        (DriverKind::Manual, _) => return Ok((Driver::Manual, given().await?)),
        (DriverKind::Demo, Some(folder)) => DemoRing::running_in(folder).await?,
        (DriverKind::Demo, None) => DemoRing::start(parent::child(None)?, args.db_processes).await?,
    };
    let endpoint = match args.gateway.token.given()? {
        Some(token) if args.folder.is_some() => Endpoint::local(demo.port()).with_token(Some(&token))?,
        _ => demo.endpoint()?,
    };
    Ok((Driver::Demo(Box::new(demo)), endpoint))
}

async fn drill(
    args: &DrillArgs,
    faults: &[Fault],
    driver: &Driver,
    endpoint: Endpoint,
    shutdown: &CancellationToken,
) -> anyhow::Result<Report> {
    let mut ring = Ring::new(endpoint.clone(), args.gateway.patience());
    tokio::select! {
        whole = ring.until_whole() => whole?,
        () = shutdown.cancelled() => bail!("interrupted before it began"),
    }
    let setup = Setup {
        driver: format!("{:?}", args.driver).to_lowercase(),
        url: endpoint.to_string(),
        db_processes: ring.size().await?,
        connections: args.connections as usize,
        reads_percent: args.reads,
        users: args.users as usize,
        seed: args.seed.unwrap_or_else(|| u64::from(Uuid::new_v4().as_fields().0)),
        cycles: args.cycles as usize,
    };
    let cycles = plan(faults, &args.target, setup.db_processes, setup.cycles, setup.seed)?;
    say(&setup.to_string());
    let drill = Drill::new(driver, ring, &endpoint, setup, args.retrying as usize);
    Ok(drill.run(&cycles, shutdown).await)
}

fn chosen_faults(args: &DrillArgs) -> anyhow::Result<Vec<Fault>> {
    let possible = args.driver.faults();
    if args.faults.is_empty() {
        return Ok(possible.iter().copied().filter(|fault| *fault != Fault::Gateway).collect());
    }
    for fault in &args.faults {
        ensure!(possible.contains(fault), "the driver {:?} cannot do {fault}", args.driver);
    }
    Ok(args.faults.clone())
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}
