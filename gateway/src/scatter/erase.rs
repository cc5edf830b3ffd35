//! Erasing one user at once, everywhere in the ring.
//!
//! It is deleted, purged without waiting for its tombstone to be old enough, and then each copy of its
//! partition takes its fields out of its op-log and files, and says that they are gone. A copy can do that
//! only when it has followed the purge, so it is asked until it has. Whatever does not come to an end may be
//! asked for again: what was done stays done.

use std::time::Duration;

use futures_util::future::try_join_all;
use protocol::message::link::Role;
use protocol::{Operation, Outcome, UserId, Version};
use thiserror::Error;
use tokio::time::{Instant, sleep};

use crate::engine_task::{EngineHandle, Unserved};

/// What cannot be done now is tried again for so long: a copy follows within milliseconds, but may be busy
/// with what takes seconds.
const WITHIN: Duration = Duration::from_secs(60);

/// Between two attempts.
const GLANCE: Duration = Duration::from_millis(50);

/// Why a user is not erased.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotErased {
    /// It could not be deleted.
    #[error(transparent)]
    NotDeleted(#[from] Unserved),
    /// It is deleted, and something is left of it.
    #[error("the user is deleted, and not yet erased: {0}")]
    Left(String),
}

/// Erases a user, whether there is one or it was deleted before. Returns whether there was one.
///
/// # Errors
/// If something is left of it.
pub async fn erase(engine: &EngineHandle, id: UserId) -> Result<bool, NotErased> {
    let deadline = Instant::now() + WITHIN;
    let deleted = engine.write(id, Operation::Delete, None).await?.outcome == Outcome::Applied;
    let purged = purge(engine, id, deadline).await?;
    let roles = if engine.size().await? > 1 { &Role::ALL[..] } else { &[Role::Primary] };
    try_join_all(roles.iter().map(|role| erase_in(engine, id, *role, deadline))).await?;
    // What is published says nothing of it from now on; what was, is read from the op-logs.
    engine.feed().forget(purged);
    Ok(deleted)
}

/// Returns the version of the purge.
async fn purge(engine: &EngineHandle, id: UserId, deadline: Instant) -> Result<Version, NotErased> {
    loop {
        let why = match engine.purge_user(id).await {
            Ok((version, Outcome::Applied)) => return Ok(version),
            Ok(_) => "it was created anew, or a copy of it is being repaired".to_owned(),
            Err(unserved) => unserved.to_string(),
        };
        again(deadline, why).await?;
    }
}

async fn erase_in(engine: &EngineHandle, id: UserId, role: Role, deadline: Instant) -> Result<(), NotErased> {
    loop {
        let why = match engine.erase_in_copy(id, role).await {
            Ok(true) => return Ok(()),
            Ok(false) => format!("the {} still has something of it", role.as_str()),
            Err(unserved) => unserved.to_string(),
        };
        again(deadline, why).await?;
    }
}

/// Waits a moment.
///
/// # Errors
/// When there is no more time for it.
async fn again(deadline: Instant, why: String) -> Result<(), NotErased> {
    if Instant::now() >= deadline {
        return Err(NotErased::Left(why));
    }
    sleep(GLANCE).await;
    Ok(())
}
