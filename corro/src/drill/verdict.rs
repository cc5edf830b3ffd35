//! The report for a person: a line for each cycle, a table of the faults, and the verdict.

use super::report::{CycleRow, Report, Row};

/// The first few failures say what it is; more of them are in the JSON.
const FAILURES_SHOWN: usize = 10;

const HEAD: &str = "
                              longest time        longest             whole again      the drill
                           without success        request                   after         itself
fault   cycles    requests      read     write      read     write    median       max   was late
";

const FOOT: &str = "
Without success: on no connection at all. Late: as long the drill's own timers had to wait for this machine;
what took no longer says little about the ring.

";

/// All of it, as it is printed at the end.
pub(crate) fn verdict(report: &Report) -> String {
    let mut text = HEAD.to_owned();
    text += &table_line("none", "-", &report.calm, ["-".to_owned(), "-".to_owned()]);
    for fault in &report.faults {
        let rejoin =
            [fault.rejoin_median, fault.rejoin_max].map(|rejoin| format!("{:.2} s", rejoin / 1_000.0));
        text += &table_line(&fault.fault.to_string(), &fault.cycles.to_string(), &fault.row, rejoin);
    }
    text += FOOT;
    for (name, what) in figures(report) {
        text += &format!("{name:<28} {what}\n");
    }
    for failed in report.failures.iter().take(FAILURES_SHOWN) {
        let failure = &failed.failure;
        text += &format!("  failed at {:.2} s: {}: {}\n", failed.at, failure.request, failure.what);
    }
    let checks = &report.checks;
    for differ in checks.copies_differ.iter().chain(&checks.counts_differ).chain(&checks.retried.wrong) {
        text += &format!("  {differ}\n");
    }
    if let Some(why) = &report.ended_early {
        text += &format!("  ended early: {why}\n");
    }
    let word = if report.passed { "PASSED" } else { "FAILED" };
    let (cycles, asked, seed) = (report.cycles.len(), report.setup.cycles, report.setup.seed);
    text + &format!("\n{word}: {cycles} of {asked} cycles in {:.0} s, seed {seed}", report.seconds)
}

fn table_line(name: &str, cycles: &str, row: &Row, [median, max]: [String; 2]) -> String {
    let [no_read, no_write, read, write, late] = [
        row.longest_without_read,
        row.longest_without_write,
        row.longest_read,
        row.longest_write,
        row.drill_late,
    ]
    .map(|milliseconds| format!("{} ms", short(milliseconds)));
    let requests = grouped(row.requests);
    format!(
        "{name:<8}{cycles:>6}{requests:>12}{no_read:>10}{no_write:>10}{read:>10}{write:>10}{median:>10}\
         {max:>10}{late:>10}\n"
    )
}

/// Each line: a name and its figures.
fn figures(report: &Report) -> Vec<(&'static str, String)> {
    let checks = &report.checks;
    let (histories, retried) = (&checks.histories, &checks.retried);
    let rate = (report.requests as f64 / report.seconds.max(0.001)) as u64;
    let mut lines = vec![
        (
            "requests",
            format!(
                "{} ({} reads, {} writes), {} a second over all",
                grouped(report.requests),
                grouped(report.reads),
                grouped(report.writes),
                grouped(rate)
            ),
        ),
        ("failed requests", grouped(report.failed)),
    ];
    if report.refused_while_gateway_down > 0 {
        let refused = grouped(report.refused_while_gateway_down);
        let what = format!("{refused} connections while the gateway was down, which is no failure");
        lines.push(("refused connections", what));
    }
    lines.push(("acknowledged writes lost", grouped(histories.lost_writes)));
    lines.push(("stale reads", grouped(histories.stale_reads)));
    let undecided = match histories.undecided {
        0 => String::new(),
        count => format!(", {} not decided", grouped(count)),
    };
    let what = format!(
        "{} checked with {} requests, {} violations{undecided}",
        grouped(histories.checked),
        grouped(histories.requests),
        grouped(histories.violations)
    );
    lines.push(("linearizable histories", what));
    if retried.sent > 0 {
        let verdict = if retried.wrong.is_empty() { "each made one user" } else { "NOT each made one user" };
        let (keys, sent, again) = (grouped(retried.keys), grouped(retried.sent), grouped(retried.retried));
        let what = format!("{keys} keys, sent {sent} times, {again} of them after an error: {verdict}");
        lines.push(("creates with a key", what));
    }
    let what = match (checks.copies_compared, checks.copies_differ.len()) {
        (0, _) if report.cycles.is_empty() => "not compared".to_owned(),
        (0, _) => "not compared on disk: the ring itself says that each is up to date".to_owned(),
        (cycles, 0) => {
            let records = grouped(checks.records);
            format!("equal after {cycles} of {cycles} cycles, {records} records at last")
        }
        (cycles, differ) => format!("{differ} differences in {cycles} comparisons"),
    };
    lines.push(("copies", what));
    let what = match (checks.counts_compared, checks.counts_differ.len()) {
        (0, _) => "not compared with the list".to_owned(),
        (cycles, 0) => {
            let users = grouped(checks.users_counted);
            format!("as many as are listed after {cycles} of {cycles} cycles, {users} at last")
        }
        (cycles, differ) => format!("NOT as many as are listed after {differ} of {cycles} cycles"),
    };
    lines.push(("users counted", what));
    let copied: u64 = report.cycles.iter().filter_map(|cycle| cycle.records_copied).sum();
    if copied > 0 {
        lines.push(("copied to emptied disks", format!("{} records", grouped(copied))));
    }
    lines
}

