//! The report as one page that needs nothing else: no network, no script.

use std::fmt::Write as _;

use super::report::{CycleRow, Report};
use super::verdict::{grouped, short, verdict};
use crate::load::meter::{POINT, Point};

const TAKES: &str = "a string takes all text";

/// Size of a chart, in its own units.
const WIDTH: f64 = 1_200.0;
const HEIGHT: f64 = 260.0;
/// Room for the axis at its left, and for that below it.
const LEFT: f64 = 60.0;
const BELOW: f64 = 24.0;

/// The axis of latencies: milliseconds at the bottom, and how many powers of ten are above that.
const LOWEST: f64 = 0.1;
const POWERS: f64 = 5.0;

/// More points than that cannot be told apart.
const COLUMNS: usize = 1_100;

/// The page.
pub(crate) fn page(report: &Report) -> String {
    let (word, class) = if report.passed { ("Passed", "good") } else { ("Failed", "bad") };
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Drill: {word}</title>\n\
         <style>{STYLE}</style></head><body>\n<h1>Drill: <span class=\"{class}\">{word}</span></h1>\n"
    );
    let setup = &report.setup;
    writeln!(
        page,
        "<p>A ring of {} db-processes under {} connections, {} % reads, {} users. {} of {} cycles in {:.0} s, seed {}.</p>",
        setup.db_processes,
        setup.connections,
        setup.reads_percent,
        setup.users,
        report.cycles.len(),
        setup.cycles,
        report.seconds,
        setup.seed
    )
    .expect(TAKES);
    tiles(&mut page, report);
    let seconds = report.seconds.max(1.0);
    let columns = columns(&report.timeline);
    for (title, p99, max) in [
        (
            "Reads",
            (|point| point.read_p99) as fn(&Point) -> u32,
            (|point| point.read_max) as fn(&Point) -> u32,
        ),
        ("Writes", |point| point.write_p99, |point| point.write_max),
    ] {
        writeln!(page, "<h2>{title}: how long they took</h2>").expect(TAKES);
        chart(&mut page, &columns, &report.cycles, seconds, p99, max);
    }
    page.push_str(LEGEND);
    cycles(&mut page, &report.cycles);
    writeln!(page, "<h2>As it was printed</h2>\n<pre>{}</pre>\n</body></html>", escaped(&verdict(report)))
        .expect(TAKES);
    page
}

fn tiles(page: &mut String, report: &Report) {
    let tile = |name: &str, value: u64, must_be_zero: bool| {
        let class = match (must_be_zero, value) {
            (false, _) => "",
            (true, 0) => "good",
            (true, _) => "bad",
        };
        format!("<div><b class=\"{class}\">{}</b>{name}</div>\n", grouped(value))
    };
    page.push_str("<section>\n");
    page.push_str(&tile("requests", report.requests, false));
    page.push_str(&tile("failed", report.failed, true));
    page.push_str(&tile("acknowledged writes lost", report.histories.lost_writes, true));
    page.push_str(&tile("stale reads", report.histories.stale_reads, true));
    page.push_str(&tile("histories checked", report.histories.checked, false));
    page.push_str(&tile("not linearizable", report.histories.violations, true));
    page.push_str(&tile("copies that differ", report.copies_differ.len() as u64, true));
    page.push_str(&tile("counts that differ from the list", report.counts_differ.len() as u64, true));
    if report.refused_while_gateway_down > 0 {
        page.push_str(&tile("refused while the gateway was down", report.refused_while_gateway_down, false));
    }
    page.push_str("</section>\n");
}

/// Points that lie together become one, with the worst of each.
fn columns(timeline: &[Point]) -> Vec<Point> {
    let last = timeline.last().map_or(0, |point| point.index as usize);
    let width = u32::try_from((last / COLUMNS + 1).max(1)).unwrap_or(u32::MAX);
    let mut columns: Vec<Point> = Vec::new();
    for point in timeline {
        let index = point.index / width * width;
        match columns.last_mut().filter(|column| column.index == index) {
            Some(column) => {
                column.read_p99 = column.read_p99.max(point.read_p99);
                column.read_max = column.read_max.max(point.read_max);
                column.write_p99 = column.write_p99.max(point.write_p99);
                column.write_max = column.write_max.max(point.write_max);
                column.failed += point.failed;
            }
            None => columns.push(Point { index, ..*point }),
        }
    }
    columns
}

