//! The active gateway, as another one sends requests to it.

use std::error::Error as _;
use std::time::Duration;

use axum::http::uri::{Authority, PathAndQuery, Scheme};
use axum::http::{HeaderValue, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::body::Attempt;
use crate::standing::ActiveGateway;

/// An unused connection is closed long before the other side does it, which would race with a request.
const IDLE: Duration = Duration::from_secs(20);

/// So many unused connections are kept.
const MAX_IDLE: usize = 512;

/// One active gateway in one term. Its connections end with it, so none is left over from an earlier one of
/// the same address.
pub(super) struct Peer {
    pub(super) gateway: ActiveGateway,
    authority: Authority,
    /// The same, as its requests name it.
    pub(super) host: HeaderValue,
    scheme: Scheme,
    client: Client<HttpConnector, Attempt>,
}

/// What came of a try.
pub(super) enum Tried {
    Answered(Response<Incoming>),
    /// Nothing was done.
    NotSent,
    /// It is not known what was done.
    Broken,
}

impl Peer {
    /// `None` where the gateway has no address.
    pub(super) fn new(gateway: &ActiveGateway, scheme: Scheme, connect: Duration) -> Option<Self> {
        let authority: Authority = gateway.rest.parse().ok()?;
        let host = HeaderValue::try_from(authority.as_str()).ok()?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(connect));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .build(connector);
        Some(Self { gateway: gateway.clone(), authority, host, scheme, client })
    }

    /// Where a request of this path goes.
    pub(super) fn uri(&self, path: Option<&PathAndQuery>) -> Option<Uri> {
        let path = path.cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let uri = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone());
        uri.path_and_query(path).build().ok()
    }

    /// Sends a request, unless `gone` comes first. Returns what came of it, and of `gone`.
    pub(super) async fn send<T>(
        &self,
        mut request: Request<Attempt>,
        gone: impl Future<Output = T>,
    ) -> (Tried, Option<T>) {
        let connection = capture_connection(&mut request);
        let (answer, gone) = tokio::select! {
            // An answer that is there counts, whatever else has happened.
            biased;
            answer = self.client.request(request) => (Some(answer), None),
            gone = gone => (None, Some(gone)),
        };
        let connected = connection.connection_metadata().is_some();
        let tried = match answer {
            Some(Ok(answer)) => Tried::Answered(answer),
            Some(Err(error)) => {
                let sent = connected && !was_kept(&error);
                tracing::debug!(active = %self.gateway.name, %error, sent, "a request was not forwarded");
                if sent { Tried::Broken } else { Tried::NotSent }
            }
            None if connected => Tried::Broken,
            None => Tried::NotSent,
        };
        (tried, gone)
    }
}

/// Whether the connection ended before the request was taken: nothing of it has left.
fn was_kept(error: &Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<hyper::Error>());
    source.is_some_and(hyper::Error::is_canceled)
}

/// Whether the other gateway says that it is not active either.
pub(super) fn is_not_active(answer: &Response<Incoming>) -> bool {
    answer.status() == StatusCode::SERVICE_UNAVAILABLE
        && answer.headers().contains_key(super::head::NOT_ACTIVE)
}
