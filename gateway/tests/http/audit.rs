//! What the audit log says of requests, and what happens where it cannot be written.

use std::path::PathBuf;

use axum::body::Body;
use futures_util::FutureExt;
use gateway::audit::{Audit, Target};
use gateway::http::{Access, HttpSettings, Token};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ring::{Answer, Api, ID, Mood, address, anonymous, call};

/// The API with an audit log.
struct Audited {
    api: Api,
    audit: Audit,
    path: PathBuf,
    _folder: TempDir,
}

impl Audited {
    fn new(strict: bool) -> Self {
        Self::with(strict, anonymous())
    }

    fn with(strict: bool, settings: HttpSettings) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        let audit = Audit::open(&Target::File(path.clone()), strict, 1 << 20).expect("a file");
        let api = Api::with(&HttpSettings { audit: audit.clone(), ..settings });
        Self { api, audit, path, _folder: folder }
    }

    async fn send(&self, method: &str, path: &str, token: &str, body: &'static str) -> Answer {
        let media = if path.ends_with("bulk") { "application/x-ndjson" } else { "application/json" };
        let request = call(method, path).extension(address(7)).header("content-type", media);
        let request =
            request.header("x-request-id", "mine").header("authorization", format!("Bearer {token}"));
        self.api.send(request.body(Body::from(body)).expect("a request")).await
    }

    /// All lines, without their times.
    async fn lines(&self) -> Vec<Value> {
        self.audit.flush().await;
        let text = std::fs::read_to_string(&self.path).expect("text");
        for private in ["Ana", "ana@", "Bea", "bea@", "Bearer", "secret"] {
            assert!(!text.contains(private), "{private} is in {text}");
        }
        let line = |line: &str| {
            let mut line: Value = serde_json::from_str(line).expect("JSON");
            let time = line.as_object_mut().expect("an object").remove("time").expect("a time");
            assert!(time.as_str().is_some_and(|time| time.len() == 24 && time.ends_with('Z')), "{time}");
            line
        };
        text.lines().map(line).collect()
    }
}

/// The lines of a log that cannot be written.
fn full(strict: bool) -> (Api, Audit) {
    let target: Target = "/dev/full".parse().expect("a device");
    let audit = Audit::open(&target, strict, 1 << 20).expect("a device");
    (Api::with(&HttpSettings { audit: audit.clone(), ..anonymous() }), audit)
}

const USER: &str = r#"{"id":"0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071","name":"Ana","email":"ana@example.org"}"#;

