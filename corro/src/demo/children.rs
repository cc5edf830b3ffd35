//! The processes of a demo: how one is started, stopped, killed, and what it said last.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::layout::Layout;

/// How long a process has to stop by itself, before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the last line is looked for.
const TAIL: u64 = 16 * 1024;

/// What the processes of one demo have in common.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    pub(crate) layout: Layout,
    pub(crate) rest_port: u16,
    pub(crate) socket_port: u16,
    pub(crate) size: u16,
    /// Made for this run; it travels in the environment, as arguments can be read by everyone on the machine.
    pub(crate) secret: String,
}

impl Ring {
    /// The names of all processes, the gateway first.
    pub(crate) fn processes(&self) -> Vec<String> {
        std::iter::once("gateway".to_owned())
            .chain((0..self.size).map(|place| format!("db-{place}")))
            .collect()
    }

    /// The arguments that make this executable that process. What they leave open, the environment may set.
    fn arguments(&self, process: &str) -> Vec<String> {
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        let mut arguments = match process {
            "gateway" => vec![
                "gateway".to_owned(),
                format!("--rest-port={}", self.rest_port),
                format!("--socket-port={}", self.socket_port),
                format!("--db-processes={}", self.size),
            ],
            name => vec![
                "db-process".to_owned(),
                format!("--db-instance-id={name}"),
                format!("--socket-server-url=ws://127.0.0.1:{}", self.socket_port),
                format!("--data-dir={}", path(self.layout.data.join(name))),
                "--replication-port=0".to_owned(),
            ],
        };
        // A folder each: the name of one process may be the beginning of another's (db-1, db-10).
        arguments.push(format!("--log-dir={}", path(self.layout.logs.join(process))));
        arguments.push(format!("--exit-with-parent={}", std::process::id()));
        arguments
    }

    /// Starts a process. What it prints is added to its file in the folder of logs.
    ///
    /// Call it on the main thread: see [`crate::parent::end_with`].
    ///
    /// # Errors
    /// Where the file cannot be written or the system has no room for a process.
    pub(crate) fn start(&self, process: &str, ends: &mut JoinSet<End>) -> anyhow::Result<Running> {
        let output = self.layout.output_of(process);
        let file = File::options().create(true).append(true).open(&output);
        let file = file.with_context(|| format!("{} cannot be written", output.display()))?;
        let executable = std::env::current_exe().context("this executable cannot be found")?;
        let child = Command::new(executable)
            .args(self.arguments(process))
            .env("CLUSTER_SECRET", &self.secret)
            .env_remove("REPLICATION_ADDRESS") // it would be the same for all
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0) // Ctrl-C in the terminal is for the demo, which stops the others in order
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{process} cannot be started"))?;
        let pid = child.id().context("it was started just now and nobody has waited for it")?;
        let (ending, asked) = mpsc::unbounded_channel();
        ends.spawn(watch(process.to_owned(), child, asked, PATIENCE));
        Ok(Running { pid, ending })
    }
}

/// A process that runs, as far as is known.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) pid: u32,
    ending: mpsc::UnboundedSender<Ending>,
}

/// How a process is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// SIGTERM, and SIGKILL where that is not enough.
    Stop,
    /// SIGKILL.
    Kill,
}

/// A process has ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) process: String,
    pub(crate) status: std::io::Result<ExitStatus>,
    /// How the demo had asked it to end; `None`: it ended by itself, or someone else ended it.
    pub(crate) asked: Option<Ending>,
}

impl Running {
    /// Asks it to end; its [`End`] follows.
    pub(crate) fn end(&self, ending: Ending) {
        // Where nobody listens any more it has ended already.
        let _ = self.ending.send(ending);
    }

    /// Sends it a signal that does not end it.
    ///
    /// # Errors
    /// Where the system refuses.
    pub(crate) fn signal(&self, signal: Signal) -> rustix::io::Result<()> {
        // Its id stays its own until its end was waited for. That is done on this thread as well, and whoever
        // does it drops the other end in the same breath.
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).filter(|_| !self.ending.is_closed());
        kill_process(pid.ok_or(rustix::io::Errno::SRCH)?, signal)
    }
}

