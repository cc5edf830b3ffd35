//! The store: where one copy keeps its records, its op-log and its own state.
//!
//! A store does little, and does it atomically: [`Store::commit`] writes one [`Batch`], and after a crash
//! either all of it is there or nothing. With [`Durability::Synced`] it is on disk when the call returns.
//! Without, a power cut may take it back, but only together with everything after it: what is left is always
//! a prefix of the batches.
//!
//! * `contract`: what every store does. `meta`: the state of a copy. `error`: why a store failed.
//! * [`rocks`]: on disk, in RocksDB.
//! * [`memory`]: in memory, with crashes on demand, for tests and simulations. Both pass the same suite of
//!   tests, and are run side by side.
//! * [`encoding`]: the bytes on disk.
//! * [`derived`]: what follows from the records, and is stored beside them: digests, counts, indexes.
//!
//! What it does not do: it decides nothing. Which write is allowed, what a sequence or a position means, when
//! to sync and what to trim are the rules of [`crate::copy`]. It also repairs nothing: after an error the
//! copy must not be used again.

mod contract;
pub mod derived;
pub mod encoding;
mod error;
pub mod memory;
mod meta;
pub mod rocks;
#[cfg(test)]
pub(crate) mod tests;

pub use contract::{Batch, Durability, Encoded, Listing, Snapshot, Store};
pub use derived::{Derived, Digests, IndexKey};
pub use encoding::DecodeError;
pub use error::StoreError;
pub use memory::MemoryStore;
pub use meta::{Late, Meta, Origin};
pub use rocks::{BlockCache, DatabaseUsage, LATEST_ENTRIES, ReadOnlyStore, RocksReader, RocksStore};
