//! What answers requests: a handler reads the request, asks the ring once, and words the answer.
//!
//! * [`user`]: one user. [`list`]: all users. [`bulk`]: many operations in one request.
//! * [`changes`]: the live feed, as an event stream and over socket.io.
//! * [`cluster`]: the ring, its copies, and what an operator does to them.
//! * [`health`]: liveness and readiness. [`metrics`]: figures for Prometheus. [`pages`]: for people.

pub(super) mod bulk;
pub(super) mod changes;
pub(super) mod cluster;
pub(super) mod health;
pub(super) mod list;
pub(super) mod metrics;
pub(super) mod pages;
pub(super) mod user;
