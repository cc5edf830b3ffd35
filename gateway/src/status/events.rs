//! The events of the ring: their lines in the log, and the last of them in memory.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use utoipa::ToSchema;

use crate::engine::RingEvent;

/// So many events are kept.
const KEPT: usize = 64;

/// Something that happened to the ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PastEvent {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// What, in a sentence without its full stop.
    pub text: String,
}

/// The last events, the oldest first.
#[derive(Debug, Default)]
pub struct History(VecDeque<PastEvent>);

impl History {
    /// Keeps an event; the oldest goes if there are too many.
    pub fn add(&mut self, at: u64, event: &RingEvent) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(PastEvent { at, text: words(event) });
    }

    /// All that is kept.
    pub fn recent(&self) -> Vec<PastEvent> {
        self.0.iter().cloned().collect()
    }
}

/// An event in the words of the log.
pub(crate) fn words(event: &RingEvent) -> String {
    match event {
        RingEvent::GatewayActive { term } => format!("this gateway is active, in term {term}"),
        RingEvent::GatewayStandby { why } => format!("this gateway is a standby: {why}"),
        RingEvent::ProcessRegistered { instance, host, .. } => format!("{instance} registered from {host}"),
        RingEvent::ProcessRefused { instance, host, reason } => {
            format!("{instance} from {host} was refused: {reason}")
        }
        RingEvent::ProcessLost { instance, how } => format!("{instance} was lost: {how}"),
        RingEvent::RolledBack { instance, partition, role, rollback } => {
            let role = role.as_str();
            format!("{instance} has lost part of its {role} copy of partition {partition}: {rollback}")
        }
        RingEvent::MembersMissing { missing } => format!("{missing}: the ring is not complete yet"),
        RingEvent::CutOff => {
            "nothing is heard of any db-process: the gateway may be cut off, and requests wait".to_owned()
        }
        RingEvent::RingKnown { size, new: true, .. } => format!("a new ring of {size} was formed"),
        RingEvent::RingKnown { size, new: false, .. } => format!("the ring of {size} was found"),
        RingEvent::SizeDiffers { ring, configured } => {
            format!("the data belong to a ring of {ring}, which counts, not of {configured}")
        }
        RingEvent::ViewChanged { epoch, partition, leader, why } => {
            format!("view {epoch}: {leader} for partition {partition}, since {why}")
        }
        RingEvent::PartitionChanged { partition, now: what }
        | RingEvent::ReplicationChanged { partition, what, .. } => format!("partition {partition}: {what}"),
    }
}

/// Writes an event into the log.
pub(crate) fn log(event: RingEvent) {
    match event {
        RingEvent::GatewayActive { term } => info!(term, "this gateway is active"),
        RingEvent::GatewayStandby { why } => info!(why, "this gateway is a standby"),
        RingEvent::ProcessRegistered { instance, host, incarnation } => {
            info!(instance, host, %incarnation, "db-process registered");
        }
        RingEvent::ProcessRefused { instance, host, reason } => {
            warn!(instance, host, reason, "db-process refused");
        }
        RingEvent::ProcessLost { instance, how } => warn!(instance, how, "db-process lost"),
        RingEvent::RolledBack { instance, partition, role, rollback } => {
            warn!(
                instance, partition, copy = role.as_str(), %rollback,
                "a copy was rolled back: its disk has lost something"
            );
        }
        RingEvent::MembersMissing { missing } => warn!(missing, "the ring is not complete yet"),
        RingEvent::CutOff => {
            warn!("nothing is heard of any db-process: the gateway may be cut off, and requests wait");
        }
        RingEvent::RingKnown { ring, size, new: true } => info!(%ring, size, "new ring formed"),
        RingEvent::RingKnown { ring, size, new: false } => info!(%ring, size, "ring found"),
        RingEvent::SizeDiffers { ring, configured } => {
            warn!(
                ring,
                configured, "DB_PROCESSES is not the size of the ring that the data belong to, which counts"
            );
        }
        RingEvent::ViewChanged { epoch, partition, leader, why } => {
            info!(epoch, partition, leader, why, "view changed");
        }
        RingEvent::PartitionChanged { partition, now } => info!(partition, "partition {partition}: {now}"),
        RingEvent::ReplicationChanged { partition, impaired: true, what } => {
            warn!(partition, "partition {partition}: {what}");
        }
        RingEvent::ReplicationChanged { partition, impaired: false, what } => {
            info!(partition, "partition {partition}: {what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first() {
        let mut history = History::default();
        for at in 0..KEPT as u64 + 3 {
            history.add(at, &RingEvent::PartitionChanged { partition: 1, now: format!("state {at}") });
        }
        let recent = history.recent();
        assert_eq!((recent.len(), recent[0].at), (KEPT, 3));
        assert_eq!(recent[KEPT - 1].text, format!("partition 1: state {}", KEPT + 2));
    }
}
