//! The gateway of a ring.

pub mod coordinator;
pub mod routing;
