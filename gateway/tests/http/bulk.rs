//! Many operations in one request.

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::stream;
use gateway::engine_task::Unserved;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tower::ServiceExt;

use crate::ring::{Answer, Api, ID, Mood, PATIENCE, address, anonymous, call};
use crate::tcp::{Server, rest};

async fn bulk(api: &Api, body: impl Into<Body>) -> Answer {
    let request = call("POST", "/api/user/bulk").header("content-type", "application/x-ndjson");
    api.send(request.body(body.into()).expect("a request")).await
}

fn results(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    let text = String::from_utf8(answer.body.clone()).expect("text");
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// A request whose body is sent bit by bit, and the response while it comes.
pub(crate) async fn open(api: &Api) -> (mpsc::Sender<&'static str>, Response) {
    open_from(api, 1).await
}

/// The same, from an address of its own.
async fn open_from(api: &Api, host: u8) -> (mpsc::Sender<&'static str>, Response) {
    let (sender, receiver) = mpsc::channel(1);
    let pieces = stream::unfold(receiver, async |mut receiver: mpsc::Receiver<&str>| {
        let piece = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(Bytes::from_static(piece.as_bytes())), receiver))
    });
    let request = call("POST", "/api/user/bulk").header("content-type", "application/x-ndjson");
    let request = request.extension(address(host)).body(Body::from_stream(pieces)).expect("a request");
    let response = api.router.clone().oneshot(request).await.expect("a router answers everything");
    assert_eq!(response.status(), 200);
    (sender, response)
}

pub(crate) async fn next(response: &mut Response) -> Option<Vec<Value>> {
    let frame = timeout(PATIENCE, response.body_mut().frame()).await.expect("no hang")?;
    let data = frame.expect("no error").into_data().expect("no trailers");
    let text = std::str::from_utf8(&data).expect("text");
    Some(text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect())
}

fn status_and_line(results: &[Value]) -> Vec<(u64, u64)> {
    let number = |result: &Value, name: &str| result[name].as_u64().unwrap_or_default();
    results.iter().map(|result| (number(result, "line"), number(result, "status"))).collect()
}

#[tokio::test]
async fn operations_on_one_user_are_done_in_the_order_of_their_lines() {
    let api = Api::new();
    let text = [
        json!({"op": "create", "id": ID, "name": "Ada", "email": "ada@example.org", "group": 7}),
        json!({"op": "create", "id": ID, "name": "Eve", "email": "eve@example.org"}),
        json!({"op": "update", "id": ID, "name": "Ada Lovelace"}),
        json!({"op": "update", "id": ID}),
        json!({"op": "update", "id": ID, "group": 1, "if_match": "\"0000000000000000\""}),
        json!({"op": "delete", "id": ID, "if_match": "*"}),
        json!({"op": "delete", "id": ID}),
        json!({"op": "create", "id": ID, "name": "Grace", "email": "grace@example.org"}),
        json!({"op": "create", "name": "No id", "email": "n@example.org"}),
    ];
    let text: Vec<String> = text.iter().map(ToString::to_string).collect();
    let answer = bulk(&api, text.join("\n")).await;
    let results = results(&answer);
    let expected = [201, 409, 200, 200, 412, 204, 404, 201, 201];
    assert_eq!(status_and_line(&results), (1..).zip(expected).collect::<Vec<_>>());
    assert_eq!(results[0]["id"], ID);
    assert_eq!(results[3]["etag"], results[2]["etag"], "nothing was changed");
    assert_eq!(results[5], json!({"line": 6, "status": 204, "id": ID}));
    assert_eq!(results[1]["type"], "urn:corro:problem:user-exists");
    assert!(results[1]["title"].is_string() && results[1]["detail"].is_string(), "{}", results[1]);
    let read = api.bare("GET", &format!("/api/user/{ID}")).await;
    assert_eq!(read.header("etag"), results[7]["etag"]);
    assert_eq!(read.json()["name"], "Grace");
    let made = results[8]["id"].as_str().expect("an id");
    assert_eq!(api.bare("GET", &format!("/api/user/{made}/")).await.status, 200);
}

