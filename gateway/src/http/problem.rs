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
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use protocol::Outcome;
use protocol::placement::Partition;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::kind::Kind;
use crate::engine_task::{OrderRefused, Unserved};
use crate::scatter::erase::NotErased;

const PROBLEM_JSON: &str = "application/problem+json";

/// No more errors are listed for one line among many.
const MAX_ERRORS: usize = 16;

/// A pointer into one line among many is cut off here, in bytes.
const MAX_POINTER: usize = 256;

/// One thing that is wrong with a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct InvalidField {
    /// JSON Pointer to the field; empty for the whole body.
    pub(crate) pointer: String,
    /// What is wrong with it, to be read after the name of the field.
    pub(crate) detail: &'static str,
}

/// What a handler answers.
pub(crate) type Answer<T = Response> = Result<T, Problem>;

/// What went wrong with a request.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    kind: Kind,
    detail: Cow<'static, str>,
    header: Option<(HeaderName, &'static str)>,
    /// The partition that did not answer.
    partition: Option<Partition>,
    /// Everything that is wrong with the body.
    errors: Vec<InvalidField>,
}

/// What went wrong (RFC 9457).
#[derive(Default, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Rendered<'a> {
    /// Stable: programs branch on it. `urn:corro:problem:` and a name.
    r#type: String,
    /// The kind of problem.
    title: &'a str,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// The cause of this one.
    detail: &'a str,
    /// The request id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required, nullable = false)]
    instance: Option<&'a str>,
    // Of one line among many.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    line: Option<u64>,
    // Of the end of a stream of lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    last_line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u16, required = false)]
    partition: Option<Partition>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false, inline)]
    errors: &'a [InvalidField],
}

impl Rendered<'_> {
    /// As a line of JSON.
    fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec(self).expect("strings and numbers always serialize");
        text.push(b'\n');
        text
    }
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        let header = kind.header();
        Self { kind, detail: detail.into(), header, partition: None, errors: Vec::new() }
    }

    pub(crate) fn invalid(errors: Vec<InvalidField>) -> Self {
        Self { errors, ..Self::new(Kind::InvalidFields, "The fields named in errors are not valid.") }
    }

    pub(crate) fn late_read(partition: Option<Partition>) -> Self {
        let detail = "The deadline passed without an answer. Nothing was changed, so it can be asked again.";
        Self::new(Kind::NoAnswer, detail).about(partition)
    }

    pub(crate) fn late_write(partition: Option<Partition>) -> Self {
        let detail = "The deadline passed, and the outcome is unknown: the write may have been applied, or \
                      may be yet. Read the user before you decide to write again.";
        Self::new(Kind::OutcomeUnknown, detail).about(partition)
    }

    /// An error of this program. The details belong in the log, not in the answer.
    pub(crate) fn internal() -> Self {
        Self::new(Kind::Internal, "The log of the gateway says more, under this request id.")
    }

    pub(crate) fn user_not_found() -> Self {
        Self::new(Kind::UserNotFound, "No user has that id.")
    }

    pub(crate) fn precondition_failed() -> Self {
        let detail =
            "The version that the user has now is not one that the condition allows. Nothing was changed.";
        Self::new(Kind::PreconditionFailed, detail)
    }

    fn of_framework(status: StatusCode, methods: &str) -> Self {
        let (kind, detail) = match status {
            StatusCode::NOT_FOUND => {
                (Kind::RouteNotFound, "Nothing is at that path: /docs shows what there is.")
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                return Self::new(Kind::MethodNotAllowed, format!("The path takes {methods}."));
            }
            StatusCode::PAYLOAD_TOO_LARGE => (Kind::BodyTooLarge, "The body is too large."),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                (Kind::UnsupportedMediaType, "The body has the wrong type.")
            }
            StatusCode::INTERNAL_SERVER_ERROR => return Self::internal(),
            other => (Kind::Framework(other), "The request cannot be answered."),
        };
        Self::new(kind, detail)
    }

    /// Names the partition that it is about.
    pub(crate) fn about(self, partition: Option<Partition>) -> Self {
        Self { partition, ..self }
    }

    /// Adds a header to the answer.
    pub(crate) fn with_header(self, name: HeaderName, value: &'static str) -> Self {
        Self { header: Some((name, value)), ..self }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The problem of one line among many, as a line: with no more than a few errors, and none of them long,
    /// since a line of 64 KiB may have thousands.
    pub(crate) fn of_line(mut self, line: u64) -> Vec<u8> {
        self.errors.truncate(MAX_ERRORS);
        for error in &mut self.errors {
            error.pointer.truncate(error.pointer.floor_char_boundary(MAX_POINTER));
        }
        Rendered { line: Some(line), ..self.render() }.text()
    }

    /// The problem that ends a stream of lines, as a line. Those after `last_line` were not looked at.
    pub(crate) fn after_line(self, last_line: u64) -> Vec<u8> {
        Rendered { last_line: Some(last_line), ..self.render() }.text()
    }

    fn of_request(&self, id: &str) -> Vec<u8> {
        Rendered { instance: Some(id), ..self.render() }.text()
    }

    fn render(&self) -> Rendered<'_> {
        let Self { kind, detail, partition, errors, header: _ } = self;
        let (r#type, title, status) = (kind.r#type(), kind.title(), kind.status().as_u16());
        Rendered { r#type, title, status, detail, partition: *partition, errors, ..Rendered::default() }
    }

    /// The bytes of the whole response, for a connection that ends with it and has no router.
    pub(crate) fn into_raw_response(self) -> Vec<u8> {
        let id = Uuid::new_v4().simple().to_string();
        let body = self.of_request(&id);
        let (status, length) = (self.kind.status(), body.len());
        let header = self.header.map(|(name, value)| format!("{name}: {value}\r\n"));
        let mut response = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {length}\r\n\
             x-request-id: {id}\r\nconnection: close\r\n{}\r\n",
            header.unwrap_or_default()
        )
        .into_bytes();
        response.extend(body);
        response
    }
}

