//! The line that is drawn while users go in or out: how many, how fast, how long it will take. It goes to
//! standard error, and only where that is a terminal.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use tokio::time::Instant;

/// Between two drawings.
const FRAME: Duration = Duration::from_millis(200);

/// Back to the beginning of the line, which is emptied.
const CLEAR: &str = "\r\x1b[2K";

/// How far it is.
pub(super) struct Progress {
    doing: &'static str,
    started: Instant,
    drawn: Instant,
    terminal: bool,
}

impl Progress {
    pub(super) fn new(doing: &'static str) -> Self {
        let now = Instant::now();
        Self { doing, started: now, drawn: now, terminal: stderr().is_terminal() }
    }

    /// Draws, if it is time. `part` of all is done, as far as that is known.
    pub(super) fn draw(&mut self, users: u64, part: Option<f64>) {
        let now = Instant::now();
        if !self.terminal || now - self.drawn < FRAME {
            return;
        }
        self.drawn = now;
        let _ = write!(stderr(), "{CLEAR}{}", line(self.doing, users, part, self.started.elapsed()));
        let _ = stderr().flush();
    }

    /// Ends the drawing. Returns how long it took.
    pub(super) fn end(self) -> Duration {
        if self.terminal {
            let _ = write!(stderr(), "{CLEAR}");
        }
        self.started.elapsed()
    }
}

fn line(doing: &str, users: u64, part: Option<f64>, passed: Duration) -> String {
    let seconds = passed.as_secs_f64().max(0.001);
    let rate = users as f64 / seconds;
    let part = part.map(|part| part.clamp(0.0, 1.0)).filter(|part| *part > 0.0);
    let left = part.map_or(String::new(), |part| {
        let left = seconds / part - seconds;
        format!(", {:.0} %, {} s left", part * 100.0, left.ceil())
    });
    format!("{doing} {users} users, {rate:.0} users/s{left}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_fast_and_how_long() {
        let second = Duration::from_secs(1);
        assert_eq!(
            line("imported", 500, Some(0.25), second),
            "imported 500 users, 500 users/s, 25 %, 3 s left"
        );
        assert_eq!(line("imported", 500, None, second), "imported 500 users, 500 users/s");
    }
}
