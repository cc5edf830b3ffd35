//! The pages for people: the ring as it lives at `/`, the users at `/users`, and the calls at `/docs`.
//!
//! Each is one text with its style and its script in it, so it works without any other network than the way
//! to this gateway. The browser runs nothing else: the policy names a number that is made for each answer,
//! and that only the page's own style and script carry. Pages refer to each other and to the API relative to
//! where they are, so they work behind a path of a proxy.

use std::sync::LazyLock;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::IntoResponse;
use uuid::Uuid;

use crate::http::input::query::NoParameters;
use crate::http::settings::Launcher;

/// A page, put together from its own text and what all pages share.
type Page = LazyLock<String>;

static RING: Page = LazyLock::new(|| assemble("", "the ring", include_str!("pages/ring.html")));
static USERS: Page = LazyLock::new(|| assemble("users", "users", include_str!("pages/users.html")));
static DOCS: Page = LazyLock::new(|| assemble("docs", "the API", include_str!("pages/docs.html")));

const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E\
    %3Ccircle cx='8' cy='8' r='5.5' fill='none' stroke='%2317704f' stroke-width='3'/%3E%3C/svg%3E";

/// A page that is served at that path.
fn assemble(path: &str, title: &str, page: &str) -> String {
    let link = format!(r#"<a href="{path}""#);
    let nav = include_str!("pages/nav.html").replace(&link, &format!(r#"{link} aria-current="page""#));
    let below = if path.is_empty() { String::new() } else { format!("{path}/") };
    page.replace("{{head}}", include_str!("pages/head.html"))
        .replace("{{nav}}", &nav)
        .replace("{{ask}}", include_str!("pages/ask.html"))
        .replace("{{style}}", include_str!("pages/common.css"))
        .replace("{{script}}", include_str!("pages/common.js"))
        .replace("{{title}}", title)
        .replace("{{path}}", &below)
        .replace("{{icon}}", ICON)
}

/// `GET /`.
pub(crate) async fn ring(State(launcher): State<Launcher>, _: NoParameters) -> impl IntoResponse {
    page(&RING.replace("{{hint}}", launcher.how_to_stop_a_process()))
}

/// `GET /users`.
pub(crate) async fn users(_: NoParameters) -> impl IntoResponse {
    page(&USERS)
}

/// `GET /docs`.
pub(crate) async fn docs(_: NoParameters) -> impl IntoResponse {
    page(&DOCS)
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
    (headers, html.replace("{{nonce}}", &nonce))
}