#[tokio::test]
async fn a_bad_line_is_refused_and_the_others_are_not() {
    let api = Api::new();
    let long = format!(r#"{{"op":"delete","id":"{ID}"{}}}"#, " ".repeat(64 << 10));
    let unknown: String = (0..5_000).map(|number| format!(r#""{number}":0,"#)).collect();
    let text = [
        "nonsense",
        "",
        r#"{"op":"create","name":"","email":"a@b","more":1}"#,
        &long,
        "\t \r",
        &format!("{{{unknown}\"op\":\"delete\"}}"),
        "\u{feff}{}",
        r#"{"op":"create","name":"last, without an end","email":"a@b"}"#,
    ];
    let answer = bulk(&api, text.join("\n")).await;
    let results = results(&answer);
    let expected = [(1, 400), (3, 422), (4, 413), (6, 422), (7, 422), (8, 201)];
    assert_eq!(status_and_line(&results), expected);
    let pointers: Vec<_> =
        results[1]["errors"].as_array().expect("errors").iter().map(|error| &error["pointer"]).collect();
    assert_eq!(pointers, ["/name", "/more"]);
    assert_eq!(results[3]["errors"].as_array().map(Vec::len), Some(16), "of five thousand");
    let empty = bulk(&api, "\n\n").await;
    assert!(empty.status == 200 && empty.body.is_empty());
}

#[tokio::test]
async fn what_is_no_stream_of_lines_is_refused_at_once() {
    let api = Api::new();
    api.json("POST", "/api/user/bulk", "{}").await.problem(415, "unsupported-media-type");
    let request = call("POST", "/api/user/bulk").header("content-type", "application/x-ndjson");
    let request = request.header("content-encoding", "gzip").body(Body::empty()).expect("a request");
    api.send(request).await.problem(415, "unsupported-media-type");
    let answer = api.bare("GET", "/api/user/bulk/").await;
    answer.problem(405, "method-not-allowed");
    assert_eq!(answer.header("allow"), "POST");
}

#[tokio::test]
async fn each_line_says_that_its_partition_is_down_or_late() {
    let api = Api::impatient();
    let line = json!({"op": "delete", "id": ID}).to_string();
    let text = [line.as_str(); 3].join("\n");
    let waiting_for = "db-1 has to come back".to_owned();
    api.set(Mood::Failing(Unserved::Unavailable { partition: 1, waiting_for }));
    for result in results(&bulk(&api, text.clone()).await) {
        assert_eq!((&result["status"], &result["partition"]), (&json!(503), &json!(1)), "{result}");
        assert_eq!(result["type"], "urn:corro:problem:partition-unavailable");
    }
    api.set(Mood::Silent);
    let late = results(&bulk(&api, text).await);
    assert_eq!(status_and_line(&late), [(1, 504), (2, 504), (3, 504)]);
    assert!(late.iter().all(|result| result["partition"].is_u64()), "{late:?}");
    assert_eq!(late[0]["type"], "urn:corro:problem:outcome-unknown");
}

/// As after a failover, when all that waited for it is answered in one go, and nothing is left in flight.
#[tokio::test]
async fn lines_are_read_on_when_all_in_flight_are_answered_at_once() {
    const IN_FLIGHT: usize = 2_048;
    let api = Api::new();
    api.set(Mood::Gathering(IN_FLIGHT));
    let text = "{\"op\":\"create\",\"name\":\"n\",\"email\":\"a@b\"}\n".repeat(3 * IN_FLIGHT);
    let answer = timeout(PATIENCE, bulk(&api, text)).await.expect("it is read on");
    let results = results(&answer);
    let expected: Vec<_> = (1..=3 * IN_FLIGHT as u64).map(|line| (line, 201)).collect();
    assert_eq!(status_and_line(&results), expected);
}

#[tokio::test]
async fn results_come_while_the_lines_do() {
    let api = Api::new();
    let (sender, mut response) = open(&api).await;
    for (piece, expected) in [
        (
            r#"{"op":"create","name":"n","email":"a@b"}
{"op":"cre"#,
            vec![(1, 201)],
        ),
        ("ate\",\"name\":\"n\",\"email\":\"a@b\"}\n", vec![(2, 201)]),
        ("\n\nx\n", vec![(5, 400)]),
    ] {
        sender.send(piece).await.expect("it is read");
        assert_eq!(status_and_line(&next(&mut response).await.expect("a result")), expected);
    }
    drop(sender);
    assert_eq!(next(&mut response).await, None);
}

#[tokio::test]
async fn a_gateway_that_stops_ends_the_stream_with_a_line_that_says_so() {
    let settings = anonymous();
    let api = Api::with(&settings);
    let (sender, mut response) = open(&api).await;
    sender.send("\nx\n{\"op\":").await.expect("it is read");
    assert_eq!(status_and_line(&next(&mut response).await.expect("a result")), [(2, 400)]);
    settings.closing.cancel();
    let last = next(&mut response).await.expect("a last line");
    assert_eq!((last.len(), &last[0]["status"], &last[0]["last_line"]), (1, &json!(503), &json!(2)));
    assert_eq!(last[0]["type"], "urn:corro:problem:stopping");
    assert_eq!(next(&mut response).await, None);
}

#[tokio::test]
async fn a_body_that_breaks_off_ends_with_a_line_that_says_so() {
    let api = Api::new();
    let pieces = [Ok("x\ny\nz"), Err(std::io::Error::other("gone"))];
    let answer = bulk(&api, Body::from_stream(stream::iter(pieces))).await;
    let results = results(&answer);
    assert_eq!(status_and_line(&results), [(1, 400), (2, 400), (0, 400)]);
    assert_eq!((&results[2]["last_line"], results[2].get("line")), (&json!(2), None));
}

/// It sends all before it reads anything, and more than there is room for: what was done is answered, and
/// what was not.
#[tokio::test]
async fn a_caller_that_does_not_read_learns_what_was_not_looked_at() {
    const LINES: u64 = 300_000;
    let api = Api::impatient();
    let mut text = String::new();
    for _ in 0..LINES {
        text.push_str("nonsense\n");
    }
    let (sender, mut response) = open(&api).await;
    // Results are longer than lines here. The body is read to its end though the response is not read.
    let text: &'static str = text.leak();
    for piece in text.as_bytes().chunks(60_000) {
        let piece = std::str::from_utf8(piece).expect("ASCII");
        timeout(PATIENCE, sender.send(piece)).await.expect("it is read").expect("an open request");
    }
    drop(sender);
    let mut lines = 0;
    let mut last = Value::Null;
    while let Some(results) = next(&mut response).await {
        for result in results {
            if result.get("line").is_some() {
                lines += 1;
                assert_eq!(result["line"], lines, "in order, without gaps");
            } else {
                last = result;
            }
        }
    }
    assert_eq!(last["type"], "urn:corro:problem:results-unread");
    assert_eq!(last["last_line"], lines);
    assert!((100_000..LINES).contains(&lines), "{lines}");
}

#[tokio::test]
async fn a_caller_that_goes_away_makes_room_for_others() {
    let api = Api::new();
    let mut open_ones = Vec::new();
    for host in 0..16 {
        open_ones.push(open_from(&api, host).await);
    }
    let refused = bulk(&api, "x\n").await;
    refused.problem(503, "overloaded");
    assert_eq!(refused.header("retry-after"), "1");
    drop(open_ones);
    let answer = timeout(PATIENCE, async {
        loop {
            let answer = bulk(&api, "x\n").await;
            if answer.status == StatusCode::OK {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(status_and_line(&results(&answer.await.expect("room"))), [(1, 400)]);
}

/// As `curl -T file | slow`, or a library that sends the whole body first: more than the sockets hold. An
/// answer to HTTP/1.0 ends with the connection.
#[tokio::test]
async fn all_results_reach_a_caller_that_sends_all_first_and_closes_its_side() {
    const LINES: u64 = 120_000;
    let server = Server::start().await;
    let mut stream = server.connect().await;
    let line = "{\"op\":\"create\",\"name\":\"n\",\"email\":\"a@b\"}\n";
    let length = line.len() * LINES as usize;
    let head = format!(
        "POST /api/user/bulk HTTP/1.0\r\ncontent-type: application/x-ndjson\r\n\
         content-length: {length}\r\n\r\n"
    );
    let send = async {
        stream.write_all(head.as_bytes()).await?;
        let lines = line.repeat(1_000);
        for _ in 0..LINES / 1_000 {
            stream.write_all(lines.as_bytes()).await?;
        }
        stream.shutdown().await
    };
    timeout(PATIENCE, send).await.expect("it is read to its end").expect("no reset");
    let answer = rest(&mut stream).await;
    let (head, results) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.0 200"), "{head}");
    let mut lines = 0;
    for result in results.lines() {
        lines += 1;
        assert!(result.starts_with(&format!("{{\"line\":{lines},\"status\":201,")), "{result}");
    }
    assert_eq!(lines, LINES);
}

/// What is in flight when a caller vanishes is decided or not; nothing is left behind.
#[tokio::test]
async fn a_caller_that_vanishes_in_the_middle_of_a_line_leaves_nothing_behind() {
    let server = Server::start().await;
    for _ in 0..40 {
        let mut stream = server.connect().await;
        let sent = concat!(
            "POST /api/user/bulk HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n",
            "transfer-encoding: chunked\r\n\r\n9\r\nnonsense\n\r\nff\r\n{\"op\":\"del",
        );
        stream.write_all(sent.as_bytes()).await.expect("an open connection");
        let mut seen = Vec::new();
        while !seen.ends_with(b"}\n\r\n") {
            timeout(PATIENCE, stream.read_buf(&mut seen)).await.expect("no hang").expect("no reset");
        }
    }
    // Were they still there, there would be no room.
    let answer = timeout(PATIENCE, async {
        loop {
            let answer = bulk(&server.api, "x\n").await;
            if answer.status == StatusCode::OK {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(status_and_line(&results(&answer.await.expect("room"))), [(1, 400)]);
}
