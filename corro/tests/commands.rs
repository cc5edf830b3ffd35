//! The commands without a ring: deadlines, closed outputs, addresses, what is generated.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A command without what the shell that runs the tests has set.
fn corro(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corro"));
    for variable in [
        "REST_PORT",
        "SOCKET_PORT",
        "DB_PROCESSES",
        "NODE_ENV",
        "API_TOKEN",
        "API_TOKEN_FILE",
        "API_TOKENS",
        "API_TOKENS_FILE",
        "ALLOW_ANONYMOUS",
        "RUST_LOG",
    ] {
        command.env_remove(variable);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

const ID: &str = "0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071";

/// Every command that asks a gateway, and its exit code where that cannot be done.
fn asking(file: &str) -> [(Vec<&str>, i32); 11] {
    [
        (vec!["import", file], 2),
        (vec!["export"], 2),
        (vec!["check"], 2),
        (vec!["check", "--scan", "--repair"], 2),
        (vec!["status"], 2),
        (vec!["users", "get", ID], 2),
        (vec!["users", "list"], 2),
        (vec!["users", "count"], 2),
        (vec!["users", "create", "--name=n", "--email=a@b"], 2),
        (vec!["users", "delete", ID], 2),
        (vec!["promote", "1", "--yes"], 1),
    ]
}

fn users() -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".csv").tempfile().unwrap();
    file.write_all(b"name,email\nAna,a@example.org\n").unwrap();
    file
}

#[test]
fn a_gateway_that_is_not_there_or_silent_ends_every_command_after_its_patience() {
    let file = users();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let nothing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for address in [silent.local_addr().unwrap(), nothing] {
        let url = format!("http://{address}");
        for (arguments, code) in asking(file.path().to_str().unwrap()) {
            let begun = Instant::now();
            let output = corro(&arguments).args(["--url", &url, "--patience=1"]).output().unwrap();
            // The time of a process that starts on a busy machine included.
            assert!(begun.elapsed() < Duration::from_secs(20), "{arguments:?}");
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(
                (error.contains("no answer from") || error.contains("no connection to"))
                    && error.contains(&url),
                "{arguments:?}: {error}"
            );
        }
    }
}

