//! Bodies that are refused.

use std::io;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::Value;

use crate::ring::{Api, ID, call};

const GOOD: &str = r#"{"name":"Ada","email":"ada@example.org"}"#;

fn path() -> String {
    format!("/api/user/{ID}")
}

/// What the errors of a 422 point to, sorted.
fn pointers(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"].as_array().expect("a 422 lists its errors");
    assert!(
        errors.iter().all(|error| error["detail"].as_str().is_some_and(|detail| detail.len() > 5)),
        "{problem}"
    );
    let mut pointers: Vec<&str> = errors.iter().filter_map(|error| error["pointer"].as_str()).collect();
    pointers.sort_unstable();
    pointers
}

#[tokio::test]
async fn bodies_that_are_no_json() {
    let api = Api::new();
    let deep = "[".repeat(60_000);
    let deep_in_field = format!("{{\"name\":{deep}");
    for body in [
        &b""[..],
        b" ",
        b"{",
        b"{}}",
        b"{\"name\":}",
        b"{'name':'Ada'}",
        b"{\"name\":\"Ada\",}",
        b"name=Ada",
        b"\xef\xbb\xbf",
        b"{}\xef\xbb\xbf",
        b"{\"name\":\"\xff\"}",
        b"{\"name\":\"a\nb\"}",
        b"{\"group\":01}",
        b"{\"group\":NaN}",
        b"nul",
        // Wrong types and unknown fields come first, and still it is no JSON.
        b"{\"name\":1,\"other\":2,\"group\":null",
        b"{\"name\":1}trailing",
        b"[1,2",
        b"{\"\\ud800\":1}",
        deep.as_bytes(),
        deep_in_field.as_bytes(),
    ] {
        for (method, path) in
            [("POST", "/api/user"), ("PUT", "/api/user/"), ("PUT", &path()), ("PATCH", &path())]
        {
            let answer = api.json(method, path, Bytes::copy_from_slice(body)).await;
            assert_eq!(
                answer.status,
                400,
                "{method} {:?}",
                String::from_utf8_lossy(&body[..body.len().min(40)])
            );
            answer.problem(400, "malformed-body");
        }
    }
}

