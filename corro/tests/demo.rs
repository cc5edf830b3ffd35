//! The demo with real processes: what the drill does to them, and that none is left behind.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use corro::client::{Client, Endpoint};
use hyper::Method;
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

const CORRO: &str = env!("CARGO_BIN_EXE_corro");

/// Far more than anything here takes, on a busy machine too.
const DEADLINE: Duration = Duration::from_secs(60);

/// A command without what the shell that runs the tests has set.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for variable in [
        "REST_PORT",
        "SOCKET_PORT",
        "DB_PROCESSES",
        "NODE_ENV",
        "CORRO_ENV",
        "API_TOKEN",
        "API_TOKEN_FILE",
        "API_TOKENS",
        "API_TOKENS_FILE",
        "ALLOW_ANONYMOUS",
        "CLUSTER_SECRET",
        "CLUSTER_SECRET_FILE",
        "RUST_LOG",
    ] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

/// A demo that runs, with ports of its own, in a folder of its own.
struct Demo {
    folder: TempDir,
    /// The demo, or the shell that started it.
    started: Child,
    rest_port: u16,
}

impl Demo {
    /// Starts a ring of two with a command that gets the demo's arguments, and waits for the banner.
    fn start(mut command: Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        command
            .args(["demo", "--rest-port=0", "--socket-port=0", "--db-processes=2", "--folder"])
            .arg(folder.path());
        let mut started = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(started.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            let rest = line.strip_prefix("  API    http://localhost:")?;
            rest.split('/').next()?.parse().ok()
        });
        let rest_port = port.expect("the banner names the port");
        assert!(lines.any(|line| line.starts_with("Ctrl-C")), "the banner has an end");
        // The rest is read as well, so that the demo never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { folder, started, rest_port }
    }

    fn drill(&self, order: &[&str]) -> Output {
        command(CORRO).arg("demo").args(order).arg("--folder").arg(self.folder.path()).output().unwrap()
    }

    fn ordered(&self, order: &[&str]) -> String {
        let output = self.drill(order);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, order: &[&str]) -> String {
        let output = self.drill(order);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        one_line(&output)
    }

    /// The processes that run: gateway, db-0, db-1.
    fn pids(&self) -> Vec<u32> {
        let status = self.ordered(&["status"]);
        status.lines().filter_map(|line| line.rsplit_once("runs as process ")?.1.parse().ok()).collect()
    }

    fn is_ready(&self) -> bool {
        process::probe(self.rest_port, "/health/ready").is_ok()
    }

    /// Whether no partition waits for anything.
    fn is_whole(&self) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let token = std::fs::read_to_string(self.folder.path().join("token")).unwrap();
        let client = Client::new(Endpoint::local(self.rest_port).with_token(Some(&token)).unwrap());
        let cluster: Value = runtime.block_on(client.ask(Method::GET, "/api/cluster")).unwrap();
        cluster["partitions"].as_array().unwrap().iter().all(|partition| partition["waiting_for"].is_null())
    }

    fn signal(&self, signal: &str) {
        kill(self.started.id(), signal);
    }

    fn await_end(&mut self) -> Option<i32> {
        eventually("the end of the demo", || self.started.try_wait().unwrap().is_some());
        self.started.wait().unwrap().code()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // The kernel ends its children with it.
        let _ = self.started.kill();
        let _ = self.started.wait();
    }
}

