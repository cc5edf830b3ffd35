//! The db-process of a ring: two copies of user partitions on disk, served to a gateway and kept equal to
//! their counterparts on the neighbouring processes.
//!
//! From the inside out:
//!
//! * `background`: threads, and background priority for some of them.
//! * [`store`]: a copy's database.
//! * [`copy`]: the rules of a copy: what a write comes to, how two copies become equal.
//! * [`worker`]: a copy at work on its own thread.
//! * [`identity`]: whose data these are.
//! * [`remedy`]: what an operator does where the data cannot be used.
//! * [`node`]: both copies and what the ring asks of them.
//! * [`link`]: answers the gateway.
//! * [`replication`]: follows the neighbours, and is followed by them.
//! * [`config`], [`run`]: settings, and the one place that wires everything together.

mod background;
pub mod config;
pub mod copy;
pub mod identity;
pub mod link;
pub mod node;
pub mod remedy;
pub mod replication;
pub mod run;
pub mod store;
pub mod worker;
