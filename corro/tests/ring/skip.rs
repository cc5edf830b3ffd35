//! Tests that need what not every machine has.

use std::io::Write;

/// Reports that a test is skipped: at once, since what a test prints is not shown if it passes.
pub(crate) fn skip(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // Not by `eprintln`, whose output belongs to the test.
    let _ = writeln!(std::io::stderr(), "skipped {test}: {why}");
}

/// The same for a test that must not be skipped in CI.
///
/// # Panics
/// In CI.
pub(crate) fn skip_unless_ci(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "this may not be skipped in CI: {why}");
    skip(why);
}