/// Waits for the end of a process, and hastens it when asked to.
async fn watch(
    process: String,
    mut child: Child,
    mut endings: mpsc::UnboundedReceiver<Ending>,
    patience: Duration,
) -> End {
    let mut asked = None;
    let mut too_late = std::pin::pin!(tokio::time::sleep(Duration::MAX));
    loop {
        tokio::select! {
            status = child.wait() => return End { process, status, asked },
            Some(ending) = endings.recv() => {
                asked = Some(ending);
                let signal = match ending {
                    Ending::Stop => Signal::TERM,
                    Ending::Kill => Signal::KILL,
                };
                signal_to(&child, signal);
                too_late.as_mut().reset(tokio::time::Instant::now() + patience);
            }
            () = &mut too_late, if asked.is_some() => {
                signal_to(&child, Signal::KILL);
                too_late.as_mut().reset(tokio::time::Instant::now() + patience);
            }
        }
    }
}

fn signal_to(child: &Child, signal: Signal) {
    // The id is known until the process has been waited for: no other process can have it before.
    let pid = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
    if let Some(pid) = pid {
        let _ = kill_process(pid, signal); // it cannot fail for a child of one's own that was not waited for
    }
}

/// Empties what a process printed once it is large: the daily log has the same lines, and its bound. The
/// process appends, so it goes on at the beginning.
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
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn ring() -> Ring {
        Ring {
            layout: Layout::of(Path::new(".corro")),
            rest_port: 3001,
            socket_port: 3002,
            size: 3,
            secret: "sesame".to_owned(),
        }
    }

    #[test]
    fn each_process_gets_its_own_place() {
        assert_eq!(ring().processes(), ["gateway", "db-0", "db-1", "db-2"]);
        let parent = format!("--exit-with-parent={}", std::process::id());
        assert_eq!(
            ring().arguments("gateway"),
            [
                "gateway",
                "--rest-port=3001",
                "--socket-port=3002",
                "--db-processes=3",
                "--log-dir=.corro/logs/gateway",
                &parent
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
                "--log-dir=.corro/logs/db-1",
                &parent
            ]
        );
    }

    #[test]
    fn the_secret_is_no_argument() {
        for process in ring().processes() {
            assert!(!ring().arguments(&process).concat().contains("sesame"));
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

    async fn end_of(script: &str, ending: Option<Ending>, patience: Duration) -> End {
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // The script says when it is ready for a signal.
        let mut out = tokio::io::BufReader::new(child.stdout.take().unwrap());
        tokio::io::AsyncBufReadExt::read_line(&mut out, &mut String::new()).await.unwrap();
        let (endings, asked) = mpsc::unbounded_channel();
        if let Some(ending) = ending {
            endings.send(ending).unwrap();
        }
        watch("db-0".to_owned(), child, asked, patience).await
    }

    const DEAF: &str = "trap '' TERM; echo; while :; do sleep 0.01; done";

    fn code_and_signal(end: &End) -> (Option<i32>, Option<i32>) {
        let status = end.status.as_ref().unwrap();
        (status.code(), status.signal())
    }

    #[tokio::test]
    async fn a_process_is_stopped_or_killed_and_its_own_end_is_told_apart() {
        let willing = "trap 'exit 7' TERM; echo; while :; do sleep 0.01; done";
        let stopped = end_of(willing, Some(Ending::Stop), PATIENCE).await;
        assert_eq!((code_and_signal(&stopped), stopped.asked), ((Some(7), None), Some(Ending::Stop)));
        let killed = end_of(DEAF, Some(Ending::Kill), PATIENCE).await;
        assert_eq!((code_and_signal(&killed), killed.asked), ((None, Some(9)), Some(Ending::Kill)));
        let by_itself = end_of("echo; exit 3", None, PATIENCE).await;
        assert_eq!((code_and_signal(&by_itself), by_itself.asked), ((Some(3), None), None));
    }

    #[tokio::test]
    async fn one_that_does_not_stop_is_killed() {
        let deaf = end_of(DEAF, Some(Ending::Stop), Duration::from_millis(20)).await;
        assert_eq!((code_and_signal(&deaf), deaf.asked), ((None, Some(9)), Some(Ending::Stop)));
    }
}
