//! `/metrics`: what the gateway does and how its ring is, in the text format of Prometheus.
//!
//! Every label has few values: methods that the API knows, templates of routes, classes of statuses, partitions, processes,
//! forms of the feed.
//! Nothing that a caller sends becomes one. What a request counts is looked up once for each route, method and status
//! class, and kept; from then on a request costs a few atomic additions and two looks at the clock. What the ring knows
//! about itself is asked for when somebody looks.
//!
//! There is no figure here for a single user, and none from the inside of a db-process.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TEXT_FORMAT, TextEncoder,
};
use protocol::message::link::Role;

use super::api::Api;
use super::changes::{Audience, Form};
use super::openapi::Text;
use super::problem::Problem;
use crate::routing::status::ClusterStatus;

/// In seconds: from what a read takes at best to the deadline of a request.
const BUCKETS: [f64; 16] =
    [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// Methods that are told apart; all others are one.
static METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// What a request came to; the first is that its caller went away before the answer.
const STATUSES: [&str; 6] = ["abandoned", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Counts requests, and knows how to show it.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    in_flight: IntGauge,
}

/// The figures of one route.
#[derive(Debug)]
pub(super) struct RouteMetrics {
    route: &'static str,
    all: Metrics,
    methods: [OnceLock<MethodMetrics>; METHODS.len() + 1],
}

#[derive(Debug)]
struct MethodMetrics {
    method: &'static str,
    duration: Histogram,
    statuses: [OnceLock<IntCounter>; STATUSES.len()],
}

impl Metrics {
    /// # Errors
    /// If a name is not allowed: those are constants, so this shows at once.
    fn try_new() -> Result<Self, Error> {
        let registry = Registry::new();
        let requests = IntCounterVec::new(
            Opts::new("corro_http_requests_total", "Requests, by what they came to."),
            &["method", "route", "status"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "corro_http_request_duration_seconds",
                "From the head of a request to the head of its answer.",
            )
            .buckets(BUCKETS.to_vec()),
            &["method", "route"],
        )?;
        let in_flight = IntGauge::new("corro_http_requests_in_flight", "Requests without an answer so far.")?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(in_flight.clone()))?;
        Ok(Self { registry, requests, durations, in_flight })
    }

    pub(super) fn new() -> Self {
        Self::try_new().expect("the names are constants, and a test makes them")
    }

    /// The figures of a route, which is named by its template.
    pub(super) fn route(&self, route: &'static str) -> Arc<RouteMetrics> {
        Arc::new(RouteMetrics { route, all: self.clone(), methods: Default::default() })
    }
}

impl RouteMetrics {
    fn method(&self, method: &Method) -> &MethodMetrics {
        let known = METHODS.iter().position(|known| known == method);
        self.methods[known.unwrap_or(METHODS.len())].get_or_init(|| {
            let method = match known {
                Some(0) => "GET",
                Some(1) => "HEAD",
                Some(2) => "POST",
                Some(3) => "PUT",
                Some(4) => "PATCH",
                Some(_) => "DELETE",
                None => "other",
            };
            let duration = self.all.durations.with_label_values(&[method, self.route]);
            MethodMetrics { method, duration, statuses: Default::default() }
        })
    }

    fn count(&self, method: &Method, status: Option<StatusCode>, duration: Duration) {
        let figures = self.method(method);
        let class = status.map_or(0, |status| usize::from(status.as_u16() / 100).min(STATUSES.len() - 1));
        let counter = figures.statuses[class].get_or_init(|| {
            self.all.requests.with_label_values(&[figures.method, self.route, STATUSES[class]])
        });
        counter.inc();
        if status.is_some() {
            figures.duration.observe(duration.as_secs_f64());
        }
    }
}

/// One request, from its head to its answer, or to the moment when nobody waits for that any more.
#[derive(Debug)]
pub(super) struct Measured {
    route: Arc<RouteMetrics>,
    method: Method,
    started: Instant,
    answered: bool,
}

