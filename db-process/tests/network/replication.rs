//! Two copies of a partition become equal, and stay so.

use std::fs;

use db_process::link::Connection;
use process::handshake::{Credentials, Link};
use protocol::UserId;
use protocol::message::link::{Applied, CopiesChanged, CopyReport, Grant, Register, Role};
use protocol::message::replication::{Confirmed, CopyChunk, Decline, Declined, Follow, LogBatch};
use protocol::message::{MAX_FRAME_BYTES, Message, REVISION};
use tempfile::{TempDir, tempdir};
use url::Url;
use uuid::Uuid;

use crate::gateway::{Gateway, SECRET, Session, create, id, notice, ring};
use crate::process::{Process, config};
use crate::soon;

/// A ring of two: partition 0 is db-0's primary and db-1's replica, partition 1 the other way round.
struct Pair {
    folder: TempDir,
    gateway: Gateway,
    members: [Member; 2],
}

struct Member {
    process: Process,
    session: Session,
    register: Register,
}

impl Pair {
    async fn form() -> Self {
        let (folder, mut gateway) = (tempdir().unwrap(), Gateway::start().await);
        let first = Member::start("db-0", &folder, &mut gateway).await;
        let second = Member::start("db-1", &folder, &mut gateway).await;
        let mut pair = Self { folder, gateway, members: [first, second] };
        pair.tell(false, Grant::Empty);
        for member in &mut pair.members {
            member.session.both_complete().await;
        }
        pair
    }

    /// Tells both about each other.
    fn tell(&mut self, formed: bool, grant: Grant) {
        let [first, second] = &self.members;
        for (member, other) in [(first, second), (second, first)] {
            let other = Some(&other.register);
            member.session.send(&notice(ring(2, formed), grant, other, other));
        }
    }

    async fn restart(&mut self, place: usize, empty: bool) {
        let name = self.members[place].register.instance.to_string();
        self.stop_and_start(place, &name, empty).await;
        self.tell(true, Grant::Fill);
    }

    async fn stop_and_start(&mut self, place: usize, name: &str, empty: bool) {
        self.members[place].stopped().await;
        if empty {
            fs::remove_dir_all(self.folder.path().join(name)).unwrap();
        }
        self.members[place] = Member::start(name, &self.folder, &mut self.gateway).await;
    }

    /// Creates users in a partition, at the copy of that role on that process.
    async fn create(
        &mut self,
        place: usize,
        role: Role,
        numbers: std::ops::Range<u64>,
        name: &str,
    ) -> Vec<UserId> {
        let ids = numbers.clone().map(id).collect();
        let writes: Vec<_> = numbers.map(|number| create(number, name)).collect();
        for writes in writes.chunks(256) {
            self.members[place].session.write(role, writes.to_vec()).await;
        }
        ids
    }

    /// Waits until both copies of the partition of db-`place` hold all these users, and the same state of
    /// them.
    async fn equal(&mut self, place: usize, ids: &[UserId]) {
        let other = 1 - place;
        soon(async {
            loop {
                let primary = self.members[place].session.users(Role::Primary, ids).await;
                let replica = self.members[other].session.users(Role::Replica, ids).await;
                if primary == replica && primary.iter().all(Option::is_some) {
                    return;
                }
            }
        })
        .await;
    }

    async fn stop(self) {
        for member in self.members {
            member.process.stop().await;
        }
    }
}

impl Member {
    async fn start(name: &str, folder: &TempDir, gateway: &mut Gateway) -> Self {
        let process = Process::start(config(name, folder.path(), gateway.address));
        let mut session = gateway.session().await;
        let register = session.register(2).await;
        Self { process, session, register }
    }

    /// Stops the process; the member is of no use afterwards.
    async fn stopped(&mut self) {
        let process = std::mem::replace(&mut self.process, Process::none());
        process.stop().await;
    }
}

