//! Between a gateway and a db-process. The db-process connects and says [`Hello`]. The gateway claims a term
//! ([`Claim`]); when the process has granted it, it sends [`Register`], and everything else follows. Until
//! then, the connection is idle: both sides only show that they are alive ([`Heartbeat`]).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use super::query::{Answer, Query, Renew};
use super::usage::ProcessUsage;
use crate::message::Message;
use crate::operation::{Condition, Operation, Outcome};
use crate::placement::InstanceName;
pub use crate::record::Versioned;
pub use crate::ring::{
    CopyReport, CopyReports, Counted, FlushPoint, Leader, PerRole, Position, Ring, Role, Rollback, View,
};
pub use crate::term::{Gateway, Term, TermReport};
use crate::user::{User, UserId};
use crate::version::Version;

/// db-process → gateway, first message on every connection. Answered by [`Claim`] if the gateway is to be the
/// active one, and by [`Refused`] if the two cannot understand each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`super::REVISION`] of the sender.
    pub revision: u32,
    /// Its name, and so its place.
    pub instance: InstanceName,
    /// The ring that it belongs to, where it has joined one.
    pub ring: Option<Ring>,
    /// Whether it knows no other gateway. If that is so of all processes, no lease is needed.
    pub sole: bool,
    /// What it has granted.
    pub term: TermReport,
}

/// Gateway → db-process: it wants to be active in that term. The process answers with [`Granted`] once the
/// grant is on its disk, or with a [`TermReport`] if it stands by another gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Higher than any that the process has granted to another gateway.
    pub term: Term,
    /// Who claims it.
    pub gateway: Gateway,
    /// Whether the process is to register. If not, it is registered already, and only the term rises.
    pub register: bool,
}

/// db-process → gateway: the claim is granted, and the grant is on disk. From here on the process takes
/// nothing from gateways with a lower term. If it is to register, [`Register`] follows once everything that
/// it was sent under earlier terms is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// As claimed.
    pub term: Term,
}

/// Gateway → db-process: it is not active any more, and another gateway may be at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {}

/// Gateway → db-process, at a fixed interval. Answered by [`Kept`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Counts up; returned in the answer.
    pub number: u64,
    /// The gateway is active, or a candidate. If the process has granted it its term, it grants no other one
    /// for a while.
    pub active: bool,
}

/// db-process → gateway: answer to [`Heartbeat`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Of the [`Heartbeat`].
    pub number: u64,
    /// Whether that gateway holds the term, and the promise is renewed.
    pub held: bool,
}

/// db-process → gateway, after its [`Hello`], once the process has granted its claim. Answered by
/// [`Registered`] or [`Refused`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// [`super::REVISION`] of the sender.
    pub revision: u32,
    /// Its name, and so its place.
    pub instance: InstanceName,
    /// Made with its data folder: tells a process that comes back from another of the same name.
    pub incarnation: Uuid,
    /// `None` for a folder that never joined a ring.
    pub ring: Option<Ring>,
    /// The newest view that it persists; the first one for a folder that never joined a ring.
    pub view: View,
    /// Where its neighbours can follow its copies. Without a host: at the address from which this connection
    /// came.
    pub replication: ReplicationAddress,
    /// State of both copies.
    pub copies: CopyReports,
}

/// See [`Register::replication`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicationAddress {
    /// Host name or address; `REPLICATION_ADDRESS` where it is set.
    pub host: Option<String>,
    /// The port that it listens on.
    pub port: u16,
}

/// Gateway → db-process: the registration stands. A [`RingNotice`] follows once the ring is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// How many processes the gateway expects.
    pub size: u16,
}

/// Gateway → db-process: the registration does not stand. The db-process drops the connection, and tries
/// again unless the reason is final.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why, for the log of the db-process.
    pub reason: Refusal,
}

/// Why a registration does not stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The two programs speak different revisions. Final.
    Revision {
        /// Of the gateway.
        gateway: u32,
    },
    /// Another process is registered with that name, and is alive. Nothing is said of it here, so that it
    /// cannot be replaced by what is said.
    NameTaken,
    /// The name begins otherwise than those of the processes that are registered, and the process has no
    /// data yet.
    OtherStem {
        /// How theirs begin, such as `db-`.
        stem: String,
    },
    /// The place is not in the ring. Final.
    OutsideRing {
        /// n of the ring.
        size: u16,
    },
    /// The data belong to another ring than the one that is being served. Final.
    AnotherRing,
    /// The data are newer than the gateway's clock allows: that clock is behind, or was far ahead once.
    ClockAhead {
        /// By how much.
        seconds: u64,
    },
    /// The gateway takes this registration for lost, for example because the process was silent too long.
    Void,
}

