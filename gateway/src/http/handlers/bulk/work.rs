//! The task of one bulk request: reads lines, asks, and puts the results into their order.

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
use super::lines::{Line, Lines, MAX_LINE};
use super::queue::Queue;
use super::window::{Asking, Verdict, Window};
use crate::engine_task::{OneOfMany, Reply, Unserved};
use crate::http::api::Api;
use crate::http::kind::Kind;
use crate::http::problem::{Problem, ensure_done};

/// So many lines are parsed before others get their turn.
const AT_ONCE: usize = 256;

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

/// Works until every line has its result in the queue, or the response is dropped.
pub(super) async fn run(api: Api, first: Option<Result<Frame<Bytes>, Error>>, body: Body, queue: Queue) {
    let abandoned = queue.abandoned();
    let (replies_in, replies) = unbounded_channel();
    let mut work = Work {
        api,
        body: Some(body),
        broken: false,
        lines: Lines::default(),
        exhausted: true,
        window: Window::default(),
        replies_in,
        replies,
        queue,
    };
    if let Some(first) = first {
        work.take(Some(first));
    }
    tokio::select! {
        () = abandoned => {}
        () = work.work() => {}
    }
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
    /// Cloned into each question.
    replies_in: UnboundedSender<Reply>,
    replies: UnboundedReceiver<Reply>,
    queue: Queue,
}

impl Work {
    async fn work(&mut self) {
        let end = self.read().await;
        let patience = if end == End::Stopping { STOPPING } else { Duration::MAX };
        if timeout(patience, self.settle_all()).await.is_err() {
            self.expire(Instant::now() + IDLE).await;
            self.deliver();
        }
        if let Some(problem) = end.problem() {
            self.queue.add_text(problem.after_line(self.lines.number()));
        }
        match end {
            End::Reached | End::Broken => {}
            End::Unread => self.discard().await,
            End::Stopping | End::Idle => {
                let _ = timeout(LINGER, self.discard()).await;
            }
        }
    }

    /// Reads and asks until there is nothing more to read, or a reason not to.
    async fn read(&mut self) -> End {
        // When something was last heard of the caller: a piece of the body, or that it reads.
        let (mut heard, mut taken) = (Instant::now(), self.queue.taken());
        loop {
            self.ask_more();
            self.deliver();
            if std::mem::replace(&mut taken, self.queue.taken()) != taken {
                heard = Instant::now();
            }
            if self.exhausted && self.body.is_none() {
                return if self.broken { End::Broken } else { End::Reached };
            }
            // As it is now: what was delivered just now has left the window.
            let has_room = self.queue.has_room();
            let can_ask = has_room && self.window.len() < self.queue.window();
            let (wants, more_at_once) = (can_ask && self.exhausted, can_ask && !self.exhausted);
            if more_at_once {
                // There is more to do at once, but others get their turn.
                tokio::task::yield_now().await;
            }
            // What is awaited: an answer of the ring, room for results, or more lines.
            let late = match self.window.deadline() {
                Some(deadline) => (deadline, None),
                None if !has_room => (heard + self.api.patience(), Some(End::Unread)),
                None => (heard + IDLE, Some(End::Idle)),
            };
            let stopping = self.api.closing().clone();
            tokio::select! {
                biased;
                () = stopping.cancelled() => return End::Stopping,
                Some(reply) = self.replies.recv() => self.settle(reply),
                frame = frame(&mut self.body), if wants => {
                    heard = Instant::now();
                    self.take(frame);
                }
                () = std::future::ready(()), if more_at_once => {}
                () = self.queue.read(), if !has_room => {}
                () = sleep_until(late.0) => match late.1 {
                    None => self.expire(Instant::now()).await,
                    Some(end) => return end,
                },
            }
        }
    }

    /// AcceptedMedia what came of the body.
    fn take(&mut self, frame: Option<Result<Frame<Bytes>, Error>>) {
        match frame {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.lines.push(data);
                    self.exhausted = false;
                }
            }
            Some(Err(_)) => (self.body, self.broken) = (None, true),
            None => {
                self.body = None;
                // What has no end may still be a line, which there is room for as soon as it is looked for.
                self.exhausted = false;
            }
        }
    }

    /// Asks for what there is room for, up to [`AT_ONCE`].
    fn ask_more(&mut self) {
        let (limit, deadline) = (self.queue.window(), self.api.deadline());
        let mut writes = Vec::new();
        let mut looked_at = 0;
        while !self.exhausted && looked_at < AT_ONCE && self.window.len() < limit && self.queue.has_room() {
            let next = match self.lines.next() {
                None if self.body.is_none() && !self.broken => self.lines.end(),
                next => next,
            };
            let Some((line, content)) = next else {
                self.exhausted = true;
                break;
            };
            looked_at += 1;
            match parse_operation(content) {
                Ok(Asked { id, operation, condition }) => {
                    let success = line::success(&operation);
                    let ticket = self.window.ask(Asking { line, id, success, deadline });
                    writes.push(OneOfMany { ticket, id, operation, condition });
                }
                Err(problem) => self.window.know(line, Verdict::Problem(problem.of_line(line))),
            }
        }
        if !writes.is_empty() && self.api.write_many(writes, &self.replies_in).is_err() {
            // The coordinator has ended: what was asked before will not be answered either.
            self.window.expire(deadline, |asking| {
                Verdict::Problem(Problem::from(Unserved::Stopping).of_line(asking.line))
            });
        }
    }

    fn settle(&mut self, first: Reply) {
        let mut next = Some(first);
        while let Some(Reply { ticket, version, result }) = next {
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
                        let gone = asking.success == axum::http::StatusCode::NO_CONTENT;
                        let version = (!gone).then_some(version);
                        Verdict::Done { status: asking.success, id: asking.id, version }
                    }
                    Err(problem) => Verdict::Problem(problem.of_line(asking.line)),
                }
            });
            next = self.replies.try_recv().ok();
        }
    }

    /// Gives up waiting for lines that are late at `now`.
    async fn expire(&mut self, now: Instant) {
        let size = self.api.known_size().await;
        self.window.expire(now, |asking| {
            let partition = size.map(|size| partition_of(&asking.id, size));
            Verdict::Problem(Problem::late_write(partition).of_line(asking.line))
        });
    }

    /// Waits for what is in flight.
    async fn settle_all(&mut self) {
        loop {
            self.deliver();
            let Some(deadline) = self.window.deadline() else { return };
            tokio::select! {
                Some(reply) = self.replies.recv() => self.settle(reply),
                () = sleep_until(deadline) => self.expire(Instant::now()).await,
            }
        }
    }

    /// Hands over the results that are next.
    fn deliver(&mut self) {
        let window = &mut self.window;
        self.queue.add(std::iter::from_fn(|| window.take()));
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

fn parse_operation(line: Line) -> Result<Asked, Problem> {
    match line {
        Line::Text(text) => line::parse(&text),
        Line::TooLong => {
            Err(Problem::new(Kind::BodyTooLarge, format!("A line may have at most {MAX_LINE} bytes.")))
        }
    }
}
