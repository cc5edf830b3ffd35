//! Serves the router over TCP, to callers that may be slow, many, or hostile.
//!
//! `axum::serve` reads a head for as long as its caller likes, keeps idle connections for ever, and accepts
//! any number of them. What a caller may cost here is bounded:
//!
//! * A connection on which no handler works and no byte of an answer leaves for [`Limits::idle`] is closed:
//!   so are one that is not used, one whose head does not come to its end, and one whose caller does not read
//!   its answers. A body has the deadline of its request (`input::body`).
//! * At most [`Limits::connections`] are open. The newest beyond that is answered 503 and closed, and those
//!   that are there go on: to accept no more would leave its caller waiting in the backlog of the kernel, and
//!   to close an older one could break a request. What is open is also far below the number of files that the
//!   process may open ([`allowed_connections`]), so that links and logs never lack one. Should accepting fail
//!   all the same, it is tried again a moment later.
//! * A head may have 16 KiB and 100 fields, and no connection buffers more than 32 KiB.
//!
//! What is no HTTP/1.1, or too large a head, is answered by hyper: a bare 400, 431 or 414, and the end of the
//! connection. These are the only errors of this API that are no `application/problem+json`.
//!
//! No answer is lost because its caller was still sending: see [`remainder`].
//!
//! At the end the listener is closed, idle connections are closed, and requests in flight are finished.
//! Answers that would never end by themselves have to be ended by their handlers.
//!
//! What it does not do: fairness between callers, limits by address, TLS. A proxy in front is the place for
//! those.
//!
//! * [`listener`]: accepts and rejects. [`connection`]: serves one of them.
//! * [`remainder`]: bodies that no handler read to the end. [`stream`]: the last bytes of a connection.
//! * [`limits`]: what callers may cost.

mod connection;
mod limits;
mod listener;
mod remainder;
mod stream;

pub use limits::{Limits, allowed_connections};
pub use listener::serve;
