//! What pages of other sites can do with a browser, which says honestly where they are from; and requests for
//! names that the gateway does not have.

use axum::body::Body;
use axum::http::Request;
use gateway::http::{Access, AllowedHost, AllowedOrigin, HttpSettings, Sites, Token};

use crate::ring::{Answer, Api, ID, anonymous, call};

/// Each kind of route: API, page, metrics, document, library, nothing.
const EVERYWHERE: [&str; 9] = [
    "/",
    "/users",
    "/metrics",
    "/openapi.json",
    "/health/live",
    "/api/user",
    "/api/user/changes",
    "/socket.io/?EIO=4&transport=polling",
    "/nothing",
];

async fn from(api: &Api, origin: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = call(method, path).header("origin", origin);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    api.send(request.body(Body::empty()).expect("a request")).await
}

#[tokio::test]
async fn a_name_that_leads_here_by_rebinding_is_not_answered() {
    let api = Api::new();
    for path in EVERYWHERE {
        for method in ["GET", "POST", "OPTIONS"] {
            let request = Request::builder().method(method).uri(path).header("host", "other.example:3001");
            let answer = api.send(request.body(Body::empty()).expect("a request")).await;
            answer.problem(421, "unknown-host");
        }
    }
    let hosts = vec![AllowedHost::parse("other.example").expect("a name")];
    let sites = Sites::new(hosts, Vec::new());
    let api = Api::with(&HttpSettings { sites, ..anonymous() });
    let request = Request::get("/api/user").header("host", "other.example:3001").body(Body::empty());
    assert_eq!(api.send(request.expect("a request")).await.status, 200);
}

#[tokio::test]
async fn pages_of_foreign_origins_get_nothing() {
    let api = Api::new();
    let upgrade = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for path in EVERYWHERE.into_iter().chain(["/socket.io/?EIO=4&transport=websocket"]) {
        for origin in ["https://other.example", "null"] {
            for headers in [&[][..], &upgrade, &[("access-control-request-method", "POST")]] {
                for method in ["GET", "POST", "OPTIONS"] {
                    let answer = from(&api, origin, method, path, headers).await;
                    answer.problem(403, "foreign-origin");
                    assert!(answer.header("access-control-allow-origin").is_empty(), "{answer:?}");
                }
            }
        }
        let picture = call("GET", path).header("sec-fetch-site", "cross-site").body(Body::empty());
        api.send(picture.expect("a request")).await.problem(403, "foreign-origin");
    }
}

#[tokio::test]
async fn a_form_promotes_repairs_and_erases_nothing() {
    let tokens = Token::of_plain_list(&"token".parse().expect("not blank")).expect("a token");
    let (open, guarded) = (
        Api::new(),
        Api::with(&HttpSettings { access: Access::new(tokens, false), ..HttpSettings::default() }),
    );
    let erase = format!("/api/user/{ID}/erase");
    for path in ["/api/cluster/promote/1", "/api/cluster/repair/1", &erase] {
        for form in ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", ""]
        {
            let send = |authorization: Option<&'static str>| {
                let mut request = call("POST", path).header("content-type", form);
                if let Some(value) = authorization {
                    request = request.header("authorization", value);
                }
                request.body(Body::from("a=b")).expect("a request")
            };
            open.send(send(None)).await.problem(415, "unsupported-media-type");
            let with_token = guarded.send(send(Some("Bearer token"))).await;
            assert!(![401, 415].contains(&with_token.status.as_u16()), "{with_token:?}");
        }
        assert_ne!(open.json("POST", path, "{}").await.status, 415);
        assert_ne!(open.bare("POST", path).await.status, 415);
    }
}

#[tokio::test]
async fn pages_that_are_allowed_may_send_and_read() {
    let page = "https://app.example.org";
    let origins = vec![AllowedOrigin::parse(page).expect("an origin")];
    let tokens = Token::of_plain_list(&"token".parse().expect("not blank")).expect("a token");
    let sites = Sites::new(Vec::new(), origins);
    let api =
        Api::with(&HttpSettings { sites, access: Access::new(tokens, false), ..HttpSettings::default() });
    let user = format!("/api/user/{ID}");
    let asked = from(&api, page, "OPTIONS", &user, &[("access-control-request-method", "PUT")]).await;
    assert_eq!(asked.status, 204, "without the token, which a browser does not send with the question");
    assert!(asked.header("access-control-allow-methods").contains("PUT"));
    assert!(asked.header("access-control-allow-headers").contains("authorization"));
    for (authorization, status) in [("Bearer token", 404), ("Bearer other", 401)] {
        let answer = from(&api, page, "GET", &user, &[("authorization", authorization)]).await;
        assert_eq!(answer.status, status);
        assert_eq!((answer.header("access-control-allow-origin"), answer.header("vary")), (page, "origin"));
        assert!(answer.header("access-control-expose-headers").contains("etag"));
    }
    let own = from(&api, "http://localhost", "GET", "/health/live", &[]).await;
    assert_eq!((own.status.as_u16(), own.header("access-control-allow-origin")), (200, ""));
}

#[tokio::test]
async fn no_answer_is_taken_for_a_script() {
    let api = Api::new();
    for path in EVERYWHERE.into_iter().filter(|path| !path.ends_with("changes")) {
        let answer = api.bare("GET", path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        if answer.header("content-type").starts_with("text/html") {
            assert!(answer.header("content-security-policy").starts_with("default-src 'none'"), "{path}");
        }
    }
}
