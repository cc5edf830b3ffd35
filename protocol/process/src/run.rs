//! The life of a process around its work.

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::umask;
use tokio_util::sync::CancellationToken;

use crate::files::raise_open_files;
use crate::{CommonSettings, abort_on_panic, complain, shutdown_on_signal, start_log};

/// Runs `work` with all that a process has around it: a log under the name of the process, an end at the
/// first panic, as many files as it may open, a runtime of one thread, and a token that SIGTERM, SIGHUP and
/// Ctrl-C cancel. `work` returns when it has put all in order.
///
/// The exit code says whether it went well; an error is logged here, and nowhere before.
///
/// Whatever the process writes can be read by its user alone, whatever mask it was started with.
pub fn run<E: Display>(
    process: &str,
    settings: &CommonSettings,
    work: impl AsyncFnOnce(CancellationToken) -> Result<(), E>,
) -> ExitCode {
    keep_files_private();
    let log = match start_log(process, settings) {
        Ok(log) => log,
        Err(error) => {
            complain(&format!("{process}: {error}"));
            return ExitCode::FAILURE;
        }
    };
    abort_on_panic();
    raise_open_files();
    let outcome = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let outcome = runtime.block_on(async { work(shutdown_on_signal()).await });
            // A blocking call that is no longer awaited, such as the look-up of a name, does not hold up the
            // end.
            runtime.shutdown_timeout(Duration::from_millis(100));
            outcome.map_err(|error| format!("{error:#}"))
        }
        Err(error) => Err(format!("no runtime: {error}")),
    };
    let code = match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(process, %error, "the process ends");
            ExitCode::FAILURE
        }
    };
    drop(log);
    code
}

/// Files that this process makes from now on have no permissions for the group and for others. RocksDB and
/// the log's appender cannot be given a mode for each file.
pub fn keep_files_private() {
    umask(Mode::RWXG | Mode::RWXO);
}
