//! Requests by route, method and outcome, and how long they take.
//!
//! The counters of a route and a method are looked up once, when the first request needs them; from then on a
//! request adds to atomic numbers. A route that was never requested shows nothing.

use std::array;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use prometheus::{
    Error, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry,
    register_histogram_vec_with_registry, register_int_counter_vec_with_registry,
    register_int_gauge_with_registry,
};

/// In seconds: from what a read takes at best to the deadline of a request.
const BUCKETS: [f64; 16] =
    [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// Methods with a label of their own; all others are one.
static METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Outcomes of a request; the first is that its caller went away before the answer.
const OUTCOMES: [&str; 6] = ["abandoned", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The metrics of all routes.
#[derive(Debug, Clone)]
pub(crate) struct RequestMetrics {
    total: IntCounterVec,
    durations: HistogramVec,
    in_flight: IntGauge,
}

impl RequestMetrics {
    /// # Errors
    /// If a name is not valid, or registered already.
    pub(super) fn register(registry: &Registry) -> Result<Self, Error> {
        Ok(Self {
            total: register_int_counter_vec_with_registry!(
                "corro_http_requests_total",
                "HTTP requests, by outcome.",
                &["method", "route", "status"],
                registry
            )?,
            durations: register_histogram_vec_with_registry!(
                "corro_http_request_duration_seconds",
                "Time from the head of a request to the head of its answer, by outcome.",
                &["method", "route", "status"],
                BUCKETS.to_vec(),
                registry
            )?,
            in_flight: register_int_gauge_with_registry!(
                "corro_http_requests_in_flight",
                "HTTP requests without an answer so far.",
                registry
            )?,
        })
    }

    /// Counts the requests of a route, which is named by its template.
    pub(crate) fn route(&self, route: &'static str) -> Arc<RouteMetrics> {
        let methods = array::from_fn(|_| MethodMetrics::default());
        Arc::new(RouteMetrics { route, all: self.clone(), methods })
    }
}

/// The metrics of one route.
#[derive(Debug)]
pub(crate) struct RouteMetrics {
    route: &'static str,
    all: RequestMetrics,
    /// In the order of [`METHODS`]; the last is for all others.
    methods: [MethodMetrics; METHODS.len() + 1],
}

#[derive(Debug, Default)]
struct MethodMetrics {
    /// In the order of [`OUTCOMES`].
    outcomes: [OnceLock<IntCounter>; OUTCOMES.len()],
    /// In the same order; an abandoned request has none.
    durations: [OnceLock<Histogram>; OUTCOMES.len()],
}

impl RouteMetrics {
    /// Counts a request, until what is returned is dropped.
    pub(crate) fn begin(self: &Arc<Self>, method: &Method) -> Measured {
        self.all.in_flight.inc();
        let method = METHODS.iter().position(|known| known == method).unwrap_or(METHODS.len());
        Measured { route: Arc::clone(self), method, started: Instant::now(), outcome: 0 }
    }

    fn observe(&self, method: usize, outcome: usize, took: Duration) {
        let labels = [label(method), self.route, OUTCOMES[outcome]];
        let duration = self.methods[method].durations[outcome]
            .get_or_init(|| self.all.durations.with_label_values(&labels));
        duration.observe(took.as_secs_f64());
    }
}

fn label(method: usize) -> &'static str {
    METHODS.get(method).map_or("other", Method::as_str)
}

/// One request, from its head to its answer, or to the moment at which its caller is gone.
#[derive(Debug)]
pub(crate) struct Measured {
    route: Arc<RouteMetrics>,
    /// Index in [`METHODS`], or behind them.
    method: usize,
    started: Instant,
    /// Index in [`OUTCOMES`].
    outcome: usize,
}

impl Measured {
    /// Method and template of the route.
    pub(crate) fn labels(&self) -> (&'static str, &'static str) {
        (label(self.method), self.route.route)
    }

    /// Counts the answer. Returns how long it took.
    pub(crate) fn answered(&mut self, status: StatusCode) -> Duration {
        let took = self.started.elapsed();
        self.outcome = usize::from(status.as_u16() / 100).min(OUTCOMES.len() - 1);
        self.route.observe(self.method, self.outcome, took);
        took
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let Self { route, method, outcome, .. } = self;
        let labels = [label(*method), route.route, OUTCOMES[*outcome]];
        let counter = route.methods[*method].outcomes[*outcome]
            .get_or_init(|| route.all.total.with_label_values(&labels));
        counter.inc();
        route.all.in_flight.dec();
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    fn metrics() -> (Registry, RequestMetrics) {
        let registry = Registry::new();
        let metrics = RequestMetrics::register(&registry).expect("valid names");
        (registry, metrics)
    }

    fn shown(registry: &Registry) -> Vec<String> {
        let text = TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn requests_are_counted_by_what_they_came_to() {
        let (registry, metrics) = metrics();
        let route = metrics.route("/api/user/{id}");
        metrics.route("/health/live");
        let other = Method::from_bytes(b"BREW").expect("a method");
        for (method, status) in [
            (&Method::GET, Some(StatusCode::OK)),
            (&Method::GET, Some(StatusCode::NOT_FOUND)),
            (&Method::GET, Some(StatusCode::GONE)),
            (&Method::DELETE, None),
            (&other, Some(StatusCode::METHOD_NOT_ALLOWED)),
        ] {
            let mut request = route.begin(method);
            assert!(shown(&registry).contains(&"corro_http_requests_in_flight 1".to_owned()));
            if let Some(status) = status {
                request.answered(status);
            }
        }
        let shown = shown(&registry);
        for line in [
            r#"corro_http_requests_in_flight 0"#,
            r#"corro_http_requests_total{method="GET",route="/api/user/{id}",status="2xx"} 1"#,
            r#"corro_http_requests_total{method="GET",route="/api/user/{id}",status="4xx"} 2"#,
            r#"corro_http_requests_total{method="DELETE",route="/api/user/{id}",status="abandoned"} 1"#,
            r#"corro_http_requests_total{method="other",route="/api/user/{id}",status="4xx"} 1"#,
            concat!(
                "corro_http_request_duration_seconds_count{",
                r#"method="GET",route="/api/user/{id}",status="4xx"} 2"#
            ),
            concat!(
                "corro_http_request_duration_seconds_bucket{",
                r#"method="GET",route="/api/user/{id}",status="2xx",le="10"} 1"#
            ),
        ] {
            assert!(shown.iter().any(|shown| shown == line), "{line} is not in {shown:?}");
        }
        assert!(!shown.iter().any(|line| line.contains("health")), "{shown:?}");
    }

    #[test]
    fn durations_are_counted_in_their_buckets() {
        let (registry, metrics) = metrics();
        let route = metrics.route("/");
        for micros in [100, 101, 499_000, 9_999_000, 11_000_000] {
            route.observe(0, 2, Duration::from_micros(micros));
        }
        let shown = shown(&registry);
        for (most, count) in [("0.0001", 1), ("0.0002", 2), ("0.5", 3), ("5", 3), ("10", 4), ("+Inf", 5)] {
            let name = "corro_http_request_duration_seconds_bucket";
            let labels = format!(r#"method="GET",route="/",status="2xx",le="{most}""#);
            let line = format!("{name}{{{labels}}} {count}");
            assert!(shown.contains(&line), "{line} is not in {shown:?}");
        }
    }

    #[test]
    #[ignore = "a measurement"]
    fn what_a_request_pays() {
        const REQUESTS: u32 = 5_000_000;
        let route = metrics().1.route("/api/user/{id}");
        let start = Instant::now();
        for _ in 0..REQUESTS {
            std::hint::black_box(route.begin(&Method::GET)).answered(StatusCode::OK);
        }
        println!("{} ns a request", start.elapsed().as_nanos() / u128::from(REQUESTS));
    }
}
