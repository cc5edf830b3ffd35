//! The command `corro`, and what it shares with tests: an HTTP client, a load that remembers what it was
//! answered, a search for linearizability, and a seeded source of random choices.

#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

mod bench;
mod certs;
mod check;
pub mod client;
mod command;
mod demo;
mod drill;
mod erase;
mod latencies;
pub mod linear;
pub mod load;
mod parent;
mod promote;
pub mod random;
mod secret;
mod status;
mod target;
mod terminal;
mod token;
mod transfer;
mod trust;
mod users;

pub use command::main;
