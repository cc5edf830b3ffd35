//! All routes.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};

use super::api::Api;
use super::document;
use super::handlers::bulk::{self, BulkState};
use super::handlers::changes::{self, FeedState};
use super::handlers::{cluster, health, list, metrics, pages, user};
use super::layers::Guards;
use super::metrics::{Limit, Metrics};
use super::settings::HttpSettings;
use crate::engine_task::EngineHandle;

/// The whole HTTP side as one service. Every path works with and without a trailing slash, and `HEAD`
/// wherever `GET` does.
pub fn router(engine: EngineHandle, settings: &HttpSettings) -> Router {
    let metrics = Metrics::new(settings.audit.lost());
    let api = Api::new(engine, settings, &metrics.limits);
    let feed = FeedState::new(api.clone(), &metrics);
    let guards = Guards::new(settings, &metrics);
    let routes = [
        ("/api/user", get(list::list_users).post(user::create_user).put(user::update_user_named_in_body)),
        ("/api/user/count", get(list::count_users)),
        (
            "/api/user/{id}",
            get(user::get_user).put(user::update_user).patch(user::patch_user).delete(user::delete_user),
        ),
        ("/api/user/{id}/erase", post(user::erase_user)),
        ("/api/cluster", get(cluster::get_cluster)),
        ("/api/cluster/check", get(cluster::check_copies)),
        ("/api/cluster/repair/{partition}", post(cluster::repair_partition)),
        ("/api/cluster/promote/{partition}", post(cluster::promote_partition)),
        ("/health/live", get(health::get_liveness)),
        ("/health/ready", get(health::get_readiness)),
        ("/openapi.json", get(document::show)),
        ("/users", get(pages::users)),
        ("/docs", get(pages::docs)),
    ];
    let routes = routes.map(|(path, methods)| (path, methods.with_state(api.clone())));
    let with_more_state = [
        (
            "/api/user/bulk",
            post(bulk::request::change_users_in_bulk)
                .with_state(BulkState::new(api.clone(), metrics.limits.of(Limit::Bulk))),
        ),
        (
            "/api/user/changes",
            get(changes::stream::listen_to_changes).head(changes::stream::head).with_state(feed.clone()),
        ),
        ("/metrics", get(metrics::get_metrics).with_state((api, metrics))),
    ];
    let mut router =
        Router::new().route("/", get(pages::ring).with_state(settings.launcher).layer(guards.around("/")));
    for (path, methods) in routes.into_iter().chain(with_more_state) {
        let methods = methods.layer(guards.around(path));
        router = router.route(path, methods.clone()).route(&format!("{path}/"), methods);
    }
    // What else socket.io needs of HTTP is its own affair.
    let sockets = changes::socket_service(&feed).layer(guards.around_library(changes::SOCKET_PATH));
    router = router.route("/socket.io", sockets.clone()).route("/socket.io/", sockets);
    let elsewhere = Router::new().fallback(|| async { StatusCode::NOT_FOUND }).layer(guards.around("none"));
    router.merge(elsewhere)
}
