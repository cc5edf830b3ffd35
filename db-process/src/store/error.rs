//! Why a store failed.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::DecodeError;

/// Why a store failed. A value is named, and never its content.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The database cannot be opened: it is in use, not readable, or damaged.
    #[error("the database in {path} cannot be opened: {source}")]
    Open {
        /// Folder of the database.
        path: PathBuf,
        /// What RocksDB says.
        source: rocksdb::Error,
    },
    /// The log of the database is damaged, before what its tables hold already: it is not known what they
    /// lack.
    #[error("the log of the database in {path} is damaged: {source}")]
    LogDamaged {
        /// Folder of the database.
        path: PathBuf,
        /// What RocksDB says.
        source: rocksdb::Error,
    },
    /// There is no database to look at.
    #[error("there is no database in {path}")]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A database without its first file. RocksDB would take it for an empty folder, and remove what is
    /// there.
    #[error("the database in {path} has lost its file CURRENT")]
    Incomplete {
        /// Folder of the database.
        path: PathBuf,
    },
    /// RocksDB failed: the disk is full or broken, or the database is damaged.
    #[error("the database failed: {0}")]
    Database(#[from] rocksdb::Error),
    /// A value is not what this program writes.
    #[error("{what} in the database cannot be read: {source}")]
    Unreadable {
        /// Which value.
        what: String,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The values do not fit together.
    #[error("the database contradicts itself: {0}")]
    Inconsistent(String),
    /// A file that is not RocksDB's alone cannot be read, written or removed.
    #[error("{path} cannot be read or written: {kind}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        kind: std::io::ErrorKind,
    },
    /// The system gives no thread to work with the database.
    #[error("no thread can be started: {0}")]
    NoThread(std::io::ErrorKind),
    /// The copy failed before. It answers nothing since then.
    #[error("the copy failed before and is not used any more")]
    Poisoned,
}

impl StoreError {
    /// The system's answer to a request for a thread.
    pub(crate) fn no_thread(error: std::io::Error) -> Self {
        Self::NoThread(error.kind())
    }

    /// The system's answer about a file.
    pub(crate) fn file(path: &Path, error: &std::io::Error) -> Self {
        Self::File { path: path.into(), kind: error.kind() }
    }

    /// Names the value that cannot be read. The text is made only then.
    pub(crate) fn unreadable(what: impl std::fmt::Display) -> impl FnOnce(DecodeError) -> Self {
        move |source| Self::Unreadable { what: what.to_string(), source }
    }
}
