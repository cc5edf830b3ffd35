//! The live feed, as an event stream.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::Request;
use futures_util::StreamExt;
use gateway::engine_task::Unserved;
use gateway::http::HttpSettings;
use serde_json::json;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::ring::{Api, ID, Mood, anonymous, call};

const PATIENCE: Duration = Duration::from_secs(10);

/// An open stream.
pub(crate) struct Stream {
    chunks: BodyDataStream,
    received: String,
}

impl Stream {
    pub(crate) async fn open(api: &Api, path: &str, last: Option<&str>) -> Self {
        let mut request = Request::get(path).header("host", "localhost");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let request = request.body(Body::empty()).expect("a request");
        let response = api.router.clone().oneshot(request).await.expect("a router answers everything");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let mut stream = Self { chunks: response.into_body().into_data_stream(), received: String::new() };
        let first = stream.event().await;
        assert!(first.starts_with("retry: 1000\nid: "), "{first}");
        let comment = stream.event().await;
        assert!(comment.starts_with(':'), "{comment}");
        stream
    }

    /// The next block, without the empty line after it.
    pub(crate) async fn event(&mut self) -> String {
        loop {
            if let Some((event, rest)) = self.received.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.received = rest;
                return event;
            }
            let chunk = timeout(PATIENCE, self.chunks.next()).await.expect("an event").expect("no end");
            self.received += std::str::from_utf8(&chunk.expect("no error")).expect("whole characters");
        }
    }

    pub(crate) async fn end(mut self) {
        assert_eq!(self.received, "");
        assert!(timeout(PATIENCE, self.chunks.next()).await.expect("an end").is_none());
    }
}

