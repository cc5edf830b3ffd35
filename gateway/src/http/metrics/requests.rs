//! What requests come to, and how long they take.
//!
//! Every request pays for this, so it is as little as possible: four additions to numbers that lie side by side for its
//! route and method, and two looks at a clock that does not ask the system for the time. Sums are made when somebody looks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use process::recently;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// In nanoseconds: from what a read takes at best to the deadline of a request.
const BUCKETS: [u64; 16] = [
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Methods that are told apart; all others are one.
static METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// What a request came to; the first is that its caller went away before the answer.
const STATUSES: [&str; 6] = ["abandoned", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Counts requests, and knows how to show it.
#[derive(Debug, Clone, Default)]
pub(in crate::http) struct Metrics {
    routes: Arc<Mutex<Vec<Arc<RouteMetrics>>>>,
}

/// The figures of one route.
#[derive(Debug)]
pub(in crate::http) struct RouteMetrics {
    route: &'static str,
    /// Requests that have begun, whatever came of them.
    begun: AtomicU64,
    methods: [MethodMetrics; METHODS.len() + 1],
}

#[derive(Debug, Default)]
struct MethodMetrics {
    statuses: [AtomicU64; STATUSES.len()],
    /// How many took no longer than each of [`BUCKETS`] says, and longer than the one before; the last took longer than all.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    nanoseconds: AtomicU64,
}

impl Metrics {
    pub(in crate::http) fn new() -> Self {
        Self::default()
    }

    /// The figures of a route, which is named by its template.
    pub(in crate::http) fn route(&self, route: &'static str) -> Arc<RouteMetrics> {
        let figures = Arc::new(RouteMetrics { route, begun: AtomicU64::new(0), methods: Default::default() });
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.push(Arc::clone(&figures));
        figures
    }

    /// All figures. A route that nobody has asked for has none.
    pub(super) fn families(&self) -> Vec<MetricFamily> {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut requests, mut durations, mut in_flight) = (Vec::new(), Vec::new(), 0);
        for route in routes.iter() {
            let mut ended = 0;
            for (index, figures) in route.methods.iter().enumerate() {
                let method = METHODS.get(index).map_or("other", Method::as_str);
                let labels = |more: Option<&str>| {
                    let status = more.map(|status| ("status", status));
                    let all = [("method", method), ("route", route.route)].into_iter().chain(status);
                    all.map(|(name, value)| label(name, value)).collect::<Vec<_>>()
                };
                for (status, count) in STATUSES.iter().zip(&figures.statuses) {
                    let count = count.load(Relaxed);
                    if count > 0 {
                        ended += count;
                        let mut counter = Counter::default();
                        counter.set_value(count as f64);
                        let mut metric = Metric::from_label(labels(Some(status)));
                        metric.set_counter(counter);
                        requests.push(metric);
                    }
                }
                let histogram = figures.histogram();
                if histogram.get_sample_count() > 0 {
                    let mut metric = Metric::from_label(labels(None));
                    metric.set_histogram(histogram);
                    durations.push(metric);
                }
            }
            // What has ended has begun before, and that is read after it.
            in_flight += route.begun.load(Relaxed).saturating_sub(ended);
        }
        let mut gauge = Gauge::default();
        gauge.set_value(in_flight as f64);
        [
            family(
                "corro_http_request_duration_seconds",
                "From the head of a request to the head of its answer.",
                MetricType::HISTOGRAM,
                durations,
            ),
            family(
                "corro_http_requests_in_flight",
                "Requests without an answer so far.",
                MetricType::GAUGE,
                vec![Metric::from_gauge(gauge)],
            ),
            family(
                "corro_http_requests_total",
                "Requests, by what they came to.",
                MetricType::COUNTER,
                requests,
            ),
        ]
        .into_iter()
        .filter(|family| !family.get_metric().is_empty())
        .collect()
    }
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}

impl MethodMetrics {
    fn observe(&self, took: Duration) {
        // A request ends within minutes, and all of them together within 584 years.
        let nanoseconds = took.as_nanos() as u64;
        let bucket = BUCKETS.iter().position(|most| nanoseconds <= *most).unwrap_or(BUCKETS.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Relaxed);
    }

    fn histogram(&self) -> Histogram {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(BUCKETS.len());
        for (most, in_bucket) in BUCKETS.iter().zip(&self.buckets) {
            count += in_bucket.load(Relaxed);
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*most as f64 / 1e9);
            bucket.set_cumulative_count(count);
            buckets.push(bucket);
        }
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(count + self.buckets[BUCKETS.len()].load(Relaxed));
        histogram.set_sample_sum(self.nanoseconds.load(Relaxed) as f64 / 1e9);
        histogram
    }
}

