//! Serves a router over TCP, to callers that may be slow, many, or hostile: all ports of all processes.
//!
//! `axum::serve` reads a head for as long as its caller likes, keeps idle connections for ever, and accepts
//! any number of them. What a caller may cost here is bounded by the [`Policy`] of the port:
//!
//! * A connection on which no handler works and no byte of an answer leaves for [`Policy::idle`] is closed:
//!   so are one that is not used, one whose head does not come to its end, and one whose caller does not read
//!   its answers. A body has the deadline of its handler.
//! * At most [`Policy::connections`] are open, and of one address at most [`Policy::per_address`]. Where
//!   there is no room for another, those that wait longest for their callers are closed: for a request or the
//!   rest of its head, then for the rest of a body. So a flood of silent connections closes its own. Where
//!   every connection has a request at work, the newest is rejected with an answer. To accept no more would
//!   leave callers waiting in the backlog of the kernel.
//! * The bytes of unfinished requests are counted. Where they are more than [`Policy::unfinished`], those
//!   that wait longest are closed in the same way.
//! * A connection that says nothing has no buffer yet, and none buffers more than [`Policy::buffer`].
//! * On a port for processes of the ring, callers are strangers until the router opens a WebSocket to them.
//!   Strangers have few places and a few kilobytes, and each may lose its place at any time; members have
//!   places of their own, which no flood takes. Bodies are refused there, and so is what a browser sends for
//!   a page (`Origin`).
//! * On other ports a WebSocket waits for its caller, until the router says that it is no stranger's
//!   ([`Caller::admit`]).
//!
//! Connections together are also far fewer than the files that the process may open
//! ([`open_files`](crate::open_files)), so that databases, links and logs never lack one. Should accepting
//! fail all the same, it is tried again a moment later.
//!
//! What is no HTTP/1.1, or too large a head, is answered by hyper: a bare 400, 431 or 414, and the end of the
//! connection.
//!
//! No answer is lost because its caller was still sending: see [`body`].
//!
//! At the end the listener is closed, idle connections are closed, and requests in flight are finished.
//! Answers that would never end by themselves have to be ended by their handlers.
//!
//! With TLS, a handshake is to a connection what the head of a request is: it has a deadline
//! ([`Policy::handshake`]), its bytes count, and its place may be taken meanwhile. What both sides agree on
//! is HTTP/1.1 or HTTP/2; of the latter a connection has so many requests at a time ([`Policy::streams`]),
//! and the bytes of each body count for themselves.
//!
//! What it does not do: it knows nothing of tokens or secrets.
//!
//! * [`listener`]: accepts and rejects. [`connection`]: serves one connection.
//! * [`room`]: the places of a port. [`activity`]: what each connection does.
//! * [`body`]: bodies, and what no handler read of them. [`stream`]: the bytes of a connection.
//! * [`policy`]: what callers may cost.

mod activity;
mod body;
mod connection;
mod listener;
mod policy;
mod room;
mod stream;

pub use activity::network;
pub use connection::{Caller, caller_address};
pub use listener::serve;
pub use policy::Policy;
