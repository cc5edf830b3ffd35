//! Lines for a person, and results. A closed or full output is never a reason to panic.

use std::io::Write as _;

pub(crate) use process::complain;

/// Prints a line. A closed terminal is no reason to end: a demo or a drill still cleans up, and the exit code
/// of a check still says what was found.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