/// One request, from its head to its answer, or to the moment when nobody waits for that any more.
#[derive(Debug)]
pub(in crate::http) struct Measured {
    route: Arc<RouteMetrics>,
    method: Method,
    /// By the clock of the process.
    started: Duration,
    answered: bool,
}

impl Measured {
    pub(in crate::http) fn begin(route: &Arc<RouteMetrics>, method: &Method) -> Self {
        route.begun.fetch_add(1, Relaxed);
        Self { route: Arc::clone(route), method: method.clone(), started: recently(), answered: false }
    }

    pub(in crate::http) fn method(&self) -> &Method {
        &self.method
    }

    /// The template of its route.
    pub(in crate::http) fn route(&self) -> &'static str {
        self.route.route
    }

    /// Since the head of the request.
    pub(in crate::http) fn elapsed(&self) -> Duration {
        recently().saturating_sub(self.started)
    }

    pub(in crate::http) fn answered(&mut self, status: StatusCode) {
        self.answered = true;
        let class = usize::from(status.as_u16() / 100).min(STATUSES.len() - 1);
        let figures = self.figures();
        figures.statuses[class].fetch_add(1, Relaxed);
        figures.observe(self.elapsed());
    }

    fn figures(&self) -> &MethodMetrics {
        let known = METHODS.iter().position(|known| *known == self.method);
        &self.route.methods[known.unwrap_or(METHODS.len())]
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        if !self.answered {
            self.figures().statuses[0].fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use prometheus::TextEncoder;

    use super::*;

    fn shown(metrics: &Metrics) -> Vec<String> {
        let text = TextEncoder::new().encode_to_string(&metrics.families()).expect("text");
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn requests_are_counted_by_what_they_came_to() {
        let metrics = Metrics::new();
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
            let mut request = Measured::begin(&route, method);
            assert!(shown(&metrics).contains(&"corro_http_requests_in_flight 1".to_owned()));
            if let Some(status) = status {
                request.answered(status);
            }
        }
        let shown = shown(&metrics);
        for line in [
            r#"corro_http_requests_in_flight 0"#,
            r#"corro_http_requests_total{method="GET",route="/api/user/{id}",status="2xx"} 1"#,
            r#"corro_http_requests_total{method="GET",route="/api/user/{id}",status="4xx"} 2"#,
            r#"corro_http_requests_total{method="DELETE",route="/api/user/{id}",status="abandoned"} 1"#,
            r#"corro_http_requests_total{method="other",route="/api/user/{id}",status="4xx"} 1"#,
            r#"corro_http_request_duration_seconds_count{method="GET",route="/api/user/{id}"} 3"#,
            r#"corro_http_request_duration_seconds_bucket{method="GET",route="/api/user/{id}",le="10"} 3"#,
        ] {
            assert!(shown.iter().any(|shown| shown == line), "{line} is not in {shown:?}");
        }
        assert!(!shown.iter().any(|line| line.contains("health")), "{shown:?}");
    }

    #[test]
    fn durations_are_summed_up_in_their_buckets() {
        let figures = MethodMetrics::default();
        for micros in [100, 101, 499_000, 9_999_000, 11_000_000] {
            figures.observe(Duration::from_micros(micros));
        }
        let histogram = figures.histogram();
        let buckets = histogram.get_bucket().iter();
        let counts: Vec<_> =
            buckets.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count())).collect();
        assert_eq!(counts[..2], [(0.0001, 1), (0.0002, 2)]);
        assert_eq!(counts[11..], [(0.5, 3), (1.0, 3), (2.0, 3), (5.0, 3), (10.0, 4)]);
        assert_eq!((histogram.get_sample_count(), histogram.get_sample_sum()), (5, 21.498_201));
    }

    #[test]
    #[ignore = "a measurement"]
    fn what_a_request_pays() {
        const REQUESTS: u32 = 5_000_000;
        let route = Metrics::new().route("/api/user/{id}");
        let start = Instant::now();
        for _ in 0..REQUESTS {
            std::hint::black_box(Measured::begin(&route, &Method::GET)).answered(StatusCode::OK);
        }
        println!("{} ns a request", start.elapsed().as_nanos() / u128::from(REQUESTS));
    }
}
