//! The audit log: who changed what, a line of JSON for each write and each call of an administrator.
//!
//! A line has ids and outcomes, and nothing of what users are: no names, no addresses of mail, no groups. It
//! is written by a thread of its own ([`writer`]) into a file of its own (`file`), so that no request waits
//! for a disk, unless that is wanted:
//!
//! * By default a line that cannot be written is lost; that is counted and logged. What the ring does goes
//!   before what is said of it.
//! * With `AUDIT_STRICT` nothing is done that is not on record. Before a write is asked of the ring, a line
//!   with the outcome `begun` is in the file; where it cannot be written, nothing is done. The line with the
//!   outcome follows. Where that one cannot be written, a `begun` without a sequel is left, which is the
//!   truth: it may have been done.
//!
//! What it does not do: it does not wait for the disk (fsync), so a machine that loses its power may lose the
//! last lines; and it does not protect its file from who may write it.
//!
//! * [`entry`]: one request, from what it asks to its outcome. `line`: what a line has.

mod entry;
mod file;
mod line;
mod writer;

pub use entry::{BulkLine, Entry, Request, Subject};
pub use line::{Answer, Outcome};
pub use writer::{Audit, NotOnRecord, Target};
