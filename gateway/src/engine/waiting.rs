//! What a partition waits for, and which copy serves it, in words.

use protocol::message::link::Role;
use protocol::placement::{Partition as Number, Place};

use super::event::RingEvent;
use super::partition::Phase;
use super::{Engine, STARTING};

impl Engine {
    /// What has to happen before a partition is whole again.
    pub(crate) fn waiting_for(&self, number: Number) -> String {
        if !self.open {
            return self.missing_members().unwrap_or_else(|| "the ring is being formed".to_owned());
        }
        let Some(partition) = self.partitions.get(usize::from(number)) else {
            return format!("a ring of {} has no such partition", self.size);
        };
        let role = partition.leader.other();
        let other = self.missing(number, role);
        // A copy waits to be filled, or to catch up, because it does not follow.
        let impaired = self.impaired(number);
        let waits = match partition.phase {
            Phase::Down => {
                let leader = self.missing(number, partition.leader);
                self.operators_choice(number).or(leader).or(other).or(impaired)
            }
            _ => impaired.or(other).or_else(|| {
                let name = self.name_of(self.place_of(number, role)?);
                Some(match partition.pace.cause(role) {
                    Some(cause) => format!("{name} has to be fast for a while: {}", cause.of_copy()),
                    None => format!("{name} has to catch up"),
                })
            }),
        };
        waits.unwrap_or_else(|| "more db-processes have to come back".to_owned())
    }

    /// Which db-processes have to connect before all of the ring is there; `None` when it is.
    fn missing_members(&self) -> Option<String> {
        let missing = (0..self.size).filter(|place| !self.sessions.contains_key(place));
        let missing: Vec<String> = missing.map(|place| self.name_of(place)).collect();
        match missing.as_slice() {
            [] => None,
            [name] => Some(format!("{name} has to connect")),
            names => Some(format!("{} have to connect", names.join(", "))),
        }
    }

    /// Reports which db-processes a gateway lacks that has started, when all of them have had time to
    /// register, and whenever that changes. Once all were there, each loss is reported by itself.
    pub(super) fn report_missing_members(&mut self) {
        if self.was_complete || self.ticked < STARTING {
            return;
        }
        let missing = self.missing_members();
        self.was_complete = missing.is_none();
        if missing != self.reported_missing {
            self.reported_missing.clone_from(&missing);
            if let Some(missing) = missing {
                self.report_event(RingEvent::MembersMissing { missing });
            }
        }
    }

    /// What has to happen before that copy of a partition can answer; whichever it is where no role is given.
    pub(super) fn waiting_for_copy(&self, number: Number, role: Option<Role>) -> String {
        match role.filter(|_| self.open && number < self.size) {
            None => self.waiting_for(number),
            Some(role) if self.place_of(number, role).is_none() => "a ring of one has no replicas".to_owned(),
            Some(role) => self
                .missing(number, role)
                .unwrap_or_else(|| format!("{} has to answer", self.name_of_copy(number, role))),
        }
    }

    /// What has to happen before a copy is there and holds its partition; `None` where it does, or where
    /// there is no such copy.
    pub(super) fn missing(&self, number: Number, role: Role) -> Option<String> {
        let name = self.name_of(self.place_of(number, role)?);
        let Some(report) = self.report(number, role) else { return Some(format!("{name} has to come back")) };
        match report.rollback {
            Some(rollback) => {
                Some(format!("{name} has lost part of its disk ({rollback}) and has to be filled"))
            }
            None => (!report.complete).then(|| format!("{name} has to be filled")),
        }
    }

    /// What the operator can do about a partition that is down because a copy of it was rolled back; `None`
    /// where none was.
    fn operators_choice(&self, number: Number) -> Option<String> {
        let rolled_back = |role| Some((role, self.report(number, role)?.rollback?));
        let (role, rollback) = Role::ALL.into_iter().find_map(rolled_back)?;
        let name = self.name_of_copy(number, role);
        let other = self.place_of(number, role.other()).map(|place| self.name_of(place));
        let lost = format!("{name} has lost part of its disk ({rollback})");
        Some(match other {
            Some(other) if self.complete_copy(number, role.other()).is_some() => format!(
                "{lost}, and only it may have the newest writes: restore its data directory, or accept what \
                 {other} has with `corro promote {number}`"
            ),
            Some(other) => format!(
                "{lost}: {other} has to come back, or the operator accepts what {name} has with \
                 `corro promote {number}`"
            ),
            None => format!("{lost}: the operator has to accept what it has with `corro promote {number}`"),
        })
    }

    /// Reports which copies serve a partition now.
    pub(super) fn report_serving(&mut self, number: Number) {
        let partition = self.partition(number);
        let name = |role| self.name_of_copy(number, role);
        let (leader, other) = (name(partition.leader), name(partition.leader.other()));
        let mut now = match partition.phase {
            Phase::Down => format!("no copy serves it: {}", self.waiting_for(number)),
            Phase::Confirming { .. } => format!("{leader} is about to lead"),
            _ if self.size == 1 => format!("{leader} leads, without a replica: the ring has one process"),
            _ if partition.other_is_current => format!("{leader} leads, and {other} answers reads"),
            _ => format!("{leader} leads, and answers reads until {other} has caught up"),
        };
        for role in Role::ALL {
            if let Some(cause) = partition.pace.cause(role) {
                now.push_str(&format!("; {} is slow: {}", name(role), cause.of_copy()));
            }
        }
        self.report_event(RingEvent::PartitionChanged { partition: number, now });
    }

    /// The name of the process at a place: as it registered, or as its neighbours are called.
    pub(crate) fn name_of(&self, place: Place) -> String {
        match (self.names.get(&place), self.names.values().next()) {
            (Some(name), _) => name.to_string(),
            (None, Some(neighbour)) => neighbour.neighbour(place),
            (None, None) => format!("db-{place}"),
        }
    }

    /// The name of the process that holds a copy; empty where there is no such copy.
    pub(super) fn name_of_copy(&self, number: Number, role: Role) -> String {
        self.place_of(number, role).map(|place| self.name_of(place)).unwrap_or_default()
    }
}
