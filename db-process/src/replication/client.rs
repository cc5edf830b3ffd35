//! Follows a neighbour over a socket, as [`FollowerState`] says.
//!
//! What arrives is decoded and queued at the copy by the [`Reader`]. One task owns the connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use process::handshake::{Credentials, Link};
use process::{Secret, TlsFiles};
use protocol::message::Message;
use protocol::message::link::{Peer, Role};
use protocol::message::replication::{ChunkMerged, Confirmed, CopyChunk, Declined, Follow, LogBatch};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;
use tracing::debug;
use url::Url;

use super::follower_state::{Command, Event, FollowerState, Read};
use super::reader::Reader;
use crate::link::client::SEND_DEADLINE;
use crate::link::retry::{Backoff, sleep_until};
use crate::link::{Frame, FromSocket, Lost, Socket};
use crate::node::Node;

/// Follows the other copy of one copy.
pub struct Follower {
    /// The copy that follows.
    pub role: Role,
    /// What this process and the neighbour prove to know.
    pub secret: Secret,
    /// What they show to each other, if they speak TLS.
    pub tls: Option<TlsFiles>,
    /// This process.
    pub node: Arc<Node>,
}

/// The decoding of what comes from an open connection.
type Reading = (Reader, UnboundedReceiver<Read>);

impl Follower {
    /// Follows the neighbour that [`Node::peer`] names, until `shutdown` or until the copy is closed.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&self) {
        let (mut peers, mut recopy) = (self.node.peer(self.role), self.node.recopy(self.role));
        let mut copy = self.node.copy(self.role).state();
        peers.mark_changed();
        recopy.mark_changed();
        let mut state = FollowerState::new(self.node.name().clone(), self.role, Backoff::default());
        let (mut socket, mut reading) = (Socket::default(), None);
        let (mut events, mut commands) = (VecDeque::new(), Vec::new());
        loop {
            tokio::select! {
                // What has arrived counts before the time that has passed: this process may have been paused.
                biased;
                Some(read) = next(&mut reading) => {
                    reading.iter_mut().for_each(|(reader, _)| reader.was_read(&read));
                    events.push_back(Event::Read(read));
                }
                incoming = socket.next() => match incoming {
                    FromSocket::Opened => {
                        reading = Some(Reader::new(self.node.copy(self.role).clone()));
                        events.push_back(match self.node.ring() {
                            Some(ring) => Event::Connected { ring: ring.id, copy: *copy.borrow_and_update() },
                            None => Event::Lost("this process has no ring yet".to_owned()),
                        });
                    }
                    FromSocket::Frame(frame) => self.decode(frame, &mut reading, &mut events),
                    FromSocket::Lost(lost) => events.push_back(Event::Lost(lost.to_string())),
                },
                changed = copy.changed(), if reading.is_some() => match changed {
                    Ok(()) => events.push_back(Event::Copy(*copy.borrow_and_update())),
                    Err(_) => return,
                },
                Ok(()) = peers.changed() => events.push_back(Event::Peer(peers.borrow_and_update().clone())),
                Ok(()) = recopy.changed() => events.push_back(Event::Recopy(*recopy.borrow_and_update())),
                () = sleep_until(state.deadline()) => events.push_back(Event::Tick),
            }
            while let Some(event) = events.pop_front() {
                state.step(Instant::now(), event, &mut commands);
                for command in commands.drain(..) {
                    if let Command::Disconnect = command {
                        reading = None;
                    }
                    if let Err(lost) = self.execute(command, &mut socket).await {
                        events.push_back(Event::Lost(lost.to_string()));
                    }
                }
            }
        }
    }

    fn decode(&self, frame: Frame, reading: &mut Option<Reading>, events: &mut VecDeque<Event>) {
        match (frame.event.as_str(), reading) {
            (LogBatch::EVENT | CopyChunk::EVENT, Some((reader, _))) => {
                events.push_back(Event::Heard);
                match reader.take(frame) {
                    Ok(read) => events.extend(read.map(Event::Read)),
                    Err(error) => {
                        let reason = format!("no thread can be started to read what it sends: {error}");
                        events.push_back(Event::Lost(reason));
                    }
                }
            }
            (Declined::EVENT, _) => events.push_back(match Declined::decode(&frame.text) {
                Ok(Declined { reason }) => Event::Declined(reason),
                Err(_) => Event::Read(Read::Unreadable),
            }),
            _ => debug!(copy = self.role.as_str(), bytes = frame.text.len(), "ignored an unknown event"),
        }
    }

    async fn execute(&self, command: Command, socket: &mut Socket) -> Result<(), Lost> {
        match command {
            Command::Connect(peer) => {
                let credentials = Credentials {
                    secret: self.secret.clone(),
                    link: Link::Follower,
                    client: self.node.name().to_string(),
                    server: peer.instance.to_string(),
                    tls: self.tls.clone(),
                };
                let scheme = if self.tls.is_some() { "wss" } else { "ws" };
                socket.connect(url(scheme, &peer)?, credentials);
            }
            Command::Disconnect => *socket = Socket::Closed,
            Command::Follow(follow) => socket.send(Follow::EVENT, follow.encode(), SEND_DEADLINE).await?,
            Command::ChunkMerged(merged) => {
                socket.send(ChunkMerged::EVENT, merged.encode(), SEND_DEADLINE).await?;
            }
            Command::Confirm(confirmed) => {
                socket.send(Confirmed::EVENT, confirmed.encode(), SEND_DEADLINE).await?;
            }
            // An error ends the process.
            Command::Compare(known) => drop(self.node.copy(self.role).compare(Some(known), None)),
            Command::Follows(follows) => self.node.set_following(self.role, follows),
            Command::Recopied => self.node.recopied(self.role),
        }
        Ok(())
    }
}

/// What comes next of what the reader took.
async fn next(reading: &mut Option<Reading>) -> Option<Read> {
    match reading {
        Some((_, reads)) => reads.recv().await,
        None => std::future::pending().await,
    }
}

/// Where a neighbour can be followed.
fn url(scheme: &str, peer: &Peer) -> Result<Url, Lost> {
    let host = match peer.host.parse::<std::net::Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => peer.host.clone(),
    };
    let text = format!("{scheme}://{host}:{port}/", port = peer.port);
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
            assert_eq!(url("ws", &peer(host)).unwrap().as_str(), expected);
        }
        assert!(url("ws", &peer("a b")).is_err());
    }
}
