//! The document of the API: whether it is the one that is kept, and whether it tells the truth.
//!
//! Every answer that any test of this program sees is held against the document ([`check`]), so a status or a
//! problem that is missing in it fails the test that provoked it.

use std::path::PathBuf;
use std::sync::LazyLock;

use serde_json::Value;

use crate::ring::{Answer, Api, anonymous};

fn kept() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../resources/openapi.json")
}

pub(crate) static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let text = std::fs::read_to_string(kept()).expect("resources/openapi.json is there");
    serde_json::from_str(&text).expect("resources/openapi.json is JSON")
});

/// The path as the document has it: with a name in braces where the id is.
fn template(path: &str) -> Option<&'static str> {
    let path = path.split('?').next().unwrap_or_default();
    let path = path.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(path);
    let fits = |template: &str| {
        let (mut given, mut known) = (path.split('/'), template.split('/'));
        loop {
            match (given.next(), known.next()) {
                (None, None) => return true,
                (Some(given), Some(known))
                    if given == known || (known.starts_with('{') && !given.is_empty()) => {}
                _ => return false,
            }
        }
    };
    let paths = DOCUMENT["paths"].as_object().expect("the document has paths");
    // A path without a name comes first.
    let mut templates: Vec<&str> =
        paths.keys().map(String::as_str).filter(|template| fits(template)).collect();
    templates.sort_by_key(|template| template.contains('{'));
    templates.first().copied()
}

/// Fails where the document does not know of this answer.
pub(crate) fn check(method: &str, path: &str, answer: &Answer) {
    let method = if method == "HEAD" { "get".to_owned() } else { method.to_lowercase() };
    let Some(operation) = template(path).map(|template| &DOCUMENT["paths"][template][&method]) else {
        return;
    };
    if operation.is_null() {
        // Another method: that answer is the same everywhere.
        return;
    }
    let status = answer.status.as_str();
    let documented = &operation["responses"][status];
    assert!(documented.is_object(), "{method} {path} answered {status}, which is not documented");
    let content_type = answer.header("content-type");
    if !content_type.is_empty() {
        let essence = content_type.split(';').next().unwrap_or_default();
        let content = &documented["content"][essence];
        assert!(
            content.is_object(),
            "{method} {path} answered {status} as {essence}, which is not documented"
        );
        if essence == "application/problem+json" && !answer.body.is_empty() {
            let problem = answer.json();
            let name = problem["type"].as_str().and_then(|kind| kind.rsplit(':').next()).unwrap_or_default();
            assert!(content["examples"][name].is_object(), "{method} {path}: {name} is not documented");
        }
    }
    for name in
        ["etag", "location", "retry-after", "www-authenticate", "accept", "accept-patch", "accept-encoding"]
    {
        let headers = documented["headers"].as_object();
        let knows =
            headers.is_some_and(|headers| headers.keys().any(|known| known.eq_ignore_ascii_case(name)));
        assert!(
            knows || answer.header(name).is_empty(),
            "{method} {path}: {name} of a {status} is not documented"
        );
    }
}

/// `CORRO_BLESS=1` writes what is shown now.
#[tokio::test]
async fn the_document_is_the_one_that_is_kept() {
    let shown = Api::new().bare("GET", "/openapi.json").await;
    assert_eq!((shown.status.as_u16(), shown.header("content-type")), (200, "application/json"));
    let shown = String::from_utf8(shown.body).expect("text");
    if std::env::var_os("CORRO_BLESS").is_some() {
        std::fs::write(kept(), &shown).expect("the file can be written");
    }
    let kept = std::fs::read_to_string(kept()).expect("resources/openapi.json is there");
    assert!(
        shown == kept,
        "resources/openapi.json is not what the gateway shows: run with CORRO_BLESS=1, and read the \
         difference"
    );
}

#[tokio::test]
async fn every_call_of_the_document_is_there() {
    // So that streams end, too.
    let settings = anonymous();
    settings.closing.cancel();
    let api = Api::with(&settings);
    assert!(DOCUMENT["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    let mut calls = 0;
    for (path, operations) in DOCUMENT["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            for name in ["operationId", "summary"] {
                assert!(operation[name].is_string(), "{method} {path} has no {name}");
            }
            let path = path.replace("{id}", crate::ring::ID).replace("{partition}", "1");
            let unknown = api.bare(&method.to_uppercase(), &format!("{path}?nonsense=1")).await;
            let detail = unknown.problem(400, "malformed-query")["detail"].to_string();
            assert!(detail.contains("nonsense"), "{method} {path}: {detail}");
            let answer = api.bare(&method.to_uppercase(), &path).await;
            assert_ne!(answer.status, 405, "{method} {path}");
            if answer.status == 404 {
                assert_ne!(answer.json()["type"], "urn:corro:problem:route-not-found", "{method} {path}");
            }
            calls += 1;
        }
    }
    assert!(calls >= 11, "{calls} calls");
}
