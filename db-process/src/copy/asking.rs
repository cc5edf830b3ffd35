//! Questions about a whole copy ([`protocol::message::query`]), each answered from one snapshot. They only
//! read, so they may run anywhere while the copy is written to.
//!
//! **Changes** come from the op-log, and are asked for by version. Versions rise in the op-log, since the
//! gateway sends the writes of a partition in version order, so the first entry wanted is found by halving.
//! There is one exception: a leader that hung may do at last what was sent to it long ago, when it has
//! meanwhile accepted newer writes by another connection, and an operation that was sent again may come after
//! newer ones. The copy remembers the last entry that came late in this way ([`crate::store::Late`]). Behind
//! it versions rise, above all those before it; what is before it has to be read entry by entry, and put in
//! order, unless all of it is too old to be wanted.
//!
//! What it does not do: it does not know whether the copy is complete, or has what is unsettled. The gateway
//! knows.

use std::ops::Range;

use protocol::message::MAX_BATCH;
use protocol::message::link::{Found, Versioned};
use protocol::message::query::{
    ChangesAnswer, ChangesQuery, DigestAnswer, Filter, Listed, MAX_LOOK, MAX_PAGE, PageAnswer, PageQuery,
    TombstoneAnswer, TombstoneQuery,
};
use protocol::message::replication::LogEntry;
use protocol::user::fold_email;
use protocol::{Record, UserId, Version};

use super::follow::ROOM;
use super::{document, erase};
use crate::store::derived::email_hash;
use crate::store::{Listing, Meta, Snapshot, StoreError};

/// Live users in id order.
///
/// # Errors
/// If the database fails.
pub fn page(snapshot: &impl Snapshot, query: &PageQuery) -> Result<PageAnswer, StoreError> {
    let mut page = Page { limit: query.limit.clamp(1, MAX_PAGE) as usize, size: 0, users: Vec::new() };
    let (email, group) = match &query.filter {
        Filter::All => (None, None),
        Filter::Group(group) => (None, Some(*group)),
        Filter::Email(email) => (Some(email), None),
        Filter::Both(email, group) => (Some(email), Some(*group)),
    };
    let by_email = email.map(|email| Listing::Email(email_hash(email)));
    let more = match by_email.or(group.map(Listing::Group)) {
        None => page.fill(snapshot.records_after(query.after), |_| true),
        // A hash is no proof, and there is one index for both.
        Some(listing) => page.fill(of_listed(snapshot, listing, query.after), |record| {
            group.is_none_or(|group| record.group.1 == group)
                && email.is_none_or(|email| fold_email(&record.email.1) == *email)
        }),
    }?;
    Ok(PageAnswer { query: query.query, users: page.users, more })
}

/// The records of the users that an index lists.
fn of_listed(
    snapshot: &impl Snapshot,
    listing: Listing,
    after: Option<UserId>,
) -> impl Iterator<Item = Result<(UserId, Record), StoreError>> {
    snapshot.listed(listing, after).filter_map(|id| match id {
        // A place without a record would be damage. It is not a user, and a scan finds it.
        Ok(id) => snapshot.get(&id).map(|record| record.map(|record| (id, record))).transpose(),
        Err(error) => Some(Err(error)),
    })
}

struct Page {
    limit: usize,
    /// Of what is in it as JSON, at least.
    size: usize,
    users: Vec<Listed>,
}

impl Page {
    /// Takes live users that match, until it is full. Returns whether there are more of them.
    fn fill(
        &mut self,
        records: impl Iterator<Item = Result<(UserId, Record), StoreError>>,
        matches: impl Fn(&Record) -> bool,
    ) -> Result<bool, StoreError> {
        for item in records {
            let (id, record) = item?;
            let found = if matches(&record) { document::live(id, record) } else { None };
            let Some(Found(version, user)) = found else { continue };
            self.size += LISTED + user.get().len();
            if self.users.len() == self.limit || (self.size > ROOM && !self.users.is_empty()) {
                return Ok(true);
            }
            self.users.push(Listed(id, version, user));
        }
        Ok(false)
    }
}

/// No less than the size of a listed user as JSON, beside the document: id, version, brackets.
const LISTED: usize = 70;

/// Changes from the op-log, in version order.
///
/// # Errors
/// If the database fails.
pub fn changes(snapshot: &impl Snapshot, query: &ChangesQuery) -> Result<ChangesAnswer, StoreError> {
    let meta = snapshot.meta();
    let Meta { head, trimmed, floor, foreign, top, .. } = meta;
    let mut wanted = Wanted { after: query.after, upto: query.upto, size: 0, changes: Vec::new() };
    let mut more = false;
    if query.after < top {
        let (first, end) = (trimmed + 1, head + 1);
        let rising = meta.late.map_or(first, |late| first.max(late.sequence + 1));
        let wanted_before = meta.late.is_some_and(|late| query.after < late.top);
        let unordered = if wanted_before { first..rising } else { rising..rising };
        // Everything before the last late entry is older than everything behind it.
        more = wanted.take_in_order(snapshot, unordered)? || wanted.take_rising(snapshot, rising..end)?;
    }
    Ok(ChangesAnswer { query: query.query, changes: wanted.changes, more, floor, foreign })
}

