//! Whether the gateway lives, and whether the ring is ready.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use crate::http::api::Api;
use crate::http::openapi::{Health, Readiness};
use crate::http::problem::Problem;
use crate::status::PartitionStatus;

/// Answer of the health routes when all is well.
#[derive(Debug, Serialize)]
pub(in crate::http) struct Healthy {
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
pub(in crate::http) async fn live() -> Json<Healthy> {
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
pub(in crate::http) async fn ready(State(api): State<Api>) -> Result<Json<Healthy>, Problem> {
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
