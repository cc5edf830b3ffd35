//! What a load measures: how long requests took, how long none succeeded, what failed, and a timeline.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::latencies::Latencies;

/// Width of one point of the timeline.
pub const POINT: Duration = Duration::from_millis(100);

/// So many failures are kept in full; the others are counted.
const FAILURES_KEPT: usize = 100;

/// So many of them between two moments: each fault has its own.
const FAILURES_KEPT_AT_A_TIME: u64 = 5;

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Method and path.
    pub request: String,
    /// The answer, or why there is none.
    pub what: String,
    /// Whether there was no connection, or it broke.
    #[serde(skip)]
    pub disconnected: bool,
}

/// A failure, and when it came.
#[derive(Clone, Debug, Serialize)]
pub struct FailedAt {
    /// Seconds since the start.
    pub at: f64,
    /// Seconds that the request took.
    pub after: f64,
    /// What failed.
    #[serde(flatten)]
    pub failure: Failure,
}

/// Measurements of one kind of request.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// How long those took that succeeded.
    pub took: Latencies,
    /// The longest time in which none succeeded, on any connection.
    pub longest_gap: Duration,
}

/// Measurements between two moments.
#[derive(Clone, Debug, Default)]
pub struct Measurements {
    /// Of reads.
    pub reads: Measured,
    /// Of writes.
    pub writes: Measured,
    /// Requests that failed.
    pub failed: u64,
    /// Connections that were refused or broke while the gateway was known to be down.
    pub refused: u64,
    /// The longest time that a timer of the load came late: so long the machine, or the load itself, was too
    /// busy. What took no longer than that says little about the ring.
    pub late: Duration,
}

impl Measurements {
    /// Requests that succeeded.
    pub fn succeeded(&self) -> u64 {
        self.reads.took.count() + self.writes.took.count()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, more) in [(&mut self.reads, &other.reads), (&mut self.writes, &other.writes)] {
            mine.took.add(&more.took);
            mine.longest_gap = mine.longest_gap.max(more.longest_gap);
        }
        self.failed += other.failed;
        self.refused += other.refused;
        self.late = self.late.max(other.late);
    }
}

/// A tenth of a second of the timeline, in which something happened. Durations in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Point {
    /// Its number, counted from the start.
    pub index: u32,
    /// Reads that succeeded.
    pub reads: u32,
    /// 99 % of them took no longer.
    pub read_p99: u32,
    /// The longest of them.
    pub read_max: u32,
    /// Writes that succeeded.
    pub writes: u32,
    /// 99 % of them took no longer.
    pub write_p99: u32,
    /// The longest of them.
    pub write_max: u32,
    /// Requests that failed.
    pub failed: u32,
}

/// The load at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Glance {
    /// Reads that succeeded since the start.
    pub reads: u64,
    /// Writes that succeeded since the start.
    pub writes: u64,
    /// Requests that failed since the start.
    pub failed: u64,
    /// The longest request since the measurements were last taken, or the time since a read or a write last
    /// succeeded.
    pub longest: Duration,
}

/// Notes every request.
pub struct Meter {
    start: Instant,
    now: Measurements,
    /// Since the start, up to those.
    before: Glance,
    /// When a read and a write last succeeded, or the load continued after a pause.
    last: [Duration; 2],
    gateway_is_down: bool,
    point: Point,
    /// Of reads and writes, in the point.
    took: [Latencies; 2],
    timeline: Vec<Point>,
    failures: Vec<FailedAt>,
}

impl Meter {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            now: Measurements::default(),
            before: Glance::default(),
            last: [Duration::ZERO; 2],
            gateway_is_down: false,
            point: Point::default(),
            took: Default::default(),
            timeline: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// The load continues: the pause before counts for nothing.
    pub(super) fn resume(&mut self) {
        self.last = [self.start.elapsed(); 2];
    }

    /// While the gateway is down it is no failure that there is no connection to it.
    pub(crate) fn gateway_is_down(&mut self, down: bool) {
        self.gateway_is_down = down;
    }

    /// Notes that a timer came so late.
    pub(super) fn late(&mut self, late: Duration) {
        self.now.late = self.now.late.max(late);
    }

    /// Notes the end of a read or a write; moments in nanoseconds since the start.
    pub(super) fn note(&mut self, is_read: bool, sent: u64, answered: u64, failure: Option<Failure>) {
        let (at, took) = (Duration::from_nanos(answered), Duration::from_nanos(answered - sent));
        self.move_to(at);
        let Some(failure) = failure else {
            let measured = if is_read { &mut self.now.reads } else { &mut self.now.writes };
            let index = usize::from(!is_read);
            let last = std::mem::replace(&mut self.last[index], at);
            measured.took.record(took);
            measured.longest_gap = measured.longest_gap.max(at.saturating_sub(last));
            self.took[index].record(took);
            return;
        };
        if failure.disconnected && self.gateway_is_down {
            self.now.refused += 1;
            return;
        }
        self.now.failed += 1;
        self.point.failed += 1;
        if self.now.failed <= FAILURES_KEPT_AT_A_TIME && self.failures.len() < FAILURES_KEPT {
            self.failures.push(FailedAt { at: at.as_secs_f64(), after: took.as_secs_f64(), failure });
        }
    }

