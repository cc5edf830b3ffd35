//! Follows the other copy of one of this process's copies, on the neighbour that holds it.
//!
//! It asks for everything after its own position, and the other side decides whether its op-log still reaches back that
//! far or a full copy is needed. What arrives goes to the copy's worker; how far the worker is, is confirmed as it gets
//! there. Whenever something is odd, the connection is dropped and the copy's own position is the starting point again.

use std::convert::Infallible;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use process::Secret;
use protocol::message::link::{Peer, Role};
use protocol::message::replication::{
    ChunkMerged, Confirmed, CopyChunk, Decline, Declined, Follow, LogBatch,
};
use protocol::message::{Message, REVISION};
use thiserror::Error;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use url::Url;
use uuid::Uuid;

use crate::link::retry::{Seldom, Waits};
use crate::link::{Connection, Frame, Lost};
use crate::node::Node;
use crate::store::StoreError;
use crate::worker::{CopyHandle, CopyState, give_way, spawn};

/// A neighbour that says nothing for that long is lost; it says something twice a second.
const SILENCE: Duration = Duration::from_secs(3);

/// Follows the other copy of one copy.
pub struct Follower {
    /// The copy that follows.
    pub role: Role,
    /// What the neighbour asks for at the door.
    pub secret: Option<Secret>,
    /// This process.
    pub node: Arc<Node>,
}

/// Why a connection was given up.
#[derive(Debug, Error)]
enum Over {
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error("it cannot be followed now: {0:?}")]
    Declined(Decline),
    #[error("it sent {0}")]
    Nonsense(&'static str),
    #[error("everything is to be copied once more")]
    Again,
    #[error("this process has no ring yet")]
    NoRing,
    #[error("no thread can be started to read a full copy: {0}")]
    NoThread(StoreError),
    /// A worker has ended; who ended it knows why.
    #[error("the copy was closed")]
    Stopped,
}

/// A part of a full copy that is on disk.
struct Merged {
    chunk: u64,
    /// Whether it was the last one.
    last: bool,
    /// Whether it was the last one of a copy that had anything.
    filled: bool,
}

