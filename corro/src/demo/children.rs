//! The processes of a demo: how one is started, stopped, killed, and the last line that it printed.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;
use tokio::process::Child;
use tokio::time::timeout;

use super::layout::Layout;
use crate::parent::{self, send_signal};

/// Where the last line is looked for.
const TAIL: u64 = 16 * 1024;

/// What the processes of one demo have in common.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    pub(crate) layout: Layout,
    pub(crate) rest_port: u16,
    pub(crate) socket_port: u16,
    pub(crate) size: u16,
    /// Of the role admin, for the calls of the API.
    pub(crate) token: String,
}

impl Ring {
    /// The names of all processes, the gateway first.
    pub(crate) fn processes(&self) -> Vec<String> {
        let processes = (0..self.size).map(|place| format!("db-{place}"));
        std::iter::once("gateway".to_owned()).chain(processes).collect()
    }

    /// The arguments that make this executable that process. What they leave open, the environment may set.
    fn arguments(&self, process: &str) -> Vec<String> {
        // A folder each: the name of one process may be the beginning of another's (db-1, db-10).
        let logs = format!("--log-dir={}", self.layout.logs.join(process).display());
        if process == "gateway" {
            return vec![
                "gateway".to_owned(),
                format!("--rest-port={}", self.rest_port),
                format!("--socket-port={}", self.socket_port),
                "--rest-address=localhost".to_owned(),
                "--socket-address=localhost".to_owned(),
                format!("--db-processes={}", self.size),
                "--launcher=demo".to_owned(),
                logs,
            ];
        }
        vec![
            "db-process".to_owned(),
            format!("--db-instance-id={process}"),
            format!("--socket-server-url=ws://127.0.0.1:{}", self.socket_port),
            format!("--data-dir={}", self.layout.data.join(process).display()),
            "--replication-port=0".to_owned(),
            "--replication-bind-address=localhost".to_owned(),
            logs,
        ]
    }

    /// The token of the demo beside those that the environment has.
    fn tokens(&self) -> String {
        let others = std::env::var("API_TOKENS").unwrap_or_default();
        format!("{others}\ndemo:admin:{}", self.token)
    }

    /// Starts a process. What it prints is added to its file in the folder of logs.
    ///
    /// Call it on the main thread: see [`parent::end_with`].
    ///
    /// # Errors
    /// Where the file cannot be written or the system has no room for a process.
    pub(crate) fn start(&self, process: &str) -> anyhow::Result<Child> {
        let output = self.layout.output_of(process);
        let file = File::options().create(true).append(true).open(&output);
        let file = file.with_context(|| format!("{} cannot be written", output.display()))?;
        parent::child(None)?
            .args(self.arguments(process))
            .env("CLUSTER_SECRET_FILE", &self.layout.secret)
            .env_remove("CLUSTER_SECRET") // this ring has its own
            .envs((process == "gateway").then(|| ("API_TOKENS", self.tokens())))
            // No other machine reaches it, and what starts it speaks no TLS to it.
            .env_remove("TLS_CERT_FILE")
            .env_remove("TLS_KEY_FILE")
            .env_remove("RING_CERT_FILE")
            .env_remove("RING_KEY_FILE")
            .env_remove("RING_CA_FILE")
            .env_remove("REPLICATION_ADDRESS") // it would be the same for all
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{process} cannot be started"))
    }
}

/// Sends a signal to a process that has not been waited for.
///
/// # Errors
/// Where it has been, or the system refuses.
pub(crate) fn signal(child: &Child, signal: Signal) -> rustix::io::Result<()> {
    // Its id is its own until then.
    child.id().map_or(Err(rustix::io::Errno::SRCH), |pid| send_signal(pid, signal))
}

/// Ends a process with SIGTERM or SIGKILL. After `patience` it is killed.
///
/// # Errors
/// Where the system refuses.
pub(crate) async fn end(child: &mut Child, with: Signal, patience: Duration) -> anyhow::Result<ExitStatus> {
    signal(child, with)?;
    match timeout(patience, child.wait()).await {
        Ok(status) => Ok(status?),
        Err(_) => {
            child.start_kill()?;
            Ok(child.wait().await?)
        }
    }
}

