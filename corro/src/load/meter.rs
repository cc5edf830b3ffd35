//! What a load measures: how long requests took, how long none succeeded, what failed, and a timeline of all
//! of it.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::statistics::Histogram;

/// Width of one point of the timeline.
pub(crate) const POINT: Duration = Duration::from_millis(100);

/// So many failures are kept word by word; the others are counted.
const FAILURES_KEPT: usize = 100;

/// So many of them between two moments: each fault has its own.
const FAILURES_KEPT_AT_A_TIME: u64 = 5;

/// Reads and writes are measured apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
}

/// How a request ended.
#[derive(Debug)]
pub(crate) enum Noted {
    /// With one of the answers that it can have.
    Done,
    /// There was no connection to be had.
    Unconnected(String),
    /// Its connection broke.
    Broken(Failure),
    /// It failed.
    Failed(Failure),
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Failure {
    pub(crate) request: String,
    pub(crate) what: String,
}

/// A failure, and when it came.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FailedAt {
    /// Seconds since the start.
    pub(crate) at: f64,
    /// Seconds that the request took.
    pub(crate) after: f64,
    #[serde(flatten)]
    pub(crate) failure: Failure,
}

/// Measurements of one kind of request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// Those that succeeded.
    pub(crate) took: Histogram,
    /// The longest time in which none succeeded, on any connection.
    pub(crate) longest_gap: Duration,
}

/// Measurements between two moments.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measurements {
    pub(crate) reads: Measured,
    pub(crate) writes: Measured,
    pub(crate) failed: u64,
    /// Connections that were refused or broke while the gateway was known to be down.
    pub(crate) refused: u64,
    /// The longest time that a timer of the load came late: so long the machine, or the load itself, was too
    /// busy to go on. What took no longer than that says little about the ring.
    pub(crate) late: Duration,
}

impl Measurements {
    pub(crate) fn succeeded(&self) -> u64 {
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
pub(crate) struct Point {
    /// Which one, counted from the start.
    pub(crate) index: u32,
    pub(crate) reads: u32,
    pub(crate) read_p99: u32,
    pub(crate) read_max: u32,
    pub(crate) writes: u32,
    pub(crate) write_p99: u32,
    pub(crate) write_max: u32,
    pub(crate) failed: u32,
}

/// The load at a glance.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Glance {
    /// Since the start.
    pub(crate) succeeded: u64,
    /// Since the start.
    pub(crate) failed: u64,
    /// The longest request since the measurements were last taken, or the time since a read or a write last
    /// succeeded.
    pub(crate) longest: Duration,
}

/// Notes every request.
pub(crate) struct Meter {
    start: Instant,
    now: Measurements,
    /// Succeeded and failed before those.
    before: [u64; 2],
    /// When a read and a write last succeeded, or the load went on after a pause.
    last: [Duration; 2],
    gateway_is_down: bool,
    point: Point,
    tooks: [Histogram; 2],
    timeline: Vec<Point>,
    failures: Vec<FailedAt>,
}

impl Meter {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            now: Measurements::default(),
            before: [0; 2],
            last: [Duration::ZERO; 2],
            gateway_is_down: false,
            point: Point::default(),
            tooks: [Histogram::default(), Histogram::default()],
            timeline: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// The load goes on: the pause before is nobody's fault.
    pub(super) fn resume(&mut self) {
        self.last = [self.start.elapsed(); 2];
    }

    /// While the gateway is down it can be no failure that there is no connection to it.
    pub(crate) fn gateway_is_down(&mut self, down: bool) {
        self.gateway_is_down = down;
    }

    /// Notes that a timer came so late.
    pub(super) fn late(&mut self, late: Duration) {
        self.now.late = self.now.late.max(late);
    }

    /// Notes the end of a request; moments in nanoseconds since the start.
    pub(super) fn note(&mut self, kind: Kind, sent: u64, answered: u64, noted: Noted) {
        let (at, took) = (Duration::from_nanos(answered), Duration::from_nanos(answered - sent));
        self.move_to(at);
        let failure = match noted {
            Noted::Done => {
                self.succeeded(kind, at, took);
                return;
            }
            Noted::Unconnected(_) | Noted::Broken(_) if self.gateway_is_down => {
                self.now.refused += 1;
                return;
            }
            Noted::Unconnected(what) => Failure { request: "a new connection".to_owned(), what },
            Noted::Broken(failure) | Noted::Failed(failure) => failure,
        };
        self.now.failed += 1;
        self.point.failed += 1;
        if self.now.failed <= FAILURES_KEPT_AT_A_TIME && self.failures.len() < FAILURES_KEPT {
            self.failures.push(FailedAt { at: at.as_secs_f64(), after: took.as_secs_f64(), failure });
        }
    }

