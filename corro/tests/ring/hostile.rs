//! Ten thousand connections that ask nothing. That they are closed in the end is tested with the gateway
//! alone.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::processes::Ring;
use super::skip::skip;

const CONNECTIONS: usize = 10_000;

/// What one of them may cost the gateway: hyper's first buffer of 8 KiB, its state, and room to spare.
const BYTES_EACH: u64 = 32 << 10;

#[tokio::test]
async fn ten_thousand_idle_connections_cost_little_and_disturb_nobody() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if allowed < CONNECTIONS as u64 + 1_000 {
        return skip(&format!("this machine allows {allowed} open files"));
    }
    let ring = Ring::start(3).await;
    let before = resident(ring.pids().0);
    let mut idle = Vec::with_capacity(CONNECTIONS);
    for number in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(("127.0.0.1", ring.rest_port)).await.unwrap();
        // A tenth of them begins to ask.
        if number % 10 == 0 {
            stream.write_all(b"GET /health/live HTTP/1.1\r\n").await.unwrap();
        }
        idle.push(stream);
    }
    // A later request is served, so all of them have been accepted.
    ring.until_ready().await;
    let cost = resident(ring.pids().0).saturating_sub(before);
    println!(
        "{CONNECTIONS} connections cost the gateway {} KiB, {} bytes each",
        cost >> 10,
        cost / CONNECTIONS as u64
    );
    assert!(cost < BYTES_EACH * CONNECTIONS as u64, "{cost} bytes");
}

/// Memory that a process holds, in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
