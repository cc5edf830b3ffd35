//! Serves the router over TCP, to callers that may be slow, many, or hostile.
//!
//! `axum::serve` reads a head for as long as its caller likes, keeps idle connections for ever, and accepts
//! any number of them. What a caller may cost here is bounded:
//!
//! * A head is complete within [`Limits::head`] after the connection could take it, or the connection is
//!   closed. A body has the deadline of its request (`input::body`). While no handler works, a connection on
//!   which no byte moves for [`Limits::idle`] is closed: so is one whose caller does not read its answer.
//! * At most [`Limits::connections`] are open. The newest beyond that is answered 503 and closed, and those
//!   that are there go on: to accept no more would leave its caller waiting in the backlog of the kernel, and
//!   to close an older one could break a request. What is open is also far below the number of files that the
//!   process may open ([`allowed_connections`]), so that links and logs never lack one. Should accepting fail
//!   all the same, it is tried again a moment later.
//! * A head may have 16 KiB and 100 fields, and no connection buffers more than 32 KiB.
//!
//! What is no HTTP/1.1, or too large a head, is answered by hyper: a bare 400, 431 or 414, and the end of the
//! connection. These are the only errors of this API that are no `application/problem+json`.
//!
//! At the end the listener is closed, idle connections are closed, and requests in flight are finished.
//! Answers that would never end by themselves have to be ended by their handlers.
//!
//! What it does not do: fairness between callers, limits by address, TLS. A proxy in front is the place for
//! those.

mod connection;
mod limits;

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

use super::kind::Kind;
use super::problem::Problem;

pub use limits::{Limits, allowed_connections};

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
