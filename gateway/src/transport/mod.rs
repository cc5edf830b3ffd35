//! Transport: the socket.io side of the gateway. It turns what db-processes send into events for the engine,
//! and the engine's messages into socket.io events; it decides nothing.
//!
//! * `server`: accepts connections, and lets in only those that know the cluster's secret.
//! * `connections`: the open connections, and how to send on them.

mod connections;
mod server;

pub use connections::Connections;
pub use server::{Admission, serve};