pub(crate) async fn create(api: &Api) -> String {
    let body = format!(r#"{{"id":"{ID}","name":"Ada","email":"ada@example.org","group":7}}"#);
    let created = api.json("POST", "/api/user", body).await;
    assert_eq!(created.status, 201);
    created.header("etag").trim_matches('"').to_owned()
}

#[tokio::test]
async fn each_change_has_the_words_of_its_request() {
    let api = Api::new();
    let mut stream = Stream::open(&api, "/api/user/changes", None).await;
    let tag = create(&api).await;
    let user = format!("/api/user/{ID}");
    let updated = api.json("PATCH", &user, r#"{"group":-1}"#).await;
    assert_eq!(api.bare("DELETE", &user).await.status, 204);
    assert_eq!(
        stream.event().await,
        format!(
            "event: created\nid: {tag}\ndata: {{\"id\":\"{ID}\",\"name\":\"Ada\",\
             \"email\":\"ada@example.org\",\"group\":7}}"
        )
    );
    let tag = updated.header("etag").trim_matches('"');
    assert_eq!(
        stream.event().await,
        format!("event: updated\nid: {tag}\ndata: {{\"id\":\"{ID}\",\"group\":-1}}")
    );
    let deleted = stream.event().await;
    assert!(
        deleted.starts_with("event: deleted\n") && deleted.ends_with(&format!("data: {{\"id\":\"{ID}\"}}"))
    );
}

#[tokio::test]
async fn a_client_that_comes_back_gets_what_it_missed_and_nothing_twice() {
    let api = Api::new();
    let mut first = Stream::open(&api, "/api/user/changes/", None).await;
    let seen = create(&api).await;
    first.event().await;
    drop(first);
    let user = format!("/api/user/{ID}");
    api.json("PATCH", &user, r#"{"group":1}"#).await;
    let by_query = format!("/api/user/changes?after={seen}");
    for (path, last) in [
        ("/api/user/changes", Some(&*seen)),
        (&*by_query, None),
        // What an `EventSource` sends: its address as it was, and a newer id.
        ("/api/user/changes?after=0000000000000000", Some(&*seen)),
    ] {
        let mut stream = Stream::open(&api, path, last).await;
        let missed = stream.event().await;
        assert!(missed.starts_with("event: updated\n") && missed.contains("\"group\":1"), "{missed}");
    }
    let mut stream = Stream::open(&api, "/api/user/changes", Some(&seen)).await;
    stream.event().await;
    api.json("PATCH", &user, r#"{"group":2}"#).await;
    assert!(stream.event().await.contains("\"group\":2"));
}

/// There was no subscriber when it happened, so it is in the op-logs only.
#[tokio::test]
async fn what_happened_without_a_subscriber_is_read_from_the_op_logs() {
    let api = Api::new();
    let seen = create(&api).await;
    let user = format!("/api/user/{ID}");
    for group in 1..=3 {
        api.json("PATCH", &user, format!(r#"{{"group":{group}}}"#)).await;
    }
    let mut streams = [
        Stream::open(&api, "/api/user/changes", Some(&seen)).await,
        Stream::open(&api, "/api/user/changes", Some(&seen)).await,
    ];
    api.json("PATCH", &user, r#"{"group":4}"#).await;
    for stream in &mut streams {
        for group in 1..=4 {
            let event = stream.event().await;
            assert!(
                event.starts_with("event: updated\n") && event.contains(&format!("\"group\":{group}")),
                "{event}"
            );
        }
    }
}

#[tokio::test]
async fn ids_that_cannot_be_resumed_are_refused() {
    let api = Api::new();
    create(&api).await;
    let ask = async |path: &str| api.bare("GET", path).await;
    for bad in ["after=1", "after=000000000000000G", "after=0&after=0", "before=0000000000000000"] {
        ask(&format!("/api/user/changes?{bad}")).await.problem(400, "malformed-query");
    }
    let request = call("GET", "/api/user/changes").header("last-event-id", "1").body(Body::empty());
    api.send(request.expect("a request")).await.problem(400, "malformed-event-id");
    ask("/api/user/changes?after=ffffffffffffffff").await.problem(400, "future-event-id");
    let gone = ask("/api/user/changes?after=0000000000000000").await.problem(410, "changes-gone");
    assert_eq!(gone["status"], 410);
    api.set(Mood::Failing(Unserved::Unavailable {
        partition: 1,
        waiting_for: "db-1 has to come back".to_owned(),
    }));
    let unavailable = ask("/api/user/changes").await;
    assert_eq!(unavailable.problem(503, "partition-unavailable")["partition"], 1);
    assert_eq!(unavailable.header("retry-after"), "1");
}

/// The lines of `/metrics` about the feed.
async fn figures(api: &Api) -> Vec<String> {
    let answer = api.bare("GET", "/metrics").await;
    let text = String::from_utf8(answer.body).expect("text");
    text.lines().filter(|line| line.starts_with("corro_feed_")).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_client_that_does_not_read_is_sent_away_and_counted() {
    let api = Api::new();
    create(&api).await;
    let mut slow = Stream::open(&api, "/api/user/changes", None).await;
    let other = Stream::open(&api, "/api/user/changes", None).await;
    let lines: String =
        (0..20_000).map(|group| format!(r#"{{"op":"update","id":"{ID}","group":{group}}}"#) + "\n").collect();
    let request = call("POST", "/api/user/bulk").header("content-type", "application/x-ndjson");
    let answer = api.send(request.body(Body::from(lines)).expect("a request")).await;
    assert_eq!(answer.body.split(|byte| *byte == b'\n').count(), 20_001);
    let last = slow.event().await;
    assert!(last.starts_with("event: dropped\n") && last.contains("too slow"), "{last}");
    slow.end().await;
    let shown = figures(&api).await;
    for line in [
        r#"corro_feed_subscribers{transport="event_stream"} 1"#,
        r#"corro_feed_subscribers{transport="socket_io"} 0"#,
        r#"corro_feed_dropped_total{reason="too_slow",transport="event_stream"} 1"#,
        r#"corro_feed_dropped_total{reason="gone",transport="event_stream"} 0"#,
        r#"corro_feed_dropped_total{reason="too_slow",transport="socket_io"} 0"#,
    ] {
        assert!(shown.iter().any(|shown| shown == line), "{line} is not in {shown:?}");
    }
    drop(other);
    let none = r#"corro_feed_subscribers{transport="event_stream"} 0"#;
    assert!(figures(&api).await.iter().any(|shown| shown == none));
}

#[tokio::test]
async fn head_answers_without_a_subscription() {
    let api = Api::new();
    let answer = api.bare("HEAD", "/api/user/changes").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "text/event-stream"));
    assert_eq!(api.bare("POST", "/api/user/changes").await.status, 405);
}

#[tokio::test]
async fn streams_end_when_the_gateway_stops() {
    let closing = CancellationToken::new();
    let api = Api::with(&HttpSettings { closing: closing.clone(), ..anonymous() });
    let streams = [
        Stream::open(&api, "/api/user/changes", None).await,
        Stream::open(&api, "/api/user/changes", None).await,
    ];
    closing.cancel();
    for stream in streams {
        stream.end().await;
    }
    assert_eq!(api.bare("GET", "/health/live").await.json(), json!({"status": "live"}));
}

#[tokio::test]
async fn a_stream_is_never_silent_for_long() {
    let api = Api::with(&HttpSettings { heartbeat: Duration::from_millis(20), ..anonymous() });
    let mut stream = Stream::open(&api, "/api/user/changes", None).await;
    for _ in 0..2 {
        assert_eq!(stream.event().await, ": still here");
    }
}
