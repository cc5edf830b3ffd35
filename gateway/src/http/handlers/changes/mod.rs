//! The live feed: every acknowledged change, once, in order.
//!
//! It is served in two forms with the same content: as an event stream (`stream`, for `EventSource`, curl and
//! whatever else reads HTTP), and over socket.io (`socket`). What is common to both is `subscriber`: where it
//! begins, how it goes on, and how it ends; `replay` reads from the op-logs what it missed. The order of the
//! changes is decided in `engine::feed`; `crate::feed` keeps the last of them in memory.
//!
//! *Where it begins.* Without an id, now: every change that is acknowledged after the first answer comes.
//! With the id of the last event that a client has seen, right after that event, without a gap and without
//! repetition, also when the client, a db-process or the gateway was away meanwhile. Where that cannot be
//! kept, it is said before the stream starts: 400 for an id that never was, 410 where changes after it are
//! not kept any more, 503 where they cannot be read now.
//!
//! *How it ends.* By the client; by the gateway, when it stops; or because the client is too slow: then its
//! last event is `dropped`, and it can begin again after the last id that it has. No client delays another.
//!
//! What it does not do: it filters nothing, and it stores nothing about its clients: what a client has seen
//! is in the id that it sends.

mod replay;
mod socket;
pub(crate) mod stream;
mod subscriber;

pub(crate) use socket::{PATH as SOCKET_PATH, service as socket_service};
pub(crate) use subscriber::FeedState;
