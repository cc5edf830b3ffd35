//! A load that checks what it is told.
//!
//! Every user has one connection that writes it, counting up in `group`; any connection reads it. A read must
//! find at least the highest count that was acknowledged before it was sent, and at most the highest that was
//! sent before it was answered. A write whose outcome is unknown may count or not.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::client::Client;

/// Writes that take longer are noted.
pub(crate) const LONG: Duration = Duration::from_secs(2);

/// What the load saw. All counts, but for the last.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) reads: AtomicU64,
    pub(crate) writes: AtomicU64,
    /// 503: not done, to be tried again later.
    pub(crate) refused_writes: AtomicU64,
    /// 504: may have been done.
    pub(crate) unknown_writes: AtomicU64,
    /// Anything but 200 for a user that exists.
    pub(crate) failed_reads: AtomicU64,
    /// Older than what was acknowledged.
    pub(crate) stale_reads: AtomicU64,
    /// Newer than anything that was sent.
    pub(crate) impossible_reads: AtomicU64,
    /// When writes were answered that had taken long.
    pub(crate) long_writes: Mutex<Vec<Instant>>,
}

/// A user under load.
struct Counted {
    id: Uuid,
    sent: AtomicI32,
    acknowledged: AtomicI32,
}

/// A running load.
pub(crate) struct Load {
    pub(crate) seen: Arc<Seen>,
    users: Arc<Vec<Counted>>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Load {
    /// Creates `users` users and starts to read and write them by `connections` connections, half of what
    /// they do being reads.
    pub(crate) async fn start(port: u16, connections: usize, users: usize) -> Self {
        let users: Arc<Vec<Counted>> = Arc::new(
            (0..users)
                .map(|_| Counted {
                    id: Uuid::new_v4(),
                    sent: AtomicI32::new(0),
                    acknowledged: AtomicI32::new(0),
                })
                .collect(),
        );
        let mut tasks = JoinSet::new();
        for connection in 0..connections {
            let users = Arc::clone(&users);
            tasks.spawn(async move {
                let mut client = Client::connect(port).await;
                for user in users.iter().skip(connection).step_by(connections) {
                    let body = json!({"id": user.id, "name": "Ana Ruiz", "email": "ana@example.org"});
                    assert_eq!(client.post(&body).await.status, StatusCode::CREATED);
                }
            });
        }
        while let Some(created) = tasks.join_next().await {
            created.unwrap();
        }
        let (seen, stop) = (Arc::default(), Arc::default());
        for connection in 0..connections {
            let worker = Worker {
                client: Client::connect(port).await,
                users: Arc::clone(&users),
                seen: Arc::clone(&seen),
                random: connection as u64,
            };
            tasks.spawn(worker.run(connection, connections, Arc::clone(&stop)));
        }
        Self { seen, users, stop, tasks }
    }

    /// Waits until so many more reads and writes have been answered.
    pub(crate) async fn until_more(&self, reads: u64, writes: u64) {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let goal = (count(&self.seen.reads) + reads, count(&self.seen.writes) + writes);
        while count(&self.seen.reads) < goal.0 || count(&self.seen.writes) < goal.1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends the load, and reads every user once more.
    pub(crate) async fn finish(mut self, port: u16) -> Arc<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        let client = Client::connect(port).await;
        let mut reader =
            Worker { client, users: Arc::clone(&self.users), seen: Arc::clone(&self.seen), random: 1 };
        for user in self.users.iter() {
            reader.read(user).await;
        }
        self.seen
    }
}

/// One connection of a load.
struct Worker {
    client: Client,
    users: Arc<Vec<Counted>>,
    seen: Arc<Seen>,
    random: u64,
}

impl Worker {
    async fn run(mut self, connection: usize, connections: usize, stop: Arc<AtomicBool>) {
        let users = Arc::clone(&self.users);
        let own: Vec<&Counted> = users.iter().skip(connection).step_by(connections).collect();
        while !stop.load(Ordering::Relaxed) {
            let random = self.next_random();
            if random.is_multiple_of(2) {
                self.read(&users[(random >> 8) as usize % users.len()]).await;
            } else {
                self.write(own[(random >> 8) as usize % own.len()]).await;
            }
        }
    }

    async fn write(&mut self, user: &Counted) {
        let count = user.sent.fetch_add(1, Ordering::SeqCst) + 1;
        let start = Instant::now();
        let answer = self.client.put(&json!({"id": user.id, "group": count})).await;
        if start.elapsed() > LONG {
            self.seen.long_writes.lock().unwrap().push(Instant::now());
        }
        let counter = match answer.status {
            StatusCode::OK => {
                assert_eq!(answer.user().group, count);
                user.acknowledged.store(count, Ordering::SeqCst);
                &self.seen.writes
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                assert!(answer.retry_after, "a 503 says when to try again");
                &self.seen.refused_writes
            }
            StatusCode::GATEWAY_TIMEOUT => &self.seen.unknown_writes,
            other => panic!("a write was answered {other}: {:?}", answer.body),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if counter.as_ptr() != self.seen.writes.as_ptr() {
            // A caller that is told to try again later does not hammer.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn read(&mut self, user: &Counted) {
        let acknowledged = user.acknowledged.load(Ordering::SeqCst);
        let answer = self.client.get(user.id).await;
        let sent = user.sent.load(Ordering::SeqCst);
        let counter = if answer.status != StatusCode::OK {
            eprintln!("a read failed: {} {:?}", answer.status, answer.body);
            &self.seen.failed_reads
        } else if answer.user().group < acknowledged {
            eprintln!("a read of {} found {} after {acknowledged}", user.id, answer.user().group);
            &self.seen.stale_reads
        } else if answer.user().group > sent {
            &self.seen.impossible_reads
        } else {
            &self.seen.reads
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// SplitMix64 (Steele, Lea and Flood 2014): each connection has a sequence of its own that a run repeats.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
