//! The socket.io links of a db-process as a client: to the gateway, and (in [`crate::replication`]) to its
//! neighbours.
//!
//! * [`client`]: one connection, and everything that can end it.
//! * [`gateway`]: registers with the gateway and serves it, again and again.
//! * [`retry`]: how long to wait before the next attempt, and how often to say so.
//! * [`tcp`]: the TCP socket beneath, which the library hides.

pub mod client;
pub mod gateway;
pub mod retry;
mod tcp;

pub use client::{Connection, Frame, Lost};
