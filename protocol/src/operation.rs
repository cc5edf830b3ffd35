//! What a caller may ask of one user, and what can come of it.

use serde::{Deserialize, Serialize};

use crate::record::Change;
use crate::version::Version;

/// What a write asks for. Its fields are valid already; whether it is allowed is decided by the copy that leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Makes the user; refused with [`Outcome::Exists`] where a live one has the id. The change sets all registers.
    #[serde(rename = "c")]
    Create(Change),
    /// Sets the registers named, which may be none; refused with [`Outcome::NotFound`] where there is no live user.
    #[serde(rename = "u")]
    Update(Change),
    /// Turns the record into a tombstone; refused with [`Outcome::NotFound`] where there is no live user.
    #[serde(rename = "d")]
    Delete,
}

impl Operation {
    /// The registers that the operation sets when it is allowed: they follow from the operation alone, so whoever
    /// knows that it was applied knows what was written.
    pub fn change(&self) -> Change {
        self.clone().into_change()
    }

    /// The same, for whoever needs the operation no longer.
    pub fn into_change(self) -> Change {
        match self {
            Self::Create(change) | Self::Update(change) => change,
            Self::Delete => Change { alive: Some(false), ..Change::default() },
        }
    }
}

/// `If-Match` of a write: which versions of the live user it is meant for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// `*`: any live user will do.
    #[serde(rename = "*")]
    Any,
    /// One of these versions. Tags that no user can have are left out, so the list may be empty: it never holds.
    #[serde(rename = "v")]
    Versions(Vec<Version>),
}

impl Condition {
    /// Whether the condition holds for a live user of `version`.
    pub fn holds(&self, version: Version) -> bool {
        match self {
            Self::Any => true,
            Self::Versions(versions) => versions.contains(&version),
        }
    }
}

/// What came of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// The operation was applied: the registers are on disk with the operation's version.
    #[serde(rename = "ok")]
    Applied,
    /// An update that names no field: allowed, and nothing was written.
    #[serde(rename = "same")]
    Unchanged,
    /// A create of an id that a live user has.
    #[serde(rename = "exists")]
    Exists,
    /// An update or a delete of a user that is not there.
    #[serde(rename = "absent")]
    NotFound,
    /// `If-Match` names no version that the user has.
    #[serde(rename = "stale")]
    PreconditionFailed,
    /// A create that was done before, under the same `Idempotency-Key`: nothing was written, and the user is shown as it was
    /// created, with the version of then.
    #[serde(rename = "again")]
    Repeated,
    /// A create under an `Idempotency-Key` that belongs to another request.
    #[serde(rename = "reused")]
    KeyReused,
}
