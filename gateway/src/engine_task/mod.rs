//! The one task that owns the engine, and the handle by which everything else reaches it.
//!
//! * `handle`: asks; each question is one message and one answer.
//! * `request`: what can be asked.
//! * `pending`: the requests that have no answer yet, and where each answer goes.
//! * `task`: the loop: takes in what has arrived, lets the engine decide, carries out its commands.

mod handle;
mod pending;
mod request;
mod task;

pub use handle::EngineHandle;
pub use request::{OneOfMany, Reply, Request, Written};
pub use task::EngineTask;

pub use crate::engine::{PromotionRefused, RepairRefused, Unserved};
