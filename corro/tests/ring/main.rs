//! A whole ring of real processes, which are really killed. Each test starts its own, on free ports, in a
//! folder of its own, and ends it.
//!
//! Measurements that take minutes are ignored by default; `resources/docs/measurements.md` says how to run
//! them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bulk;
mod changes;
mod client;
mod copies;
mod cut_off;
mod damage;
mod erase;
mod failover;
mod feed_measure;
mod freshness;
mod garbage;
mod gateways;
mod hostile;
mod link;
mod lists;
mod load;
mod losses;
mod measure;
mod processes;
mod purge;
mod remedies;
mod restart;
mod rollback;
mod skip;
mod slow;