#[tokio::test]
async fn all_that_is_wrong_with_a_body_is_listed_at_once() {
    let api = Api::new();
    let long_name = format!(r#"{{"name":"{}","email":"a@b"}}"#, "ä".repeat(257));
    let long_email = format!(r#"{{"name":"A","email":"a@{}"}}"#, "b.".repeat(126) + "b");
    let deep = format!(r#"{{"name":{}{},"email":"a@b"}}"#, "[".repeat(30_000), "]".repeat(30_000));
    for (body, expected) in [
        ("{}", vec!["/email", "/name"]),
        (r#"{"name":"A"}"#, vec!["/email"]),
        ("[]", vec![""]),
        (r#"["0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071","A","a@b",1]"#, vec![""]),
        ("null", vec![""]),
        ("\"text\"", vec![""]),
        // What may be left out may be null.
        (r#"{"name":null,"email":null,"group":null,"id":null}"#, vec!["/email", "/name"]),
        (r#"{"name":null,"group":null,"group":null}"#, vec!["/email", "/group", "/name"]),
        (r#"{"name":1,"email":true,"group":"1","id":[]}"#, vec!["/email", "/group", "/id", "/name"]),
        (
            r#"{"name":"","email":"a","group":1.5,"id":"x","age":3,"a/b~":{}}"#,
            vec!["/age", "/a~1b~0", "/email", "/group", "/id", "/name"],
        ),
        (r#"{"name":"A","name":"B","email":"a@b"}"#, vec!["/name"]),
        (r#"{"name":"A","na\u006de":"A","name":1,"email":"a@b","x":1,"x":1}"#, vec!["/name", "/x", "/x"]),
        (r#"{"name":"a\u0000","email":"a@b"}"#, vec!["/name"]),
        (r#"{"name":"a\u001e","email":"a@b"}"#, vec!["/name"]),
        (r#"{"name":"\u0085","email":"a@b"}"#, vec!["/name"]),
        (r#"{"name":"\ud800","email":"a@b"}"#, vec!["/name"]),
        (&long_name, vec!["/name"]),
        (&long_email, vec!["/email"]),
        (&deep, vec!["/name"]),
        (r#"{"name":"A","email":"a b@c"}"#, vec!["/email"]),
        (r#"{"name":"A","email":"A <a@b>"}"#, vec!["/email"]),
        (r#"{"name":"A","email":"a@b","group":2147483648}"#, vec!["/group"]),
        (r#"{"name":"A","email":"a@b","group":-2147483649}"#, vec!["/group"]),
        (r#"{"name":"A","email":"a@b","group":1e-1}"#, vec!["/group"]),
        (r#"{"name":"A","email":"a@b","group":2147483648.0}"#, vec!["/group"]),
        (r#"{"name":"A","email":"a@b","group":1e999}"#, vec!["/group"]),
        (r#"{"Name":"A","email":"a@b"}"#, vec!["/Name", "/name"]),
    ] {
        let problem = api.json("POST", "/api/user", body.to_owned()).await.problem(422, "invalid-fields");
        assert_eq!(pointers(&problem), expected, "{}", &body[..body.len().min(80)]);
    }
}

#[tokio::test]
async fn bodies_may_be_written_in_several_ways() {
    let api = Api::new();
    for (group, read) in [("1.0", 1), ("1e2", 100), ("-0", 0), ("-0.0", 0), ("null", 0)] {
        let body = format!("\u{feff}{{\"name\":\"A\",\"email\":\"a@b\",\"group\":{group},\"id\":null}}");
        let created = api.json("POST", "/api/user", body).await;
        assert_eq!((created.status.as_u16(), &created.json()["group"]), (201, &Value::from(read)), "{group}");
    }
    let body = r#"{"name":"A","email":"a@b","group":null,"id":null}"#;
    let put = call("PUT", &path()).header("if-none-match", "*").header("content-type", "application/json");
    assert_eq!(api.send(put.body(Body::from(body)).expect("a request")).await.status, 201);
    let put =
        call("PUT", "/api/user").header("if-none-match", "*").header("content-type", "application/json");
    let problem = api.send(put.body(Body::from(body)).expect("a request")).await;
    assert_eq!(pointers(&problem.problem(422, "invalid-fields")), ["/id"]);
    assert_eq!(api.json("PATCH", &path(), r#"{"group":3.0}"#).await.json()["group"], 3);
    let removal = api.json("PATCH", &path(), r#"{"group":null}"#).await.problem(422, "invalid-fields");
    assert!(
        removal["errors"][0]["detail"].as_str().is_some_and(|detail| detail.contains("cannot be removed"))
    );
    let many = api.json("POST", "/api/user", format!("[{GOOD}]")).await.problem(422, "invalid-fields");
    assert!(many["errors"][0]["detail"].as_str().is_some_and(|detail| detail.contains("/api/user/bulk")));
}

#[tokio::test]
async fn an_update_needs_one_id_and_no_more() {
    let api = Api::new();
    let other = r#"{"id":"00000000-0000-0000-0000-000000000000","group":"x"}"#;
    for (method, path, body, expected) in [
        ("PUT", "/api/user", "{}", vec!["/id"]),
        ("PUT", "/api/user/", r#"{"name":""}"#, vec!["/id", "/name"]),
        ("PUT", "/api/user/", r#"{"id":"x"}"#, vec!["/id"]),
        ("PUT", &path(), other, vec!["/group", "/id"]),
        ("PATCH", &path(), other, vec!["/group", "/id"]),
        ("PATCH", &path(), r#"{"id":null}"#, vec!["/id"]),
        ("PATCH", &path(), r#"{"name":null,"email":null,"group":null}"#, vec!["/email", "/group", "/name"]),
    ] {
        let problem = api.json(method, path, body).await.problem(422, "invalid-fields");
        assert_eq!(pointers(&problem), expected, "{method} {path} {body}");
    }
}

#[tokio::test]
async fn bodies_of_another_type() {
    let api = Api::new();
    let path = path();
    let merge_patch = "application/merge-patch+json";
    for (method, path, content_type) in [
        ("POST", "/api/user", ""),
        ("POST", "/api/user", "text/plain"),
        ("POST", "/api/user", "application/x-www-form-urlencoded"),
        ("POST", "/api/user", "application/jsonp"),
        ("POST", "/api/user", "json"),
        ("POST", "/api/user", merge_patch),
        ("PUT", "/api/user", merge_patch),
        ("PUT", &path, merge_patch),
        ("PATCH", &path, "application/json-patch+json"),
    ] {
        let mut request = call(method, path);
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let answer = api.send(request.body(Body::from(GOOD)).expect("a request")).await;
        answer.problem(415, "unsupported-media-type");
        let accepted = match method {
            "PATCH" => ("", "application/json, application/merge-patch+json"),
            _ => ("application/json", ""),
        };
        assert_eq!((answer.header("accept"), answer.header("accept-patch")), accepted, "{answer:?}");
    }
    let bulk = call("POST", "/api/user/bulk").header("content-type", "application/json");
    let answer = api.send(bulk.body(Body::from("{}")).expect("a request")).await;
    answer.problem(415, "unsupported-media-type");
    assert_eq!(answer.header("accept"), "application/x-ndjson");
    let compressed = call("POST", "/api/user")
        .header("content-type", "application/json")
        .header("content-encoding", "gzip");
    let answer = api.send(compressed.body(Body::from(GOOD)).expect("a request")).await;
    answer.problem(415, "unsupported-media-type");
    assert_eq!((answer.header("accept-encoding"), answer.header("accept")), ("identity", ""));
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    let api = Api::new();
    let padded = |length: usize| format!("{GOOD}{}", " ".repeat(length - GOOD.len()));
    for (length, status) in [(65_536, 201), (65_537, 413), (200_000, 413)] {
        let whole = api.json("POST", "/api/user", padded(length)).await;
        assert_eq!(whole.status, status, "{length} bytes");
        let pieces = padded(length).into_bytes();
        let streamed = api.json("POST", "/api/user", in_pieces(&pieces, 1_000)).await;
        assert_eq!(streamed.status, status, "{length} bytes of unannounced length");
        if status == 413 {
            whole.problem(413, "body-too-large");
            streamed.problem(413, "body-too-large");
        }
    }
}

/// A body whose length is not known beforehand.
fn in_pieces(bytes: &[u8], length: usize) -> Body {
    let pieces: Vec<_> =
        bytes.chunks(length).map(|piece| Ok::<_, io::Error>(Bytes::copy_from_slice(piece))).collect();
    Body::from_stream(stream::iter(pieces))
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_or_breaks_off() {
    let api = Api::impatient();
    let start = stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"{"))]);
    let answer = api.json("POST", "/api/user", Body::from_stream(start.chain(stream::pending()))).await;
    answer.problem(408, "body-too-slow");

    let broken = stream::iter([Ok(Bytes::from_static(b"{")), Err(io::Error::other("reset"))]);
    let answer = api.json("POST", "/api/user", Body::from_stream(broken)).await;
    answer.problem(400, "malformed-body");
}
