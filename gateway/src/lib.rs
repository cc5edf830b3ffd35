//! The REST gateway of a ring of users.
//!
//! A request goes down through these rooms and back up, each hand-over one call or one channel:
//!
//! * [`http`]: routes, validation, and every error as `application/problem+json`. It sees no process and no
//!   socket.
//! * [`gather`]: what is asked of all partitions at once, lists and counts.
//! * [`coordinator`]: the one task that owns the routing, and the handle by which it is asked.
//! * [`routing`]: all decisions, as a plain state machine without sockets, clock or runtime.
//! * [`feed`]: what is told to those who listen to changes.
//! * [`transport`]: the socket.io connections of the db-processes.
//!
//! [`run`] wires them together, [`config`] says by what settings.

pub mod config;
pub mod coordinator;
pub mod feed;
pub mod gather;
pub mod history;
pub mod http;
pub mod routing;
pub mod run;
pub mod transport;
