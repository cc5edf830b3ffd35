//! A file beside a copy's database that remembers how much of that was on disk (see
//! [`crate::copy::rollback`]).
//!
//! ```text
//! incarnation of the copy   16 bytes
//! LSN on disk                8 bytes, big endian
//! highest version            8 bytes, big endian
//! XXH3 of these              8 bytes, big endian
//! ```
//!
//! It is written in place after each sync of the database, so it never says more than the database had. It is
//! not synced itself: that would cost as much again, and it survives whatever ends the process. After a power
//! cut it may be old, or damaged, and then says less or nothing; the gateway and the other copy remember as
//! well.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use protocol::Version;
use protocol::message::link::FlushPoint;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::rounds::Marked;

const LENGTH: usize = 40;

/// The open file.
#[derive(Debug)]
pub(super) struct MarkFile {
    file: File,
    /// What it says.
    written: [u8; LENGTH],
    failed: bool,
}

impl MarkFile {
    /// Opens the file, or makes it. Returns what it says, unless it is new or damaged.
    ///
    /// # Errors
    /// If it cannot be opened or read.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Option<Marked>)> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut written = [0; LENGTH];
        let marked = match file.read_exact_at(&mut written, 0) {
            Ok(()) => decode(&written),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(error),
        };
        Ok((Self { file, written, failed: false }, marked))
    }

    /// Writes what is on disk now, where that is news. A file that cannot be written says less than it could,
    /// which is logged once.
    pub(super) fn write(&mut self, marked: &Marked) {
        let now = encode(marked);
        if now == self.written {
            return;
        }
        match self.file.write_all_at(&now, 0) {
            Ok(()) => self.written = now,
            Err(error) if !self.failed => {
                self.failed = true;
                tracing::warn!(%error, "what is on disk cannot be remembered beside the database");
            }
            Err(_) => {}
        }
    }
}

fn encode(marked: &Marked) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[..16].copy_from_slice(marked.flushed.incarnation.as_bytes());
    bytes[16..24].copy_from_slice(&marked.flushed.lsn.to_be_bytes());
    bytes[24..32].copy_from_slice(&marked.version.0.to_be_bytes());
    let sum = xxh3_64(&bytes[..32]);
    bytes[32..].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8; LENGTH]) -> Option<Marked> {
    let number = |at: usize| bytes[at..at + 8].try_into().map(u64::from_be_bytes).ok();
    if number(32)? != xxh3_64(&bytes[..32]) {
        return None;
    }
    let flushed = FlushPoint { incarnation: Uuid::from_slice(&bytes[..16]).ok()?, lsn: number(16)? };
    Some(Marked { flushed, version: Version(number(24)?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_last_is_read_back_unless_it_is_damaged() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("primary.mark");
        let open = || MarkFile::open(&path).expect("a folder that can be written");
        let (mut mark, marked) = open();
        assert_eq!(marked, None);
        let flushed = FlushPoint { incarnation: Uuid::from_u128(7), lsn: 10 };
        mark.write(&Marked { flushed: FlushPoint { lsn: 8, ..flushed }, version: Version(9) });
        mark.write(&Marked { flushed, version: Version(9) });
        assert_eq!(open().1, Some(Marked { flushed, version: Version(9) }));
        std::fs::write(&path, &encode(&Marked { flushed, version: Version(9) })[..39]).expect("a file");
        assert_eq!(open().1, None);
        let mut bytes = encode(&Marked { flushed, version: Version(9) });
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).expect("a file");
        assert_eq!(open().1, None);
    }
}
