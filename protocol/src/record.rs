//! The record: what a copy stores and replicates of one user, and how two states of it merge.
//!
//! A record is four last-writer-wins registers (Shapiro, Preguiça et al., "A comprehensive study of
//! Convergent and Commutative Replicated Data Types", 2011): alive, name, email, group, each with the
//! [`Version`] that set it. A merge takes the newer of each register, so it is commutative, associative and
//! idempotent. Whatever arrives twice, late or in another order is therefore harmless, two copies that
//! exchanged everything are equal, and two updates of different fields both survive.
//!
//! A create sets all four registers, an update those it names, a delete only `alive`: the record of a deleted
//! user is a *tombstone*, and keeps the old values until it is created anew or purged.
//!
//! A *purge* forgets the registers up to a version, which was that of a tombstone; a record of which nothing
//! is left is none any more. It commutes with everything that is newer. What is older and comes later would
//! come to life, so a purge is asked for only when nothing older can come any more
//! (`gateway/src/engine/purge.rs`).
//!
//! A create with an `Idempotency-Key` sets a fifth register, see [`crate::fingerprint`]; most records have
//! none.
//!
//! What it does not do: it does not decide whether an operation is allowed. That is for the copy that leads.

use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprint;
use crate::mutation::{self, Mutation};
use crate::user::{User, UserId};
use crate::version::Version;

/// A value and the version that set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register<T>(pub Version, pub T);

impl<T: Clone> Register<T> {
    /// Takes `other` where it is newer. Two registers of one version hold one value, since a version is one
    /// operation.
    fn merge(&mut self, other: &Self) -> bool {
        let newer = (other.0 > self.0) != mutation::is(Mutation::MergeOlder);
        if newer {
            self.clone_from(other);
        }
        newer
    }
}

impl<T: Default> Register<T> {
    /// Before every write.
    fn unset() -> Self {
        Self(Version::ZERO, T::default())
    }

    /// As if no write up to that version had set it.
    fn forget(&mut self, upto: Version) -> bool {
        let forgets = self.0 > Version::ZERO && self.0 <= upto;
        if forgets {
            *self = Self::unset();
        }
        forgets
    }
}

/// Everything a copy knows of one user, alive or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// False in a tombstone.
    pub alive: Register<bool>,
    /// See [`User::name`].
    pub name: Register<String>,
    /// See [`User::email`].
    pub email: Register<String>,
    /// See [`User::group`].
    pub group: Register<i32>,
    /// The request that created the user, where it had an `Idempotency-Key`, and the version of that create.
    pub request: Option<Register<Fingerprint>>,
}

impl Record {
    /// The version of the newest write in it: the user's `ETag`.
    pub fn version(&self) -> Version {
        self.alive.0.max(self.name.0).max(self.email.0).max(self.group.0)
    }

    /// Whether the user exists for a caller.
    pub fn is_alive(&self) -> bool {
        self.alive.1
    }

    /// Whether no write is in it: such a record is not kept.
    pub fn is_nothing(&self) -> bool {
        self.version() == Version::ZERO
    }

    /// The user as a caller sees it, whether alive or not.
    pub fn to_user(&self, id: UserId) -> User {
        User { id, name: self.name.1.clone(), email: self.email.1.clone(), group: self.group.1 }
    }

    /// The same, for a caller that needs the record no longer.
    pub fn into_user(self, id: UserId) -> User {
        User { id, name: self.name.1, email: self.email.1, group: self.group.1 }
    }

    /// Merges another state of the same user into this one. Returns whether anything changed.
    pub fn merge(&mut self, other: &Self) -> bool {
        let alive = self.alive.merge(&other.alive);
        let name = self.name.merge(&other.name);
        let email = self.email.merge(&other.email);
        let group = self.group.merge(&other.group);
        let request = other.request.as_ref().is_some_and(|request| self.merge_request(request));
        alive | name | email | group | request
    }

    /// Merges one operation's registers into this record. Returns whether anything changed.
    pub fn apply(&mut self, version: Version, change: &Change) -> bool {
        let mut changed = false;
        if let Some(alive) = change.alive {
            changed |= self.alive.merge(&Register(version, alive));
        }
        if let Some(name) = &change.name {
            changed |= self.name.merge(&Register(version, name.clone()));
        }
        if let Some(email) = &change.email {
            changed |= self.email.merge(&Register(version, email.clone()));
        }
        if let Some(group) = change.group {
            changed |= self.group.merge(&Register(version, group));
        }
        if let Some(request) = change.request {
            changed |= self.merge_request(&Register(version, request));
        }
        if let Some(upto) = change.purge {
            changed |= self.forget(upto);
        }
        changed
    }

    fn forget(&mut self, upto: Version) -> bool {
        let alive = self.alive.forget(upto);
        let name = self.name.forget(upto);
        let email = self.email.forget(upto);
        let group = self.group.forget(upto);
        let request = self.request.take_if(|request| request.0 <= upto).is_some();
        alive | name | email | group | request
    }

