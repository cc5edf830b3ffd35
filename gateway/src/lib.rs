//! The REST gateway of a ring of users.
//!
//! A request goes down through these rooms and back up, each hand-over one call or one channel:
//!
//! * [`http`]: routes, validation, and every error as `application/problem+json`. It sees no process and no
//!   socket.
//! * [`scatter`]: what is asked of all partitions at once, lists and counts.
//! * [`engine_task`]: the one task that owns the engine, and the handle by which it is asked.
//! * [`election`]: which of several gateways is active, as a plain state machine too.
//! * [`engine`]: all decisions, as a plain state machine without sockets, clock or runtime.
//! * [`feed`]: the changes that subscribers get.
//! * [`status`]: the ring as people see it.
//! * [`standing`]: which of several gateways is active.
//! * [`transport`]: the socket.io connections of the db-processes.
//!
//! [`run`] wires them together, [`config`] says by what settings.

pub mod audit;
pub mod config;
pub mod election;
pub mod engine;
pub mod engine_task;
pub mod feed;
pub mod http;
pub mod run;
pub mod scatter;
pub mod standing;
pub mod status;
mod tokens_file;
pub mod transport;
