//! The link to the gateway.

use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::message::link::{
    Alive, CopiesChanged, Grant, MergeBatch, Merged, Refusal, Refused, Register, Released, RingNotice, Role,
    Versioned, Write,
};
use protocol::message::query::{
    ChangesAnswer, ChangesQuery, CountAnswer, CountQuery, DigestAnswer, DigestQuery, Filter, PageAnswer,
    PageQuery,
};
use protocol::message::{MAX_BATCH, REVISION};
use protocol::{Change, Outcome, Version};
use tempfile::tempdir;
use uuid::Uuid;

use crate::gateway::{Gateway, Session, create, id, notice, ring};
use crate::process::{Process, config, status};
use crate::soon;

/// The first process of a ring of three whose others are away; it has joined, and its copies count as
/// complete.
async fn join(session: &mut Session) -> Register {
    let register = session.register(3).await;
    session.send(&notice(ring(3, false), Grant::Empty, None, None));
    session.both_complete().await;
    register
}

#[tokio::test]
async fn a_new_process_joins_serves_and_remembers() {
    let (folder, mut gateway) = (tempdir().unwrap(), Gateway::start().await);
    let process = Process::start(config("db-1", folder.path(), gateway.address));
    let mut session = gateway.session().await;
    let register = join(&mut session).await;
    assert_eq!((register.revision, register.instance.as_str(), register.ring), (REVISION, "db-1", None));
    assert!(register.replication.host.is_none() && register.replication.port > 0);
    assert!(!register.copies.primary.complete && !register.copies.replica.complete);

    let again = Write { version: Version(5), ..create(1, "Eve") };
    let answers = session.write(Role::Primary, vec![create(1, "Ada"), again]).await;
    assert_eq!(
        answers.iter().map(|answer| answer.outcome).collect::<Vec<_>>(),
        [Outcome::Applied, Outcome::Exists]
    );
    session.write(Role::Replica, vec![create(2, "a\u{1e}b")]).await;
    let found = session.read(&[id(1), id(2)], &[id(2), id(1)]).await;
    let found: Vec<_> = found.iter().map(Option::is_some).collect();
    assert_eq!(found, [true, false, true, false], "each copy answers for itself, in the order asked");

    session.send(&notice(ring(3, true), Grant::Wait, None, None));
    let changed: CopiesChanged = session.receive().await;
    assert_eq!(changed.ring, Some(ring(3, true)));
    process.stop().await;
    session.left().await;

    let process = Process::start(config("db-1", folder.path(), gateway.address));
    let mut session = gateway.session().await;
    let again = session.register(3).await;
    assert_eq!((again.incarnation, again.ring), (register.incarnation, Some(ring(3, true))));
    assert_eq!(again.copies.primary.incarnation, register.copies.primary.incarnation);
    assert!(again.copies.primary.complete && again.copies.replica.complete);
    assert_eq!((again.copies.primary.head, again.copies.primary.version), (1, Version(2)));
    let users = session.users(Role::Replica, &[id(2)]).await;
    assert!(users[0].as_ref().unwrap().1.contains(r"a\u001eb"), "{users:?}");
    process.stop().await;
}