struct Wanted {
    after: Version,
    upto: Version,
    /// Of the changes as JSON, at least.
    size: usize,
    changes: Vec<Versioned>,
}

impl Wanted {
    /// Takes entries whose versions are in no order. Returns whether there is more than fits.
    fn take_in_order(&mut self, snapshot: &impl Snapshot, range: Range<u64>) -> Result<bool, StoreError> {
        let mut found = Vec::new();
        for entry in entries(snapshot, range) {
            let LogEntry { version, sequence, .. } = entry?;
            if version > self.after && version <= self.upto {
                found.push((version, sequence));
            }
        }
        found.sort_unstable();
        found.dedup_by_key(|(version, _)| *version);
        for (_, sequence) in found {
            for entry in entries(snapshot, sequence..sequence + 1) {
                if self.is_full_with(snapshot, entry?)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Takes entries whose versions rise. Returns whether there is more than fits.
    fn take_rising(&mut self, snapshot: &impl Snapshot, range: Range<u64>) -> Result<bool, StoreError> {
        let Range { start: mut first, mut end } = range;
        let last = end;
        while first < end {
            let middle = first + (end - first) / 2;
            let entry = entries(snapshot, middle..middle + 1).next().transpose()?;
            match entry.is_some_and(|entry| entry.version <= self.after) {
                true => first = middle + 1,
                false => end = middle,
            }
        }
        for entry in entries(snapshot, first..last) {
            let entry = entry?;
            if entry.version > self.upto {
                break;
            }
            if self.is_full_with(snapshot, entry)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes a change, unless it does not fit any more. One always does, so that there is progress.
    fn is_full_with(&mut self, snapshot: &impl Snapshot, entry: LogEntry) -> Result<bool, StoreError> {
        let size = change_size(&entry);
        let LogEntry { version, id, change, .. } = entry;
        let purges = change.purge.is_some();
        let change = Versioned { version, id, change };
        // A purge is no change that a caller could see, and of others nothing may be left.
        if purges || erase::says_nothing(snapshot, &change)? {
            return Ok(false);
        }
        self.size += size;
        if self.size > ROOM && !self.changes.is_empty() {
            return Ok(true);
        }
        self.changes.push(change);
        Ok(false)
    }
}

/// A byte of a text is at most six in JSON: `\u001f`.
const ESCAPED: usize = 6;

/// No less than the size of the change as JSON.
fn change_size(entry: &LogEntry) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    180 + ESCAPED * (text(&entry.change.name) + text(&entry.change.email))
}

/// Entries of the op-log by their sequences, which must be there.
fn entries(
    snapshot: &impl Snapshot,
    range: Range<u64>,
) -> impl Iterator<Item = Result<LogEntry, StoreError>> {
    let count = range.end.saturating_sub(range.start);
    // Sequences begin with 1.
    snapshot.log(range.start - 1).take(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Tombstones among the next records.
///
/// # Errors
/// If the database fails.
pub fn tombstones(snapshot: &impl Snapshot, query: &TombstoneQuery) -> Result<TombstoneAnswer, StoreError> {
    let TombstoneQuery { query, after, upto, .. } = *query;
    let Meta { incarnation, head, .. } = snapshot.meta();
    let mut answer = TombstoneAnswer { query, tombstones: Vec::new(), next: None, incarnation, head };
    for (item, looked) in snapshot.records_after(after).zip(1..) {
        let (id, record) = item?;
        let died = record.alive.0;
        if !record.is_alive() && died == record.version() && died <= upto {
            answer.tombstones.push((id, died));
        }
        if looked == MAX_LOOK || answer.tombstones.len() == MAX_BATCH {
            answer.next = Some(id);
            break;
        }
    }
    Ok(answer)
}

/// What the copy holds, in short, as it is stored beside the records. Nothing is scanned, so no damage is
/// found.
///
/// # Errors
/// If the database fails.
pub fn digests(snapshot: &impl Snapshot, query: u64) -> Result<DigestAnswer, StoreError> {
    let Meta { incarnation, head, position, users, records, .. } = snapshot.meta();
    let digests = snapshot.digests()?.values().to_vec();
    Ok(DigestAnswer { query, incarnation, head, position, users, records, digests, damage: Vec::new() })
}
