//! Whether the gateway lives, whether the ring is ready, and what the ring looks like.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;

use super::api::Api;
use super::kind::Kind;
use super::openapi::{Health, PartitionNumber, Promoting, Readiness, Status};
use super::problem::Problem;
use crate::routing::status::{ClusterStatus, PartitionStatus};

/// Answer of the health routes when all is well.
#[derive(Debug, Serialize)]
pub(super) struct Healthy {
    status: &'static str,
}

/// The process runs and answers. Says nothing of the ring: a restart of the gateway would not help it.
#[utoipa::path(
    get,
    path = "/health/live",
    operation_id = "getLiveness",
    tag = "health",
    summary = "Whether the gateway lives",
    description = "The process runs and answers. Says nothing of the ring.",
    responses((status = 200, description = "It does.", body = Health))
)]
pub(super) async fn live() -> Json<Healthy> {
    Json(Healthy { status: "live" })
}

/// Every partition takes reads and writes; otherwise 503 that says what has to happen.
#[utoipa::path(
    get,
    path = "/health/ready",
    operation_id = "getReadiness",
    tag = "health",
    summary = "Whether the ring is ready",
    description = "Every partition takes reads and writes; otherwise 503, which says what has to happen.",
    responses((status = 200, description = "It is.", body = Health), Readiness)
)]
pub(super) async fn ready(State(api): State<Api>) -> Result<Json<Healthy>, Problem> {
    let status = api.status().await?;
    if status.ready {
        return Ok(Json(Healthy { status: "ready" }));
    }
    let lacking: Vec<&PartitionStatus> =
        status.partitions.iter().filter(|partition| !(partition.reads && partition.writes)).collect();
    let reasons: Vec<String> = lacking.iter().map(|partition| reason(partition)).collect();
    let detail = if reasons.is_empty() {
        "The ring is not complete yet.".to_owned()
    } else {
        format!("{}.", reasons.join("; "))
    };
    Err(Problem::not_ready(lacking.first().map(|partition| partition.partition), detail))
}

fn reason(status: &PartitionStatus) -> String {
    let waiting_for = status.waiting_for.as_deref().unwrap_or("not served yet");
    format!("partition {}: {waiting_for}", status.partition)
}

/// The ring as it is known now.
#[utoipa::path(
    get,
    path = "/api/cluster",
    operation_id = "getCluster",
    tag = "ring",
    summary = "The ring",
    description = "Processes, partitions, who leads, what was served, what happened lately.",
    responses((status = 200, description = "The ring as it is known now.", body = ClusterStatus), Status)
)]
pub(super) async fn cluster(State(api): State<Api>) -> Result<Json<ClusterStatus>, Problem> {
    api.status().await.map(Json)
}

/// `POST /api/cluster/promote/{partition}`: the operator accepts that what only the lost lead has may be lost. Answers the
/// ring as it is then.
#[utoipa::path(
    post,
    path = "/api/cluster/promote/{partition}",
    operation_id = "promotePartition",
    tag = "ring",
    summary = "Lead a partition that is down by its other copy",
    description = "The operator accepts that what only the lost lead has may be lost. What comes back later is merged in.",
    params(PartitionNumber),
    responses((status = 200, description = "The ring as it is then.", body = ClusterStatus), Promoting)
)]
pub(super) async fn promote(
    State(api): State<Api>,
    Path(partition): Path<String>,
) -> Result<Json<ClusterStatus>, Problem> {
    let Ok(partition) = partition.parse() else {
        return Err(Problem::new(Kind::PartitionNotFound, "Partitions are numbered from 0."));
    };
    api.promote(partition).await?;
    api.status().await.map(Json)
}
