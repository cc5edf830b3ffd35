//! Round after round, each side in turn.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio_util::sync::CancellationToken;

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
pub(super) async fn run(
    args: &BenchArgs,
    sides: &[Side],
    shutdown: &CancellationToken,
) -> anyhow::Result<Report> {
    for side in sides {
        let seconds = all_once(side, Kind::Fill, 0..args.users, shutdown).await?;
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
                        processes: side.processes.clone(),
                        connections,
                        rate: args.rate,
                        warm_up: WARM_UP,
                        length: Duration::from_secs_f64(args.seconds),
                        seed: u64::from(round),
                        made: side.made.clone(),
                        ..spec(side, kind, 0..args.users, shutdown)
                    };
                    let outcome =
                        generator::run(spec).await.with_context(|| format!("{}, {kind}", side.name))?;
                    if kind == Kind::Delete {
                        all_once(side, Kind::Fill, outcome.used.clone(), shutdown).await?;
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

/// Deletes what was created in a ring that stays.
///
/// # Errors
/// Where the ring refuses.
pub(super) async fn clear(args: &BenchArgs, sides: &[Side]) -> anyhow::Result<()> {
    let never = CancellationToken::new();
    for side in sides {
        let Some(made) = &side.made else { continue };
        let made = std::mem::take(&mut *made.lock().expect("no thread panics while it adds an id"));
        let users = made.len() as u64;
        let spec = Spec { ids: Some(made.into()), ..spec(side, Kind::Clear, 0..users, &never) };
        all_once(side, Kind::Clear, 0..args.users, &never).await?;
        generator::run(spec).await.context("clearing")?;
        say(&format!("{}: its users are deleted", side.name));
    }
    Ok(())
}

/// Takes each of these users once. Returns the seconds that it took.
async fn all_once(
    side: &Side,
    kind: Kind,
    users: Range<u64>,
    shutdown: &CancellationToken,
) -> anyhow::Result<f64> {
    let context = || format!("{kind}: {}", side.name);
    let outcome = generator::run(spec(side, kind, users, shutdown)).await.with_context(context)?;
    ensure!(outcome.errors == 0, "{}: {} requests were refused", context(), outcome.errors);
    Ok(outcome.seconds)
}

fn spec(side: &Side, kind: Kind, users: Range<u64>, shutdown: &CancellationToken) -> Spec {
    Spec {
        target: side.target.clone(),
        processes: Vec::new(),
        kind,
        connections: FILLING,
        rate: None,
        warm_up: Duration::ZERO,
        length: Duration::MAX,
        users,
        seed: 0,
        made: None,
        ids: None,
        shutdown: shutdown.clone(),
    }
}