#[tokio::test]
async fn questions_about_a_copy_are_answered() {
    let (folder, mut gateway) = (tempdir().unwrap(), Gateway::start().await);
    let process = Process::start(config("db-1", folder.path(), gateway.address));
    let mut session = gateway.session().await;
    join(&mut session).await;
    let role = Role::Replica;
    session.write(role, (1..=5).map(|n| create(n, "Ada")).collect()).await;

    let filter = Filter::Email("3@example.org".to_owned());
    session.send(&PageQuery { query: 1, role, after: None, limit: 2, filter: Filter::All });
    let page: PageAnswer = session.receive().await;
    assert_eq!((page.query, page.users.len(), page.more), (1, 2, true));
    session.send(&CountQuery { query: 2, role, group: Some(0) });
    assert_eq!(session.receive::<CountAnswer>().await, CountAnswer { query: 2, count: 5 });
    session.send(&CountQuery { query: 3, role: Role::Primary, group: None });
    assert_eq!(session.receive::<CountAnswer>().await, CountAnswer { query: 3, count: 0 }, "another copy");
    let after = page.users.last().map(|listed| listed.0);
    session.send(&PageQuery { query: 4, role, after, limit: 9, filter: Filter::All });
    assert_eq!(session.receive::<PageAnswer>().await.users.len(), 3);
    session.send(&PageQuery { query: 5, role, after: None, limit: 9, filter });
    let page: PageAnswer = session.receive().await;
    let found = session.users(role, &[id(3)]).await.remove(0).unwrap();
    assert_eq!(page.users.len(), 1);
    let listed = &page.users[0];
    assert_eq!(
        (listed.0, listed.1, listed.2.get()),
        (id(3), found.0, found.1.as_str()),
        "as a read shows it"
    );

    session.send(&ChangesQuery { query: 6, role, after: Version(2), upto: Version(4) });
    let changes: ChangesAnswer = session.receive().await;
    let versions: Vec<u64> = changes.changes.iter().map(|change| change.version.0).collect();
    assert_eq!((changes.query, versions, changes.more), (6, vec![3, 4], false));

    session.send(&DigestQuery { query: 7, role, scan: true });
    let scanned: DigestAnswer = session.receive().await;
    assert_eq!((scanned.query, scanned.users, scanned.records, scanned.head), (7, 5, 5, 5));
    assert!(scanned.damage.is_empty() && scanned.digests.iter().filter(|digest| **digest != 0).count() > 2);
    session.send(&DigestQuery { query: 8, role, scan: false });
    let kept: DigestAnswer = session.receive().await;
    assert_eq!(kept, DigestAnswer { query: 8, ..scanned });
    process.stop().await;
}

#[tokio::test]
async fn a_lost_leads_tail_is_merged() {
    let (folder, mut gateway) = (tempdir().unwrap(), Gateway::start().await);
    let process = Process::start(config("db-1", folder.path(), gateway.address));
    let mut session = gateway.session().await;
    join(&mut session).await;
    session.write(Role::Replica, vec![create(1, "Ada")]).await;
    let change = Change { name: Some("Grace".to_owned()), ..Change::default() };
    let changes = vec![Versioned { version: Version(9), id: id(1), change }];
    session.send(&MergeBatch { batch: 5, role: Role::Replica, changes, other: None });
    let merged = session.receive::<Merged>().await;
    assert_eq!((merged.batch, merged.role), (5, Role::Replica));
    let users = session.users(Role::Replica, &[id(1)]).await;
    let (version, user) = users[0].as_ref().unwrap();
    assert!(*version == Version(9) && user.contains("Grace"), "{user}");
    process.stop().await;
}

