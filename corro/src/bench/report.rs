//! The figures: medians over the rounds, for a person and as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use super::generator::Outcome;
use super::sides::Side;
use super::{BenchArgs, Kind};
use crate::latencies::median;

/// Above the lines of the table; what is after the errors has its name with it.
pub(super) const HEADER: &str = "load   conn.  side      req/s   p50 ms   p99 ms p99.9 ms  errors  \
    requests/s as a fraction; CPU µs a request";

/// All rounds of one load: what came of it on each side, in their order.
pub(super) type Rounds = Vec<Vec<Outcome>>;

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
    rounds: Rounds,
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

impl Summary {
    fn of(rounds: &Rounds, place: usize, sides: &[Side]) -> Self {
        let of = |figure: &dyn Fn(&Outcome) -> f64| {
            median(rounds.iter().map(|round| figure(&round[place]))).unwrap_or_default()
        };
        let fraction = |other: usize| {
            let fractions = rounds.iter().map(|round| speed(&round[place]) / speed(&round[other]));
            median(fractions).unwrap_or_default()
        };
        let others = if place == 0 { 1..sides.len() } else { 0..0 };
        let cpu = |name: &String| {
            let micros = of(&|it| it.cpu[name].as_secs_f64() * 1e6 / it.requests.max(1) as f64);
            (name.clone(), micros)
        };
        Self {
            side: sides[place].name,
            requests_per_second: of(&speed),
            fraction_of: others.map(|other| (sides[other].name, fraction(other))).collect(),
            p50_ms: of(&|outcome| outcome.p50 * 1e3),
            p99_ms: of(&|outcome| outcome.p99 * 1e3),
            p99_9_ms: of(&|outcome| outcome.p999 * 1e3),
            max_ms: of(&|outcome| outcome.max * 1e3),
            errors: rounds.iter().map(|round| round[place].errors).sum(),
            cpu_us_per_request: rounds
                .iter()
                .take(1)
                .flat_map(|round| round[place].cpu.keys().map(cpu))
                .collect(),
        }
    }
}

impl Load {
    pub(super) fn new(
        kind: Kind,
        connections: u32,
        args: &BenchArgs,
        rounds: Rounds,
        sides: &[Side],
    ) -> Self {
        let by_side = (0..sides.len()).map(|place| Summary::of(&rounds, place, sides)).collect();
        Self { load: kind.to_string(), connections, rate: args.rate, by_side, rounds }
    }

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
            line += &format!(" {:.1} % of {other}", fraction * 100.0);
        }
        for (process, micros) in &summary.cpu_us_per_request {
            line += &format!("  {process} {micros:.1}");
        }
        line
    }
}

impl Report {
    pub(super) fn new(args: &BenchArgs, sides: &[Side], loads: Vec<Load>) -> Self {
        Self {
            generator: "corro bench",
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            users: args.users,
            seconds: args.seconds,
            rounds: args.rounds,
            sides: sides.iter().map(|side| side.name).collect(),
            loads,
        }
    }

    /// All medians, a line for each load and side.
    pub(super) fn table(&self) -> String {
        let mut table = format!(
            "\nMedians of {} rounds of {} s each; {} users to begin with; {} cores for everything, the \
             generator included.\n\n{HEADER}",
            self.rounds, self.seconds, self.users, self.cores
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
