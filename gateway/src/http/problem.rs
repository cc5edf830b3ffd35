//! Problems: the one mapping from everything that can go wrong to a response (RFC 9457,
//! `application/problem+json`).
//!
//! A handler returns a [`Problem`]; as a response it is only a status with the problem attached. The text is
//! written by [`finish`], which every response passes on its way out: there the request id is known, and
//! there the framework's own errors (unknown route, wrong method, a path that is not UTF-8) become problems
//! too.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use protocol::Outcome;
use protocol::placement::Partition;
use serde::Serialize;
use uuid::Uuid;

use super::kind::Kind;
use crate::engine_task::{PromotionRefused, RepairRefused, Unserved};

/// One thing that is wrong with a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct InvalidField {
    /// JSON Pointer (RFC 6901) to the field; empty for the whole body.
    pub(super) pointer: String,
    /// What is wrong, to be read after the name of the field.
    pub(super) detail: &'static str,
}

/// No more errors are listed for one line among many.
const MAX_ERRORS: usize = 16;

/// A pointer into one line among many is cut off here, in bytes.
const MAX_POINTER: usize = 256;

/// What went wrong with a request.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    kind: Kind,
    detail: Cow<'static, str>,
    /// The partition that did not answer.
    partition: Option<Partition>,
    /// Everything that is wrong with the body.
    errors: Vec<InvalidField>,
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), partition: None, errors: Vec::new() }
    }

    pub(super) fn invalid(errors: Vec<InvalidField>) -> Self {
        Self { errors, ..Self::new(Kind::InvalidFields, "The fields named in errors are not valid.") }
    }

    pub(super) fn not_ready(partition: Option<Partition>, detail: String) -> Self {
        Self::new(Kind::NotReady, detail).about(partition)
    }

    pub(super) fn late_read(partition: Option<Partition>) -> Self {
        let detail = "The deadline passed without an answer. Nothing was changed, so it can be asked again.";
        Self::new(Kind::NoAnswer, detail).about(partition)
    }

    pub(super) fn late_write(partition: Option<Partition>) -> Self {
        let detail = "The deadline passed, and the outcome is unknown: the write may have been applied, or \
                      may be yet. Read the user before you decide to write again.";
        Self::new(Kind::OutcomeUnknown, detail).about(partition)
    }

    /// An error of this program. The details belong in the log, not in the answer.
    pub(super) fn internal() -> Self {
        Self::new(Kind::Internal, "The log of the gateway says more, under this request id.")
    }

    pub(super) fn user_not_found() -> Self {
        Self::new(Kind::UserNotFound, "No user has that id.")
    }

    pub(super) fn stopping() -> Self {
        Unserved::Stopping.into()
    }

    /// Its stable name.
    pub(super) fn name(&self) -> &'static str {
        self.kind.describe().1
    }

    fn of_framework(status: StatusCode) -> Self {
        let kind = Kind::of_framework(status);
        match kind {
            Kind::RouteNotFound => Self::new(kind, "No route of this API has that path."),
            Kind::MethodNotAllowed => Self::new(kind, "The Allow header lists the methods that it takes."),
            Kind::Internal => Self::internal(),
            _ => Self::new(kind, kind.describe().2),
        }
    }

    fn about(self, partition: Option<Partition>) -> Self {
        Self { partition, ..self }
    }

    /// The problem of one line among many, as a line.
    pub(super) fn of_line(self, line: u64) -> Vec<u8> {
        self.brief().text(Some(line), None)
    }

    /// The problem that ends a stream of lines, as a line. Those after `last_line` were not looked at.
    pub(super) fn after_line(self, last_line: u64) -> Vec<u8> {
        self.text(None, Some(last_line))
    }

    /// With no more than a few of the errors, and none of them long: a line of 64 KiB may have thousands.
    fn brief(mut self) -> Self {
        self.errors.truncate(MAX_ERRORS);
        for error in &mut self.errors {
            if error.pointer.len() > MAX_POINTER {
                let end = error.pointer.floor_char_boundary(MAX_POINTER);
                error.pointer.truncate(end);
            }
        }
        self
    }

    fn text(&self, line: Option<u64>, last_line: Option<u64>) -> Vec<u8> {
        #[derive(Serialize)]
        struct Rendered<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            line: Option<u64>,
            status: u16,
            r#type: &'static str,
            title: &'static str,
            detail: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            last_line: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            partition: Option<Partition>,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [InvalidField],
        }
        let (status, r#type, title) = self.kind.describe();
        let (status, detail, errors) = (status.as_u16(), &*self.detail, &*self.errors);
        let rendered =
            Rendered { line, status, r#type, title, detail, last_line, partition: self.partition, errors };
        let mut text = serde_json::to_vec(&rendered).expect("strings and numbers always serialize");
        text.push(b'\n');
        text
    }

    fn render(&self, instance: &str) -> Vec<u8> {
        #[derive(Serialize)]
        struct Rendered<'a> {
            r#type: &'static str,
            title: &'static str,
            status: u16,
            detail: &'a str,
            instance: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            partition: Option<Partition>,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [InvalidField],
        }
        let (status, r#type, title) = self.kind.describe();
        let rendered = Rendered {
            r#type,
            title,
            status: status.as_u16(),
            detail: &self.detail,
            instance,
            partition: self.partition,
            errors: &self.errors,
        };
        serde_json::to_vec(&rendered).expect("strings and numbers always serialize")
    }

    /// The bytes of the whole response, for a connection that ends with it and has no router.
    pub(super) fn into_raw_response(self) -> Vec<u8> {
        let instance = Uuid::new_v4().simple().to_string();
        let body = self.render(&instance);
        let status = self.kind.describe().0;
        let mut response = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n \
             connection: close\r\nx-request-id: {instance}\r\n",
            body.len()
        )
        .into_bytes();
        if let Some((name, value)) = self.kind.header() {
            response.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        response.extend(b"\r\n");
        response.extend(body);
        response
    }
}

