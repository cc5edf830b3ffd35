//! Round after round, each side in turn.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::AsyncWriteExt;

use super::generator::{Outcome, Spec};
use super::report::{HEADER, Measured, Report, Round};
use super::sides::{Side, Sides, own_command};
use super::{Kind, say};

/// Load before each round that is not counted: connections are made, caches warm, batches form.
const WARM_UP: Duration = Duration::from_millis(300);

/// Connections by which users are put in that a load needs.
const FILLING: u32 = 256;

/// What is to be measured.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) loads: Vec<Kind>,
    pub(super) connections: Vec<u32>,
    pub(super) round: Duration,
    pub(super) rounds: u32,
    pub(super) users: u64,
    pub(super) rate: Option<u32>,
}

/// Measures all of it.
///
/// # Errors
/// Where a side does not answer, or a process has ended.
pub(super) async fn run(plan: &Plan, sides: &Sides) -> anyhow::Result<Report> {
    for side in &sides.all {
        let took = fill(side, 0..plan.users).await?;
        say(&format!("{}: {} users in {:.1} s", side.name, plan.users, took.as_secs_f64()));
    }
    say(HEADER);
    let mut loads = Vec::new();
    for &connections in &plan.connections {
        for &kind in &plan.loads {
            let mut rounds = Vec::new();
            for round in 0..plan.rounds {
                let mut outcomes = Vec::new();
                for side in &sides.all {
                    let spec = Spec {
                        target: side.target.clone(),
                        processes: side.processes.clone(),
                        kind,
                        connections,
                        rate: plan.rate,
                        warm_up: WARM_UP,
                        length: plan.round,
                        users: 0..plan.users,
                        seed: u64::from(round),
                    };
                    let outcome = generate(&spec).await.with_context(|| format!("{}, {kind}", side.name))?;
                    if kind == Kind::Delete {
                        fill(side, outcome.used.clone()).await?;
                    }
                    outcomes.push(outcome);
                }
                rounds.push(Round(outcomes));
            }
            let load = Measured { kind, connections, rate: plan.rate, rounds }.into_load(sides);
            load.lines().iter().for_each(|line| say(line));
            loads.push(load);
        }
    }
    Ok(Report::new(plan, sides, loads))
}

/// Puts these users in.
async fn fill(side: &Side, users: std::ops::Range<u64>) -> anyhow::Result<Duration> {
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
    let outcome = generate(&spec).await.with_context(|| format!("filling: {}", side.name))?;
    ensure!(outcome.errors == 0, "filling: {}: {} users were refused", side.name, outcome.errors);
    Ok(Duration::from_secs_f64(outcome.seconds))
}

/// Lets a generator do this, in a process of its own. What it is to do may hold a token, so it goes through a
/// pipe: arguments can be read by everyone on the machine.
async fn generate(spec: &Spec) -> anyhow::Result<Outcome> {
    let mut generator = own_command()?
        .arg("bench-generator")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("the generator cannot be started")?;
    let mut input = generator.stdin.take().context("its input is piped")?;
    input.write_all(&serde_json::to_vec(spec)?).await.context("the generator takes no orders")?;
    drop(input);
    let output = generator.wait_with_output().await?;
    ensure!(output.status.success(), "the generator failed");
    serde_json::from_slice(&output.stdout).context("the generator's figures are not understood")
}
