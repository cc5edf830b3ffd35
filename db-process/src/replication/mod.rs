//! Between the two copies of a partition, db-process to db-process.
//!
//! * [`source_state`]: the rules of the source: what one follower is sent, and when.
//! * [`server`]: where the neighbours of this process connect to follow its copies.
//! * [`follower_state`]: the rules of the follower: what it asks for, and what it reports.
//! * [`client`]: follows the other copy of one of this process's own.
//! * `reader`: decodes what a follower is sent.
//!
//! Both directions are always on: the replica follows the primary, and the primary follows the replica, so
//! that whatever one of them accepted while the other was away gets there.

pub mod client;
pub mod follower_state;
mod reader;
pub mod server;
pub mod source_state;
