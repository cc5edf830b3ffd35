//! What happens around every request: its id, the page that it comes from, its token, its problem, its
//! figures, its log line; and a panic that goes no further.
//!
//! One hand-written layer instead of a stack from tower-http. Each layer of an axum router costs two
//! allocations and a boxed future for every request, and the pieces need each other: the problem and the log
//! line carry the request id, and both a missing token and a panic end as problems. This one allocates
//! nothing but the id of a request that came without one.

use std::convert::Infallible;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{Route, future::RouteFuture};
use futures_util::future::{BoxFuture, Either, Ready, ready};
use tower::{Layer, Service};
use uuid::Uuid;

use super::audited::{self, Audited};
use super::document;
use super::fairness::{Client, RateLimit};
use super::forward::{Forwarder, Forwarding, FromActive};
use super::input::etag::hexadecimal;
use super::input::head;
use super::input::site::{self, Sites};
use super::input::token::{Access, Caller, Needed, Role, is_api};
use super::metrics::{Limit, Measured, Metrics, RequestMetrics, RouteMetrics};
use super::problem::{self, Problem};
use super::settings::HttpSettings;
use crate::audit::{self, Audit, Entry};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// An id that a caller chose is kept up to this length.
const MAX_REQUEST_ID: usize = 128;

/// Makes the guards of all routes.
#[derive(Debug)]
pub(super) struct Guards {
    access: Access,
    sites: Arc<Sites>,
    request_ids: Arc<RequestIds>,
    metrics: RequestMetrics,
    rate: Option<Arc<RateLimit>>,
    forwarder: Forwarder,
    audit: Audit,
}

impl Guards {
    pub(super) fn new(settings: &HttpSettings, metrics: &Metrics) -> Self {
        let (access, sites) = (settings.access.clone(), Arc::new(settings.sites.clone()));
        let rate = settings.rate.map(|rate| Arc::new(RateLimit::new(rate, metrics.limits.of(Limit::Rate))));
        let forwarder = Forwarder::new(settings, metrics.forwarded.clone());
        let (request_ids, metrics) = (Arc::new(RequestIds::new()), metrics.requests.clone());
        let audit = settings.audit.clone();
        Self { access, sites, request_ids, metrics, rate, forwarder, audit }
    }

    /// What guards a route, which is named by its template: so no request has to look for that.
    pub(super) fn around(&self, route: &'static str) -> GuardLayer {
        self.guard(route, Some(document::methods(route)))
    }

    /// The same for a route of a library that words its errors itself.
    pub(super) fn around_library(&self, route: &'static str) -> GuardLayer {
        self.guard(route, None)
    }

    fn guard(&self, route: &'static str, methods: Option<String>) -> GuardLayer {
        GuardLayer(Arc::new(Shared {
            access: self.access.clone(),
            needed: Needed::of(route),
            sites: Arc::clone(&self.sites),
            request_ids: Arc::clone(&self.request_ids),
            metrics: self.metrics.route(route),
            methods,
            // Whoever watches the gateway is to see that it is well.
            rate: self.rate.clone().filter(|_| !route.starts_with("/health/")),
            audit: self.audit.clone(),
            names_client: matches!(route, "/api/user/bulk" | "/api/user/changes"),
            forwarder: self.forwarder.clone(),
            forwarding: Forwarding::of(route),
        }))
    }
}

/// What all requests of a route share.
#[derive(Debug)]
struct Shared {
    access: Access,
    needed: Needed,
    sites: Arc<Sites>,
    request_ids: Arc<RequestIds>,
    metrics: Arc<RouteMetrics>,
    /// What the route takes, for a 405; `None` where a library words its own errors.
    methods: Option<String>,
    rate: Option<Arc<RateLimit>>,
    audit: Audit,
    /// Whether a handler counts its requests by [`Client`].
    names_client: bool,
    forwarder: Forwarder,
    forwarding: Forwarding,
}

impl Shared {
    /// Returns the origin of a page of another server that may read the answer.
    fn check(&self, request: &Request) -> Result<Option<HeaderValue>, Problem> {
        head::check(request, &self.sites)
    }

