//! All routes.

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{any_service, get, post};
use tokio_util::sync::CancellationToken;

use super::api::Api;
use super::guard::Guards;
use super::metrics::{self, Metrics};
use super::token::ApiTokens;
use super::{bulk, changes, check, health, list, openapi, pages, user};
use crate::coordinator::Coordinator;

/// What can be set about the HTTP side.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// How long a request may take, from its first handler line to the last: reading the body and waiting for the ring.
    pub deadline: Duration,
    /// Where set, everything below `/api` asks for one of them.
    pub tokens: Option<ApiTokens>,
    /// A stream is never silent for longer, so that nobody on the way takes it for dead.
    pub heartbeat: Duration,
    /// Ends the streams that have no end of their own; other requests are finished.
    pub closing: CancellationToken,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            tokens: None,
            heartbeat: Duration::from_secs(15),
            closing: CancellationToken::new(),
        }
    }
}

/// The whole HTTP side as one service. Every path works with and without a trailing slash, and `HEAD` wherever `GET`
/// does.
pub fn router(coordinator: Coordinator, settings: &HttpSettings) -> Router {
    let routes = [
        ("/api/user", get(list::list).post(user::create).put(user::update_named_in_body)),
        ("/api/user/count", get(list::count)),
        ("/api/user/bulk", post(bulk::bulk)),
        ("/api/user/{id}", get(user::read).put(user::update).patch(user::patch).delete(user::delete)),
        ("/api/user/changes", get(changes::stream).head(changes::head)),
        ("/api/cluster", get(health::cluster)),
        ("/api/cluster/check", get(check::check)),
        ("/api/cluster/repair/{partition}", post(check::repair)),
        ("/api/cluster/promote/{partition}", post(health::promote)),
        ("/health/live", get(health::live)),
        ("/health/ready", get(health::ready)),
        ("/openapi.json", get(openapi::show)),
        ("/docs", get(pages::docs)),
    ];
    let api = Api::new(coordinator, settings);
    let metrics = Metrics::new();
    let guards = Guards::new(settings.tokens.clone(), metrics.clone());
    let figures = get(metrics::show).with_state((api.clone(), metrics));
    let mut router = Router::new().route("/", get(pages::ring).layer(guards.around("/")));
    let routes = routes.into_iter().map(|(path, methods)| (path, methods.with_state(api.clone())));
    for (path, methods) in routes.chain([("/metrics", figures)]) {
        let methods = methods.layer(guards.around(path));
        router = router.route(path, methods.clone()).route(&format!("{path}/"), methods);
    }
    // What else socket.io needs of HTTP is its own affair.
    let sockets =
        any_service(changes::socket_service(&api, settings)).layer(guards.around(changes::SOCKET_PATH));
    router = router.route("/socket.io", sockets.clone()).route("/socket.io/", sockets);
    let elsewhere = Router::new().fallback(|| async { StatusCode::NOT_FOUND }).layer(guards.around("none"));
    router.merge(elsewhere)
}
