//! The bytes on disk: one encoding each for records, op-log entries and the state of a copy. The first two
//! travel as well, and are in [`protocol::encoding`], where it says what all of them have in common.
//!
//! `golden.txt` beside this file holds the bytes of some values for ever: a change that breaks the reading of
//! existing databases fails a test.
//!
//! | value | bytes after the format number |
//! |---|---|
//! | state | flags, incarnation, head, trimmed, version, then position and origin where there are any, then users, records, floor, foreign and top, then, each where there is one, the last late entry, and the LSN with what is known of disks: flags, the flush point of the other copy and the rollback (found, known) where there are any |
//! | page of applied operations | how many (4 bytes), then the version of each |
//! | page of changed records | flags, how many digests change (4 bytes) and of each its bucket and by what, where any do, how many records (4 bytes), each the id, the length of its record (4 bytes) and the record; a length of 0 says that it is gone |
//! | digests | one number a bucket |
//! | number of users of a group | the number |
//! | page of pending changes | how many places (4 bytes), each one byte for its kind and whether it is taken, then the group or the hash, then the id; then how many groups (0) |
//!
//! A state without the part that begins with the number of users was written by an earlier program, which
//! had nothing of what follows from the records.

mod pages;
mod state;
#[cfg(test)]
pub(crate) mod tests;

use protocol::encoding::{FORMAT, Reader, flag};

pub use pages::{Changed, applied, pending, read_applied, read_changed, read_pending};
pub use protocol::encoding::{DecodeError, log_entry, read_log_entry, read_record, record};
pub use state::{count, digests, meta, read_count, read_digests, read_meta};
