//! The feed over socket.io, for browsers and for programs that speak it already: namespace `/changes` on the
//! REST port.
//!
//! The auth object may have `token`, where the API asks for one, and `after`, the id of the last event seen.
//! A connection that is refused gets the `type` of the problem as its error message. Then comes `subscribed`
//! with the id at which it begins, and an event for each change: its name as in the event stream, the user,
//! and the id of the event.
//!
//! How it ends matters more than usual. Clients connect again by themselves when the *connection* breaks, and
//! stay away when the server *disconnects* them (in socket.io, or by a close packet of engine.io beneath it).
//! So a gateway that stops disconnects no client: its connections end with it, and clients come back with the
//! last id that they have. Only a client that is too slow gets an event `dropped`, and is removed from the
//! namespace.
//!
//! The library calls a handler on a task of its own for each connection; that task is the subscriber. What it
//! emits goes into a bounded buffer of the connection. A full one makes the subscriber wait, and its place in
//! the feed stays where it is, until that is let go.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, any_service};
use process::server::Caller;
use serde::Deserialize;
use socketioxide::extract::{SocketRef, TryData};
use socketioxide::handler::ConnectHandler;
use socketioxide::{SendError, SocketError, SocketIo};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tower::util::service_fn;

use super::subscriber::{FeedState, MAX_STRANGERS, Subscriber, parse_id};
use crate::engine_task::Unserved;
use crate::feed::FeedEvent;
use crate::http::fairness::{Client, Share, Shares};
use crate::http::input::token::Role;
use crate::http::kind::Kind;
use crate::http::metrics::{DropReason, Transport};
use crate::http::problem::Problem;

/// Where clients look for socket.io unless they are configured otherwise.
pub(crate) const PATH: &str = "/socket.io";

const NAMESPACE: &str = "/changes";

/// A client has nothing to send but its auth.
const MAX_PAYLOAD: usize = 16 << 10;

/// Events that may wait for one connection.
const MAX_WAITING: usize = 1_024;

/// A client that has not joined the namespace by then is disconnected.
const JOIN_WITHIN: Duration = Duration::from_secs(5);

/// The longest query with which a session may begin: the library keeps it.
const MAX_QUERY: usize = 512;

/// Of the request with which a session begins, the library gets these headers, and keeps them.
const KEPT: [HeaderName; 5] = [AUTHORIZATION, CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION];

/// A buffer that is full is looked at again after this time.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(25);

/// A client whose buffer stays full for longer is too slow.
const SLOWEST: Duration = Duration::from_secs(10);

/// Once a second.
const DISMISS_ATTEMPTS: u32 = 60;

/// What a client sends as it connects.
#[derive(Debug, Default, Deserialize)]
struct Auth {
    token: Option<String>,
    after: Option<String>,
}

/// Why a client may not join; it gets the type of the problem.
struct Refused(Problem);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.kind().r#type())
    }
}

/// From the check of a connection to its handler.
type HandOver = Arc<Mutex<Option<Subscriber>>>;

/// The place of a session among those of strangers, until its client joins: an extension of the request with
/// which it began, which is there as long as the session.
#[derive(Clone)]
struct Stranger(Arc<Mutex<Option<(OwnedSemaphorePermit, Share)>>>);