    /// Closes the point of the timeline, once its time is over.
    fn move_to(&mut self, at: Duration) {
        let index = u32::try_from(at.as_millis() / POINT.as_millis()).expect("no load runs for 13 years");
        if index == self.point.index {
            return;
        }
        let micros = |took: Duration| u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let [reads, writes] = &self.took;
        let point = Point {
            reads: reads.count() as u32,
            read_p99: micros(reads.quantile(0.99)),
            read_max: micros(reads.max()),
            writes: writes.count() as u32,
            write_p99: micros(writes.quantile(0.99)),
            write_max: micros(writes.max()),
            ..self.point
        };
        if point.reads + point.writes + point.failed > 0 {
            self.timeline.push(point);
        }
        self.took.iter_mut().for_each(Latencies::clear);
        self.point = Point { index, ..Point::default() };
    }

    /// The load at this moment.
    pub fn glance(&self) -> Glance {
        let now = self.start.elapsed();
        let waiting = self.last.map(|last| now.saturating_sub(last));
        let durations = [self.now.reads.took.max(), self.now.writes.took.max(), waiting[0], waiting[1]];
        Glance {
            reads: self.before.reads + self.now.reads.took.count(),
            writes: self.before.writes + self.now.writes.took.count(),
            failed: self.before.failed + self.now.failed,
            longest: durations.into_iter().max().unwrap_or_default(),
        }
    }

    /// Takes what was measured since the last time.
    pub(crate) fn take(&mut self) -> Measurements {
        self.before = self.glance();
        std::mem::take(&mut self.now)
    }

    /// Since the start.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Each tenth of a second in which something happened, but for the last one.
    pub fn timeline(&self) -> &[Point] {
        &self.timeline
    }

    /// The first failures.
    pub fn failures(&self) -> &[FailedAt] {
        &self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn failure(disconnected: bool) -> Option<Failure> {
        Some(Failure { request: "GET /".to_owned(), what: "503".to_owned(), disconnected })
    }

    #[test]
    fn gaps_and_latencies_are_measured_apart_for_reads_and_writes() {
        let mut meter = Meter::new(Instant::now());
        meter.note(true, 0, 10 * MS, None);
        meter.note(false, 5 * MS, 30 * MS, None);
        meter.note(true, 30 * MS, 35 * MS, None);
        let before = meter.take();
        assert_eq!(before.reads.longest_gap, Duration::from_millis(25));
        assert_eq!(before.writes.longest_gap, Duration::from_millis(30));
        assert_eq!(before.writes.took.max(), Duration::from_millis(25));
        // A gap that began before counts where it ends.
        meter.note(true, 40 * MS, 95 * MS, None);
        assert_eq!(meter.take().reads.longest_gap, Duration::from_millis(60));
    }

    #[test]
    fn a_failure_ends_no_gap() {
        let mut meter = Meter::new(Instant::now());
        meter.note(false, 0, 10 * MS, failure(false));
        meter.note(false, 10 * MS, 50 * MS, None);
        let measured = meter.take();
        assert_eq!((measured.failed, measured.succeeded()), (1, 1));
        assert_eq!(measured.writes.longest_gap, Duration::from_millis(50));
        assert_eq!(meter.failures().len(), 1);
        assert!((meter.failures()[0].after - 0.01).abs() < 1e-9);
    }

    #[test]
    fn only_a_gateway_that_is_down_may_refuse() {
        let mut meter = Meter::new(Instant::now());
        meter.gateway_is_down(true);
        meter.note(true, 0, MS, failure(true));
        meter.note(true, 0, MS, failure(true));
        meter.note(true, 0, MS, failure(false));
        assert_eq!((meter.now.refused, meter.now.failed), (2, 1));
        meter.gateway_is_down(false);
        meter.note(true, 0, MS, failure(true));
        meter.note(true, 0, MS, failure(true));
        assert_eq!((meter.now.refused, meter.now.failed), (2, 3));
        let taken = meter.take();
        assert_eq!((taken.failed, meter.glance().failed, meter.now.failed), (3, 3, 0));
    }

    #[test]
    fn the_timeline_has_a_point_for_each_tenth_of_a_second_with_something_in_it() {
        let mut meter = Meter::new(Instant::now());
        meter.note(true, 0, 10 * MS, None);
        meter.note(true, 0, 20 * MS, None);
        meter.note(false, 350 * MS, 360 * MS, None);
        meter.note(false, 350 * MS, 420 * MS, None);
        let [first, second] = meter.timeline() else { panic!("{:?}", meter.timeline()) };
        assert_eq!((first.index, first.reads, first.read_max, first.writes), (0, 2, 20_000, 0));
        assert_eq!((second.index, second.reads, second.writes, second.write_max), (3, 0, 1, 10_000));
    }
}
