//! Which gateway of several is active, as this one knows it.

use uuid::Uuid;

/// What this gateway is, among the gateways of its ring. In each term one of them is active: it decides. The
/// others are standbys, and forward to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// This one is.
    Active {
        /// Number of its term.
        term: u64,
    },
    /// Another one is, or none.
    Standby {
        /// The one that was active when it was last heard of; `None` while none is known.
        active: Option<ActiveGateway>,
    },
}

impl Default for Standing {
    fn default() -> Self {
        Self::Standby { active: None }
    }
}

/// The gateway that is active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveGateway {
    /// Made at its start, so that it differs from the same gateway before a restart.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Host and port of its REST port, as other gateways reach it.
    pub rest: String,
    /// Number of its term.
    pub term: u64,
}
