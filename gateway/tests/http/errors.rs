//! Requests that fail for another reason than their body.

use axum::body::Body;
use axum::http::{Request as HttpRequest, Version};
use gateway::engine_task::Unserved;
use protocol::placement::partition_of;
use serde_json::{Value, json};

use crate::ring::{Api, ID, Mood, SIZE, call};

const GOOD: &str = r#"{"name":"Ada","email":"ada@example.org"}"#;

fn path() -> String {
    format!("/api/user/{ID}")
}

#[tokio::test]
async fn routes_and_methods_that_are_not_there() {
    let api = Api::new();
    for path in ["/nothing", "/api", "/api/", "/api/users", "/api/user/x/y", "//api/user", "/health"] {
        for method in ["GET", "POST", "DELETE"] {
            let problem = api.bare(method, path).await.problem(404, "route-not-found");
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("/docs")), "{problem}");
        }
    }
    for (method, path, allowed) in [
        ("DELETE", "/api/user/", vec!["GET", "HEAD", "POST", "PUT"]),
        ("DELETE", "/api/user/count", vec!["GET", "HEAD"]),
        ("POST", &*path(), vec!["DELETE", "GET", "HEAD", "PATCH", "PUT"]),
        ("OPTIONS", &*format!("{}/", path()), vec!["DELETE", "GET", "HEAD", "PATCH", "PUT"]),
        ("POST", "/health/live", vec!["GET", "HEAD"]),
        ("BREW", "/api/cluster/", vec!["GET", "HEAD"]),
    ] {
        let answer = api.bare(method, path).await;
        let detail = answer.problem(405, "method-not-allowed")["detail"].to_string();
        assert!(allowed.iter().all(|method| detail.contains(method)), "{detail}");
        let mut allow: Vec<&str> = answer.header("allow").split(',').map(str::trim).collect();
        allow.sort_unstable();
        assert_eq!(allow, allowed, "{method} {path}");
    }
}

#[tokio::test]
async fn ids_in_the_path_that_are_no_uuid() {
    let api = Api::new();
    for id in [
        "x",
        "1",
        "/",
        "%FF",
        "%00",
        "0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f607",
        "%7B0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071%7D",
    ] {
        let path = format!("/api/user/{id}");
        for method in ["GET", "HEAD", "DELETE"] {
            let answer = api.bare(method, &path).await;
            assert_eq!(answer.status, 400, "{method} {path}");
        }
        api.bare("GET", &path).await.problem(400, "malformed-id");
        for method in ["PUT", "PATCH"] {
            api.json(method, &path, "{}").await.problem(400, "malformed-id");
        }
    }
}

#[tokio::test]
async fn users_that_are_there_already_or_not_at_all() {
    let api = Api::new();
    let ada = format!(r#"{{"id":"{ID}","name":"Ada","email":"ada@example.org"}}"#);
    for (method, body) in
        [("GET", ""), ("DELETE", ""), ("PUT", "{}"), ("PUT", r#"{"group":1}"#), ("PATCH", "{}")]
    {
        api.json(method, &path(), body).await.problem(404, "user-not-found");
    }
    api.json("PUT", "/api/user", ada.clone()).await.problem(404, "user-not-found");
    assert_eq!(api.json("POST", "/api/user", ada.clone()).await.status, 201);
    api.json("POST", "/api/user", ada).await.problem(409, "user-exists");
}

#[tokio::test]
async fn hosts_and_framings_that_cannot_be_read() {
    let api = Api::new();
    for path in ["/health/live", "/nothing", "/socket.io/", "/api/user", "/"] {
        for hosts in [&[][..], &["a", "a"], &["a b"], &[""], &["a@b"], &["a:b"], &["http://a"]] {
            let mut request = HttpRequest::get(path);
            for host in hosts {
                request = request.header("host", *host);
            }
            let answer = api.send(request.body(Body::empty()).expect("a request")).await;
            answer.problem(400, "malformed-host");
        }
        for coding in ["gzip, chunked", "gzip", "chunked, chunked"] {
            let request = call("POST", path).header("transfer-encoding", coding);
            let answer = api.send(request.body(Body::empty()).expect("a request")).await;
            answer.problem(501, "unknown-transfer-coding");
        }
    }
    let old = HttpRequest::get("/health/live").version(Version::HTTP_10).body(Body::empty());
    assert_eq!(api.send(old.expect("a request")).await.status, 200);
    for host in ["localhost:3001", "[::1]:3001", "10.0.0.1"] {
        let request = HttpRequest::get("/health/live").header("host", host).body(Body::empty());
        assert_eq!(api.send(request.expect("a request")).await.status, 200, "{host}");
    }
}

#[tokio::test]
async fn conditions_that_cannot_be_read() {
    let api = Api::new();
    for method in ["GET", "PUT", "PATCH", "DELETE"] {
        let request = call(method, &path()).header("if-match", "0190a5b27c3d0000");
        let request = request.header("content-type", "application/json").body(Body::from("{}"));
        api.send(request.expect("a request")).await.problem(400, "malformed-condition");
    }
}

#[tokio::test]
async fn a_ring_that_cannot_serve_names_the_partition() {
    let api = Api::new();
    let unavailable = Unserved::Unavailable { partition: 2, waiting_for: "db-2 has to come back".to_owned() };
    for (why, status, name, part) in [
        (unavailable, 503, "partition-unavailable", "db-2 has to come back"),
        (Unserved::Overloaded { partition: 2 }, 503, "overloaded", "Nothing was done"),
        (Unserved::OutcomeUnknown { partition: 2 }, 504, "outcome-unknown", "outcome is unknown"),
    ] {
        api.set(Mood::Failing(why));
        for (method, path) in
            [("POST", "/api/user"), ("GET", &path()), ("PATCH", &path()), ("DELETE", &path())]
        {
            if method == "GET" && name == "outcome-unknown" {
                continue; // a read has no such end
            }
            let answer = api.json(method, path, GOOD).await;
            let problem = answer.problem(status, name);
            assert_eq!(problem["partition"], 2);
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(part)), "{problem}");
            assert_eq!(answer.header("retry-after"), if status == 503 { "1" } else { "" });
        }
    }
}

#[tokio::test]
async fn a_ring_that_does_not_answer_is_a_504_in_time() {
    let api = Api::impatient();
    let partition = partition_of(&ID.parse().expect("a UUID"), SIZE);
    for (mood, named) in [(Mood::Silent, json!(partition)), (Mood::Dead, Value::Null)] {
        api.set(mood);
        let read = api.bare("GET", &path()).await.problem(504, "no-answer");
        assert_eq!(read["partition"], named);
        for (method, path, body) in [
            ("PUT", path(), "{}".to_owned()),
            ("DELETE", path(), String::new()),
            ("POST", "/api/user".to_owned(), format!(r#"{{"id":"{ID}","name":"A","email":"a@b"}}"#)),
        ] {
            let written = api.json(method, &path, body).await.problem(504, "outcome-unknown");
            assert_eq!(written["partition"], named);
            assert!(written["detail"].as_str().is_some_and(|detail| detail.contains("unknown")), "{written}");
        }
    }
    api.bare("GET", "/health/ready").await.problem(504, "no-answer");
    api.bare("GET", "/api/cluster").await.problem(504, "no-answer");
    assert_eq!(api.bare("GET", "/health/live").await.status, 200);
}
