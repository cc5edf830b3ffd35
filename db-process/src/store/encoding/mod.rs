//! The bytes on disk: one encoding each for records, op-log entries and the state of a copy. The first two
//! travel as well, and are in [`protocol::encoding`], where it says what all of them have in common.
//!
//! `golden.txt` beside this file holds the bytes of some values for ever: a change that breaks the reading of
//! existing databases fails a test.
//!
//! After the format number come:
//!
//! * State: flags, incarnation, head, trimmed, version; position and origin, each if there is one; users,
//!   records, floor, foreign and top; the last late entry, if there is one; if there is an LSN, that and what
//!   is known of disks: flags, the flush point of the other copy and the rollback (found, known), each if
//!   there is one.
//! * Page of applied operations: how many (4 bytes), and the version of each.
//! * Digests: one number for each bucket.
//! * Number of users of a group: the number.
//! * Page of pending changes: how many places (4 bytes); of each one byte for its kind and whether it is
//!   taken, the group or the hash, and the id; how many groups (0).
//! * Page of changed records, of an earlier program: flags; if digests change, how many (4 bytes) and of each
//!   its bucket and the change; how many records (4 bytes); of each the id, the length of its record (4
//!   bytes) and the record. A length of 0 means that nothing is known any more.
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
