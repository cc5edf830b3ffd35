//! The report for a person: a table of the faults and the verdict.

use std::fmt::Write as _;

use super::report::{FaultRow, Report, Row};

/// All of it, as it is printed at the end.
pub(crate) fn verdict(report: &Report) -> String {
    let mut text = String::new();
    table(&mut text, report);
    figures(&mut text, report);
    for failed in report.failures.iter().take(FAILURES_SHOWN) {
        let failure = &failed.failure;
        writeln!(text, "  failed at {:.2} s: {}: {}", failed.at, failure.request, failure.what).expect(TAKES);
    }
    for differ in report.copies_differ.iter().chain(&report.counts_differ).chain(&report.retried.wrong) {
        writeln!(text, "  {differ}").expect(TAKES);
    }
    if let Some(why) = &report.ended_early {
        writeln!(text, "  ended early: {why}").expect(TAKES);
    }
    let (cycles, asked) = (report.cycles.len(), report.setup.cycles);
    let word = if report.passed { "PASSED" } else { "FAILED" };
    write!(
        text,
        "\n{word}: {cycles} of {asked} cycles in {:.0} s, seed {}",
        report.seconds, report.setup.seed
    )
    .expect(TAKES);
    text
}

/// The first few say what it is; more of them are in the JSON.
const FAILURES_SHOWN: usize = 10;

const TAKES: &str = "a string takes all text";

fn table(text: &mut String, report: &Report) {
    text.push_str(HEAD);
    let mut line = |name: &str, cycles: String, row: &Row, rejoin: [Option<f64>; 2]| {
        let [median, max] = rejoin.map(|rejoin| match rejoin {
            Some(milliseconds) => format!("{:.2} s", milliseconds / 1_000.0),
            None => "-".to_owned(),
        });
        let [no_read, no_write, read, write, late] = [
            row.longest_without_read,
            row.longest_without_write,
            row.longest_read,
            row.longest_write,
            row.drill_late,
        ]
        .map(|milliseconds| format!("{} ms", short(milliseconds)));
        let requests = grouped(row.requests);
        writeln!(
            text,
            "{name:<8}{cycles:>6}{requests:>12}{no_read:>10}{no_write:>10}{read:>10}{write:>10}{median:>10}{max:>10}{late:>10}"
        )
        .expect(TAKES);
    };
    line("none", "-".to_owned(), &report.calm, [None, None]);
    for FaultRow { fault, cycles, rejoin_median, rejoin_max, row, .. } in &report.faults {
        line(&fault.to_string(), cycles.to_string(), row, [Some(*rejoin_median), Some(*rejoin_max)]);
    }
    text.push_str(FOOT);
}

const HEAD: &str = "
                              longest time        longest             whole again      the drill
                           without success        request                   after         itself
fault   cycles    requests      read     write      read     write    median       max   was late
";

/// What no one would guess.
const FOOT: &str = "
Without success: on no connection at all. Late: as long the drill's own timers had to wait for this machine; what took no
longer says little about the ring.

";

fn figures(text: &mut String, report: &Report) {
    let histories = &report.histories;
    let mut line = |name: &str, what: String| writeln!(text, "{name:<28} {what}").expect(TAKES);
    let rate = (report.requests as f64 / report.seconds.max(0.001)) as u64;
    line(
        "requests",
        format!(
            "{} ({} reads, {} writes), {} a second over all",
            grouped(report.requests),
            grouped(report.reads),
            grouped(report.writes),
            grouped(rate)
        ),
    );
    line("failed requests", grouped(report.failed));
    if report.refused_while_gateway_down > 0 {
        let refused = grouped(report.refused_while_gateway_down);
        line(
            "refused by no gateway",
            format!("{refused} connections while it was down, which is no failure"),
        );
    }
    line("acknowledged writes lost", grouped(histories.lost_writes));
    line("stale reads", grouped(histories.stale_reads));
    let undecided = match histories.undecided {
        0 => String::new(),
        count => format!(", {} not decided", grouped(count)),
    };
    line(
        "linearizable histories",
        format!(
            "{} checked with {} requests, {} violations{undecided}",
            grouped(histories.checked),
            grouped(histories.requests),
            grouped(histories.violations)
        ),
    );
    let retried = &report.retried;
    if retried.sent > 0 {
        let verdict = if retried.wrong.is_empty() { "each made one user" } else { "NOT each made one user" };
        line(
            "creates with a key",
            format!(
                "{} keys, sent {} times, {} of them after trouble: {verdict}",
                grouped(retried.keys),
                grouped(retried.sent),
                grouped(retried.retried)
            ),
        );
    }
    let copies = match (report.copies_compared, report.copies_differ.len()) {
        (0, _) if report.cycles.is_empty() => "not compared".to_owned(),
        (0, _) => "not compared on disk: the ring itself says that each is up to date".to_owned(),
        (cycles, 0) => {
            format!("equal after {cycles} of {cycles} cycles, {} records at last", grouped(report.records))
        }
        (cycles, differ) => format!("{differ} differences in {cycles} comparisons"),
    };
    line("copies", copies);
    let counts = match (report.counts_compared, report.counts_differ.len()) {
        (0, _) => "not compared with the list".to_owned(),
        (cycles, 0) => {
            format!(
                "as many as are listed after {cycles} of {cycles} cycles, {} at last",
                grouped(report.users_counted)
            )
        }
        (cycles, differ) => format!("NOT as many as are listed after {differ} of {cycles} cycles"),
    };
    line("users counted", counts);
    let copied: u64 = report.cycles.iter().filter_map(|cycle| cycle.records_copied).sum();
    if copied > 0 {
        line("copied to emptied disks", format!("{} records", grouped(copied)));
    }
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
        let text = verdict(&Report::of(gathered()));
        for part in [
            "failed requests              0\n",
            "acknowledged writes lost     0\n",
            "stale reads                  0\n",
            "0 violations",
            "creates with a key           10 keys, sent 14 times, 2 of them after trouble: each made one user\n",
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
    fn a_failure_is_told_with_its_time_and_its_words() {
        let mut gathered = gathered();
        gathered.calm.failed = 1;
        let failure = Failure { request: "GET /api/user/7".to_owned(), what: "503: away".to_owned() };
        gathered.failures = vec![FailedAt { at: 1.5, after: 0.1, failure }];
        let text = verdict(&Report::of(gathered));
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
