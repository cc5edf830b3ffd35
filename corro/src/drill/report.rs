//! What a drill found: as JSON, and the verdict.

use std::time::Duration;

use serde::Serialize;

use super::census::Census;
use super::copies::Comparison;
use super::faults::{Cycle, Fault};
use super::verify::Histories;
use crate::load::meter::{FailedAt, Measurements, Point};
use crate::load::retries::Retried;
use crate::load::statistics::median;

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
    /// `None` where the copies cannot be looked at.
    pub(crate) copies: Option<Comparison>,
    /// `None` where there are too many users to be listed.
    pub(crate) census: Option<Census>,
}

/// How a drill was set up.
#[derive(Clone, Debug, Serialize)]
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

/// All that a drill found. Durations in milliseconds, moments in seconds since the start of the load.
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
    pub(crate) histories: Histories,
    /// Creates with an `Idempotency-Key`.
    pub(crate) retried: Retried,
    pub(crate) rejoin_median: Option<f64>,
    pub(crate) rejoin_max: Option<f64>,
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
    /// While nothing was broken.
    pub(crate) calm: Row,
    pub(crate) faults: Vec<FaultRow>,
    pub(crate) cycles: Vec<CycleRow>,
    pub(crate) timeline: Vec<Point>,
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
    /// How long the drill itself could not go on at worst: what took no longer says little about the ring.
    pub(crate) drill_late: f64,
}

/// All cycles of a fault.
#[derive(Debug, Serialize)]
pub(crate) struct FaultRow {
    pub(crate) fault: Fault,
    pub(crate) cycles: usize,
    pub(crate) rejoin_median: f64,
    pub(crate) rejoin_max: f64,
    /// The longest gaps and requests of each cycle: those in the middle.
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
    pub(crate) rejoin: f64,
    /// Records that were copied to a process which had lost its disk.
    pub(crate) records_copied: Option<u64>,
    pub(crate) copies_equal: Option<bool>,
    #[serde(flatten)]
    pub(crate) row: Row,
}

/// What the drill has gathered when it ends.
pub(crate) struct Gathered {
    pub(crate) setup: Setup,
    pub(crate) ended_early: Option<String>,
    pub(crate) elapsed: Duration,
    pub(crate) calm: Measurements,
    pub(crate) cycles: Vec<CycleResult>,
    pub(crate) histories: Histories,
    pub(crate) retried: Retried,
    pub(crate) failures: Vec<FailedAt>,
    pub(crate) timeline: Vec<Point>,
}

impl Report {
    pub(crate) fn of(gathered: Gathered) -> Self {
        let Gathered { setup, ended_early, elapsed, calm, cycles, histories, retried, failures, timeline } =
            gathered;
        let mut all = calm.clone();
        cycles.iter().for_each(|cycle| all.add(&cycle.measured));
        let rejoins: Vec<Duration> = cycles.iter().map(CycleResult::rejoin).collect();
        let compared = || cycles.iter().filter_map(|cycle| cycle.copies.as_ref());
        let copies_differ: Vec<String> = compared().flat_map(|copies| copies.differ.clone()).collect();
        let counted = || cycles.iter().filter_map(|cycle| cycle.census);
        let differs = |census: Census| {
            (!census.is_right())
                .then(|| format!("the ring counts {} users and lists {}", census.counted, census.listed))
        };
        let counts_differ: Vec<String> = counted().filter_map(differs).collect();
        let passed = ended_early.is_none()
            && cycles.len() == setup.cycles
            && all.failed == 0
            && histories.violations == 0
            && histories.undecided == 0
            && retried.wrong.is_empty()
            && copies_differ.is_empty()
            && counts_differ.is_empty();
        Self {
            passed,
            ended_early,
            seconds: elapsed.as_secs_f64(),
            requests: all.succeeded() + all.failed,
            reads: all.reads.took.count(),
            writes: all.writes.took.count(),
            failed: all.failed,
            failures,
            refused_while_gateway_down: all.refused,
            histories,
            retried,
            rejoin_median: median(&rejoins).map(milliseconds),
            rejoin_max: rejoins.iter().max().copied().map(milliseconds),
            copies_compared: compared().count() as u64,
            records: compared().next_back().map_or(0, |copies| copies.records.iter().sum()),
            copies_differ,
            counts_compared: counted().count() as u64,
            users_counted: counted().next_back().map_or(0, |census| census.counted),
            counts_differ,
            calm: Row::of(&calm),
            faults: fault_rows(&cycles),
            cycles: cycles.iter().map(CycleRow::of).collect(),
            timeline,
            setup,
        }
    }
}

fn fault_rows(cycles: &[CycleResult]) -> Vec<FaultRow> {
    let mut faults: Vec<Fault> = cycles.iter().map(|cycle| cycle.cycle.fault).collect();
    faults.sort_unstable();
    faults.dedup();
    let row = |fault: Fault| {
        let cycles: Vec<&CycleResult> = cycles.iter().filter(|cycle| cycle.cycle.fault == fault).collect();
        let mut all = Measurements::default();
        cycles.iter().for_each(|cycle| all.add(&cycle.measured));
        let middle = |of: fn(&CycleResult) -> Duration| {
            let each: Vec<Duration> = cycles.iter().map(|cycle| of(cycle)).collect();
            milliseconds(median(&each).unwrap_or_default())
        };
        FaultRow {
            fault,
            cycles: cycles.len(),
            rejoin_median: middle(CycleResult::rejoin),
            rejoin_max: milliseconds(cycles.iter().map(|cycle| cycle.rejoin()).max().unwrap_or_default()),
            median_longest_without_write: middle(|cycle| cycle.measured.writes.longest_gap),
            median_longest_write: middle(|cycle| cycle.measured.writes.took.max()),
            median_longest_read: middle(|cycle| cycle.measured.reads.took.max()),
            row: Row::of(&all),
        }
    };
    faults.into_iter().map(row).collect()
}

