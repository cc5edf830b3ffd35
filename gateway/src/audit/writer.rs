//! The thread that writes, and the queue before it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use process::LogThrottle;
use prometheus::IntCounter;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tracing::{error, warn};

use super::file::AuditFile;

/// Bytes of lines that wait for the disk. A line is some 300 bytes.
const WAITING: usize = 8 << 20;

/// What is kept for the last line of a request: none is longer.
const LAST_LINE: usize = 1 << 10;

/// With `AUDIT_STRICT`, a request waits for its line for so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the end of the process waits for lines.
const AT_THE_END: Duration = Duration::from_secs(1);

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Between the lines of the log.
    Stdout,
    /// A file, and those that it was before.
    File(PathBuf),
}

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "-" => Ok(Self::Stdout),
            _ if text.trim().is_empty() || text.ends_with('/') => Err("the name of a file, or - for stdout"),
            path => Ok(Self::File(path.into())),
        }
    }
}

/// Lines that are not on record: nothing may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the audit log cannot be written")]
pub struct NotOnRecord;

/// Whole lines, with the room that they take, and who waits for them.
struct Message {
    lines: Vec<u8>,
    _room: OwnedSemaphorePermit,
    written: Option<oneshot::Sender<bool>>,
}

/// Writes whole lines.
type Sink = Box<dyn FnMut(&[u8]) -> io::Result<()> + Send>;

/// The audit log, if there is one. All clones are one.
#[derive(Debug, Clone, Default)]
pub struct Audit(Option<Arc<Queue>>);

#[derive(Debug)]
pub(super) struct Queue {
    messages: mpsc::UnboundedSender<Message>,
    /// Has a permit for each byte of [`WAITING`]: it bounds the messages.
    room: Arc<Semaphore>,
    strict: bool,
    lost: IntCounter,
    throttle: Mutex<LogThrottle>,
}

/// Room in the queue that is kept for what follows.
#[derive(Debug)]
pub(super) struct Place(OwnedSemaphorePermit);

impl Audit {
    /// Opens it, and starts the thread. `most` is what all files take together, in bytes.
    ///
    /// # Errors
    /// Where the file cannot be made or written.
    pub fn open(target: &Target, strict: bool, most: u64) -> io::Result<Self> {
        let mut to: Sink = match target {
            Target::Stdout => Box::new(|lines| {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines)?;
                stdout.flush()
            }),
            Target::File(path) => {
                let mut file = AuditFile::open(path, most)?;
                Box::new(move |lines| file.write(lines))
            }
        };
        let (messages, mut queue) = mpsc::unbounded_channel::<Message>();
        let lost = IntCounter::new("corro_audit_lost_total", "Lines of the audit log that were not written.")
            .map_err(io::Error::other)?;
        let counter = lost.clone();
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || {
            let mut throttle = LogThrottle::default();
            while let Some(Message { lines, _room, written }) = queue.blocking_recv() {
                let result = if lines.is_empty() { Ok(()) } else { to(&lines) };
                if let Err(error) = &result {
                    counter.inc_by(count(&lines));
                    if throttle.is_time(Instant::now()) {
                        error!(%error, "the audit log cannot be written");
                    }
                }
                if let Some(written) = written {
                    // Who waited may have gone.
                    let _ = written.send(result.is_ok());
                }
            }
        })?;
        let room = Arc::new(Semaphore::new(WAITING));
        Ok(Self(Some(Arc::new(Queue { messages, room, strict, lost, throttle: Mutex::default() }))))
    }

    /// Counts lines that were not written, if there is an audit log.
    pub fn lost(&self) -> Option<IntCounter> {
        self.0.as_ref().map(|queue| queue.lost.clone())
    }

    /// Waits until everything said so far is written, but not for long.
    pub async fn flush(&self) {
        if let Some(queue) = &self.0
            && timeout(AT_THE_END, queue.put(Vec::new())).await.is_err()
        {
            warn!("the process ends before the audit log is written");
        }
    }

    pub(super) fn queue(&self) -> Option<&Arc<Queue>> {
        self.0.as_ref()
    }
}

impl Queue {
    pub(super) fn is_strict(&self) -> bool {
        self.strict
    }

