//! Stopping, starting again, and what is refused at a start.

use std::process::{Command, Output, Stdio};

use hyper::StatusCode;
use serde_json::json;
use uuid::Uuid;

use super::copies::until_equal;
use super::processes::{DEADLINE, Ring, SECRET};

#[tokio::test]
async fn everything_stopped_and_started_again_has_all_its_users() {
    let mut ring = Ring::start(3).await;
    let mut client = ring.client().await;
    let ids: Vec<Uuid> = (0..300).map(|_| Uuid::new_v4()).collect();
    for id in &ids {
        let created = client.post(&json!({"id": id, "name": "Ana", "email": "ana@example.org"})).await;
        assert_eq!(created.status, StatusCode::CREATED);
    }
    let took = ring.stop_all();
    assert!(took < DEADLINE, "{took:?}");
    ring.start_gateway();
    (0..3).for_each(|place| ring.start_process(place));
    ring.until_ready().await;
    let mut client = ring.client().await;
    for id in &ids {
        assert_eq!(client.get(*id).await.status, StatusCode::OK);
    }
    assert_eq!(until_equal(&ring).0, 300);
}

#[tokio::test]
async fn a_gateway_that_is_killed_and_started_again_finds_its_ring() {
    let mut ring = Ring::start(3).await;
    let mut client = ring.client().await;
    let created = client.post(&json!({"name": "Ana", "email": "ana@example.org"})).await;
    ring.kill_gateway();
    ring.start_gateway();
    ring.until_ready().await;
    let mut client = ring.client().await;
    assert_eq!(client.get(created.user().id).await.body, created.body);
}

#[tokio::test]
async fn a_ring_of_one_works_without_a_replica() {
    let mut ring = Ring::start(1).await;
    let mut client = ring.client().await;
    let created = client.post(&json!({"name": "Ana", "email": "ana@example.org"})).await;
    assert_eq!(created.status, StatusCode::CREATED);
    ring.kill(0);
    ring.until("the loss is noticed", |cluster| cluster["processes"][0]["connected"] == false).await;
    let refused = client.get(created.user().id).await;
    assert_eq!((refused.status, refused.retry_after), (StatusCode::SERVICE_UNAVAILABLE, true));
    assert_eq!(refused.json()["partition"], 0);
    ring.start_process(0);
    ring.until_ready().await;
    assert_eq!(client.get(created.user().id).await.body, created.body);
}

/// Starts a db-process that should not run, and waits for its end.
fn refused_start(ring: &Ring, name: &str, place_of_folder: u16) -> Output {
    Command::new(env!("CARGO_BIN_EXE_corro"))
        .arg("db-process")
        .env_clear()
        .env("CLUSTER_SECRET", SECRET)
        .env("LOG_DIR", ring.data_dir(place_of_folder).with_extension("logs"))
        .env("SOCKET_SERVER_URL", format!("ws://127.0.0.1:{}", ring.socket_port))
        .env("DB_INSTANCE_ID", name)
        .env("DATA_DIR", ring.data_dir(place_of_folder))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn a_second_process_on_one_folder_and_one_on_another_s_data_are_refused() {
    let mut ring = Ring::start(3).await;
    let second = refused_start(&ring, "db-1", 1);
    assert!(!second.status.success());
    let pid = ring.pids().1[1].to_string();
    assert!(said(&second).contains(&pid), "it names who holds the folder ({pid}): {}", said(&second));
    ring.kill(1);
    let other = refused_start(&ring, "db-2", 1);
    assert!(!other.status.success());
    assert!(said(&other).contains("db-1") && said(&other).contains("db-2"), "{}", said(&other));
    let outside = refused_start(&ring, "db-9", 9);
    assert!(!outside.status.success());
    assert!(said(&outside).contains("db-9"), "{}", said(&outside));
    assert!(ring.is_running(0) && ring.is_running(2));
    ring.start_process(1);
    ring.until_ready().await;
}
