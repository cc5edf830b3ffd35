//! What one client may take of what all share.

use std::num::NonZeroU32;

use axum::body::Body;
use axum::response::Response;
use futures_util::FutureExt;
use gateway::feed::MAX_SUBSCRIBERS;
use gateway::http::{Access, HttpSettings, Rate, Token};
use tower::ServiceExt;

use crate::ring::{Answer, Api, ID, Mood, address, anonymous, call};
use crate::tcp::Server;

async fn send(api: &Api, host: u8, method: &str, path: &str, token: Option<&str>) -> Answer {
    let mut request = call(method, path).extension(address(host));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    api.send(request.body(Body::empty()).expect("a request")).await
}

/// The head of the answer; the rest of it is what is returned.
async fn begin(api: &Api, host: u8, method: &str, path: &str) -> Response {
    let request = call(method, path).extension(address(host)).header("content-type", "application/x-ndjson");
    // A body that does not end.
    let body = Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let request = request.body(body).expect("a request");
    api.router.clone().oneshot(request).await.expect("a router answers everything")
}

async fn metrics(api: &Api) -> String {
    String::from_utf8(api.bare("GET", "/metrics").await.body).expect("text")
}

/// As many as one client may have, so many others; the first one that is refused gets this answer.
async fn each_has(most: usize, method: &'static str, path: &'static str, limit: &str) {
    let api = Api::new();
    let mut open = Vec::new();
    let refused = loop {
        let response = begin(&api, 1, method, path).await;
        if response.status() != 200 {
            break response;
        }
        open.push(response);
    };
    assert_eq!((refused.status().as_u16(), open.len()), (429, most));
    assert_eq!(refused.headers()["retry-after"], "1");
    let refused = send(&api, 1, method, path, None).await;
    if !path.contains("bulk") {
        refused.problem(429, "too-many-streams");
    }
    let other = begin(&api, 2, method, path).await;
    assert_eq!(other.status(), 200, "another address has its own");
    drop(open.pop());
    // What is dropped may end on a task of its own.
    let again = async {
        while begin(&api, 1, method, path).await.status() != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::ring::PATIENCE, again).await.expect("its place is free");
    let counted = format!("corro_http_limited_total{{limit=\"{limit}\"}} ");
    let metrics = metrics(&api).await;
    let count = metrics.lines().find_map(|line| line.strip_prefix(&counted)).expect("a metric");
    assert_ne!(count, "0");
}

#[tokio::test]
async fn an_address_has_half_of_all_subscriptions() {
    each_has(MAX_SUBSCRIBERS / 2, "GET", "/api/user/changes", "subscriptions").await;
}

#[tokio::test]
async fn an_address_has_half_of_all_bulk_requests() {
    each_has(8, "POST", "/api/user/bulk", "bulk").await;
}

#[tokio::test]
async fn an_address_has_a_quarter_of_the_sessions_that_have_not_joined() {
    let api = Api::new();
    let path = "/socket.io/?EIO=4&transport=polling";
    let begun = async |host| {
        let mut begun = 0;
        while begin(&api, host, "GET", path).await.status() == 200 {
            begun += 1;
        }
        begun
    };
    assert_eq!(begun(1).await, 256);
    assert_eq!(begun(2).await, 256, "another address has its own");
    let refused = send(&api, 2, "GET", path, None).await;
    refused.problem(429, "too-many-streams");
}

#[tokio::test]
async fn checks_and_erasures_come_one_after_the_other() {
    let api = Api::new();
    let erase = format!("/api/user/{ID}/erase");
    for (method, path, other) in [
        ("GET", "/api/cluster/check", ("POST", "/api/cluster/repair/1")),
        ("GET", "/api/cluster/check?scan=true", ("GET", "/api/cluster/check")),
        ("POST", "/api/cluster/repair/1", ("GET", "/api/cluster/check")),
        ("POST", &erase, ("POST", &erase)),
    ] {
        api.set(Mood::Silent);
        let mut first = Box::pin(api.bare(method, path));
        assert!(first.as_mut().now_or_never().is_none(), "it waits for the ring");
        let refused = api.bare(other.0, other.1).await;
        refused.problem(409, "busy");
        assert_eq!(refused.header("retry-after"), "1");
        drop(first);
        api.set(Mood::Serving);
        assert_eq!(api.bare(other.0, other.1).await.status, 200, "{path}");
    }
}

fn limited(per_second: u32, burst: u32) -> Option<Rate> {
    let number = |number| NonZeroU32::new(number).expect("not 0");
    Some(Rate { per_second: number(per_second), burst: number(burst) })
}

/// How many of twice as many as are admitted at once.
async fn admitted(api: &Api, host: u8, token: Option<&str>) -> usize {
    let mut admitted = 0;
    for _ in 0..20 {
        let answer = send(api, host, "GET", &format!("/api/user/{ID}"), token).await;
        if answer.status == 429 {
            answer.problem(429, "too-many-requests");
            assert_eq!(answer.header("retry-after"), "1");
        } else {
            admitted += 1;
        }
    }
    admitted
}

#[tokio::test]
async fn requests_are_limited_by_token_and_otherwise_by_address() {
    let tokens = "a:read:one,b:write:two".parse().expect("a list");
    let access = Access::new(Token::of_list(&tokens).expect("tokens"), false);
    let api =
        Api::with(&HttpSettings { rate: limited(1, 10), access: access.clone(), ..HttpSettings::default() });
    // A test that is held up for seconds sees a few more.
    let enough = 10..=15;
    assert!(enough.contains(&admitted(&api, 1, Some("one")).await));
    assert!(admitted(&api, 2, Some("one")).await <= 5, "it is the same token at another address");
    assert!(enough.contains(&admitted(&api, 1, Some("two")).await));
    // Who guesses tokens is counted by address.
    assert!(enough.contains(&admitted(&api, 1, Some("guess")).await));
    assert!(admitted(&api, 1, Some("another guess")).await <= 5);
    assert!(enough.contains(&admitted(&api, 3, None).await));
    for path in ["/", "/openapi.json", "/nothing"] {
        assert_eq!(send(&api, 3, "GET", path, None).await.status, 429, "{path}");
    }
    for _ in 0..20 {
        assert_eq!(send(&api, 3, "GET", "/health/live", None).await.status, 200);
    }
    // What is refused was not done.
    let api = Api::with(&HttpSettings { rate: limited(1, 1), ..anonymous() });
    let user = r#"{"name":"Ana","email":"ana@example.org"}"#;
    let mut created = 0;
    for _ in 0..10 {
        let request =
            call("POST", "/api/user").extension(address(9)).header("content-type", "application/json");
        created += usize::from(api.send(request.body(user.into()).expect("a request")).await.status == 201);
    }
    let count = send(&api, 8, "GET", "/api/user/count", None).await.json();
    assert_eq!(count["count"], created);
}

#[tokio::test]
async fn the_address_of_a_real_connection_counts() {
    let settings = HttpSettings { rate: limited(1, 2), ..anonymous() };
    let server = Server::with(gateway::http::policy(16), &settings).await;
    let request = b"GET /api/user/count HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let mut refused = 0;
    for _ in 0..8 {
        refused += usize::from(server.exchange(request).await.starts_with("HTTP/1.1 429 "));
    }
    assert!(refused > 0);
    let elsewhere = send(&server.api, 1, "GET", "/api/user/count", None).await;
    assert_eq!(elsewhere.status, 200);
}
