//! Questions about one whole copy of a partition, as the engine is asked them.

use protocol::message::link::Role;
use protocol::message::query::{Answer, PageQuery, Query, TombstoneQuery};

/// The copy that a question is about; `None` where whichever is fresh may answer.
pub(super) fn asked_role(query: &Query) -> Option<Role> {
    match query {
        Query::PageQuery(_) | Query::CountQuery(_) => None,
        Query::ChangesQuery(_) | Query::TombstoneQuery(_) | Query::DigestQuery(_) | Query::EraseQuery(_) => {
            Some(query.role())
        }
    }
}

/// Whether an answer is of the right kind, and keeps what the messages promise. Callers rely on that: a page
/// without users that says that there is more would be asked for again and again.
pub(super) fn is_answered_by(query: &Query, answer: &Answer) -> bool {
    match (query, answer) {
        (Query::PageQuery(PageQuery { after, limit, .. }), Answer::PageAnswer(page)) => {
            let ids = || after.iter().chain(page.users.iter().map(|user| &user.0));
            let rising = ids().zip(ids().skip(1)).all(|(one, next)| one < next);
            rising && page.users.len() <= *limit as usize && !(page.more && page.users.is_empty())
        }
        (Query::CountQuery(_), Answer::CountAnswer(_)) => true,
        (Query::DigestQuery(_), Answer::DigestAnswer(_)) => true,
        (Query::EraseQuery(_), Answer::EraseAnswer(_)) => true,
        (Query::TombstoneQuery(TombstoneQuery { after, upto, .. }), Answer::TombstoneAnswer(answer)) => {
            let goes_on = answer.next.is_none_or(|next| after.is_none_or(|after| next > after));
            goes_on && answer.tombstones.iter().all(|(_, version)| version <= upto)
        }
        (Query::ChangesQuery(_), Answer::ChangesAnswer(answer)) => {
            !(answer.more && answer.changes.is_empty())
        }
        _ => false,
    }
}
