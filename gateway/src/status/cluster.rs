//! The ring as it is shown at `/api/cluster` and judged at `/health/ready`.

use protocol::message::link::{Counted, Role, Rollback};
use protocol::message::usage::ProcessUsage;
use protocol::placement::{Partition, Place};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::events::PastEvent;
use crate::engine::{Counts, Engine};

/// The whole ring at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterStatus {
    /// Id of the ring; absent until one is formed or found.
    pub ring: Option<String>,
    /// n.
    pub size: u16,
    /// Number of the view: it counts up whenever a leader changes.
    pub epoch: u64,
    /// Whether every partition can take reads and writes.
    pub ready: bool,
    /// The db-processes, by place.
    pub processes: Vec<ProcessStatus>,
    /// The partitions, by number.
    pub partitions: Vec<PartitionStatus>,
    /// What was served since the gateway started.
    pub served: Served,
    /// What happened lately, the oldest first.
    pub events: Vec<PastEvent>,
}

/// One place of the ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
    /// How many milliseconds ago it connected, or went away where it is not connected; absent where this
    /// gateway has not seen it.
    pub since_millis: Option<u64>,
    /// What it uses of its machine; absent where it is not connected, and for a moment after it was.
    pub usage: Option<ProcessUsage>,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
    /// The highest version in it when its process last reported; 0 where nothing was ever written.
    pub version: Option<u64>,
    /// What shows that it was rolled back: its disk has lost something. Absent where it was not.
    pub rolled_back: Option<RolledBack>,
    /// Why it is slow, while it is much slower than the other copy: its disk or its link. Then it leads only
    /// where the other copy cannot, and is not asked where that one may answer.
    pub slow: Option<String>,
    /// How many writes it lacks that the leader has acknowledged through this gateway; absent for the leader
    /// itself, and where the gateway has not seen which copy led.
    pub lag: Option<u64>,
    /// Whether it follows the other copy of the partition now; absent where its process has not said so.
    pub follows: Option<bool>,
}

/// A copy whose disk has lost something: the end of its database is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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

impl From<Counts> for Served {
    fn from(counts: Counts) -> Self {
        let Counts { reads_by_replica, reads_by_primary, reads_hedged, writes } = counts;
        Self { reads_by_replica, reads_by_primary, reads_hedged, writes }
    }
}

impl Engine {
    /// The ring as it is now, without events: the engine does not remember them.
    pub fn status(&self) -> ClusterStatus {
        let size = self.view().leaders.len() as u16;
        let partitions: Vec<_> = (0..size).map(|number| partition_status(self, number)).collect();
        ClusterStatus {
            epoch: self.view().epoch,
            ring: self.open_ring().map(|ring| ring.id.to_string()),
            size,
            ready: partitions.iter().all(|partition| partition.reads && partition.writes),
            processes: (0..size).map(|place| process_status(self, place)).collect(),
            partitions,
            served: self.counts().into(),
            events: Vec::new(),
        }
    }
}

fn process_status(engine: &Engine, place: Place) -> ProcessStatus {
    let session = engine.session_at(place);
    ProcessStatus {
        name: engine.name_of(place),
        place,
        connected: session.is_some(),
        address: session.map(|session| session.host.clone()),
        incarnation: session.map(|session| session.incarnation.to_string()),
        frames: engine.frames(place),
        since_millis: engine.changed(place).map(|at| engine.now().saturating_sub(at).as_millis() as u64),
        usage: session.and_then(|session| session.usage.as_deref().cloned()),
    }
}

fn partition_status(engine: &Engine, number: Partition) -> PartitionStatus {
    let partition = engine.partition(number);
    let served = !partition.is_down();
    let whole = served
        && partition.leader == Role::Primary
        && (partition.other_is_current || !partition.replicated)
        && engine.impaired(number).is_none();
    let age = partition.oldest_unreplicated().map(|since| engine.now().saturating_sub(since));
    PartitionStatus {
        partition: number,
        lead: engine.place_of(number, partition.leader).filter(|_| served).map(|place| engine.name_of(place)),
        role: partition.leader,
        reads: served,
        writes: served,
        both_read: partition.other_is_current,
        unreplicated: partition.unreplicated() as u64,
        unreplicated_millis: age.map_or(0, |age| age.as_millis() as u64),
        link_down: engine.link_is_down(number),
        copies: Role::ALL.into_iter().filter_map(|role| copy_status(engine, number, role)).collect(),
        waiting_for: (!whole).then(|| engine.waiting_for(number)),
    }
}

fn copy_status(engine: &Engine, number: Partition, role: Role) -> Option<CopyStatus> {
    let report = engine.report(number, role);
    let partition = engine.partition(number);
    let place = engine.place_of(number, role)?;
    let following = engine.session_at(place).and_then(|session| session.following);
    Some(CopyStatus {
        process: engine.name_of(place),
        role,
        connected: report.is_some(),
        complete: report.is_some_and(|report| report.complete),
        version: report.map(|report| report.version.0),
        rolled_back: report
            .and_then(|report| report.rollback)
            .map(|Rollback { of, found, known }| RolledBack { of, found, known }),
        slow: partition.slow(role).map(|cause| cause.of_copy().to_owned()),
        lag: report.and_then(|report| partition.lag(&report)),
        follows: following.map(|following| *following.get(role)).filter(|_| partition.replicated),
    })
}
