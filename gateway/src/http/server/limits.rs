//! What callers may cost.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// How many connections there may be by default.
const MAX_CONNECTIONS: usize = 16_384;

/// So many open files are left for everything that is no connection of a caller.
const RESERVED_FILES: u64 = 512;

/// What callers may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections.
    pub connections: usize,
    /// How long a connection may stay without a handler at work or a byte of an answer, so also how long a
    /// head may take. It is noticed after twice that time at the latest.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: MAX_CONNECTIONS, idle: Duration::from_secs(60) }
    }
}

/// Raises the number of files that this process may open as far as it is allowed to, and returns how many
/// connections of callers that leaves room for: 16,384 at most.
pub fn allowed_connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            warn!(%error, "the number of open files stays as it was");
            limit.current
        }
    };
    // No limit at all is more than enough.
    connections_for(files.unwrap_or(u64::MAX))
}

fn connections_for(files: u64) -> usize {
    let room = files.saturating_sub(RESERVED_FILES.min(files / 4));
    usize::try_from(room).unwrap_or(usize::MAX).clamp(1, MAX_CONNECTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_other_files() {
        assert_eq!(connections_for(u64::MAX), 16_384);
        assert_eq!(connections_for(20_000), 16_384);
        assert_eq!(connections_for(4_096), 3_584);
        assert_eq!(connections_for(1_024), 768);
        assert_eq!(connections_for(0), 1);
    }
}
