//! Any one db-process stopped, killed, hung or emptied under load, and what fails: nothing.

use super::copies::until_equal;
use super::load::Load;
use super::processes::Ring;

const CONNECTIONS: usize = 64;

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
    let seen = load.finish().await;
    let (records, took) = until_equal(&ring);
    println!("{records} records in both copies, equal {took:?} after the load's end");
    assert_eq!(records, seen.users);
    seen.assert_nothing_failed(&ring);
    assert!(seen.reads > 15_000);
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
    let seen = load.finish().await;
    until_equal(&ring);
    seen.assert_nothing_failed(&ring);
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
    let seen = load.finish().await;
    let (records, took) = until_equal(&ring);
    println!("{records} records in both copies, equal {took:?} after the load's end");
    assert_eq!(records, seen.users);
    assert!(records > 1_500);
    seen.assert_nothing_failed(&ring);
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
    let seen = load.finish().await;
    let (records, took) = until_equal(&ring);
    println!("{records} records in both copies, equal {took:?} after the load's end");
    seen.assert_nothing_failed(&ring);
}
