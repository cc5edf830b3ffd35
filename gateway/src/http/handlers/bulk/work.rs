//! The task of one bulk request: reads lines, asks, and puts the results into their order.

use std::mem;
use std::time::Duration;

use axum::Error;
use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use hyper::body::Frame;
use protocol::Outcome;
use protocol::placement::partition_of;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until, timeout};

use super::line::{self, Asked};
use super::lines::{Lines, MAX_LINE};
use super::record::Record;
use super::results::Results;
use super::window::{Asking, Window};
use crate::audit::BulkLine;
use crate::engine_task::{OneOfMany, Reply, Unserved};
use crate::http::api::Api;
use crate::http::audited::Audited;
use crate::http::kind::Kind;
use crate::http::problem::{Problem, ensure_done};

/// So many lines are parsed before others get their turn.
const AT_ONCE: usize = 256;

/// Results are handed over when they have that much text, or no more are known.
const PORTION: usize = 32 << 10;

/// What a portion takes beside its text.
const OVERHEAD: usize = 64;

/// A caller may send nothing for that long.
const IDLE: Duration = Duration::from_secs(60);

/// Lines in flight get that long when the gateway stops: it is less than the gateway itself takes.
const STOPPING: Duration = Duration::from_millis(2_500);

/// After an early end, what is still sent is read and thrown away for that long: a connection that is closed
/// with bytes unread is reset, and results that are on their way are lost.
const LINGER: Duration = Duration::from_millis(500);

/// Why no more lines are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// There are no more.
    Reached,
    /// The gateway stops.
    Stopping,
    /// There is no room for more results, and none were read for a while.
    Unread,
    /// See [`IDLE`].
    Idle,
    /// The body broke off.
    Broken,
}

impl End {
    fn problem(self) -> Option<Problem> {
        let (kind, detail) = match self {
            Self::Reached => return None,
            Self::Stopping => {
                (Kind::Stopping, "The lines after last_line were not looked at: send them again.")
            }
            Self::Unread => (
                Kind::ResultsUnread,
                "The lines after last_line were not looked at: so many results wait to be read that there is \
                 no room for more. Read results while you send lines.",
            ),
            Self::Idle => (
                Kind::BodyTooSlow,
                "No line came for a minute. The lines after last_line were not looked at.",
            ),
            Self::Broken => (
                Kind::MalformedBody,
                "The body broke off, or its framing is wrong. The lines after last_line were not looked at.",
            ),
        };
        Some(Problem::new(kind, detail))
    }
}

/// Works until every line has its result, or the response is dropped.
pub(super) async fn run(
    api: Api,
    first: Option<Result<Frame<Bytes>, Error>>,
    body: Body,
    results: Results,
    audited: Audited,
) {
    let abandoned = results.abandoned();
    let (replies_in, replies) = unbounded_channel();
    let mut work = Work {
        api,
        body: Some(body),
        broken: false,
        lines: Lines::default(),
        exhausted: true,
        window: Window::default(),
        unasked: Vec::new(),
        record: Record::new(audited),
        replies_in,
        replies,
        text: Vec::new(),
        results,
    };
    if let Some(first) = first {
        work.take(Some(first));
    }
    tokio::select! {
        () = abandoned => {}
        () = work.run() => {}
    }
    work.give_up().await;
}

struct Work {
    api: Api,
    /// `None` when it is read to its end.
    body: Option<Body>,
    /// It ended with an error.
    broken: bool,
    lines: Lines,
    /// No whole line is left of what was read.
    exhausted: bool,
    window: Window,
    /// What is in the window, and is about to be asked.
    unasked: Vec<OneOfMany>,
    record: Record,
    /// Cloned into each question.
    replies_in: UnboundedSender<Reply>,
    replies: UnboundedReceiver<Reply>,
    /// Results that have left the window.
    text: Vec<u8>,
    results: Results,
}

impl Work {
    async fn run(&mut self) {
        let closing = self.api.settings().closing.clone();
        let end = closing.run_until_cancelled(self.read()).await.unwrap_or(End::Stopping);
        self.refuse(|| Unserved::Stopping.into());
        let patience = if end == End::Stopping { STOPPING } else { Duration::MAX };
        if timeout(patience, self.settle_all()).await.is_err() {
            self.expire(Instant::now() + self.api.patience()).await;
        }
        self.text.extend(std::iter::from_fn(|| self.window.take()).flatten());
        if let Some(problem) = end.problem() {
            self.text.extend(problem.after_line(self.lines.number()));
        }
        self.results.add(mem::take(&mut self.text), None);
        match end {
            End::Reached | End::Broken => {}
            End::Unread => self.discard().await,
            End::Stopping | End::Idle => {
                let _ = timeout(LINGER, self.discard()).await;
            }
        }
    }

    /// Reads and asks until there is nothing more to read, or a reason not to. May be given up at any time.
    async fn read(&mut self) -> End {
        loop {
            self.parse();
            self.ask().await;
            self.record.keep().await;
            if let Err(end) = self.deliver().await {
                return end;
            }
            if self.exhausted && self.body.is_none() {
                return if self.broken { End::Broken } else { End::Reached };
            }
            let can_ask = self.window.len() < self.results.window();
            if can_ask && !self.exhausted {
                // There is more to do at once, but others get their turn.
                tokio::task::yield_now().await;
                self.settle_received();
                continue;
            }
            // What is awaited: an answer of the ring, or more lines.
            let deadline = self.window.deadline();
            tokio::select! {
                biased;
                Some(reply) = self.replies.recv() => self.settle(reply),
                frame = frame(&mut self.body), if can_ask => self.take(frame),
                () = sleep_until(deadline.unwrap_or_else(|| Instant::now() + IDLE)) => match deadline {
                    Some(_) => self.expire(Instant::now()).await,
                    None => return End::Idle,
                },
            }
        }
    }

