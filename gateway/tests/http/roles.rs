//! Which role each call asks for. The calls are those of the document, so a new one fails until it is here.

use axum::body::Body;
use gateway::http::{Access, HttpSettings, Role, Token};

use crate::contract::DOCUMENT;
use crate::ring::{Api, ID, call};

/// What each call asks for; `None`: nothing.
const NEEDED: [(&str, &str, Option<Role>); 18] = [
    ("get", "/api/user", Some(Role::Read)),
    ("post", "/api/user", Some(Role::Write)),
    ("put", "/api/user", Some(Role::Write)),
    ("get", "/api/user/count", Some(Role::Read)),
    ("post", "/api/user/bulk", Some(Role::Write)),
    ("get", "/api/user/changes", Some(Role::Read)),
    ("get", "/api/user/{id}", Some(Role::Read)),
    ("put", "/api/user/{id}", Some(Role::Write)),
    ("patch", "/api/user/{id}", Some(Role::Write)),
    ("delete", "/api/user/{id}", Some(Role::Write)),
    ("post", "/api/user/{id}/erase", Some(Role::Admin)),
    ("get", "/api/cluster", Some(Role::Read)),
    ("get", "/api/cluster/check", Some(Role::Admin)),
    ("post", "/api/cluster/repair/{partition}", Some(Role::Admin)),
    ("post", "/api/cluster/promote/{partition}", Some(Role::Admin)),
    ("get", "/health/live", None),
    ("get", "/health/ready", None),
    ("get", "/metrics", Some(Role::Read)),
];

/// The status of a call by the token of that role, or without one.
async fn status(api: &Api, method: &str, path: &str, role: Option<Role>) -> u16 {
    let path = path.replace("{id}", ID).replace("{partition}", "1");
    let mut request = call(&method.to_uppercase(), &path);
    if let Some(role) = role {
        request = request.header("authorization", format!("Bearer secret-{role}"));
    }
    api.send(request.body(Body::empty()).expect("a request")).await.status.as_u16()
}

#[tokio::test]
async fn each_call_of_the_document_is_for_its_role_and_those_above() {
    let roles = [Role::Read, Role::Write, Role::Admin];
    let token = |role: Role| Token::new(role.as_str(), role, &format!("secret-{role}")).expect("a token");
    let settings =
        HttpSettings { access: Access::new(roles.map(token).to_vec(), false), ..HttpSettings::default() };
    settings.closing.cancel(); // so that streams end
    let api = Api::with(&settings);
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    let calls = paths.iter().flat_map(|(path, operations)| {
        let operations = operations.as_object().expect("operations");
        operations.iter().map(move |(method, operation)| (method.as_str(), path.as_str(), operation))
    });
    let mut found = 0;
    for (method, path, operation) in calls {
        let known = NEEDED.iter().find(|(of, at, _)| (*of, *at) == (method, path));
        let Some((.., needed)) = known else { panic!("which role does {method} {path} ask for?") };
        found += 1;
        let documented = &operation["security"][0]["token"][0];
        assert_eq!(documented.as_str(), needed.map(Role::as_str), "{method} {path}");
        let stranger = status(&api, method, path, None).await;
        assert_eq!(stranger == 401, needed.is_some(), "{method} {path} without a token: {stranger}");
        for role in roles {
            let status = status(&api, method, path, Some(role)).await;
            assert_ne!(status, 401, "{method} {path}");
            assert_eq!(status == 403, needed.is_some_and(|needed| role < needed), "{method} {path}: {role}");
        }
        if method == "get" {
            let head = status(&api, "head", path, None).await;
            assert_eq!(head == 401, needed.is_some(), "head {path}: {head}");
        }
    }
    assert_eq!(found, NEEDED.len(), "the table has calls that are no more");
}

#[tokio::test]
async fn pages_and_the_document_are_for_all_and_the_unknown_below_the_api_for_none() {
    let api = Api::with(&HttpSettings::default());
    for path in ["/", "/users", "/docs", "/openapi.json", "/health/live"] {
        assert_eq!(status(&api, "get", path, None).await, 200, "{path}");
    }
    for path in ["/api", "/api/nothing", "/api/user/", "/metrics/", "/api/cluster/"] {
        for method in ["get", "head", "options", "delete", "trace"] {
            assert_eq!(status(&api, method, path, None).await, 401, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_refusal_names_the_role_that_is_needed() {
    let token = Token::new("reader", Role::Read, "secret-read").expect("a token");
    let settings = HttpSettings { access: Access::new(vec![token], false), ..HttpSettings::default() };
    let request = call("DELETE", &format!("/api/user/{ID}")).header("authorization", "Bearer secret-read");
    let refused = Api::with(&settings).send(request.body(Body::empty()).expect("a request")).await;
    let detail = refused.problem(403, "forbidden")["detail"].to_string();
    assert!(detail.contains("is read") && detail.contains("role write"), "{detail}");
}
