//! What is told to those who listen to changes, and how it reaches all of them.
//!
//! The engine decides what is published and in which order; the engine puts it into the [`Hub`] here,
//! already worded, and subscribers take it from there, each at its own speed. Who publishes never waits for
//! who listens.
//!
//! * `event`: one change in words, as both kinds of subscribers are told it.
//! * `hub`: the last changes in memory, the seats of the subscribers, and who is woken when.
//!
//! What it does not do: it decides nothing about order or completeness (`engine::feed`), reads no op-log and
//! knows neither HTTP nor socket.io (`http::changes`).

mod event;
mod hub;

pub use event::{Kind, Told};
pub use hub::{Batch, FellBehind, Hub, MAX_SUBSCRIBERS, Seat};
