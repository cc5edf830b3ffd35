//! Neighbours that do not reach each other, while both reach the gateway: it says so, and goes on.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use uuid::Uuid;

use super::copies::until_equal;
use super::processes::{DEADLINE, Ring};

/// Stands before the replication port of a process, which says to its neighbours that it is found here.
struct Proxy {
    address: SocketAddr,
    /// On which the process listens.
    port: u16,
    cut: watch::Sender<bool>,
}

impl Proxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let port = StdListener::bind("[::]:0").and_then(|free| free.local_addr()).unwrap().port();
        let cut = watch::Sender::new(false);
        let is_cut = cut.subscribe();
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                // The process may be gone. Its neighbour sees then that the connection is.
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                tokio::spawn(forward(near_in, far_out, is_cut.clone()));
                tokio::spawn(forward(far_in, near_out, is_cut.clone()));
            }
        });
        Self { address, port, cut }
    }

    /// From now on nothing passes in either direction, and nothing is closed: neither side can tell it from a
    /// slow network.
    fn cut(&self) {
        self.cut.send_replace(true);
    }

    fn heal(&self) {
        self.cut.send_replace(false);
    }
}

/// One direction of a connection, until either side closes it.
async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut cut: watch::Receiver<bool>) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let Ok(read) = from.read(&mut buffer).await else { return };
        if cut.wait_for(|cut| !cut).await.is_err() || read == 0 {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// A ring whose processes at those places are followed through a proxy each.
async fn ring_with_proxies(size: u16, places: &[u16]) -> (Ring, Vec<Proxy>) {
    let mut ring = Ring::without_processes(size);
    let mut proxies = Vec::new();
    for &place in places {
        let proxy = Proxy::start().await;
        ring.replication.insert(place, (proxy.address, proxy.port));
        proxies.push(proxy);
    }
    (0..size).for_each(|place| ring.start_process(place));
    ring.until_ready().await;
    (ring, proxies)
}

fn waits_for(partition: &Value) -> &str {
    partition["waiting_for"].as_str().unwrap_or_default()
}

fn says_link_down(partition: &Value) -> bool {
    waits_for(partition).contains("the link between them is down") && partition["link_down"] == true
}

/// Waits until the log of the gateway has a line at that level with that about a partition, and sees that it
/// is the only one.
async fn until_logged(ring: &Ring, level: &str, partition: u16, what: &str) {
    let start = Instant::now();
    loop {
        let (log, partition) = (ring.gateway_output(), format!("partition {partition}: "));
        let fits = |line: &&str| line.contains(level) && line.contains(&partition) && line.contains(what);
        match log.lines().filter(fits).count() {
            0 => assert!(start.elapsed() < DEADLINE, "no {level} with {what:?}\n{}", ring.logs()),
            1 => return,
            more => panic!("{more} times {level} with {what:?}\n{}", ring.logs()),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The value of that series.
async fn metric(ring: &Ring, series: &str) -> f64 {
    let answer = ring.client().await.send(Method::GET, "/metrics", None).await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(series));
    value.unwrap_or_else(|| panic!("no {series} in\n{text}")).trim().parse().unwrap()
}

async fn is_ready(ring: &Ring) -> bool {
    ring.client().await.send(Method::GET, "/health/ready", None).await.status == StatusCode::OK
}

#[tokio::test]
async fn a_cut_between_two_neighbours_under_writes_is_reported_until_it_is_healed() {
    let (ring, proxies) = ring_with_proxies(2, &[0, 1]).await;
    let mut client = ring.client().await;
    let ids: Vec<Uuid> = (0..20).map(|_| Uuid::new_v4()).collect();
    for id in &ids {
        let user = json!({"id": id, "name": "Ada", "email": "ada@example.org"});
        assert_eq!(client.post(&user).await.status, StatusCode::CREATED);
    }
    ring.until_ready().await;
    let link = r#"corro_partition_link_up{partition="0",role="replica"}"#;
    let lag = r#"corro_partition_replication_lag_seconds{partition="0"}"#;
    assert_eq!(metric(&ring, link).await, 1.0);

    proxies.iter().for_each(Proxy::cut);
    let (start, mut group) = (Instant::now(), 0);
    loop {
        // A few writes, all of which succeed, and reads that see them.
        for id in &ids {
            group += 1;
            assert_eq!(client.put(&json!({"id": id, "group": group})).await.status, StatusCode::OK);
            assert_eq!(client.get(*id).await.user().group, group);
        }
        let cluster = client.cluster().await;
        assert_eq!(cluster["ready"], true);
        let partitions = cluster["partitions"].as_array().unwrap();
        let late = |partition: &Value| partition["unreplicated_millis"].as_u64() > Some(2_000);
        if partitions.iter().all(|partition| says_link_down(partition) && late(partition)) {
            break;
        }
        assert!(start.elapsed() < DEADLINE, "it does not say so: {cluster:#}\n{}", ring.logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(is_ready(&ring).await, "it takes reads and writes");
    assert_eq!(metric(&ring, link).await, 0.0);
    assert!(metric(&ring, lag).await > 2.0);

    proxies.iter().for_each(Proxy::heal);
    ring.until_ready().await;
    assert_eq!((metric(&ring, link).await, metric(&ring, lag).await), (1.0, 0.0));
    for partition in 0..2 {
        until_logged(&ring, "WARN", partition, "does not follow").await;
        until_logged(&ring, "WARN", partition, "lacks writes").await;
        until_logged(&ring, "INFO", partition, "again").await;
        let caught_up = format!("partition {partition}: db-{} has caught up", 1 - partition);
        until_logged(&ring, "INFO", partition, &caught_up).await;
    }
    until_equal(&ring);
}

#[tokio::test]
async fn a_cut_is_reported_though_nothing_is_written_and_only_where_it_is() {
    let (ring, proxies) = ring_with_proxies(3, &[1]).await;
    proxies[0].cut();
    ring.until("both partitions of db-1 say that it cannot be followed", |cluster| {
        assert_eq!(cluster["ready"], true);
        assert_eq!(cluster["partitions"][2]["waiting_for"], Value::Null, "db-0 follows db-2");
        [0, 1].iter().all(|partition| says_link_down(&cluster["partitions"][*partition]))
    })
    .await;
    let cluster = ring.client().await.cluster().await;
    let waits = |partition: usize| waits_for(&cluster["partitions"][partition]).to_owned();
    assert!(waits(0).starts_with("db-0 does not follow db-1 since "), "{}", waits(0));
    assert!(waits(1).starts_with("db-2 does not follow db-1 since "), "{}", waits(1));
    assert!(is_ready(&ring).await);
    proxies[0].heal();
    ring.until_ready().await;
}