impl Measured {
    pub(super) fn begin(route: &Arc<RouteMetrics>, method: &Method) -> Self {
        route.all.in_flight.inc();
        Self { route: Arc::clone(route), method: method.clone(), started: Instant::now(), answered: false }
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    /// The template of its route.
    pub(super) fn route(&self) -> &'static str {
        self.route.route
    }

    /// Since the head of the request.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn answered(&mut self, status: StatusCode) {
        self.answered = true;
        self.route.count(&self.method, Some(status), self.elapsed());
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.route.all.in_flight.dec();
        if !self.answered {
            self.route.count(&self.method, None, Duration::ZERO);
        }
    }
}

/// `GET /metrics`. Where the ring does not answer, there are the figures of the gateway at least.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "getMetrics",
    tag = "health",
    summary = "Figures for Prometheus",
    description = "Requests, the ring, and who listens to changes, in the text format of Prometheus, version 0.0.4.",
    responses(Text)
)]
pub(super) async fn show(State((api, metrics)): State<(Api, Metrics)>) -> Result<impl IntoResponse, Problem> {
    let mut families = metrics.registry.gather();
    families.extend(of_process().map_err(|error| unreadable(&error))?);
    families.extend(of_feed(api.audience()).map_err(|error| unreadable(&error))?);
    if let Ok(status) = api.status().await {
        families.extend(of_ring(&status).map_err(|error| unreadable(&error))?);
    }
    let text = TextEncoder::new().encode_to_string(&families).map_err(|error| unreadable(&error))?;
    Ok(([(CONTENT_TYPE, TEXT_FORMAT)], text))
}

fn unreadable(error: &Error) -> Problem {
    tracing::error!(%error, "the metrics cannot be shown");
    Problem::internal()
}

/// What only this process knows: memory and files.
fn of_process() -> Result<Vec<MetricFamily>, Error> {
    let shown = Shown::default();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = resident.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<i64>().ok());
    if let Some(kilobytes) = kilobytes {
        shown.gauge("process_resident_memory_bytes", "Memory that the gateway holds.", kilobytes << 10)?;
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        shown.gauge(
            "process_open_fds",
            "Files and sockets that the gateway has open.",
            files.count() as i64,
        )?;
    }
    Ok(shown.0.gather())
}

/// Who listens to changes.
fn of_feed(audience: &Audience) -> Result<Vec<MetricFamily>, Error> {
    let shown = Shown::default();
    let subscribers =
        shown.gauges("corro_feed_subscribers", "Clients that listen to changes.", &["transport"])?;
    let dropped = shown.counters(
        "corro_feed_dropped_total",
        "Subscribers that the gateway sent away: too slow, or what comes next is gone or cannot be read.",
        &["transport", "reason"],
    )?;
    for form in Form::ALL {
        subscribers.with_label_values(&[form.name()]).set(audience.listening(form) as i64);
        for (reason, count) in audience.dropped(form) {
            dropped.with_label_values(&[form.name(), reason]).inc_by(count);
        }
    }
    Ok(shown.0.gather())
}

