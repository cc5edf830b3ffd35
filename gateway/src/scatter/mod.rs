//! What is asked of all partitions at once and put together: lists, counts and the comparison of copies.
//!
//! * [`check`]: whether the copies are what they should be. [`erase`]: nothing is left of a user.
//! * `merge`: one list in id order from the lists of all partitions, without I/O.
//!
//! Partitions are asked side by side, and each answers for a moment of its own. So a list or a count taken
//! while users come and go is none of a single moment; what stays put is in it exactly once.

pub mod check;
pub mod erase;
mod merge;

use futures_util::future::try_join_all;
use protocol::UserId;
use protocol::message::query::{Filter, Listed};

use crate::engine_task::{EngineHandle, Unserved};
use merge::Merge;

/// A part of a list.
#[derive(Debug)]
pub struct List {
    /// In id order.
    pub users: Vec<Listed>,
    /// Whether there are users beyond the last one.
    pub more: bool,
}

/// The first `limit` live users with an id beyond `after`; fewer only where there are no more.
///
/// # Errors
/// As for [`EngineHandle::read`]: all partitions have to answer.
pub async fn list(
    engine: &EngineHandle,
    after: Option<UserId>,
    limit: usize,
    filter: &Filter,
) -> Result<List, Unserved> {
    let mut merge = Merge::new(engine.size().await?, after, limit);
    loop {
        let wants = merge.advance();
        if wants.is_empty() {
            let (users, more) = merge.finish();
            return Ok(List { users, more });
        }
        let pages = wants.iter().map(|want| async {
            let filter = filter.clone();
            let page = engine.page(want.partition, want.after, want.limit, filter).await?;
            Ok((want.partition, page))
        });
        for (partition, page) in try_join_all(pages).await? {
            merge.take(partition, page.users, page.more);
        }
    }
}

/// The number of live users; only of one group, where that is given.
///
/// # Errors
/// As for [`list`].
pub async fn count(engine: &EngineHandle, group: Option<i32>) -> Result<u64, Unserved> {
    let size = engine.size().await?;
    let counts = try_join_all((0..size).map(|partition| engine.count(partition, group))).await?;
    Ok(counts.into_iter().sum())
}
