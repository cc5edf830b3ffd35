//! `corro bench`: how fast a ring is, as a fraction of how fast it could be.
//!
//! A figure such as "30,000 requests a second" says as much about the machine as about the program. So every
//! figure here is taken twice in the same run, round about: of the ring, and of the *ceiling*, an HTTP server
//! with the same routes, the same validation, the same runtime and the same answers, which finds them in a
//! map in memory (see [`ceiling`]). What disturbs the machine meanwhile disturbs both; what is quoted is the
//! median of the fractions of all rounds.
//!
//! The load (see [`generator`]) takes as little as possible from what it measures on the same machine, and is
//! the same for both sides. *Closed loop*: each connection has
//! one request under way, which finds the most that is served. *Open loop* (`--rate`): requests are due at
//! fixed moments whether or not the answers come, and latency counts from the moment at which a request was
//! due, so that a server that stands still cannot hide it by not being asked.
//!
//! [`sides`] starts what is measured, [`cpu`] reads what its processes take, [`rounds`] does one round after
//! the other, [`report`] sums up.
//!
//! It checks the status of each answer, nothing more: whether answers are *right* under load is what `corro
//! drill` is for.

pub(crate) mod ceiling;
mod cpu;
mod generator;
mod report;
mod rounds;
mod sides;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use clap::builder::RangedU64ValueParser;

use crate::target::Credentials;
use crate::terminal::say;
use sides::Sides;

/// `corro bench`.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// Gateway of a running ring, in which the bench creates users, and deletes them afterwards
    /// [default: a ring of its own, in a temporary folder]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    // Of a running ring.
    #[command(flatten)]
    token: Credentials,
    /// Size of a ring of its own
    #[arg(long, alias = "processes", default_value_t = 3, value_name = "N", value_parser = upto::<u16>(64),
        conflicts_with = "url")]
    db_processes: u16,
    /// What is asked for, separated by commas: get, post, put, delete, or a mix such as 95/5 (reads/updates,
    /// in percent)
    #[arg(long, value_name = "LOADS", value_delimiter = ',', default_value = "get,post,put,delete,95/5")]
    mix: Vec<Kind>,
    /// Keep-alive connections; several numbers, separated by commas, are measured one after the other
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "64",
        value_parser = upto::<u32>(10_000))]
    connections: Vec<u32>,
    /// Length of one round, in seconds
    #[arg(long, default_value_t = 3.0, value_name = "SECONDS", value_parser = seconds)]
    seconds: f64,
    /// Rounds of each load, on each side
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = upto::<u32>(1_000))]
    rounds: u32,
    /// Users to begin with
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = upto::<u64>(1_000_000_000))]
    users: u64,
    /// Open loop: so many requests a second are due [default: closed loop]
    #[arg(long, value_name = "N", value_parser = upto::<u32>(1_000_000))]
    rate: Option<u32>,
    /// Measure the ring alone
    #[arg(long)]
    no_ceiling: bool,
    /// Another corro executable, whose ring is measured alternately, too
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Write all figures to this file
    #[arg(long, alias = "json", value_name = "FILE.json")]
    report: Option<PathBuf>,
}

fn upto<T: TryFrom<u64> + Clone + Send + Sync>(most: u64) -> RangedU64ValueParser<T> {
    RangedU64ValueParser::new().range(1..=most)
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("allowed: 0.1 to 86400".to_owned()),
    }
}

/// What a load asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `GET` of any user.
    Get,
    /// `POST` of a new user whose id the gateway makes.
    Post,
    /// `PUT` of a new name and group for any user.
    Put,
    /// `DELETE` of one user after the other.
    Delete,
    /// So many `GET` in a hundred, the others `PUT`.
    Mix(u64),
    /// `POST` of one user after the other with given ids: not measured, but what the others need.
    Fill,
    /// `DELETE` of one user after the other that may be there: not measured either.
    Clear,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "get" => Self::Get,
            "post" => Self::Post,
            "put" => Self::Put,
            "delete" => Self::Delete,
            mix => {
                let share = |text: &str| text.parse().ok().filter(|share: &u64| *share <= 100);
                let shares = mix.split_once('/').and_then(|(reads, rest)| share(reads).zip(share(rest)));
                let mix = shares.filter(|(reads, updates)| reads + updates == 100);
                let (reads, _) = mix.ok_or("allowed: get, post, put, delete, or a mix such as 95/5")?;
                Self::Mix(reads)
            }
        })
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Get => f.write_str("GET"),
            Self::Post => f.write_str("POST"),
            Self::Put => f.write_str("PUT"),
            Self::Delete => f.write_str("DELETE"),
            Self::Mix(reads) => write!(f, "{reads}/{}", 100 - reads),
            Self::Fill => f.write_str("fill"),
            Self::Clear => f.write_str("clear"),
        }
    }
}

/// Measures, and prints what came of it.
///
/// # Errors
/// Where it cannot be carried out, or where requests failed: such figures are worth nothing.
pub(crate) async fn run(args: BenchArgs) -> anyhow::Result<()> {
    let shutdown = process::shutdown_on_signal();
    let write = |file: &Path, text: String| {
        std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
    };
    if let Some(file) = &args.report {
        write(file, String::new())?; // better now than after an hour
    }
    let mut sides = Sides::default();
    let started = tokio::select! {
        started = start(&args, &mut sides) => started,
        () = shutdown.cancelled() => Err(anyhow!("interrupted")),
    };
    let report = match started {
        Ok(()) => rounds::run(&args, &sides.all, &shutdown).await,
        Err(error) => Err(error),
    };
    let cleared = rounds::clear(&args, &sides.all).await;
    sides.close().await?;
    let report = report?;
    cleared?;
    say(&report.table());
    if let Some(file) = &args.report {
        write(file, serde_json::to_string_pretty(&report)?)?;
    }
    match report.errors() {
        0 => Ok(()),
        errors => bail!("{errors} requests failed"),
    }
}

async fn start(args: &BenchArgs, sides: &mut Sides) -> anyhow::Result<()> {
    match &args.url {
        Some(url) => {
            let target = args.token.endpoint(url).await?;
            say(&format!(
                "This creates {} users, and more with every POST, in the ring at {target}, and deletes them \
                 afterwards.",
                args.users
            ));
            sides.running_ring(target);
        }
        None => sides.own_ring("ring", None, args.db_processes).await?,
    }
    if !args.no_ceiling {
        sides.ceiling().await?;
    }
    if let Some(executable) = &args.against {
        sides.own_ring("against", Some(executable), args.db_processes).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_understood_or_refused() {
        for (text, kind) in [("get", Kind::Get), ("95/5", Kind::Mix(95)), ("0/100", Kind::Mix(0))] {
            assert_eq!(text.parse(), Ok(kind));
        }
        for bad in ["", "GETS", "95", "95/6", "101/-1", "/", "fill"] {
            assert!(bad.parse::<Kind>().is_err(), "{bad}");
        }
        assert_eq!(Kind::Mix(95).to_string(), "95/5");
    }
}