#[tokio::test]
async fn each_write_and_each_call_of_an_administrator_has_a_line() {
    let list = "shop:write:one,ops:admin:two,eye:read:three".parse().expect("a list");
    let access = Access::new(Token::of_list(&list).expect("tokens"), false);
    let audited = Audited::with(false, HttpSettings { access, ..HttpSettings::default() });
    let user = format!("/api/user/{ID}");
    let erase = format!("{user}/erase");
    for (method, path, token, body) in [
        ("POST", "/api/user", "one", USER),
        ("POST", "/api/user/", "one", USER),
        ("GET", &user, "one", ""),
        ("PATCH", &user, "one", r#"{"name":"Bea"}"#),
        ("PATCH", &user, "one", r#"{"name":7}"#),
        ("DELETE", &user, "one", ""),
        ("DELETE", &user, "three", ""),
        ("DELETE", &user, "four", ""),
        ("GET", "/api/cluster", "two", ""),
        ("GET", "/api/cluster/check", "two", ""),
        ("POST", "/api/cluster/promote/1", "two", ""),
        ("POST", "/api/cluster/repair/9", "two", ""),
        ("POST", &erase, "two", ""),
    ] {
        audited.send(method, path, token, body).await;
    }
    let mut lines = audited.lines().await;
    for line in &mut lines {
        let line = line.as_object_mut().expect("an object");
        assert_eq!(line.remove("request_id"), Some(json!("mine")));
        assert_eq!(line.remove("address"), Some(json!("10.0.0.7")));
        if let Some(version) = line.get_mut("version") {
            assert_eq!(version.as_str().map(str::len), Some(16));
            *version = json!("V");
        }
    }
    let route = "/api/user/{id}";
    let expected = json!([
        {"token": "shop", "method": "POST", "route": "/api/user", "user": ID, "outcome": "done",
         "status": 201, "version": "V"},
        {"token": "shop", "method": "POST", "route": "/api/user", "user": ID, "outcome": "refused",
         "status": 409, "problem": "user-exists"},
        {"token": "shop", "method": "PATCH", "route": route, "user": ID, "outcome": "done", "status": 200,
         "version": "V"},
        {"token": "shop", "method": "PATCH", "route": route, "outcome": "refused", "status": 422,
         "problem": "invalid-fields"},
        {"token": "shop", "method": "DELETE", "route": route, "user": ID, "outcome": "done", "status": 204,
         "version": "V"},
        {"token": "eye", "method": "DELETE", "route": route, "outcome": "refused", "status": 403,
         "problem": "forbidden"},
        {"token": "ops", "method": "GET", "route": "/api/cluster/check", "outcome": "done", "status": 200},
        {"token": "ops", "method": "POST", "route": "/api/cluster/promote/{partition}", "partition": 1,
         "outcome": "done", "status": 200},
        {"token": "ops", "method": "POST", "route": "/api/cluster/repair/{partition}", "partition": 9,
         "outcome": "refused", "status": 404, "problem": "partition-not-found"},
        {"token": "ops", "method": "POST", "route": "/api/user/{id}/erase", "user": ID, "outcome": "done",
         "status": 200},
    ]);
    assert_eq!(json!(lines), expected);
}

const LINES: &str = concat!(
    r#"{"op":"create","id":"0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071","name":"Ana","email":"ana@example.org"}"#,
    "\nsecret\n",
    r#"{"op":"create","id":"0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071","name":"Bea","email":"bea@example.org"}"#,
    "\n",
    r#"{"op":"delete","id":"0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071"}"#,
    "\n",
);

#[tokio::test]
async fn each_line_of_a_bulk_request_has_one_and_the_last_has_their_number() {
    for strict in [false, true] {
        let audited = Audited::new(strict);
        let answer = audited.send("POST", "/api/user/bulk", "", LINES).await;
        assert_eq!(answer.status, 200);
        // The work ends on a task of its own, after the last result.
        let lines = loop {
            let lines = audited.lines().await;
            if lines.last().is_some_and(|line| line.get("lines").is_some()) {
                break lines;
            }
            tokio::task::yield_now().await;
        };
        let short = |line: &Value| {
            let version = line["version"].as_str().map_or(0, str::len);
            json!([
                line["line"],
                line["op"],
                line["user"],
                line["outcome"],
                line["status"],
                line["problem"],
                version
            ])
        };
        let of_lines = lines.iter().filter(|line| line["line"].is_u64());
        let (begun, mut done): (Vec<_>, Vec<_>) = of_lines.map(short).partition(|line| line[3] == "begun");
        // The ring may answer after a line that was not asked of it.
        done.sort_by_key(|line| line[0].as_u64());
        let expected = json!([
            [1, "create", ID, "done", 201, null, 16],
            [2, null, null, "refused", 400, "malformed-body", 0],
            [3, "create", ID, "refused", 409, "user-exists", 0],
            [4, "delete", ID, "done", 204, null, 16],
        ]);
        assert_eq!(json!(done), expected);
        assert_eq!(begun.len(), if strict { 3 } else { 0 });
        let last = lines.last().expect("a line");
        assert_eq!(
            (&last["lines"], &last["status"], &last["outcome"]),
            (&json!(4), &json!(200), &json!("done"))
        );
    }
}

#[tokio::test]
async fn where_it_is_strict_a_write_is_on_record_before_it_is_asked() {
    let audited = Audited::new(true);
    audited.api.set(Mood::Silent);
    let mut waiting = Box::pin(audited.send("POST", "/api/user", "", USER));
    let begun = loop {
        assert!(waiting.as_mut().now_or_never().is_none());
        let lines = audited.lines().await;
        if !lines.is_empty() {
            break lines;
        }
    };
    assert_eq!((begun.len(), &begun[0]["outcome"], &begun[0]["user"]), (1, &json!("begun"), &json!(ID)));
    // The caller goes away: it may be done.
    while waiting.as_mut().now_or_never().is_none() && audited.lines().await.is_empty() {}
    drop(waiting);
    let lines = audited.lines().await;
    assert!(lines.len() <= 2 && lines.iter().skip(1).all(|line| line["outcome"] == "unknown"), "{lines:?}");
    audited.api.set(Mood::Serving);
    // Of another user: the ring may have the first one by now.
    let other = r#"{"name":"Bea","email":"bea@example.org"}"#;
    assert_eq!(audited.send("POST", "/api/user", "", other).await.status, 201);
    let lines = audited.lines().await;
    let outcomes: Vec<_> = lines.iter().rev().take(2).map(|line| &line["outcome"]).collect();
    assert_eq!(outcomes, [&json!("done"), &json!("begun")]);
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_an_unknown_outcome() {
    let audited = Audited::new(false);
    audited.api.set(Mood::Silent);
    let mut waiting = Box::pin(audited.send("POST", "/api/user", "", USER));
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(waiting);
    let lines = audited.lines().await;
    assert_eq!(
        (lines.len(), &lines[0]["outcome"], &lines[0]["status"]),
        (1, &json!("unknown"), &Value::Null)
    );
    let audited =
        Audited::with(false, HttpSettings { deadline: std::time::Duration::from_millis(20), ..anonymous() });
    audited.api.set(Mood::Silent);
    audited.send("POST", "/api/user", "", USER).await.problem(504, "outcome-unknown");
    assert_eq!(audited.lines().await[0]["outcome"], "unknown");
}

#[tokio::test]
async fn a_full_disk_stops_writes_where_it_is_strict() {
    let (api, audit) = full(true);
    let user = format!("/api/user/{ID}");
    let erase = format!("{user}/erase");
    for (method, path, body) in [
        ("POST", "/api/user", USER),
        ("PUT", &user, r#"{"name":"Bea"}"#),
        ("PATCH", &user, r#"{"name":"Bea"}"#),
        ("DELETE", &user, ""),
        ("POST", &erase, ""),
        ("GET", "/api/cluster/check", ""),
        ("POST", "/api/cluster/repair/1", ""),
        ("POST", "/api/cluster/promote/1", ""),
    ] {
        let refused = api.json(method, path, body).await;
        refused.problem(503, "not-on-record");
        assert_eq!(refused.header("retry-after"), "1");
    }
    let bulk = call("POST", "/api/user/bulk").header("content-type", "application/x-ndjson");
    api.send(bulk.body(Body::from(LINES)).expect("a request")).await.problem(503, "not-on-record");
    assert_eq!(api.bare("GET", "/api/user/count").await.json()["count"], 0, "nothing was done");
    audit.flush().await;
    assert!(audit.lost().expect("a counter").get() >= 9);
}

#[tokio::test]
async fn a_full_disk_stops_nothing_otherwise_and_what_is_lost_is_counted() {
    let (api, audit) = full(false);
    assert_eq!(api.json("POST", "/api/user", USER).await.status, 201);
    assert_eq!(api.bare("DELETE", &format!("/api/user/{ID}")).await.status, 204);
    audit.flush().await;
    let metrics = String::from_utf8(api.bare("GET", "/metrics").await.body).expect("text");
    assert!(metrics.lines().any(|line| line == "corro_audit_lost_total 2"), "{metrics}");
}
