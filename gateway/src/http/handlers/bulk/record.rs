//! What the audit log says of the lines of one request: a line for each.
//!
//! A summary would not do: who asks which token changed a user has to find the user. The last line of the
//! request has the number of its lines, so that it can be seen that none is missing.

use axum::http::StatusCode;
use protocol::Version;

use super::window::Asking;
use crate::audit::{Answer, BulkLine, Outcome};
use crate::http::audited::{Audited, answer};
use crate::http::kind::Kind;
use crate::http::problem::Problem;

/// The record of a request. Without an audit log it does nothing.
#[derive(Debug)]
pub(super) struct Record {
    audited: Audited,
    /// Lines with an outcome.
    text: Vec<u8>,
    /// Lines that are about to be asked, where that has to be on record first.
    begun: Vec<u8>,
}

impl Asking {
    /// What the audit log says of it.
    pub(super) fn of(&self) -> BulkLine {
        BulkLine { line: self.line, op: Some(self.op), user: Some(self.id) }
    }
}

impl Record {
    pub(super) fn new(audited: Audited) -> Self {
        Self { audited, text: Vec::new(), begun: Vec::new() }
    }

    /// The line is about to be asked.
    pub(super) fn begin(&mut self, asking: &Asking) {
        if let Some(entry) = self.audited.0.as_ref().filter(|entry| entry.is_strict()) {
            let answer = Answer { outcome: Outcome::Begun, status: None, problem: None };
            entry.write_line(asking.of(), answer, Version::ZERO, &mut self.begun);
        }
    }

    /// Waits until that is on record. If this is given up, none of it was asked.
    ///
    /// # Errors
    /// Where it is not.
    pub(super) async fn begun(&mut self) -> Result<(), Kind> {
        match &self.audited.0 {
            Some(entry) if !self.begun.is_empty() => {
                entry.put(std::mem::take(&mut self.begun)).await.map_err(|_| Kind::NotOnRecord)
            }
            _ => Ok(()),
        }
    }

    /// The line is done.
    pub(super) fn done(&mut self, asking: &Asking, version: Version) {
        self.add(asking.of(), asking.success, None, version);
    }

    /// The line has a problem. Returns its result.
    pub(super) fn problem(&mut self, of: BulkLine, problem: Problem) -> Vec<u8> {
        let kind = problem.kind();
        self.add(of, kind.status(), Some(kind), Version::ZERO);
        problem.of_line(of.line)
    }

    fn add(&mut self, of: BulkLine, status: StatusCode, problem: Option<Kind>, version: Version) {
        if let Some(entry) = &self.audited.0 {
            entry.write_line(of, answer(status, problem), version, &mut self.text);
        }
    }

    /// Hands over what is known. May be given up at any time.
    pub(super) async fn keep(&mut self) {
        if let Some(entry) = self.audited.0.as_ref().filter(|_| !self.text.is_empty()) {
            entry.add(&mut self.text).await;
        }
    }
}