#[test]
fn what_is_waited_for_is_said_at_once_and_until_it_comes() {
    let (file, nothing) = (users(), TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    for arguments in [vec!["import", file.path().to_str().unwrap()], vec!["export"]] {
        let output = corro(&arguments).args(["--patience=1", &format!("--url=http://{nothing}")]).output();
        let said = said(&output.unwrap());
        assert!(said.contains(&format!("no connection to http://{nothing}")), "{said}");
        assert!(said.contains("trying again, for another 0 s"), "{said}");
    }
    // A pipe that is silent is waited for, without any deadline; what came before it is done.
    let mut child = corro(&["import", "-", "--patience=1", "--url=http://127.0.0.1:9"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    for _ in 0..2 {
        let line = lines.next().unwrap().unwrap();
        assert!(line.starts_with("Waiting for more of standard input for "), "{line}");
    }
    drop(child.stdin.take());
    assert!(said(&child.wait_with_output().unwrap()).contains("0 created"));
}

#[test]
fn what_speaks_no_tls_is_said_in_plain_words() {
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", plain.local_addr().unwrap());
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = plain.accept() {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let said = said(&corro(&["status", "--url", &url, "--patience=5"]).output().unwrap());
    assert!(said.contains("try http://") && !said.contains("SSL routines"), "{said}");
}

#[test]
fn a_mistake_in_a_command_line_says_what_is_meant() {
    for (arguments, part) in [
        (
            &["--url=http://localhost:9", "status"][..],
            "--url: there is no such flag here; --url belongs after",
        ),
        (&["promote", "--partition=1"], "<PARTITION> is given without one"),
        (&["import", "-", "--delimiter=;;"], "\";;\" is not allowed; allowed: one ASCII character, or tab"),
        (&["users", "get", "ada"], "\"ada\" is not allowed; allowed: a UUID, such as "),
        (&["users", "list", "--group=ada"], "allowed: a whole number from -2147483648 to 2147483647"),
        (&["promote", "first"], "allowed: a whole number from 0 to 65535"),
    ] {
        let output = corro(arguments).output().unwrap();
        let said = said(&output);
        assert!(output.status.code() == Some(2) && said.contains(part), "{arguments:?}: {said}");
    }
}

#[test]
fn an_output_that_is_closed_or_full_is_no_reason_to_panic() {
    let file = users();
    let mut commands: Vec<Vec<&str>> = asking(file.path().to_str().unwrap()).map(|(words, _)| words).to_vec();
    for words in &mut commands {
        words.extend(["--url=http://127.0.0.1:9", "--patience=1"]);
    }
    for words in [
        &["--help"][..],
        &["--version"],
        &["nonsense"],
        &["completions", "bash"],
        &["man"],
        &["demo", "status"],
    ] {
        commands.push(words.to_vec());
    }
    let folder = tempfile::tempdir().unwrap();
    for words in commands {
        let full = || File::options().write(true).open("/dev/full").unwrap();
        let (reader, closed) = std::io::pipe().unwrap();
        drop(reader);
        let outputs = [Stdio::from(full()), Stdio::from(closed)];
        for output in outputs {
            let mut command = corro(&words);
            let child = command.current_dir(folder.path()).stdout(output).stderr(Stdio::piped()).spawn();
            let output = child.unwrap().wait_with_output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(
                !error.contains("panicked") && output.status.code().is_some_and(|code| code < 3),
                "{words:?}: {error}"
            );
        }
        let status = corro(&words).current_dir(folder.path()).stdout(full()).stderr(full()).status().unwrap();
        assert!(status.code().is_some_and(|code| code < 3), "{words:?}: {status}");
    }
}

#[test]
fn an_address_with_a_part_that_would_be_dropped_is_refused() {
    for url in ["http://ada:secret@localhost", "http://localhost/?a=b", "localhost:3001", "ftp://localhost"] {
        for command in [&["status"][..], &["export"], &["bench", "--no-ceiling"]] {
            let output = corro(command).args(["--url", url]).output().unwrap();
            let said = said(&output);
            assert!(
                !output.status.success() && said.contains("--url") && !said.contains("secret"),
                "{url}: {said}"
            );
        }
    }
}

#[test]
fn the_token_of_the_environment_stands_in_no_ones_way() {
    let output = corro(&["bench", "--help"]).env("API_TOKEN", "a,b").output().unwrap();
    assert!(output.status.success());
    let output = corro(&["bench", "--users=0"]).env("API_TOKEN", "a,b").output().unwrap();
    assert!(said(&output).contains("--users"), "{}", said(&output));
}

#[test]
fn what_cannot_be_read_is_one_line_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let import = |name: &str, text: &[u8], more: &[&str]| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let mut command =
            corro(&["import", path.to_str().unwrap(), "--url=http://127.0.0.1:9", "--patience=1"]);
        let output = command.args(more).output().unwrap();
        (output.status.code().unwrap(), said(&output))
    };
    for (name, text, part) in [
        ("a.csv", &b"\xff\xfen\0a\0"[..], "UTF-16"),
        ("b.csv", b"name;email\nn;a@b\n", "--delimiter ';'"),
        ("c.csv", b"name,mail\nn,a@b\n", "--map"),
        ("d.txt", b"name,email\n", "--format"),
        ("e.csv", b"", "header"),
    ] {
        let (code, said) = import(name, text, &[]);
        assert!(code == 2 && said.contains(part), "{name}: {code} {said}");
    }
    let (code, said) = import("f.json", b"[\n {\"name\":\"Ana\",\"email\":\"a@b\"}\n]\n", &[]);
    assert!(code == 1 && said.contains("row 1 (line 1): it is a JSON array: `jq -c"), "{code} {said}");
}

#[test]
fn an_import_does_not_write_over_what_it_reads() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let text = b"name,email\n";
    std::fs::write(at("users.csv"), text).unwrap();
    std::os::unix::fs::symlink("users.csv", at("link")).unwrap();
    let import = |input: &str, more: &[String]| {
        let mut command = corro(&["import", input, "--format=csv", "--patience=1"]);
        command.arg("--url=http://127.0.0.1:9").stdin(File::open(at("users.csv")).unwrap()).args(more);
        let output = command.output().unwrap();
        (output.status.code(), said(&output))
    };
    for input in [&*at("users.csv"), "-"] {
        for flag in ["--rejected", "--errors"] {
            for name in ["users.csv", "link"] {
                let (code, said) = import(input, &[flag.to_owned(), at(name)]);
                assert!(code == Some(2) && said.contains("is the file to read"), "{flag} {name}: {said}");
            }
        }
    }
    let both = ["--rejected", &at("new"), "--errors", &at("new")].map(str::to_owned);
    let (code, said) = import("-", &both);
    assert!(code == Some(2) && said.contains("are the same file"), "{said}");
    assert_eq!(std::fs::read(at("users.csv")).unwrap(), text, "it is not emptied");
    assert!(!Path::new(&at("new")).exists());
}

#[test]
fn a_row_that_is_too_long_is_copied_to_the_rejected_ones_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let row = [&b"\"\xe9\n\"\""[..], &b"x".repeat(1 << 20), b"\",a@b\r\n"].concat();
    std::fs::write(at("users.csv"), [b"name,email\n", &row[..], b"only\n", &row[..row.len() - 2]].concat())
        .unwrap();
    let (input, rejected) = (at("users.csv"), at("rejected"));
    let arguments = ["import", &input, "--rejected", &rejected, "--url=http://127.0.0.1:9", "--patience=1"];
    let output = corro(&arguments).output().unwrap();
    let said = said(&output);
    assert!(output.status.code() == Some(1) && said.contains("3 failed"), "{said}");
    assert!(said.contains("row 1 (line 2): it is longer than 64 KiB"), "{said}");
    let expected = [b"name,email\n", &row[..], b"only\n", &row[..row.len() - 2], b"\n"].concat();
    assert!(std::fs::read(rejected).unwrap() == expected);
}

#[test]
fn scripts_and_pages_are_made_of_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let output = corro(&["completions", shell]).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        for word in ["import", "--on-conflict", "users", "--watch"] {
            assert!(script.contains(word.trim_start_matches('-')), "{shell}: {word}");
        }
        for hidden in ["exit-with-parent", "bench-ceiling"] {
            assert!(!script.contains(hidden), "{shell}: {hidden}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    assert!(corro(&["man", folder.path().to_str().unwrap()]).status().unwrap().success());
    for page in ["corro.1", "corro-import.1", "corro-users-create.1"] {
        let text = std::fs::read_to_string(folder.path().join(page)).unwrap();
        assert!(text.contains(".TH") && !text.contains("exit-with-parent"), "{page}");
    }
}

#[test]
fn the_images_have_one_builder() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let builder = |name: &str| {
        let file = std::fs::read_to_string(root.join(name).join("Dockerfile")).unwrap();
        let stage = &file[file.find("\nFROM").unwrap()..file.rfind("\nFROM").unwrap()];
        assert!(file.contains("/src/target/release/corro /usr/local/bin/"), "{name}: it has the command");
        stage.to_owned()
    };
    assert_eq!(builder("gateway"), builder("db-process"), "so its layers are built once");
}
