//! The ceiling: the HTTP side of the gateway over a map in memory, for `corro bench`.
//!
//! How fast could a store behind this API be at most? As fast as the API itself, were the answer already known. So this is
//! the calls on one user with the same extraction, the same validation, the same guard around them and the same bytes in
//! the answers, and in place of the ring a map that answers at once: no channel, no socket, no disk. What a ring takes
//! beyond it is the price of keeping users safe.
//!
//! The calls are written down once more here, rather than given another backend: nothing may stand between a handler and
//! its map, not even a future that is ready. The map is behind a mutex that nobody ever waits for, as there is one thread.
//!
//! It is not for production. It forgets everything, and knows neither lists nor health; an `Idempotency-Key` is read and
//! not remembered.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use protocol::{Condition, Outcome, User, UserId, Version};
use tokio::time::Instant;

use super::body::{self, Takes};
use super::guard::Guards;
use super::id::Id;
use super::metrics::Metrics;
use super::problem::Problem;
use super::router::HttpSettings;
use super::user::{allowed, document, not_found, not_modified, with_location};
use super::{etag, fields, idempotency};

/// The calls on one user, answered from memory.
pub fn ceiling() -> Router {
    let routes = [
        ("/api/user", post(create).put(update_named_in_body)),
        ("/api/user/{id}", get(read).put(update).delete(delete)),
    ];
    let (memory, guards) = (Memory::default(), Guards::new(None, Metrics::new()));
    let mut router = Router::new();
    for (path, methods) in routes {
        let methods = methods.with_state(memory.clone()).layer(guards.around(path));
        router = router.route(path, methods.clone()).route(&format!("{path}/"), methods);
    }
    router
}

/// All users.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Users>>);

#[derive(Default)]
struct Users {
    /// Counts the writes.
    version: u64,
    users: HashMap<UserId, Kept>,
}

struct Kept {
    version: Version,
    user: User,
    /// As it is answered.
    document: Bytes,
}

impl Memory {
    fn users(&self) -> MutexGuard<'_, Users> {
        self.0.lock().expect("no one panics while he looks into the map")
    }
}

impl Users {
    fn next(&mut self) -> Version {
        self.version += 1;
        Version(self.version)
    }
}

impl Kept {
    fn new(version: Version, user: User) -> Self {
        let document = serde_json::to_vec(&user).expect("strings and numbers always serialize");
        Self { version, user, document: Bytes::from(document) }
    }

    fn response(&self, status: StatusCode) -> Response {
        document(status, self.version, self.document.clone())
    }
}

/// When a request that starts now has to be answered, as the gateway reckons it.
fn deadline() -> Instant {
    Instant::now() + HttpSettings::default().deadline
}

async fn create(State(memory): State<Memory>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let body = body::read(&parts.headers, body, Takes::Json, deadline()).await?;
    let (chosen, mut change) = fields::create(&body)?;
    let id = idempotency::identify(&parts.headers, chosen, &mut change)?;
    let mut users = memory.users();
    let version = users.next();
    match users.users.entry(id) {
        Entry::Occupied(_) => allowed(Outcome::Exists).map(|()| unreachable!("it is an error")),
        Entry::Vacant(place) => {
            let user = User {
                id,
                name: change.name.unwrap_or_default(),
                email: change.email.unwrap_or_default(),
                group: change.group.unwrap_or_default(),
            };
            let kept = place.insert(Kept::new(version, user));
            Ok(with_location(id, kept.response(StatusCode::CREATED)))
        }
    }
}

async fn read(State(memory): State<Memory>, Id(id): Id, request: Request) -> Result<Response, Problem> {
    match memory.users().users.get(&id) {
        None => Err(not_found()),
        Some(kept) if etag::is_known(request.headers(), kept.version) => Ok(not_modified(kept.version)),
        Some(kept) => Ok(kept.response(StatusCode::OK)),
    }
}

async fn update_named_in_body(State(memory): State<Memory>, request: Request) -> Result<Response, Problem> {
    change(&memory, None, request).await
}