    fn succeeded(&mut self, kind: Kind, at: Duration, took: Duration) {
        let measured = match kind {
            Kind::Read => &mut self.now.reads,
            Kind::Write => &mut self.now.writes,
        };
        let last = &mut self.last[kind as usize];
        measured.took.note(took);
        measured.longest_gap = measured.longest_gap.max(at.saturating_sub(*last));
        *last = at;
        self.tooks[kind as usize].note(took);
    }

    /// Closes the point of the timeline, once its time is over.
    fn move_to(&mut self, at: Duration) {
        let index = u32::try_from(at.as_millis() / POINT.as_millis()).expect("no load runs for 13 years");
        if index == self.point.index {
            return;
        }
        let micros = |took: Duration| u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let [reads, writes] = &mut self.tooks;
        let point = Point {
            reads: reads.count() as u32,
            read_p99: micros(reads.per_mille(990)),
            read_max: micros(reads.max()),
            writes: writes.count() as u32,
            write_p99: micros(writes.per_mille(990)),
            write_max: micros(writes.max()),
            ..self.point
        };
        if point.reads + point.writes + point.failed > 0 {
            self.timeline.push(point);
        }
        reads.clear();
        writes.clear();
        self.point = Point { index, ..Point::default() };
    }

    pub(crate) fn glance(&self) -> Glance {
        let now = self.start.elapsed();
        let waiting = self.last.map(|last| now.saturating_sub(last));
        let durations = [self.now.reads.took.max(), self.now.writes.took.max(), waiting[0], waiting[1]];
        Glance {
            succeeded: self.before[0] + self.now.succeeded(),
            failed: self.before[1] + self.now.failed,
            longest: durations.into_iter().max().unwrap_or_default(),
        }
    }

    /// Takes what was measured since the last time.
    pub(crate) fn take(&mut self) -> Measurements {
        self.before[0] += self.now.succeeded();
        self.before[1] += self.now.failed;
        std::mem::take(&mut self.now)
    }

    /// Since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn timeline(&self) -> &[Point] {
        &self.timeline
    }

    /// The first failures.
    pub(crate) fn failures(&self) -> &[FailedAt] {
        &self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn failure() -> Failure {
        Failure { request: "GET /".to_owned(), what: "503".to_owned() }
    }

    #[test]
    fn gaps_and_latencies_are_measured_apart_for_reads_and_writes() {
        let mut meter = Meter::new(Instant::now());
        meter.note(Kind::Read, 0, 10 * MS, Noted::Done);
        meter.note(Kind::Write, 5 * MS, 30 * MS, Noted::Done);
        meter.note(Kind::Read, 30 * MS, 35 * MS, Noted::Done);
        let before = meter.take();
        assert_eq!(before.reads.longest_gap, Duration::from_millis(25));
        assert_eq!(before.writes.longest_gap, Duration::from_millis(30));
        assert_eq!(before.writes.took.max(), Duration::from_millis(25));
        // A gap that began before counts where it ends.
        meter.note(Kind::Read, 40 * MS, 95 * MS, Noted::Done);
        assert_eq!(meter.take().reads.longest_gap, Duration::from_millis(60));
    }

    #[test]
    fn a_failure_ends_no_gap() {
        let mut meter = Meter::new(Instant::now());
        meter.note(Kind::Write, 0, 10 * MS, Noted::Failed(failure()));
        meter.note(Kind::Write, 10 * MS, 50 * MS, Noted::Done);
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
        meter.note(Kind::Read, 0, MS, Noted::Unconnected("refused".to_owned()));
        meter.note(Kind::Read, 0, MS, Noted::Broken(failure()));
        meter.note(Kind::Read, 0, MS, Noted::Failed(failure()));
        assert_eq!((meter.now.refused, meter.now.failed), (2, 1));
        meter.gateway_is_down(false);
        meter.note(Kind::Read, 0, MS, Noted::Unconnected("refused".to_owned()));
        meter.note(Kind::Read, 0, MS, Noted::Broken(failure()));
        assert_eq!((meter.now.refused, meter.now.failed), (2, 3));
        let taken = meter.take();
        assert_eq!((taken.failed, meter.glance().failed, meter.now.failed), (3, 3, 0));
    }

    #[test]
    fn the_timeline_has_a_point_for_each_tenth_of_a_second_with_something_in_it() {
        let mut meter = Meter::new(Instant::now());
        meter.note(Kind::Read, 0, 10 * MS, Noted::Done);
        meter.note(Kind::Read, 0, 20 * MS, Noted::Done);
        meter.note(Kind::Write, 350 * MS, 360 * MS, Noted::Done);
        meter.note(Kind::Write, 350 * MS, 420 * MS, Noted::Done);
        let [first, second] = meter.timeline() else { panic!("{:?}", meter.timeline()) };
        assert_eq!((first.index, first.reads, first.read_max, first.writes), (0, 2, 20_000, 0));
        assert_eq!((second.index, second.reads, second.writes, second.write_max), (3, 0, 1, 10_000));
    }
}
