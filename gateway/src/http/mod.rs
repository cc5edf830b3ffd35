//! The HTTP side of the gateway: requests become questions to the
//! [`EngineHandle`](crate::engine_task::EngineHandle), and answers become responses.
//!
//! * `router`: all routes on one screen. `settings`: what can be set.
//! * `layers`: what happens around every request.
//! * `handlers`: what answers a request. `document`: what they take and answer, as OpenAPI; `openapi`: its
//!   words.
//! * `input`: from the bytes of a request to valid values, or to everything that is wrong with them.
//! * `api`: the engine with a deadline.
//! * `forward`: what happens to a request while another gateway is active.
//! * `problem`, `kind`: the one mapping from errors to responses, and the table of all errors. `metrics`:
//!   what is counted.
//! * `audited`: what the audit log says of requests.
//! * `fairness`: what one client may take of what all share.
//! * `port`: what callers may cost; the server itself is `process::server`.
//!
//! Each imports only from those below it: the router from all, the document from the handlers, the handlers
//! from the API, and all of them from the leaves (`settings`, `fairness`, `problem`, `kind`, `metrics`,
//! `input`, `openapi`).
//!
//! What it does not do: it decides nothing about users. Whether an id exists and whether `If-Match` holds is
//! known only where the data are; here nothing is known of sockets or of db-processes.

mod api;
mod audited;
mod document;
mod fairness;
mod forward;
mod handlers;
mod input;
mod kind;
mod layers;
mod metrics;
mod openapi;
mod port;
mod problem;
mod router;
mod settings;

pub use fairness::Rate;
pub use input::site::{Advertised, AllowedHost, AllowedOrigin, Sites};
pub use input::token::{Access, BadTokens, Role, Token};
pub use port::{MAX_CONNECTIONS, policy, tls};
pub use router::router;
pub use settings::{HttpSettings, Launcher};
