//! Measurements that are too long for every run: `cargo test --release -p corro --test ring -- --ignored
//! --nocapture --test-threads 1`.

use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde_json::json;
use uuid::Uuid;

use super::client::Client;
use super::copies::until_equal;
use super::processes::Ring;

/// Creates users by 64 connections.
async fn create(port: u16, count: usize) -> Vec<Uuid> {
    let tasks: Vec<_> = (0..64)
        .map(|connection| {
            tokio::spawn(async move {
                let mut client = Client::new(port);
                let mut ids = Vec::new();
                for _ in (connection..count).step_by(64) {
                    let id = Uuid::new_v4();
                    let user =
                        json!({"id": id, "name": "Ana Ruiz", "email": "ana.ruiz@example.org", "group": 3});
                    assert_eq!(client.post(&user).await.status, StatusCode::CREATED);
                    ids.push(id);
                }
                ids
            })
        })
        .collect();
    let mut ids = Vec::new();
    for task in tasks {
        ids.extend(task.await.unwrap());
    }
    ids
}

#[tokio::test]
#[ignore = "a measurement"]
async fn how_long_a_new_ring_takes_to_be_ready() {
    for round in 1..=5 {
        let start = Instant::now();
        let ring = Ring::start(3).await;
        println!("round {round}: a new ring of 3 was ready after {:?}", start.elapsed());
        drop(ring);
    }
}

#[tokio::test]
#[ignore = "a measurement"]
async fn how_long_a_ring_with_a_million_users_takes_to_be_ready_again() {
    let mut ring = Ring::start(3).await;
    let start = Instant::now();
    create(ring.rest_port, 1_000_000).await;
    println!("1,000,000 users created in {:?}", start.elapsed());
    let (records, _) = until_equal(&ring);
    assert_eq!(records, 1_000_000);
    let took = ring.stop_all();
    println!("stopped in {took:?}");
    let start = Instant::now();
    ring.start_gateway();
    (0..3).for_each(|place| ring.start_process(place));
    ring.until_ready().await;
    println!("restarted to ready in {:?} after an orderly stop", start.elapsed());
    (0..3).for_each(|place| ring.kill(place));
    ring.kill_gateway();
    let start = Instant::now();
    ring.start_gateway();
    (0..3).for_each(|place| ring.start_process(place));
    ring.until_ready().await;
    println!("restarted to ready in {:?} after kill -9 of everything", start.elapsed());
    ring.kill(1);
    std::fs::remove_dir_all(ring.data_dir(1)).unwrap();
    let start = Instant::now();
    ring.start_process(1);
    ring.until("it has to be filled", |cluster| cluster["processes"][1]["connected"] == true).await;
    ring.until_ready().await;
    println!("a process with an emptied folder filled two copies of 333,000 users in {:?}", start.elapsed());
}

/// Processor time of a process so far, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // Fields 14 and 15 of proc(5), in ticks of 10 ms; the split starts at field 3.
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks as f64 / 100.0
}

#[tokio::test]
#[ignore = "a measurement"]
async fn what_one_read_costs_in_rings_of_three_and_of_seven() {
    for round in 1..=3 {
        for size in [3, 7] {
            let ring = Ring::start(size).await;
            let ids = create(ring.rest_port, 5_000).await;
            ring.until("all is replicated", |cluster| {
                cluster["partitions"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|partition| partition["unreplicated"] == 0)
            })
            .await;
            let (gateway, processes) = ring.pids();
            let cpu = || (cpu_seconds(gateway), processes.iter().map(|pid| cpu_seconds(*pid)).sum::<f64>());
            let frames = async || {
                let cluster = ring.client().await.cluster().await;
                let frames = cluster["processes"].as_array().unwrap().iter();
                frames.map(|process| process["frames"].as_u64().unwrap()).sum::<u64>()
            };
            // What heartbeats cost while nothing is asked is no part of a read.
            let (idle_before, idle_start) = (cpu(), Instant::now());
            tokio::time::sleep(Duration::from_secs(3)).await;
            let (idle_after, idle) = (cpu(), idle_start.elapsed().as_secs_f64());
            let at_rest = ((idle_after.0 - idle_before.0) / idle, (idle_after.1 - idle_before.1) / idle);
            let (cpu_before, frames_before, start) = (cpu(), frames().await, Instant::now());
            // One request at a time, so that nothing is batched: the cost of a single read.
            let mut client = ring.client().await;
            const READS: usize = 20_000;
            for id in ids.iter().cycle().take(READS) {
                assert_eq!(client.get(*id).await.status, StatusCode::OK);
            }
            let (cpu_after, frames_after) = (cpu(), frames().await);
            let took = start.elapsed().as_secs_f64();
            let per_read = |seconds: f64| seconds * 1e6 / READS as f64;
            println!(
                "round {round}, n = {size}: {:.2} frames a GET, gateway {:.1} µs CPU, \
                 db-processes together {:.1} µs CPU (at rest {:.2} % and {:.2} % of a core)",
                (frames_after - frames_before) as f64 / READS as f64,
                per_read(cpu_after.0 - cpu_before.0 - at_rest.0 * took),
                per_read(cpu_after.1 - cpu_before.1 - at_rest.1 * took),
                at_rest.0 * 100.0,
                at_rest.1 * 100.0,
            );
        }
    }
}
