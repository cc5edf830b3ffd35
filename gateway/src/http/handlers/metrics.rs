//! `/metrics`: what the gateway does and how its ring is, in the text format of Prometheus.
//!
//! What the HTTP side counts as it happens is in the registry of [`Metrics`]; the figures of the process and
//! of the ring are made when they are asked for. Every label has few values.
//!
//! There is no figure here for a single user. Those of the db-processes are what they say every few seconds.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use prometheus::{
    Error, GaugeVec, IntCounterVec, Registry, TEXT_FORMAT, TextEncoder, register_gauge_vec_with_registry,
    register_gauge_with_registry, register_int_counter_vec_with_registry,
};
use protocol::message::link::Role;
use protocol::message::usage::{CopyUsage, ProcessUsage};

use crate::http::api::Api;
use crate::http::input::query::NoParameters;
use crate::http::metrics::Metrics;
use crate::http::problem::{Answer, Problem};
use crate::status::{ClusterStatus, PartitionStatus};

/// Figures for Prometheus
///
/// Requests, the ring, and subscribers of the feed, in the text format of Prometheus, version 0.0.4.
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, description = "The figures.", body = String, content_type = "text/plain",
     example = "corro_ring_ready 1\n"),
))]
pub(crate) async fn get_metrics(
    State((api, metrics)): State<(Api, Metrics)>,
    _: NoParameters,
) -> Answer<impl IntoResponse> {
    let figures = Figures::default();
    // Where the ring does not answer, there are the figures of the gateway at least.
    let ring = api.status().await.ok();
    let shown = of_process(&figures).and_then(|()| ring.map_or(Ok(()), |ring| of_ring(&figures, &ring)));
    let text = shown.and_then(|()| {
        let families = [metrics.gather(), figures.0.gather()].concat();
        TextEncoder::new().encode_to_string(&families)
    });
    let text = text.map_err(|error| {
        tracing::error!(%error, "the metrics cannot be shown");
        Problem::internal()
    })?;
    Ok(([(CONTENT_TYPE, TEXT_FORMAT)], text))
}

/// What only this process knows: memory and files.
fn of_process(figures: &Figures) -> Result<(), Error> {
    if let Some(bytes) = process::resident_memory() {
        figures.gauge("process_resident_memory_bytes", "Memory that the gateway holds.", bytes as f64)?;
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        let help = "Files and sockets that the gateway has open.";
        figures.gauge("process_open_fds", help, files.count() as f64)?;
    }
    Ok(())
}

/// The ring as it is now.
fn of_ring(figures: &Figures, ring: &ClusterStatus) -> Result<(), Error> {
    let is: fn(bool) -> f64 = f64::from;
    figures.gauge("corro_ring_ready", "1 where every partition takes reads and writes.", is(ring.ready))?;
    figures.gauge("corro_ring_processes", "Db-processes that the ring has.", ring.size.into())?;
    let help = "Number of the view; it counts up when a leader changes.";
    figures.gauge("corro_ring_epoch", help, ring.epoch as f64)?;

    type Value = fn(&PartitionStatus) -> f64;
    let per_partition: [(&str, &str, Value); 4] = [
        ("corro_partition_serving", "1 where reads and writes are answered.", |partition| {
            f64::from(partition.reads && partition.writes)
        }),
        ("corro_partition_both_copies_read", "1 where both copies answer reads.", |partition| {
            f64::from(partition.both_read)
        }),
        (
            "corro_partition_unreplicated_writes",
            "Acknowledged writes that the other copy is not known to have.",
            |partition| partition.unreplicated as f64,
        ),
        (
            "corro_partition_replication_lag_seconds",
            "How long ago the oldest of these writes was acknowledged; 0 where there is none.",
            |partition| partition.unreplicated_millis as f64 / 1e3,
        ),
    ];
    for (name, help, value) in per_partition {
        let gauges = figures.gauges(name, help, &["partition"])?;
        for partition in &ring.partitions {
            gauges.with_label_values(&[partition.partition.to_string()]).set(value(partition));
        }
    }
    let labels = ["partition", "role"];
    let help = "1 where the copy with that role follows the other one of its partition.";
    let link = figures.gauges("corro_partition_link_up", help, &labels)?;
    let leader = figures.gauges("corro_partition_lead", "1 for the copy that takes the writes.", &labels)?;
    for partition in &ring.partitions {
        let number = partition.partition.to_string();
        // In a ring of one there is nothing to follow.
        for copy in partition.copies.iter().filter(|_| ring.size > 1) {
            let follows = copy.follows == Some(true);
            link.with_label_values(&[number.as_str(), copy.role.as_str()]).set(is(follows));
        }
        for role in Role::ALL {
            let leads = partition.lead.is_some() && partition.role == role;
            leader.with_label_values(&[number.as_str(), role.as_str()]).set(is(leads));
        }
    }

    let connected =
        figures.gauges("corro_process_connected", "1 where the db-process is there.", &["place"])?;
    let help = "Frames sent to the db-process and received from it.";
    let frames = figures.counters("corro_process_frames_total", help, &["place"])?;
    for process in &ring.processes {
        let place = [process.place.to_string()];
        connected.with_label_values(&place).set(is(process.connected));
        frames.with_label_values(&place).inc_by(process.frames);
    }
    of_usage(figures, ring)?;
    let served = &ring.served;
    let reads = figures.counters("corro_reads_total", "Reads that a copy answered.", &["role"])?;
    reads.with_label_values(&[Role::Primary.as_str()]).inc_by(served.reads_by_primary);
    reads.with_label_values(&[Role::Replica.as_str()]).inc_by(served.reads_by_replica);
    let none: [&str; 0] = [];
    for (name, help, count) in [
        ("corro_reads_hedged_total", "Reads that the second copy was asked, too.", served.reads_hedged),
        ("corro_writes_total", "Writes that were decided.", served.writes),
    ] {
        figures.counters(name, help, &none)?.with_label_values(&none).inc_by(count);
    }
    Ok(())
}

