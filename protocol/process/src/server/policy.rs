//! What the callers of a port may cost.

use std::time::Duration;

/// What the callers of a port may cost.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Names the port in the log.
    pub port: &'static str,
    /// Open connections, those of `members` aside.
    pub connections: usize,
    /// As many of these may be of one address; of IPv6, of one network of 64 bits.
    pub per_address: usize,
    /// Connections that were let in have places of their own, so many; `None`: they keep the one that they
    /// have.
    pub members: Option<usize>,
    /// How long a connection may stay without a handler at work or a byte of an answer, so also how long a
    /// head may take. It is noticed after twice that time at the latest.
    pub idle: Duration,
    /// How long a handshake of TLS may take, from the first byte.
    pub handshake: Duration,
    /// With HTTP/2, so many requests of a connection at a time.
    pub streams: u32,
    /// Bytes of all requests together that are not complete.
    pub unfinished: usize,
    /// The largest head of a request.
    pub head: usize,
    /// What one connection buffers, at least 8 KiB.
    pub buffer: usize,
    /// Whether the port is for processes of the ring alone: no request has a body, or comes from a browser,
    /// and what gets another protocol is let in: its router opens a WebSocket to members alone.
    pub inner: bool,
    /// What a connection is answered where there is no room: a whole response, which ends it.
    pub full: fn() -> Vec<u8>,
}

/// Of a port of the ring, so many connections may be of strangers.
const STRANGERS: usize = 128;

impl Policy {
    /// Of a port for processes of the ring, of which so many connect. Before they are let in they send a
    /// request of a few hundred bytes, and that at once.
    pub fn inner(port: &'static str, members: usize) -> Self {
        Self {
            port,
            connections: STRANGERS,
            per_address: STRANGERS / 2,
            members: Some(members),
            idle: Duration::from_millis(2_500),
            handshake: Duration::from_millis(2_500),
            streams: 1,
            unfinished: 1 << 20,
            head: 8 << 10,
            buffer: 8 << 10,
            inner: true,
            full: || {
                b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec()
            },
        }
    }

    /// Files that such a port takes, of so many that the process may open.
    pub fn files(&self) -> usize {
        self.connections + self.members.unwrap_or_default()
    }
}
