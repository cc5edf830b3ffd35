//! Deliberate bugs: the simulation finds each of those listed, and nothing without them.
//! `CORRO_MUTATION=SlowLeads` looks for that one alone.

use std::time::Instant;

use protocol::mutation::{Mutation, make};

use crate::config::{Config, Fault, Mode};
use crate::{search, try_run};

/// Each bug is found by one of the first so many seeds: several times what any of them has needed.
const SEEDS: u64 = 20_000;

/// The runs in which a bug is looked for: any, or those of the faults by which it shows.
fn config(mutation: Mutation, seed: u64) -> Config {
    let config = Config::new(seed);
    let rolled_back = if seed.is_multiple_of(2) { Mode::Single } else { Mode::Harsh };
    let (mode, faults, kinds) = match mutation {
        Mutation::WaitForSilent => (Mode::Single, 5, vec![Fault::Pause]),
        Mutation::SlowLeads => (Mode::Single, 5, vec![Fault::SlowDisk]),
        Mutation::ExchangeIgnored => {
            (Mode::Chaos, 7, vec![Fault::Gateway, Fault::Cut, Fault::CutReplication])
        }
        Mutation::StaleNotice => (Mode::Chaos, 5, vec![Fault::SlowDisk, Fault::Kill, Fault::Leave]),
        Mutation::RegistrationNotCompared
        | Mutation::FollowerNotCompared
        | Mutation::StartNotCompared
        | Mutation::IncarnationKept
        | Mutation::RollbackServes => (rolled_back, 5, vec![Fault::Rollback, Fault::Kill]),
        Mutation::EraseUnconfirmed => {
            let kinds = vec![Fault::CutReplication, Fault::Kill, Fault::Cut, Fault::Gateway];
            let (think, users, purge_after) = (3_000, 2, Some(0));
            return Config { mode: Mode::Chaos, kinds, faults: 7, think, users, purge_after, ..config };
        }
        _ => return config,
    };
    Config { mode, kinds, faults, ..config }
}

/// Bugs that need more seeds than the others, or luck.
const RARE: [Mutation; 3] =
    [Mutation::BelieveFirstView, Mutation::PurgeUnexchanged, Mutation::EraseUnconfirmed];

#[test]
fn mutations_are_found() {
    find_all(|mutation| !RARE.contains(mutation));
}

#[test]
#[ignore = "takes many minutes"]
fn rare_mutations_are_found() {
    find_all(|mutation| RARE.contains(mutation));
}

fn find_all(among: impl Fn(&Mutation) -> bool) {
    // Every find is a panic; their texts are printed below.
    std::panic::set_hook(Box::new(|_| ()));
    let mut missed = Vec::new();
    let only = std::env::var("CORRO_MUTATION").ok();
    let wanted = |mutation: &Mutation| match &only {
        None => among(mutation),
        Some(only) => *only == format!("{mutation:?}"),
    };
    assert!(Mutation::ALL.iter().any(wanted), "there is no bug {only:?}");
    for mutation in Mutation::ALL.into_iter().filter(wanted) {
        let from = Instant::now();
        let config = |seed| config(mutation, seed);
        let found = search(0..SEEDS, config, || make(Some(mutation)), |_| ());
        let took = from.elapsed();
        let Some((seed, why)) = found else {
            missed.push(format!("{mutation:?} is not found by {SEEDS} seeds in {took:.1?}"));
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
