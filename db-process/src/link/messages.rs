//! What the gateway and a db-process send each other, each direction as one type.

use protocol::message::Message;
use protocol::message::link::{
    Alive, Applied, Beat, Compared, CopiesChanged, Expected, Following, Leaving, MergeBatch, Merged,
    ReadAnswers, ReadBatch, Refusal, Refused, Register, Registered, Released, RingNotice, Role, WriteAnswers,
    WriteBatch,
};
use protocol::message::query::{
    ChangesAnswer, ChangesQuery, CountAnswer, CountQuery, DigestAnswer, DigestQuery, PageAnswer, PageQuery,
    Renew, TombstoneAnswer, TombstoneQuery,
};
use thiserror::Error;

/// What the gateway sends.
#[derive(Debug)]
pub enum FromGateway {
    /// The registration stands.
    Registered(Registered),
    /// It does not.
    Refused(Refusal),
    /// What is known of a copy's disk.
    Expected(Expected),
    /// What the ring looks like.
    Notice(RingNotice),
    /// Users to look up.
    Reads(ReadBatch),
    /// Operations for one copy.
    Writes(WriteBatch),
    /// The tail of a lost leader.
    Merge(MergeBatch),
    /// A question about a copy.
    Query(Query),
    /// A copy is to be repaired.
    Renew(Renew),
    /// Nothing depends on the process any more.
    Released,
    /// Is it there?
    Beat(Beat),
}

/// A question about a copy.
#[derive(Debug)]
pub enum Query {
    /// Live users in id order.
    Page(PageQuery),
    /// Their number.
    Count(CountQuery),
    /// Part of the op-log.
    Changes(ChangesQuery),
    /// Deleted users.
    Tombstones(TombstoneQuery),
    /// Digests.
    Digests(DigestQuery),
}

impl Query {
    /// The copy that it is about.
    pub fn role(&self) -> Role {
        match self {
            Self::Page(query) => query.role,
            Self::Count(query) => query.role,
            Self::Changes(query) => query.role,
            Self::Tombstones(query) => query.role,
            Self::Digests(query) => query.role,
        }
    }
}

/// What a db-process sends.
#[derive(Debug)]
pub enum ToGateway {
    /// The first message.
    Register(Box<Register>),
    /// Answer to a beat.
    Alive(Alive),
    /// A copy has lost nothing.
    Compared(Compared),
    /// What has changed of the registration.
    Copies(Box<CopiesChanged>),
    /// A copy has applied more.
    Applied(Applied),
    /// Which copies follow.
    Following(Following),
    /// The process was asked to stop.
    Leaving(Leaving),
    /// Users found.
    Read(ReadAnswers),
    /// Outcomes of writes.
    Written(WriteAnswers),
    /// The tail of a lost leader is on disk.
    Merged(Merged),
    /// Answer to a question.
    Page(PageAnswer),
    /// Answer to a question.
    Count(CountAnswer),
    /// Answer to a question.
    Changes(ChangesAnswer),
    /// Answer to a question.
    Tombstones(TombstoneAnswer),
    /// Answer to a question.
    Digests(DigestAnswer),
}

/// An event that is no message of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// Its name is unknown.
    #[error("an event that is not known")]
    Event,
    /// Its text is not such a message.
    #[error("a message that cannot be read")]
    Text,
}

impl FromGateway {
    /// Decodes an event.
    ///
    /// # Errors
    /// If the gateway sends no such message.
    pub fn decode(event: &str, text: &str) -> Result<Self, Unreadable> {
        fn read<M: Message, T>(text: &str, wrap: impl FnOnce(M) -> T) -> Result<T, Unreadable> {
            M::decode(text).map(wrap).map_err(|_| Unreadable::Text)
        }
        match event {
            ReadBatch::EVENT => read(text, Self::Reads),
            WriteBatch::EVENT => read(text, Self::Writes),
            Beat::EVENT => read(text, Self::Beat),
            MergeBatch::EVENT => read(text, Self::Merge),
            PageQuery::EVENT => read(text, Query::Page).map(Self::Query),
            CountQuery::EVENT => read(text, Query::Count).map(Self::Query),
            ChangesQuery::EVENT => read(text, Query::Changes).map(Self::Query),
            TombstoneQuery::EVENT => read(text, Query::Tombstones).map(Self::Query),
            DigestQuery::EVENT => read(text, Query::Digests).map(Self::Query),
            RingNotice::EVENT => read(text, Self::Notice),
            Expected::EVENT => read(text, Self::Expected),
            Renew::EVENT => read(text, Self::Renew),
            Registered::EVENT => read(text, Self::Registered),
            Refused::EVENT => read(text, |Refused { reason }| Self::Refused(reason)),
            Released::EVENT => Ok(Self::Released),
            _ => Err(Unreadable::Event),
        }
    }
}

impl ToGateway {
    /// Name and text of the event.
    pub fn encode(&self) -> (&'static str, String) {
        fn write<M: Message>(message: &M) -> (&'static str, String) {
            (M::EVENT, message.encode())
        }
        match self {
            Self::Read(message) => write(message),
            Self::Written(message) => write(message),
            Self::Alive(message) => write(message),
            Self::Applied(message) => write(message),
            Self::Register(message) => write(&**message),
            Self::Compared(message) => write(message),
            Self::Copies(message) => write(&**message),
            Self::Following(message) => write(message),
            Self::Leaving(message) => write(message),
            Self::Merged(message) => write(message),
            Self::Page(message) => write(message),
            Self::Count(message) => write(message),
            Self::Changes(message) => write(message),
            Self::Tombstones(message) => write(message),
            Self::Digests(message) => write(message),
        }
    }
}
