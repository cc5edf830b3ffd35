//! Accepts connections as long as there is room for them.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::connection;
use super::limits::Limits;
use crate::http::kind::Kind;
use crate::http::problem::Problem;

/// Of those that are rejected, so many get an answer at the same time; more are closed without one.
const MAX_REJECTIONS: usize = 256;

/// How long a caller that is rejected may take to read that.
const REJECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause after a failure to accept.
const RECOVERY: Duration = Duration::from_millis(50);

/// Serves until `shutdown`, and then until the last connection has its answer.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, shutdown: CancellationToken) {
    let open = Arc::new(Semaphore::new(limits.connections));
    let rejections = Arc::new(Semaphore::new(MAX_REJECTIONS));
    let connections = TaskTracker::new();
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        let stream = match accepted {
            Ok((stream, _)) => stream,
            // The caller has gone again.
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) =>
            {
                continue;
            }
            // Most likely too many files are open in the whole system. It is no reason to end.
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                sleep(RECOVERY).await;
                continue;
            }
        };
        if let Ok(permit) = Arc::clone(&open).try_acquire_owned() {
            connections.spawn(connection::run(stream, router.clone(), limits, permit, shutdown.clone()));
        } else if let Ok(permit) = Arc::clone(&rejections).try_acquire_owned() {
            connections.spawn(reject(stream, permit));
        } else {
            debug!("a connection is closed without an answer: there are too many");
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Answers 503, and closes so that the answer arrives: the kernel would reset a connection that is closed
/// with bytes unread, and the answer would be lost.
async fn reject(mut stream: TcpStream, _permit: OwnedSemaphorePermit) {
    let detail = "Nothing was done: the gateway has as many connections as it takes.";
    let response = Problem::new(Kind::Overloaded, detail).into_raw_response();
    let exchange = async {
        stream.write_all(&response).await?;
        stream.shutdown().await?;
        let mut ignored = [0; 1024];
        while stream.read(&mut ignored).await? > 0 {}
        std::io::Result::Ok(())
    };
    // A caller that does not read it learns of it by the end of the connection.
    let _ = timeout(REJECT_TIMEOUT, exchange).await;
}