    /// Whether the request may be handled; otherwise its answer.
    fn admit(&self, request: &Request, reader: Option<&HeaderValue>) -> Result<Caller, Box<Response>> {
        if reader.is_some() && site::is_question(request) {
            return Err(Box::new(site::let_send()));
        }
        // Below /api, strangers do not learn which routes there are.
        let elsewhere = || is_api(request.uri().path()).then_some(Role::Read);
        let needed = self.needed.by(request.method()).or_else(elsewhere);
        let admitted = needed.map_or(Ok(None), |needed| self.access.admit(request.headers(), needed));
        let limited = self.rate.as_ref().map_or(Ok(()), |rate| {
            // A token that is guessed counts for the address.
            rate.admit(Client::of(admitted.as_ref().unwrap_or(&None), request.extensions()))
        });
        limited.and(admitted).map_err(|problem| Box::new(problem.into_response()))
    }
}

impl Shared {
    /// The entry of a request that may change something, or is for administrators. One that has a valid token
    /// has it, though its role may be too low.
    fn audited(
        &self,
        request: &Request,
        id: &HeaderValue,
        admitted: &Result<Caller, Box<Response>>,
        measured: &Measured,
    ) -> Audited {
        if self.needed.by(request.method()).is_none_or(|needed| needed < Role::Write) {
            return Audited::default();
        }
        let token = match admitted {
            Ok(caller) => caller.clone(),
            Err(refused) if refused.status() == StatusCode::FORBIDDEN => {
                match self.access.admit(request.headers(), Role::Read) {
                    Ok(caller) => caller,
                    Err(_) => return Audited::default(),
                }
            }
            Err(_) => return Audited::default(),
        };
        Audited(Entry::begin(&self.audit, || {
            let (method, route) = measured.labels();
            let id = id.to_str().unwrap_or_default().to_owned();
            audit::Request { id, token, address: audited::address(request.extensions()), method, route }
        }))
    }
}

/// Puts a [`Guard`] around a route.
#[derive(Debug, Clone)]
pub(super) struct GuardLayer(Arc<Shared>);

impl Layer<Route> for GuardLayer {
    type Service = Guard;

    fn layer(&self, route: Route) -> Guard {
        Guard { route, shared: Arc::clone(&self.0) }
    }
}

/// A route with everything that happens around it.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    route: Route,
    shared: Arc<Shared>,
}

impl Service<Request> for Guard {
    type Response = Response;
    type Error = Infallible;
    type Future = Guarded;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Guarded {
        let shared = &self.shared;
        let request_id = shared.request_ids.of(request.headers());
        let measured = shared.metrics.begin(request.method());
        let (reader, admitted) = match shared.check(&request) {
            Err(problem) => (None, Err(Box::new(problem.into_response()))),
            Ok(reader) => {
                let admitted = shared.admit(&request, reader.as_ref());
                (reader, admitted)
            }
        };
        let audited = shared.audited(&request, &request_id, &admitted, &measured);
        let (work, caller) = match admitted {
            Err(refused) => (Either::Left(ready(Ok(*refused))), None),
            Ok(caller) if shared.forwarder.takes(shared.forwarding, &request) => {
                let work = shared.forwarder.forward(shared.forwarding, &self.route, request, &request_id);
                (Either::Right(Either::Right(work)), caller)
            }
            Ok(caller) => {
                if shared.names_client {
                    let client = Client::of(&caller, request.extensions());
                    request.extensions_mut().insert(client);
                }
                if audited.0.is_some() {
                    request.extensions_mut().insert(audited.clone());
                }
                (Either::Right(Either::Left(self.route.call(request))), caller)
            }
        };
        Guarded { work, request_id, caller, reader, measured, audited, shared: Arc::clone(shared) }
    }
}

/// What answers a request: a refusal, the route, or the gateway that is active.
type Work = Either<
    Ready<Result<Response, Infallible>>,
    Either<RouteFuture<Infallible>, BoxFuture<'static, Result<Response, Infallible>>>,
>;

/// A guarded request on its way.
pub(super) struct Guarded {
    work: Work,
    request_id: HeaderValue,
    caller: Caller,
    /// The origin of a page of another server that may read the answer.
    reader: Option<HeaderValue>,
    measured: Measured,
    audited: Audited,
    shared: Arc<Shared>,
}

