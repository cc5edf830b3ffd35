//! Round after round, each side in turn.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::generator::{self, Spec};
use super::report::{HEADER, Load, Report};
use super::sides::Side;
use super::{BenchArgs, Kind};
use crate::terminal::say;

/// Load before each round that is not counted: connections are made, caches warm, batches form.
const WARM_UP: Duration = Duration::from_millis(300);

/// Connections by which users are created that a load needs.
const FILLING: u32 = 256;

/// Measures all of it.
///
/// # Errors
/// Where a side does not answer, or a process has ended.
pub(super) async fn run(args: &BenchArgs, sides: &[Side]) -> anyhow::Result<Report> {
    for side in sides {
        let seconds = fill(side, 0..args.users).await?;
        say(&format!("{}: {} users in {seconds:.1} s", side.name, args.users));
    }
    say(HEADER);
    let mut loads = Vec::new();
    for &connections in &args.connections {
        for &kind in &args.mix {
            let mut rounds = Vec::new();
            for round in 0..args.rounds {
                let mut outcomes = Vec::new();
                for side in sides {
                    let spec = Spec {
                        target: side.target.clone(),
                        processes: side.processes.clone(),
                        kind,
                        connections,
                        rate: args.rate,
                        warm_up: WARM_UP,
                        length: Duration::from_secs_f64(args.seconds),
                        users: 0..args.users,
                        seed: u64::from(round),
                    };
                    let outcome =
                        generator::run(spec).await.with_context(|| format!("{}, {kind}", side.name))?;
                    if kind == Kind::Delete {
                        fill(side, outcome.used.clone()).await?;
                    }
                    outcomes.push(outcome);
                }
                rounds.push(outcomes);
            }
            let load = Load::new(kind, connections, args, rounds, sides);
            load.lines().iter().for_each(|line| say(line));
            loads.push(load);
        }
    }
    Ok(Report::new(args, sides, loads))
}

/// Creates these users. Returns the seconds that it took.
async fn fill(side: &Side, users: Range<u64>) -> anyhow::Result<f64> {
    let spec = Spec {
        target: side.target.clone(),
        processes: Vec::new(),
        kind: Kind::Fill,
        connections: FILLING,
        rate: None,
        warm_up: Duration::ZERO,
        length: Duration::MAX,
        users,
        seed: 0,
    };
    let outcome = generator::run(spec).await.with_context(|| format!("filling: {}", side.name))?;
    ensure!(outcome.errors == 0, "filling: {}: {} users were refused", side.name, outcome.errors);
    Ok(outcome.seconds)
}
