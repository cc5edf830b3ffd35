//! Deliberate bugs: the simulation finds each of those listed, and nothing without them.
//! `CORRO_MUTATION=SlowLeads` looks for that one alone.

use protocol::mutation::{Mutation, make};

use crate::{search, try_seed};

/// Each bug is found within so many seeds.
const SEEDS: u64 = 100_000;

#[test]
fn mutations_are_found() {
    // Every find is a panic; their texts are printed below.
    std::panic::set_hook(Box::new(|_| ()));
    let mut missed = Vec::new();
    let only = std::env::var("CORRO_MUTATION").ok();
    let wanted = |mutation: &Mutation| only.as_ref().is_none_or(|only| *only == format!("{mutation:?}"));
    for mutation in Mutation::ALL.into_iter().filter(wanted) {
        match search(1, SEEDS, || make(Some(mutation)), |_, _| ()) {
            Some((seed, why)) => {
                let why: String = why.lines().next().unwrap_or_default().chars().take(150).collect();
                println!("{mutation:?}: found by seed {seed}: {why}");
                if let Err(why) = try_seed(seed) {
                    missed.push(format!("seed {seed} fails without {mutation:?} too: {why}"));
                }
            }
            None => missed.push(format!("{mutation:?} is not found by {SEEDS} seeds")),
        }
    }
    drop(std::panic::take_hook());
    assert!(missed.is_empty(), "{missed:#?}");
}