/// # Errors
/// Where the write was refused.
pub(super) fn ensure_done(outcome: Outcome) -> Result<(), Problem> {
    match outcome {
        Outcome::Applied | Outcome::Unchanged | Outcome::Repeated => Ok(()),
        Outcome::Exists => Err(Problem::new(Kind::UserExists, "A user with that id exists already.")),
        Outcome::KeyReused => Err(Problem::new(
            Kind::KeyReused,
            "Another request was made with this Idempotency-Key. Nothing was done.",
        )),
        Outcome::NotFound => Err(Problem::user_not_found()),
        Outcome::PreconditionFailed => Err(Problem::new(
            Kind::PreconditionFailed,
            "The version that the user has now is not one that the condition allows. Nothing was changed.",
        )),
    }
}

impl From<Unserved> for Problem {
    fn from(unserved: Unserved) -> Self {
        match &unserved {
            Unserved::Unavailable { partition, .. } => {
                Self::new(Kind::Unavailable, format!("Nothing was done: {unserved}.")).about(Some(*partition))
            }
            Unserved::Overloaded { partition } => {
                Self::new(Kind::Overloaded, format!("Nothing was done: {unserved}.")).about(Some(*partition))
            }
            Unserved::Stopping => Self::new(Kind::Unavailable, format!("No answer: {unserved}.")),
            Unserved::OutcomeUnknown { partition } => Self::late_write(Some(*partition)),
        }
    }
}

impl From<RepairRefused> for Problem {
    fn from(refused: RepairRefused) -> Self {
        let (kind, partition) = match refused {
            RepairRefused::NoSuchPartition { .. } => (Kind::PartitionNotFound, None),
            RepairRefused::NotNow { partition, .. } => (Kind::NotRepairable, Some(partition)),
            RepairRefused::Stopping => (Kind::Unavailable, None),
        };
        Self::new(kind, format!("Nothing was done: {refused}.")).about(partition)
    }
}

impl From<PromotionRefused> for Problem {
    fn from(refused: PromotionRefused) -> Self {
        let (kind, partition) = match refused {
            PromotionRefused::NoSuchPartition { .. } => (Kind::PartitionNotFound, None),
            PromotionRefused::Served { partition } => (Kind::PartitionServed, Some(partition)),
            PromotionRefused::NoCandidate { partition, .. } => (Kind::Unavailable, Some(partition)),
            PromotionRefused::Stopping => (Kind::Unavailable, None),
        };
        Self::new(kind, format!("Nothing was done: {refused}.")).about(partition)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.kind.describe().0.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the problem of an error response; other responses pass as they are. Headers that are there already
/// stay, such as `Allow`.
pub(super) fn finish(mut response: Response, request_id: &HeaderValue) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let problem =
        response.extensions_mut().remove::<Problem>().unwrap_or_else(|| Problem::of_framework(status));
    let instance = request_id.to_str().expect("request ids are visible ASCII");
    *response.body_mut() = Body::from(problem.render(instance));
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some((name, value)) = problem.kind.header() {
        headers.insert(name, value);
    }
    response
}
