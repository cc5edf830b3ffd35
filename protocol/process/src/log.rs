//! The log: daily files for later, and stdout for those who watch.

use std::io::{Error, ErrorKind, IsTerminal, Write, stdout};
use std::sync::{Mutex, PoisonError};

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt, registry};

use crate::log_files::LogFiles;
use crate::settings::{CommonSettings, NodeEnv};

/// So many lines may wait for the disk, and as many for the reader of stdout. Room for them is taken at the
/// start, 32 bytes each; the default of `tracing-appender` is eight times as much.
const LINES_WAITING: usize = 16_000;

/// The crates of this workspace, whose lines are wanted; libraries are heard from `warn` on.
const OUR_CRATES: [&str; 5] = ["corro", "db_process", "gateway", "process", "protocol"];

/// The threads that write the log. They are kept here and not in the [`LogGuard`], so that a panic can flush
/// them, too.
static WRITERS: Mutex<Vec<WorkerGuard>> = Mutex::new(Vec::new());

/// Flushes the log when it is dropped: keep it until `main` ends.
#[derive(Debug)]
#[must_use = "dropping it ends the log"]
pub struct LogGuard(());

impl Drop for LogGuard {
    fn drop(&mut self) {
        flush();
    }
}

/// Ends the log: what was said so far is written, what comes later is lost.
pub(crate) fn flush() {
    // Taken out first: a writer that is flushed may log itself.
    let writers = std::mem::take(&mut *WRITERS.lock().unwrap_or_else(PoisonError::into_inner));
    drop(writers);
}

/// Starts the log of this process: `<log_dir>/<process>.<date>.log`, a file a day (UTC), and stdout. Fourteen
/// days are kept, within the bytes that the settings allow.
///
/// Lines are written by threads of their own; where the disk or the reader of stdout cannot follow, lines are
/// dropped, so that no request waits for the log. `RUST_LOG` chooses other lines than `NODE_ENV` does.
///
/// # Errors
/// Where the folder cannot be made or written, `RUST_LOG` is not understood, or the log was started already.
pub fn start_log(process: &str, settings: &CommonSettings) -> std::io::Result<LogGuard> {
    let most = u64::from(settings.log_max_mib) << 20;
    let filter = filter(settings.environment(), std::env::var("RUST_LOG").ok().as_deref())?;
    let (file, file_writer) = in_background(LogFiles::open(process, &settings.log_dir, most)?);
    let (terminal, terminal_writer) = in_background(stdout());
    let to_file = fmt::layer().with_ansi(false).with_writer(file);
    let to_stdout = fmt::layer().with_ansi(stdout().is_terminal()).with_writer(terminal);
    registry().with(filter).with(to_file).with(to_stdout).try_init().map_err(Error::other)?;
    WRITERS.lock().unwrap_or_else(PoisonError::into_inner).extend([file_writer, terminal_writer]);
    Ok(LogGuard(()))
}

/// Writes there on a thread of its own.
fn in_background(to: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default().buffered_lines_limit(LINES_WAITING).finish(to)
}

/// Which lines are wanted.
fn filter(node_env: NodeEnv, rust_log: Option<&str>) -> std::io::Result<EnvFilter> {
    if let Some(wanted) = rust_log.filter(|text| !text.is_empty()) {
        return EnvFilter::try_new(wanted).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, format!("RUST_LOG: {wanted:?} is not allowed: {error}"))
        });
    }
    let level = match node_env {
        NodeEnv::Development => "debug",
        NodeEnv::Production => "info",
    };
    let ours: String = OUR_CRATES.iter().map(|name| format!(",{name}={level}")).collect();
    Ok(EnvFilter::new(format!("warn{ours}")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn only_file(folder: &Path) -> std::path::PathBuf {
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files.into_iter().next().unwrap()
    }

    /// The one test that starts the log, as a process has one.
    #[test]
    fn writes_a_dated_file_of_our_lines_and_flushes_it() {
        let folder = tempfile::tempdir().unwrap();
        let log_dir = folder.path().join("a/b");
        let settings = CommonSettings {
            node_env: Some(NodeEnv::Production),
            corro_env: None,
            log_dir: log_dir.clone(),
            log_max_mib: CommonSettings::LOG_MAX_MIB,
            cluster_secret: None,
            cluster_secret_file: None,
            ring_files: crate::RingFiles::default(),
        };
        let guard = start_log("db-7", &settings).unwrap();
        tracing::info!(partition = 3, "a line of ours");
        tracing::debug!("a detail of ours");
        tracing::info!(target: "some_library", "a line of a library");
        drop(guard);

        let file = only_file(&log_dir);
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(
            name.starts_with("db-7.20")
                && name.ends_with(".log")
                && name.len() == "db-7.2026-11-21.log".len(),
            "{name}"
        );
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.contains("a line of ours partition=3"), "{text}");
        assert!(
            !text.contains("a detail") && !text.contains("library") && !text.contains('\u{1b}'),
            "{text}"
        );
        assert!(start_log("db-7", &settings).is_err(), "a process has one log");
    }

    #[test]
    fn the_environment_decides_what_is_said() {
        let shown = |node_env, rust_log| filter(node_env, rust_log).unwrap().to_string();
        assert!(shown(NodeEnv::Development, None).contains("gateway=debug"));
        assert!(shown(NodeEnv::Production, None).contains("gateway=info"));
        assert_eq!(shown(NodeEnv::Production, Some("trace")), "trace");
        assert!(shown(NodeEnv::Production, Some("")).contains("gateway=info"));
        let error = filter(NodeEnv::Production, Some("gateway=loud")).unwrap_err().to_string();
        assert!(error.contains("RUST_LOG") && error.contains("gateway=loud"), "{error}");
    }
}
