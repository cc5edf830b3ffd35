//! The ring as it is shown at `/api/cluster` and judged at `/health/ready`.

use protocol::message::link::{CopyReport, Counted, Role, Rollback};
use protocol::placement::{Partition, Place};
use serde::Serialize;
use utoipa::ToSchema;

use super::Routing;
use super::event::{Command, RingEvent};
use super::partition::{ConnectedCopy, Phase};
use crate::history::PastEvent;

/// The whole ring at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ClusterStatus {
    /// Id of the ring; absent until one is formed or found.
    pub ring: Option<String>,
    /// n.
    pub size: u16,
    /// Number of the view: it counts up whenever a lead moves.
    pub epoch: u64,
    /// Whether every partition can take reads and writes.
    pub ready: bool,
    /// The db-processes, by place.
    pub processes: Vec<ProcessStatus>,
    /// The partitions, by number.
    pub partitions: Vec<PartitionStatus>,
    /// What was served since the gateway started.
    pub served: Served,
    /// What happened lately, the oldest first. The routing remembers nothing of it: whoever asks it adds
    /// this.
    pub events: Vec<PastEvent>,
}

/// One place of the ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PartitionStatus {
    /// 0..n.
    pub partition: Partition,
    /// Name of the process whose copy takes the writes; absent where none can.
    pub lead: Option<String>,
    /// Which of its copies leads, or has to come back to lead: primary or replica.
    #[schema(value_type = String)]
    pub role: Role,
    /// Whether reads are answered now.
    pub reads: bool,
    /// Whether writes are taken now.
    pub writes: bool,
    /// Whether the copy that does not lead answers reads as well.
    pub both_read: bool,
    /// Acknowledged writes that the other copy is not known to have.
    pub unreplicated: u64,
    /// How many milliseconds ago the oldest of them was acknowledged; 0 where there is none.
    pub unreplicated_millis: u64,
    /// Whether the two processes that hold it are there, and for more than two seconds one has not followed
    /// the other.
    pub link_down: bool,
    /// The primary, then the replica where there is one.
    pub copies: Vec<CopyStatus>,
    /// What has to happen before the partition is whole again, for a person.
    pub waiting_for: Option<String>,
}

/// One copy of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct CopyStatus {
    /// Name of its process.
    pub process: String,
    /// Which of the two: primary or replica.
    #[schema(value_type = String)]
    pub role: Role,
    /// Whether its process is registered now.
    pub connected: bool,
    /// Whether it ever held all of its partition, as far as that is known now.
    pub complete: bool,
    /// The highest version in it when its process last told; 0 where nothing was ever written.
    pub version: Option<u64>,
    /// What shows that it was rolled back: its disk has lost something. Absent where it was not.
    pub rolled_back: Option<RolledBack>,
    /// Why it is slow, while it is much slower than the other copy: its disk or its link. Then it leads only
    /// where the other copy cannot, and is not asked where that one may answer.
    pub slow: Option<String>,
    /// How many writes it lacks that the lead has acknowledged through this gateway; absent for the lead
    /// itself, and where the gateway has not seen who led.
    pub lag: Option<u64>,
    /// Whether it follows the other copy of the partition now; absent where its process has not said so.
    pub follows: Option<bool>,
}

/// A copy whose disk has lost something: the end of its database is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct RolledBack {
    /// What the two numbers count: commit, of its database, or entry, of its op-log.
    #[schema(value_type = String)]
    pub of: Counted,
    /// The last one that is there.
    pub found: u64,
    /// One that was on disk before.
    pub known: u64,
}

/// Counts since the gateway started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
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
            epoch: self.view.epoch,
            ring: self.ring.filter(|_| self.open).map(|ring| ring.id.to_string()),
            size: self.size,
            ready: partitions.iter().all(|partition| partition.reads && partition.writes),
            processes: (0..self.size).map(|place| self.process_status(place)).collect(),
            partitions,
            served: self.served,
            events: Vec::new(),
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
        let served = partition.phase != Phase::Down;
        let current = partition.other_is_current();
        let whole = served
            && partition.lead == Role::Primary
            && (current || self.size == 1)
            && self.impaired(number).is_none();
        PartitionStatus {
            partition: number,
            lead: self.place_of(number, partition.lead).filter(|_| served).map(|place| self.name_of(place)),
            role: partition.lead,
            reads: served,
            writes: served,
            both_read: current,
            unreplicated: partition.unreplicated() as u64,
            unreplicated_millis: partition
                .oldest_unreplicated()
                .map_or(0, |since| self.ticked.saturating_sub(since).as_millis() as u64),
            link_down: partition.replication.link_is_down(),
            copies: Role::ALL.iter().filter_map(|&role| self.copy_status(number, role)).collect(),
            waiting_for: (!whole).then(|| self.waiting_for(number)),
        }
    }

    fn copy_status(&self, number: Partition, role: Role) -> Option<CopyStatus> {
        let report = self.report(number, role);
        let partition = &self.partitions[usize::from(number)];
        let place = self.place_of(number, role)?;
        let following = self.sessions.get(&place).and_then(|session| session.following);
        Some(CopyStatus {
            process: self.name_of(place),
            role,
            connected: report.is_some(),
            complete: report.is_some_and(|report| report.complete),
            version: report.map(|report| report.version.0),
            rolled_back: report
                .and_then(|report| report.rollback)
                .map(|Rollback { of, found, known }| RolledBack { of, found, known }),
            slow: partition.pace.cause(role).map(|cause| cause.of_copy().to_owned()),
            lag: report.and_then(|report| partition.lag(&report)),
            follows: following.map(|following| following.get(role)).filter(|_| self.size > 1),
        })
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
    pub(super) fn name_of(&self, place: Place) -> String {
        match (self.names.get(&place), self.names.values().next()) {
            (Some(name), _) => name.to_string(),
            (None, Some(neighbour)) => neighbour.neighbour(place),
            (None, None) => format!("db-{place}"),
        }
    }
}
