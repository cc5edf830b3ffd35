//! What happens to a bug.

use std::panic::PanicHookInfo;

/// From now on a panic in any thread or task is logged and ends the process with SIGABRT.
///
/// Without it a panic ends one task, silently, and the others go on beside a hole: a restart is better, as
/// the ring is built for restarts.
pub fn abort_on_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // First to stderr: whatever is wrong, this much is seen.
        default(panic);
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(location, message = message(panic), "a bug: the process ends");
        crate::log::flush();
        std::process::abort();
    }));
}

fn message<'a>(panic: &'a PanicHookInfo<'_>) -> &'a str {
    panic.payload_as_str().unwrap_or("a panic without a text")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    const CHILD: &str = "PROCESS_TEST_PANICS_HERE";

    /// Runs itself as a child process, since it dies.
    #[test]
    fn a_panic_in_another_thread_ends_the_process_and_is_said() {
        if std::env::var_os(CHILD).is_some() {
            abort_on_panic();
            let _ = std::thread::spawn(|| panic!("the invariant of the test")).join();
            return; // exit code 0: the parent takes it for a failure
        }
        let this = [
            "--exact",
            "panic::tests::a_panic_in_another_thread_ends_the_process_and_is_said",
            "--nocapture",
        ];
        let child =
            Command::new(std::env::current_exe().unwrap()).args(this).env(CHILD, "1").output().unwrap();
        assert_eq!(child.status.signal(), Some(6), "SIGABRT; {child:?}");
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(said.contains("the invariant of the test"), "{said}");
    }
}
