//! Terms of gateways: which of several gateways a db-process takes orders from.
//!
//! A term is a number that only rises. In each term at most one gateway is active: the one to which a
//! majority of the db-processes has granted it. So the term is a fencing token (Kleppmann, "Designing
//! Data-Intensive Applications", chapter 8): what a gateway of an earlier term still sends is not taken. A
//! gateway acts only while it holds a lease (Gray and Cheriton, "Leases", 1989): a majority has answered a
//! heartbeat that was sent less than [`LEASE`] ago. A process that has received a heartbeat grants no other
//! term for [`PROMISE`].
//!
//! What it does not do: the rules are in the db-process's `link::terms` and the gateway's `election`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Number of a term; 0 is before the first one.
pub type Term = u64;

/// No gateway counts so far. A term beyond it is an error or an attack: it could not be raised any more.
pub const LAST_TERM: Term = 1 << 62;

/// How long a gateway may act on a heartbeat, counted from when it *sent* it.
pub const LEASE: Duration = Duration::from_millis(400);

/// How long a db-process keeps its promise after a heartbeat, counted from when it *received* it. It is
/// longer than the lease by more than two clocks drift apart in that time.
pub const PROMISE: Duration = Duration::from_millis(500);

/// A gateway, as it introduces itself with a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// Made at its start: a gateway that was restarted is another one.
    pub id: Uuid,
    /// Its name, for people.
    pub name: String,
    /// Host of its REST port; `None` for the host at which the db-process reaches it.
    pub host: Option<String>,
    /// Its REST port.
    pub port: u16,
}

/// What a db-process has granted. It is sent with its greeting, and whenever it changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermReport {
    /// The highest term that it has granted.
    pub term: Term,
    /// To whom, with a host; `None` where it has not granted any.
    pub holder: Option<Gateway>,
    /// Whether another gateway may claim the next term now.
    pub free: bool,
}

/// How many of `size` processes are more than half of them.
pub const fn majority(size: u16) -> usize {
    size as usize / 2 + 1
}
