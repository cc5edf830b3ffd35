//! Metrics, and the pages for people.

use crate::ring::{Api, ID, Mood};

#[tokio::test]
async fn metrics_count_requests_by_route_and_show_the_ring() {
    let api = Api::new();
    let user = format!("/api/user/{ID}/");
    for _ in 0..3 {
        api.bare("GET", &user).await.problem(404, "user-not-found");
    }
    api.bare("GET", "/a/secret/path?email=ada@example.org").await.problem(404, "route-not-found");
    let answer = api.bare("GET", "/metrics").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "text/plain; version=0.0.4"));
    let text = String::from_utf8(answer.body).expect("text");
    for line in [
        r#"corro_http_requests_total{method="GET",route="/api/user/{id}",status="4xx"} 3"#,
        r#"corro_http_requests_total{method="GET",route="none",status="4xx"} 1"#,
        r#"corro_http_request_duration_seconds_count{method="GET",route="/api/user/{id}",status="4xx"} 3"#,
        "corro_http_requests_in_flight 1",
        "corro_ring_ready 1",
        r#"corro_partition_unreplicated_writes{partition="2"} 0"#,
        r#"corro_partition_replication_lag_seconds{partition="2"} 0"#,
        r#"corro_reads_total{role="replica"} 0"#,
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
    }
    assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
    assert!(!text.contains("secret") && !text.contains("ada") && !text.contains(ID), "{text}");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let value = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        assert!(value.is_some_and(|value| value >= 0.0), "{line}");
    }
}

#[tokio::test]
async fn metrics_are_shown_while_the_ring_does_not_answer() {
    let api = Api::impatient();
    api.set(Mood::Dead);
    let answer = api.bare("GET", "/metrics").await;
    assert_eq!(answer.status, 200);
    let text = String::from_utf8(answer.body).expect("text");
    assert!(text.contains("corro_http_requests_in_flight") && !text.contains("corro_ring_ready"), "{text}");
}

#[tokio::test]
async fn the_pages_need_nothing_but_this_gateway() {
    let api = Api::new();
    for path in ["/", "/users", "/users/", "/docs", "/docs/"] {
        let page = api.bare("GET", path).await;
        assert_eq!((page.status.as_u16(), page.header("content-type")), (200, "text/html; charset=utf-8"));
        let policy = page.header("content-security-policy").to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'nonce-"), "{policy}");
        let nonce = policy.split('\'').nth(3).and_then(|part| part.strip_prefix("nonce-")).expect("a nonce");
        let html = String::from_utf8(page.body.clone()).expect("text");
        for tag in ["<script", "<style"] {
            assert_eq!(html.matches(tag).count(), 1, "{path} {tag}");
            assert!(html.contains(&format!("{tag} nonce=\"{nonce}\"")), "{path} {tag}");
        }
        // The one address is the name of the SVG format.
        let addresses = html.replace("http://www.w3.org/2000/svg", "");
        assert!(
            !addresses.contains("http://") && !addresses.contains("https://") && !html.contains("src="),
            "{path}"
        );
        assert!(!html.contains("style=\"") && !html.contains("onclick"), "{path}: the policy forbids it");
        assert_ne!(api.bare("GET", path).await.header("content-security-policy"), policy, "made anew");
    }
}
