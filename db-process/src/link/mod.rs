//! The socket.io links of a db-process as a client: to the gateway, and (in [`crate::replication`]) to its
//! neighbours.
//!
//! * [`client`]: one connection, and everything that can end it.
//! * [`messages`]: what the gateway and a db-process send each other.
//! * [`session_state`]: the rules of the link to the gateway.
//! * [`gateway`]: carries them out over a socket.
//! * [`retry`]: how long to wait before the next attempt, and how often to log it.
//! * `tcp`: the TCP socket beneath, which the library hides.

pub mod client;
pub mod gateway;
pub mod messages;
pub mod retry;
pub mod session_state;
mod tcp;

pub use client::{Connection, Frame, FromSocket, Lost, Socket};
