//! The socket.io links of a db-process as a client: to the gateways, and (in [`crate::replication`]) to its
//! neighbours.
//!
//! * [`client`]: one connection, and everything that can end it.
//! * [`links`]: the rules of all links to gateways together; [`terms`]: which gateway's orders count.
//! * `session_state`: the rules of the link to one gateway; `event`: what goes in and comes out,
//!   `registration`: one registered connection, `turns`: questions that wait.
//! * [`gateway`]: carries them out over a socket.
//! * `lost`: why a connection is over.
//! * `proof`: what both sides prove before a connection is opened.
//! * [`retry`]: how long to wait before the next attempt.
//! * `tls`: what shows the certificate of this process.
//! * `tcp`: the TCP socket beneath, which the library hides.

pub mod client;
pub mod event;
pub mod gateway;
pub mod links;
mod lost;
mod proof;
mod registration;
pub mod retry;
mod session_state;
mod tcp;
pub mod terms;
#[cfg(test)]
mod tests;
mod tls;
mod turns;

pub use client::{Connection, Frame, FromSocket, Socket};
pub use lost::Lost;
