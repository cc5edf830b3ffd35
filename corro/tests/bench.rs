//! A short bench with a ring of its own and the ceiling: every load is answered, and what the table and the
//! file say.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A bench, with a folder for all that is temporary.
fn bench(arguments: &[&str]) -> (Output, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_corro"));
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
    let output = command
        .arg("bench")
        .args(arguments)
        .args(["--seconds=0.1", "--json=bench.json", "--users=500"])
        .env("TMPDIR", folder.path())
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output, folder)
}

fn report(folder: &tempfile::TempDir) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder.path().join("bench.json")).unwrap()).unwrap()
}

#[test]
fn every_load_is_answered_by_the_ring_and_by_the_ceiling() {
    let (output, folder) = bench(&["--connections=8", "--rounds=2", "--mix=get,post,put,delete,50/50"]);
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let report = report(&folder);
    let loads = report["loads"].as_array().unwrap();
    let names: Vec<&str> = loads.iter().map(|load| load["load"].as_str().unwrap()).collect();
    assert_eq!(names, ["GET", "POST", "PUT", "DELETE", "50/50"]);
    for load in loads {
        assert_eq!(load["rounds"].as_array().unwrap().len(), 2);
        for (side, name) in load["by_side"].as_array().unwrap().iter().zip(["ring", "ceiling"]) {
            assert_eq!(side["side"], name);
            assert_eq!(side["errors"], 0, "{load:#}");
            assert!(side["requests_per_second"].as_f64().unwrap() > 0.0, "{load:#}");
            assert!(side["p50_ms"].as_f64().unwrap() <= side["p99_9_ms"].as_f64().unwrap(), "{load:#}");
        }
        let ring = &load["by_side"][0];
        assert!(ring["fraction_of"]["ceiling"].as_f64().unwrap() > 0.0, "{load:#}");
        let processes: Vec<&String> = ring["cpu_us_per_request"].as_object().unwrap().keys().collect();
        assert_eq!(processes, ["db-0", "db-1", "db-2", "gateway", "generator"]);
    }
    assert!(said.contains("% of ceiling"), "{said}");
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["bench.json"], "nothing else is left behind");
}

#[test]
fn in_an_open_loop_no_more_is_asked_than_is_due() {
    let (output, folder) =
        bench(&["--rate=500", "--rounds=1", "--mix=get", "--connections=4", "--processes=1"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report = report(&folder);
    let [load] = report["loads"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!(load["rate"], 500);
    for outcome in load["rounds"][0].as_array().unwrap() {
        // What was due in the warm-up may be answered after it, where the machine stands still meanwhile.
        let due = 500.0 * (outcome["seconds"].as_f64().unwrap() + 1.0);
        let requests = outcome["requests"].as_f64().unwrap();
        assert!(requests > 0.0 && requests <= due, "{outcome}");
    }
}

#[test]
fn a_gateway_that_is_not_there_is_an_error() {
    let (output, _) = bench(&["--url=http://127.0.0.1:1", "--no-ceiling"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("127.0.0.1:1"), "{said}");
}