    fn merge_request(&mut self, other: &Register<Fingerprint>) -> bool {
        match &mut self.request {
            Some(request) => request.merge(other),
            None => {
                self.request = Some(other.clone());
                true
            }
        }
    }

    /// The record of a user of which only `change` is known. Registers that it does not set have version
    /// zero, so what another copy knows of them wins; without `alive` in the change, the user is absent.
    pub fn from_change(version: Version, change: &Change) -> Self {
        let mut record = Self {
            alive: Register::unset(),
            name: Register::unset(),
            email: Register::unset(),
            group: Register::unset(),
            request: None,
        };
        record.apply(version, change);
        record
    }
}

/// The registers that one operation sets; all of them get the operation's version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// True for a create, false for a delete, absent for an update.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub alive: Option<bool>,
    /// See [`User::name`].
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// See [`User::email`].
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// See [`User::group`].
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    pub group: Option<i32>,
    /// Of a create with an `Idempotency-Key`.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Fingerprint>,
    /// Of a purge, which sets nothing: the registers up to this version are forgotten.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub purge: Option<Version>,
}

impl Change {
    /// Whether it sets nothing at all, as an update that names no field.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A change with its identity: what one operation wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned {
    /// Of the operation.
    #[serde(rename = "v")]
    pub version: Version,
    /// The user.
    #[serde(rename = "i")]
    pub id: UserId,
    /// The registers set.
    #[serde(rename = "c")]
    pub change: Change,
}

/// One operation that a copy accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its number in the op-log, from 1 on.
    pub sequence: u64,
    /// Of the operation.
    pub version: Version,
    /// The user.
    pub id: UserId,
    /// The registers set.
    pub change: Change,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(bits: u8, tag: u64) -> Change {
        Change {
            alive: (bits & 1 != 0).then_some(tag.is_multiple_of(2)),
            name: (bits & 2 != 0).then(|| format!("name-{tag}")),
            email: (bits & 4 != 0).then(|| format!("{tag}@example.org")),
            group: (bits & 8 != 0).then_some(tag as i32),
            request: (bits & 1 != 0).then_some(Fingerprint { key: 1, body: tag }),
            purge: None,
        }
    }

    /// Every order of the same operations, with repetitions, gives the same record.
    #[test]
    fn merge_is_commutative_associative_and_idempotent() {
        let operations: Vec<(Version, Change)> =
            (1..=5).map(|tag| (Version(tag), change((tag * 7 % 16) as u8, tag))).collect();
        let expected = fold(&operations);
        let mut order: Vec<usize> = (0..operations.len()).collect();
        permute(&mut order, 0, &mut |order| {
            let mut shuffled: Vec<_> = order.iter().map(|&i| operations[i].clone()).collect();
            assert_eq!(fold(&shuffled), expected, "{order:?}");
            shuffled.extend_from_within(..2);
            assert_eq!(fold(&shuffled), expected, "{order:?} with duplicates");
        });
        let (left, right) = operations.split_at(2);
        let mut merged = fold(left);
        merged.merge(&fold(right));
        assert_eq!(merged, expected);
        assert!(!merged.merge(&expected), "merging what is known changes nothing");
    }

    /// A purge may come before or after whatever is newer than what it forgets.
    #[test]
    fn a_purge_commutes_with_what_is_newer() {
        let full = |tag| (Version(tag), change(0b1111, tag));
        let dead = (Version(3), Change { alive: Some(false), ..Change::default() });
        let purge = (Version(9), Change { purge: Some(Version(3)), ..Change::default() });
        let gone = fold(&[full(2), dead.clone(), purge.clone()]);
        assert!(gone.is_nothing() && gone.request.is_none());
        assert!(!gone.clone().apply(purge.0, &purge.1), "a purge that comes again changes nothing");
        let anew = (Version(6), Change { request: None, ..change(0b1111, 6) });
        let expected = fold(std::slice::from_ref(&anew));
        let mut newer = vec![full(2), dead, anew, purge];
        assert_eq!(fold(&newer), expected);
        newer.swap(2, 3);
        assert_eq!(fold(&newer), expected);
        let update = (Version(7), change(0b0010, 7));
        let late = [update.clone(), newer[2].clone()];
        assert_eq!(fold(&late), fold(&[update]));
    }

    fn fold(operations: &[(Version, Change)]) -> Record {
        let mut record = Record::from_change(operations[0].0, &operations[0].1);
        for (version, change) in &operations[1..] {
            record.apply(*version, change);
        }
        record
    }

    fn permute(order: &mut [usize], from: usize, check: &mut impl FnMut(&[usize])) {
        if from == order.len() {
            return check(order);
        }
        for i in from..order.len() {
            order.swap(from, i);
            permute(order, from + 1, check);
            order.swap(from, i);
        }
    }
}