impl Future for Guarded {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        // After a panic the work is not polled again, so nothing sees what the panic left half done.
        let work = AssertUnwindSafe(|| Pin::new(&mut this.work).poll(context));
        let response = match catch_unwind(work) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Ok(response))) => response,
            Ok(Poll::Ready(Err(never))) => match never {},
            Err(_) => {
                tracing::error!(request_id = ?this.request_id, "a request handler panicked");
                Problem::internal().into_response()
            }
        };
        mem::take(&mut this.audited).answered(&response);
        // What another gateway answers is worded.
        let methods = this.shared.methods.as_deref();
        let methods = methods.filter(|_| response.extensions().get::<FromActive>().is_none());
        let mut response = problem::finish(response, &this.request_id, methods);
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, this.request_id.clone());
        // Users are private, and old ones of no use; what may be stored says so itself.
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-cache"));
        // Nothing here is a script or a style, whatever a page takes it for.
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(origin) = this.reader.take() {
            site::let_read(headers, origin);
        }
        let took = this.measured.answered(response.status());
        // Never the path itself, nor anything that a caller sent but the request id and the method.
        let (method, route) = this.measured.labels();
        let (status, micros) = (response.status().as_u16(), took.as_micros());
        let (id, token) = (&this.request_id, this.caller.as_deref());
        tracing::debug!(method, route, status, microseconds = micros, request_id = ?id, token, "answered");
        Poll::Ready(Ok(response))
    }
}

/// Source of request ids: a number that starts at random and counts up, so two processes hardly ever give the
/// same and no request pays for randomness.
#[derive(Debug)]
struct RequestIds(AtomicU64);

impl RequestIds {
    fn new() -> Self {
        Self(AtomicU64::new(Uuid::new_v4().as_u64_pair().1))
    }

    /// The caller's id where it is sane, otherwise a fresh one.
    fn of(&self, headers: &HeaderMap) -> HeaderValue {
        match headers.get(&REQUEST_ID) {
            Some(id) if is_sane(id.as_bytes()) => id.clone(),
            _ => {
                let fresh = hexadecimal(self.0.fetch_add(1, Ordering::Relaxed));
                HeaderValue::from_bytes(&fresh).expect("hexadecimal digits are visible ASCII")
            }
        }
    }
}

fn is_sane(id: &[u8]) -> bool {
    (1..=MAX_REQUEST_ID).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;

    async fn answer(router: Router, request: Request) -> (Response<()>, Value) {
        let response = router.oneshot(request).await.expect("a router answers everything");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.expect("a whole body");
        (Response::from_parts(parts, ()), serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn a_panic_is_one_failed_request() {
        let router: Router = Router::new()
            .route(
                "/panic",
                get(|| async {
                    tokio::task::yield_now().await;
                    if true {
                        panic!("a secret thing");
                    }
                }),
            )
            .layer(Guards::new(&HttpSettings::default(), &Metrics::new(None)).around("/panic"));
        for _ in 0..2 {
            let request = Request::get("/panic").header("host", "localhost").header("x-request-id", "mine");
            let (response, problem) =
                answer(router.clone(), request.body(Body::empty()).expect("a request")).await;
            assert_eq!(response.status(), 500);
            assert_eq!(problem["type"], "urn:corro:problem:internal");
            assert_eq!(problem["instance"], "mine");
            assert!(!problem.to_string().contains("secret"), "{problem}");
        }
    }

    #[test]
    fn request_ids_of_callers_are_kept_when_sane() {
        let ids = RequestIds::new();
        let of = |id: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(&REQUEST_ID, HeaderValue::from_bytes(id).expect("a header"));
            ids.of(&headers).as_bytes().to_vec()
        };
        let long = [b'x'; MAX_REQUEST_ID + 1];
        for sane in [&b"a"[..], b"01-~!{}", &long[1..]] {
            assert_eq!(of(sane), sane);
        }
        for other in [&b""[..], b"a b", b"tab\there", "ü".as_bytes(), &long] {
            let fresh = of(other);
            assert_ne!(fresh, other);
            assert!(fresh.len() == 16 && is_sane(&fresh), "{fresh:?}");
        }
        assert_ne!(ids.of(&HeaderMap::new()), ids.of(&HeaderMap::new()), "fresh ids differ");
    }
}