async fn update(
    State(memory): State<Memory>,
    id: Result<Id, Problem>,
    request: Request,
) -> Result<Response, Problem> {
    change(&memory, Some(id), request).await
}

async fn change(
    memory: &Memory,
    in_path: Option<Result<Id, Problem>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let body = body::read(&parts.headers, body, Takes::Json, deadline()).await?;
    let in_path = in_path.transpose()?;
    let condition = etag::conditions(&parts.headers)?.of_a_user();
    let (id, change) = fields::update(&body, in_path)?;
    let mut users = memory.users();
    let version = users.next();
    let kept = users.users.get_mut(&id).ok_or_else(not_found)?;
    holds(condition.as_ref(), kept.version)?;
    let User { name, email, group, .. } = kept.user.clone();
    let user = User {
        id,
        name: change.name.unwrap_or(name),
        email: change.email.unwrap_or(email),
        group: change.group.unwrap_or(group),
    };
    *kept = Kept::new(version, user);
    Ok(kept.response(StatusCode::OK))
}

async fn delete(State(memory): State<Memory>, Id(id): Id, request: Request) -> Result<StatusCode, Problem> {
    let condition = etag::conditions(request.headers())?.of_a_user();
    let mut users = memory.users();
    let Entry::Occupied(kept) = users.users.entry(id) else { return Err(not_found()) };
    holds(condition.as_ref(), kept.get().version)?;
    kept.remove();
    Ok(StatusCode::NO_CONTENT)
}

fn holds(condition: Option<&Condition>, version: Version) -> Result<(), Problem> {
    match condition {
        Some(condition) if !condition.holds(version) => allowed(Outcome::PreconditionFailed),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Method;
    use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH, LOCATION};
    use tower::ServiceExt;

    use super::*;

    const USER: &str = "/api/user/0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071";

    async fn ask(router: &Router, method: Method, path: &str, body: &str) -> (u16, String, String) {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        answer(router, request.body(Body::from(body.to_owned())).expect("a request")).await
    }

    async fn answer(router: &Router, request: Request) -> (u16, String, String) {
        let response = router.clone().oneshot(request).await.expect("a router answers everything");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.expect("a whole body");
        let tag = parts.headers.get(ETAG).and_then(|tag| tag.to_str().ok()).unwrap_or_default().to_owned();
        assert!(parts.status != 201 || parts.headers[LOCATION] == USER);
        (parts.status.as_u16(), tag, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn it_keeps_users_as_the_ring_does() {
        let router = ceiling();
        let (name, id) = (r#""name":"Ada","email":"ada@example.org""#, &USER[10..]);
        let user = |group: i32| format!(r#"{{"id":"{id}",{name},"group":{group}}}"#);
        let (status, first, created) =
            ask(&router, Method::POST, "/api/user/", &format!(r#"{{"id":"{id}",{name}}}"#)).await;
        assert_eq!((status, created), (201, user(0)));
        assert_eq!(ask(&router, Method::POST, "/api/user", &user(1)).await.0, 409);
        assert_eq!(ask(&router, Method::GET, USER, "").await, (200, first.clone(), user(0)));
        let body = format!(r#"{{"id":"{id}","group":7}}"#);
        let (status, second, updated) = ask(&router, Method::PUT, "/api/user/", &body).await;
        assert_eq!((status, updated), (200, user(7)));
        assert_ne!(first, second);
        assert_eq!(ask(&router, Method::PUT, USER, r#"{"group":8}"#).await.2, user(8));
        assert_eq!(ask(&router, Method::PUT, "/api/user/", "{}").await.0, 422);
        let stale = Request::delete(USER).header(IF_MATCH, &first).body(Body::empty()).expect("a request");
        assert_eq!(answer(&router, stale).await.0, 412);
        let known = Request::get(USER).header(IF_NONE_MATCH, "*").body(Body::empty()).expect("a request");
        assert_eq!(answer(&router, known).await.0, 304);
        assert_eq!(ask(&router, Method::DELETE, USER, "").await.0, 204);
        assert_eq!(ask(&router, Method::DELETE, USER, "").await.0, 404);
        assert_eq!(ask(&router, Method::GET, USER, "").await.0, 404);
    }
}