fn chart(
    page: &mut String,
    columns: &[Point],
    cycles: &[CycleRow],
    seconds: f64,
    p99: fn(&Point) -> u32,
    max: fn(&Point) -> u32,
) {
    let across = |at: f64| LEFT + at / seconds * (WIDTH - LEFT);
    let up = |micros: f64| {
        let share = (micros / 1_000.0 / LOWEST).max(1.0).log10() / POWERS;
        HEIGHT - share.min(1.0) * HEIGHT
    };
    let height = HEIGHT + BELOW;
    write!(page, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\">\n<style>{CHART_STYLE}</style>\n")
        .expect(TAKES);
    for CycleRow { fault, process, began, ended, whole, .. } in cycles {
        let (x, width) = (across(*began), (across(*ended) - across(*began)).max(1.0));
        let back = (across(*whole) - across(*ended)).max(0.5);
        writeln!(
            page,
            "<g class=\"{fault}\"><title>{fault} {}: {began:.1} s to {ended:.1} s, whole at {whole:.1} s</title>\
             <rect x=\"{x:.1}\" y=\"0\" width=\"{width:.1}\" height=\"{HEIGHT}\"/>\
             <rect class=\"back\" x=\"{:.1}\" y=\"0\" width=\"{back:.1}\" height=\"{HEIGHT}\"/></g>",
            escaped(process),
            x + width
        )
        .expect(TAKES);
    }
    for (power, label) in ["0.1 ms", "1 ms", "10 ms", "100 ms", "1 s", "10 s"].iter().enumerate() {
        let y = HEIGHT - power as f64 / POWERS * HEIGHT;
        let text = y.max(10.0);
        writeln!(
            page,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y}\" y2=\"{y}\"/>\
             <text class=\"y\" x=\"{}\" y=\"{text}\">{label}</text>",
            LEFT - 6.0
        )
        .expect(TAKES);
    }
    let step = tick(seconds);
    let ticks = (0_u32..).map(|number| f64::from(number) * step).take_while(|at| *at <= seconds);
    for at in ticks {
        writeln!(page, "<text class=\"x\" x=\"{:.1}\" y=\"{}\">{at} s</text>", across(at), HEIGHT + 16.0)
            .expect(TAKES);
    }
    for (class, of) in [("max", max), ("p99", p99)] {
        // A line for each stretch without a gap: where nothing succeeded, nothing is drawn.
        let mut path = String::new();
        let mut before = None;
        let width = columns.windows(2).map(|pair| pair[1].index - pair[0].index).min().unwrap_or(1);
        for column in columns.iter().filter(|column| of(column) > 0) {
            let verb = if before.is_some_and(|index: u32| column.index - index <= width) { 'L' } else { 'M' };
            let at = f64::from(column.index) * POINT.as_secs_f64();
            write!(path, "{verb}{:.1} {:.1}h1", across(at), up(f64::from(of(column)))).expect(TAKES);
            before = Some(column.index);
        }
        writeln!(page, "<path class=\"{class}\" d=\"{path}\"/>").expect(TAKES);
    }
    for column in columns.iter().filter(|column| column.failed > 0) {
        let at = across(f64::from(column.index) * POINT.as_secs_f64());
        writeln!(
            page,
            "<circle class=\"failed\" cx=\"{at:.1}\" cy=\"8\" r=\"4\"><title>{} failed</title></circle>",
            column.failed
        )
        .expect(TAKES);
    }
    page.push_str("</svg>\n");
}

/// Seconds between two marks of the axis: 1, 2 or 5 times a power of ten, for about twelve marks.
fn tick(seconds: f64) -> f64 {
    let rough = seconds / 12.0;
    let power = 10_f64.powf(rough.log10().floor()).max(1.0);
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough)
        .unwrap_or(10.0 * power)
}