#[tokio::test]
async fn full_batches_are_answered_in_order() {
    let (folder, mut gateway) = (tempdir().unwrap(), Gateway::start().await);
    let process = Process::start(config("db-1", folder.path(), gateway.address));
    let mut session = gateway.session().await;
    join(&mut session).await;
    let name = "\"\u{1e}\\".repeat(85);
    let numbers = 0..MAX_BATCH as u64;
    let writes: Vec<_> = numbers.clone().map(|number| create(number, &name)).collect();
    let answers = session.write(Role::Primary, writes).await;
    assert!(answers.iter().all(|answer| answer.outcome == Outcome::Applied));
    assert!(answers.iter().map(|answer| answer.sequence).eq(1..=MAX_BATCH as u64));
    let ids: Vec<_> = numbers.clone().map(id).collect();
    let versions: Vec<_> =
        session.users(Role::Primary, &ids).await.into_iter().map(|user| user.unwrap().0).collect();
    assert!(versions.into_iter().eq(numbers.map(|number| Version(number + 1))));
    process.stop().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_ignored() {
    let (folder, mut gateway) = (tempdir().unwrap(), Gateway::start().await);
    let process = Process::start(config("db-1", folder.path(), gateway.address));
    let mut session = gateway.session().await;
    join(&mut session).await;
    for event in ["nonsense", "reads", "writes", "merge", "ring", "beat", "refused"] {
        session.emit(event, "{");
        session.emit(event, "");
        session.emit(event, &7);
        session.emit(event, &("two", "arguments"));
        session.emit(event, &"x".repeat(1 << 20));
    }
    session.write(Role::Primary, vec![create(1, "Ada")]).await;
    assert!(session.read(&[id(1)], &[]).await[0].is_some());
    assert!(!session.left.is_cancelled());
    process.stop().await;
}

#[tokio::test]
async fn a_notice_of_another_ring_is_not_followed() {
    let (folder, mut gateway) = (tempdir().unwrap(), Gateway::start().await);
    let process = Process::start(config("db-1", folder.path(), gateway.address));
    let mut session = gateway.session().await;
    join(&mut session).await;
    session.send(&notice(ring(3, true), Grant::Wait, None, None));
    session.receive::<CopiesChanged>().await;
    let mut other: RingNotice = notice(ring(3, true), Grant::Wait, None, None);
    other.ring.id = Uuid::from_u128(78);
    session.send(&other);
    session.left().await;
    assert_eq!(gateway.session().await.register(3).await.ring, Some(ring(3, true)));
    process.stop().await;
}

#[tokio::test]
async fn it_comes_back_to_a_gateway_that_comes_back() {
    let (folder, mut gateway) = (tempdir().unwrap(), Gateway::start().await);
    let process = Process::start(config("db-1", folder.path(), gateway.address));
    let mut session = gateway.session().await;
    let first = join(&mut session).await;
    session.write(Role::Primary, vec![create(1, "Ada")]).await;
    let address = gateway.address;
    gateway.stop().await;
    let mut gateway = Gateway::start_at(address).await;
    let mut session = gateway.session().await;
    let again = session.register(3).await;
    assert_eq!((again.incarnation, again.copies.primary.head), (first.incarnation, 1));
    assert!(session.read(&[id(1)], &[]).await[0].is_some());
    process.stop().await;
}

#[tokio::test]
async fn a_silent_gateway_is_left_and_tried_again() {
    let (folder, mut gateway) = (tempdir().unwrap(), Gateway::start().await);
    let process = Process::start(config("db-1", folder.path(), gateway.address));
    let mut session = gateway.session().await;
    join(&mut session).await;
    let Alive { beat } = session.alive().await;
    assert!(session.alive().await.beat > beat);
    session.beats.abort();
    session.left().await;
    gateway.session().await.register(3).await;
    process.stop().await;
}

#[tokio::test]
async fn a_void_registration_is_made_anew() {
    let (folder, mut gateway) = (tempdir().unwrap(), Gateway::start().await);
    let process = Process::start(config("db-1", folder.path(), gateway.address));
    let mut session = gateway.session().await;
    join(&mut session).await;
    session.send(&Refused { reason: Refusal::Void });
    session.left().await;
    gateway.session().await.register(3).await;
    process.stop().await;
}

#[tokio::test]
async fn a_process_that_leaves_serves_until_it_is_let_go() {
    let (folder, mut gateway) = (tempdir().unwrap(), Gateway::start().await);
    let process = Process::start(config("db-1", folder.path(), gateway.address));
    let mut session = gateway.session().await;
    join(&mut session).await;
    session.lets_go.store(false, Ordering::Relaxed);
    process.ask_to_stop();
    session.receive::<Alive>().await;
    let answers = session.write(Role::Primary, vec![create(1, "Ada")]).await;
    assert_eq!(answers[0].outcome, Outcome::Applied);
    session.send(&Released {});
    process.stop().await;
}

#[tokio::test]
async fn a_taken_name_is_tried_again() {
    let (folder, mut gateway) = (tempdir().unwrap(), Gateway::start().await);
    let process = Process::start(config("db-1", folder.path(), gateway.address));
    for _ in 0..3 {
        let mut session = gateway.session().await;
        session.receive::<Register>().await;
        session.send(&Refused { reason: Refusal::NameTaken });
        session.left().await;
    }
    gateway.session().await.register(3).await;
    process.stop().await;
}

#[tokio::test]
async fn a_final_refusal_ends_the_process_and_names_both() {
    let reasons = [
        (Refusal::OutsideRing { size: 3 }, ["3 places", "place 7"]),
        (Refusal::Revision { gateway: 99 }, ["speaks 99", "another revision"]),
        (Refusal::AnotherRing, ["db-7", "another ring"]),
    ];
    for (reason, parts) in reasons {
        let (folder, mut gateway) = (tempdir().unwrap(), Gateway::start().await);
        let process = Process::start(config("db-7", folder.path(), gateway.address));
        let mut session = gateway.session().await;
        session.receive::<Register>().await;
        session.send(&Refused { reason });
        let why = process.fails().await;
        assert!(why.contains("db-7") && why.contains(&gateway.address.to_string()), "{why}");
        assert!(parts.iter().all(|part| why.contains(part)), "{why}");
        session.left().await;
    }
}

#[tokio::test]
async fn a_process_with_another_secret_tries_again_and_does_not_enter() {
    let (folder, mut gateway) = (tempdir().unwrap(), Gateway::start().await);
    let mut wrong = config("db-1", folder.path(), gateway.address);
    wrong.common.cluster_secret = Some("barley".parse().unwrap());
    let process = Process::start(wrong);
    soon(async {
        while gateway.challenged() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(gateway.no_process_entered());
    process.stop().await;
    let process = Process::start(config("db-1", folder.path(), gateway.address));
    gateway.session().await.register(3).await;
    process.stop().await;
}

#[tokio::test]
async fn a_process_without_a_secret_does_not_start() {
    let folder = tempdir().unwrap();
    let mut settings = config("db-1", folder.path(), "127.0.0.1:1".parse().unwrap());
    settings.common.cluster_secret = None;
    let why = Process::start(settings).fails().await;
    assert!(why.contains("CLUSTER_SECRET") && why.contains("openssl rand -hex 32"), "{why}");
    assert!(!folder.path().join("db-1").exists());
}

#[tokio::test]
async fn health_follows_the_ring() {
    let (folder, mut gateway) = (tempdir().unwrap(), Gateway::start().await);
    let process = Process::start(config("db-1", folder.path(), gateway.address));
    let mut session = gateway.session().await;
    let port = session.register(3).await.replication.port;
    assert_eq!((status(port, "/health/live").await, status(port, "/health/ready").await), (200, 503));
    session.send(&notice(ring(3, false), Grant::Empty, None, None));
    session.both_complete().await;
    assert_eq!((status(port, "/health/live").await, status(port, "/health/ready").await), (200, 200));
    assert_eq!(status(port, "/health/else").await, 404);
    let why = tokio::task::spawn_blocking(move || process::probe(port, "/health/ready")).await.unwrap();
    assert_eq!(why, Ok(()));
    session.send(&Refused { reason: Refusal::Void });
    session.left().await;
    assert_eq!(status(port, "/health/ready").await, 503);
    process.stop().await;
}

#[tokio::test]
async fn a_second_process_on_the_same_folder_is_refused_and_both_are_named() {
    let (folder, mut gateway) = (tempdir().unwrap(), Gateway::start().await);
    let first = Process::start(config("db-1", folder.path(), gateway.address));
    gateway.session().await.register(3).await;
    let mut second = config("db-2", folder.path(), gateway.address);
    second.data_dir = Some(folder.path().join("db-1"));
    let why = Process::start(second).fails().await;
    assert!(why.contains("db-2 cannot use") && why.contains("db-1 (process "), "{why}");
    first.stop().await;
    let mut anothers = config("db-2", folder.path(), gateway.address);
    anothers.data_dir = Some(folder.path().join("db-1"));
    let why = Process::start(anothers).fails().await;
    assert!(why.contains("db-2 cannot use") && why.contains("data of db-1"), "{why}");
}