    /// Waits until the lines are in the file.
    ///
    /// # Errors
    /// Where they are not.
    pub(super) async fn put(&self, lines: Vec<u8>) -> Result<(), NotOnRecord> {
        let (written, answer) = oneshot::channel();
        let put = async {
            let room = self.room(lines.len()).await?;
            self.messages.send(Message { lines, _room: room, written: Some(written) }).ok()?;
            answer.await.ok()
        };
        match timeout(PATIENCE, put).await {
            Ok(Some(true)) => Ok(()),
            _ => Err(NotOnRecord),
        }
    }

    /// Waits for room for the last line of a request.
    ///
    /// # Errors
    /// Where the disk cannot follow.
    pub(super) async fn place(&self) -> Result<Place, NotOnRecord> {
        match timeout(PATIENCE, self.room(LAST_LINE)).await {
            Ok(Some(room)) => Ok(Place(room)),
            _ => Err(NotOnRecord),
        }
    }

    /// Adds lines as soon as there is room; where the disk cannot follow, they are lost.
    pub(super) async fn add_later(&self, lines: &mut Vec<u8>) {
        let room = timeout(PATIENCE, self.room(lines.len())).await.ok().flatten();
        // Nothing is awaited from here on: who gives up waiting has the lines still.
        self.add(std::mem::take(lines), room.map(Place));
    }

    /// Adds lines without waiting; where there is no room, they are lost.
    pub(super) fn add(&self, lines: Vec<u8>, place: Option<Place>) {
        let room = place.map(|Place(room)| room).or_else(|| {
            let length = u32::try_from(lines.len()).ok()?;
            Arc::clone(&self.room).try_acquire_many_owned(length).ok()
        });
        match room {
            // It fails only when the thread has ended.
            Some(room) => drop(self.messages.send(Message { lines, _room: room, written: None })),
            None => self.lose(&lines),
        }
    }

    async fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        // More than there is would never be there.
        let bytes = bytes.min(WAITING) as u32;
        Arc::clone(&self.room).acquire_many_owned(bytes).await.ok()
    }

    fn lose(&self, lines: &[u8]) {
        self.lost.inc_by(count(lines));
        let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        if throttle.is_time(Instant::now()) {
            warn!("lines of the audit log are lost: its disk cannot follow");
        }
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(strict: bool) -> Audit {
        let target: Target = "/dev/full".parse().expect("a file");
        Audit::open(&target, strict, 1 << 20).expect("a device")
    }

    #[tokio::test]
    async fn a_line_that_is_waited_for_is_in_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        let audit = Audit::open(&Target::File(path.clone()), true, 1 << 20).expect("a file");
        let queue = audit.queue().expect("an audit log");
        queue.put(b"one\n".to_vec()).await.expect("on record");
        assert_eq!(std::fs::read_to_string(&path).expect("text"), "one\n");
        let place = queue.place().await.expect("room");
        queue.add(b"two\n".to_vec(), Some(place));
        queue.add_later(&mut b"three\nfour\n".to_vec()).await;
        audit.flush().await;
        assert_eq!(std::fs::read_to_string(&path).expect("text"), "one\ntwo\nthree\nfour\n");
        assert_eq!(queue.room.available_permits(), WAITING);
    }

    #[tokio::test]
    async fn a_full_disk_is_said_and_counted() {
        let audit = full(true);
        let queue = audit.queue().expect("an audit log");
        assert_eq!(queue.put(b"one\ntwo\n".to_vec()).await, Err(NotOnRecord));
        queue.add(b"three\n".to_vec(), None);
        audit.flush().await;
        assert_eq!(audit.lost().expect("a counter").get(), 3);
    }

    #[tokio::test]
    async fn what_has_no_room_is_lost() {
        let audit = full(false);
        let queue = audit.queue().expect("an audit log");
        let _room = queue.room(WAITING).await.expect("all of it");
        queue.add(b"one\n".to_vec(), None);
        assert_eq!(audit.lost().expect("a counter").get(), 1);
    }

    #[test]
    fn targets() {
        assert_eq!("-".parse(), Ok(Target::Stdout));
        assert_eq!("logs/audit".parse(), Ok(Target::File("logs/audit".into())));
        assert!("".parse::<Target>().is_err() && "logs/".parse::<Target>().is_err());
    }
}
