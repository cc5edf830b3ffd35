//! A db-process whose disk is really slow: each of its syncs takes 1.9 seconds, for as long as a file is
//! there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::copies::until_equal;
use super::load::{LONG, Load};
use super::processes::Ring;

/// Loaded before the system's library, it stands in for two calls of it.
const SLOW_SYNC: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int slow(const char *name, int file) {
    const char *flag = getenv("SLOW_WHILE");
    if (flag && access(flag, F_OK) == 0) {
        struct timespec time = {1, 900000000};
        nanosleep(&time, NULL);
    }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return real(file);
}

int fsync(int file) { return slow("fsync", file); }
int fdatasync(int file) { return slow("fdatasync", file); }
"#;

/// Makes that a library, with the compiler that links Rust's programs as well.
fn slow_sync(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("slow.c"), folder.join("slow.so"));
    std::fs::write(&source, SLOW_SYNC).unwrap();
    let mut compiler = Command::new("cc");
    let made =
        compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    library
}

fn leads(cluster: &Value, process: &str) -> bool {
    cluster["partitions"][1]["lead"] == process
}

#[tokio::test]
async fn a_db_process_whose_disk_is_slow_loses_the_lead_until_that_is_fast_again_and_no_request_fails() {
    let folder = TempDir::new().unwrap();
    let flag = folder.path().join("slow");
    let mut ring = Ring::without_processes(3);
    ring.environment.push((1, "LD_PRELOAD", slow_sync(folder.path())));
    ring.environment.push((1, "SLOW_WHILE", flag.clone()));
    (0..3).for_each(|place| ring.start_process(place));
    ring.until_ready().await;
    let load = Load::start(ring.rest_port, 16, 200).await;
    load.until_more(500, 500).await;

    std::fs::write(&flag, "").unwrap();
    let slow_since = Instant::now();
    ring.until("another copy leads", |cluster| leads(cluster, "db-2")).await;
    println!("another copy leads {:?} after the disk has become slow", slow_since.elapsed());
    load.until_more(2_000, 2_000).await;
    let cluster = ring.client().await.cluster().await;
    let partition = &cluster["partitions"][1];
    assert_eq!(partition["copies"][0]["slow"], "its disk is slow", "{cluster:#}");
    assert_eq!(partition["waiting_for"], "db-1 has to be fast for a while: its disk is slow");
    let said = cluster["events"].to_string();
    assert!(said.contains("db-2 for partition 1, since the disk of the leader is slow"), "{said}");
    // The disk stays slow, and no request waits for it any more.
    tokio::time::sleep(Duration::from_secs(20).saturating_sub(slow_since.elapsed())).await;
    assert!(leads(&ring.client().await.cluster().await, "db-2"));

    std::fs::remove_file(&flag).unwrap();
    let fast_since = Instant::now();
    ring.until("it leads again", |cluster| leads(cluster, "db-1")).await;
    println!("it leads again {:?} after the disk has become fast", fast_since.elapsed());
    ring.until_ready().await;
    load.until_more(500, 500).await;
    let seen = load.finish().await;
    let long: Vec<Duration> = seen.long_writes.iter().map(|ended| *ended - slow_since).collect();
    println!("writes of more than {LONG:?} ended {long:?} after the disk had become slow; {seen:?}");
    assert!(long.iter().all(|ended| *ended < Duration::from_secs(10)), "writes wait for the disk on and on");
    seen.assert_nothing_failed(&ring);
    let (records, took) = until_equal(&ring);
    println!("{records} records in both copies, equal {took:?} after the load's end");
    assert_eq!(records, seen.users);
}
