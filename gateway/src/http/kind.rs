//! The kinds of problems: the table of every error that this API answers.
//!
//! The `type` of a problem is stable: `urn:corro:problem:` and a name. Programs branch on it; titles and
//! details are for people and may be reworded.

use axum::http::header::{ACCEPT, CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};

/// What kinds of problems there are; each has one status, one `type` and one title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    MalformedBody,
    MalformedId,
    MalformedCondition,
    MalformedQuery,
    MalformedKey,
    MalformedEventId,
    FutureEventId,
    ChangesGone,
    TooManySubscribers,
    Unauthorized,
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
    Unavailable,
    Overloaded,
    NotReady,
    NoAnswer,
    OutcomeUnknown,
    ResultsUnread,
    Stopping,
    /// A status that only the framework knows the reason of.
    Framework(StatusCode),
}

impl Kind {
    /// Status, `type`, title.
    pub(super) fn describe(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::MalformedBody => {
                (S::BAD_REQUEST, "urn:corro:problem:malformed-body", "The body cannot be read")
            }
            Self::MalformedId => {
                (S::BAD_REQUEST, "urn:corro:problem:malformed-id", "The id in the path is no UUID")
            }
            Self::MalformedCondition => {
                (S::BAD_REQUEST, "urn:corro:problem:malformed-condition", "The condition cannot be read")
            }
            Self::MalformedKey => {
                (S::BAD_REQUEST, "urn:corro:problem:malformed-key", "The Idempotency-Key cannot be read")
            }
            Self::MalformedQuery => (
                S::BAD_REQUEST,
                "urn:corro:problem:malformed-query",
                "A query parameter cannot be read, or is unknown",
            ),
            Self::MalformedEventId => (
                S::BAD_REQUEST,
                "urn:corro:problem:malformed-event-id",
                "The id of the last event cannot be read",
            ),
            Self::FutureEventId => {
                (S::BAD_REQUEST, "urn:corro:problem:future-event-id", "There is no such event yet")
            }
            Self::ChangesGone => {
                (S::GONE, "urn:corro:problem:changes-gone", "The changes asked for are not kept any more")
            }
            Self::TooManySubscribers => (
                S::SERVICE_UNAVAILABLE,
                "urn:corro:problem:too-many-subscribers",
                "Too many listen to changes",
            ),
            Self::Unauthorized => {
                (S::UNAUTHORIZED, "urn:corro:problem:unauthorized", "A valid token is needed")
            }
            Self::UserNotFound => (S::NOT_FOUND, "urn:corro:problem:user-not-found", "There is no such user"),
            Self::RouteNotFound => {
                (S::NOT_FOUND, "urn:corro:problem:route-not-found", "There is nothing at this path")
            }
            Self::PartitionNotFound => {
                (S::NOT_FOUND, "urn:corro:problem:partition-not-found", "There is no such partition")
            }
            Self::PartitionServed => {
                (S::CONFLICT, "urn:corro:problem:partition-served", "The partition is served already")
            }
            Self::NotRepairable => {
                (S::CONFLICT, "urn:corro:problem:not-repairable", "The partition cannot be repaired now")
            }
            Self::MethodNotAllowed => (
                S::METHOD_NOT_ALLOWED,
                "urn:corro:problem:method-not-allowed",
                "The path does not take this method",
            ),
            Self::BodyTooSlow => {
                (S::REQUEST_TIMEOUT, "urn:corro:problem:body-too-slow", "The body did not arrive in time")
            }
            Self::UserExists => (S::CONFLICT, "urn:corro:problem:user-exists", "The user exists already"),
            Self::PreconditionFailed => (
                S::PRECONDITION_FAILED,
                "urn:corro:problem:precondition-failed",
                "The user has another version",
            ),
            Self::KeyReused => (
                S::UNPROCESSABLE_ENTITY,
                "urn:corro:problem:key-reused",
                "The Idempotency-Key belongs to another request",
            ),
            Self::BodyTooLarge => {
                (S::PAYLOAD_TOO_LARGE, "urn:corro:problem:body-too-large", "The body is too large")
            }
            Self::UnsupportedMediaType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "urn:corro:problem:unsupported-media-type",
                "The body has the wrong type",
            ),
            Self::InvalidFields => {
                (S::UNPROCESSABLE_ENTITY, "urn:corro:problem:invalid-fields", "The user is not valid")
            }
            Self::Internal => {
                (S::INTERNAL_SERVER_ERROR, "urn:corro:problem:internal", "Internal server error")
            }
            Self::Unavailable => (
                S::SERVICE_UNAVAILABLE,
                "urn:corro:problem:partition-unavailable",
                "The partition cannot be served now",
            ),
            Self::Overloaded => {
                (S::SERVICE_UNAVAILABLE, "urn:corro:problem:overloaded", "Too much is asked at once")
            }
            Self::NotReady => (
                S::SERVICE_UNAVAILABLE,
                "urn:corro:problem:not-ready",
                "Not every partition takes reads and writes",
            ),
            Self::NoAnswer => (S::GATEWAY_TIMEOUT, "urn:corro:problem:no-answer", "No answer in time"),
            Self::OutcomeUnknown => (
                S::GATEWAY_TIMEOUT,
                "urn:corro:problem:outcome-unknown",
                "The outcome of the write is unknown",
            ),
            Self::ResultsUnread => {
                (S::REQUEST_TIMEOUT, "urn:corro:problem:results-unread", "The results were not read in time")
            }
            Self::Stopping => {
                (S::SERVICE_UNAVAILABLE, "urn:corro:problem:stopping", "The gateway is stopping")
            }
            Self::Framework(status) => {
                (status, "about:blank", status.canonical_reason().unwrap_or("The request failed"))
            }
        }
    }

    /// The kind of an error response that no handler made.
    pub(super) fn of_framework(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::RouteNotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => Self::BodyTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            StatusCode::INTERNAL_SERVER_ERROR => Self::Internal,
            other => Self::Framework(other),
        }
    }

    /// Header that belongs to every problem of this kind.
    pub(super) fn header(self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::Unauthorized => {
                Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"corro\"")))
            }
            Self::Unavailable | Self::Overloaded | Self::NotReady | Self::TooManySubscribers => {
                Some((RETRY_AFTER, HeaderValue::from_static("1")))
            }
            // The rest of the body may still come: nothing after it can be understood.
            Self::BodyTooSlow => Some((CONNECTION, HeaderValue::from_static("close"))),
            Self::UnsupportedMediaType => Some((ACCEPT, HeaderValue::from_static("application/json"))),
            _ => None,
        }
    }
}
