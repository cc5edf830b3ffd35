//! One request, from what it asks to its outcome.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::placement::Partition;
use protocol::{UserId, Version};

use super::line::{self, Answer, Line, Outcome};
use super::writer::{Audit, NotOnRecord, Place, Queue};

/// What is known of a request before it is handled.
#[derive(Debug)]
pub struct Request {
    /// Its id.
    pub id: String,
    /// The name of its token.
    pub token: Option<Arc<str>>,
    /// Where it comes from.
    pub address: Option<IpAddr>,
    /// Its method.
    pub method: &'static str,
    /// The template of its path.
    pub route: &'static str,
}

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// All copies, or the lines of a bulk request.
    Ring,
    /// A partition.
    Partition(Partition),
    /// A user.
    User(UserId),
}

/// A request that is put on record. Its last line is written when this is dropped, which is when the handler
/// has ended and the answer is known, or the caller is gone.
#[derive(Debug)]
pub struct Entry {
    queue: Arc<Queue>,
    request: Request,
    facts: Mutex<Facts>,
}

#[derive(Debug, Default)]
struct Facts {
    /// What is asked of the ring, if it has come to that.
    subject: Option<Subject>,
    version: Option<Version>,
    answer: Option<Answer>,
    /// Of a bulk request: lines on record.
    lines: u64,
    /// For the last line.
    place: Option<Place>,
}

/// A line of a bulk request.
#[derive(Debug, Clone, Copy)]
pub struct BulkLine {
    /// Which one.
    pub line: u64,
    /// `create`, `update` or `delete`, as far as it is known.
    pub op: Option<&'static str>,
    /// The user, as far as it is known.
    pub user: Option<UserId>,
}

impl Entry {
    /// Begins one, if there is an audit log.
    pub fn begin(audit: &Audit, request: impl FnOnce() -> Request) -> Option<Arc<Self>> {
        let queue = Arc::clone(audit.queue()?);
        Some(Arc::new(Self { queue, request: request(), facts: Mutex::default() }))
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called before anything is asked of the ring.
    ///
    /// # Errors
    /// Nothing may be done.
    pub async fn ask(&self, subject: Subject) -> Result<(), NotOnRecord> {
        if self.queue.is_strict() {
            let place = self.queue.place().await?;
            let mut text = Vec::new();
            Line { outcome: Some(Outcome::Begun), ..self.line(Some(subject)) }.write(&mut text);
            self.queue.put(text).await?;
            self.facts().place = Some(place);
        }
        self.facts().subject = Some(subject);
        Ok(())
    }

    /// What the user has from now on.
    pub fn version(&self, version: Version) {
        self.facts().version = Some(version);
    }

    /// The answer is known.
    pub fn answered(&self, answer: Answer) {
        self.facts().answer = Some(answer);
    }

    /// Whether lines of a bulk request have to be on record before they are asked.
    pub fn is_strict(&self) -> bool {
        self.queue.is_strict()
    }

    /// Adds the line of a line to a text.
    pub fn write_line(&self, of: BulkLine, answer: Answer, version: Version, text: &mut Vec<u8>) {
        let BulkLine { line, op, user } = of;
        let Answer { outcome, status, problem } = answer;
        Line {
            line: Some(line),
            op,
            user,
            outcome: Some(outcome),
            status,
            problem,
            version: line::version(version),
            ..self.line(None)
        }
        .write(text);
        if outcome != Outcome::Begun {
            self.facts().lines += 1;
        }
    }

    /// Waits until the texts of lines are in the file.
    ///
    /// # Errors
    /// Nothing of it may be done.
    pub async fn put(&self, text: Vec<u8>) -> Result<(), NotOnRecord> {
        self.queue.put(text).await
    }

    /// Adds the texts of lines, as soon as there is room.
    pub async fn add(&self, text: &mut Vec<u8>) {
        self.queue.add_later(text).await;
    }

    fn line(&self, subject: Option<Subject>) -> Line<'_> {
        let Request { id, token, address, method, route } = &self.request;
        let user = match subject {
            Some(Subject::User(user)) => Some(user),
            _ => None,
        };
        let partition = match subject {
            Some(Subject::Partition(partition)) => Some(partition),
            _ => None,
        };
        let (request_id, token, address) = (id.as_str(), token.as_deref(), *address);
        Line {
            time: line::now(),
            request_id,
            token,
            address,
            method,
            route,
            user,
            partition,
            ..Line::default()
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Facts { subject, version, answer, lines, place } = std::mem::take(&mut *self.facts());
        let answer = match (answer, subject) {
            (Some(answer), _) => answer,
            // The caller did not wait, and it may be done.
            (None, Some(_)) => Answer { outcome: Outcome::Unknown, status: None, problem: None },
            // Nothing was asked.
            (None, None) => return,
        };
        let mut text = Vec::new();
        Line {
            outcome: Some(answer.outcome),
            status: answer.status,
            problem: answer.problem,
            version: version.and_then(line::version),
            lines: (lines > 0).then_some(lines),
            ..self.line(subject)
        }
        .write(&mut text);
        self.queue.add(text, place);
    }
}
