//! `POST /api/user/bulk`: many operations in one request, one JSON object a line, and one result for each
//! line, in the order of the lines, while the request is still coming in.
//!
//! ```text
//!   request ──▶ lines ──▶ line ──▶ engine          the work: one task for each request
//!                                    │
//!  response ◀── results ◀── window ◀─┘
//! ```
//!
//! Nothing here grows with the request. The [`window`] bounds what is in flight, and so it bounds what is
//! read: a line is taken only when there is room for it. Results that the caller has not read yet wait in the
//! [`results`]. A caller may send all it has before it reads anything, as most HTTP libraries do, and the
//! sockets between hold a few thousand results only. So there is room for 32 MiB of them, some 300,000. When
//! that is used up, reading stops until results are read. If none are for as long as a request may take, the
//! caller is most likely one of those that read nothing before they have sent everything: to stop for good
//! would leave both sides waiting for each other. So the lines that are left are not looked at, but thrown
//! away, and the last line of the response says after which one that began.
//!
//! Each line has a deadline of its own; the request has none. A response that ends early, for that reason or
//! because the gateway stops, the lines came too slowly or their framing broke, ends with one problem without
//! a line number, whose `last_line` is the last one that was looked at: every line up to it has its result.
//! If even that is missing, the connection broke.
//!
//! Operations on one user are applied in the order of their lines, since they are asked in that order, and a
//! partition's writes keep theirs. Between users there is no order, and the whole is no transaction.
//!
//! * [`request`]: the handler. [`work`]: the task of a request.
//! * [`lines`]: from chunks of bytes to lines.
//! * [`mod@line`]: from a line to an operation, or to what is wrong with it.
//! * [`window`]: the lines in flight.
//! * [`record`]: what the audit log says of the lines.
//! * [`results`]: the results that wait to be read, and the bounds of all such requests together.

mod line;
mod lines;
mod record;
pub(crate) mod request;
mod results;
mod window;
mod work;

pub(crate) use request::BulkState;
