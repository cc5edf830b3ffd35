//! Whether the gateway lives, and whether the ring is ready.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::api::Api;
use crate::http::input::query::NoParameters;
use crate::http::kind::Kind;
use crate::http::problem::{Answer, Problem};
use crate::standing::Standing;
use crate::status::PartitionStatus;

/// All is well.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Health, example = json!({"status": "live"}))]
pub(crate) struct Healthy {
    #[schema(inline)]
    status: Health,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Health {
    Live,
    Ready,
}

/// Whether the gateway lives
///
/// The process runs and answers. Says nothing of the ring.
#[utoipa::path(get, path = "/health/live", responses(
    (status = 200, description = "It does.", body = Healthy),
))]
pub(crate) async fn get_liveness(_: NoParameters) -> Json<Healthy> {
    Json(Healthy { status: Health::Live })
}

/// Whether the ring is ready
///
/// Every partition takes reads and writes; otherwise 503, which says what has to happen. A gateway that is a
/// standby is ready while it knows the active one.
#[utoipa::path(get, path = "/health/ready", responses(
    (status = 200, description = "It is.", body = Healthy),
))]
pub(crate) async fn get_readiness(State(api): State<Api>, _: NoParameters) -> Answer<Json<Healthy>> {
    match api.standing() {
        Standing::Active { .. } => {}
        Standing::Standby { active: Some(_) } => return Ok(Json(Healthy { status: Health::Ready })),
        Standing::Standby { active: None } => {
            return Err(Problem::new(Kind::NotReady, "No gateway of the ring is active."));
        }
    }
    let status = api.status().await?;
    if status.ready {
        return Ok(Json(Healthy { status: Health::Ready }));
    }
    let lacking: Vec<&PartitionStatus> =
        status.partitions.iter().filter(|partition| !(partition.reads && partition.writes)).collect();
    let reasons = lacking.iter().map(|status| {
        let waiting_for = status.waiting_for.as_deref().unwrap_or("not served yet");
        format!("partition {}: {waiting_for}", status.partition)
    });
    let detail = match reasons.collect::<Vec<_>>().join("; ") {
        none if none.is_empty() => "The ring is not complete yet.".to_owned(),
        reasons => reasons + ".",
    };
    Err(Problem::new(Kind::NotReady, detail).about(lacking.first().map(|partition| partition.partition)))
}
