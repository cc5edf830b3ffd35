//! The ring as it is shown at `/api/cluster` and judged at `/health/ready`.

use protocol::placement::Partition;
use serde::Serialize;

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