/// Waits until a copy has applied the whole op-log of the other one.
async fn applied(session: &mut Session, role: Role, source: Uuid, sequence: u64) {
    soon(async {
        loop {
            let Applied { role: which, position } = session.receive().await;
            if which == role && position.incarnation == source && position.sequence == sequence {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_one_copy_accepts_the_other_gets_both_ways() {
    let mut pair = Pair::form().await;
    let source = pair.members[0].register.copies.primary.incarnation;
    let mut ids = pair.create(0, Role::Primary, 0..600, "from the primary").await;
    applied(&mut pair.members[1].session, Role::Replica, source, 600).await;
    ids.extend(pair.create(1, Role::Replica, 600..700, "from the replica").await);
    pair.equal(0, &ids).await;
    let others = pair.create(1, Role::Primary, 1000..1100, "of the other partition").await;
    pair.equal(1, &others).await;
    pair.stop().await;
}

#[tokio::test]
async fn a_neighbour_that_the_gateway_does_not_see_is_still_followed() {
    let mut pair = Pair::form().await;
    let mut ids = pair.create(0, Role::Primary, 0..10, "seen").await;
    pair.equal(0, &ids).await;
    let alone = notice(ring(2, true), Grant::Wait, None, None);
    pair.members[1].session.send(&alone);
    pair.members[1].session.receive::<CopiesChanged>().await;
    ids.extend(pair.create(0, Role::Primary, 10..20, "unseen").await);
    pair.equal(0, &ids).await;
    pair.stop().await;
}

#[tokio::test]
async fn it_catches_up_from_where_it_was() {
    let mut pair = Pair::form().await;
    let mut ids = pair.create(0, Role::Primary, 0..10, "before").await;
    pair.equal(0, &ids).await;
    let before = position(&pair.members[1].register.copies.replica, 0);
    assert_eq!(before, 0, "at its registration");
    pair.members[1].stopped().await;
    ids.extend(pair.create(0, Role::Primary, 10..500, "meanwhile").await);
    pair.members[1] = Member::start("db-1", &pair.folder, &mut pair.gateway).await;
    assert_eq!(position(&pair.members[1].register.copies.replica, 0), 10, "as it was when it stopped");
    pair.tell(true, Grant::Wait);
    pair.equal(0, &ids).await;
    pair.stop().await;
}

/// Its op-log is read by another thread for one that is so far behind, and what is sent by another one there.
#[tokio::test]
async fn it_catches_up_from_far_behind_and_keeps_up_again() {
    let mut pair = Pair::form().await;
    let mut ids = pair.create(0, Role::Primary, 0..10, "before").await;
    pair.equal(0, &ids).await;
    pair.members[1].stopped().await;
    ids.extend(pair.create(0, Role::Primary, 10..9_000, "meanwhile").await);
    pair.members[1] = Member::start("db-1", &pair.folder, &mut pair.gateway).await;
    pair.tell(true, Grant::Wait);
    let source = pair.members[0].register.copies.primary.incarnation;
    applied(&mut pair.members[1].session, Role::Replica, source, 9_000).await;
    for more in 0..3 {
        ids.extend(pair.create(0, Role::Primary, 9_000 + more..9_001 + more, "afterwards").await);
        applied(&mut pair.members[1].session, Role::Replica, source, 9_001 + more).await;
    }
    pair.equal(0, &ids[..100]).await;
    pair.equal(0, &ids[8_950..]).await;
    pair.stop().await;
}

fn position(report: &CopyReport, none: u64) -> u64 {
    report.position.map_or(none, |position| position.sequence)
}

#[tokio::test]
async fn an_emptied_process_is_filled_and_followed_again() {
    let mut pair = Pair::form().await;
    // More than fits into one frame.
    let name = "n".repeat(256);
    let count = 2 * MAX_FRAME_BYTES as u64 / 256;
    let first = pair.create(0, Role::Primary, 0..count, &name).await;
    let second = pair.create(1, Role::Primary, 100_000..100_600, &name).await;
    pair.equal(0, &first).await;
    pair.equal(1, &second).await;

    pair.restart(1, true).await;
    let register = pair.members[1].register.clone();
    assert_eq!(register.ring, None);
    assert!(!register.copies.primary.complete && !register.copies.replica.complete);
    let changed: CopiesChanged = pair.members[1].session.both_complete().await;
    assert_eq!(changed.ring.map(|ring| ring.formed), Some(true));
    pair.equal(0, &first).await;
    pair.equal(1, &second).await;

    // The copies that were there all the time follow the new ones, without being copied in full themselves.
    let more = pair.create(1, Role::Primary, 200_000..200_100, "after").await;
    pair.equal(1, &more).await;
    let more = pair.create(0, Role::Primary, 300_000..300_100, "after").await;
    pair.equal(0, &more).await;
    pair.stop().await;
}

#[tokio::test]
async fn a_copy_that_may_not_fill_waits() {
    let mut pair = Pair::form().await;
    let ids = pair.create(0, Role::Primary, 0..10, "kept").await;
    pair.equal(0, &ids).await;
    pair.stop_and_start(1, "db-1", true).await;
    pair.tell(true, Grant::Wait);
    let changed: CopiesChanged = pair.members[1].session.receive().await;
    assert!(changed.ring.is_some() && !changed.copies.replica.complete);
    // Its neighbour, which is complete, asks it in vain.
    let mut stranger = Stranger::connect(&pair.members[1].register).await;
    stranger.follow(|follow| follow.role = Role::Replica).await;
    assert_eq!(stranger.declined().await, Decline::Incomplete);
    pair.tell(true, Grant::Fill);
    pair.members[1].session.both_complete().await;
    pair.equal(0, &ids).await;
    pair.stop().await;
}

/// Of a process that wants to follow db-1.
fn follower(name: &str) -> Credentials {
    Credentials {
        secret: SECRET.parse().unwrap(),
        link: Link::Follower,
        client: name.to_owned(),
        server: "db-1".to_owned(),
        tls: None,
    }
}

/// A client of a replication port.
struct Stranger(Connection);

impl Stranger {
    async fn connect(of: &Register) -> Self {
        Self::connect_as("db-0", of).await
    }

    async fn connect_as(name: &str, of: &Register) -> Self {
        let url = Url::parse(&format!("ws://127.0.0.1:{}", of.replication.port)).unwrap();
        Self(soon(Connection::open(&url, &follower(name))).await.unwrap())
    }

    /// As db-0 would ask for db-1's primary, apart from what is changed.
    async fn follow(&self, change: impl FnOnce(&mut Follow)) {
        let mut follow = Follow {
            revision: REVISION,
            ring: ring(2, true).id,
            instance: "db-0".parse().unwrap(),
            role: Role::Primary,
            incarnation: Uuid::from_u128(5),
            position: None,
            flushed: 0,
            other: None,
        };
        change(&mut follow);
        self.0.send(&follow).await.unwrap();
    }

    async fn receive<M: Message>(&mut self) -> M {
        soon(async {
            loop {
                let frame = self.0.next().await.unwrap();
                if frame.event == M::EVENT {
                    return M::decode(&frame.text).unwrap();
                }
            }
        })
        .await
    }

    async fn declined(&mut self) -> Decline {
        self.receive::<Declined>().await.reason
    }
}

#[tokio::test]
async fn strangers_are_declined() {
    let pair = Pair::form().await;
    let of = &pair.members[1].register;
    type Spoil = fn(&mut Follow);
    let cases: [(&str, Decline, Spoil); 3] = [
        ("db-0", Decline::AnotherRing, |follow| follow.ring = Uuid::from_u128(1)),
        ("db-5", Decline::NotANeighbour, |follow| follow.instance = "db-5".parse().unwrap()),
        ("db-0", Decline::Revision, |follow| follow.revision += 1),
    ];
    for (name, expected, change) in cases {
        let mut stranger = Stranger::connect_as(name, of).await;
        stranger.follow(change).await;
        assert_eq!(stranger.declined().await, expected);
    }
    pair.stop().await;
}

#[tokio::test]
async fn garbage_on_the_replication_port_changes_nothing() {
    let mut pair = Pair::form().await;
    let mut ids = pair.create(1, Role::Primary, 0..10, "before").await;
    pair.equal(1, &ids).await;
    let mut stranger = Stranger::connect(&pair.members[1].register).await;
    stranger.0.send(&LogBatch { incarnation: Uuid::nil(), lsn: 0, entries: Vec::new() }).await.unwrap();
    stranger.follow(|_| ()).await;
    // Everything, as it has no position; and then it claims to have what it was not sent.
    let chunk: CopyChunk = stranger.receive().await;
    assert_eq!((chunk.records.len(), chunk.end.map(|end| end.sequence)), (10, Some(10)));
    stranger.0.send(&Confirmed { applied: u64::MAX, durable: u64::MAX, lsn: 0 }).await.unwrap();
    drop(stranger);
    ids.extend(pair.create(1, Role::Primary, 10..20, "after").await);
    pair.equal(1, &ids).await;
    pair.stop().await;
}

#[tokio::test]
async fn a_follower_with_another_secret_does_not_trust_the_neighbour() {
    let (folder, mut gateway) = (tempdir().unwrap(), Gateway::start().await);
    let process = Process::start(config("db-1", folder.path(), gateway.address));
    let register = gateway.session().await.register(2).await;
    let url = Url::parse(&format!("ws://127.0.0.1:{}", register.replication.port)).unwrap();
    let wrong = Credentials { secret: "barley".parse().unwrap(), ..follower("db-0") };
    let error = soon(Connection::open(&url, &wrong)).await.unwrap_err().to_string();
    assert!(error.contains("CLUSTER_SECRET"), "{error}");
    soon(Connection::open(&url, &follower("db-0"))).await.unwrap();
    process.stop().await;
}

#[tokio::test]
async fn a_follower_has_the_name_that_it_has_proven() {
    let pair = Pair::form().await;
    let mut stranger = Stranger::connect_as("db-5", &pair.members[1].register).await;
    stranger.follow(|_| ()).await;
    // It is let go without a word.
    let silent = stranger.0.next();
    pair.stop().await;
    assert!(soon(silent).await.is_err());
}
