//! What the processes of a ring agree on.
//!
//! * [`user`]: the record as a caller sees it.
//! * [`version`]: the hybrid logical clock values that order writes.
//! * [`record`]: the record as it is stored and replicated: four registers, and how two states of one user
//!   merge.
//! * [`encoding`]: records and op-log entries as bytes.
//! * [`operation`]: what a caller may ask of one user, and the outcomes.
//! * [`fingerprint`]: what is remembered of a request with an `Idempotency-Key`.
//! * [`ring`]: the ring's own terms: role, position, view, flush point, report.
//! * [`term`]: terms and leases of several gateways.
//! * [`placement`]: which partition a user belongs to, and which processes hold it.
//! * [`message`]: what travels on the links, one module for each link.
//! * [`mutation`]: deliberate bugs, for a test of the tests.
//!
//! There is no I/O here, no clock and no runtime: everything is a value or a pure function.

pub mod encoding;
pub mod fingerprint;
pub mod message;
pub mod mutation;
pub mod operation;
pub mod placement;
pub mod record;
pub mod ring;
pub mod term;
pub mod user;
pub mod version;

pub use fingerprint::Fingerprint;
pub use operation::{Condition, Operation, Outcome};
pub use placement::{InstanceName, Partition, Place};
pub use record::{Change, Record, Register};
pub use user::{User, UserId};
pub use version::{Version, VersionClock};
