//! What a drill found, as it is written as JSON. Durations are in milliseconds, moments in seconds since the
//! start of the load.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::copies::Comparison;
use super::faults::{Cycle, Fault};
use super::ring::Census;
use super::verify::Histories;
use crate::latencies::median;
use crate::load::meter::{FailedAt, Measurements, Point};
use crate::load::retries::Retried;

/// How a drill was set up.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Setup {
    pub(crate) driver: String,
    pub(crate) url: String,
    pub(crate) db_processes: u16,
    pub(crate) connections: usize,
    pub(crate) reads_percent: u64,
    pub(crate) users: usize,
    pub(crate) seed: u64,
    pub(crate) cycles: usize,
}

impl fmt::Display for Setup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { db_processes, url, connections, reads_percent, users, seed, .. } = self;
        write!(
            formatter,
            "A ring of {db_processes} at {url}: {connections} connections, {reads_percent} % reads, {users} \
             users, seed {seed}"
        )
    }
}

/// One cycle as it went.
#[derive(Debug)]
pub(crate) struct CycleResult {
    pub(crate) cycle: Cycle,
    /// When the fault began, since the start of the load.
    pub(crate) began: Duration,
    /// When its end was ordered.
    pub(crate) ended: Duration,
    /// When the ring was whole again.
    pub(crate) whole: Duration,
    /// From when the fault began until a moment after the ring was whole.
    pub(crate) measured: Measurements,
    /// `None` where the copies cannot be read.
    pub(crate) copies: Option<Comparison>,
    /// `None` where there are too many users to be listed.
    pub(crate) census: Option<Census>,
}

/// Figures of a stretch of time.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    pub(crate) refused: u64,
    /// The longest time in which no read succeeded, on any connection.
    pub(crate) longest_without_read: f64,
    pub(crate) longest_without_write: f64,
    /// The read that took longest.
    pub(crate) longest_read: f64,
    pub(crate) longest_write: f64,
    pub(crate) read_p99: f64,
    pub(crate) write_p99: f64,
    /// How long the drill itself could not continue at worst: what took no longer says little about the ring.
    pub(crate) drill_late: f64,
}

/// All cycles of a fault.
#[derive(Debug, Serialize)]
pub(crate) struct FaultRow {
    pub(crate) fault: Fault,
    pub(crate) cycles: usize,
    pub(crate) rejoin_median: f64,
    pub(crate) rejoin_max: f64,
    /// Medians over the cycles.
    pub(crate) median_longest_without_write: f64,
    pub(crate) median_longest_write: f64,
    pub(crate) median_longest_read: f64,
    #[serde(flatten)]
    pub(crate) row: Row,
}

/// One cycle.
#[derive(Debug, Serialize)]
pub(crate) struct CycleRow {
    pub(crate) fault: Fault,
    pub(crate) process: String,
    pub(crate) began: f64,
    pub(crate) ended: f64,
    pub(crate) whole: f64,
    /// From the order to come back until the ring was whole.
    pub(crate) rejoin: f64,
    /// Records that were copied to a process which had lost its disk.
    pub(crate) records_copied: Option<u64>,
    pub(crate) copies_equal: Option<bool>,
    #[serde(flatten)]
    pub(crate) row: Row,
}

/// All that a drill found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) passed: bool,
    /// Why it ended before its time.
    pub(crate) ended_early: Option<String>,
    pub(crate) setup: Setup,
    pub(crate) seconds: f64,
    pub(crate) requests: u64,
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) failed: u64,
    /// The first of them.
    pub(crate) failures: Vec<FailedAt>,
    /// Connections that were refused or broke while the gateway was down. They are no failures.
    pub(crate) refused_while_gateway_down: u64,
    #[serde(flatten)]
    pub(crate) checks: Checks,
    pub(crate) rejoin_median: Option<f64>,
    pub(crate) rejoin_max: Option<f64>,
    /// While nothing was broken.
    pub(crate) calm: Row,
    pub(crate) faults: Vec<FaultRow>,
    pub(crate) cycles: Vec<CycleRow>,
    pub(crate) timeline: Vec<Point>,
}

/// What was checked after each cycle.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Checks {
    pub(crate) histories: Histories,
    /// Creates with an `Idempotency-Key`.
    pub(crate) retried: Retried,
    /// Cycles after which the copies were compared on disk.
    pub(crate) copies_compared: u64,
    /// Records in the last comparison, tombstones among them, each partition counted once.
    pub(crate) records: u64,
    /// What differed.
    pub(crate) copies_differ: Vec<String>,
    /// Cycles after which the users that the ring counts were compared with those that it lists.
    pub(crate) counts_compared: u64,
    /// Users at the last of them.
    pub(crate) users_counted: u64,
    /// What differed.
    pub(crate) counts_differ: Vec<String>,
}

