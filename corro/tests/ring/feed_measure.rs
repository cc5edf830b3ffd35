//! How long a change takes to reach two thousand subscribers, with a process killed in the middle.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::client::Client;
use super::processes::Ring;

const OF_EACH: usize = 1_000;
const CHANGES_A_SECOND: u64 = 200;
const SECONDS: u64 = 30;

/// What one subscriber heard: the ids in the order in which they came, and when.
type Heard = Vec<(u64, Instant)>;

fn id_of(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap()
}

/// Reads an event stream with as little work as possible: the receivers share the machine with the ring.
async fn stream(port: u16, begun: tokio::sync::mpsc::Sender<()>, heard: Arc<Mutex<Heard>>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(b"GET /api/user/changes HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let (mut text, mut piece, mut first) = (String::new(), vec![0; 64 << 10], true);
    loop {
        let count = stream.read(&mut piece).await.unwrap();
        assert!(count > 0, "no subscriber is dropped");
        text += std::str::from_utf8(&piece[..count]).unwrap();
        let now = Instant::now();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut heard = heard.lock().unwrap();
        for line in text[..whole].lines() {
            if let Some(id) = line.strip_prefix("id: ") {
                if std::mem::take(&mut first) {
                    begun.try_send(()).unwrap();
                } else {
                    heard.push((id_of(id), now));
                }
            }
        }
        drop(heard);
        text.drain(..whole);
    }
}

async fn socket(port: u16, begun: tokio::sync::mpsc::Sender<()>, heard: Arc<Mutex<Heard>>) {
    let url = format!("ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket");
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    socket.send(Message::text("40/changes,")).await.unwrap();
    while let Some(message) = socket.next().await {
        let message = message.unwrap();
        let text = message.to_text().unwrap();
        if text == "2" {
            socket.send(Message::text("3")).await.unwrap();
        } else if text.starts_with("42/changes,[\"subscribed\"") {
            begun.try_send(()).unwrap();
        } else if text.starts_with("42/changes,") {
            // The id is the last argument.
            let id = &text[text.len() - 18..text.len() - 2];
            heard.lock().unwrap().push((id_of(id), Instant::now()));
        }
    }
    panic!("no subscriber is dropped");
}

#[tokio::test]
#[ignore = "a measurement"]
async fn how_long_a_change_takes_to_two_thousand_subscribers() {
    let mut ring = Ring::start(3).await;
    let mut tasks = JoinSet::new();
    let (begun, mut has_begun) = tokio::sync::mpsc::channel(2 * OF_EACH);
    let mut all: Vec<Arc<Mutex<Heard>>> = Vec::new();
    for number in 0..2 * OF_EACH {
        let (heard, begun) = (Arc::<Mutex<Heard>>::default(), begun.clone());
        all.push(Arc::clone(&heard));
        match number % 2 {
            0 => tasks.spawn(stream(ring.rest_port, begun, heard)),
            _ => tasks.spawn(socket(ring.rest_port, begun, heard)),
        };
    }
    for _ in 0..2 * OF_EACH {
        has_begun.recv().await.unwrap();
    }
    println!("{OF_EACH} event streams and {OF_EACH} sockets listen");

    let mut acknowledged: HashMap<u64, Instant> = HashMap::new();
    let mut client = Client::new(ring.rest_port);
    let users: Vec<Uuid> = (0..100).map(|_| Uuid::new_v4()).collect();
    for id in &users {
        let user = json!({"id": id, "name": "Ana Ruiz", "email": "ana.ruiz@example.org"});
        let answer = client.post(&user).await;
        acknowledged.insert(id_of(&answer.tag.unwrap()), Instant::now());
    }
    let start = Instant::now();
    let mut slowest = Duration::ZERO;
    for number in 0..CHANGES_A_SECOND * SECONDS {
        let due = start + Duration::from_secs(1) * number as u32 / CHANGES_A_SECOND as u32;
        tokio::time::sleep_until(due.into()).await;
        if number == CHANGES_A_SECOND * SECONDS / 2 {
            ring.kill(1);
        }
        let asked = Instant::now();
        let answer = client.put(&json!({"id": users[number as usize % users.len()], "group": number})).await;
        assert_eq!(answer.status, hyper::StatusCode::OK);
        slowest = slowest.max(asked.elapsed());
        acknowledged.insert(id_of(&answer.tag.unwrap()), Instant::now());
    }
    let count = acknowledged.len();
    let complete = async {
        while all.iter().any(|heard| heard.lock().unwrap().len() < count) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), complete).await.is_ok();
    println!("{count} changes in {:?}, the slowest write took {slowest:?}", start.elapsed());
    for (name, first) in [("event stream", 0), ("socket.io", 1)] {
        let (mut lost, mut doubled, mut late) = (0, 0, Vec::new());
        for heard in all.iter().skip(first).step_by(2) {
            let heard = heard.lock().unwrap();
            let ids: std::collections::BTreeSet<u64> = heard.iter().map(|(id, _)| *id).collect();
            doubled += heard.len() - ids.len();
            lost += acknowledged.keys().filter(|id| !ids.contains(id)).count();
            assert!(heard.is_sorted_by_key(|(id, _)| *id), "in order");
            late.extend(heard.iter().map(|(id, at)| at.saturating_duration_since(acknowledged[id])));
        }
        late.sort_unstable();
        let at = |share: f64| late[((late.len() - 1) as f64 * share) as usize];
        println!(
            "{name}: {} arrivals, {lost} lost, {doubled} doubled; from the acknowledgement p50 {:?}, \
             p95 {:?}, p99 {:?}, longest {:?}",
            late.len(),
            at(0.5),
            at(0.95),
            at(0.99),
            at(1.0)
        );
        assert_eq!((lost, doubled, in_time), (0, 0, true));
    }
}
