//! `corro drill`: what a person runs to believe that a ring survives the loss of any one process.
//!
//! A load reads and writes by many connections, and notes the history of every user. Under that load, cycle
//! after cycle, a process is stopped, killed, made to hang or robbed of its disk, and comes back. After each
//! cycle the load rests for a moment: every user is read once more, every history is checked for
//! linearizability, what the ring counts is compared with what it lists, and both copies of every partition
//! are compared on disk. At the end stands a verdict, and the exit code goes by it.
//!
//! [`faults`] plans, [`driver`] carries the faults out, [`run`] does one cycle after the other; [`linear`]
//! and [`verify`] judge the histories, [`copies`] the disks, [`census`] the count; [`ring`] asks the ring
//! whether it is whole; [`report`] sums up, [`verdict`] and [`html`] show that, [`progress`] shows what goes
//! on meanwhile.
//!
//! It does not drill two faults at once, and with a ring that it has not started it cannot look into the
//! disks, unless that is a demo on this machine.

mod census;
mod copies;
mod driver;
mod faults;
mod html;
mod linear;
mod progress;
mod report;
mod ring;
mod run;
mod verdict;
mod verify;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::load::client::Endpoint;
use crate::load::retries::Retries;
use crate::load::{Load, LoadSettings};
use census::CensusTaker;
pub(crate) use driver::DemoRing;
use driver::{Compose, Driver, DriverKind, Manual};
use faults::{Fault, Target, plan};
use report::{Report, Setup};
use ring::RingWatch;
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
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=64), conflicts_with = "folder")]
    db_processes: u16,
    /// How often something is broken
    #[arg(long, default_value_t = 12, value_name = "N", value_parser = at_least_one())]
    cycles: u64,
    /// What is done, separated by commas [default: stop,kill,hang,wipe, as far as the driver can]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FAULTS")]
    faults: Vec<Fault>,
    /// To whom: db-1, all (each in turn), or random
    #[arg(long, default_value = "all", value_name = "PROCESS")]
    target: Target,
    /// Keep-alive connections, each with one request under way
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = at_least_one())]
    connections: u64,
    /// Share of reads, in percent; a quarter as many of the connections only read
    #[arg(long, default_value_t = 50, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(0..=100))]
    reads: u64,
    /// Users under load at a time
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = at_least_one())]
    users: u64,
    /// Connections beside those that create with an Idempotency-Key, and retry
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=1_000))]
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
    /// The gateway, with the drivers compose and manual
    #[arg(long, default_value = "http://localhost:3001", value_name = "URL")]
    url: String,
    /// What the gateway wants to be shown
    #[arg(long, env = "API_TOKEN", hide_env_values = true, value_name = "TEXT")]
    api_token: Option<String>,
}

fn at_least_one() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=1_000_000)
}

/// Drills, and says whether the ring has kept its promise.
///
/// # Errors
/// Where the drill cannot be carried out: no such ring, a fault that the driver cannot do.
pub(crate) async fn run(args: DrillArgs) -> anyhow::Result<bool> {
    let shutdown = process::shutdown_on_signal();
    let faults = chosen_faults(&args)?;
    for file in args.report.iter().chain(&args.html) {
        // Better now than after an hour.
        std::fs::write(file, "").with_context(|| format!("{} cannot be written", file.display()))?;
    }
    let (driver, url) = open(&args).await?;
    let report = drill(&args, &faults, &driver, url, &shutdown).await;
    // Whoever has to find out why wants the logs.
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

/// Finds or starts what carries out the faults, and says where its gateway is.
async fn open(args: &DrillArgs) -> anyhow::Result<(Driver, String)> {
    Ok(match args.driver {
        DriverKind::Demo => {
            let demo = match &args.folder {
                Some(folder) => DemoRing::running_in(folder).await?,
                None => DemoRing::start(args.db_processes).await?,
            };
            let url = demo.url();
            (Driver::Demo(Box::new(demo)), url)
        }
        DriverKind::Compose => (Driver::Compose(Compose::find().await?), args.url.clone()),
        DriverKind::Manual => (Driver::Manual(Manual), args.url.clone()),
    })
}

async fn drill(
    args: &DrillArgs,
    faults: &[Fault],
    driver: &Driver,
    url: String,
    shutdown: &CancellationToken,
) -> anyhow::Result<Report> {
    // A ring of its own has no token.
    let own = args.driver == DriverKind::Demo && args.folder.is_none();
    let endpoint = Endpoint::parse(&url, args.api_token.as_deref().filter(|_| !own))?;
    let mut ring = RingWatch::new(endpoint.clone());
    tokio::select! {
        whole = ring.until_whole() => whole?,
        () = shutdown.cancelled() => bail!("interrupted before it began"),
    }
    let setup = Setup {
        driver: format!("{:?}", args.driver).to_lowercase(),
        url,
        db_processes: ring.size().await?,
        connections: args.connections as usize,
        reads_percent: args.reads,
        users: args.users as usize,
        seed: args.seed.unwrap_or_else(|| u64::from(Uuid::new_v4().as_fields().0)),
        cycles: args.cycles as usize,
    };
    let cycles = plan(faults, &args.target, setup.db_processes, setup.cycles, setup.seed)?;
    say(&format!(
        "A ring of {} at {}: {} connections, {} % reads, {} users, seed {}",
        setup.db_processes, setup.url, setup.connections, setup.reads_percent, setup.users, setup.seed
    ));
    let load = LoadSettings {
        connections: setup.connections,
        reads: setup.reads_percent,
        users: setup.users,
        seed: setup.seed,
    };
    // Nobody else's, as far as chance goes.
    let group = i32::from_ne_bytes(Uuid::new_v4().as_fields().0.to_ne_bytes());
    let retries = Retries::new(&endpoint, args.retrying as usize, group);
    let census = CensusTaker::new(endpoint.clone());
    let drill = Drill::new(driver, ring, census, Load::new(endpoint, &load), retries, cycles.len());
    Ok(Report::of(drill.run(&cycles, setup, shutdown).await))
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

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}"); // nobody may read any more
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}
