//! One partition: which copy leads it, which may answer its reads, and what its other copy may lack.
//!
//! The *leader* is the copy that takes the writes: the primary, or the replica while the primary is away. The
//! other copy follows it and answers reads. Five things keep reads fresh:
//!
//! * *Unsettled* users have a write that the other copy is not known to have (queued, in flight, or in the
//!   tail). Their reads go to the leader. If that is silent or slow, the other copy may answer them as soon
//!   as it has all of their *acknowledged* writes: a write without an answer may as well come after the read.
//!   So it gets what it lacks of the tail ahead of any promotion (*preload*).
//! * *Unanswered* writes: the leader may show a write to a reader before its answer has arrived here, and be
//!   lost with it. So an answer that shows an unanswered write is deferred until the write is answered, and
//!   asked for again if the leader is lost before that. What the other copy shows it has from the leader's
//!   op-log, so both copies have it.
//! * The *target*: when a copy registers or begins to lead, the other one answers no reads until it has
//!   applied the leader's op-log as it stood then. Whatever happened while one of them was away is below it.
//! * The *exchange*: a copy that led before may hold writes that were never acknowledged. Until the leader
//!   has them too, one reader could see them and the next one not. So the leader has to have applied the
//!   other copy's op-log to its end.
//! * The *tail*: when the leader is lost, the other copy gets every acknowledged write that it may lack
//!   before it leads. If the tail does not reach back to what it has, it does not lead.
//!
//! Nothing here knows connections or other partitions; `failover` drives the transitions.
//!
//! * `state`: the phases of a partition, and its transitions.
//! * `answers`: which copy may answer, and which answers and reads wait.
//! * `writes`: which writes wait, and which the other copy lacks.
//! * `coverage`: what a copy has of the leader's op-log, and the `tail`.
//! * `open_writes`: unsettled users and unanswered writes.
//! * `pace`: which of the copies is slow.

mod answers;
mod coverage;
mod open_writes;
mod pace;
mod state;
mod tail;
mod writes;

pub(crate) use coverage::ConnectedCopy;
pub(super) use coverage::has_all_of;
pub(super) use pace::{Cause, Frame, LATE, Sent};
pub(super) use state::{Announced, DeferredAnswer};
pub(crate) use state::{Partition, Phase};