/// A line about one of so many cycles.
pub(crate) fn cycle_line(number: usize, cycles: usize, cycle: &CycleRow) -> String {
    let CycleRow { fault, process, rejoin, row, .. } = cycle;
    let copies = match cycle.copies_equal {
        Some(true) => ", copies equal",
        Some(false) => ", COPIES DIFFER",
        None => "",
    };
    let refused = match row.refused {
        0 => String::new(),
        refused => format!(", {} refused", grouped(refused)),
    };
    let (requests, failed) = (grouped(row.requests), grouped(row.failed));
    let (read, write, rejoin) = (short(row.longest_read), short(row.longest_write), rejoin / 1_000.0);
    format!(
        "{number:>5}/{cycles}  {fault:<8} {process:<8} {requests:>9} requests, {failed} failed{refused}, \
         longest read {read} ms, write {write} ms, back after {rejoin:.2} s{copies}"
    )
}

/// 1,234,567.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let group = |(index, digit): (usize, char)| {
        let comma = index > 0 && (digits.len() - index).is_multiple_of(3);
        comma.then_some(',').into_iter().chain([digit])
    };
    digits.chars().enumerate().flat_map(group).collect()
}

/// Milliseconds with as many digits as matter.
pub(crate) fn short(milliseconds: f64) -> String {
    if milliseconds < 10.0 { format!("{milliseconds:.1}") } else { format!("{milliseconds:.0}") }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::gathered;
    use super::*;
    use crate::load::meter::{FailedAt, Failure};

    #[test]
    fn names_what_was_promised_and_how_it_was_kept() {
        let text = verdict(&gathered().report());
        for part in [
            "failed requests              0\n",
            "acknowledged writes lost     0\n",
            "stale reads                  0\n",
            "0 violations",
            "creates with a key           10 keys, sent 14 times, 2 of them after an error: each made one \
             user\n",
            "equal after 3 of 3 cycles, 18 records",
            "users counted                as many as are listed after 3 of 3 cycles, 9 at last\n",
            "copied to emptied disks      13 records",
            "PASSED: 3 of 3 cycles in 9 s, seed 7",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(!text.contains("refused"));
    }

    #[test]
    fn a_failure_is_printed_with_its_time_and_its_reason() {
        let mut gathered = gathered();
        gathered.calm.failed = 1;
        let failure = Failure {
            request: "GET /api/user/7".to_owned(),
            what: "503: away".to_owned(),
            disconnected: false,
        };
        gathered.failures = vec![FailedAt { at: 1.5, after: 0.1, failure }];
        let text = verdict(&gathered.report());
        assert!(text.contains("  failed at 1.50 s: GET /api/user/7: 503: away\n"), "{text}");
        assert!(text.contains("\nFAILED: 3 of 3 cycles"), "{text}");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,567"],
            [0, 999, 1_000, 1_234_567].map(grouped).each_ref().map(String::as_str)
        );
        assert_eq!((short(0.36).as_str(), short(123.4).as_str()), ("0.4", "123"));
    }
}
