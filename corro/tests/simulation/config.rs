//! What a seed stands for: how large the ring is, how much its parts keep, and what will go wrong.

use std::time::Duration;

use corro::random::Random;
use db_process::replication::source_state::SourceLimits;

/// How hard a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing fails.
    Calm,
    /// One failure at a time, the next only when the ring is whole again: no request may fail.
    Single,
    /// Failures overlap, as far as no acknowledged write can be lost by them for good: requests may be
    /// refused, but no answer may be wrong, and the ring is whole in the end.
    Chaos,
    /// Anything: the ring may be down in the end, because what it would need is gone, but it may not lie.
    Harsh,
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// `kill -9`: what was committed is there afterwards.
    Kill,
    /// The machine loses power: what was not synced is gone, and no connection is closed.
    Power,
    /// The process ends, and comes back with an empty disk.
    Wipe,
    /// The process ends, and comes back with a disk as it was at some earlier time.
    Rollback,
    /// SIGSTOP and SIGCONT.
    Pause,
    /// Nothing gets to the disk of a process for a while; all else goes on.
    HungDisk,
    /// Whatever a process brings to its disk takes 0.3 to 1.9 seconds for a while.
    SlowDisk,
    /// Each message to a process and from it takes 200 ms more for a while.
    SlowLink,
    /// The connection between a process and the gateway breaks.
    Cut,
    /// A connection between two processes breaks.
    CutReplication,
    /// SIGTERM.
    Leave,
    /// The gateway is killed and started again.
    Gateway,
    /// The gateway stands still for a while.
    GatewayPause,
    /// The gateway is cut off from all processes at once, for a while: messages are late, or all connections
    /// break.
    CutOff,
}

const ALL: [Fault; 14] = [
    Fault::Kill,
    Fault::Power,
    Fault::Wipe,
    Fault::Rollback,
    Fault::Pause,
    Fault::HungDisk,
    Fault::SlowDisk,
    Fault::SlowLink,
    Fault::Cut,
    Fault::CutReplication,
    Fault::Leave,
    Fault::Gateway,
    Fault::GatewayPause,
    Fault::CutOff,
];

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) seed: u64,
    pub(crate) mode: Mode,
    pub(crate) size: u16,
    pub(crate) clients: usize,
    pub(crate) users: u64,
    /// Operations of all clients together.
    pub(crate) operations: u64,
    /// Longest pause of a client between two operations, in microseconds.
    pub(crate) think: u64,
    pub(crate) tail_bytes: usize,
    pub(crate) recent: usize,
    pub(crate) log: u64,
    pub(crate) trim: u64,
    pub(crate) faults: u64,
    pub(crate) kinds: Vec<Fault>,
    /// For how many milliseconds a disk or a link is slow: at least, and at most.
    pub(crate) slow: (u64, u64),
    /// Longest usual delay of a message, in microseconds.
    pub(crate) delay: u64,
    /// How many messages in a hundred take much longer.
    pub(crate) late: u64,
    /// Longest time of a round of a copy, in microseconds.
    pub(crate) round: u64,
    /// Milliseconds after which tombstones may go, where they do.
    pub(crate) purge_after: Option<u64>,
    /// How a follower is fed.
    pub(crate) source: SourceLimits,
}

impl Config {
    /// The run of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Random::new(seed ^ 0xc0f1);
        let mode = match rng.next() % 20 {
            0 => Mode::Calm,
            1..=8 => Mode::Single,
            9..=15 => Mode::Chaos,
            _ => Mode::Harsh,
        };
        let kinds: Vec<Fault> = ALL.into_iter().filter(|_| rng.percent(60)).collect();
        let small_tail = mode != Mode::Single && rng.percent(20);
        Self {
            seed,
            mode,
            size: rng.pick(&[2, 3, 3, 3, 5]),
            clients: rng.between(2, 6) as usize,
            users: rng.between(2, 7),
            operations: rng.between(80, 260),
            think: rng.pick(&[3_000, 20_000, 60_000]),
            tail_bytes: if small_tail { 600 } else { 1 << 20 },
            recent: rng.pick(&[64, 1_024]),
            log: if rng.percent(30) { rng.between(70, 120) } else { 1_000_000 },
            trim: rng.pick(&[1, 4, 64]),
            faults: if mode == Mode::Calm { 0 } else { rng.between(1, 7) },
            kinds: if kinds.is_empty() { ALL.to_vec() } else { kinds },
            slow: (1_000, 18_000),
            delay: rng.pick(&[100, 500, 5_000]),
            late: 3,
            round: rng.pick(&[300, 3_000, 15_000]),
            purge_after: rng.percent(60).then(|| rng.pick(&[0, 5, 50, 300])),
            source: SourceLimits {
                pace: Duration::from_millis(rng.pick(&[0, 10])),
                far: rng.pick(&[10, 4_096]),
                at_once: rng.pick(&[5, 256]),
                ..SourceLimits::default()
            },
        }
    }
}