impl CycleResult {
    /// From the order to come back until the ring was whole.
    pub(crate) fn rejoin(&self) -> Duration {
        self.whole.saturating_sub(self.ended)
    }

    /// Records that a wiped process was given again.
    fn records_copied(&self) -> Option<u64> {
        let place = self.cycle.process.strip_prefix("db-")?.parse().ok()?;
        let copies = self.copies.as_ref().filter(|_| self.cycle.fault == Fault::Wipe)?;
        Some(copies.held_by(place))
    }
}

impl CycleRow {
    fn of(result: &CycleResult) -> Self {
        Self {
            fault: result.cycle.fault,
            process: result.cycle.process.clone(),
            began: result.began.as_secs_f64(),
            ended: result.ended.as_secs_f64(),
            whole: result.whole.as_secs_f64(),
            rejoin: milliseconds(result.rejoin()),
            records_copied: result.records_copied(),
            copies_equal: result.copies.as_ref().map(|copies| copies.differ.is_empty()),
            row: Row::of(&result.measured),
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
            read_p99: milliseconds(reads.took.per_mille(990)),
            write_p99: milliseconds(writes.took.per_mille(990)),
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
        measured.reads.took.note(Duration::from_millis(3));
        measured.writes.took.note(Duration::from_millis(began));
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

    /// Three cycles in which all went well.
    pub(crate) fn gathered() -> Gathered {
        let mut calm = Measurements::default();
        calm.reads.took.note(Duration::from_millis(1));
        let point = Point { index: 3, reads: 9, read_p99: 800, read_max: 900, ..Point::default() };
        Gathered {
            setup: Setup {
                driver: "demo".to_owned(),
                url: "http://127.0.0.1:3001".to_owned(),
                db_processes: 3,
                connections: 64,
                reads_percent: 50,
                users: 1_000,
                seed: 7,
                cycles: 3,
            },
            ended_early: None,
            elapsed: Duration::from_secs(9),
            calm,
            cycles: vec![
                cycle(Fault::Kill, "db-1", 100),
                cycle(Fault::Wipe, "db-2", 300),
                cycle(Fault::Kill, "db-0", 200),
            ],
            histories: Histories::default(),
            retried: Retried { keys: 10, sent: 14, retried: 2, wrong: Vec::new() },
            failures: Vec::new(),
            timeline: vec![
                point,
                Point { index: 40, writes: 5, write_p99: 9_000, write_max: 90_000, ..point },
            ],
        }
    }

    #[test]
    fn sums_up_each_fault_and_the_whole() {
        let report = Report::of(gathered());
        assert!(report.passed);
        assert_eq!((report.requests, report.reads, report.writes, report.failed), (7, 4, 3, 0));
        assert_eq!((report.rejoin_median, report.rejoin_max), (Some(200.0), Some(300.0)));
        assert_eq!((report.copies_compared, report.records), (3, 18));
        let [kill, wipe] = report.faults.as_slice() else { panic!("{:?}", report.faults) };
        assert_eq!(
            (kill.fault, kill.cycles, kill.rejoin_median, kill.rejoin_max),
            (Fault::Kill, 2, 100.0, 200.0)
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
            !Report::of(gathered).passed
        };
        assert!(fails(|gathered| gathered.calm.failed = 1));
        assert!(fails(|gathered| gathered.cycles[1].measured.failed = 1));
        assert!(fails(|gathered| gathered.histories.violations = 1));
        assert!(fails(|gathered| gathered.histories.undecided = 1));
        assert!(fails(|gathered| gathered.retried.wrong.push("11 users".to_owned())));
        assert!(fails(|gathered| gathered.ended_early = Some("Ctrl-C".to_owned())));
        assert!(fails(|gathered| drop(gathered.cycles.pop())));
        let differ = |gathered: &mut Gathered| {
            gathered.cycles[0].copies = Some(Comparison { records: vec![1], differ: vec!["x".to_owned()] });
        };
        assert!(fails(differ));
        assert!(fails(|gathered| gathered.cycles[2].census = Some(Census { counted: 9, listed: 8 })));
        assert!(!fails(|gathered| gathered.cycles[2].census = None));
        assert!(!fails(|gathered| gathered.cycles[0].measured.refused = 9));
    }

    #[test]
    fn is_json_that_names_its_figures() {
        let json = serde_json::to_value(Report::of(gathered())).unwrap();
        assert_eq!(json["passed"], true);
        assert_eq!(json["faults"][0]["fault"], "kill");
        assert_eq!(json["faults"][0]["longest_write"], 200.0);
        assert_eq!(json["cycles"][1]["process"], "db-2");
        assert_eq!(json["histories"]["violations"], 0);
        assert_eq!(json["timeline"][0]["read_max"], 900);
    }
}
