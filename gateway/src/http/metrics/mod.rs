//! What the HTTP side counts.
//!
//! Every label has few values: methods that the API knows, templates of routes, classes of statuses,
//! transports of the feed. Nothing that a caller sends becomes one.
//!
//! * [`registry`]: all of them, as `/metrics` shows them. [`requests`]: by route. [`subscribers`]: of the
//!   feed. [`limits`]: what was refused to one client. [`forwarded`]: those that another gateway answers.

mod forwarded;
mod limits;
mod registry;
mod requests;
mod subscribers;

pub(super) use forwarded::{ForwardMetrics, Forwarded};
pub(super) use limits::{Limit, LimitMetrics};
pub(super) use registry::Metrics;
pub(super) use requests::{Measured, RequestMetrics, RouteMetrics};
pub(super) use subscribers::{DropReason, Subscribed, SubscriberMetrics, Transport};
