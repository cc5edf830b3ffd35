//! From what a request says to what the ring understands, or to the problem that says what is wrong with it.
//!
//! * [`head`]: what every request has in its head. [`site`]: which name it has to ask for, and which pages
//!   may send it.
//! * [`token`]: which requests may use the API.
//! * [`body`]: from a stream to bytes of a known type. [`fields`]: from bytes to valid fields of a user.
//! * [`id`], [`rules`], [`email`]: what one field may be.
//! * [`etag`]: entity tags and conditions. [`idempotency`]: creates that may be sent twice.
//! * [`query`]: the parameters behind the question mark. [`cursor`]: where the next page of a list begins.

pub(super) mod body;
pub(super) mod cursor;
mod email;
pub(super) mod etag;
pub(super) mod fields;
pub(super) mod head;
pub(super) mod id;
pub(super) mod idempotency;
pub(super) mod query;
pub(super) mod rules;
pub(super) mod site;
pub(super) mod token;