impl Refusal {
    /// Whether to try again is pointless: a setting or a data folder has to be changed.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Revision { .. } | Self::OutsideRing { .. } | Self::AnotherRing)
    }

    /// Why the registration of that process does not stand, for a person.
    pub fn explain(&self, name: &InstanceName) -> String {
        match self {
            Self::Revision { gateway } => format!(
                "{name} speaks another revision than the gateway, which speaks {gateway}: start the same \
                 version of both"
            ),
            Self::NameTaken => format!("another process is registered as {name}, and is alive"),
            Self::OtherStem { stem } => {
                format!("the names of this ring are {stem}0, {stem}1 and so on, and {name} is none of them")
            }
            Self::OutsideRing { size } => {
                format!("the ring has {size} places, and {name} would have place {}", name.place())
            }
            Self::AnotherRing => format!("the data of {name} belong to another ring than the gateway serves"),
            Self::ClockAhead { seconds } => format!(
                "the data of {name} are {seconds} s ahead of the gateway's clock: set that clock right, or \
                 allow it with MAX_CLOCK_OFFSET"
            ),
            Self::Void => format!("the gateway took {name} for lost"),
        }
    }
}

/// Gateway → db-process, after [`Registered`] and before anything else: what is known of the disk of one of
/// its copies, where that is more than it has said. If the copy has it, the db-process answers with
/// [`Compared`]. A copy that has less was rolled back: the db-process answers nothing any more, ends the
/// connection, keeps that in mind and registers again, with a copy that is not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Which copy.
    pub role: Role,
    /// A commit that was on its disk.
    pub flushed: Option<FlushPoint>,
    /// How far the other copy has followed its op-log.
    pub followed: Option<Position>,
}

/// db-process → gateway: a copy has all that was [`Expected`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Which copy.
    pub role: Role,
}

/// Gateway → db-process, after registration and at every change: what the ring looks like from its place. It
/// states all of it each time, so a lost or repeated notice does no harm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingNotice {
    /// The ring that it belongs to; the db-process keeps it, and answers with [`CopiesChanged`] when it is
    /// news.
    pub ring: Ring,
    /// Which copies lead; persisted and answered in the same way when its epoch is higher than that of the
    /// view before.
    pub view: View,
    /// Holder of the replica of its own partition, where that is connected.
    pub successor: Option<Peer>,
    /// Holder of the partition whose replica it keeps, where that is connected.
    pub predecessor: Option<Peer>,
    /// What its primary may do if it is not complete.
    pub primary: Grant,
    /// What its replica may do if it is not complete.
    pub replica: Grant,
}

/// A neighbour that can be followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub instance: InstanceName,
    /// Host of its replication port.
    pub host: String,
    /// Its replication port.
    pub port: u16,
}

/// What a copy that is not complete may do. Complete copies ignore it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grant {
    /// Nothing: no copy of the partition is known to be complete.
    Wait,
    /// Count as complete as it is: the ring is being formed and has no users.
    Empty,
    /// Copy everything from the other copy, and then count as complete. A copy that was rolled back is
    /// discarded first.
    Fill,
    /// Count as complete as it is: the operator accepts what a rolled back copy has lost.
    Accept,
}

/// db-process → gateway: what [`Register`] said has changed; a copy was filled, or the ring or a view is
/// persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiesChanged {
    /// As it is persisted now.
    pub ring: Option<Ring>,
    /// Of the view that is persisted now.
    pub epoch: u64,
    /// State of both copies.
    pub copies: CopyReports,
}

/// db-process → gateway: a copy has applied more of the other's op-log. Sent after each batch; the newest
/// counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The copy that follows.
    pub role: Role,
    /// What it has applied; readable from now on.
    pub position: Position,
}

/// db-process → gateway: which of its copies follow the other copy of their partition now. Sent after the
/// registration and whenever it changes, so that a link between two neighbours that is down does not go
/// unnoticed while nothing is written.
pub type Following = PerRole<bool>;

/// Gateway → db-process: users to look up. Answered by [`ReadAnswers`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBatch {
    /// Returned in the answer.
    pub batch: u64,
    /// To be read from the primary copy.
    pub primary: Vec<UserId>,
    /// To be read from the replica.
    pub replica: Vec<UserId>,
}

/// db-process → gateway: the users found, first all of `primary`, then all of `replica`, each in the order
/// asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReadAnswers {
    /// Of the [`ReadBatch`].
    pub batch: u64,
    /// `None` where there is no live user.
    pub results: Vec<Option<Found>>,
}

/// A live user: its version and its document, which the gateway hands on unparsed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Found(pub Version, pub Box<RawValue>);

impl Found {
    /// The user in that version.
    pub fn new(version: Version, user: &User) -> Self {
        Self(version, to_raw_value(user).expect("texts and numbers can always be written as JSON"))
    }
}

