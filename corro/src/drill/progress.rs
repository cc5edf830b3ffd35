//! What is shown while a drill runs: a line for each cycle, and below it, on a terminal, one that is drawn
//! again and again.

use std::io::{IsTerminal as _, Write as _, stdout};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::faults::Cycle;
use super::report::{CycleResult, milliseconds};
use super::verdict::{grouped, short};
use crate::load::meter::Glance;

/// Between two drawings.
const FRAME: Duration = Duration::from_millis(200);

/// Back to the beginning of the line, which is emptied.
const CLEAR: &str = "\r\x1b[2K";

/// Shows how far the drill is.
pub(crate) struct Progress {
    /// What goes on, where a line is drawn.
    doing: Arc<Mutex<String>>,
    drawing: Option<JoinHandle<()>>,
    cycles: usize,
}

impl Progress {
    /// Starts to draw, where there is a terminal that nobody types into. `look` says how the load does.
    pub(crate) fn new(cycles: usize, typing: bool, look: impl Fn() -> Glance + Send + 'static) -> Self {
        let doing = Arc::<Mutex<String>>::default();
        let drawing =
            (stdout().is_terminal() && !typing).then(|| tokio::spawn(draw(Arc::clone(&doing), look)));
        Self { doing, drawing, cycles }
    }

    /// Says what goes on now.
    pub(crate) fn doing(&self, number: usize, cycle: &Cycle, what: &str) {
        let line = format!("{:>5}/{}  {:<8} {:<8} {what}", number, self.cycles, cycle.fault, cycle.process);
        *self.doing.lock().expect("no one panics while he writes a line") = line;
    }

    /// Says how a cycle went.
    pub(crate) fn done(&self, number: usize, result: &CycleResult) {
        let measured = &result.measured;
        let copies = result
            .copies
            .as_ref()
            .map_or("", |copies| if copies.differ.is_empty() { ", copies equal" } else { ", COPIES DIFFER" });
        let refused = match measured.refused {
            0 => String::new(),
            refused => format!(", {} refused", grouped(refused)),
        };
        say(
            &format!(
                "{:>5}/{}  {:<8} {:<8} {:>9} requests, {} failed{refused}, longest read {} ms, write {} ms, back after {:.2} s{copies}",
                number,
                self.cycles,
                result.cycle.fault,
                result.cycle.process,
                grouped(measured.succeeded() + measured.failed),
                grouped(measured.failed),
                short(milliseconds(measured.reads.took.max())),
                short(milliseconds(measured.writes.took.max())),
                result.rejoin().as_secs_f64(),
            ),
            self.drawing.is_some(),
        );
    }

    /// Ends the drawing.
    pub(crate) fn end(self) {
        if let Some(drawing) = self.drawing {
            drawing.abort();
            say("", true);
        }
    }
}

/// Prints a line, in the place of the drawn one. Nobody may read any more, which is no reason to leave a
/// process down.
fn say(line: &str, drawn: bool) {
    let clear = if drawn { CLEAR } else { "" };
    let _ = if line.is_empty() { write!(stdout(), "{clear}") } else { writeln!(stdout(), "{clear}{line}") };
    let _ = stdout().flush();
}

async fn draw(doing: Arc<Mutex<String>>, look: impl Fn() -> Glance) {
    let mut before = look();
    loop {
        tokio::time::sleep(FRAME).await;
        let now = look();
        let rate = (now.succeeded - before.succeeded) as f64 / FRAME.as_secs_f64();
        let line = doing.lock().expect("no one panics while he writes a line").clone();
        let _ = write!(
            stdout(),
            "{CLEAR}{line:<60} {:>8} requests/s, {} failed, longest {} ms",
            grouped(rate as u64),
            grouped(now.failed),
            short(milliseconds(now.longest))
        );
        let _ = stdout().flush();
        before = now;
    }
}
