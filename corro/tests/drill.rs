//! A short drill with a ring of its own: the verdict, the exit code, the files, and that nothing is left
//! behind.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// A drill, with a folder for all that is temporary.
fn drill(arguments: &[&str]) -> (Output, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let output = command(env!("CARGO_BIN_EXE_corro"))
        .arg("drill")
        .args(arguments)
        .env("TMPDIR", folder.path())
        .current_dir(folder.path())
        .output()
        .unwrap();
    (output, folder)
}

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
        "RUST_LOG",
    ] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

#[test]
fn a_killed_and_a_stopped_process_are_noticed_by_nobody() {
    let (output, folder) = drill(&[
        "--cycles=2",
        "--faults=kill,stop",
        "--target=db-1",
        "--connections=8",
        "--users=200",
        "--seed=7",
        "--report=report.json",
        "--html=report.html",
    ]);
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("PASSED: 2 of 2 cycles"), "{said}");

    let report = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["passed"], true);
    let histories = &report["histories"];
    for (name, figure) in [
        ("failed", &report["failed"]),
        ("refused", &report["refused_while_gateway_down"]),
        ("lost", &histories["lost_writes"]),
        ("stale", &histories["stale_reads"]),
        ("violations", &histories["violations"]),
        ("undecided", &histories["undecided"]),
    ] {
        assert_eq!(figure, 0, "{name}");
    }
    assert_eq!(report["copies_compared"], 2);
    assert_eq!(report["copies_differ"], Value::Array(Vec::new()));
    assert_eq!(
        (&report["counts_compared"], &report["counts_differ"]),
        (&2.into(), &Value::Array(Vec::new()))
    );
    assert!(report["users_counted"].as_u64().unwrap() > 50);
    assert!(histories["checked"].as_u64().unwrap() >= 200 && report["records"].as_u64().unwrap() > 100);
    assert!(report["reads"].as_u64().unwrap() > 500 && report["writes"].as_u64().unwrap() > 500);
    let cycles = report["cycles"].as_array().unwrap();
    let done: Vec<String> =
        cycles.iter().map(|cycle| format!("{} {}", cycle["fault"], cycle["process"])).collect();
    assert_eq!(done, [r#""kill" "db-1""#, r#""stop" "db-1""#]);

    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("Passed"));
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the two files that were asked for, not {left:?}");
}

#[test]
fn a_drill_that_cannot_be_done_says_why_and_ends_with_2() {
    let line = |arguments: &[&str]| {
        let (output, _folder) = drill(arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(line(&["--faults=dance"]).contains("allowed: stop, kill, hang, wipe, rollback, gateway"));
    assert!(line(&["--driver=compose", "--faults=wipe"]).contains("cannot do wipe"));
    assert!(line(&["--target=nothing"]).contains("allowed: all, random, db-0"));
    assert!(line(&["--cycles=0"]).contains("cycles"));
    assert!(line(&["--folder=."]).contains("no demo runs here"));
}

#[test]
fn a_target_that_the_ring_does_not_have_is_refused() {
    let (output, folder) = drill(&["--target=db-3"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no db-3: the ring has db-0 to db-2"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "its ring is gone");
}

/// A demo that runs, and a docker-compose in front of it: each of its words is an order to the demo.
struct Composed {
    demo: Child,
    rest_port: u16,
    folder: tempfile::TempDir,
}

/// Of a ring that is not known to be a demo.
const TOKEN: &str = "--token-file=ring/token";

impl Composed {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let corro = env!("CARGO_BIN_EXE_corro");
        let mut demo = command(corro)
            .args(["demo", "--rest-port=0", "--socket-port=0", "--folder=ring"])
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            let rest = line.strip_prefix("  API    http://localhost:")?;
            rest.split('/').next()?.parse().ok()
        });
        std::thread::spawn(move || lines.for_each(drop));
        let script = format!(
            "#!/bin/sh\necho \"$@\" >> orders\ncase $1 in version) exit;; \
             start) set -- restart $2;; \
             unpause) set -- resume $2;; esac\nexec {corro} demo \"$@\" --folder ring\n"
        );
        let compose = folder.path().join("docker-compose");
        std::fs::write(&compose, script).unwrap();
        std::fs::set_permissions(&compose, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { demo, rest_port: port.expect("the banner names the port"), folder }
    }

    fn drill(&self, arguments: &[&str]) -> Output {
        let path = format!("{}:{}", self.folder.path().display(), std::env::var("PATH").unwrap());
        command(env!("CARGO_BIN_EXE_corro"))
            .arg("drill")
            .args(["--connections=8", "--users=100", "--seed=7"])
            .args(arguments)
            .env("PATH", path)
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    /// Whether the ring is ready, by what it says itself.
    fn is_ready(&self) -> bool {
        process::probe(self.rest_port, "/health/ready").is_ok()
    }
}

impl Drop for Composed {
    fn drop(&mut self) {
        let _ = self.demo.kill();
        let _ = self.demo.wait();
    }
}

#[test]
fn the_ring_of_another_is_drilled_and_left_as_it_was() {
    let ring = Composed::start();
    let url = format!("--url=http://127.0.0.1:{}", ring.rest_port);
    let output = ring.drill(&[
        "--driver=compose",
        "--cycles=3",
        "--faults=stop,kill,hang",
        "--target=db-2",
        &url,
        TOKEN,
    ]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("not compared on disk"), "{said}");
    let orders = std::fs::read_to_string(ring.folder.path().join("orders")).unwrap();
    assert_eq!(orders, "version\nstop db-2\nstart db-2\nkill db-2\nstart db-2\npause db-2\nunpause db-2\n");

    // The same ring by the way of its demo, which can look at the disks.
    let output = ring.drill(&["--folder=ring", "--cycles=1", "--faults=kill", "--target=db-0"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("equal after 1 of 1 cycles"), "{said}");
    assert!(ring.is_ready());
}

#[test]
fn requests_that_fail_fail_the_drill() {
    let ring = Composed::start();
    // Each order to db-1 goes to the gateway instead, whose absence the drill then does not expect.
    let url = format!("--url=http://127.0.0.1:{}", ring.rest_port);
    let compose = ring.folder.path().join("docker-compose");
    let script = std::fs::read_to_string(&compose).unwrap();
    std::fs::write(&compose, script.replace("exec", "set -- $1 gateway; exec")).unwrap();
    let output =
        ring.drill(&["--driver=compose", "--cycles=1", "--faults=kill", "--target=db-1", &url, TOKEN]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("FAILED: ") && said.contains("failed at "), "{said}");
}
