//! The store on disk: one RocksDB database per copy.
//!
//! Five column families share one write-ahead log (`schema`), so a batch that touches all of them is one
//! append, and one fsync where it is asked for. RocksDB writes and syncs the log first and its memtables
//! then: a batch that asks for a sync is visible to readers only when it is on disk. So a reader of an op-log
//! entry can rely on its number never meaning something else.
//!
//! * `schema`: column families and keys.
//! * `options`: settings of RocksDB.
//! * `open`: verifying the log; databases that another process may have open.
//! * `reader`, `snapshot`: reading. `latest`, `recent_records`: what was written last, in memory.
//! * `writer`: writing, on the one thread that owns the database.
//! * `indexes`, `index_flush`: indexes and group counts, which are changed in bulk.
//! * `small_tables`: merging of tables that RocksDB leaves alone. `scrub`: values that were replaced go.
//! * `usage`: what a database takes of disk and memory.
//! * `upgrade`: databases of earlier programs.

mod index_flush;
mod indexes;
mod latest;
mod open;
mod options;
mod reader;
mod recent_records;
mod schema;
mod scrub;
mod small_tables;
mod snapshot;
#[cfg(test)]
mod tests;
mod upgrade;
mod usage;
mod writer;

pub use latest::CAPACITY as LATEST_ENTRIES;
pub use open::ReadOnlyStore;
pub use options::BlockCache;
pub use reader::RocksReader;
pub use usage::DatabaseUsage;
pub use writer::RocksStore;