/// What the db-processes use of their machines, as they last said.
fn of_usage(figures: &Figures, ring: &ClusterStatus) -> Result<(), Error> {
    let help = "1 for the version of the db-process's program.";
    let info = figures.gauges("corro_process_info", help, &["place", "version"])?;
    let known = || ring.processes.iter().filter_map(|process| Some((process.place, process.usage.as_ref()?)));
    for (place, usage) in known() {
        info.with_label_values(&[&place.to_string(), &usage.version]).set(1.0);
    }
    type OfProcess = fn(&ProcessUsage) -> u64;
    let per_process: [(&str, &str, OfProcess); 3] = [
        ("corro_process_resident_memory_bytes", "Memory that the db-process holds.", |u| u.memory_bytes),
        ("corro_process_disk_bytes", "What its data directory takes on disk.", |u| u.disk_bytes),
        ("corro_process_disk_free_bytes", "What is left on that disk.", |u| u.disk_free_bytes),
    ];
    for (name, help, value) in per_process {
        let gauges = figures.gauges(name, help, &["place"])?;
        for (place, usage) in known() {
            gauges.with_label_values(&[place.to_string()]).set(value(usage) as f64);
        }
    }
    type OfCopy = fn(&CopyUsage) -> u64;
    let per_copy: [(&str, &str, OfCopy); 6] = [
        ("corro_copy_users", "Live users in the copy.", |c| c.users),
        ("corro_copy_op_log_entries", "Entries of its op-log.", |c| c.op_log_entries),
        ("corro_copy_table_files", "Table files of its database.", |c| c.table_files),
        ("corro_copy_table_bytes", "Size of these.", |c| c.table_bytes),
        ("corro_copy_memtable_bytes", "Memory of its memtables.", |c| c.memtable_bytes),
        (
            "corro_copy_pending_compaction_bytes",
            "What compaction has yet to rewrite, as RocksDB estimates it.",
            |c| c.pending_compaction_bytes,
        ),
    ];
    for (name, help, value) in per_copy {
        let gauges = figures.gauges(name, help, &["place", "role"])?;
        for (place, usage) in known() {
            for (role, copy) in Role::ALL.into_iter().zip(&usage.copies) {
                gauges.with_label_values(&[&*place.to_string(), role.as_str()]).set(value(copy) as f64);
            }
        }
    }
    Ok(())
}

/// Metrics that are made for one answer.
#[derive(Default)]
struct Figures(Registry);

impl Figures {
    fn gauge(&self, name: &str, help: &str, value: f64) -> Result<(), Error> {
        let gauge = register_gauge_with_registry!(name, help, self.0)?;
        gauge.set(value);
        Ok(())
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, Error> {
        register_gauge_vec_with_registry!(name, help, labels, self.0)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        register_int_counter_vec_with_registry!(name, help, labels, self.0)
    }
}
