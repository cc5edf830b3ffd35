//! A db-process comes back with less than was on its disk: the end of RocksDB's log is damaged or cut off, or
//! its data are those of an older copy. No acknowledged write may be lost by that, and none may be decided
//! against what is left.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hyper::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::json;
use uuid::Uuid;

use super::copies::until_equal;
use super::lists::{count, create};
use super::load::Load;
use super::processes::Ring;

const USERS: usize = 1_000;

/// What a copy says that finds itself rolled back.
const SAYS: &str = "was rolled back";

/// What happens to the log of a database.
#[derive(Debug, Clone, Copy)]
enum Damage {
    /// One bit of it is another.
    Flip,
    /// Its last 64 KiB are gone, or half of it where it is shorter.
    Cut,
}

/// Damages the largest file of RocksDB's log.
fn damage(database: &Path, damage: Damage) {
    let files = fs::read_dir(database).unwrap().map(|entry| entry.unwrap().path());
    let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let log = logs.max_by_key(|path| path.metadata().unwrap().len()).expect("a database has a log");
    let file = File::options().read(true).write(true).open(log).unwrap();
    let length = file.metadata().unwrap().len();
    match damage {
        Damage::Flip => {
            let mut byte = [0];
            file.read_exact_at(&mut byte, length / 3).unwrap();
            file.write_all_at(&[byte[0] ^ 1], length / 3).unwrap();
        }
        Damage::Cut => file.set_len(length - (64 << 10).min(length / 2)).unwrap(),
    }
}

/// A copy of the data of a process as they are at one moment: it stands still meanwhile.
fn older_copy(ring: &Ring, place: u16) -> PathBuf {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let target = to.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => copy(&entry.path(), &target),
                false => drop(fs::copy(entry.path(), target).unwrap()),
            }
        }
    }
    let older = ring.data_dir(place).with_extension("older");
    ring.signal(place, Signal::STOP);
    copy(&ring.data_dir(place), &older);
    ring.signal(place, Signal::CONT);
    older
}

/// Puts it in the place of the data of a process that has ended.
fn restore(ring: &Ring, place: u16, older: &Path) {
    fs::remove_dir_all(ring.data_dir(place)).unwrap();
    fs::rename(older, ring.data_dir(place)).unwrap();
}

/// Waits until both copies of every partition have everything.
async fn until_replicated(ring: &Ring) {
    ring.until_ready().await;
    ring.until("everything is replicated", |cluster| {
        cluster["partitions"].as_array().unwrap().iter().all(|partition| partition["unreplicated"] == 0)
    })
    .await;
}

/// Waits until the ring is whole, and looks at every user and at both copies of each. Of other users so many
/// exist, and so many have a record.
async fn assert_all_there(ring: &Ring, users: &BTreeSet<Uuid>, [live, records]: [usize; 2]) {
    ring.until_ready().await;
    let mut client = ring.client().await;
    assert_eq!(count(&mut client, "").await, (users.len() + live) as u64, "{}", ring.logs());
    for id in users {
        assert_eq!(client.get(*id).await.status, StatusCode::OK, "{id}\n{}", ring.logs());
        let again = json!({"id": id, "name": "Eva", "email": "eva@example.org"});
        assert_eq!(client.post(&again).await.status, StatusCode::CONFLICT, "{id}");
    }
    assert_eq!(until_equal(ring).0, users.len() + records);
}

#[tokio::test]
async fn a_copy_whose_log_is_damaged_does_not_lead_with_less_than_it_had() {
    for role in ["primary", "replica"] {
        for kind in [Damage::Cut, Damage::Flip] {
            let mut ring = Ring::start(3).await;
            let users = create(ring.rest_port, USERS).await;
            ring.until_ready().await;
            let load = Load::start(ring.rest_port, 8, 200).await;
            load.until_more(300, 300).await;
            ring.kill(1);
            damage(&ring.data_dir(1).join(role), kind);
            load.until_more(300, 300).await;
            ring.start_process(1);
            ring.until_says(1, SAYS).await;
            ring.until_ready().await;
            load.until_more(300, 300).await;
            let seen = load.finish().await;
            seen.assert_nothing_failed(&ring);
            assert_all_there(&ring, &users, [seen.live, seen.users]).await;
        }
    }
}

#[tokio::test]
async fn data_restored_from_an_older_copy_do_not_serve() {
    let mut ring = Ring::start(3).await;
    let mut users = create(ring.rest_port, USERS / 2).await;
    ring.until_ready().await;
    let older = older_copy(&ring, 1);
    ring.until_ready().await;
    users.append(&mut create(ring.rest_port, USERS / 2).await);
    let load = Load::start(ring.rest_port, 8, 200).await;
    load.until_more(300, 300).await;
    ring.kill(1);
    restore(&ring, 1, &older);
    load.until_more(300, 300).await;
    ring.start_process(1);
    ring.until_says(1, SAYS).await;
    ring.until_ready().await;
    load.until_more(300, 300).await;
    let seen = load.finish().await;
    seen.assert_nothing_failed(&ring);
    assert_all_there(&ring, &users, [seen.live, seen.users]).await;
}

