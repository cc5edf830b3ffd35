//! Lines for a person.

use std::io::Write as _;

/// Prints a line. A closed terminal is no reason to end: a demo or a drill still cleans up.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
