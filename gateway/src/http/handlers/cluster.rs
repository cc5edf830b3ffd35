//! The ring: what it looks like, whether its copies are equal, and what an operator does to them.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use protocol::placement::Partition;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::api::Api;
use crate::http::input::query::Parameters;
use crate::http::kind::Kind;
use crate::http::openapi::{CheckQuery, Checking, PartitionNumber, Promoting, Repairs, Status};
use crate::http::problem::Problem;
use crate::scatter::check::{Begun, Check};
use crate::status::ClusterStatus;

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
pub(in crate::http) async fn show(State(api): State<Api>) -> Result<Json<ClusterStatus>, Problem> {
    api.status().await.map(Json)
}

/// `GET /api/cluster/check?scan=`: it has no deadline but that of the scan, which may take minutes.
#[utoipa::path(
    get,
    path = "/api/cluster/check",
    operation_id = "checkCopies",
    tag = "ring",
    summary = "Compare the copies of every partition",
    description = "What is wrong with a copy is no error: the answer says so. A scan may take minutes.",
    params(CheckQuery),
    responses((status = 200, description = "What was found.", body = Check), Checking)
)]
pub(in crate::http) async fn check(
    State(api): State<Api>,
    RawQuery(text): RawQuery,
) -> Result<Json<Check>, Problem> {
    let given = Parameters::parse(text.as_deref(), &["scan"])?;
    let scan = given.get("scan", "must be true or false", |text| text.parse().ok())?;
    api.check(scan.unwrap_or(false)).await.map(Json)
}

/// What was begun.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Repairing {
    /// Which partition.
    partition: Partition,
    /// What it needed.
    begun: Begun,
}

/// `POST /api/cluster/repair/{partition}`: scans, and begins what is needed; a check shows when it is done.
#[utoipa::path(
    post,
    path = "/api/cluster/repair/{partition}",
    operation_id = "repairPartition",
    tag = "ring",
    summary = "Make the copies of a partition good",
    description = "Scans them first, which may take minutes. A damaged copy is filled anew from the sound \
                   one, sound copies that differ are merged. A check shows when that is done.",
    params(PartitionNumber),
    responses(
        (status = 200, description = "Nothing is wrong with it.", body = Repairing),
        (status = 202, description = "It is under way.", body = Repairing),
        Repairs
    )
)]
pub(in crate::http) async fn repair(
    State(api): State<Api>,
    Path(partition): Path<String>,
) -> Result<(StatusCode, Json<Repairing>), Problem> {
    let partition = parse_partition(&partition)?;
    let begun = api.repair(partition).await?;
    let status = if begun == Begun::Nothing { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(Repairing { partition, begun })))
}

/// `POST /api/cluster/promote/{partition}`: the operator accepts that what only the lost lead has may be
/// lost. Answers the ring as it is then.
#[utoipa::path(
    post,
    path = "/api/cluster/promote/{partition}",
    operation_id = "promotePartition",
    tag = "ring",
    summary = "Lead a partition that is down by its other copy",
    description = "The operator accepts that what only the lost lead has may be lost. What comes back later \
                   is merged in.",
    params(PartitionNumber),
    responses((status = 200, description = "The ring as it is then.", body = ClusterStatus), Promoting)
)]
pub(in crate::http) async fn promote(
    State(api): State<Api>,
    Path(partition): Path<String>,
) -> Result<Json<ClusterStatus>, Problem> {
    let partition = parse_partition(&partition)?;
    api.promote(partition).await?;
    api.status().await.map(Json)
}

/// # Errors
/// 404 where it is no number of a partition.
fn parse_partition(text: &str) -> Result<Partition, Problem> {
    text.parse().map_err(|_| Problem::new(Kind::PartitionNotFound, "Partitions are numbered from 0."))
}
