//! Deliberate bugs: the simulation finds each of those listed, and nothing without them.
//! `CORRO_MUTATION=SlowLeads` looks for that one alone.

use std::time::{Duration, Instant};

use protocol::mutation::{Mutation, make};

use crate::config::{Config, Fault, Mode};
use crate::{search, try_run};

/// All bugs are found within this time, on two processors.
const WITHIN: Duration = Duration::from_secs(150);

/// The runs in which a bug is looked for: any, or those in which it shows.
fn config(mutation: Mutation, seed: u64) -> Config {
    let config = Config::new(seed);
    let single =
        |kinds: &[Fault]| Config { mode: Mode::Single, kinds: kinds.to_vec(), faults: 5, ..config.clone() };
    match mutation {
        Mutation::WaitForSilent => Config { think: 3_000, ..single(&[Fault::Pause]) },
        Mutation::SlowLeads => single(&[Fault::SlowDisk]),
        _ => config,
    }
}

#[test]
fn mutations_are_found() {
    // Every find is a panic; their texts are printed below.
    std::panic::set_hook(Box::new(|_| ()));
    let (begun, mut missed) = (Instant::now(), Vec::new());
    let only = std::env::var("CORRO_MUTATION").ok();
    let wanted = |mutation: &Mutation| only.as_ref().is_none_or(|only| *only == format!("{mutation:?}"));
    for mutation in Mutation::ALL.into_iter().filter(wanted) {
        let (from, deadline) = (begun.elapsed(), Some(begun + WITHIN));
        let config = |seed| config(mutation, seed);
        let found = search(1..u64::MAX, deadline, config, || make(Some(mutation)), |_| ());
        let took = begun.elapsed() - from;
        let Some((seed, why)) = found else {
            missed.push(format!("{mutation:?} is not found, looked for it for {took:.1?}"));
            continue;
        };
        let why: String = why.lines().next().unwrap_or_default().chars().take(150).collect();
        println!("{mutation:?}: found by seed {seed} in {took:.1?}: {why}");
        if let Err(why) = try_run(config(seed)) {
            missed.push(format!("seed {seed} fails without {mutation:?} too: {why}"));
        }
    }
    drop(std::panic::take_hook());
    assert!(missed.is_empty(), "{missed:#?}");
}
