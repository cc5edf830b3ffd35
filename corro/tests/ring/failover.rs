//! Any one db-process stopped, killed, hung or emptied under load, and what fails: nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use super::copies::until_equal;
use super::load::{Load, Seen};
use super::processes::Ring;

const CONNECTIONS: usize = 64;

/// Nothing failed, nothing was refused, nothing is unknown, nothing was stale.
pub(crate) fn assert_nothing_failed(seen: &Seen, ring: &Ring) {
    println!("{seen:?}");
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    assert_eq!(
        [
            &seen.failed_reads,
            &seen.stale_reads,
            &seen.impossible_reads,
            &seen.refused_writes,
            &seen.unknown_writes
        ]
        .map(count),
        [0; 5],
        "failed, stale and impossible reads, refused and unknown writes\n{}",
        ring.logs()
    );
}

#[tokio::test]
async fn each_db_process_killed_in_turn_under_load_fails_no_request_and_tells_no_older_truth() {
    let mut ring = Ring::start(3).await;
    let load = Load::start(ring.rest_port, CONNECTIONS, 1_000).await;
    for place in 0..3 {
        load.until_more(2_000, 1_000).await;
        ring.kill(place);
        load.until_more(3_000, 1_000).await;
        ring.start_process(place);
        ring.until_ready().await;
    }
    let seen = load.finish(ring.rest_port).await;
    let (records, took) = until_equal(&ring);
    println!("{records} records in both copies, equal {took:?} after the load's end");
    assert_eq!(records, 1_000);
    assert_nothing_failed(&seen, &ring);
    assert!(seen.reads.load(Ordering::Relaxed) > 15_000);
}

#[tokio::test]
async fn a_process_that_hangs_fails_no_request_and_comes_back() {
    let ring = Ring::start(3).await;
    let load = Load::start(ring.rest_port, 16, 300).await;
    load.until_more(1_000, 500).await;
    ring.signal(1, rustix::process::Signal::STOP);
    ring.until("the silence is noticed", |cluster| cluster["processes"][1]["connected"] == false).await;
    load.until_more(1_000, 500).await;
    ring.signal(1, rustix::process::Signal::CONT);
    ring.until_ready().await;
    load.until_more(500, 500).await;
    let seen = load.finish(ring.rest_port).await;
    until_equal(&ring);
    assert_nothing_failed(&seen, &ring);
}

#[tokio::test]
async fn a_process_with_an_emptied_folder_fills_both_its_copies_by_itself() {
    let mut ring = Ring::start(3).await;
    let load = Load::start(ring.rest_port, 16, 2_000).await;
    load.until_more(1_000, 1_000).await;
    ring.kill(1);
    std::fs::remove_dir_all(ring.data_dir(1)).unwrap();
    ring.start_process(1);
    ring.until_ready().await;
    load.until_more(1_000, 1_000).await;
    let seen = load.finish(ring.rest_port).await;
    let (records, took) = until_equal(&ring);
    println!("{records} records in both copies, equal {took:?} after the load's end");
    assert_eq!(records, 2_000);
    assert_nothing_failed(&seen, &ring);
}

#[tokio::test]
async fn each_db_process_asked_to_stop_in_turn_leaves_without_notice() {
    let mut ring = Ring::start(3).await;
    let load = Load::start(ring.rest_port, CONNECTIONS, 1_000).await;
    for place in 0..3 {
        load.until_more(2_000, 1_000).await;
        let took = ring.stop(place);
        println!("db-{place} stopped in {took:?}");
        load.until_more(2_000, 1_000).await;
        ring.start_process(place);
        ring.until_ready().await;
    }
    let seen = load.finish(ring.rest_port).await;
    let (records, took) = until_equal(&ring);
    println!("{records} records in both copies, equal {took:?} after the load's end");
    assert_nothing_failed(&seen, &ring);
}