/// Gateway → db-process: operations for one copy, in version order. Answered by [`WriteAnswers`] once they
/// are on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteBatch {
    /// Returned in the answer.
    pub batch: u64,
    /// The copy that leads.
    pub role: Role,
    /// To be decided and applied in this order.
    pub writes: Vec<Write>,
}

/// One operation on one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Its identity and order.
    #[serde(rename = "v")]
    pub version: Version,
    /// The user.
    #[serde(rename = "i")]
    pub id: UserId,
    /// What to do.
    #[serde(rename = "o")]
    pub operation: Operation,
    /// `If-Match`, decided together with the operation.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
    /// The caller does not want to see the user that it leaves: where it is applied, the answer carries none.
    #[serde(rename = "q", default, skip_serializing_if = "is_false")]
    pub omit_user: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// db-process → gateway: the outcomes, in the order of the batch. What was applied has been fsynced.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WriteAnswers {
    /// Of the [`WriteBatch`].
    pub batch: u64,
    /// The copy that decided.
    pub role: Role,
    /// What is on its disk now, at least.
    pub lsn: u64,
    /// One for each write.
    pub results: Vec<WriteAnswer>,
}

/// What came of one [`Write`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WriteAnswer {
    /// What was decided.
    #[serde(rename = "o")]
    pub outcome: Outcome,
    /// Op-log entry of the write where it was applied, otherwise the last entry that the decision rests on.
    #[serde(rename = "s")]
    pub sequence: u64,
    /// The user after the write, with its version; `None` where there is no live user to show, or where a
    /// write was applied that omits it: its version is the one of the user then.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Found>,
}

/// Gateway → db-process: acknowledged writes that the copy may lack, from the unreplicated tail of a leader
/// that is gone. To be merged and fsynced; answered by [`Merged`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeBatch {
    /// Returned in the answer.
    pub batch: u64,
    /// The copy that takes them: it is about to lead.
    pub role: Role,
    /// In version order.
    pub changes: Vec<Versioned>,
    /// What the gateway knows to be on the disk of the leader that is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<FlushPoint>,
}

/// db-process → gateway: a [`MergeBatch`] is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merged {
    /// Of the [`MergeBatch`].
    pub batch: u64,
    /// The copy that took them.
    pub role: Role,
    /// What is on its disk now, at least.
    pub lsn: u64,
}

/// db-process → gateway: it was asked to stop. The gateway makes the other copies leaders first, if it
/// can, and answers with [`Released`]. The db-process serves on until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {}

/// Gateway → db-process: nothing depends on it any more, it may go. Answer to [`Leaving`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {}

/// Gateway → db-process, at a fixed interval; the db-process answers each with [`Alive`] through the same
/// queues as its work, so silence on either side means that no work gets done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Counts up; returned in the answer.
    pub beat: u64,
}

/// db-process → gateway: answer to [`Beat`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alive {
    /// Of the [`Beat`].
    pub beat: u64,
}

impl Message for Hello {
    const EVENT: &'static str = "hello";
    const PLAIN: bool = true;
}

impl Message for Register {
    const EVENT: &'static str = "register";
    const PLAIN: bool = true;
}

messages! {
    /// What the gateway sends.
    ToProcess {
        Claim in Box = "claim" (PLAIN),
        Release = "release",
        Heartbeat = "heartbeat",
        Registered = "registered",
        Refused = "refused" (PLAIN),
        Expected = "expected",
        RingNotice = "ring",
        ReadBatch = "reads",
        WriteBatch in Arc = "writes",
        MergeBatch = "merge",
        Renew = "renew",
        Released = "released",
        Beat = "beat",
        + Query
    }
}

messages! {
    /// What a db-process sends, after [`Hello`] and beside [`Register`].
    ToGateway {
        Granted = "granted",
        TermReport in Box = "term" (PLAIN),
        Kept = "kept",
        Compared = "compared",
        CopiesChanged in Box = "copies",
        Applied = "applied",
        Following = "following",
        ReadAnswers = "read",
        WriteAnswers = "written",
        Merged = "merged",
        Leaving = "leaving",
        Alive = "alive",
        ProcessUsage in Box = "usage",
        + Answer
    }
}

#[cfg(test)]
mod tests {
    use super::super::query::CountQuery;
    use super::super::{REVISION, Unreadable};
    use super::*;
    use crate::Change;