/// # Errors
/// Where the write was refused.
pub(crate) fn ensure_done(outcome: Outcome) -> Result<(), Problem> {
    match outcome {
        Outcome::Applied | Outcome::Unchanged | Outcome::Repeated => Ok(()),
        Outcome::Exists => Err(Problem::new(Kind::UserExists, "A user with that id exists already.")),
        Outcome::KeyReused => Err(Problem::new(
            Kind::KeyReused,
            "Another request was made with this Idempotency-Key. Nothing was done.",
        )),
        Outcome::NotFound => Err(Problem::user_not_found()),
        Outcome::PreconditionFailed => Err(Problem::precondition_failed()),
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

impl From<NotErased> for Problem {
    fn from(not_erased: NotErased) -> Self {
        match not_erased {
            NotErased::NotDeleted(unserved) => unserved.into(),
            NotErased::Left(why) => {
                let detail =
                    format!("Ask again. No answer shows the user, but something is left of it: {why}.");
                Self::new(Kind::NotErased, detail)
            }
        }
    }
}

impl From<OrderRefused> for Problem {
    fn from(refused: OrderRefused) -> Self {
        let (kind, partition) = match refused {
            OrderRefused::NoSuchPartition { .. } => (Kind::PartitionNotFound, None),
            OrderRefused::Served { partition } => (Kind::PartitionServed, Some(partition)),
            OrderRefused::NoCandidate { partition, .. } => (Kind::Unavailable, Some(partition)),
            OrderRefused::NotRepairable { partition, .. } => (Kind::NotRepairable, Some(partition)),
            OrderRefused::Stopping => (Kind::Unavailable, None),
        };
        Self::new(kind, format!("Nothing was done: {refused}.")).about(partition)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.kind.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the problem of an error response; other responses pass as they are, and so do those of a library
/// with errors of its own, whose `methods` are not known. Headers that are there already stay.
pub(crate) fn finish(mut response: Response, request_id: &HeaderValue, methods: Option<&str>) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let problem = match (response.extensions_mut().remove::<Problem>(), methods) {
        (Some(problem), _) => problem,
        (None, Some(methods)) => Problem::of_framework(status, methods),
        (None, None) => return response,
    };
    let instance = request_id.to_str().expect("request ids are visible ASCII");
    *response.body_mut() = Body::from(problem.of_request(instance));
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    if let Some((name, value)) = problem.header {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