/// How a process ended, in words.
pub(crate) fn manner(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(9)) => "signal 9, SIGKILL".to_owned(),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Empties what a process printed once it is large: the daily log has the same lines, and its bound. The
/// process appends, so it continues at the beginning.
pub(crate) fn empty_if_large(output: &Path, most: u64) {
    let is_large = output.metadata().is_ok_and(|file| file.len() > most);
    if is_large && let Ok(file) = File::options().write(true).open(output) {
        // It is tried again a little later.
        let _ = file.set_len(0);
    }
}

/// The last line that a process printed, where it printed one.
pub(crate) fn last_line(output: &Path) -> Option<String> {
    let mut file = File::open(output).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    tail.lines().map(str::trim_end).rfind(|line| !line.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::Stdio;

    use tokio::process::Command;

    use super::*;

    fn ring() -> Ring {
        Ring {
            layout: Layout::of(Path::new(".corro")),
            rest_port: 3001,
            socket_port: 3002,
            size: 3,
            token: "barley".to_owned(),
        }
    }

    #[test]
    fn each_process_gets_its_own_place() {
        assert_eq!(ring().processes(), ["gateway", "db-0", "db-1", "db-2"]);
        assert_eq!(
            ring().arguments("gateway"),
            [
                "gateway",
                "--rest-port=3001",
                "--socket-port=3002",
                "--rest-address=localhost",
                "--socket-address=localhost",
                "--db-processes=3",
                "--launcher=demo",
                "--log-dir=.corro/logs/gateway",
            ]
        );
        assert_eq!(
            ring().arguments("db-1"),
            [
                "db-process",
                "--db-instance-id=db-1",
                "--socket-server-url=ws://127.0.0.1:3002",
                "--data-dir=.corro/data/db-1",
                "--replication-port=0",
                "--replication-bind-address=localhost",
                "--log-dir=.corro/logs/db-1",
            ]
        );
    }

    #[test]
    fn the_token_is_no_argument() {
        for process in ring().processes() {
            assert!(!ring().arguments(&process).concat().contains("barley"));
        }
    }

    #[test]
    fn the_last_line_is_the_last_that_says_something() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(last_line(file.path()), None);
        std::fs::write(file.path(), format!("{}\nError: the reason\n\n", "x".repeat(100_000))).unwrap();
        assert_eq!(last_line(file.path()).as_deref(), Some("Error: the reason"));
        assert_eq!(last_line(Path::new("/no/such/file")), None);
    }

    #[test]
    fn what_a_process_printed_is_emptied_once_it_is_large_and_goes_on() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut process = File::options().append(true).open(file.path()).unwrap();
        process.write_all(&[b'x'; 100]).unwrap();
        empty_if_large(file.path(), 100);
        assert_eq!(file.path().metadata().unwrap().len(), 100);
        empty_if_large(file.path(), 99);
        process.write_all(b"the next line\n").unwrap();
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "the next line\n");
    }

    async fn end_of(script: &str, signal: Signal, patience: Duration) -> String {
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // The script prints a line when it is ready for a signal.
        let mut out = tokio::io::BufReader::new(child.stdout.take().unwrap());
        tokio::io::AsyncBufReadExt::read_line(&mut out, &mut String::new()).await.unwrap();
        manner(end(&mut child, signal, patience).await.unwrap())
    }

    const DEAF: &str = "trap '' TERM; echo; while :; do sleep 0.01; done";

    #[tokio::test]
    async fn a_process_is_stopped_or_killed_and_one_that_does_not_stop_is_killed() {
        let willing = "trap 'exit 7' TERM; echo; while :; do sleep 0.01; done";
        let long = Duration::from_secs(60);
        assert_eq!(end_of(willing, Signal::TERM, long).await, "exit code 7");
        assert_eq!(end_of(DEAF, Signal::KILL, long).await, "signal 9, SIGKILL");
        assert_eq!(end_of(DEAF, Signal::TERM, Duration::from_millis(20)).await, "signal 9, SIGKILL");
    }

    #[test]
    fn an_end_is_put_into_words() {
        assert_eq!(manner(ExitStatus::from_raw(6)), "signal 6");
        assert_eq!(manner(ExitStatus::from_raw(1 << 8)), "exit code 1");
    }
}
