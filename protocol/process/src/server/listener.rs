//! Accepts connections as long as there is room for them.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::connection;
use super::policy::Policy;
use super::room::Room;
use crate::listen::Listener;

/// Of those that are rejected, so many get an answer at the same time; more are closed without one.
const MAX_REJECTIONS: usize = 64;

/// How long a caller that is rejected may take to read that.
const REJECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause after a failure to accept, and between two looks for space.
const RECOVERY: Duration = Duration::from_millis(20);

/// Connections that are accepted in a row: then those that lost their places end, and others have their turn.
const IN_A_ROW: usize = 16;

/// Serves until `shutdown`, and then until the last connection has its answer.
pub async fn serve(mut listener: Listener, router: Router, policy: Policy, shutdown: CancellationToken) {
    let room = Arc::new(Room::new(policy));
    let rejections = Arc::new(Semaphore::new(MAX_REJECTIONS));
    let connections = TaskTracker::new();
    let mut in_a_row = 0;
    let mut space = pin!(keep_space(&room));
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            never = &mut space => match never {},
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            // The caller has gone again.
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) =>
            {
                continue;
            }
            // Most likely too many files are open in the whole system. It is no reason to end.
            Err(error) => {
                warn!(%error, port = room.policy().port, "a connection could not be accepted");
                sleep(RECOVERY).await;
                continue;
            }
        };
        connection::without_delay(&stream);
        if let Some(activity) = room.enter(address) {
            connections.spawn(connection::run(
                (stream, listener.tls().cloned()),
                router.clone(),
                activity,
                Arc::clone(&room),
                shutdown.clone(),
            ));
        } else if listener.tls().is_some() {
            debug!("a connection is closed: there are too many");
        } else if let Ok(permit) = Arc::clone(&rejections).try_acquire_owned() {
            connections.spawn(reject(stream, room.policy().full, permit));
        } else {
            debug!("a connection is closed without an answer: there are too many");
        }
        in_a_row += 1;
        if in_a_row == IN_A_ROW {
            in_a_row = 0;
            yield_now().await;
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Closes connections whenever unfinished requests are too large together.
async fn keep_space(room: &Room) -> Infallible {
    loop {
        room.shared.crowded.notified().await;
        room.make_space();
        // Those that are left may all be at work.
        sleep(RECOVERY).await;
    }
}

/// Answers, and closes so that the answer arrives: the kernel would reset a connection that is closed with
/// bytes unread, and the answer would be lost.
async fn reject(mut stream: TcpStream, full: fn() -> Vec<u8>, _permit: OwnedSemaphorePermit) {
    let exchange = async {
        stream.write_all(&full()).await?;
        stream.shutdown().await?;
        let mut ignored = [0; 1024];
        while stream.read(&mut ignored).await? > 0 {}
        std::io::Result::Ok(())
    };
    // A caller that does not read it learns of it by the end of the connection.
    let _ = timeout(REJECT_TIMEOUT, exchange).await;
}
