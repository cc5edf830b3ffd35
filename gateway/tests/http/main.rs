//! The HTTP contract, tested through the router: what goes in, what comes out, and nothing of how.
//!
//! * `ring`: a ring of one map in memory, in place of the engine.
//! * `user`: the calls on one user when all goes well.
//! * `list`: lists and counts. `check`: comparing the copies.
//! * `bodies`, `errors`: every way in which a request can fail.
//! * `bulk`: many operations in one request.
//! * `contract`: the OpenAPI document, which every answer is held against. `figures`: metrics and pages.
//! * `around`: health, tokens, request ids, trailing slashes.
//! * `fairness`: what one client may take of what all share.
//! * `audit`: what the audit log says of requests.
//! * `forward`: through a gateway that is not active. `forward_faults`: while the active one fails.
//! * `roles`: which role each call of the document asks for.
//! * `changes`: the live feed. `pages`: what pages of other sites can do with a browser.
//! * `tls`: the same with TLS.
//! * `tcp`: what only a real connection shows. `hostile`: callers that are slow, many, or never end.

mod around;
mod audit;
mod bodies;
mod bulk;
mod changes;
mod check;
mod contract;
mod errors;
mod fairness;
mod figures;
mod forward;
mod forward_faults;
mod hostile;
mod list;
mod pages;
mod ring;
mod roles;
mod tcp;
mod tls;
mod user;
