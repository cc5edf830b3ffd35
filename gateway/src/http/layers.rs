//! What happens around every request: its id, its token, its problem, its figures, its log line; and a panic
//! that goes no further.
//!
//! One hand-written layer instead of a stack from tower-http. Each layer of an axum router costs two
//! allocations and a boxed future for every request, and the pieces need each other: the problem and the log
//! line carry the request id, and both a missing token and a panic end as problems. This one allocates
//! nothing but the id of a request that came without one.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::{Route, future::RouteFuture};
use tower::{Layer, Service};
use uuid::Uuid;

use super::input::etag::hexadecimal;
use super::input::token::ApiTokens;
use super::metrics::{Measured, Metrics, RouteMetrics};
use super::problem::{self, Problem};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// An id that a caller chose is kept up to this length.
const MAX_REQUEST_ID: usize = 128;

/// Makes the guards of all routes.
#[derive(Debug)]
pub(super) struct Guards {
    shared: Arc<Shared>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Shared {
    tokens: Option<ApiTokens>,
    request_ids: RequestIds,
}

impl Guards {
    pub(super) fn new(tokens: Option<ApiTokens>, metrics: Metrics) -> Self {
        let shared = Arc::new(Shared { tokens, request_ids: RequestIds::default() });
        Self { shared, metrics }
    }

    /// What guards a route, which is named by its template: so no request has to look for that.
    pub(super) fn around(&self, route: &'static str) -> GuardLayer {
        GuardLayer { shared: Arc::clone(&self.shared), metrics: self.metrics.route(route) }
    }
}

/// Puts a [`Guard`] around a route.
#[derive(Debug, Clone)]
pub(super) struct GuardLayer {
    shared: Arc<Shared>,
    metrics: Arc<RouteMetrics>,
}

impl Layer<Route> for GuardLayer {
    type Service = Guard;

    fn layer(&self, route: Route) -> Guard {
        Guard { route, shared: Arc::clone(&self.shared), metrics: Arc::clone(&self.metrics) }
    }
}

/// A route with everything that happens around it.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    route: Route,
    shared: Arc<Shared>,
    metrics: Arc<RouteMetrics>,
}

impl Service<Request> for Guard {
    type Response = Response;
    type Error = Infallible;
    type Future = Guarded;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Guarded {
        let request_id = self.shared.request_ids.of(request.headers());
        let measured = Measured::begin(&self.metrics, request.method());
        let refused = match &self.shared.tokens {
            Some(tokens) if is_api(request.uri().path()) => tokens.admit(request.headers()).err(),
            _ => None,
        };
        Guarded {
            work: match refused {
                Some(problem) => Work::Refused(problem),
                None => Work::Running(self.route.call(request)),
            },
            request_id,
            measured,
        }
    }
}

/// Whether a path is part of the API that a token protects. The router compares paths as they came,
/// undecoded, and so does this: a route that matches cannot hide from it behind percent signs.
fn is_api(path: &str) -> bool {
    path.strip_prefix("/api").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A guarded request on its way.
pub(super) struct Guarded {
    work: Work,
    request_id: HeaderValue,
    measured: Measured,
}

#[expect(
    clippy::large_enum_variant,
    reason = "nearly every request runs, and boxing it would cost an allocation"
)]
enum Work {
    Running(RouteFuture<Infallible>),
    Refused(Problem),
}

impl Future for Guarded {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let response = match &mut this.work {
            Work::Refused(problem) => problem.clone().into_response(),
            // After a panic the route's future is not polled again, so nothing sees what the panic left half
            // done.
            Work::Running(route) => match catch_unwind(AssertUnwindSafe(|| Pin::new(route).poll(context))) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(Ok(response))) => response,
                Ok(Poll::Ready(Err(never))) => match never {},
                Err(_) => {
                    tracing::error!(request_id = ?this.request_id, "a request handler panicked");
                    Problem::internal().into_response()
                }
            },
        };
        let mut response = problem::finish(response, &this.request_id);
        response.headers_mut().insert(REQUEST_ID, this.request_id.clone());
        let took = this.measured.answered(response.status());
        log(&this.measured, &response, took, &this.request_id);
        Poll::Ready(Ok(response))
    }
}

/// What the log says about a request: the route, never the path itself, nor anything that a caller sent but
/// the request id and the method.
fn log(measured: &Measured, response: &Response, took: Duration, request_id: &HeaderValue) {
    tracing::debug!(
        method = %measured.method(),
        route = measured.route(),
        status = response.status().as_u16(),
        microseconds = took.as_micros(),
        ?request_id,
        "answered"
    );
}

/// Source of request ids: a number that starts at random and counts up, so two processes hardly ever give the
/// same and no request pays for randomness.
#[derive(Debug)]
struct RequestIds {
    next: AtomicU64,
}

impl Default for RequestIds {
    fn default() -> Self {
        Self { next: AtomicU64::new(Uuid::new_v4().as_u64_pair().1) }
    }
}

impl RequestIds {
    /// The caller's id where it is sane, otherwise a fresh one.
    fn of(&self, headers: &HeaderMap) -> HeaderValue {
        match headers.get(&REQUEST_ID) {
            Some(id) if is_sane(id.as_bytes()) => id.clone(),
            _ => {
                let fresh = hexadecimal(self.next.fetch_add(1, Ordering::Relaxed));
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
            .layer(Guards::new(None, Metrics::new()).around("/panic"));
        for _ in 0..2 {
            let request = Request::get("/panic").header("x-request-id", "mine");
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
        let ids = RequestIds::default();
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

    #[test]
    fn the_token_protects_the_api_and_nothing_else() {
        for path in ["/api", "/api/", "/api/user", "/api//x"] {
            assert!(is_api(path), "{path}");
        }
        for path in ["/", "/apix", "/health/live", "/API/user", "/x/api/"] {
            assert!(!is_api(path), "{path}");
        }
    }
}
