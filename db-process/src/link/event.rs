//! What the rules of the links to the gateways ([`super::links`]) get to know, and what they ask for.

use protocol::message::link::{
    CopyReport, Expected, Following, Hello, MergeBatch, ReadBatch, Register, Ring, RingNotice, Role,
    ToGateway, ToProcess, WriteBatch,
};
use protocol::message::query::{CountQuery, Query, Renew};
use protocol::message::usage::ProcessUsage;

use crate::identity::Grant;
use crate::node::plan::Contradiction;

/// Number of a gateway, in the order of `SOCKET_SERVER_URL`.
pub type LinkId = usize;

/// Number of a registration on one link; none is used twice there.
pub type SessionId = u64;

/// What a copy, or another thread, was given to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Writes.
    Writes,
    /// The tail of a lost leader.
    Merge,
    /// A question about a whole copy.
    Question,
    /// A question that reads every record.
    Scan,
}

/// What happened to the process as a whole.
#[derive(Debug)]
pub enum ProcessEvent {
    /// A grant is on disk.
    GrantPersisted,
    /// State of a copy has changed.
    Copy(Role, CopyReport),
    /// Which copies follow has changed.
    Following(Following),
    /// What the process uses of its machine was measured.
    Usage(Box<ProcessUsage>),
    /// The process is to leave the ring.
    Leave,
    /// The time of [`Links::deadline`](super::links::Links::deadline) has come.
    Tick,
}

/// What happened on one link.
#[derive(Debug)]
pub enum Event {
    /// The connection is open. The process belongs to that ring, where it has joined one.
    Connected(Option<Ring>),
    /// With this the process registers.
    Prepared(Box<Register>),
    /// The connection could not be opened, or is over.
    Lost(String),
    /// The gateway sent a message.
    Message(ToProcess),
    /// Some work is done.
    Done {
        /// The connection that it came from.
        session: SessionId,
        /// What it was.
        work: Work,
        /// What to answer.
        answer: ToGateway,
    },
    /// A notice has been carried out, or cannot be true.
    Noticed {
        /// The connection that it came from.
        session: SessionId,
        /// The ring and the epoch of the view that are on disk now.
        persisted: Result<(Option<Ring>, u64), Contradiction>,
    },
    /// A copy was compared with what is known of its disk.
    Compared {
        /// Which copy.
        role: Role,
        /// It has lost nothing.
        sound: bool,
    },
}

/// What has to be done, in this order.
#[derive(Debug)]
pub enum Todo {
    /// On one link.
    On(LinkId, Command),
    /// Write a grant to disk. Owes [`ProcessEvent::GrantPersisted`].
    PersistGrant(Grant),
    /// The links have ended, with an error that has to be put right before another attempt makes sense.
    End(Result<(), String>),
}

/// What has to be done on one link.
#[derive(Debug)]
pub enum Command {
    /// Open a connection. Owes [`Event::Connected`] or [`Event::Lost`].
    Connect,
    /// Close it, or give up opening it.
    Disconnect,
    /// Whether the gateway counts on this process has changed.
    Registered(bool),
    /// Say hello.
    Hello(Box<Hello>),
    /// Look at the state of the copies. Owes [`Event::Prepared`] before anything else happens.
    Prepare,
    /// Send with what the process registers.
    Register(Box<Register>),
    /// Send a message.
    Send(ToGateway),
    /// Send what has changed of the registration.
    SendChanges,
    /// Look users up, and send the answer at once.
    Read(ReadBatch),
    /// Look a number up, and send the answer at once.
    Count(CountQuery),
    /// Have a copy decide writes. Owes [`Event::Done`].
    Write(SessionId, WriteBatch),
    /// Have a copy merge changes. Owes [`Event::Done`].
    Merge(SessionId, MergeBatch),
    /// Have another thread answer a question. Owes [`Event::Done`].
    Ask(SessionId, Work, Query),
    /// Carry out a notice of the ring. Owes [`Event::Noticed`].
    Notice(SessionId, RingNotice),
    /// Compare a copy with what is known of its disk. Owes [`Event::Compared`].
    Compare(Expected),
    /// Have a copy repaired.
    Renew(Renew),
}
