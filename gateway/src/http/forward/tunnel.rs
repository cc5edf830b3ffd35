//! A connection that has become a WebSocket: bytes in both directions.

use std::time::Duration;

use futures_util::future::try_join;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use process::server::Caller;
use tokio::io::copy_bidirectional;
use tracing::debug;

use super::body::Until;

/// The active gateway disconnects a client that has not joined long before. So one that is still there is no
/// stranger, and its connection keeps its place.
const SETTLED: Duration = Duration::from_secs(10);

/// Carries what both sides send, until one of them ends, or the tunnel has to.
pub(super) fn dig(ours: OnUpgrade, theirs: OnUpgrade, caller: Option<Caller>, until: Until) {
    let carrying = async move {
        let (ours, theirs) = try_join(ours, theirs).await?;
        let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
        let settling = async {
            tokio::time::sleep(SETTLED).await;
            if let Some(caller) = caller {
                caller.admit();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = copy_bidirectional(&mut ours, &mut theirs) => {
                if let Err(error) = ended {
                    debug!(%error, "a tunnel ended");
                }
            }
            () = settling => {}
        }
        Ok::<(), hyper::Error>(())
    };
    tokio::spawn(async move {
        tokio::select! {
            ended = carrying => {
                if let Err(error) = ended {
                    debug!(%error, "a tunnel did not begin");
                }
            }
            () = until.ends => debug!("a tunnel is closed: its gateway is not active any more, or stops"),
        }
    });
}