/// The service behind [`PATH`].
pub(crate) fn service(state: &FeedState) -> MethodRouter {
    let (service, io) = SocketIo::builder()
        .connect_timeout(JOIN_WITHIN)
        .max_payload(MAX_PAYLOAD as u64)
        .ws_max_message_size(MAX_PAYLOAD)
        .ws_max_frame_size(MAX_PAYLOAD)
        .max_buffer_size(MAX_WAITING)
        .build_svc();
    let checked = state.clone();
    let check = async move |socket: SocketRef, TryData(auth): TryData<Auth>| {
        let subscriber = begin(&checked, &socket, auth.unwrap_or_default()).await.map_err(Refused)?;
        let known = &socket.req_parts().extensions;
        if let Some(Stranger(place)) = known.get() {
            place.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        if let Some(caller) = known.get::<Caller>() {
            caller.admit();
        }
        socket.extensions.insert::<HandOver>(Arc::new(Mutex::new(Some(subscriber))));
        Ok::<(), Refused>(())
    };
    let closing = state.api.settings().closing.clone();
    let closing_too = closing.clone();
    let serve = async move |socket: SocketRef| {
        let handed = socket.extensions.remove::<HandOver>();
        let subscriber =
            handed.and_then(|handed| handed.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(subscriber) = subscriber {
            serve(socket, subscriber, &closing).await;
        }
    };
    io.ns(NAMESPACE, serve.with(check));
    let strangers = Arc::new(Semaphore::new(MAX_STRANGERS));
    let of_each = state.strangers_of_each.clone();
    any_service(service_fn(move |request: Request| {
        let (service, closing) = (service.clone(), closing_too.clone());
        let request = if begins(&request) { as_stranger(request, &strangers, &of_each) } else { Ok(request) };
        async move {
            let request = match request {
                Ok(request) => request,
                Err(problem) => return Ok(problem.into_response()),
            };
            let caller = request.extensions().get::<Caller>().cloned().filter(|_| !begins(&request));
            // A client that polls waits in a request for what comes next: that must not hold up the end.
            match closing.run_until_cancelled(service.oneshot(request)).await {
                Some(Ok(response)) => {
                    if let Some(caller) =
                        caller.filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS)
                    {
                        // The session is there already, and has a bound of its own.
                        caller.admit();
                    }
                    Ok(response.map(Body::new))
                }
                Some(Err(never)) => match never {},
                None => Ok(Problem::from(Unserved::Stopping).into_response()),
            }
        }
    }))
}

/// Whether a session begins with the request: those that go on name it.
fn begins(request: &Request) -> bool {
    let query = request.uri().query().unwrap_or_default();
    !query.split('&').any(|parameter| parameter.starts_with("sid="))
}

/// The request with which a session begins, copied without what is not needed of it: the library keeps it,
/// and with a part of it the whole buffer in which it came.
///
/// # Errors
/// Where too many sessions have begun whose clients have not joined, of that address (429) or of all (503);
/// where the query is too long.
fn as_stranger(request: Request, strangers: &Arc<Semaphore>, of_each: &Shares) -> Result<Request, Problem> {
    let query = request.uri().query().unwrap_or_default();
    if query.len() > MAX_QUERY {
        return Err(Problem::new(Kind::MalformedQuery, "The query is longer than socket.io needs."));
    }
    let share = of_each.take(&Client::by_address(request.extensions()))?;
    let Ok(place) = Arc::clone(strangers).try_acquire_owned() else {
        let detail = "Too many clients have connected and not joined yet.";
        return Err(Problem::new(Kind::TooManySubscribers, detail));
    };
    let uri = Uri::try_from(format!("{PATH}/?{query}")).expect("a path and a query that was one");
    let (mut parts, body) = request.into_parts();
    let headers = KEPT.into_iter().filter_map(|name| {
        let value = parts.headers.get(&name)?;
        Some((name, HeaderValue::from_bytes(value.as_bytes()).ok()?))
    });
    parts.headers = headers.collect();
    parts.uri = uri;
    parts.extensions.insert(Stranger(Arc::new(Mutex::new(Some((place, share))))));
    Ok(Request::from_parts(parts, body))
}

/// # Errors
/// 401 where none of the tokens is shown; as [`Subscriber::begin`].
async fn begin(state: &FeedState, socket: &SocketRef, auth: Auth) -> Result<Subscriber, Problem> {
    let access = &state.api.settings().access;
    let parts = socket.req_parts();
    let caller = match auth.token {
        Some(token) => access.admit_token(Some(&token), Role::Read)?,
        None => access.admit(&parts.headers, Role::Read)?,
    };
    let client = Client::of(&caller, &parts.extensions);
    let after = parse_id(auth.after.as_deref().unwrap_or_default())?;
    Subscriber::begin(state, &client, after, Transport::SocketIo).await
}

/// Sends one client all that comes, until either side ends.
async fn serve(socket: SocketRef, mut subscriber: Subscriber, closing: &CancellationToken) {
    let gone = CancellationToken::new();
    let ended = gone.clone();
    socket.on_disconnect(move || {
        ended.cancel();
        std::future::ready(())
    });
    // The client may have been gone before the handler was set.
    if !socket.connected() || socket.emit("subscribed", &subscriber.seen().to_string()).is_err() {
        return;
    }
    let sending = async {
        loop {
            let batch = subscriber.next().await.map_err(Some)?;
            for event in &batch.events {
                send(&socket, event).await?;
            }
        }
    };
    let dropped: Result<Infallible, Option<DropReason>> = tokio::select! {
        () = closing.cancelled() => Err(None),
        () = gone.cancelled() => Err(None),
        end = sending => end,
    };
    if let Err(Some(reason)) = dropped {
        subscriber.dropped(reason);
        // It is no subscriber any more; only the last event is left to send.
        drop(subscriber);
        dismiss(&socket, reason).await;
    }
}

/// Puts one event into the buffer of the connection, as soon as there is room.
///
/// # Errors
/// The client is too slow; `None` where the connection has ended.
async fn send(socket: &SocketRef, event: &FeedEvent) -> Result<(), Option<DropReason>> {
    let id = event.version.to_string();
    let since = Instant::now();
    loop {
        match socket.emit(event.kind.name(), &(&event.data, &id)) {
            Ok(()) => return Ok(()),
            Err(SendError::Socket(SocketError::InternalChannelFull)) if since.elapsed() < SLOWEST => {
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
            }
            Err(SendError::Socket(SocketError::InternalChannelFull)) => {
                return Err(Some(DropReason::TOO_SLOW));
            }
            Err(_) => return Err(None),
        }
    }
}

/// Says why it ends, and ends it, as far as that gets through.
async fn dismiss(socket: &SocketRef, reason: DropReason) {
    // Not by way of the buffer, which is full, but after all that is in it.
    let _ = socket.volatile().emit(reason.event, reason.text);
    for _ in 0..DISMISS_ATTEMPTS {
        // The disconnect packet needs room. A client that takes nothing at all ends by its missing answers to
        // pings.
        match socket.clone().disconnect() {
            Err(SocketError::InternalChannelFull) => tokio::time::sleep(Duration::from_secs(1)).await,
            _ => return,
        }
    }
}