    /// Takes what came of the body.
    fn take(&mut self, frame: Option<Result<Frame<Bytes>, Error>>) {
        match frame {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.lines.push(&data);
                    self.exhausted = false;
                }
            }
            Some(Err(_)) => (self.body, self.broken) = (None, true),
            // What has no end may still be a line, which there is room for as soon as it is looked for.
            None => (self.body, self.exhausted) = (None, false),
        }
    }

    /// Takes the lines that there is room for, up to [`AT_ONCE`].
    fn parse(&mut self) {
        let (limit, deadline) = (self.results.window(), self.api.deadline());
        for _ in 0..AT_ONCE {
            if self.exhausted || self.window.len() >= limit {
                break;
            }
            let next = match self.lines.next() {
                None if self.body.is_none() && !self.broken => self.lines.end(),
                next => next,
            };
            let Some((line, content)) = next else {
                self.exhausted = true;
                break;
            };
            match content.ok_or_else(too_long).and_then(|text| line::parse(&text)) {
                Ok(Asked { id, operation, condition }) => {
                    let (success, op) = (line::success(&operation), line::name(&operation));
                    let asking = Asking { line, id, op, success, deadline };
                    self.record.begin(&asking);
                    let ticket = self.window.ask(asking);
                    self.unasked.push(OneOfMany { ticket, id, operation, condition });
                }
                Err(problem) => {
                    let of = BulkLine { line, op: None, user: None };
                    self.window.know(self.record.problem(of, problem));
                }
            }
        }
    }

    /// Asks for what was taken. If this is given up, that was not asked.
    async fn ask(&mut self) {
        if self.unasked.is_empty() {
            return;
        }
        if let Err(problem) = self.record.begun().await {
            self.refuse(|| Problem::new(problem, "Nothing was done: the audit log cannot be written."));
            return;
        }
        if self.api.write_many(mem::take(&mut self.unasked), &self.replies_in).is_err() {
            // The engine has ended: what was asked before will not be answered either.
            let now = self.api.deadline();
            self.window
                .expire(now, |asking| self.record.problem(asking.of(), Problem::from(Unserved::Stopping)));
        }
    }

    /// Settles what was not asked.
    fn refuse(&mut self, problem: impl Fn() -> Problem) {
        for OneOfMany { ticket, .. } in self.unasked.drain(..) {
            self.window.settle(ticket, |asking| self.record.problem(asking.of(), problem()));
        }
    }

    /// Nobody waits any more for what is left: only the audit log has to know of it.
    async fn give_up(&mut self) {
        self.refuse(|| Unserved::Stopping.into());
        let late = Instant::now() + self.api.patience() + IDLE;
        self.window.expire(late, |asking| self.record.problem(asking.of(), Problem::late_write(None)));
        self.record.keep().await;
    }

    fn settle_received(&mut self) {
        while let Ok(reply) = self.replies.try_recv() {
            self.settle(reply);
        }
    }

    fn settle(&mut self, Reply { ticket, version, result }: Reply) {
        self.window.settle(ticket, |asking| {
            let outcome = match result {
                // It may have left before the end.
                Err(Unserved::Stopping) => Err(Problem::late_write(None)),
                Err(unserved) => Err(Problem::from(unserved)),
                Ok(answer) => ensure_done(answer.outcome).map(|()| match answer.outcome {
                    Outcome::Applied => version,
                    _ => answer.user.map_or(version, |found| found.0),
                }),
            };
            match outcome {
                Ok(version) => {
                    self.record.done(asking, version);
                    asking.done(version)
                }
                Err(problem) => self.record.problem(asking.of(), problem),
            }
        });
    }

    /// Gives up waiting for lines that are late at `now`.
    async fn expire(&mut self, now: Instant) {
        let size = self.api.known_size().await;
        self.settle_received();
        self.window.expire(now, |asking| {
            let partition = size.map(|size| partition_of(&asking.id, size));
            self.record.problem(asking.of(), Problem::late_write(partition))
        });
    }

    /// Waits for what is in flight.
    async fn settle_all(&mut self) {
        loop {
            self.text.extend(std::iter::from_fn(|| self.window.take()).flatten());
            let Some(deadline) = self.window.deadline() else { return };
            tokio::select! {
                biased;
                Some(reply) = self.replies.recv() => self.settle(reply),
                () = sleep_until(deadline) => self.expire(Instant::now()).await,
            }
        }
    }

    /// Hands over the results that are next, as soon as there is room for them.
    async fn deliver(&mut self) -> Result<(), End> {
        loop {
            while self.text.len() < PORTION
                && let Some(result) = self.window.take()
            {
                self.text.extend(result);
            }
            if self.text.is_empty() {
                return Ok(());
            }
            let room = self.results.room(self.text.len() + OVERHEAD);
            let room = timeout(self.api.patience(), room).await.map_err(|_| End::Unread)?;
            self.results.add(mem::take(&mut self.text), Some(room));
        }
    }

    /// Reads what is left and throws it away.
    async fn discard(&mut self) {
        while let Ok(Some(Ok(_))) = timeout(IDLE, frame(&mut self.body)).await {}
    }
}

/// What comes next of the body; nothing where it is read already.
async fn frame(body: &mut Option<Body>) -> Option<Result<Frame<Bytes>, Error>> {
    match body {
        Some(body) => body.frame().await,
        None => None,
    }
}

fn too_long() -> Problem {
    Problem::new(Kind::BodyTooLarge, format!("A line may have at most {MAX_LINE} bytes."))
}
