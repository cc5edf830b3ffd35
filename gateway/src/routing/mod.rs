//! Routing.

pub mod status;
