//! The pages for people: the ring as it lives at `/`, and the calls at `/docs`.
//!
//! Each is one file with its style and its script in it, so it works without any other network than the way
//! to this gateway. The browser runs nothing else: the policy names a number that is made for each answer,
//! and that only the page's own style and script carry.

use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::IntoResponse;
use uuid::Uuid;

use crate::http::input::query::NoParameters;

const RING: &str = include_str!("pages/ring.html");
const DOCS: &str = include_str!("pages/docs.html");

/// Where the number goes.
const NONCE: &str = "NONCE";

/// `GET /`.
pub(crate) async fn ring(_: NoParameters) -> impl IntoResponse {
    page(RING)
}

/// `GET /docs`.
pub(crate) async fn docs(_: NoParameters) -> impl IntoResponse {
    page(DOCS)
}

fn page(html: &str) -> impl IntoResponse + use<> {
    let nonce = Uuid::new_v4().simple().to_string();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let policy = HeaderValue::try_from(policy).expect("visible ASCII");
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, html.replace(NONCE, &nonce))
}
