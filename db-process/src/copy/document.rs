//! The user as a caller gets it: JSON bytes that are not parsed on the way.

use protocol::message::link::Found;
use protocol::{Change, Record, UserId, Version};

/// The user as it is now; `None` for a tombstone.
pub fn live(id: UserId, record: Record) -> Option<Found> {
    let version = record.version();
    record.is_alive().then(|| Found::new(version, &record.into_user(id)))
}

/// The user as the operation left it; `None` after a delete or a purge.
///
/// Where `record` is the state right after the operation, or the operation set all there is, this is exact.
/// Where newer operations have followed, what this one left is not known any more, and the user is shown as
/// it is now, under the version that it has now: so it was at one time at least, after the operation and
/// before its answer. Where it is deleted now, it is what this one set, with the rest as it was last.
pub fn left_by(id: UserId, version: Version, change: &Change, record: Record) -> Option<Found> {
    if change.alive == Some(false) || change.purge.is_some() {
        return None;
    }
    let sets_all = change.name.is_some() && change.email.is_some() && change.group.is_some();
    if record.version() != version && record.is_alive() && !sets_all {
        return live(id, record);
    }
    let mut user = record.into_user(id);
    if let Some(name) = &change.name {
        user.name.clone_from(name);
    }
    if let Some(email) = &change.email {
        user.email.clone_from(email);
    }
    user.group = change.group.unwrap_or(user.group);
    Some(Found::new(version, &user))
}
