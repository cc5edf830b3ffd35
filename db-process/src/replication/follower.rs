//! Follows the other copy of one of this process's copies, on the neighbour that holds it.
//!
//! It asks for everything after its own position, and the other side decides whether its op-log still reaches
//! back that far or a full copy is needed. What arrives is read ([`super::reader`]) and goes to the copy's
//! worker; how far the worker is, is confirmed as it gets there. Whenever something is odd, the connection is
//! dropped and the copy's own position is the starting point again.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use process::Secret;
use protocol::message::link::{Peer, Role};
use protocol::message::replication::{Confirmed, CopyChunk, Decline, Declined, Follow, LogBatch};
use protocol::message::{Message, REVISION};
use thiserror::Error;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use url::Url;
use uuid::Uuid;

use super::reader::{Read, Reader};
use crate::link::retry::{Seldom, Waits};
use crate::link::{Connection, Frame, Lost};
use crate::node::Node;
use crate::worker::CopyState;

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

const UNREADABLE: Over = Over::Nonsense("a message that cannot be read");

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
    #[error("no thread can be started to read what it sends: {0}")]
    NoThread(io::Error),
    /// A worker has ended; who ended it knows why.
    #[error("the copy was closed")]
    Stopped,
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
                flushed: report.flushed,
                other: report.other,
            })
            .await?;
        let (mut reader, mut reads) = Reader::new(copy.clone());
        let mut followed = Followed { node: &self.node, role: self.role, begun: false };
        let mut confirmed = None;
        loop {
            tokio::select! {
                frame = connection.next(SILENCE) => if let Some(read) = self.take(frame?, &mut reader, &mut followed)? {
                    self.handle(read, &mut connection, peer, source, everything).await?;
                },
                Some(read) = reads.recv() => {
                    reader.was_read(&read);
                    self.handle(read, &mut connection, peer, source, everything).await?;
                }
                changed = state.changed() => changed.map_err(|_| Over::Stopped)?,
                Ok(()) = recopy.changed() => if *recopy.borrow_and_update() { return Err(Over::Again) },
            }
            let state = *state.borrow_and_update();
            if state.gaps != gaps {
                return Err(Over::Nonsense("an op-log with a gap"));
            }
            let progress =
                state.report.position.filter(|position| Some(position.incarnation) == *source).map(
                    |position| Confirmed {
                        applied: position.sequence,
                        durable: state.durable,
                        lsn: state.report.flushed,
                    },
                );
            // The LSN rises with every write that this copy decides itself, which is no news to the source.
            let step = progress.map(|progress| (progress.applied, progress.durable));
            if let Some(progress) = progress.filter(|_| step != confirmed) {
                connection.send(&progress).await?;
                confirmed = step;
            }
        }
    }

    /// Takes a message, of which more may be known later.
    fn take(&self, frame: Frame, reader: &mut Reader, followed: &mut Followed) -> Result<Option<Read>, Over> {
        match frame.event.as_str() {
            LogBatch::EVENT | CopyChunk::EVENT => {
                followed.begin();
                reader.take(frame).map_err(Over::NoThread)
            }
            Declined::EVENT => {
                let declined = Declined::decode(&frame.text);
                if let Ok(Declined { reason: Decline::Expects(known) }) = declined {
                    self.node.copy(self.role).compare(Some(known), None).map_err(|_| Over::Stopped)?;
                }
                Err(declined.map_or(UNREADABLE, |declined| Over::Declined(declined.reason)))
            }
            _ => {
                debug!(
                    copy = self.role.as_str(),
                    bytes = frame.text.len(),
                    "ignored an event that is not known"
                );
                Ok(None)
            }
        }
    }

    async fn handle(
        &self,
        read: Read,
        connection: &mut Connection,
        peer: &Peer,
        source: &mut Option<Uuid>,
        everything: bool,
    ) -> Result<(), Over> {
        let (copy, of) = (self.role.as_str(), peer.instance.as_str());
        match read {
            Read::Log { source: incarnation, .. } => {
                if source.is_some_and(|source| source != incarnation) {
                    return Err(Over::Nonsense("the op-log of two copies on one connection"));
                }
                if source.replace(incarnation).is_none() {
                    info!(copy, of, %incarnation, "follows");
                }
            }
            Read::Merged { answer, last, filled } => {
                connection.send(&answer).await?;
                if last && everything {
                    self.node.recopied(self.role);
                }
                if filled {
                    info!(copy, of, "copied in full");
                }
            }
            Read::Nonsense => return Err(UNREADABLE),
        }
        Ok(())
    }
}

/// One connection, as long as it stands: the gateway is told whether the copy follows.
struct Followed<'a> {
    node: &'a Node,
    role: Role,
    begun: bool,
}

impl Followed<'_> {
    /// The neighbour has sent something of its copy, so it lets itself be followed.
    fn begin(&mut self) {
        if !std::mem::replace(&mut self.begun, true) {
            self.node.set_following(self.role, true);
        }
    }
}

impl Drop for Followed<'_> {
    fn drop(&mut self) {
        self.node.set_following(self.role, false);
    }
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
