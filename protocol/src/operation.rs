//! What a caller may ask of one user, and what can come of it.

use serde::{Deserialize, Serialize};

use crate::record::Change;
use crate::user::{User, UserId};
use crate::version::Version;

/// What a write asks for. Its fields are valid already; whether it is allowed is decided by the copy that
/// leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Makes the user; refused with [`Outcome::Exists`] where a live one has the id. The change sets all
    /// registers.
    #[serde(rename = "c")]
    Create(Change),
    /// Sets the registers named, which may be none; refused with [`Outcome::NotFound`] where there is no live
    /// user.
    #[serde(rename = "u")]
    Update(Change),
    /// Turns the record into a tombstone; refused with [`Outcome::NotFound`] where there is no live user.
    #[serde(rename = "d")]
    Delete,
    /// Forgets a tombstone whose newest register has this version. Only the gateway itself asks for it;
    /// refused with [`Outcome::PreconditionFailed`] where the user was created anew.
    #[serde(rename = "p")]
    Purge(Version),
}

impl Operation {
    /// The registers that the operation sets when it is allowed: they follow from the operation alone, so
    /// that it was applied says what was written.
    pub fn change(&self) -> Change {
        self.clone().into_change()
    }

    /// The user that it leaves, where that follows from the operation alone: it sets every field.
    pub fn whole_user(&self, id: UserId) -> Option<User> {
        match self {
            Self::Create(Change { name: Some(name), email: Some(email), group: Some(group), .. })
            | Self::Update(Change { name: Some(name), email: Some(email), group: Some(group), .. }) => {
                Some(User { id, name: name.clone(), email: email.clone(), group: *group })
            }
            _ => None,
        }
    }

    /// The same as [`Self::change`], for a caller that needs the operation no longer.
    pub fn into_change(self) -> Change {
        match self {
            Self::Create(change) | Self::Update(change) => change,
            Self::Delete => Change { alive: Some(false), ..Change::default() },
            Self::Purge(of) => Change { purge: Some(of), ..Change::default() },
        }
    }
}

/// `If-Match` and `If-None-Match` of a write: which versions of the live user it is meant for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// `*`: any live user will do.
    #[serde(rename = "*")]
    Any,
    /// One of these versions. Tags that no user can have are left out, so the list may be empty: it never
    /// holds.
    #[serde(rename = "v")]
    Versions(Vec<Version>),
    /// None of these versions.
    #[serde(rename = "n")]
    NoneOf(Vec<Version>),
}

impl Condition {
    /// Whether the condition holds for a live user of `version`.
    pub fn holds(&self, version: Version) -> bool {
        match self {
            Self::Any => true,
            Self::Versions(versions) => versions.contains(&version),
            Self::NoneOf(versions) => !versions.contains(&version),
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
    /// `If-Match` names no version that the user has, or `If-None-Match` names the one that it has.
    #[serde(rename = "stale")]
    PreconditionFailed,
    /// A create that was done before, under the same `Idempotency-Key`: nothing was written, and the user is
    /// shown as it was created, with the version of then.
    #[serde(rename = "again")]
    Repeated,
    /// A create under an `Idempotency-Key` that belongs to another request.
    #[serde(rename = "reused")]
    KeyReused,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_hold_for_the_versions_that_they_name() {
        let [one, two] = [Version(1), Version(2)];
        for (condition, of_one, of_two) in [
            (Condition::Any, true, true),
            (Condition::Versions(vec![]), false, false),
            (Condition::Versions(vec![one]), true, false),
            (Condition::NoneOf(vec![one]), false, true),
            (Condition::NoneOf(vec![]), true, true),
        ] {
            assert_eq!((condition.holds(one), condition.holds(two)), (of_one, of_two), "{condition:?}");
            let text = serde_json::to_string(&condition).expect("JSON");
            assert_eq!(serde_json::from_str::<Condition>(&text).expect("a condition"), condition);
        }
    }
}
