//! Whole db-processes on real sockets and real databases, with a gateway that does as each test says.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod gateway;
mod link;
mod process;
mod replication;

use std::time::Duration;

use tokio::time::timeout;

/// How long a test waits for anything before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("in time")
}
