//! What the audit log says of requests: the bridge between HTTP and [`crate::audit`].
//!
//! The guard of a route begins an [`Entry`] for each request that may change something or is for
//! administrators, and says at its end what the answer was. The handler says what it is about to ask of the
//! ring. Requests without a valid token have no entry: a flood of them would take the room of those that
//! have one. Metrics and the log show them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use protocol::{UserId, Version};

use super::kind::Kind;
use super::problem::Problem;
use crate::audit::{Answer, Entry, NotOnRecord, Outcome, Subject};

/// The entry of a request, if there is an audit log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Audited(pub(crate) Option<Arc<Entry>>);

impl<S: Sync> FromRequestParts<S> for Audited {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}

impl Audited {
    /// To be called before anything is asked of the ring.
    ///
    /// # Errors
    /// 503 where that cannot be put on record, and has to be.
    pub(crate) async fn ask(&self, subject: Subject) -> Result<(), Problem> {
        match &self.0 {
            Some(entry) => Ok(entry.ask(subject).await?),
            None => Ok(()),
        }
    }

    /// The same of a write.
    ///
    /// # Errors
    /// 503.
    pub(crate) async fn ask_user(&self, id: UserId) -> Result<(), Problem> {
        self.ask(Subject::User(id)).await
    }

    /// What the user has from now on.
    pub(crate) fn version(&self, version: Version) {
        if let Some(entry) = &self.0 {
            entry.version(version);
        }
    }

    /// The answer is known.
    pub(crate) fn answered(&self, response: &Response) {
        if let Some(entry) = &self.0 {
            let problem = response.extensions().get::<Problem>().map(Problem::kind);
            entry.answered(answer(response.status(), problem));
        }
    }
}

/// What an answer comes to.
pub(crate) fn answer(status: StatusCode, problem: Option<Kind>) -> Answer {
    let outcome = match problem {
        // Whatever was begun may be done, or a part of it.
        Some(Kind::OutcomeUnknown | Kind::NoAnswer | Kind::Internal | Kind::NotErased) => Outcome::Unknown,
        None if status.is_success() => Outcome::Done,
        _ => Outcome::Refused,
    };
    Answer { outcome, status: Some(status.as_u16()), problem: problem.map(Kind::name) }
}

/// Where a request comes from.
pub(crate) fn address(extensions: &axum::http::Extensions) -> Option<std::net::IpAddr> {
    extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip().to_canonical())
}

impl From<NotOnRecord> for Problem {
    fn from(_: NotOnRecord) -> Self {
        Self::new(Kind::NotOnRecord, "Nothing was done: the audit log cannot be written.")
    }
}
