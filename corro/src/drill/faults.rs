//! What is done to which process, in which order.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::random::Random;

/// What can be done to a process.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    /// Asked to stop (SIGTERM), and started again
    Stop,
    /// Killed (SIGKILL), and started again
    Kill,
    /// Made to hang for 3 s (SIGSTOP)
    Hang,
    /// Killed, its data removed, and started again
    Wipe,
    /// Killed, its data replaced by an older copy, and started again
    Rollback,
    /// The gateway killed, and started again
    Gateway,
}

impl Fault {
    /// How long it lasts before the process is started, or continues.
    pub(crate) fn lasts(self) -> Duration {
        match self {
            Self::Hang => Duration::from_secs(3),
            Self::Stop | Self::Kill | Self::Wipe | Self::Rollback => Duration::from_secs(1),
            Self::Gateway => Duration::from_millis(500),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no fault is hidden");
        formatter.pad(value.get_name())
    }
}

/// Which process it is done to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Each db-process in turn, with each fault.
    All,
    /// Fault and db-process by chance.
    Random,
    /// The db-process at this place.
    One(u16),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = |text: &str| text.strip_prefix("db-")?.parse().ok();
        match text {
            "all" => Ok(Self::All),
            "random" => Ok(Self::Random),
            text => {
                place(text).map(Self::One).ok_or_else(|| "allowed: all, random, db-0, db-1, …".to_owned())
            }
        }
    }
}

/// One cycle: a fault, and the process that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cycle {
    pub(crate) fault: Fault,
    pub(crate) process: String,
}

/// The cycles of a drill with a ring of `size`. The same seed gives the same ones.
///
/// # Errors
/// Where the target is no process of the ring.
pub(crate) fn plan(
    faults: &[Fault],
    target: &Target,
    size: u16,
    cycles: usize,
    seed: u64,
) -> anyhow::Result<Vec<Cycle>> {
    let places: Vec<u16> = match target {
        Target::One(place) => {
            anyhow::ensure!(*place < size, "there is no db-{place}: the ring has db-0 to db-{}", size - 1);
            vec![*place]
        }
        Target::All | Target::Random => (0..size).collect(),
    };
    let cycle = |fault, place: u16| Cycle {
        fault,
        process: if fault == Fault::Gateway { "gateway".to_owned() } else { format!("db-{place}") },
    };
    let mut random = Random::new(seed);
    if *target == Target::Random {
        let mut pick = || {
            let fault = faults[random.below(faults.len())];
            cycle(fault, places[random.below(places.len())])
        };
        return Ok((0..cycles).map(|_| pick()).collect());
    }
    let each = |fault: &Fault| {
        let count = if *fault == Fault::Gateway { 1 } else { places.len() };
        places.iter().take(count).map(move |place| cycle(*fault, *place)).collect::<Vec<_>>()
    };
    Ok(faults.iter().flat_map(each).cycle().take(cycles).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(target: &str, cycles: usize, seed: u64) -> Vec<String> {
        let faults = [Fault::Kill, Fault::Gateway, Fault::Stop];
        let cycles = plan(&faults, &target.parse().unwrap(), 2, cycles, seed).unwrap();
        cycles.into_iter().map(|cycle| format!("{} {}", cycle.fault, cycle.process)).collect()
    }

    #[test]
    fn all_goes_through_every_fault_and_every_process() {
        let round = ["kill db-0", "kill db-1", "gateway gateway", "stop db-0", "stop db-1"];
        assert_eq!(planned("all", 5, 1), round);
        assert_eq!(planned("all", 7, 1)[5..], round[..2]);
    }

    #[test]
    fn one_is_the_only_one() {
        assert_eq!(planned("db-1", 4, 1), ["kill db-1", "gateway gateway", "stop db-1", "kill db-1"]);
        assert!(plan(&[Fault::Kill], &Target::One(2), 2, 1, 1).is_err());
        assert!("db-".parse::<Target>().is_err() && "nothing".parse::<Target>().is_err());
    }

    #[test]
    fn chance_repeats_with_its_seed() {
        assert_eq!(planned("random", 50, 7), planned("random", 50, 7));
        assert_ne!(planned("random", 50, 7), planned("random", 50, 8));
        let all = planned("random", 100, 7);
        for each in planned("all", 5, 1) {
            assert!(all.contains(&each), "{each}");
        }
    }
}