    /// The gateway hands documents on as they come, so a control byte in a name has to survive as an escape.
    #[test]
    fn documents_pass_unparsed_and_control_bytes_stay_escaped() {
        let document = r#"{"id":"00000000-0000-0000-0000-000000000000","name":"a\u001eb"}"#;
        let user = RawValue::from_string(document.to_owned()).expect("valid JSON");
        let sent = ReadAnswers { batch: 7, results: vec![None, Some(Found(Version(9), user))] };
        let text = sent.encode();
        assert!(!text.contains('\u{1e}'));
        let received = ReadAnswers::decode(&text).expect("what was sent");
        assert_eq!(received.results[1].as_ref().map(|found| found.1.get()), Some(document));
        assert!(received.results[0].is_none());
    }

    #[test]
    fn nothing_in_a_frame_needs_an_escape_but_what_is_in_the_texts() {
        for name in ["Ada", "O'Hara", r#"the "great" \ 'small'"#, "é\u{1e}\u{7f}"] {
            let user = User { id: Uuid::nil(), name: name.to_owned(), email: "'@'".to_owned(), group: -1 };
            let sent = ReadAnswers { batch: 7, results: vec![Some(Found::new(Version(9), &user))] };
            let text = sent.encode();
            assert!(text.starts_with("{'batch':7,'results':[["), "{text}");
            let received = ReadAnswers::decode(&text).expect("what was sent");
            let found = received.results[0].as_ref().map(|found| found.1.get());
            assert_eq!(found.map(serde_json::from_str::<User>).transpose().expect("a user"), Some(user));
        }
        assert_eq!(Beat { beat: 7 }.encode(), "{'beat':7}");
        assert_eq!(Beat::decode(r#"{"beat":7}"#).expect("as another revision says it"), Beat { beat: 7 });
        let refused = Refused { reason: Refusal::Revision { gateway: 9 } };
        assert_eq!(refused.encode(), r#"{"reason":{"revision":{"gateway":9}}}"#, "any revision can read it");
        assert_eq!(Leaving::decode(&Leaving {}.encode()).expect("an empty message"), Leaving {});
    }

    /// Processes of the same revision may run different versions of this program.
    #[test]
    fn the_events_of_revision_7_are_these() {
        let down = [ToProcess::EVENTS, Query::EVENTS].concat().join(" ");
        let up = [ToGateway::EVENTS, Answer::EVENTS].concat().join(" ");
        assert_eq!(REVISION, 7);
        assert_eq!(
            down,
            "claim release heartbeat registered refused expected ring reads writes merge renew released beat \
             page_query count_query changes_query tombstone_query digest_query erase_query"
        );
        assert_eq!(
            up,
            "granted term kept compared copies applied following read written merged leaving alive usage \
             page count changes tombstones digest erased"
        );
        let query = CountQuery { query: 3, role: Role::Replica, group: Some(-1) };
        let sent = ToProcess::Query(Query::CountQuery(query)).encode();
        assert_eq!(sent, ("count_query", "{'query':3,'role':'replica','group':-1}".to_owned()));
        let following = ToGateway::Following(Following { primary: true, replica: false }).encode();
        assert_eq!(following, ("following", "{'primary':true,'replica':false}".to_owned()));
        let view = View { epoch: 2, ..View::first(1) };
        let text = serde_json::to_string(&view).expect("a message");
        assert_eq!(text, r#"{"epoch":2,"leads":[{"role":"primary","promoting":false}]}"#);
    }

    #[test]
    fn what_a_side_does_not_send_is_not_read() {
        let beat = Beat { beat: 7 }.encode();
        assert!(matches!(ToProcess::decode("beat", &beat), Ok(ToProcess::Beat(Beat { beat: 7 }))));
        assert_eq!(ToGateway::decode("beat", &beat).err(), Some(Unreadable::Event));
        assert!(matches!(ToProcess::decode("beat", "{}"), Err(Unreadable::Text { line: 1, .. })));
        let (event, text) =
            ToProcess::Query(Query::CountQuery(CountQuery { query: 3, role: Role::Primary, group: None }))
                .encode();
        let read = ToProcess::decode(event, &text);
        assert!(matches!(read, Ok(ToProcess::Query(Query::CountQuery(CountQuery { query: 3, .. })))));
    }

    #[test]
    fn a_write_is_compact_on_the_wire() {
        let write = Write {
            version: Version(3),
            id: Uuid::nil(),
            operation: Operation::Update(Change { group: Some(4), ..Change::default() }),
            condition: Some(Condition::Versions(vec![Version(2)])),
            omit_user: false,
        };
        let text = serde_json::to_string(&write).expect("a message");
        let expected =
            r#"{"v":3,"i":"00000000-0000-0000-0000-000000000000","o":{"u":{"g":4}},"m":{"v":[2]}}"#;
        assert_eq!(text, expected);
        let text = serde_json::to_string(&Write { omit_user: true, ..write }).expect("a message");
        assert_eq!(text, format!(r#"{},"q":true}}"#, &expected[..expected.len() - 1]));
    }
}
