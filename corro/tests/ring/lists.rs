//! Lists and counts while users come and go and a process is killed.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::client::Client;
use super::processes::Ring;

/// Creates users side by side, those of every tenth with group 7. Returns their ids.
pub(crate) async fn create(port: u16, count: usize) -> BTreeSet<Uuid> {
    const WRITERS: usize = 16;
    let mut tasks = JoinSet::new();
    for writer in 0..WRITERS {
        tasks.spawn(async move {
            let mut client = Client::new(port);
            let mut ids = Vec::new();
            for number in (writer..count).step_by(WRITERS) {
                let id = Uuid::new_v4();
                let email = format!("ana+{number}@example.org");
                let group = if number % 10 == 0 { 7 } else { 0 };
                let user = json!({"id": id, "name": "Ana Ruiz", "email": email, "group": group});
                assert_eq!(client.post(&user).await.status, StatusCode::CREATED);
                ids.push(id);
            }
            ids
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

/// One page: its ids, and the cursor of the next.
async fn page(client: &mut Client, query: &str, cursor: Option<&str>) -> (Vec<Uuid>, Option<String>) {
    let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
    let answer = client.send(Method::GET, &format!("/api/user?{query}{cursor}"), None).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let page = answer.json();
    let ids =
        page["items"].as_array().unwrap().iter().map(|user| user["id"].as_str().unwrap().parse().unwrap());
    (ids.collect(), page["next_cursor"].as_str().map(str::to_owned))
}

/// The whole list, page by page, in the order in which it came.
async fn walk(client: &mut Client, query: &str) -> Vec<Uuid> {
    let (mut ids, mut cursor) = (Vec::new(), None);
    loop {
        let (more, next) = page(client, query, cursor.as_deref()).await;
        ids.extend(more);
        match next {
            None => return ids,
            next => cursor = next,
        }
    }
}

pub(crate) async fn count(client: &mut Client, query: &str) -> u64 {
    let answer = client.send(Method::GET, &format!("/api/user/count{query}"), None).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    answer.json()["count"].as_u64().unwrap()
}

/// Writers that create users and delete them again, and change those who stay.
async fn churn(port: u16, stays: &BTreeSet<Uuid>, stop: &Arc<AtomicBool>) -> JoinSet<()> {
    let stays: Arc<Vec<Uuid>> = Arc::new(stays.iter().copied().collect());
    let mut tasks = JoinSet::new();
    for writer in 0..8_usize {
        let (stays, stop) = (Arc::clone(&stays), Arc::clone(stop));
        tasks.spawn(async move {
            let mut client = Client::new(port);
            let mut turn = writer;
            while !stop.load(Ordering::Relaxed) {
                let passing =
                    json!({"id": Uuid::new_v4(), "name": "x", "email": "x@example.org", "group": 9});
                assert_eq!(client.post(&passing).await.status, StatusCode::CREATED);
                turn += 8;
                let name = json!({"id": stays[turn % stays.len()], "name": format!("Ana {turn}")});
                assert_eq!(client.put(&name).await.status, StatusCode::OK);
                let path = format!("/api/user/{}", passing["id"].as_str().unwrap());
                assert_eq!(client.send(Method::DELETE, &path, None).await.status, StatusCode::NO_CONTENT);
            }
        });
    }
    tasks
}

#[tokio::test]
async fn a_list_under_writes_and_a_kill_has_everybody_who_stays_exactly_once() {
    list_under_writes(20_000, 500).await;
}

/// A few minutes: listed in `resources/docs/measurements.md`.
#[tokio::test]
#[ignore = "a measurement"]
async fn measure_a_list_of_a_million_under_writes_and_a_kill() {
    list_under_writes(users(), 1_000).await;
}

/// Lists so many users, of which every tenth is in group 7, while others come and go and processes are killed
/// and stopped.
async fn list_under_writes(users: usize, limit: usize) {
    let mut ring = Ring::start(3).await;
    let stays = fill(ring.rest_port, users).await;
    let mut client = ring.client().await;
    assert_eq!(count(&mut client, "").await, users as u64);
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = churn(ring.rest_port, &stays, &stop).await;

    let (mut listed, mut cursor, mut took) = (Vec::new(), None, Vec::new());
    let (start, tenth) = (Instant::now(), users / limit / 10);
    loop {
        let asked = Instant::now();
        let (ids, next) = page(&mut client, &format!("limit={limit}"), cursor.as_deref()).await;
        took.push(asked.elapsed());
        listed.extend(ids);
        match took.len() {
            pages if pages == 2 * tenth => ring.kill(1),
            pages if pages == 4 * tenth => ring.start_process(1),
            pages if pages == 6 * tenth => ring.until_ready().await,
            pages if pages == 7 * tenth => {
                ring.stop(2);
                ring.start_process(2);
            }
            _ => {}
        }
        match next {
            None => break,
            next => cursor = next,
        }
    }
    let elapsed = start.elapsed();
    assert!(took.len() >= 10 * tenth, "{} pages", took.len());
    println!("{} users on {} pages in {elapsed:?}: {}", listed.len(), took.len(), spread(&mut took));
    assert!(listed.is_sorted() && listed.iter().collect::<HashSet<_>>().len() == listed.len());
    let missed = stays.iter().filter(|id| listed.binary_search(id).is_err()).count();
    assert_eq!(missed, 0, "users who stay and were not listed\n{}", ring.logs());
    let seven = walk(&mut client, "limit=1000&group=7").await;
    assert_eq!(seven.len(), users / 10);

    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    // Every user that passed through was deleted again.
    assert_eq!(count(&mut client, "").await, users as u64);
    assert!(walk(&mut client, "limit=1000").await.iter().eq(&stays), "those that stay, and no others");
    assert_eq!(count(&mut client, "?group=7").await, users as u64 / 10);
    assert_eq!(count(&mut client, "?group=9").await, 0);
    assert_eq!(walk(&mut client, "email=ANA%2B77@example.org").await.len(), 1);
    ring.until_ready().await;
}

/// Cursors mean the same to the next gateway.
#[tokio::test]
async fn a_list_goes_on_after_a_restart_of_the_gateway() {
    let mut ring = Ring::start(2).await;
    let all = create(ring.rest_port, 300).await;
    let (mut listed, cursor) = page(&mut ring.client().await, "limit=100", None).await;
    ring.kill_gateway();
    ring.start_gateway();
    ring.until_ready().await;
    let (rest, cursor) = page(&mut ring.client().await, "limit=1000", cursor.as_deref()).await;
    assert_eq!(cursor, None);
    listed.extend(rest);
    assert_eq!(listed, all.into_iter().collect::<Vec<_>>());
}

/// How many users a measurement has.
fn users() -> usize {
    std::env::var("CORRO_USERS").map_or(1_000_000, |users| users.parse().unwrap())
}

/// Half, 99 % and all of them took no longer.
fn spread(took: &mut [Duration]) -> String {
    took.sort_unstable();
    let at = |part: usize| took[(took.len() * part).div_ceil(1000) - 1];
    format!("p50 {:?}, p99 {:?}, most {:?}", at(500), at(990), at(1000))
}

/// A minute, nearly all of it to create the users: listed in `resources/docs/measurements.md`.
#[tokio::test]
#[ignore = "a measurement"]
async fn measure_pages_of_a_million_users() {
    let users = users();
    let ring = Ring::start(3).await;
    fill(ring.rest_port, users).await;
    ring.until_ready().await;
    let mut client = ring.client().await;
    let start = Instant::now();
    assert_eq!(count(&mut client, "").await, users as u64);
    println!("a count took {:?}", start.elapsed());
    for query in ["limit=1000", "limit=1000&group=7", "limit=100"] {
        let (mut took, mut cursor) = (Vec::new(), None);
        while took.len() < 1_000 {
            let start = Instant::now();
            let (_, next) = page(&mut client, query, cursor.as_deref()).await;
            took.push(start.elapsed());
            cursor = next;
        }
        println!("{query}: {}", spread(&mut took));
    }
}

/// Creates many users by streams of operations, those of every tenth with group 7. Returns their ids.
async fn fill(port: u16, count: usize) -> BTreeSet<Uuid> {
    const FRAME: usize = 5_000;
    let mut client = Client::new(port);
    let mut ids = BTreeSet::new();
    for begin in (0..count).step_by(FRAME) {
        let lines: Vec<String> = (begin..(begin + FRAME).min(count))
            .map(|number| {
                let (id, email) = (Uuid::new_v4(), format!("ana+{number}@example.org"));
                ids.insert(id);
                let group = if number % 10 == 0 { 7 } else { 0 };
                json!({"op": "create", "id": id, "name": "Ana Ruiz", "email": email, "group": group})
                    .to_string()
            })
            .collect();
        let expected = lines.len();
        let answer = client.stream("/api/user/bulk", lines.join("\n")).await;
        let text = std::str::from_utf8(&answer.body).unwrap();
        let created = text
            .lines()
            .filter(|line| serde_json::from_str::<Value>(line).is_ok_and(|line| line["status"] == 201));
        assert_eq!(created.count(), expected, "{:?}", text.lines().next());
    }
    ids
}
