//! The kinds of problems: the table of every error that this API answers.
//!
//! The `type` of a problem is stable: `urn:corro:problem:` and a name. Programs branch on it; titles and
//! details are for people and may be reworded.

use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, StatusCode};

/// What kinds of problems there are; each has one status, one `type` and one title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    MalformedHost,
    UnknownHost,
    ForeignOrigin,
    MalformedBody,
    MalformedId,
    MalformedCondition,
    MalformedQuery,
    MalformedKey,
    MalformedEventId,
    FutureEventId,
    ChangesGone,
    TooManySubscribers,
    TooManyRequests,
    TooManyStreams,
    Busy,
    NotOnRecord,
    Unauthorized,
    Forbidden,
    UserNotFound,
    RouteNotFound,
    PartitionNotFound,
    PartitionServed,
    NotRepairable,
    MethodNotAllowed,
    BodyTooSlow,
    UserExists,
    PreconditionFailed,
    KeyReused,
    BodyTooLarge,
    UnsupportedMediaType,
    InvalidFields,
    Internal,
    UnknownTransferCoding,
    Unavailable,
    Overloaded,
    NotErased,
    NotReady,
    NoAnswer,
    OutcomeUnknown,
    ResultsUnread,
    Stopping,
    /// A status that only the framework knows the reason of.
    Framework(StatusCode),
}

impl Kind {
    /// Status, last part of the `type`, title.
    fn describe(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::MalformedHost => (400, "malformed-host", "The Host header cannot be read"),
            Self::UnknownHost => (421, "unknown-host", "The gateway has another name"),
            Self::ForeignOrigin => (403, "foreign-origin", "The page is of a foreign origin"),
            Self::MalformedBody => (400, "malformed-body", "The body cannot be read"),
            Self::MalformedId => (400, "malformed-id", "The id in the path is no UUID"),
            Self::MalformedCondition => (400, "malformed-condition", "The condition cannot be read"),
            Self::MalformedKey => (400, "malformed-key", "The Idempotency-Key cannot be read"),
            Self::MalformedQuery => {
                (400, "malformed-query", "A query parameter cannot be read, or is unknown")
            }
            Self::MalformedEventId => (400, "malformed-event-id", "The id of the last event cannot be read"),
            Self::FutureEventId => (400, "future-event-id", "There is no such event yet"),
            Self::ChangesGone => (410, "changes-gone", "The changes asked for are not kept any more"),
            Self::TooManySubscribers => (503, "too-many-subscribers", "Too many subscribers"),
            Self::TooManyRequests => (429, "too-many-requests", "Too many requests"),
            Self::TooManyStreams => (429, "too-many-streams", "Too many streams of one token or address"),
            Self::Busy => (409, "busy", "Another call of this kind is at work"),
            Self::NotOnRecord => (503, "not-on-record", "The audit log cannot be written"),
            Self::Unauthorized => (401, "unauthorized", "A valid token is needed"),
            Self::Forbidden => (403, "forbidden", "The role of the token is too low"),
            Self::UserNotFound => (404, "user-not-found", "There is no such user"),
            Self::RouteNotFound => (404, "route-not-found", "There is nothing at this path"),
            Self::PartitionNotFound => (404, "partition-not-found", "There is no such partition"),
            Self::PartitionServed => (409, "partition-served", "The partition is served already"),
            Self::NotRepairable => (409, "not-repairable", "The partition cannot be repaired now"),
            Self::MethodNotAllowed => (405, "method-not-allowed", "The path does not take this method"),
            Self::BodyTooSlow => (408, "body-too-slow", "The body did not arrive in time"),
            Self::UserExists => (409, "user-exists", "The user exists already"),
            Self::PreconditionFailed => {
                (412, "precondition-failed", "The version of the user does not fit the condition")
            }
            Self::KeyReused => (422, "key-reused", "The Idempotency-Key belongs to another request"),
            Self::BodyTooLarge => (413, "body-too-large", "The body is too large"),
            Self::UnsupportedMediaType => (415, "unsupported-media-type", "The body has the wrong type"),
            Self::InvalidFields => (422, "invalid-fields", "The user is not valid"),
            Self::Internal => (500, "internal", "Internal server error"),
            Self::UnknownTransferCoding => {
                (501, "unknown-transfer-coding", "The framing of the body is not known here")
            }
            Self::Unavailable => (503, "partition-unavailable", "The partition cannot be served now"),
            Self::Overloaded => (503, "overloaded", "Too much is asked at once"),
            Self::NotErased => (503, "not-erased", "The user is deleted, and not yet erased"),
            Self::NotReady => (503, "not-ready", "Not every partition takes reads and writes"),
            Self::NoAnswer => (504, "no-answer", "No answer in time"),
            Self::OutcomeUnknown => (504, "outcome-unknown", "The outcome of the write is unknown"),
            Self::ResultsUnread => (408, "results-unread", "The results were not read in time"),
            Self::Stopping => (503, "stopping", "The gateway is stopping"),
            Self::Framework(status) => (status.as_u16(), "", status.canonical_reason().unwrap_or("Error")),
        }
    }

    pub(crate) fn status(self) -> StatusCode {
        StatusCode::from_u16(self.describe().0).expect("the table has valid statuses")
    }

    /// The last part of the `type`; empty where only the framework knows the reason.
    pub(crate) fn name(self) -> &'static str {
        self.describe().1
    }

    pub(crate) fn title(self) -> &'static str {
        self.describe().2
    }

    /// The `type`, by which programs branch.
    pub(crate) fn r#type(self) -> String {
        match self {
            Self::Framework(_) => "about:blank".to_owned(),
            _ => format!("urn:corro:problem:{}", self.name()),
        }
    }

    /// Header that belongs to every problem of this kind.
    pub(crate) fn header(self) -> Option<(HeaderName, &'static str)> {
        match self {
            Self::Unauthorized => Some((WWW_AUTHENTICATE, "Bearer realm=\"corro\"")),
            Self::Unavailable
            | Self::Overloaded
            | Self::NotErased
            | Self::NotReady
            | Self::TooManySubscribers
            | Self::TooManyRequests
            | Self::TooManyStreams
            | Self::Busy
            | Self::NotOnRecord => Some((RETRY_AFTER, "1")),
            _ => None,
        }
    }
}
