//! The calls on one user when all goes well.

use axum::body::Body;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::ring::{Answer, Api, ID, call};

const ADA: &str =
    r#"{"id":"0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071","name":"Ada","email":"ada@example.org","group":7}"#;

fn path() -> String {
    format!("/api/user/{ID}")
}

async fn with_header(api: &Api, method: &str, name: &str, value: &str, body: &'static str) -> Answer {
    let request = call(method, &path()).header(name, value).header("content-type", "application/json");
    api.send(request.body(Body::from(body)).expect("a request")).await
}

#[tokio::test]
async fn a_user_is_created_read_changed_and_deleted() {
    let api = Api::new();
    let created = api.json("POST", "/api/user/", ADA).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(created.header("location"), path());
    assert_eq!(created.header("content-type"), "application/json");
    assert_eq!(created.body, ADA.as_bytes());
    let first = created.header("etag").to_owned();
    assert!(first.len() == 18 && first.starts_with('"') && first.ends_with('"'), "{first}");

    let read = api.bare("GET", &path()).await;
    assert_eq!((read.status.as_u16(), read.header("etag")), (200, first.as_str()));
    assert_eq!(read.body, ADA.as_bytes());

    let updated = api.json("PUT", "/api/user/", format!(r#"{{"id":"{ID}","group":8}}"#)).await;
    assert_eq!(updated.status, 200);
    let expected = json!({"id": ID, "name": "Ada", "email": "ada@example.org", "group": 8});
    assert_eq!(updated.json(), expected, "the whole user, the other fields as they were");
    assert_ne!(updated.header("etag"), first);

    let renamed = api.json("PUT", &path(), r#"{"name":"Countess"}"#).await;
    assert_eq!((renamed.status.as_u16(), &renamed.json()["name"]), (200, &json!("Countess")));
    let patched = with_header(&api, "PATCH", "x-unused", "", r#"{"email":"c@example.org"}"#).await;
    assert_eq!((patched.status.as_u16(), &patched.json()["email"]), (200, &json!("c@example.org")));

    let deleted = api.bare("DELETE", &path()).await;
    assert_eq!((deleted.status.as_u16(), deleted.body.len()), (204, 0));
    api.bare("GET", &path()).await.problem(404, "user-not-found");
    assert_eq!(api.json("POST", "/api/user", ADA).await.status, 201, "a deleted id may be created again");
}

#[tokio::test]
async fn a_new_user_needs_neither_an_id_nor_a_group() {
    let api = Api::new();
    let mut last = Uuid::nil();
    for _ in 0..3 {
        let created = api.json("POST", "/api/user/", r#"{"email":"a@b","name":"A"}"#).await;
        assert_eq!(created.status, 201);
        let user = created.json();
        assert_eq!(user["group"], 0);
        let id: Uuid = user["id"].as_str().and_then(|id| id.parse().ok()).expect("a UUID");
        assert_eq!((id.get_version_num(), created.header("location")), (7, &*format!("/api/user/{id}")));
        assert!(id > last, "later users have greater ids");
        last = id;
    }
}

#[tokio::test]
async fn a_body_with_the_id_alone_changes_nothing() {
    let api = Api::new();
    let created = api.json("POST", "/api/user", ADA).await;
    let only_id = format!(r#"{{"id":"{ID}"}}"#);
    for (method, path, body) in [
        ("PUT", "/api/user", &*only_id),
        ("PUT", &path(), &only_id),
        ("PUT", &path(), "{}"),
        ("PATCH", &path(), " {} "),
    ] {
        let unchanged = api.json(method, path, body.to_owned()).await;
        assert_eq!(unchanged.status, 200, "{method} {path} {body}");
        assert_eq!((&unchanged.body, unchanged.header("etag")), (&created.body, created.header("etag")));
    }
}

#[tokio::test]
async fn ids_are_compared_by_value_and_answered_in_one_form() {
    let api = Api::new();
    let id: Uuid = ID.parse().expect("a UUID");
    let forms = [ID.to_owned(), id.simple().to_string(), id.urn().to_string()];
    for form in forms.iter().flat_map(|form| [form.clone(), form.to_uppercase()]) {
        let created =
            api.json("POST", "/api/user", format!(r#"{{"id":"{form}","name":"A","email":"a@b"}}"#)).await;
        assert_eq!((created.status.as_u16(), &created.json()["id"]), (201, &json!(ID)), "{form}");
        let path = format!("/api/user/{form}");
        for in_path in [path.clone(), path.replace(':', "%3A"), format!("{path}/")] {
            let read = api.bare("GET", &in_path).await;
            assert_eq!((read.status.as_u16(), &read.json()["id"]), (200, &json!(ID)), "{in_path}");
        }
        let agreeing = format!(r#"{{"id":"{}","group":1}}"#, id.simple());
        assert_eq!(api.json("PUT", &path, agreeing).await.json()["group"], 1);
        assert_eq!(api.json("PUT", "/api/user", format!(r#"{{"id":"{form}"}}"#)).await.status, 200);
        assert_eq!(api.bare("DELETE", &path).await.status, 204);
    }
}

#[tokio::test]
async fn names_are_kept_in_normal_form_and_texts_survive_as_they_are() {
    let api = Api::new();
    api.json("POST", "/api/user", ADA).await;
    for (given, kept) in [
        (r#""e\u0301""#, "\u{e9}"),
        ("\"e\u{301}\"", "\u{e9}"),
        (r#""\ud83d\ude00 \"quoted\" \\ \/ <b>""#, "\u{1f600} \"quoted\" \\ / <b>"),
        ("\"\u{2028}\"", "\u{2028}"),
        // Right to left, marks that change the direction, an emoji of several characters, and a letter with
        // many marks.
        (
            "\"\u{202e}\u{5d0}\u{5d3}\u{5d4}\u{202c} \u{627}\u{62f}\u{627}\"",
            "\u{202e}\u{5d0}\u{5d3}\u{5d4}\u{202c} \u{627}\u{62f}\u{627}",
        ),
        (
            r#""\ud83d\udc69\u200d\ud83d\udc69\u200d\ud83d\udc67""#,
            "\u{1f469}\u{200d}\u{1f469}\u{200d}\u{1f467}",
        ),
        ("\"z\u{351}\u{36b}\u{313}\"", "z\u{351}\u{36b}\u{313}"),
    ] {
        let updated = api.json("PUT", &path(), format!(r#"{{"name":{given}}}"#)).await;
        assert_eq!(updated.json()["name"], Value::from(kept), "{given}");
    }
    for group in [i32::MIN, -1, 0, i32::MAX] {
        let updated = api.json("PATCH", &path(), format!(r#"{{"group":{group}}}"#)).await;
        assert_eq!(updated.json()["group"], group);
    }
}

#[tokio::test]
async fn patch_takes_a_merge_patch_too() {
    let api = Api::new();
    api.json("POST", "/api/user", ADA).await;
    for content_type in ["application/merge-patch+json", "Application/JSON ; charset=utf-8"] {
        let request = call("PATCH", &path()).header("content-type", content_type);
        let patched = api.send(request.body(Body::from(r#"{"group":9}"#)).expect("a request")).await;
        assert_eq!((patched.status.as_u16(), &patched.json()["group"]), (200, &json!(9)));
    }
}

#[tokio::test]
async fn if_match_guards_writes() {
    let api = Api::new();
    let tag = api.json("POST", "/api/user", ADA).await.header("etag").to_owned();
    for bad in ["\"0000000000000000\"".to_owned(), format!("W/{tag}"), tag.replacen('"', "\"x", 1)] {
        for (method, body) in
            [("PUT", "{\"group\":1}"), ("PUT", "{}"), ("PATCH", "{\"group\":1}"), ("DELETE", "")]
        {
            let refused = with_header(&api, method, "if-match", &bad, body).await;
            refused.problem(412, "precondition-failed");
        }
    }
    for good in ["*".to_owned(), tag.clone(), format!("\"other\", {tag}")] {
        let unchanged = with_header(&api, "PUT", "if-match", &good, "{}").await;
        assert_eq!(unchanged.status, 200, "{good}");
    }
    let updated = with_header(&api, "PATCH", "if-match", &tag, r#"{"group":2}"#).await;
    assert_eq!(updated.status, 200);
    with_header(&api, "DELETE", "if-match", &tag, "").await.problem(412, "precondition-failed");
    let newest = updated.header("etag");
    assert_eq!(with_header(&api, "DELETE", "if-match", newest, "").await.status, 204);
    with_header(&api, "DELETE", "if-match", "*", "").await.problem(404, "user-not-found");
}

#[tokio::test]
async fn put_creates_where_no_user_may_be_there() {
    let api = Api::new();
    let put = async |path: &str, body: &str| {
        let request =
            call("PUT", path).header("if-none-match", "*").header("content-type", "application/json");
        api.send(request.body(Body::from(body.to_owned())).expect("a request")).await
    };
    let (path, other) = (path(), "/api/user/00000000-0000-0000-0000-000000000001");
    let missing = put(&path, r#"{"group":1}"#).await.problem(422, "invalid-fields");
    assert_eq!(missing["errors"].as_array().map(Vec::len), Some(2), "{missing}");
    put("/api/user", r#"{"name":"Ada","email":"ada@example.org"}"#).await.problem(422, "invalid-fields");
    put(other, ADA).await.problem(422, "invalid-fields");

    let created = put(&path, r#"{"name":"Ada","email":"ada@example.org"}"#).await;
    assert_eq!((created.status.as_u16(), created.header("location")), (201, &*path));
    let expected = json!({"id": ID, "name": "Ada", "email": "ada@example.org", "group": 0});
    assert_eq!(created.json(), expected);
    for (path, body) in [(&*path, ADA), ("/api/user", ADA)] {
        put(path, body).await.problem(412, "precondition-failed");
    }
    assert_eq!(api.bare("GET", &path).await.header("etag"), created.header("etag"), "nothing was changed");

    assert_eq!(api.bare("DELETE", &path).await.status, 204);
    let again = put("/api/user/", ADA).await;
    assert_eq!((again.status.as_u16(), again.header("location")), (201, &*path));
}

#[tokio::test]
async fn if_none_match_guards_writes_of_a_user_that_is_there() {
    let api = Api::new();
    let tag = api.json("POST", "/api/user", ADA).await.header("etag").to_owned();
    for refused in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}")] {
        for (method, body) in [("PUT", "{}"), ("PATCH", "{}"), ("DELETE", "")] {
            let answer = with_header(&api, method, "if-none-match", &refused, body).await;
            answer.problem(412, "precondition-failed");
        }
    }
    for method in ["PATCH", "DELETE"] {
        let answer = with_header(&api, method, "if-none-match", "*", "{}").await;
        answer.problem(412, "precondition-failed");
    }
    with_header(&api, "PUT", "if-none-match", "no quotes", "{}").await.problem(400, "malformed-condition");
    let updated = with_header(&api, "PUT", "if-none-match", "\"other\"", r#"{"group":3}"#).await;
    assert_eq!((updated.status.as_u16(), &updated.json()["group"]), (200, &json!(3)));
    assert_eq!(with_header(&api, "DELETE", "if-none-match", &tag, "").await.status, 204);
    with_header(&api, "DELETE", "if-none-match", "*", "").await.problem(404, "user-not-found");
}

#[tokio::test]
async fn if_none_match_saves_the_body() {
    let api = Api::new();
    let tag = api.json("POST", "/api/user", ADA).await.header("etag").to_owned();
    for method in ["GET", "HEAD"] {
        for known in ["*".to_owned(), tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}")] {
            let answer = with_header(&api, method, "if-none-match", &known, "").await;
            assert_eq!((answer.status.as_u16(), answer.body.len()), (304, 0), "{known}");
            assert_eq!(answer.header("etag"), tag);
        }
        for unknown in ["\"0000000000000000\"", "\"\"", "not a list"] {
            assert_eq!(
                with_header(&api, method, "if-none-match", unknown, "").await.status,
                200,
                "{unknown}"
            );
        }
    }
}

#[tokio::test]
async fn if_match_guards_reads() {
    let api = Api::new();
    with_header(&api, "GET", "if-match", "*", "").await.problem(404, "user-not-found");
    let tag = api.json("POST", "/api/user", ADA).await.header("etag").to_owned();
    for method in ["GET", "HEAD"] {
        for good in ["*".to_owned(), tag.clone(), format!("\"other\", {tag}")] {
            assert_eq!(with_header(&api, method, "if-match", &good, "").await.status, 200, "{method} {good}");
        }
        for bad in ["\"0000000000000000\"".to_owned(), format!("W/{tag}")] {
            assert_eq!(with_header(&api, method, "if-match", &bad, "").await.status, 412, "{method} {bad}");
        }
    }
    // Which comes first, as RFC 9110 has it.
    let both = call("GET", &path()).header("if-match", &tag).header("if-none-match", &tag);
    assert_eq!(api.send(both.body(Body::empty()).expect("a request")).await.status, 304);
}

#[tokio::test]
async fn a_proxy_may_show_the_api_below_a_prefix() {
    let api = Api::new();
    for (number, (given, begins)) in
        [("/corro", "/corro"), ("/a/b/", "/a/b"), ("//x", ""), ("x", "")].iter().enumerate()
    {
        let request = call("POST", "/api/user").header("x-forwarded-prefix", *given);
        let request = request
            .header("content-type", "application/json")
            .body(Body::from(r#"{"name":"A","email":"a@b"}"#));
        let created = api.send(request.expect("a request")).await;
        let id = created.json()["id"].as_str().expect("an id").to_owned();
        assert_eq!(created.header("location"), format!("{begins}/api/user/{id}"));
        let list = call("GET", "/api/user?limit=1").header("x-forwarded-prefix", *given).body(Body::empty());
        let link = api.send(list.expect("a request")).await.header("link").to_owned();
        assert_eq!(link.starts_with(&format!("<{begins}/api/user?limit=1")), number > 0, "{link}");
    }
}

#[tokio::test]
async fn answers_are_private_and_asked_for_again() {
    let api = Api::new();
    let created = api.json("POST", "/api/user", ADA).await;
    let tag = created.header("etag").to_owned();
    let known = with_header(&api, "GET", "if-none-match", &tag, "").await;
    assert_eq!(known.status, 304);
    let mut answers = vec![created, known, api.json("POST", "/api/user", ADA).await];
    for path in [&*path(), "/api/user", "/api/user/count", "/api/user/x", "/api/cluster", "/nothing"] {
        answers.push(api.bare("GET", path).await);
    }
    for answer in answers {
        assert_eq!(answer.header("cache-control"), "private, no-cache", "{answer:?}");
    }
}

#[tokio::test]
async fn head_says_what_get_would() {
    let api = Api::new();
    api.json("POST", "/api/user", ADA).await;
    let missing = "/api/user/00000000-0000-0000-0000-000000000000";
    for path in [
        &*path(),
        missing,
        "/api/user/x",
        "/api/cluster",
        "/api/user?limit=5",
        "/api/user/count",
        "/health/live",
        "/health/ready/",
    ] {
        let (get, head) = (api.bare("GET", path).await, api.bare("HEAD", path).await);
        assert_eq!(head.status, get.status, "{path}");
        assert!(head.body.is_empty() && !get.body.is_empty(), "{path}");
        for name in ["content-type", "content-length", "etag"] {
            assert_eq!(head.header(name), get.header(name), "{name} of {path}");
        }
        assert_eq!(head.header("content-length"), get.body.len().to_string(), "{path}");
    }
}

async fn post_with_key(api: &Api, key: &str, body: &str) -> Answer {
    let request =
        call("POST", "/api/user").header("idempotency-key", key).header("content-type", "application/json");
    api.send(request.body(Body::from(body.to_owned())).expect("a request")).await
}

#[tokio::test]
async fn a_post_with_a_key_creates_once_whatever_happened_since() {
    let api = Api::new();
    let body = r#"{"name":"Ada","email":"ada@example.org"}"#;
    let first = post_with_key(&api, "order-4711", body).await;
    assert_eq!(first.status, 201, "{first:?}");
    let path = first.header("location").to_owned();
    let same = |again: &Answer| {
        assert_eq!((again.status, &again.body), (first.status, &first.body), "{again:?}");
        assert_eq!((again.header("etag"), again.header("location")), (first.header("etag"), &*path));
    };
    same(&post_with_key(&api, "order-4711", body).await);
    same(&post_with_key(&api, "order-4711", r#" {"group":0,"email":"ada@example.org","name":"Ada"}"#).await);

    post_with_key(&api, "order-4711", r#"{"name":"Bob","email":"b@b"}"#).await.problem(422, "key-reused");
    let another = post_with_key(&api, "order-4712", body).await;
    assert_eq!(another.status, 201);
    assert_ne!(another.header("location"), path, "another key is another request");

    assert_eq!(api.json("PUT", &path, r#"{"group":9}"#).await.status, 200);
    same(&post_with_key(&api, "order-4711", body).await);
    assert_eq!(api.bare("GET", &path).await.json()["group"], 9, "a repetition changes nothing");
    assert_eq!(api.bare("DELETE", &path).await.status, 204);
    same(&post_with_key(&api, "order-4711", body).await);
    assert_eq!(api.bare("GET", &path).await.status, 404, "a repetition brings no user back");
}

#[tokio::test]
async fn an_erased_user_is_gone_and_may_be_erased_again() {
    let api = Api::new();
    assert_eq!(api.json("POST", "/api/user", ADA).await.status, 201);
    let erase = format!("{}/erase", path());
    for existed in [true, false] {
        let erased = api.bare("POST", &erase).await;
        assert_eq!((erased.status.as_u16(), &erased.json()["existed"]), (200, &existed.into()));
        assert_eq!(erased.json()["id"], ID);
    }
    assert_eq!(api.bare("GET", &path()).await.status, 404);
    api.bare("POST", "/api/user/7/erase").await.problem(400, "malformed-id");
}

#[tokio::test]
async fn a_key_goes_with_an_id_in_the_body() {
    let api = Api::new();
    let first = post_with_key(&api, "k", ADA).await;
    assert_eq!((first.status.as_u16(), first.header("location")), (201, &*path()));
    assert_eq!(post_with_key(&api, "k", ADA).await.status, 201);
    post_with_key(&api, "other", ADA).await.problem(409, "user-exists");
    api.json("POST", "/api/user", ADA).await.problem(409, "user-exists");
}

#[tokio::test]
async fn a_key_that_cannot_be_one_is_refused() {
    let api = Api::new();
    let long = "k".repeat(256);
    for key in ["", "\u{e9}", &long] {
        post_with_key(&api, key, ADA).await.problem(400, "malformed-key");
    }
    let twice = call("POST", "/api/user").header("idempotency-key", "a").header("idempotency-key", "b");
    let twice = twice.header("content-type", "application/json").body(Body::from(ADA)).expect("a request");
    api.send(twice).await.problem(400, "malformed-key");
    assert_eq!(post_with_key(&api, &"k".repeat(255), ADA).await.status, 201);
}
