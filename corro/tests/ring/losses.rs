//! Two losses at once, and a disk that is full or hangs: what cannot be served is refused, and nothing
//! acknowledged is lost.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use hyper::{Method, StatusCode};
use protocol::placement::partition_of;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::client::Client;
use super::copies::until_equal;
use super::processes::Ring;
use super::skip::skip_unless_ci;

/// A user that one writer counts up.
struct Counted {
    id: Uuid,
    sent: AtomicI32,
    acknowledged: AtomicI32,
}

/// Writers that go on whatever happens to the gateway. Each has users of its own.
struct Writers {
    users: Arc<Vec<Counted>>,
    /// Writes that were answered otherwise than with 200.
    unanswered: Arc<AtomicU64>,
    written: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Writers {
    /// Creates `users` users whose names have that many bytes, and starts to write them.
    async fn start(ring: &Ring, writers: usize, users: usize, name: usize) -> Self {
        let fresh =
            |_| Counted { id: Uuid::new_v4(), sent: AtomicI32::new(0), acknowledged: AtomicI32::new(0) };
        let users: Arc<Vec<Counted>> = Arc::new((0..users).map(fresh).collect());
        let mut client = ring.client().await;
        for user in users.iter() {
            let body = json!({"id": user.id, "name": "n".repeat(name), "email": "ana@example.org"});
            assert_eq!(client.post(&body).await.status, StatusCode::CREATED);
        }
        let (unanswered, written, stop) = <(Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicBool>)>::default();
        let mut tasks = JoinSet::new();
        for writer in 0..writers {
            let (users, unanswered, written) =
                (Arc::clone(&users), Arc::clone(&unanswered), Arc::clone(&written));
            let (stop, port) = (Arc::clone(&stop), ring.rest_port);
            tasks.spawn(async move {
                let mut client = Client::new(port);
                let own: Vec<&Counted> = users.iter().skip(writer).step_by(writers).collect();
                for user in own.iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let count = user.sent.fetch_add(1, Ordering::SeqCst) + 1;
                    let letter = char::from(b'a' + (count % 26) as u8);
                    let body =
                        json!({"id": user.id, "group": count, "name": letter.to_string().repeat(name)});
                    match client.try_send(Method::PUT, "/api/user", &body).await {
                        Some(answer) if answer.status == StatusCode::OK => {
                            user.acknowledged.store(count, Ordering::SeqCst);
                            written.fetch_add(1, Ordering::Relaxed);
                        }
                        _ => {
                            unanswered.fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(Duration::from_millis(2)).await;
                        }
                    }
                }
            });
        }
        Self { users, unanswered, written, stop, tasks }
    }

    async fn until_more(&self, writes: u64) {
        let goal = self.written.load(Ordering::Relaxed) + writes;
        while self.written.load(Ordering::Relaxed) < goal {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends the load, and reads every user: it must be what was acknowledged last, or something that was sent
    /// later.
    async fn finish(mut self, ring: &Ring) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        let mut client = ring.client().await;
        for user in self.users.iter() {
            let answer = client.get(user.id).await;
            assert_eq!(answer.status, StatusCode::OK);
            let (group, least) = (answer.user().group, user.acknowledged.load(Ordering::SeqCst));
            let most = user.sent.load(Ordering::SeqCst);
            assert!((least..=most).contains(&group), "{group} was found, {least} acknowledged, {most} sent");
        }
        self.unanswered.load(Ordering::Relaxed)
    }
}

fn connected(cluster: &Value) -> usize {
    cluster["processes"].as_array().unwrap().iter().filter(|process| process["connected"] == true).count()
}

/// A user of that partition.
fn user_of(partition: u16) -> Uuid {
    std::iter::repeat_with(Uuid::new_v4).find(|id| partition_of(id, 3) == partition).unwrap()
}

#[tokio::test]
async fn the_gateway_and_a_db_process_killed_together_lose_nothing_once_that_is_back() {
    let mut ring = Ring::start(3).await;
    let writers = Writers::start(&ring, 16, 200, 10).await;
    for place in 0..3 {
        writers.until_more(500).await;
        // The gateway first: it would let the other copy lead before it is killed itself.
        ring.kill_gateway();
        ring.kill(place);
        ring.start_gateway();
        ring.until("the others are there", |cluster| connected(cluster) == 2).await;
        // What the lost process acknowledged last was in the memory of the gateway.
        let path = format!("/api/user/{}", user_of(place));
        let refused = ring.client().await.send(Method::GET, &path, None).await;
        assert_eq!((refused.status, refused.retry_after), (StatusCode::SERVICE_UNAVAILABLE, true));
        assert_eq!(refused.json()["partition"], place);
        writers.until_more(200).await;
        ring.start_process(place);
        ring.until_ready().await;
    }
    writers.until_more(500).await;
    let unanswered = writers.finish(&ring).await;
    let (records, took) = until_equal(&ring);
    println!(
        "{unanswered} writes refused or broken off; {records} records in both copies, equal after {took:?}"
    );
    assert_eq!(records, 200);
}

/// What a command that needs rights says if it is not allowed.
fn refused(command: &mut Command) -> Option<String> {
    match command.output() {
        Ok(Output { status, .. }) if status.success() => None,
        Ok(Output { stderr, .. }) => Some(String::from_utf8_lossy(&stderr).trim().to_owned()),
        Err(error) => Some(format!("{command:?}: {error}")),
    }
}

/// A file system of its own.
struct Disk(PathBuf);

impl Disk {
    /// Of a few megabytes. `None` where this is not allowed: the test is skipped.
    fn small(folder: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        Self::made_by([mount.args(["-t", "tmpfs", "-o", "size=48m", "none"]).arg(folder)], folder)
    }

