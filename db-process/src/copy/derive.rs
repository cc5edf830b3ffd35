//! What follows from the records ([`crate::store::derived`]), stored with each change of one: from what a
//! record was and what it becomes follows what changes in the digests, the counts and the indexes.
//!
//! Whatever changes a record comes through here, so this is exact as long as it was exact. That it is can be
//! checked at any time ([`super::audit`]).

use protocol::{Record, UserId};

use super::Copy;
use crate::store::derived::place_changes;
use crate::store::{Encoded, Store, StoreError, encoding};

impl<S: Store> Copy<S> {
    /// Stages what follows from a record that was `before` and becomes `after`; `None` is no record.
    ///
    /// # Errors
    /// If its numbers cannot be true.
    pub(super) fn derive(
        &mut self,
        id: UserId,
        before: Option<&Record>,
        after: Option<&Encoded>,
    ) -> Result<(), StoreError> {
        match before {
            Some(before) => self.digests.toggle(&id, &encoding::record(before)),
            None => self.staged.meta.records = plus(self.staged.meta.records, 1)?,
        }
        match after {
            Some(after) => self.digests.toggle(&id, &after.bytes),
            None => self.staged.meta.records = plus(self.staged.meta.records, -1)?,
        }
        let after = after.map(|after| &after.record);
        self.staged.derived.index.extend(place_changes(id, before, after));
        let [was, is] = [before, after].map(|record| record.is_some_and(Record::is_alive));
        let users = i64::from(is) - i64::from(was);
        self.staged.meta.users = plus(self.staged.meta.users, users)?;
        Ok(())
    }
}

fn plus(users: u64, by: i64) -> Result<u64, StoreError> {
    let too_few = || StoreError::Inconsistent("more records are gone than there were".to_owned());
    users.checked_add_signed(by).ok_or_else(too_few)
}
