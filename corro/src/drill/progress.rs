//! What is shown while a drill runs: a line for each cycle, and below it, on a terminal, one about the
//! moment.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;

use super::faults::Cycle;
use super::report::{CycleRow, milliseconds};
use super::verdict::{cycle_line, grouped, short};
use crate::load::meter::Glance;
use crate::terminal::say;

/// Between two drawings.
const FRAME: Duration = Duration::from_millis(200);

/// Shows how far the drill is.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// The step of the drill.
    step: Arc<Mutex<String>>,
    drawing: JoinHandle<()>,
    cycles: usize,
}

impl Progress {
    /// Starts to draw on a terminal, unless it is used for `typing`. `look` gives the state of the load.
    pub(crate) fn new(cycles: usize, typing: bool, look: impl Fn() -> Glance + Send + 'static) -> Self {
        let target = if typing { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stdout() };
        let style = ProgressStyle::with_template("{msg}").expect("the template is sound");
        let bar = ProgressBar::with_draw_target(None, target).with_style(style);
        let step = Arc::<Mutex<String>>::default();
        let drawing = tokio::spawn(draw(bar.clone(), Arc::clone(&step), look));
        Self { bar, step, drawing, cycles }
    }

    /// Shows the step of a cycle.
    pub(crate) fn step(&self, number: usize, cycle: &Cycle, what: &str) {
        let line = format!("{:>5}/{}  {:<8} {:<8} {what}", number, self.cycles, cycle.fault, cycle.process);
        *self.step.lock().expect("no thread panics while it writes a line") = line;
    }

    /// Prints how a cycle went.
    pub(crate) fn done(&self, number: usize, row: &CycleRow) {
        self.bar.suspend(|| say(&cycle_line(number, self.cycles, row)));
    }

    /// Ends the drawing.
    pub(crate) fn end(self) {
        self.drawing.abort();
        self.bar.finish_and_clear();
    }
}

async fn draw(bar: ProgressBar, step: Arc<Mutex<String>>, look: impl Fn() -> Glance) {
    let mut before = look();
    loop {
        tokio::time::sleep(FRAME).await;
        let now = look();
        let requests = now.reads + now.writes - before.reads - before.writes;
        let rate = grouped((requests as f64 / FRAME.as_secs_f64()) as u64);
        let step = step.lock().expect("no thread panics while it writes a line").clone();
        let (failed, longest) = (grouped(now.failed), short(milliseconds(now.longest)));
        bar.set_message(format!("{step:<60} {rate:>8} requests/s, {failed} failed, longest {longest} ms"));
        bar.tick();
        before = now;
    }
}
