//! The report as one page that needs nothing else: no network, no script.

use super::report::{CycleRow, Report};
use super::verdict::{cycle_line, verdict};
use crate::load::meter::{POINT, Point};

/// Size of a chart, in its own units.
const WIDTH: f64 = 1_200.0;
const HEIGHT: f64 = 260.0;
/// Room for the axis at its left, and for that below it.
const LEFT: f64 = 60.0;
const BELOW: f64 = 24.0;

/// The axis of latencies: milliseconds at the bottom, and how many powers of ten are above that.
const LOWEST: f64 = 0.1;
const POWERS: f64 = 5.0;

/// More points than that cannot be distinguished.
const COLUMNS: usize = 1_100;

/// The page.
pub(crate) fn page(report: &Report) -> String {
    let (word, class) = if report.passed { ("Passed", "good") } else { ("Failed", "bad") };
    let columns = columns(&report.timeline);
    let reads = chart(report, &columns, |point| [point.read_max, point.read_p99]);
    let writes = chart(report, &columns, |point| [point.write_max, point.write_p99]);
    let line = |(index, row)| cycle_line(index + 1, report.setup.cycles, row);
    let cycles: Vec<String> = report.cycles.iter().enumerate().map(line).collect();
    let mut page = include_str!("page.html").to_owned();
    for (place, what) in [
        ("{word}", word),
        ("{class}", class),
        ("{reads}", &reads),
        ("{writes}", &writes),
        ("{setup}", &escaped(&report.setup.to_string())),
        ("{cycles}", &escaped(&cycles.join("\n"))),
        ("{verdict}", &escaped(&verdict(report))),
    ] {
        page = page.replace(place, what);
    }
    page
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

/// A chart of the figures that `of` takes from a point, the longest and that which 99 % do not exceed.
fn chart(report: &Report, columns: &[Point], of: fn(&Point) -> [u32; 2]) -> String {
    let seconds = report.seconds.max(1.0);
    let across = |at: f64| LEFT + at / seconds * (WIDTH - LEFT);
    let time = |point: &Point| f64::from(point.index) * POINT.as_secs_f64();
    let up = |micros: u32| {
        let share = (f64::from(micros) / 1_000.0 / LOWEST).max(1.0).log10() / POWERS;
        HEIGHT - share.min(1.0) * HEIGHT
    };
    let mut svg =
        format!("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {}\">\n", HEIGHT + BELOW);
    for CycleRow { fault, process, began, ended, whole, .. } in &report.cycles {
        let [x, middle, end] = [began, ended, whole].map(|at| across(*at));
        let (width, back) = ((middle - x).max(1.0), (end - middle).max(0.5));
        let (x_back, process) = (x + width, escaped(process));
        svg += &format!(
            "<g class=\"{fault}\"><title>{fault} {process}: {began:.1} s to {ended:.1} s, whole at \
             {whole:.1} s</title><rect x=\"{x:.1}\" y=\"0\" width=\"{width:.1}\" height=\"{HEIGHT}\"/>\
             <rect class=\"back\" x=\"{x_back:.1}\" y=\"0\" width=\"{back:.1}\" height=\"{HEIGHT}\"/></g>\n"
        );
    }
    for (power, label) in ["0.1 ms", "1 ms", "10 ms", "100 ms", "1 s", "10 s"].iter().enumerate() {
        let y = HEIGHT - power as f64 / POWERS * HEIGHT;
        let (text, beside) = (y.max(10.0), LEFT - 6.0);
        svg += &format!(
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y}\" y2=\"{y}\"/>\
             <text class=\"y\" x=\"{beside}\" y=\"{text}\">{label}</text>\n"
        );
    }
    let step = tick(seconds);
    for at in (0_u32..).map(|number| f64::from(number) * step).take_while(|at| *at <= seconds) {
        let (x, y) = (across(at), HEIGHT + 16.0);
        svg += &format!("<text class=\"x\" x=\"{x:.1}\" y=\"{y}\">{at} s</text>\n");
    }
    // A line for each stretch without a gap: where nothing succeeded, nothing is drawn.
    let width = columns.windows(2).map(|pair| pair[1].index - pair[0].index).min().unwrap_or(1);
    for (place, class) in ["max", "p99"].into_iter().enumerate() {
        let mut path = String::new();
        let mut before = None;
        for (column, micros) in columns.iter().map(|it| (it, of(it)[place])).filter(|(_, micros)| *micros > 0)
        {
            let verb = if before.is_some_and(|index: u32| column.index - index <= width) { 'L' } else { 'M' };
            path += &format!("{verb}{:.1} {:.1}h1", across(time(column)), up(micros));
            before = Some(column.index);
        }
        svg += &format!("<path class=\"{class}\" d=\"{path}\"/>\n");
    }
    for column in columns.iter().filter(|column| column.failed > 0) {
        let (at, failed) = (across(time(column)), column.failed);
        svg += &format!(
            "<circle class=\"failed\" cx=\"{at:.1}\" cy=\"8\" r=\"4\"><title>{failed} failed</title>\
             </circle>\n"
        );
    }
    svg + "</svg>\n"
}

/// Seconds between two marks of the axis: 1, 2 or 5 times a power of ten, for about twelve marks.
fn tick(seconds: f64) -> f64 {
    let rough = seconds / 12.0;
    let power = 10_f64.powf(rough.log10().floor()).max(1.0);
    let steps = [1.0, 2.0, 5.0].map(|factor| factor * power);
    steps.into_iter().find(|step| *step >= rough).unwrap_or(10.0 * power)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::gathered;
    use super::*;

    #[test]
    fn the_page_stands_alone_and_shows_each_fault() {
        let page = page(&gathered().report());
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
        let page = page(&gathered.report());
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
