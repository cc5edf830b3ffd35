//! Between the two copies of a partition, db-process to db-process.
//!
//! * [`server`]: where the neighbours of this process connect to follow its copies.
//! * [`feeder`]: serves one follower: a full copy where it is needed, then the op-log as it grows.
//! * [`follower`]: follows the other copy of one of this process's own.
//! * `reader`: reads what a follower is sent.
//!
//! Both directions are always on: the replica follows the primary, and the primary follows the replica, so
//! that whatever one of them accepted while the other was away gets there.

pub mod feeder;
pub mod follower;
mod reader;
pub mod server;