fn cycles(page: &mut String, cycles: &[CycleRow]) {
    page.push_str(
        "<details><summary>Each cycle</summary>\n<table><tr><th>fault<th>process<th>at<th>requests<th>failed\
         <th>longest without a read<th>without a write<th>longest read<th>longest write<th>back after<th>copies</tr>\n",
    );
    for cycle in cycles {
        let copies = match cycle.copies_equal {
            Some(true) => "equal",
            Some(false) => "DIFFER",
            None => "not compared",
        };
        let row = &cycle.row;
        writeln!(
            page,
            "<tr><td>{}<td>{}<td>{:.1} s<td>{}<td>{}<td>{} ms<td>{} ms<td>{} ms<td>{} ms<td>{:.2} s<td>{copies}</tr>",
            cycle.fault,
            escaped(&cycle.process),
            cycle.began,
            grouped(row.requests),
            grouped(row.failed),
            short(row.longest_without_read),
            short(row.longest_without_write),
            short(row.longest_read),
            short(row.longest_write),
            cycle.rejoin / 1_000.0
        )
        .expect(TAKES);
    }
    page.push_str("</table></details>\n");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const LEGEND: &str = "<p class=\"legend\"><i class=\"max\"></i>the longest of each 100 ms\n<i class=\"p99\"></i>99 % took no longer\n\
    <i class=\"stop\"></i>stop <i class=\"kill\"></i>kill <i class=\"hang\"></i>hang <i class=\"wipe\"></i>wipe \
    <i class=\"gateway\"></i>gateway; paler: on its way back. A gap in a line: nothing succeeded, or the load rested to be checked.</p>\n";

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1240px;margin:2em auto;padding:0 1em;color:#1d2430;background:#fff}\
    h1{font-size:1.6em}h2{font-size:1.1em;margin:1.6em 0 .4em}svg{width:100%;height:auto;display:block}\
    section{display:flex;flex-wrap:wrap;gap:.8em}section div{border:1px solid #d5dae2;border-radius:6px;padding:.5em 1em}\
    section b{display:block;font-size:1.4em}.good{color:#1a7f4b}.bad{color:#c62828}\
    table{border-collapse:collapse;font-size:.9em}td,th{padding:.15em .7em;text-align:right;border-bottom:1px solid #e6e9ee}\
    pre{overflow-x:auto;background:#f5f6f8;padding:1em;border-radius:6px}summary{cursor:pointer;margin-top:1em}\
    .legend{font-size:.85em}.legend i{display:inline-block;width:1em;height:.8em;margin:0 .3em 0 .8em}\
    i.max{background:#8fa8d6}i.p99{background:#1f4fa3}i.stop{background:#9fd0a8}i.kill{background:#f0a7a0}\
    i.hang{background:#f2d38b}i.wipe{background:#c9b0e4}i.gateway{background:#a9c7d6}";

const CHART_STYLE: &str = "rect{fill:#ccc;opacity:.7}.back{opacity:.3}.stop rect{fill:#9fd0a8}.kill rect{fill:#f0a7a0}.hang rect{fill:#f2d38b}\
    .wipe rect{fill:#c9b0e4}.gateway rect{fill:#a9c7d6}.grid{stroke:#8891a0;stroke-opacity:.35;stroke-width:1}\
    text{font:11px system-ui,sans-serif;fill:#566070}.y{text-anchor:end}.x{text-anchor:middle}\
    path{fill:none;stroke-width:1.2;stroke-linejoin:round}.max{stroke:#6d8cc7}.p99{stroke:#1f4fa3}.failed{fill:#c62828}";

#[cfg(test)]
mod tests {
    use super::super::report::tests::gathered;
    use super::*;

    #[test]
    fn the_page_stands_alone_and_shows_each_fault() {
        let page = page(&Report::of(gathered()));
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        for forbidden in ["<script", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        assert_eq!(page.matches("<svg ").count(), 2);
        assert_eq!(page.matches("<g class=\"kill\">").count(), 4, "two cycles in each chart");
        assert!(page.contains("<title>wipe db-2: 0.3 s to 1.3 s, whole at 1.6 s</title>"));
        assert!(page.contains("Drill: <span class=\"good\">Passed"));
    }

    #[test]
    fn what_comes_from_outside_is_no_markup() {
        let mut gathered = gathered();
        gathered.ended_early = Some("<script>alert(1)</script>".to_owned());
        let page = page(&Report::of(gathered));
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;"));
        assert!(page.contains("<span class=\"bad\">Failed"));
    }

    #[test]
    fn a_long_timeline_keeps_its_worst() {
        let point =
            |index| Point { index, read_max: if index == 12_345 { 77 } else { 1 }, ..Point::default() };
        let timeline: Vec<Point> = (0..50_000).map(point).collect();
        let columns = columns(&timeline);
        assert!(columns.len() <= COLUMNS, "{}", columns.len());
        assert_eq!(columns.iter().filter(|column| column.read_max == 77).count(), 1);
    }

    #[test]
    fn the_axis_has_about_twelve_round_marks() {
        assert_eq!([5.0, 60.0, 100.0, 3_000.0].map(tick), [1.0, 5.0, 10.0, 500.0]);
    }
}
