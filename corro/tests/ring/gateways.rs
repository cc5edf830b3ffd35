//! Two gateways: any of them answers every request, and the loss of the active one reaches no client of the
//! other, except for what was in flight on it.

use hyper::StatusCode;
use rustix::process::Signal;
use serde_json::json;
use uuid::Uuid;

use super::client::Client;
use super::copies::until_equal;
use super::processes::{DEADLINE, Ring};

/// A ring of three, and another gateway of it. The first `Ring` has the db-processes.
async fn with_two_gateways() -> [Ring; 2] {
    let mut rings = [Ring::without_processes(3), Ring::without_processes(3)];
    let urls: Vec<String> = rings.iter().map(|ring| format!("ws://127.0.0.1:{}", ring.socket_port)).collect();
    for place in 0..3 {
        rings[0].environment.push((place, "SOCKET_SERVER_URL", urls.join(",").into()));
        rings[0].start_process(place);
    }
    rings[0].until_ready().await;
    rings[1].until_ready().await;
    rings
}

/// Which of them is active, as they say in their logs.
fn active(rings: &[Ring; 2]) -> usize {
    let is_active = |ring: &Ring| {
        let log = ring.gateway_output();
        let at = |what: &str| log.rfind(what);
        at("this gateway is active") > at("this gateway is a standby")
    };
    let active: Vec<usize> = (0..2).filter(|&gateway| is_active(&rings[gateway])).collect();
    assert_eq!(active.len(), 1, "one gateway is active\n{}\n{}", rings[0].logs(), rings[1].logs());
    active[0]
}

/// Creates so many users through a gateway, and reads each. Returns those that were acknowledged, and counts
/// the creates whose outcome is unknown.
async fn create_and_read(client: &mut Client, count: usize) -> (Vec<Uuid>, usize) {
    let (mut created, mut unknown) = (Vec::new(), 0);
    while created.len() < count {
        let id = Uuid::new_v4();
        let answer = client.post(&json!({"id": id, "name": "Ana", "email": "ana@example.org"})).await;
        match answer.status {
            StatusCode::CREATED => created.push(id),
            StatusCode::GATEWAY_TIMEOUT => unknown += 1,
            status => panic!("a create is answered {status}: {:?}", answer.body),
        }
        if let Some(last) = created.last() {
            assert_eq!(client.get(*last).await.status, StatusCode::OK, "what was acknowledged is read");
        }
    }
    (created, unknown)
}

#[tokio::test]
async fn every_gateway_answers_and_one_that_is_lost_is_replaced() {
    let mut rings = with_two_gateways().await;
    let mut all = Vec::new();
    for fault in [Signal::TERM, Signal::KILL, Signal::STOP, Signal::KILL] {
        let lost = active(&rings);
        let mut client = rings[1 - lost].client().await;
        all.extend(create_and_read(&mut client, 20).await.0);
        let mut direct = rings[lost].client().await;
        let last = *all.last().unwrap();
        let (one, other) = (client.get(last).await, direct.get(last).await);
        assert_eq!((one.status, one.tag, one.body), (other.status, other.tag, other.body));

        rings[lost].signal_gateway(fault);
        let (created, unknown) = create_and_read(&mut client, 100).await;
        all.extend(created);
        // One connection has one request in flight. The system may accept another one, or two, for a process
        // that is being killed.
        let most = match fault {
            Signal::TERM => 0,
            Signal::STOP => 1,
            _ => 3,
        };
        assert!(unknown <= most, "{unknown} after {fault:?}");
        if fault == Signal::STOP {
            rings[lost].signal_gateway(Signal::CONT);
        } else {
            rings[lost].kill_gateway();
            rings[lost].start_gateway();
        }
        rings[lost].until_ready().await;
        assert_eq!(active(&rings), 1 - lost);
        let mut client = rings[lost].client().await;
        for id in all.iter().rev().take(20) {
            assert_eq!(client.get(*id).await.status, StatusCode::OK, "at the one that came back");
        }
    }
    let mut client = rings[0].client().await;
    for id in &all {
        assert_eq!(client.get(*id).await.status, StatusCode::OK);
    }
    let copies = until_equal(&rings[0]);
    assert!(copies.0 >= all.len(), "{copies:?} of {}", all.len());
}

#[tokio::test]
async fn a_ring_goes_from_one_gateway_to_two_and_back() {
    let mut ring = Ring::start(3).await;
    let other = Ring::without_processes(3);
    let mut client = ring.client().await;
    let mut all = create_and_read(&mut client, 20).await.0;
    let both = format!("ws://127.0.0.1:{},ws://127.0.0.1:{}", ring.socket_port, other.socket_port);
    let only = format!("ws://127.0.0.1:{}", ring.socket_port);
    for urls in [both, only] {
        for place in 0..3 {
            ring.environment.push((place, "SOCKET_SERVER_URL", urls.clone().into()));
            assert!(ring.stop(place) < DEADLINE);
            all.extend(create_and_read(&mut client, 5).await.0);
            ring.start_process(place);
            ring.until_ready().await;
            all.extend(create_and_read(&mut client, 5).await.0);
        }
    }
    for id in &all {
        assert_eq!(client.get(*id).await.status, StatusCode::OK);
    }
}
