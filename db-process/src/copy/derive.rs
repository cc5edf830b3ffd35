//! What follows from the records ([`crate::store::derived`]), kept with each change of one: from what a
//! record was and what it becomes follows what changes in the digests, the counts and the indexes.
//!
//! Whatever changes a record comes through here, so this is exact as long as it was exact. That it is can be
//! checked at any time ([`super::audit`]).

use protocol::{Record, UserId};

use super::Copy;
use crate::store::derived::{IndexKey, email_hash};
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
        let (was, is) = (before, after.map(|after| &after.record));
        let [was, is] = [was, is].map(|record| record.filter(|record| record.is_alive()));
        let group = |record: &Record| record.group.1;
        if was.map(group) != is.map(group) {
            if let Some(left) = was.map(group) {
                self.staged.derived.index.push((IndexKey::Group(left, id), false));
            }
            if let Some(taken) = is.map(group) {
                self.staged.derived.index.push((IndexKey::Group(taken, id), true));
            }
        }
        if was.map(|record| &record.email.1) != is.map(|record| &record.email.1) {
            let [was, is] = [was, is].map(|record| record.map(|record| email_hash(&record.email.1)));
            if was != is {
                let changes = [(was, false), (is, true)].into_iter();
                let changes = changes.filter_map(|(hash, taken)| Some((IndexKey::Email(hash?, id), taken)));
                self.staged.derived.index.extend(changes);
            }
        }
        let users = i64::from(is.is_some()) - i64::from(was.is_some());
        self.staged.meta.users = plus(self.staged.meta.users, users)?;
        Ok(())
    }
}

fn plus(users: u64, by: i64) -> Result<u64, StoreError> {
    let too_few = || StoreError::Inconsistent("more records are gone than there were".to_owned());
    users.checked_add_signed(by).ok_or_else(too_few)
}
