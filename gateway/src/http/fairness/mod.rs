//! What one client may take of what all clients share.
//!
//! A [`Client`] is a token, or a network where requests show none. It may have a [`Share`] of the places for
//! streams, and, where `RATE_LIMIT` is set, begin so many requests a second.
//!
//! What it does not do: it remembers no client that has nothing open and is within its rate, and it tells the
//! clients behind one proxy apart only by their tokens.
//!
//! * [`client`]: who it is. [`shares`]: places. [`rate`]: requests a second.

mod client;
mod rate;
mod shares;

pub(crate) use client::Client;
pub use rate::Rate;
pub(crate) use rate::RateLimit;
pub(crate) use shares::{Share, Shares};
