//! What a partition waits for, and which copy serves it, in words.

use protocol::message::link::{CopyReport, Role};
use protocol::placement::{Partition, Place};

use super::Engine;
use super::event::{Command, RingEvent};
use super::partition::{ConnectedCopy, Phase};

impl Engine {
    /// What has to happen before a partition is whole again.
    pub(crate) fn waiting_for(&self, number: Partition) -> String {
        if !self.open {
            let missing: Vec<String> = (0..self.size)
                .filter(|place| !self.sessions.contains_key(place))
                .map(|place| self.name_of(place))
                .collect();
            return match missing.as_slice() {
                [] => "the ring is being formed".to_owned(),
                [name] => format!("{name} has to connect"),
                names => format!("{} have to connect", names.join(", ")),
            };
        }
        let Some(partition) = self.partitions.get(usize::from(number)) else {
            return format!("a ring of {} has no such partition", self.size);
        };
        let lead = self.missing(number, partition.lead);
        let other = self.missing(number, partition.lead.other());
        // A copy waits to be filled, or to catch up, because it does not follow.
        let impaired = self.impaired(number);
        match partition.phase {
            Phase::Down => self.operators_choice(number).or(lead).or(other).or(impaired),
            _ => impaired.or(other).or_else(|| {
                let role = partition.lead.other();
                let name = self.name_of(self.place_of(number, role)?);
                Some(match partition.pace.cause(role) {
                    Some(cause) => format!("{name} has to be fast for a while: {}", cause.of_copy()),
                    None => format!("{name} has to catch up"),
                })
            }),
        }
        .unwrap_or_else(|| "more db-processes have to come back".to_owned())
    }

    /// What has to happen before that copy of a partition can answer; whichever it is where no role is given.
    pub(super) fn waiting_for_copy(&self, number: Partition, role: Option<Role>) -> String {
        let Some(role) = role.filter(|_| self.open && number < self.size) else {
            return self.waiting_for(number);
        };
        let place = self.place_of(number, role).map(|place| self.name_of(place));
        self.missing(number, role).unwrap_or_else(|| match place {
            Some(name) => format!("{name} has to answer"),
            None => "a ring of one has no replicas".to_owned(),
        })
    }

    /// What has to happen before a copy is there and holds its partition; `None` where it does, or where
    /// there is no such copy.
    pub(super) fn missing(&self, number: Partition, role: Role) -> Option<String> {
        let place = self.place_of(number, role)?;
        match self.copy(number, role) {
            None => Some(format!("{} has to come back", self.name_of(place))),
            Some(ConnectedCopy { report: CopyReport { rollback: Some(rollback), .. }, .. }) => Some(format!(
                "{} has lost part of its disk ({rollback}) and has to be filled",
                self.name_of(place)
            )),
            Some(copy) if !copy.report.complete => Some(format!("{} has to be filled", self.name_of(place))),
            Some(_) => None,
        }
    }

    /// What the operator can do about a partition that is down because a copy of it was rolled back; `None`
    /// where none was.
    fn operators_choice(&self, number: Partition) -> Option<String> {
        let rolled_back = Role::ALL.into_iter().find_map(|role| {
            let rollback = self.report(number, role)?.rollback?;
            Some((role, self.name_of(self.place_of(number, role)?), rollback))
        });
        let (role, name, rollback) = rolled_back?;
        let other = self.place_of(number, role.other()).map(|place| self.name_of(place));
        let other_complete = self.report(number, role.other()).is_some_and(|other| other.complete);
        let lost = format!("{name} has lost part of its disk ({rollback})");
        Some(match other {
            Some(other) if other_complete => format!(
                "{lost}, and only it may have the newest writes: restore its data directory, or accept what {other} has \
                 with `corro promote {number}`"
            ),
            Some(other) => format!(
                "{lost}: {other} has to come back, or the operator accepts what {name} has with `corro promote {number}`"
            ),
            None => format!("{lost}: the operator has to accept what it has with `corro promote {number}`"),
        })
    }

    /// Says in the log who serves a partition now.
    pub(super) fn report_serving(&self, number: Partition, commands: &mut Vec<Command>) {
        let partition = &self.partitions[usize::from(number)];
        let name = |role| self.place_of(number, role).map(|place| self.name_of(place)).unwrap_or_default();
        let (lead, other) = (name(partition.lead), name(partition.lead.other()));
        let now = match partition.phase {
            Phase::Down => format!("nobody serves it: {}", self.waiting_for(number)),
            Phase::Confirming { .. } => format!("{lead} is about to lead"),
            _ if self.size == 1 => format!("{lead} leads, without a replica: the ring has one process"),
            _ if partition.other_is_current() => format!("{lead} leads, and {other} answers reads"),
            _ => format!("{lead} leads, and answers reads until {other} has caught up"),
        };
        let slow = Role::ALL.into_iter().filter_map(|role| Some((name(role), partition.pace.cause(role)?)));
        let slow = slow.map(|(name, cause)| format!("; {name} is slow: {}", cause.of_copy()));
        let now = now + &slow.collect::<String>();
        commands.push(Command::Report(RingEvent::PartitionChanged { partition: number, now }));
    }

    /// The name of the process at a place: as it registered, or as its neighbours are called.
    pub(crate) fn name_of(&self, place: Place) -> String {
        match (self.names.get(&place), self.names.values().next()) {
            (Some(name), _) => name.to_string(),
            (None, Some(neighbour)) => neighbour.neighbour(place),
            (None, None) => format!("db-{place}"),
        }
    }
}