impl Checks {
    fn passed(&self) -> bool {
        self.histories.violations == 0
            && self.histories.undecided == 0
            && self.retried.wrong.is_empty()
            && self.copies_differ.is_empty()
            && self.counts_differ.is_empty()
    }
}

/// What a drill has gathered so far.
#[derive(Default)]
pub(crate) struct Gathered {
    pub(crate) setup: Setup,
    pub(crate) ended_early: Option<String>,
    pub(crate) elapsed: Duration,
    pub(crate) calm: Measurements,
    pub(crate) checks: Checks,
    pub(crate) failures: Vec<FailedAt>,
    pub(crate) timeline: Vec<Point>,
    pub(crate) cycles: Vec<CycleRow>,
    pub(crate) faults: BTreeMap<Fault, Measurements>,
}

impl Gathered {
    /// Adds a cycle, and returns its figures.
    pub(crate) fn add(&mut self, result: &CycleResult) -> &CycleRow {
        let checks = &mut self.checks;
        if let Some(Comparison { records, differ }) = &result.copies {
            checks.copies_compared += 1;
            checks.records = records.iter().sum();
            checks.copies_differ.extend(differ.iter().cloned());
        }
        if let Some(Census { counted, listed }) = result.census {
            checks.counts_compared += 1;
            checks.users_counted = counted;
            if counted != listed {
                checks.counts_differ.push(format!("the ring counts {counted} users and lists {listed}"));
            }
        }
        let Cycle { fault, process } = &result.cycle;
        self.faults.entry(*fault).or_default().add(&result.measured);
        let place = process.strip_prefix("db-").and_then(|place| place.parse().ok());
        let wiped = result.copies.as_ref().filter(|_| *fault == Fault::Wipe).zip(place);
        self.cycles.push(CycleRow {
            fault: *fault,
            process: process.clone(),
            began: result.began.as_secs_f64(),
            ended: result.ended.as_secs_f64(),
            whole: result.whole.as_secs_f64(),
            rejoin: milliseconds(result.whole.saturating_sub(result.ended)),
            records_copied: wiped.map(|(copies, place)| copies.held_by(place)),
            copies_equal: result.copies.as_ref().map(|copies| copies.differ.is_empty()),
            row: Row::of(&result.measured),
        });
        self.cycles.last().expect("it was added just now")
    }

    /// Sums up.
    pub(crate) fn report(self) -> Report {
        let Self { setup, ended_early, elapsed, calm, checks, failures, timeline, cycles, faults } = self;
        let mut all = calm.clone();
        faults.values().for_each(|measured| all.add(measured));
        let done = ended_early.is_none() && cycles.len() == setup.cycles;
        Report {
            passed: done && all.failed == 0 && checks.passed(),
            ended_early,
            seconds: elapsed.as_secs_f64(),
            requests: all.succeeded() + all.failed,
            reads: all.reads.took.count(),
            writes: all.writes.took.count(),
            failed: all.failed,
            failures,
            refused_while_gateway_down: all.refused,
            checks,
            rejoin_median: median(cycles.iter().map(|cycle| cycle.rejoin)),
            rejoin_max: cycles.iter().map(|cycle| cycle.rejoin).max_by(f64::total_cmp),
            calm: Row::of(&calm),
            faults: faults.iter().map(|(fault, measured)| FaultRow::of(*fault, measured, &cycles)).collect(),
            cycles,
            timeline,
            setup,
        }
    }
}

impl FaultRow {
    fn of(fault: Fault, measured: &Measurements, cycles: &[CycleRow]) -> Self {
        let cycles: Vec<&CycleRow> = cycles.iter().filter(|cycle| cycle.fault == fault).collect();
        let middle =
            |of: fn(&CycleRow) -> f64| median(cycles.iter().map(|cycle| of(cycle))).unwrap_or_default();
        Self {
            fault,
            cycles: cycles.len(),
            rejoin_median: middle(|cycle| cycle.rejoin),
            rejoin_max: cycles.iter().map(|cycle| cycle.rejoin).fold(0.0, f64::max),
            median_longest_without_write: middle(|cycle| cycle.row.longest_without_write),
            median_longest_write: middle(|cycle| cycle.row.longest_write),
            median_longest_read: middle(|cycle| cycle.row.longest_read),
            row: Row::of(measured),
        }
    }
}

impl Row {
    fn of(measured: &Measurements) -> Self {
        let Measurements { reads, writes, failed, refused, late } = measured;
        Self {
            requests: measured.succeeded() + failed,
            failed: *failed,
            refused: *refused,
            longest_without_read: milliseconds(reads.longest_gap),
            longest_without_write: milliseconds(writes.longest_gap),
            longest_read: milliseconds(reads.took.max()),
            longest_write: milliseconds(writes.took.max()),
            read_p99: milliseconds(reads.took.quantile(0.99)),
            write_p99: milliseconds(writes.took.quantile(0.99)),
            drill_late: milliseconds(*late),
        }
    }
}

