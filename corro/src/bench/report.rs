//! What was measured: a line for each load, a table at the end, and all of it as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::Kind;
use super::generator::Outcome;
use super::rounds::Plan;
use super::sides::Sides;

/// Above the lines of the table; what is after the errors says itself what it is.
pub(super) const HEADER: &str = "load   conn.  side      req/s   p50 ms   p99 ms p99.9 ms  errors  requests/s as a fraction; CPU µs a request";

/// One round: what came of it on each side, in their order.
#[derive(Debug, Serialize)]
pub(super) struct Round(pub(super) Vec<Outcome>);

/// All rounds of one load.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) kind: Kind,
    pub(super) connections: u32,
    pub(super) rate: Option<u32>,
    pub(super) rounds: Vec<Round>,
}

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    generator: &'static str,
    cores: usize,
    users: u64,
    seconds: f64,
    rounds: u32,
    sides: Vec<&'static str>,
    loads: Vec<Load>,
}

/// The medians of one load.
#[derive(Debug, Serialize)]
pub(super) struct Load {
    load: String,
    connections: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u32>,
    by_side: Vec<Summary>,
    rounds: Vec<Round>,
}

/// Of one side. Latencies in milliseconds.
#[derive(Debug, Serialize)]
struct Summary {
    side: &'static str,
    requests_per_second: f64,
    /// Of the requests a second, the median over the rounds; by the name of the other side.
    fraction_of: BTreeMap<&'static str, f64>,
    p50_ms: f64,
    p99_ms: f64,
    p99_9_ms: f64,
    max_ms: f64,
    errors: u64,
    /// By process.
    cpu_us_per_request: BTreeMap<String, f64>,
}

impl Measured {
    fn summary(&self, place: usize, sides: &Sides) -> Summary {
        let of = |figure: &dyn Fn(&Outcome) -> f64| {
            median(self.rounds.iter().map(|Round(all)| figure(&all[place])))
        };
        let fraction = |other: usize| {
            let fractions = self.rounds.iter().map(|Round(all)| speed(&all[place]) / speed(&all[other]));
            median(fractions)
        };
        let others = sides.all.iter().enumerate().filter(|(other, _)| *other != place && place == 0);
        let names = self.rounds.first().into_iter().flat_map(|Round(all)| all[place].cpu.keys());
        Summary {
            side: sides.all[place].name,
            requests_per_second: of(&speed),
            fraction_of: others.map(|(other, side)| (side.name, fraction(other))).collect(),
            p50_ms: of(&|outcome| outcome.p50 * 1e3),
            p99_ms: of(&|outcome| outcome.p99 * 1e3),
            p99_9_ms: of(&|outcome| outcome.p999 * 1e3),
            max_ms: of(&|outcome| outcome.max * 1e3),
            errors: self.rounds.iter().map(|Round(all)| all[place].errors).sum(),
            cpu_us_per_request: names
                .map(|name| {
                    let micros = |outcome: &Outcome| {
                        outcome.cpu[name].as_secs_f64() * 1e6 / outcome.requests.max(1) as f64
                    };
                    (name.clone(), of(&micros))
                })
                .collect(),
        }
    }

    /// The medians.
    pub(super) fn into_load(self, sides: &Sides) -> Load {
        Load {
            load: self.kind.to_string(),
            connections: self.connections,
            rate: self.rate,
            by_side: (0..sides.all.len()).map(|place| self.summary(place, sides)).collect(),
            rounds: self.rounds,
        }
    }
}

impl Load {
    /// One for each side.
    pub(super) fn lines(&self) -> Vec<String> {
        self.by_side.iter().map(|summary| self.line(summary)).collect()
    }

    fn line(&self, summary: &Summary) -> String {
        let mut line = format!(
            "{:<7}{:>5}  {:<8}{:>9.0}{:>9.3}{:>9.3}{:>9.3}{:>8} ",
            self.load,
            self.connections,
            summary.side,
            summary.requests_per_second,
            summary.p50_ms,
            summary.p99_ms,
            summary.p99_9_ms,
            summary.errors,
        );
        for (other, fraction) in &summary.fraction_of {
            let _ = write!(line, " {:.1} % of {other}", fraction * 100.0); // a string takes all text
        }
        for (process, micros) in &summary.cpu_us_per_request {
            let _ = write!(line, "  {process} {micros:.1}");
        }
        line
    }
}

impl Report {
    pub(super) fn new(plan: &Plan, sides: &Sides, loads: Vec<Load>) -> Self {
        Self {
            generator: "corro bench-generator",
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            users: plan.users,
            seconds: plan.round.as_secs_f64(),
            rounds: plan.rounds,
            sides: sides.all.iter().map(|side| side.name).collect(),
            loads,
        }
    }

    /// All medians, a line for each load and side.
    pub(super) fn table(&self) -> String {
        let mut table = format!(
            "\nMedians of {} rounds of {} s each; {} users to begin with; {} cores for everything, the generator included.\n\n{}",
            self.rounds, self.seconds, self.users, self.cores, HEADER
        );
        for line in self.loads.iter().flat_map(Load::lines) {
            table.push('\n');
            table += &line;
        }
        table
    }

    /// Requests that failed, on all sides.
    pub(super) fn errors(&self) -> u64 {
        self.loads.iter().flat_map(|load| &load.by_side).map(|summary| summary.errors).sum()
    }
}

fn speed(outcome: &Outcome) -> f64 {
    outcome.requests as f64 / outcome.seconds
}

/// The middle one; zero where there is none. Of an even number the mean of both.
fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_some() {
        assert_eq!(median([].into_iter()), 0.0);
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0].into_iter()), 2.5);
    }
}
