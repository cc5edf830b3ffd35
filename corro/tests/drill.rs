//! A short drill with a ring of its own: the verdict, the exit code, the files, and that nothing is left behind.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A drill, with a folder for all that is temporary.
fn drill(arguments: &[&str]) -> (Output, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_corro"));
    for variable in ["REST_PORT", "SOCKET_PORT", "DB_PROCESSES", "NODE_ENV", "API_TOKEN", "RUST_LOG"] {
        command.env_remove(variable);
    }
    let output = command
        .arg("drill")
        .args(arguments)
        .env("TMPDIR", folder.path())
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output, folder)
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
    assert!(line(&["--faults=dance"]).contains("allowed: stop, kill, hang, wipe, gateway"));
    assert!(line(&["--driver=compose", "--faults=wipe"]).contains("cannot do wipe"));
    assert!(line(&["--target=nobody"]).contains("allowed: all, random, db-0"));
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