/// Nothing but the gateway has what was acknowledged meanwhile: the partition waits for the neighbour, which
/// gets it.
#[tokio::test]
async fn a_copy_that_led_alone_and_was_rolled_back_waits_for_its_neighbour() {
    for kind in [Damage::Cut, Damage::Flip] {
        let mut ring = Ring::start(3).await;
        ring.stop(2);
        let users = create(ring.rest_port, USERS).await;
        ring.kill(1);
        damage(&ring.data_dir(1).join("primary"), kind);
        ring.start_process(1);
        ring.until_says(1, SAYS).await;
        ring.until("partition 1 is down and says why", |cluster| {
            let partition = &cluster["partitions"][1];
            let why = partition["waiting_for"].as_str().unwrap_or_default();
            let copy = &partition["copies"][0];
            let numbers = [&copy["rolled_back"]["found"], &copy["rolled_back"]["known"]];
            partition["reads"] == false
                && why.contains("db-1 has lost part of its disk")
                && why.contains("db-2 has to come back")
                && numbers[0].as_u64() < numbers[1].as_u64()
        })
        .await;
        ring.start_process(2);
        assert_all_there(&ring, &users, [0; 2]).await;
    }
}

/// The gateway is lost as well: whether the other copy has all cannot be known. The operator's word is asked
/// for.
#[tokio::test]
async fn with_the_gateway_lost_as_well_the_operator_decides() {
    for kind in [Damage::Cut, Damage::Flip] {
        let mut ring = Ring::start(3).await;
        let users = create(ring.rest_port, USERS).await;
        until_replicated(&ring).await;
        ring.kill_gateway();
        ring.kill(1);
        damage(&ring.data_dir(1).join("primary"), kind);
        ring.start_gateway();
        ring.start_process(1);
        decided_by_the_operator(&ring, &users).await;
    }
}

#[tokio::test]
async fn an_older_copy_and_a_restarted_gateway_ask_the_operator() {
    let mut ring = Ring::start(3).await;
    let mut users = create(ring.rest_port, USERS / 2).await;
    ring.until_ready().await;
    let older = older_copy(&ring, 1);
    ring.until_ready().await;
    users.append(&mut create(ring.rest_port, USERS / 2).await);
    until_replicated(&ring).await;
    ring.kill_gateway();
    ring.kill(1);
    restore(&ring, 1, &older);
    ring.start_gateway();
    ring.start_process(1);
    decided_by_the_operator(&ring, &users).await;
}

#[tokio::test]
async fn all_processes_killed_and_one_log_damaged() {
    for kind in [Damage::Cut, Damage::Flip] {
        let mut ring = Ring::start(3).await;
        let users = create(ring.rest_port, USERS).await;
        (0..3).for_each(|place| ring.kill(place));
        damage(&ring.data_dir(1).join("primary"), kind);
        (0..3).for_each(|place| ring.start_process(place));
        ring.until_says(1, SAYS).await;
        assert_all_there(&ring, &users, [0; 2]).await;
    }
}

/// Partition 1 is down and says so, is refused as long as that, and has everything when db-2 is promoted.
async fn decided_by_the_operator(ring: &Ring, users: &BTreeSet<Uuid>) {
    ring.until("partition 1 asks for a decision", |cluster| {
        let partition = &cluster["partitions"][1];
        let why = partition["waiting_for"].as_str().unwrap_or_default();
        partition["reads"] == false
            && cluster["partitions"][0]["reads"] == true
            && why.contains("db-1 has lost part of its disk")
            && why.contains("accept what db-2 has with `corro promote 1`")
    })
    .await;
    let mut client = ring.client().await;
    let theirs = users.iter().filter(|id| protocol::placement::partition_of(id, 3) == 1);
    for id in theirs.take(3) {
        let refused = client.get(*id).await;
        assert_eq!((refused.status, refused.retry_after), (StatusCode::SERVICE_UNAVAILABLE, true));
        let detail = refused.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert!(detail.contains("db-1 has lost part of its disk"), "{detail}");
    }
    let promoted = client.send(Method::POST, "/api/cluster/promote/1", None).await;
    assert_eq!(promoted.status, StatusCode::OK, "{:?}", promoted.body);
    assert_all_there(ring, users, [0; 2]).await;
}

/// Its neighbour is gone for good: what is left can be accepted, and is served under a new incarnation.
#[tokio::test]
async fn the_operator_can_accept_what_is_left() {
    let mut ring = Ring::start(3).await;
    let users = create(ring.rest_port, USERS).await;
    until_replicated(&ring).await;
    ring.kill_gateway();
    (1..3).for_each(|place| ring.kill(place));
    damage(&ring.data_dir(1).join("primary"), Damage::Cut);
    fs::remove_dir_all(ring.data_dir(2)).unwrap();
    ring.start_gateway();
    (1..3).for_each(|place| ring.start_process(place));
    ring.until("partition 1 is down", |cluster| {
        let partition = &cluster["partitions"][1];
        let why = partition["waiting_for"].as_str().unwrap_or_default();
        partition["reads"] == false && why.contains("accepts what db-1 has with `corro promote 1`")
    })
    .await;
    let mut client = ring.client().await;
    let promoted = client.send(Method::POST, "/api/cluster/promote/1", None).await;
    assert_eq!(promoted.status, StatusCode::OK, "{:?}", promoted.body);
    ring.until("partition 1 is served", |cluster| cluster["partitions"][1]["reads"] == true).await;
    let mut lost = 0;
    for id in users.iter().filter(|id| protocol::placement::partition_of(id, 3) == 1) {
        match client.get(*id).await.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                lost += 1;
                let user = json!({"id": id, "name": "Ana Ruiz", "email": "ana@example.org"});
                assert_eq!(client.post(&user).await.status, StatusCode::CREATED);
            }
            status => panic!("{status}\n{}", ring.logs()),
        }
    }
    assert!(lost > 0, "the test cuts off too little");
    let promoted = client.send(Method::POST, "/api/cluster/promote/2", None).await;
    assert_eq!(
        promoted.status,
        StatusCode::OK,
        "db-2's disk is gone, and db-0 has a copy: {:?}",
        promoted.body
    );
    assert_all_there(&ring, &users, [0; 2]).await;
}
