//! Deleted users leave nothing on any disk, and no other user goes.

use std::collections::BTreeSet;
use std::time::Instant;

use hyper::{Method, StatusCode};
use serde_json::json;
use uuid::Uuid;

use super::copies::{records, until_equal};
use super::lists::{count, create};
use super::processes::{DEADLINE, Ring};

#[tokio::test]
async fn deleted_users_leave_nothing_on_any_disk() {
    let mut ring = Ring::start(3).await;
    ring.kill_gateway();
    ring.purge_after = 1;
    ring.start_gateway();
    ring.until_ready().await;

    let ids: Vec<Uuid> = create(ring.rest_port, 900).await.into_iter().collect();
    let (deleted, kept) = ids.split_at(600);
    let mut client = ring.client().await;
    for id in deleted {
        let answer = client.send(Method::DELETE, &format!("/api/user/{id}"), None).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
    }
    ring.kill(1);
    // Made anew while nothing can be purged of two of the partitions.
    let anew = &deleted[..100];
    for id in anew {
        let user = json!({"id": id, "name": "Ana", "email": "ana@example.org"});
        assert_eq!(client.post(&user).await.status, StatusCode::CREATED);
    }
    ring.start_process(1);
    ring.until_ready().await;

    let live: BTreeSet<Uuid> = kept.iter().chain(anew).copied().collect();
    let start = Instant::now();
    let roles = |partition: u16| [(partition, "primary"), ((partition + 1) % 3, "replica")];
    for (place, role) in (0..3).flat_map(roles) {
        loop {
            let left = records(&ring, place, role);
            if left.values().all(protocol::Record::is_alive) {
                break;
            }
            assert!(start.elapsed() < DEADLINE, "{} records are in the {role} of db-{place}", left.len());
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(until_equal(&ring).0, live.len());
    assert_eq!(count(&mut client, "").await, live.len() as u64);
    for id in ids {
        let expected = if live.contains(&id) { StatusCode::OK } else { StatusCode::NOT_FOUND };
        assert_eq!(client.get(id).await.status, expected);
    }
}