    /// One that can stand still: a process that writes there waits, and cannot be killed. `None` as above.
    fn that_can_hang(folder: &Path) -> Option<Self> {
        let image = folder.with_extension("image");
        std::fs::File::create(&image).unwrap().set_len(1 << 30).unwrap();
        let (mut make, mut mount) = (Command::new("mkfs.ext4"), Command::new("mount"));
        let mounted = mount.args(["-o", "loop"]).arg(&image).arg(folder);
        Self::made_by([make.arg("-q").arg(&image), mounted], folder)
    }

    fn made_by<'a>(commands: impl IntoIterator<Item = &'a mut Command>, folder: &Path) -> Option<Self> {
        std::fs::create_dir_all(folder).unwrap();
        if let Some(why) = commands.into_iter().find_map(refused) {
            skip_unless_ci(&format!("no disk can be mounted: {why}"));
            return None;
        }
        Some(Self(folder.to_owned()))
    }

    /// Writes a file that leaves nothing. Returns where it is.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = std::fs::File::create(&path).unwrap();
        let full = std::io::copy(&mut std::io::repeat(7), &mut file).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        path
    }

    fn hang(&self) {
        assert_eq!(refused(Command::new("fsfreeze").arg("--freeze").arg(&self.0)), None);
    }

    fn go_on(&self) {
        assert_eq!(refused(Command::new("fsfreeze").arg("--unfreeze").arg(&self.0)), None);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It hangs where a test has failed meanwhile.
        let _ = refused(Command::new("fsfreeze").arg("--unfreeze").arg(&self.0));
        // A process that is being killed may still hold it; then it goes with that.
        let _ = refused(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

/// Starts the processes of a ring, and a load of 300 users.
async fn start_under_load(ring: &mut Ring) -> Writers {
    (0..ring.size).for_each(|place| ring.start_process(place));
    ring.until_ready().await;
    let writers = Writers::start(ring, 16, 300, 250).await;
    writers.until_more(500).await;
    writers
}

/// Ends that load: no request failed, and both copies have everything.
async fn finish_whole(ring: &Ring, writers: Writers) {
    ring.until_ready().await;
    writers.until_more(500).await;
    assert_eq!(writers.finish(ring).await, 0, "a request failed\n{}", ring.logs());
    let (records, took) = until_equal(ring);
    println!("{records} records in both copies, equal {took:?} after the load's end");
    assert_eq!(records, 300);
}

#[tokio::test]
async fn a_db_process_whose_disk_hangs_is_given_up_until_it_goes_on_and_no_request_fails() {
    let mut ring = Ring::without_processes(3);
    let Some(disk) = Disk::that_can_hang(&ring.data_dir(1)) else { return };
    let writers = start_under_load(&mut ring).await;
    disk.hang();
    ring.until("another copy leads", |cluster| cluster["partitions"][1]["lead"] == "db-2").await;
    writers.until_more(1_000).await;
    ring.until_says(1, "its disk hangs").await;
    assert_eq!(
        connected(&ring.client().await.cluster().await),
        2,
        "it has writes that no other process knows"
    );
    disk.go_on();
    ring.until("it leads again", |cluster| cluster["partitions"][1]["lead"] == "db-1").await;
    finish_whole(&ring, writers).await;
}

#[tokio::test]
async fn a_db_process_whose_disk_is_full_says_so_and_leaves_and_the_ring_goes_on() {
    let mut ring = Ring::without_processes(3);
    let Some(disk) = Disk::small(&ring.data_dir(1)) else { return };
    let writers = start_under_load(&mut ring).await;
    disk.fill();
    let status: ExitStatus = ring.until_exited(1).await;
    assert!(!status.success(), "it did not end by itself: {status}");
    let log = ring.output_of(1);
    assert!(log.contains("No space left on device"), "it does not say why: {log}");
    assert!(log.contains("What to do: nothing is damaged, so remove nothing in"), "{log}");
    // What the process had open, and is no more, has left a little room.
    let ballast = disk.fill();
    ring.start_process(1);
    assert!(!ring.until_exited(1).await.success());
    let again = ring.output_of(1)[log.len()..].to_owned();
    assert!(again.contains("What to do: nothing is damaged, so remove nothing in"), "{again}");
    writers.until_more(1_000).await;
    std::fs::remove_file(ballast).unwrap();
    ring.start_process(1);
    finish_whole(&ring, writers).await;
}

#[tokio::test]
async fn a_db_process_whose_disk_is_read_only_says_so_and_has_all_when_it_is_not() {
    let mut ring = Ring::without_processes(3);
    let Some(disk) = Disk::small(&ring.data_dir(1)) else { return };
    let writers = start_under_load(&mut ring).await;
    let remount = |how| refused(Command::new("mount").args(["-o", how]).arg(&disk.0));
    ring.kill(1);
    assert_eq!(remount("remount,ro"), None);
    ring.start_process(1);
    assert_eq!(ring.until_exited(1).await.code(), Some(1));
    let log = ring.output_of(1);
    let wanted = format!("What to do: remove nothing in {}: its file system is read-only", disk.0.display());
    assert!(log.contains(&wanted), "{log}");
    assert_eq!(remount("remount,rw"), None);
    ring.start_process(1);
    finish_whole(&ring, writers).await;
}

#[tokio::test]
async fn a_db_process_without_room_for_what_it_writes_out_at_the_end_says_so_and_has_it_all_the_same() {
    let mut ring = Ring::without_processes(1);
    let Some(disk) = Disk::small(&ring.data_dir(0)) else { return };
    ring.start_process(0);
    ring.until_ready().await;
    let ids: Vec<Uuid> = std::iter::repeat_with(Uuid::new_v4).take(100).collect();
    let mut client = ring.client().await;
    for id in &ids {
        let user = json!({"id": id, "name": "Ana", "email": "ana@example.org"});
        assert_eq!(client.post(&user).await.status, StatusCode::CREATED);
    }
    let ballast = disk.fill();
    ring.signal(0, Signal::TERM);
    let status = ring.until_exited(0).await;
    let log = ring.output_of(0);
    assert!(!status.success(), "{status}: {log}");
    assert!(log.contains("No space left on device"), "it does not say why: {log}");
    std::fs::remove_file(ballast).unwrap();
    ring.start_process(0);
    ring.until_ready().await;
    for id in &ids {
        assert_eq!(client.get(*id).await.status, StatusCode::OK);
    }
}

/// `corro promote`, with what it says.
pub(crate) fn promote(ring: &Ring, partition: u16, more: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_corro"))
        .args(["promote", &partition.to_string(), "--url", &format!("http://127.0.0.1:{}", ring.rest_port)])
        .args(more)
        .env_remove("API_TOKEN")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn the_operator_promotes_the_copy_that_is_there_by_a_command() {
    let mut ring = Ring::start(3).await;
    let id = user_of(1);
    let created =
        ring.client().await.post(&json!({"id": id, "name": "Ana", "email": "ana@example.org"})).await;
    assert_eq!(created.status, StatusCode::CREATED);
    let (done, said) = promote(&ring, 1, &["--yes"]);
    assert!(!done && said.contains("is led by db-1"), "{said}");
    let (done, said) = promote(&ring, 7, &["--yes"]);
    assert!(!done && said.contains("no partition 7 in a ring of 3"), "{said}");

    // The gateway first: it would let the other copy lead before it is killed itself.
    ring.kill_gateway();
    ring.kill(1);
    ring.start_gateway();
    ring.until("the others are there", |cluster| connected(cluster) == 2).await;
    let (done, said) = promote(&ring, 1, &[]);
    assert!(!done && said.contains("--yes"), "there was no question: {said}");
    let (done, said) = promote(&ring, 1, &["--yes"]);
    assert!(done, "{said}");
    for part in ["db-1 has to come back", "away", "not known", "Partition 1 is led by db-2"] {
        assert!(said.contains(part), "{part} is missing in {said}");
    }
    let written = ring.client().await.put(&json!({"id": id, "group": 7})).await;
    assert_eq!((written.status, written.user().group), (StatusCode::OK, 7));
    ring.start_process(1);
    ring.until_ready().await;
    assert_eq!(ring.client().await.get(id).await.user().group, 7);
    assert_eq!(until_equal(&ring).0, 1);
}
