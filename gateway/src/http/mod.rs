//! The HTTP side of the gateway: requests become questions to the [`Coordinator`](crate::coordinator::Coordinator), and
//! answers become responses.
//!
//! * `router`: all routes on one screen, and the settings.
//! * `user`: the calls on one user, one short handler each. `health`: liveness, readiness, the ring as JSON.
//! * `bulk`: many operations in one request.
//! * `list`: the calls on all users. `query`, `cursor`: what stands behind the question mark.
//! * `changes`: the live feed, as an event stream and over socket.io.
//! * `check`: comparing the copies, and making them good.
//! * `api`: the coordinator with a deadline. `guard`: what happens around every request.
//! * `body`, `fields`, `id`, `rules`, `email`: from the bytes of a body to valid fields, or to everything that is wrong
//!   with them.
//! * `etag`: entity tags and conditions. `idempotency`: creates that may be sent twice.
//! * `token`: who may use the API.
//! * `openapi`: what the calls take and answer, as a document. `metrics`: figures. `pages`: for people.
//! * `server`: connections, what callers may cost, and the end.
//! * `problem`, `kind`: the one mapping from errors to responses, and the table of all errors.
//!
//! What it does not do: it decides nothing about users. Whether an id exists and whether `If-Match` holds is known only
//! where the data are; here nothing is known of sockets or of db-processes.

mod api;
mod body;
mod bulk;
mod changes;
mod check;
mod cursor;
mod email;
mod etag;
mod fields;
mod guard;
mod health;
mod id;
mod idempotency;
mod kind;
mod list;
mod metrics;
mod openapi;
mod pages;
mod problem;
mod query;
mod router;
mod rules;
mod server;
mod token;
mod user;

pub use router::{HttpSettings, router};
pub use server::{Limits, allowed_connections, serve};
pub use token::{ApiTokens, BadTokens};
