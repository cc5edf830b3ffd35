//! The one task that owns the engine, and the handle by which everything else reaches it.
//!
//! * `request`: what can be asked.
//! * `pending`: the requests that have no answer yet, and where each answer goes.
//! * `task`: both ends of the channel. The handle asks; each question is one message and one answer. The loop
//!   takes in what has arrived, lets the engine decide, and carries out its commands.

mod pending;
mod request;
mod task;

pub use request::{OneOfMany, Reply, Request, Written};
pub use task::{EngineHandle, EngineTask};

pub use crate::engine::{OrderRefused, Unserved};
