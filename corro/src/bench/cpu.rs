//! What processes take, as the kernel counts it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;

/// A process to be watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Watched {
    /// Such as `gateway`.
    pub(super) name: String,
    pub(super) pid: u32,
}

/// Processor time by the name of the process.
pub(super) type CpuTimes = BTreeMap<String, Duration>;

/// Processor time that each has taken since its start, in user mode and in the kernel.
///
/// # Errors
/// Where one of them has ended.
pub(super) fn cpu_times(processes: &[Watched]) -> anyhow::Result<CpuTimes> {
    let tick = 1.0 / rustix::param::clock_ticks_per_second() as f64;
    let time = |process: &Watched| {
        let file = format!("/proc/{}/stat", process.pid);
        let stat = std::fs::read_to_string(&file).with_context(|| format!("{} has ended", process.name))?;
        let ticks = ticks(&stat).with_context(|| format!("{file} is not understood"))?;
        Ok((process.name.clone(), Duration::from_secs_f64(ticks as f64 * tick)))
    };
    processes.iter().map(time).collect()
}

/// `utime` and `stime`, the fields 14 and 15 of proc(5). The name in field 2 may have spaces and parentheses
/// of its own.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let utime: u64 = fields.next()?.parse().ok()?;
    let stime: u64 = fields.next()?.parse().ok()?;
    Some(utime + stime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_found_behind_any_name() {
        let stat = "12 (a) b (c)) S 1 12 12 0 -1 4194560 100 0 0 0 70 8 0 0 20 0 1 0 100";
        assert_eq!(ticks(stat), Some(78));
        assert_eq!(ticks("12 (a) S 1"), None);
    }

    #[test]
    fn this_process_takes_time() {
        let own = Watched { name: "own".to_owned(), pid: std::process::id() };
        let before = cpu_times(std::slice::from_ref(&own)).unwrap()["own"];
        let mut sum = 0_u64;
        while cpu_times(std::slice::from_ref(&own)).unwrap()["own"] <= before {
            sum = (0..1_000_000).fold(sum, |sum, number| sum.wrapping_mul(31) ^ number);
        }
        // The tick may have come before the first round.
        std::hint::black_box(sum);
        let missing = Watched { name: "missing".to_owned(), pid: u32::MAX };
        assert!(cpu_times(&[missing]).is_err());
    }
}
