//! The ring: what it looks like, whether its copies are equal, and what an operator does to them.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use protocol::placement::Partition;
use serde::Serialize;
use utoipa::ToSchema;

use crate::audit::Subject;
use crate::http::api::Api;
use crate::http::audited::Audited;
use crate::http::input::body;
use crate::http::input::query::{NoParameters, Parameters};
use crate::http::kind::Kind;
use crate::http::openapi::{CheckQuery, PartitionNumber, example_check, example_cluster};
use crate::http::problem::{Answer, Problem};
use crate::scatter::check::{Begun, Check};
use crate::status::ClusterStatus;

/// The ring
///
/// Processes, partitions, their leaders, what was served, and recent events.
#[utoipa::path(get, path = "/api/cluster", responses(
    (status = 200, description = "The ring as it is known now.", body = ClusterStatus,
     example = json!(example_cluster())),
))]
pub(crate) async fn get_cluster(State(api): State<Api>, _: NoParameters) -> Answer<Json<ClusterStatus>> {
    api.status().await.map(Json)
}

/// Compare the copies of every partition
///
/// What is wrong with a copy is no error: the answer says so. A scan may take minutes.
#[utoipa::path(get, path = "/api/cluster/check", params(CheckQuery), responses(
    (status = 200, description = "What was found.", body = Check, example = json!(example_check())),
))]
pub(crate) async fn check_copies(
    State(api): State<Api>,
    audited: Audited,
    RawQuery(text): RawQuery,
) -> Answer<Json<Check>> {
    let given = Parameters::parse(text.as_deref(), &["scan"])?;
    let scan = given.get("scan", "must be true or false", |text| text.parse().ok())?;
    audited.ask(Subject::Ring).await?;
    api.check(scan.unwrap_or(false)).await.map(Json)
}

/// What was begun.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"partition": 1, "begun": "nothing"}))]
pub(crate) struct Repairing {
    /// Which partition.
    partition: Partition,
    /// What it needed.
    begun: Begun,
}

/// Make the copies of a partition good
///
/// Scans them first, which may take minutes. A damaged copy is filled anew from the sound one, sound copies
/// that differ are merged. A check shows when that is done.
#[utoipa::path(post, path = "/api/cluster/repair/{partition}", params(PartitionNumber), responses(
    (status = 200, description = "Nothing is wrong with it.", body = Repairing),
    (status = 202, description = "It is under way.", body = Repairing),
))]
pub(crate) async fn repair_partition(
    State(api): State<Api>,
    Path(partition): Path<String>,
    headers: HeaderMap,
    audited: Audited,
    _: NoParameters,
) -> Answer<(StatusCode, Json<Repairing>)> {
    let partition = parse_partition(&partition)?;
    body::refuse_forms(&headers)?;
    audited.ask(Subject::Partition(partition)).await?;
    let begun = api.repair(partition).await?;
    let status = if begun == Begun::Nothing { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(Repairing { partition, begun })))
}

/// Lead a partition that is down by its other copy
///
/// The operator accepts that what only the lost leader has may be lost. What comes back later is merged in.
#[utoipa::path(post, path = "/api/cluster/promote/{partition}", params(PartitionNumber), responses(
    (status = 200, description = "The ring as it is then.", body = ClusterStatus,
     example = json!(example_cluster())),
))]
pub(crate) async fn promote_partition(
    State(api): State<Api>,
    Path(partition): Path<String>,
    headers: HeaderMap,
    audited: Audited,
    _: NoParameters,
) -> Answer<Json<ClusterStatus>> {
    let partition = parse_partition(&partition)?;
    body::refuse_forms(&headers)?;
    audited.ask(Subject::Partition(partition)).await?;
    api.promote(partition).await?;
    api.status().await.map(Json)
}

/// # Errors
/// 404 where it is no number of a partition.
fn parse_partition(text: &str) -> Result<Partition, Problem> {
    text.parse().map_err(|_| Problem::new(Kind::PartitionNotFound, "Partitions are numbered from 0."))
}
