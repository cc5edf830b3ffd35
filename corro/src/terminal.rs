//! Lines for a person, and results. A closed or full output is never a reason to panic.

use std::io::Write as _;
use std::time::Duration;

pub(crate) use process::complain;
use tokio::time::Instant;

/// What is waited for is said so often.
pub(crate) const REMINDER: Duration = Duration::from_secs(5);

/// Says when something is to be said: at once, and again after every [`REMINDER`].
#[derive(Default)]
pub(crate) struct Reminder(Option<Instant>);

impl Reminder {
    /// Whether it is time.
    pub(crate) fn is_due(&mut self) -> bool {
        let is_due = self.0.is_none_or(|said| said.elapsed() >= REMINDER);
        if is_due {
            self.0 = Some(Instant::now());
        }
        is_due
    }
}

/// What a command says while it repeats what has failed.
pub(crate) fn trying_again(reason: &str, waited: Duration, patience: Duration) -> String {
    format!("{reason}; trying again, for another {} s", patience.saturating_sub(waited).as_secs())
}

/// Prints a line. A closed terminal is no reason to end: a demo or a drill still cleans up, and the exit code
/// of a check still says what was found.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
