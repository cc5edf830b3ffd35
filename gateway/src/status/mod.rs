//! The ring as people see it.
//!
//! * `cluster`: the ring at one moment, as `/api/cluster` and `/health/ready` have it.
//! * `events`: what has happened lately, and its lines in the log.

mod cluster;
mod events;

pub use cluster::{ClusterStatus, CopyStatus, PartitionStatus, ProcessStatus, RolledBack, Served};
pub(crate) use events::log;
#[cfg(test)]
pub(crate) use events::words;
pub use events::{History, PastEvent};
