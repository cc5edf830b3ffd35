//! `/metrics`: what the gateway does and how its ring is, in the text format of Prometheus.
//!
//! What the HTTP side counts as it happens is in the registry of [`Metrics`]; the figures of the process and
//! of the ring are made when they are asked for. Every label has few values.
//!
//! There is no figure here for a single user, and none from the inside of a db-process.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Error, GaugeVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TEXT_FORMAT, TextEncoder,
};
use protocol::message::link::Role;

use crate::http::api::Api;
use crate::http::metrics::Metrics;
use crate::http::openapi::Text;
use crate::http::problem::Problem;
use crate::status::ClusterStatus;

/// `GET /metrics`. Where the ring does not answer, there are the figures of the gateway at least.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "getMetrics",
    tag = "health",
    summary = "Figures for Prometheus",
    description = "Requests, the ring, and subscribers of the feed, in the text format of Prometheus, \
                   version 0.0.4.",
    responses(Text)
)]
pub(in crate::http) async fn show(
    State((api, metrics)): State<(Api, Metrics)>,
) -> Result<impl IntoResponse, Problem> {
    let mut families = metrics.gather();
    families.extend(of_process().map_err(|error| unreadable(&error))?);
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
    let lag = shown.seconds(
        "corro_partition_replication_lag_seconds",
        "How long ago the oldest of these writes was acknowledged; 0 where there is none.",
        &["partition"],
    )?;
    let link = shown.gauges(
        "corro_partition_link_up",
        "1 where the copy with that role follows the other one of its partition.",
        &["partition", "role"],
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
        lag.with_label_values(&[&number]).set(partition.unreplicated_millis as f64 / 1e3);
        // In a ring of one there is nothing to follow.
        for copy in partition.copies.iter().filter(|_| status.size > 1) {
            let follows = copy.follows == Some(true);
            link.with_label_values(&[number.as_str(), copy.role.as_str()]).set(is(follows));
        }
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

/// Metrics that are made for one answer.
#[derive(Default)]
struct Shown(Registry);

impl Shown {
    fn gauge(&self, name: &str, help: &str, value: i64) -> Result<(), Error> {
        self.add(IntGauge::new(name, help)?).map(|gauge| gauge.set(value))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, Error> {
        self.add(GaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn add<C: Collector + Clone + 'static>(&self, figure: C) -> Result<C, Error> {
        self.0.register(Box::new(figure.clone()))?;
        Ok(figure)
    }
}
