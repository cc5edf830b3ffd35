//! The changes that are published, and how they reach all subscribers.
//!
//! The engine decides what is published and in which order; its task puts it into the [`Hub`] here, already
//! rendered, and subscribers take it from there, each at its own speed. Publishing never waits for a
//! subscriber.
//!
//! * `event`: one change as it is rendered for subscribers.
//! * `hub`: the last changes in memory, the subscriptions, and which are woken when.
//!
//! What it does not do: it decides nothing about order or completeness (`engine::feed`), reads no op-log and
//! knows neither HTTP nor socket.io (`http::changes`).

mod event;
mod hub;

pub use event::{FeedEvent, Kind};
pub use hub::{Batch, FellBehind, Hub, MAX_SUBSCRIBERS, Subscription};