/// To the microsecond.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn cycle(fault: Fault, process: &str, began: u64) -> CycleResult {
        let at = |offset| Duration::from_millis(began + offset);
        let mut measured = Measurements::default();
        measured.reads.took.record(Duration::from_millis(3));
        measured.writes.took.record(Duration::from_millis(began));
        measured.writes.longest_gap = Duration::from_millis(20);
        CycleResult {
            cycle: Cycle { fault, process: process.to_owned() },
            began: at(0),
            ended: at(1_000),
            whole: at(1_000 + began),
            measured,
            copies: Some(Comparison { records: vec![5, 6, 7], differ: Vec::new() }),
            census: Some(Census { counted: 9, listed: 9 }),
        }
    }

    /// Three cycles in which all went well, or one of them was spoilt.
    fn gathered_with(spoil: fn(&mut [CycleResult; 3])) -> Gathered {
        let mut cycles = [
            cycle(Fault::Kill, "db-1", 100),
            cycle(Fault::Wipe, "db-2", 300),
            cycle(Fault::Kill, "db-0", 200),
        ];
        spoil(&mut cycles);
        let point = Point { index: 3, reads: 9, read_p99: 800, read_max: 900, ..Point::default() };
        let mut gathered = Gathered {
            setup: Setup { db_processes: 3, connections: 64, seed: 7, cycles: 3, ..Setup::default() },
            elapsed: Duration::from_secs(9),
            timeline: vec![
                point,
                Point { index: 40, writes: 5, write_p99: 9_000, write_max: 90_000, ..point },
            ],
            ..Gathered::default()
        };
        gathered.calm.reads.took.record(Duration::from_millis(1));
        gathered.checks.retried = Retried { keys: 10, sent: 14, retried: 2, wrong: Vec::new() };
        for cycle in &cycles {
            gathered.add(cycle);
        }
        gathered
    }

    /// Three cycles in which all went well.
    pub(crate) fn gathered() -> Gathered {
        gathered_with(|_| ())
    }

    #[test]
    fn sums_up_each_fault_and_the_whole() {
        let report = gathered().report();
        assert!(report.passed);
        assert_eq!((report.requests, report.reads, report.writes, report.failed), (7, 4, 3, 0));
        assert_eq!((report.rejoin_median, report.rejoin_max), (Some(200.0), Some(300.0)));
        assert_eq!((report.checks.copies_compared, report.checks.records), (3, 18));
        let [kill, wipe] = report.faults.as_slice() else { panic!("{:?}", report.faults) };
        assert_eq!(
            (kill.fault, kill.cycles, kill.rejoin_median, kill.rejoin_max),
            (Fault::Kill, 2, 150.0, 200.0)
        );
        assert_eq!((kill.row.longest_write, kill.row.longest_without_write), (200.0, 20.0));
        assert_eq!((wipe.fault, wipe.cycles), (Fault::Wipe, 1));
        assert_eq!(report.cycles[1].records_copied, Some(13));
        assert_eq!(report.cycles[0].records_copied, None);
    }

    #[test]
    fn any_fault_of_the_ring_fails_it() {
        let fails = |spoil: fn(&mut Gathered)| {
            let mut gathered = gathered();
            spoil(&mut gathered);
            !gathered.report().passed
        };
        assert!(fails(|gathered| gathered.calm.failed = 1));
        assert!(fails(|gathered| gathered.checks.histories.violations = 1));
        assert!(fails(|gathered| gathered.checks.histories.undecided = 1));
        assert!(fails(|gathered| gathered.checks.retried.wrong.push("11 users".to_owned())));
        assert!(fails(|gathered| gathered.ended_early = Some("Ctrl-C".to_owned())));
        assert!(fails(|gathered| drop(gathered.cycles.pop())));
        let fails = |spoil| !gathered_with(spoil).report().passed;
        assert!(fails(|cycles| cycles[1].measured.failed = 1));
        assert!(fails(|cycles| {
            cycles[0].copies = Some(Comparison { records: vec![1], differ: vec!["x".to_owned()] });
        }));
        assert!(fails(|cycles| cycles[2].census = Some(Census { counted: 9, listed: 8 })));
        assert!(!fails(|cycles| cycles[2].census = None));
        assert!(!fails(|cycles| cycles[0].measured.refused = 9));
    }

    #[test]
    fn is_json_that_names_its_figures() {
        let json = serde_json::to_value(gathered().report()).unwrap();
        assert_eq!(json["passed"], true);
        assert_eq!(json["faults"][0]["fault"], "kill");
        assert_eq!(json["faults"][0]["longest_write"], 200.0);
        assert_eq!(json["cycles"][1]["process"], "db-2");
        assert_eq!(json["histories"]["violations"], 0);
        assert_eq!(json["copies_compared"], 3);
        assert_eq!(json["timeline"][0]["read_max"], 900);
    }
}