impl Follower {
    /// Follows whoever [`Node::peer`] names, until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut peers = self.node.peer(self.role);
        let follow = async {
            loop {
                let peer = peers.borrow_and_update().clone();
                let follow = async {
                    match &peer {
                        Some(peer) => self.follow(peer).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    Over::Stopped | _ = follow => return,
                    changed = peers.changed() => if changed.is_err() { return },
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = follow => {}
        }
    }

    /// Follows one neighbour, as often as needed.
    async fn follow(&self, peer: &Peer) -> Over {
        let (copy, of) = (self.role.as_str(), peer.instance.as_str());
        let (mut waits, mut seldom) = (Waits::new(), Seldom::default());
        loop {
            let mut source = None;
            let Err(over) = self.session(peer, &mut source).await;
            match (&over, source) {
                (Over::Stopped, _) => return over,
                (_, Some(_)) => {
                    warn!(copy, of, reason = %over, "no longer follows");
                    waits = Waits::new();
                    seldom.forget();
                }
                (_, None) => {
                    if seldom.is_news(&over.to_string(), Instant::now().into_std()) {
                        info!(copy, of, reason = %over, "cannot follow yet; trying on");
                    }
                }
            }
            sleep(waits.next_wait()).await;
        }
    }

    /// One connection. `source` tells which copy is followed, once it lets itself be followed.
    async fn session(&self, peer: &Peer, source: &mut Option<Uuid>) -> Result<Infallible, Over> {
        let copy = self.node.copy(self.role);
        let ring = self.node.ring().ok_or(Over::NoRing)?;
        let mut connection = Connection::open(&url(peer)?, self.secret.as_ref()).await?;
        let mut state = copy.state();
        let CopyState { report, gaps, .. } = *state.borrow_and_update();
        let mut recopy = self.node.recopy(self.role);
        let everything = *recopy.borrow_and_update();
        connection
            .send(&Follow {
                revision: REVISION,
                ring: ring.id,
                instance: self.node.name().clone(),
                role: self.role.other(),
                incarnation: if everything { Uuid::nil() } else { report.incarnation },
                position: report.position.filter(|_| !everything),
            })
            .await?;
        let (merged, mut merges) = unbounded_channel();
        let mut filling = Filling { copy: copy.clone(), merged, texts: None };
        let mut confirmed = None;
        loop {
            tokio::select! {
                frame = connection.next(SILENCE) => {
                    let was_followed = source.is_some();
                    self.handle(copy, frame?, source, &mut filling)?;
                    if let Some(incarnation) = source.filter(|_| !was_followed) {
                        let (copy, of) = (self.role.as_str(), peer.instance.as_str());
                        info!(copy, of, %incarnation, "follows");
                    }
                }
                Some(merged) = merges.recv() => {
                    let Merged { chunk, last, filled } = merged?;
                    connection.send(&ChunkMerged { chunk }).await?;
                    if last && everything {
                        self.node.recopied(self.role);
                    }
                    if filled {
                        info!(copy = self.role.as_str(), of = peer.instance.as_str(), "copied in full");
                    }
                }
                changed = state.changed() => changed.map_err(|_| Over::Stopped)?,
                Ok(()) = recopy.changed() => if *recopy.borrow_and_update() { return Err(Over::Again) },
            }
            let state = *state.borrow_and_update();
            if state.gaps != gaps {
                return Err(Over::Nonsense("an op-log with a gap"));
            }
            let progress = state
                .report
                .position
                .filter(|position| Some(position.incarnation) == *source)
                .map(|position| Confirmed { applied: position.sequence, durable: state.durable });
            if let Some(progress) = progress.filter(|_| progress != confirmed) {
                connection.send(&progress).await?;
                confirmed = Some(progress);
            }
        }
    }

    fn handle(
        &self,
        copy: &CopyHandle,
        frame: Frame,
        source: &mut Option<Uuid>,
        filling: &mut Filling,
    ) -> Result<(), Over> {
        match frame.event.as_str() {
            LogBatch::EVENT => {
                let batch: LogBatch = decode(&frame.text)?;
                if source.is_some_and(|source| source != batch.incarnation) {
                    return Err(Over::Nonsense("the op-log of two copies on one connection"));
                }
                *source = Some(batch.incarnation);
                if !batch.entries.is_empty() {
                    copy.apply(batch);
                }
            }
            CopyChunk::EVENT => filling.fill(frame.text)?,
            Declined::EVENT => return Err(Over::Declined(decode::<Declined>(&frame.text)?.reason)),
            _ => debug!(
                copy = self.role.as_str(),
                bytes = frame.text.len(),
                "ignored an event that is not known"
            ),
        }
        Ok(())
    }
}

/// Reads the chunks of a full copy. That takes milliseconds each, in which the thread of the sockets may have reads to answer, so
/// it has a thread of its own from the first chunk on. No op-log comes before the last one is merged.
struct Filling {
    copy: CopyHandle,
    merged: UnboundedSender<Result<Merged, Over>>,
    /// To the thread, which ends with this.
    texts: Option<mpsc::Sender<String>>,
}

impl Filling {
    fn fill(&mut self, text: String) -> Result<(), Over> {
        if self.texts.is_none() {
            let (copy, merged) = (self.copy.clone(), self.merged.clone());
            let (texts, queue) = mpsc::channel();
            let name = format!("fill-{}", copy.role().as_str());
            spawn(name, move || {
                give_way();
                // What is left of a session that is over should not come between what the next one brings.
                let texts = queue.into_iter().take_while(|_| !merged.is_closed());
                texts.for_each(|text: String| merge(&copy, &text, &merged));
            })
            .map_err(Over::NoThread)?;
            self.texts = Some(texts);
        }
        // The thread is there as long as this is.
        let _ = self.texts.as_ref().map(|texts| texts.send(text));
        Ok(())
    }
}

/// Hands a chunk to the copy; `merged` is told when it has it, or what is wrong with it.
fn merge(copy: &CopyHandle, text: &str, merged: &UnboundedSender<Result<Merged, Over>>) {
    let merged = merged.clone();
    // The receiver is gone where the connection was lost meanwhile.
    match decode::<CopyChunk>(text) {
        Ok(received) => {
            let (chunk, last) = (received.chunk, received.end.is_some());
            let filled = last && (chunk > 0 || !received.records.is_empty());
            copy.merge_chunk(received, move || drop(merged.send(Ok(Merged { chunk, last, filled }))));
        }
        Err(over) => drop(merged.send(Err(over))),
    }
}

fn decode<M: Message>(text: &str) -> Result<M, Over> {
    M::decode(text).map_err(|_| Over::Nonsense("a message that cannot be read"))
}

/// Where a neighbour can be followed.
fn url(peer: &Peer) -> Result<Url, Lost> {
    let host = match peer.host.parse::<std::net::Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => peer.host.clone(),
    };
    let text = format!("ws://{host}:{port}/", port = peer.port);
    Url::parse(&text).map_err(|error| Lost::Unreachable { url: text, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_may_be_names_and_addresses() {
        let peer = |host: &str| Peer { instance: "db-1".parse().unwrap(), host: host.to_owned(), port: 7 };
        for (host, expected) in [
            ("db-1", "ws://db-1:7/"),
            ("127.0.0.1", "ws://127.0.0.1:7/"),
            ("::1", "ws://[::1]:7/"),
            ("[::1]", "ws://[::1]:7/"),
        ] {
            assert_eq!(url(&peer(host)).unwrap().as_str(), expected);
        }
        assert!(url(&peer("a b")).is_err());
    }
}