/// The ring as it is now.
fn of_ring(status: &ClusterStatus) -> Result<Vec<MetricFamily>, Error> {
    let shown = Shown::default();
    let is: fn(bool) -> i64 = i64::from;
    shown.gauge("corro_ring_ready", "1 where every partition takes reads and writes.", is(status.ready))?;
    shown.gauge("corro_ring_processes", "Db-processes that the ring has.", status.size.into())?;
    shown.gauge(
        "corro_ring_epoch",
        "Number of the view; it counts up when a lead moves.",
        status.epoch as i64,
    )?;

    let of_partition = |name, help| shown.gauges(name, help, &["partition"]);
    let serving = of_partition("corro_partition_serving", "1 where reads and writes are answered.")?;
    let both = of_partition("corro_partition_both_copies_read", "1 where both copies answer reads.")?;
    let behind = of_partition(
        "corro_partition_unreplicated_writes",
        "Acknowledged writes that the other copy is not known to have.",
    )?;
    let lead = shown.gauges(
        "corro_partition_lead",
        "1 for the copy that takes the writes.",
        &["partition", "role"],
    )?;
    for partition in &status.partitions {
        let number = partition.partition.to_string();
        serving.with_label_values(&[&number]).set(is(partition.reads && partition.writes));
        both.with_label_values(&[&number]).set(is(partition.both_read));
        behind.with_label_values(&[&number]).set(partition.unreplicated as i64);
        for role in Role::ALL {
            let leads = partition.lead.is_some() && partition.role == role;
            lead.with_label_values(&[number.as_str(), role.as_str()]).set(is(leads));
        }
    }

    let connected =
        shown.gauges("corro_process_connected", "1 where the db-process is there.", &["place"])?;
    let frames = shown.counters(
        "corro_process_frames_total",
        "Frames sent to the db-process and received from it.",
        &["place"],
    )?;
    for process in &status.processes {
        let place = process.place.to_string();
        connected.with_label_values(&[&place]).set(is(process.connected));
        frames.with_label_values(&[&place]).inc_by(process.frames);
    }

    let reads = shown.counters("corro_reads_total", "Reads that a copy answered.", &["role"])?;
    reads.with_label_values(&[Role::Primary.as_str()]).inc_by(status.served.reads_by_primary);
    reads.with_label_values(&[Role::Replica.as_str()]).inc_by(status.served.reads_by_replica);
    let plain = |name, help, count| -> Result<(), Error> {
        shown.counters(name, help, &[])?.with_label_values::<&str>(&[]).inc_by(count);
        Ok(())
    };
    plain(
        "corro_reads_hedged_total",
        "Reads that the second copy was asked, too.",
        status.served.reads_hedged,
    )?;
    plain("corro_writes_total", "Writes that were decided.", status.served.writes)?;
    Ok(shown.0.gather())
}

/// Figures that are made when somebody looks.
#[derive(Default)]
struct Shown(Registry);

impl Shown {
    fn gauge(&self, name: &str, help: &str, value: i64) -> Result<(), Error> {
        self.add(IntGauge::new(name, help)?).map(|gauge| gauge.set(value))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn add<C: Collector + Clone + 'static>(&self, figure: C) -> Result<C, Error> {
        self.0.register(Box::new(figure.clone()))?;
        Ok(figure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_what_they_came_to() {
        let metrics = Metrics::new();
        let route = metrics.route("/api/user/{id}");
        let other = Method::from_bytes(b"BREW").expect("a method");
        for (method, status) in [
            (&Method::GET, Some(StatusCode::OK)),
            (&Method::GET, Some(StatusCode::NOT_FOUND)),
            (&Method::GET, Some(StatusCode::GONE)),
            (&Method::DELETE, None),
            (&other, Some(StatusCode::METHOD_NOT_ALLOWED)),
        ] {
            let mut request = Measured::begin(&route, method);
            assert_eq!(metrics.in_flight.get(), 1);
            if let Some(status) = status {
                request.answered(status);
            }
        }
        assert_eq!(metrics.in_flight.get(), 0);
        let text = TextEncoder::new().encode_to_string(&metrics.registry.gather()).expect("text");
        for line in [
            r#"corro_http_requests_total{method="GET",route="/api/user/{id}",status="2xx"} 1"#,
            r#"corro_http_requests_total{method="GET",route="/api/user/{id}",status="4xx"} 2"#,
            r#"corro_http_requests_total{method="DELETE",route="/api/user/{id}",status="abandoned"} 1"#,
            r#"corro_http_requests_total{method="other",route="/api/user/{id}",status="4xx"} 1"#,
            r#"corro_http_request_duration_seconds_count{method="GET",route="/api/user/{id}"} 3"#,
            r#"corro_http_request_duration_seconds_bucket{method="GET",route="/api/user/{id}",le="10"} 3"#,
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in {text}");
        }
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
