//! Health, the ring as JSON, tokens, request ids, trailing slashes.

use axum::body::Body;
use gateway::http::{Access, HttpSettings, Token};
use serde_json::json;

use crate::ring::{Answer, Api, ID, Mood, SIZE, call};

#[tokio::test]
async fn health_tells_a_living_gateway_from_a_ready_ring() {
    let api = Api::new();
    assert_eq!(api.bare("GET", "/health/live").await.json(), json!({"status": "live"}));
    assert_eq!(api.bare("GET", "/health/ready").await.json(), json!({"status": "ready"}));
    api.set(Mood::Silent);
    assert_eq!(api.bare("GET", "/health/live").await.status, 200);
    let answer = api.bare("GET", "/health/ready").await;
    let problem = answer.problem(503, "not-ready");
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(problem["detail"], "partition 1: db-1 has to come back.");
    assert_eq!(problem["partition"], 1);
}

#[tokio::test]
async fn the_ring_is_shown_as_json() {
    let api = Api::new();
    let answer = api.bare("GET", "/api/cluster").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/json"));
    let status = answer.json();
    assert_eq!((&status["size"], &status["ready"]), (&json!(SIZE), &json!(true)));
    assert_eq!(status["partitions"].as_array().map(Vec::len), Some(usize::from(SIZE)));
    assert_eq!(status["served"]["reads_by_replica"], 0);
}

#[tokio::test]
async fn the_operator_may_promote_the_other_copy_of_a_partition_that_is_down() {
    let api = Api::new();
    let promoted = api.bare("POST", "/api/cluster/promote/1").await;
    assert_eq!((promoted.status.as_u16(), &promoted.json()["size"]), (200, &json!(SIZE)));
    let refused = api.bare("POST", "/api/cluster/promote/0").await.problem(409, "partition-served");
    assert_eq!(refused["partition"], 0);
    let away = api.bare("POST", "/api/cluster/promote/2").await;
    assert_eq!(away.problem(503, "partition-unavailable")["partition"], 2);
    assert_eq!(away.header("retry-after"), "1");
    for absent in ["3", "-1", "65536", "x"] {
        let path = format!("/api/cluster/promote/{absent}");
        api.bare("POST", &path).await.problem(404, "partition-not-found");
    }
    assert_eq!(api.bare("GET", "/api/cluster/promote/1").await.status, 405);
}

#[tokio::test]
async fn every_path_works_with_a_trailing_slash() {
    let api = Api::new();
    let user = format!("/api/user/{ID}");
    let body = format!(r#"{{"id":"{ID}","name":"A","email":"a@b"}}"#);
    for slash in ["", "/"] {
        for (method, path, status) in [
            ("POST", "/api/user", 201),
            ("PUT", "/api/user", 200),
            ("GET", &user, 200),
            ("HEAD", &user, 200),
            ("PUT", &user, 200),
            ("PATCH", &user, 200),
            ("DELETE", &user, 204),
            ("GET", "/api/cluster", 200),
            ("GET", "/health/live", 200),
            ("GET", "/health/ready", 200),
        ] {
            let answer = api.json(method, &format!("{path}{slash}"), body.clone()).await;
            assert_eq!(answer.status, status, "{method} {path}{slash}");
        }
    }
}

#[tokio::test]
async fn every_response_carries_a_request_id() {
    let api = Api::new();
    let user = format!("/api/user/{ID}");
    let mut seen = Vec::new();
    for (method, path) in [
        ("GET", "/health/live"),
        ("GET", &*user),
        ("GET", "/nothing"),
        ("TRACE", "/api/user"),
        ("POST", "/api/user"),
    ] {
        let fresh = api.bare(method, path).await.header("x-request-id").to_owned();
        assert_eq!(fresh.len(), 16, "{method} {path}");
        assert!(!seen.contains(&fresh), "{fresh} twice");
        seen.push(fresh);
        for (given, kept) in [("mine-1", true), ("with space", false), ("", false), (&"x".repeat(129), false)]
        {
            let request = call(method, path).header("x-request-id", given).body(Body::empty());
            let answer = api.send(request.expect("a request")).await;
            assert_eq!(answer.header("x-request-id") == given, kept, "{method} {path} {given}");
            assert!(!answer.header("x-request-id").is_empty());
        }
    }
}

/// Clients of socket.io know the errors of its servers, and no others.
#[tokio::test]
async fn a_client_of_socket_io_2_gets_an_error_that_it_knows() {
    let api = Api::new();
    for path in ["/socket.io/?EIO=3&transport=polling", "/socket.io?EIO=3&transport=websocket"] {
        let answer = api.bare("GET", path).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (400, "application/json"));
        let error = answer.json();
        assert!(
            error["message"].as_str().is_some_and(|message| message.contains("protocol version")),
            "{error}"
        );
        assert!(!answer.header("x-request-id").is_empty());
    }
}

fn protected(tokens: &str) -> Api {
    let tokens = Token::of_plain_list(&tokens.parse().expect("not empty")).expect("tokens");
    Api::with(&HttpSettings { access: Access::new(tokens, false), ..HttpSettings::default() })
}

async fn with_token(api: &Api, path: &str, authorization: Option<&str>) -> Answer {
    let mut request = call("GET", path);
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    api.send(request.body(Body::empty()).expect("a request")).await
}

#[tokio::test]
async fn with_a_token_set_the_api_asks_for_it() {
    let api = protected("old-token, new-token");
    let user = format!("/api/user/{ID}");
    for path in ["/api/cluster", &user, "/api/user/no-id", "/api/nothing", "/api"] {
        for wrong in [None, Some("Bearer wrong"), Some("Bearer "), Some("Basic old-token"), Some("old-token")]
        {
            let refused = with_token(&api, path, wrong).await;
            refused.problem(401, "unauthorized");
            assert!(refused.header("www-authenticate").starts_with("Bearer"), "{refused:?}");
        }
        for token in ["Bearer old-token", "bearer new-token"] {
            assert_ne!(with_token(&api, path, Some(token)).await.status, 401, "{path} {token}");
        }
    }
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(with_token(&api, path, None).await.status, 200, "{path}");
    }
    with_token(&api, "/nothing", None).await.problem(404, "route-not-found");
}

/// Whatever a caller sends to a path that the token protects comes back as nothing but a refusal.
#[tokio::test]
async fn a_refused_write_writes_nothing() {
    let api = protected("token");
    let body = format!(r#"{{"id":"{ID}","name":"A","email":"a@b"}}"#);
    api.json("POST", "/api/user", body).await.problem(401, "unauthorized");
    let read = with_token(&api, &format!("/api/user/{ID}"), Some("Bearer token")).await;
    read.problem(404, "user-not-found");
}
