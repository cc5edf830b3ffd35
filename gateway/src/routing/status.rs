//! The ring as it is shown at `/api/cluster` and judged at `/health/ready`.

use protocol::message::link::Role;
use protocol::placement::{Partition, Place, replica_of};
use serde::Serialize;

use super::Routing;
use super::event::{Command, RingEvent};
use super::partition::Serving;

/// The whole ring at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterStatus {
    /// Id of the ring; absent until one is formed or found.
    pub ring: Option<String>,
    /// n.
    pub size: u16,
    /// Whether every partition can take reads and writes.
    pub ready: bool,
    /// The db-processes, by place.
    pub processes: Vec<ProcessStatus>,
    /// The partitions, by number.
    pub partitions: Vec<PartitionStatus>,
    /// What was served since the gateway started.
    pub served: Served,
}

/// One place of the ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessStatus {
    /// Its name, as far as it is known.
    pub name: String,
    /// 0..n.
    pub place: u16,
    /// Whether it is registered now.
    pub connected: bool,
    /// Address that it connected from.
    pub address: Option<String>,
    /// Incarnation of its data folder.
    pub incarnation: Option<String>,
    /// Frames sent to it and received from it since the gateway started.
    pub frames: u64,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionStatus {
    /// 0..n.
    pub partition: Partition,
    /// Name of the process whose copy takes the writes; absent where none can.
    pub lead: Option<String>,
    /// Whether reads are answered now.
    pub reads: bool,
    /// Whether writes are taken now.
    pub writes: bool,
    /// Whether the replica answers reads now.
    pub replica_reads: bool,
    /// Acknowledged writes that the other copy is not known to have.
    pub unreplicated: u64,
    /// What has to happen before the partition is whole again, for a person.
    pub waiting_for: Option<String>,
}

/// Counts since the gateway started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Served {
    /// Reads answered by a replica.
    pub reads_by_replica: u64,
    /// Reads answered by a primary.
    pub reads_by_primary: u64,
    /// Reads that were sent to the second copy as well, because the first was slow.
    pub reads_hedged: u64,
    /// Writes decided.
    pub writes: u64,
}

impl Routing {
    /// The ring as it is now.
    pub fn status(&self) -> ClusterStatus {
        let partitions: Vec<PartitionStatus> =
            (0..self.size).map(|number| self.partition_status(number)).collect();
        ClusterStatus {
            ring: self.ring.filter(|_| self.open).map(|ring| ring.id.to_string()),
            size: self.size,
            ready: partitions.iter().all(|partition| partition.reads && partition.writes),
            processes: (0..self.size).map(|place| self.process_status(place)).collect(),
            partitions,
            served: self.served,
        }
    }

    fn process_status(&self, place: Place) -> ProcessStatus {
        let session = self.sessions.get(&place);
        ProcessStatus {
            name: self.name_of(place),
            place,
            connected: session.is_some(),
            address: session.map(|session| session.host.clone()),
            incarnation: session.map(|session| session.incarnation.to_string()),
            frames: self.frames[usize::from(place)],
        }
    }

    fn partition_status(&self, number: Partition) -> PartitionStatus {
        let partition = &self.partitions[usize::from(number)];
        let leads = partition.serving == Serving::Lead;
        let current = partition.replica_is_current();
        let whole = leads && (current || self.size == 1);
        PartitionStatus {
            partition: number,
            lead: leads.then(|| self.name_of(number)),
            reads: partition.serving != Serving::Nobody,
            writes: leads,
            replica_reads: current || partition.serving == Serving::Replica,
            unreplicated: partition.unreplicated() as u64,
            waiting_for: (!whole).then(|| self.waiting_for(number)),
        }
    }

    /// What has to happen before a partition is whole again.
    pub(super) fn waiting_for(&self, number: Partition) -> String {
        if !self.open {
            let missing: Vec<String> = (0..self.size)
                .filter(|place| !self.sessions.contains_key(place))
                .map(|place| self.name_of(place))
                .collect();
            return match missing.as_slice() {
                [] => "the ring is being formed".to_owned(),
                names => format!("{} has to connect", names.join(", ")),
            };
        }
        let describe = |place: Place, role: Role| match self.copy(number, role) {
            None => format!("{} has to come back", self.name_of(place)),
            Some(copy) if !copy.report.complete => format!("{} has to be filled", self.name_of(place)),
            Some(_) => format!("{} has to catch up", self.name_of(place)),
        };
        match replica_of(number, self.size) {
            Some(replica) if self.partitions[usize::from(number)].serving == Serving::Lead => {
                describe(replica, Role::Replica)
            }
            _ => describe(number, Role::Primary),
        }
    }

    /// Says in the log who serves a partition now.
    pub(super) fn report_serving(&self, number: Partition, commands: &mut Vec<Command>) {
        let partition = &self.partitions[usize::from(number)];
        let lead = self.name_of(number);
        let replica = replica_of(number, self.size).map(|place| self.name_of(place));
        let now = match (partition.serving, replica) {
            (Serving::Nobody, _) => format!("nobody serves it: {}", self.waiting_for(number)),
            (Serving::Lead, None) => format!("{lead} serves it, without a replica: the ring has one process"),
            (Serving::Lead, Some(replica)) if partition.replica_is_current() => {
                format!("{lead} takes writes and {replica}, which has caught up, answers reads")
            }
            (Serving::Lead, Some(replica)) => {
                format!("{lead} takes writes and answers reads until {replica} has caught up")
            }
            (Serving::HandingOver { .. }, _) => {
                format!("{lead} is away; its replica is handed the writes that it may lack")
            }
            (Serving::Replica, _) => format!("{lead} is away; its replica answers reads, writes are refused"),
        };
        commands.push(Command::Report(RingEvent::PartitionChanged { partition: number, now }));
    }

    /// The name of the process at a place: as it registered, or as its neighbours are called.
    pub(super) fn name_of(&self, place: Place) -> String {
        match (self.names.get(&place), self.names.values().next()) {
            (Some(name), _) => name.to_string(),
            (None, Some(neighbour)) => neighbour.neighbour(place),
            (None, None) => format!("db-{place}"),
        }
    }
}