fn kill(pid: u32, signal: &str) {
    let status = command("kill").args([signal, &pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill {signal} {pid}");
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process runs; one that has ended and was not waited for does not.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

fn one_line(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    assert!(!said.is_empty() && !said.contains('\n'), "one line, not {said:?}");
    said
}

#[test]
fn the_drill_kills_and_restarts_and_ctrl_c_ends_all() {
    let mut demo = Demo::start(command(CORRO));
    let pids = demo.pids();
    assert_eq!(pids.len(), 3, "a gateway and two db-processes");
    assert!(demo.is_ready() && pids.iter().all(|pid| runs(*pid)));

    assert_eq!(demo.ordered(&["kill", "db-1"]), "db-1 is killed\n");
    assert!(!runs(pids[2]), "killed");
    assert!(demo.ordered(&["status"]).contains("db-1     does not run (signal 9, SIGKILL)"));
    assert!(demo.refused(&["kill", "db-1"]).contains("db-1 does not run"));
    assert!(demo.refused(&["kill", "db-2"]).contains("there are gateway, db-0, db-1"));

    assert!(demo.ordered(&["restart", "db-1"]).starts_with("db-1 runs again as process "));
    eventually("a ring that is ready again", || demo.is_ready());

    assert!(demo.ordered(&["restart", "db-0"]).starts_with("db-0 has stopped, and runs again as process "));
    let pids = demo.pids();
    assert_eq!(pids.len(), 3);
    demo.signal("-INT");
    assert_eq!(demo.await_end(), Some(0));
    assert!(!pids.into_iter().any(runs), "the demo waits for its processes");
    assert!(!demo.folder.path().join("demo.sock").exists());
}

#[test]
fn a_killed_demo_leaves_no_orphans_and_the_next_finds_the_ring() {
    let mut demo = Demo::start(command(CORRO));
    let pids = demo.pids();
    demo.signal("-KILL");
    assert_eq!(demo.await_end(), None);
    eventually("the end of its processes", || !pids.iter().any(|pid| runs(*pid)));
    assert!(demo.refused(&["status"]).contains("no demo runs here"));

    // What it left (a socket, a lock file) disturbs nothing, and its ring has the size that it had.
    let output = command(CORRO)
        .args(["demo", "--db-processes=3", "--rest-port=0", "--socket-port=0", "--folder"])
        .arg(demo.folder.path())
        .output()
        .unwrap();
    assert!(one_line(&output).contains("holds a ring of 2 db-processes"), "{output:?}");
}

#[test]
fn a_demo_ends_with_its_parent() {
    // A shell in the place of make: it starts the demo as its child, and is killed.
    let mut shell = command("sh");
    shell.args(["-c", r#""$0" "$@" --exit-with-parent $$; exit"#, CORRO]);
    let mut demo = Demo::start(shell);
    let pids = demo.pids();
    demo.signal("-KILL");
    demo.await_end();
    eventually("the end of its processes", || !pids.iter().any(|pid| runs(*pid)));
    // It had time to put things in order.
    eventually("the end of the demo", || !demo.folder.path().join("demo.sock").exists());
}

#[test]
fn a_process_whose_parent_has_ended_already_does_not_start() {
    let output = command(CORRO).args(["gateway", "--exit-with-parent=4194304"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).contains("process 4194304, which started this one, has ended"), "{output:?}");
}

/// What a shell makes of the lines of the banner, and what the commands find by themselves.
#[test]
fn the_ring_of_a_demo_answers_only_those_who_have_its_token() {
    let folder = tempfile::tempdir().unwrap();
    let mut start = command(CORRO);
    start.args(["demo", "--rest-port=0", "--socket-port=0", "--db-processes=2"]).current_dir(folder.path());
    let mut demo = start.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map_while(Result::ok);
    let banner: Vec<String> = lines.by_ref().take_while(|line| !line.starts_with("Ctrl-C")).collect();
    std::thread::spawn(move || lines.for_each(drop));
    let calls: Vec<&str> =
        banner.iter().map(|line| line.trim()).filter(|line| line.starts_with("curl ")).collect();
    assert!(calls.len() > 5, "{banner:?}");
    let shell = |line: &str| {
        let output = command("sh").args(["-c", line]).current_dir(folder.path()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for call in calls {
        let status =
            shell(&call.replace("curl ", "curl -s -o /dev/null -w '%{http_code}' ").replace(" -i", ""));
        assert!(["200", "201", "204"].contains(&&*status), "{call}: {status}");
        let stranger =
            call.replace("-H @.corro/auth", "-s -o /dev/null -w '%{http_code}'").replace(" -i", "");
        assert_eq!(shell(&stranger), "401", "{stranger}");
    }
    let address = banner.iter().find_map(|line| line.strip_prefix("  API    ")?.strip_suffix("/api/user/"));
    let status = |folder: &Path| {
        let mut command = command(CORRO);
        command.args(["status", "--url", address.unwrap()]).current_dir(folder).output().unwrap()
    };
    assert!(status(folder.path()).status.success());
    let elsewhere = tempfile::tempdir().unwrap();
    let refused = status(elsewhere.path());
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--token-file"), "{refused:?}");
    kill(demo.id(), "-INT");
    assert!(demo.wait().unwrap().success());
}

#[test]
fn two_demos_do_not_share_a_folder_or_a_port() {
    let demo = Demo::start(command(CORRO));
    let second = |folder: &Path, port: u16| {
        let ports = [format!("--rest-port={port}"), "--socket-port=0".to_owned()];
        one_line(&command(CORRO).arg("demo").args(ports).arg("--folder").arg(folder).output().unwrap())
    };
    let line = second(demo.folder.path(), 0);
    assert!(line.contains(&format!("already (process {})", demo.started.id())), "{line}");

    let elsewhere = tempfile::tempdir().unwrap();
    let line = second(elsewhere.path(), demo.rest_port);
    assert!(
        line.contains(&format!("port {} is taken", demo.rest_port)) && line.contains("REST_PORT="),
        "{line}"
    );
    assert!(demo.is_ready(), "the first one noticed nothing");
}

#[test]
fn a_process_that_cannot_start_ends_the_demo_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    // Data of another process, where db-0 keeps its own.
    std::fs::create_dir_all(folder.path().join("data/db-0")).unwrap();
    std::fs::write(folder.path().join("data/db-0/identity.json"), "{}").unwrap();
    let output = command(CORRO)
        .args(["demo", "--rest-port=0", "--socket-port=0", "--db-processes=1", "--folder"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let line = one_line(&output);
    assert!(line.contains("db-0 ended by itself (exit code 1)") && line.contains("db-0.out"), "{line}");
}

#[test]
fn a_damaged_database_is_told_with_what_to_do_and_the_demo_goes_on() {
    let mut demo = Demo::start(command(CORRO));
    let folder = demo.folder.path().to_owned();
    let database = folder.join("data/db-1/primary");
    let damage = || std::fs::write(database.join("CURRENT"), "").unwrap();
    let move_away =
        || std::fs::rename(&database, folder.join("data/db-1").join(Uuid::new_v4().to_string())).unwrap();
    // Ready is not yet whole: where the other copy has not caught up, nothing leads in place of db-1.
    eventually("a ring that is whole", || demo.is_whole());
    demo.ordered(&["kill", "db-1"]);
    damage();
    demo.ordered(&["restart", "db-1"]);
    eventually("the end of db-1", || demo.ordered(&["status"]).contains("does not run (exit code 1)"));
    assert_eq!(demo.pids().len(), 2, "it is not started again by itself");
    move_away();
    demo.ordered(&["restart", "db-1"]);
    eventually("a ring that is whole again", || demo.is_whole());
    assert_eq!(demo.pids().len(), 3);
    demo.signal("-INT");
    assert_eq!(demo.await_end(), Some(0));

    // The next demo meets the damage while it starts: without the others nothing could be done about it.
    damage();
    let mut start = command(CORRO);
    start.args(["demo", "--rest-port=0", "--socket-port=0", "--folder"]).arg(&folder);
    demo.started = start.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.started.stdout.take().unwrap()).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    let port = first.split(' ').find_map(|word| word.parse().ok());
    demo.rest_port = port.unwrap_or_else(|| panic!("no port in {first:?}"));
    let text = lines.find(|line| line.starts_with("db-1 ended by itself (exit code 1)")).unwrap();
    assert!(text.contains(&format!("What to do: {} is damaged", database.display())), "{text}");
    let how = lines.next().unwrap_or_default();
    assert!(
        how.contains("`corro demo restart db-1 --folder ") && how.contains(&demo.rest_port.to_string()),
        "{how}"
    );
    move_away();
    demo.ordered(&["restart", "db-1"]);
    // All were stopped, so the ring knows of no other copy that leads.
    let url = format!("http://127.0.0.1:{}", demo.rest_port);
    let token = demo.folder.path().join("token");
    let mut promote = command(CORRO);
    promote.args(["promote", "1", "--yes", "--url", &url, "--token-file"]).arg(token);
    let promoted = || promote.output().unwrap().status.success();
    eventually("a partition that can be promoted", promoted);
    assert!(lines.any(|line| line.starts_with("The ring is ready")), "the banner comes late");
    std::thread::spawn(move || lines.for_each(drop));
    demo.signal("-INT");
    assert_eq!(demo.await_end(), Some(0));
}

#[test]
fn a_gateway_whose_port_is_taken_says_so_in_its_last_line() {
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let logs = tempfile::tempdir().unwrap();
    let output = command(CORRO)
        .env("CLUSTER_SECRET", "of the test")
        .args(["gateway", &format!("--rest-port={port}"), "--socket-port=0", "--log-dir"])
        .arg(logs.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    // The demo recognises these words.
    let last = said.trim_end().lines().last().unwrap_or_default();
    assert!(last.contains("Address already in use") && last.contains(&port.to_string()), "{said}");
}
