//! The calls about the state of the copies: comparing them, and making them good.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use protocol::placement::Partition;
use serde::Serialize;
use utoipa::ToSchema;

use super::api::Api;
use super::kind::Kind;
use super::openapi::{CheckQuery, Checking, PartitionNumber, Repairs};
use super::problem::Problem;
use super::query::Parameters;
use crate::gather::check::{Begun, Check};

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
pub(super) async fn check(State(api): State<Api>, RawQuery(text): RawQuery) -> Result<Json<Check>, Problem> {
    let given = Parameters::parse(text.as_deref(), &["scan"])?;
    let scan = given.get("scan", "must be true or false", |text| text.parse().ok())?;
    api.check(scan.unwrap_or(false)).await.map(Json)
}

/// What was begun.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Repairing {
    /// Which partition.
    partition: Partition,
    /// What it needed.
    begun: Begun,
}

/// `POST /api/cluster/repair/{partition}`: scans, and begins what is needed; a check tells when it is done.
#[utoipa::path(
    post,
    path = "/api/cluster/repair/{partition}",
    operation_id = "repairPartition",
    tag = "ring",
    summary = "Make the copies of a partition good",
    description = "Scans them first, which may take minutes. A damaged copy is filled anew from the sound one, sound copies \
                   that differ are merged. A check tells when that is done.",
    params(PartitionNumber),
    responses(
        (status = 200, description = "Nothing is wrong with it.", body = Repairing),
        (status = 202, description = "It is under way.", body = Repairing),
        Repairs
    )
)]
pub(super) async fn repair(
    State(api): State<Api>,
    Path(partition): Path<String>,
) -> Result<(StatusCode, Json<Repairing>), Problem> {
    let Ok(partition) = partition.parse() else {
        return Err(Problem::new(Kind::PartitionNotFound, "Partitions are numbered from 0."));
    };
    let begun = api.repair(partition).await?;
    let status = if begun == Begun::Nothing { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(Repairing { partition, begun })))
}
