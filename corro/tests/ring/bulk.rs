//! Many users at once: in one request, and in and out of files, while processes are killed.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use super::copies::until_equal;
use super::measure::cpu_seconds;
use super::processes::Ring;

fn id(number: u64) -> Uuid {
    Uuid::from_u128(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

/// How many users there are: none was ever deleted, and both copies have all of them.
fn count(ring: &Ring) -> u64 {
    until_equal(ring).0 as u64
}

/// One HTTP/1.0 request, whose answer ends with the connection. `meanwhile` is called when half of the lines
/// are sent.
async fn bulk(port: u16, lines: &[String], meanwhile: impl AsyncFnOnce()) -> Vec<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let length: usize = lines.iter().map(|line| line.len() + 1).sum();
    let send = async {
        let head = format!(
            "POST /api/user/bulk HTTP/1.0\r\ncontent-type: application/x-ndjson\r\n\
             content-length: {length}\r\n\r\n"
        );
        writer.write_all(head.as_bytes()).await.unwrap();
        let (first, second) = lines.split_at(lines.len() / 2);
        writer.write_all(format!("{}\n", first.join("\n")).as_bytes()).await.unwrap();
        meanwhile().await;
        writer.write_all(format!("{}\n", second.join("\n")).as_bytes()).await.unwrap();
    };
    let mut answer = Vec::new();
    let (_, read) = tokio::join!(send, reader.read_to_end(&mut answer));
    read.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, results) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200"), "{head}");
    results.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_db_process_killed_in_the_middle_of_fifty_thousand_lines_fails_none_of_them() {
    const USERS: u64 = 25_000;
    let mut ring = Ring::start(3).await;
    let mut lines = Vec::new();
    for number in 0..USERS {
        let id = id(number);
        lines.push(json!({"op": "create", "id": id, "name": "n", "email": "a@b"}).to_string());
        lines.push(json!({"op": "update", "id": id, "group": number}).to_string());
    }
    let port = ring.rest_port;
    let results = bulk(port, &lines, async || ring.kill(1)).await;
    assert_eq!(results.len(), lines.len());
    for (index, result) in results.iter().enumerate() {
        let expected = if index % 2 == 0 { 201 } else { 200 };
        assert_eq!((&result["line"], &result["status"]), (&json!(index + 1), &json!(expected)), "{result}");
    }
    ring.start_process(1);
    ring.until_ready().await;
    assert_eq!(count(&ring), USERS);
    let mut client = ring.client().await;
    for number in (0..USERS).step_by(500) {
        let answer = client.get(id(number)).await;
        assert_eq!((answer.status, u64::from(answer.user().group.unsigned_abs())), (StatusCode::OK, number));
    }
}

fn corro(ring: &Ring, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corro"));
    command.args(arguments).args(["--url", &format!("http://127.0.0.1:{}", ring.rest_port)]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it, without standing in the way of the test.
async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn said(output: &Output, code: i32) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(output.status.code(), Some(code), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn what_is_exported_is_what_was_imported_in_both_formats() {
    let ring = Ring::start(3).await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let names = ["plain", "comma, \"quoted\"", "e\u{301}", "\u{202e}right", " spaces ", "'=1+1"];
    let mut expected = Vec::new();
    for number in 0..2_500_u64 {
        let name = names[number as usize % names.len()];
        let composed = name.replace("e\u{301}", "\u{e9}");
        let group = number as i64 - 1_000;
        let user =
            |name: &str| json!({"id": id(number), "name": name, "email": "a@example.org", "group": group});
        expected.push((user(name), user(&composed)));
    }
    expected.sort_by_key(|(user, _)| user["id"].as_str().map(str::to_owned));
    let given =
        |users: &[(Value, Value)]| users.iter().map(|(user, _)| format!("{user}\n")).collect::<String>();
    std::fs::write(at("in.ndjson"), given(&expected)).unwrap();
    let printed = said(&run(corro(&ring, &["import", text(&at("in.ndjson"))])).await, 0);
    assert!(printed.starts_with("2500 created, 0 updated, 0 skipped, 0 failed"), "{printed}");

    let out = |name: &str| {
        let users = std::fs::read_to_string(at(name)).unwrap();
        users.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    let stored: Vec<Value> = expected.iter().map(|(_, user)| user.clone()).collect();
    said(&run(corro(&ring, &["export", "--output", text(&at("out.ndjson"))])).await, 0);
    assert!(out("out.ndjson") == stored, "as it was imported, in id order");
    said(&run(corro(&ring, &["export", "--output", text(&at("out.csv"))])).await, 0);
    said(&run(corro(&ring, &["export", "--group", "-7", "--output", text(&at("one.ndjson"))])).await, 0);
    assert_eq!(out("one.ndjson").len(), 1);

    // Into an empty ring by way of the other format.
    let other = Ring::start(1).await;
    said(&run(corro(&other, &["import", text(&at("out.csv"))])).await, 0);
    said(&run(corro(&other, &["export", "--output", text(&at("again.ndjson"))])).await, 0);
    assert!(out("again.ndjson") == stored, "as it was before");
    let printed = said(&run(corro(&other, &["import", text(&at("out.csv"))])).await, 0);
    assert!(printed.starts_with("0 created, 0 updated, 2500 skipped"), "{printed}");
}

#[tokio::test]
async fn rows_that_exist_or_are_wrong_are_treated_as_told() {
    let ring = Ring::start(1).await;
    let folder = tempfile::tempdir().unwrap();
    let (file, errors) = (folder.path().join("in.csv"), folder.path().join("errors"));
    let (first, second) = (id(1), id(2));
    std::fs::write(
        &file,
        format!("id,name,email\n{first},Ada,ada@example.org\n{second},Eve,not an address\n"),
    )
    .unwrap();
    let with = |more: &[&'static str]| {
        let mut arguments = vec!["import", text(&file), "--errors", text(&errors)];
        arguments.extend(more);
        corro(&ring, &arguments)
    };
    let printed = said(&run(with(&[])).await, 1);
    assert!(printed.starts_with("1 created, 0 updated, 0 skipped, 1 failed"), "{printed}");
    let failed: Value = serde_json::from_str(&std::fs::read_to_string(&errors).unwrap()).unwrap();
    assert_eq!((&failed["row"], &failed["status"]), (&json!(2), &json!(422)), "{failed}");
    assert_eq!(failed["user"]["name"], "Eve");
    assert_eq!(failed["errors"][0]["pointer"], "/email");

    std::fs::write(&file, format!("id,name,email\n{first},Ada Lovelace,ada@example.org\n")).unwrap();
    let printed = said(&run(with(&["--on-conflict", "fail"])).await, 1);
    assert!(printed.contains("1 failed"), "{printed}");
    let printed = said(&run(with(&["--on-conflict", "update"])).await, 0);
    assert!(printed.starts_with("0 created, 1 updated"), "{printed}");
    assert_eq!(ring.client().await.get(first).await.user().name, "Ada Lovelace");
    std::fs::write(&file, "id,name\n").unwrap();
    said(&run(with(&[])).await, 2);
}

/// What a ring rejects is written as it is in the file; corrected, it is imported.
#[tokio::test]
async fn rejected_rows_are_corrected_and_imported_again() {
    let ring = Ring::start(1).await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let text = |name: &str| at(name).to_str().unwrap().to_owned();
    let good = "Ana,ana@example.org,1\n";
    let bad: [&[u8]; 4] = [
        b"\"two\nlines\",two@example.org,1",
        b"Jos\xe9,jose@example.org,2",
        b"Eve,eve@example.org,1.5",
        b"Bo",
    ];
    let header = b"Name,email,group\n";
    std::fs::write(at("in.csv"), [header, good.as_bytes(), &bad.join(&b'\n')].concat()).unwrap();
    let import = corro(&ring, &["import", &text("in.csv"), "--rejected", &text("rejected.csv")]);
    let output = run(import).await;
    assert!(said(&output, 1).starts_with("1 created, 0 updated, 0 skipped, 4 failed"));
    let reasons = String::from_utf8(output.stderr).unwrap();
    for reason in [
        "row 2 (line 3): /name ",
        "row 3 (line 5): it is not UTF-8: byte 4 is 0xe9",
        "row 4 (line 6): /group ",
        "row 5 (line 7): it has 1 fields",
    ] {
        assert!(reasons.contains(reason), "{reason} is missing in {reasons}");
    }
    let rejected = std::fs::read(at("rejected.csv")).unwrap();
    let rows = rejected.strip_prefix(header).unwrap();
    for row in bad {
        assert!(rows.windows(row.len()).any(|part| part == row), "byte for byte: {row:?}");
    }
    assert_eq!(rows.len(), bad.iter().map(|row| row.len() + 1).sum::<usize>());

    let corrected = String::from_utf8_lossy(&rejected).replace("two\nlines", "one line");
    let corrected =
        corrected.replace('\u{fffd}', "e").replace("1.5", "1.0").replace("Bo\n", "Bo,bo@example.org,\n");
    std::fs::write(at("corrected.csv"), corrected).unwrap();
    let printed = said(&run(corro(&ring, &["import", &text("corrected.csv")])).await, 0);
    assert!(printed.starts_with("4 created"), "{printed}");
    assert_eq!(super::lists::count(&mut ring.client().await, "").await, 5);
}

#[tokio::test]
async fn one_user_at_a_time_and_the_ring_as_a_table() {
    let ring = Ring::start(1).await;
    let users = async |arguments: &[&str], code: i32| {
        said(&run(corro(&ring, &[&["users"], arguments].concat())).await, code)
    };
    let user = users(&["create", "--name=Ana", "--email=ana+1@example.org", "--group=-7"], 0).await;
    let user: Value = serde_json::from_str(&user).unwrap();
    let id = user["id"].as_str().unwrap();
    for arguments in [&["get", id][..], &["list", "--email=ana+1@example.org", "--group=-7"]] {
        assert_eq!(serde_json::from_str::<Value>(&users(arguments, 0).await).unwrap(), user);
    }
    assert_eq!(users(&["list", "--group=8"], 0).await, "");
    assert_eq!(users(&["count"], 0).await, "1\n");
    assert!(users(&["update", id, "--name=Bo"], 0).await.contains("\"name\":\"Bo\""));
    assert_eq!(users(&["update", id, "--name="], 1).await, "");
    assert_eq!(users(&["create", "--id", id, "--name=n", "--email=a@b"], 1).await, "");
    for code in [0, 1] {
        assert_eq!(users(&["delete", id], code).await, "");
    }
    assert_eq!(users(&["get", id], 1).await, "");
    // Printed to nothing, a user is not printed.
    let mut full = corro(&ring, &["users", "count"]);
    full.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
    assert_eq!(run(full).await.status.code(), Some(2));

    let table = said(&run(corro(&ring, &["status"])).await, 0);
    assert!(table.contains("1 db-processes") && table.contains("PARTITION"), "{table}");
    let json = said(&run(corro(&ring, &["status", "--json"])).await, 0);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["ready"], true);
}

#[tokio::test]
async fn a_bench_of_a_running_ring_deletes_its_users() {
    let ring = Ring::start(1).await;
    ring.client().await.post(&json!({"name": "stays", "email": "stays@example.org"})).await;
    let flags =
        ["bench", "--no-ceiling", "--rounds=1", "--seconds=0.1", "--users=300", "--mix=get,post,delete"];
    let printed = said(&run(corro(&ring, &flags)).await, 0);
    assert!(printed.starts_with("This creates 300 users"), "{printed}");
    assert!(printed.contains("its users are deleted"), "{printed}");
    assert_eq!(super::lists::count(&mut ring.client().await, "").await, 1);
}

/// Rows without ids: whatever is killed, and however often it is begun, each becomes one user.
#[tokio::test]
async fn an_import_survives_the_gateway_and_is_run_again_without_doing_a_row_twice() {
    const USERS: u64 = 90_000;
    let mut ring = Ring::start(3).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("in.csv");
    let mut rows = String::from("name,email,group\n");
    for number in 0..USERS {
        // Every third row is like the one before.
        let number = number - u64::from(number % 3 == 2);
        writeln!(rows, "user {number},user{number}@example.org,{}", number % 7).unwrap();
    }
    std::fs::write(&file, rows).unwrap();

    // Interrupted.
    let mut import = corro(&ring, &["import", text(&file)]).spawn().unwrap();
    until_written(&ring, 5_000).await;
    import.kill().unwrap();
    import.wait().unwrap();
    let before = count(&ring);
    assert!(before < USERS, "it was not interrupted");

    // Run again, while the gateway and then a db-process are killed. Each row is a write again.
    let import = corro(&ring, &["import", text(&file)]).spawn().unwrap();
    until_written(&ring, before + 10_000).await;
    ring.kill_gateway();
    ring.start_gateway();
    until_written(&ring, 5_000).await;
    ring.kill(2);
    let output = tokio::task::spawn_blocking(move || import.wait_with_output().unwrap()).await.unwrap();
    println!("{}", said(&output, 0).trim());
    ring.start_process(2);
    ring.until_ready().await;
    assert_eq!(count(&ring), USERS);
    let printed = said(&run(corro(&ring, &["import", text(&file)])).await, 0);
    assert!(printed.starts_with(&format!("0 created, 0 updated, {USERS} skipped")), "{printed}");
    assert_eq!(count(&ring), USERS);
}

/// Waits until the gateway has answered so many writes since its start.
async fn until_written(ring: &Ring, at_least: u64) {
    ring.until("users are written", |cluster| cluster["served"]["writes"].as_u64().unwrap() >= at_least)
        .await;
}

/// From /proc: a figure in KiB, as it stands in `status`.
fn kib(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
#[ignore = "a measurement"]
async fn how_long_a_million_creates_in_one_request_take() {
    const USERS: u64 = 1_000_000;
    let ring = Ring::start(3).await;
    let (gateway, processes) = ring.pids();
    let mut text = String::new();
    for number in 0..USERS {
        let user = json!({
            "op": "create", "id": id(number), "name": format!("Ana Ruiz {number}"),
            "email": format!("ana.ruiz.{number}@example.org"), "group": number % 100
        });
        writeln!(text, "{user}").unwrap();
    }
    let cpu = || (cpu_seconds(gateway), processes.iter().map(|pid| cpu_seconds(*pid)).sum::<f64>());
    let (before, start) = (cpu(), std::time::Instant::now());
    let mut stream = TcpStream::connect(("127.0.0.1", ring.rest_port)).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let send = async {
        let head = format!(
            "POST /api/user/bulk HTTP/1.0\r\ncontent-type: application/x-ndjson\r\n\
             content-length: {}\r\n\r\n",
            text.len()
        );
        writer.write_all(head.as_bytes()).await.unwrap();
        writer.write_all(text.as_bytes()).await.unwrap();
    };
    let read = async {
        let (mut results, mut good, mut buffer) = (0, 0, Vec::with_capacity(1 << 20));
        while reader.read_buf(&mut buffer).await.unwrap() > 0 {
            let Some(end) = buffer.iter().rposition(|&byte| byte == b'\n') else { continue };
            for line in buffer[..end].split(|&byte| byte == b'\n') {
                let status = line.iter().skip(8).skip_while(|byte| **byte != b',').skip(10).take(3);
                good += u64::from(status.eq(b"201"));
                results += u64::from(line.starts_with(b"{\"line\":"));
            }
            buffer.drain(..=end);
        }
        (results, good)
    };
    let (_, (results, good)) = tokio::join!(send, read);
    let (after, took) = (cpu(), start.elapsed().as_secs_f64());
    assert_eq!((results, good), (USERS, USERS));
    println!(
        "{USERS} creates in {took:.2} s: {:.0} users/s; CPU a user: gateway {:.1} µs, \
         db-processes together {:.1} µs; gateway at most {} MiB",
        USERS as f64 / took,
        (after.0 - before.0) * 1e6 / USERS as f64,
        (after.1 - before.1) * 1e6 / USERS as f64,
        kib(gateway, "VmHWM") >> 10,
    );
    assert_eq!(count(&ring), USERS);
}
