//! Requests that come while this gateway is not active: they are sent to the gateway that is.
//!
//! Everything around a request (its id, the page that it comes from, its token, figures, the log line)
//! happens at the gateway that gets it; then it is forwarded in place of being handled. Bodies go through as
//! they come, in both directions, and so do event streams and WebSockets.
//!
//! *What may be sent again.* As long as nothing was sent (no gateway is active, it refuses the connection, or
//! says that it is not active), the request waits for a new standing: up to two seconds, and of at most
//! [`MAX_WAITING`] requests at once. After that, and beyond that, it is answered 503: nothing was done. Once
//! it was sent, its outcome is unknown when the connection breaks, or when another term begins before the
//! answer does. Then GET and HEAD are sent again, and so is a create with an `Idempotency-Key`; the others
//! are answered 504. After the head of an answer there is no way back: a stream that breaks just breaks.
//!
//! *What ends a stream.* Its gateway may hang: so when another term begins, streams that have no end of their
//! own end at once, and clients come back with the last id that they have. Other answers have a moment left.
//!
//! *No circles.* A request that was forwarded says so. A gateway that is not active forwards no such request,
//! and says that it did nothing.
//!
//! What it does not do: it does not decide which gateway is active (that comes through a channel, see
//! [`Standing`]), and it keeps no answers.
//!
//! * [`body`], [`head`]: what goes through. [`peer`]: the connections to the active gateway. [`tunnel`]:
//!   WebSockets.

mod body;
mod head;
mod peer;
mod tunnel;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::header::EXPECT;
use axum::http::request::Parts;
use axum::http::uri::Scheme;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use axum::routing::Route;
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use process::server::Caller;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tower::Service;

use self::body::{Passed, Source, Until};
use self::head::{MARK, NOT_ACTIVE, Way, YES};
use self::peer::{Peer, Tried, is_not_active};
use super::input::token::is_api;
use super::kind::Kind;
use super::metrics::{ForwardMetrics, Forwarded};
use super::problem::Problem;
use super::settings::HttpSettings;
use crate::engine_task::Unserved;
use crate::standing::{ActiveGateway, Standing};

/// So many requests wait for an active gateway at once.
const MAX_WAITING: usize = 1_024;

/// A request whose outcome is unknown is sent so many times at most, where it is sent again at all.
const MAX_SENT: u32 = 4;

/// What has begun to come from a gateway that is not active any more may be complete all the same.
const GRACE: Duration = Duration::from_secs(1);

/// While no new standing comes, the same gateway is asked again: after this time, then twice that, and so on.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What is forwarded, by route.
#[derive(Debug, Clone, Copy)]
pub(super) struct Forwarding {
    paths: Paths,
    /// It has no end of its own.
    endless: bool,
    /// Its answer has no deadline.
    unhurried: bool,
    /// A POST of it takes an `Idempotency-Key`.
    keyed: bool,
    /// It becomes a WebSocket.
    upgrades: bool,
}

#[derive(Debug, Clone, Copy)]
enum Paths {
    None,
    All,
    /// Those below `/api`.
    Api,
}

impl Forwarding {
    pub(super) fn of(route: &str) -> Self {
        let is_socket = route.starts_with("/socket.io");
        let paths = match route {
            _ if is_socket || is_api(route) => Paths::All,
            "none" => Paths::Api,
            _ => Paths::None,
        };
        let endless = is_socket || route == "/api/user/changes";
        let takes_its_time = [
            "/api/user/bulk",
            "/api/user/{id}/erase",
            "/api/cluster/check",
            "/api/cluster/repair/{partition}",
        ];
        let unhurried = endless || takes_its_time.contains(&route);
        Self { paths, endless, unhurried, keyed: route == "/api/user", upgrades: is_socket }
    }
}

/// Marks an answer that comes from another gateway, as an extension: its problem is worded already.
#[derive(Debug, Clone, Copy)]
pub(super) struct FromActive;

/// Sends requests to the active gateway. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Forwarder(Arc<Shared>);

struct Shared {
    standing: watch::Receiver<Standing>,
    /// How long a request waits for an active gateway.
    wait: Duration,
    /// How long an answer may take: somewhat longer than the active gateway gives itself.
    patience: Duration,
    closing: CancellationToken,
    waiting: Arc<Semaphore>,
    scheme: Scheme,
    /// The gateway that was active last.
    peer: Mutex<Option<Arc<Peer>>>,
    metrics: ForwardMetrics,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarder").field("standing", &self.standing).finish_non_exhaustive()
    }
}

/// A request that is on its way.
struct Job {
    parts: Parts,
    source: Source,
    request_id: HeaderValue,
    caller: Option<IpAddr>,
    forwarding: Forwarding,
    deadline: Option<Instant>,
}

/// What came of a try.
enum Outcome {
    Answered(Response),
    NotSent,
    Unknown,
    /// Too late to try again.
    Late,
    Stopping,
}

/// Why a try was given up.
enum Gone {
    /// Another gateway is active, or the same one in another term.
    Deposed,
    Late,
    Stopping,
}

impl Forwarder {
    pub(super) fn new(settings: &HttpSettings, metrics: ForwardMetrics) -> Self {
        Self(Arc::new(Shared {
            standing: settings.standing.clone(),
            wait: settings.standing_wait,
            patience: settings.deadline + settings.standing_wait,
            closing: settings.closing.clone(),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            scheme: Scheme::HTTP,
            peer: Mutex::new(None),
            metrics,
        }))
    }

    /// Whether a request has to be forwarded.
    pub(super) fn takes(&self, forwarding: Forwarding, request: &Request) -> bool {
        let is_meant = match forwarding.paths {
            Paths::None => false,
            Paths::All => true,
            Paths::Api => is_api(request.uri().path()),
        };
        is_meant && !matches!(*self.0.standing.borrow(), Standing::Active { .. })
    }

    /// Has the request answered by the gateway that is active; by this route where that is this one by then.
    pub(super) fn forward(
        &self,
        forwarding: Forwarding,
        route: &Route,
        request: Request,
        request_id: &HeaderValue,
    ) -> BoxFuture<'static, Result<Response, Infallible>> {
        let (shared, route) = (Arc::clone(&self.0), route.clone());
        let (parts, body) = request.into_parts();
        let caller = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let job = Job {
            source: Source::new(body, parts.headers.contains_key(EXPECT)),
            caller: caller.map(|ConnectInfo(address)| address.ip()),
            parts,
            request_id: request_id.clone(),
            forwarding,
            deadline: (!forwarding.unhurried).then(|| Instant::now() + shared.patience),
        };
        Box::pin(async move {
            let mut counted = shared.metrics.begin();
            let (outcome, response) = shared.serve(job, route).await;
            counted.outcome = outcome;
            Ok(response)
        })
    }
}

impl Shared {
    async fn serve(&self, mut job: Job, mut route: Route) -> (Forwarded, Response) {
        if job.parts.headers.contains_key(MARK) {
            let mut refused = unavailable("this gateway is not active").into_response();
            refused.headers_mut().insert(NOT_ACTIVE, YES);
            return (Forwarded::NotActive, refused);
        }
        let mut standing = self.standing.clone();
        let mut place: Option<Place> = None;
        let mut sent = 0;
        loop {
            let active = match &*standing.borrow_and_update() {
                Standing::Active { .. } => None,
                Standing::Standby { active } => Some(active.clone()),
            };
            let begun = Instant::now();
            let Some(active) = active else {
                drop(place);
                return match route.call(job.into_request()).await {
                    Ok(response) => (Forwarded::Here, response),
                    Err(never) => match never {},
                };
            };
            let outcome = match active.and_then(|active| self.peer(&active)) {
                Some(peer) => self.send(&mut job, &peer, &mut standing).await,
                None => Outcome::NotSent,
            };
            if job.source.is_broken() && !matches!(outcome, Outcome::Answered(_)) {
                let detail = "The body broke off, or its framing is wrong.";
                return (Forwarded::Malformed, Problem::new(Kind::MalformedBody, detail).into_response());
            }
            match outcome {
                Outcome::Answered(response) => return (Forwarded::Answered, response),
                Outcome::Stopping => {
                    return (Forwarded::Stopping, Problem::from(Unserved::Stopping).into_response());
                }
                Outcome::Unknown if sent + 1 < MAX_SENT && job.may_be_repeated() => {
                    sent += 1;
                    place = None;
                    continue;
                }
                Outcome::Unknown | Outcome::Late => {
                    return (Forwarded::Unknown, job.unknown().into_response());
                }
                Outcome::NotSent if job.source.is_whole() => {}
                Outcome::NotSent => {
                    return (Forwarded::Unavailable, unavailable("no gateway is active now").into_response());
                }
            }
            if place.is_none() {
                let Ok(permit) = Arc::clone(&self.waiting).try_acquire_owned() else {
                    let detail = "too many requests wait for a gateway that is active";
                    return (Forwarded::Full, unavailable(detail).into_response());
                };
                let until = begun + self.wait;
                let until = job.deadline.map_or(until, |deadline| deadline.min(until));
                place = Some(Place { until, pause: FIRST_PAUSE, _permit: permit });
            }
            let in_time = match &mut place {
                Some(place) => place.wait(&mut standing).await,
                None => false,
            };
            if !in_time {
                return (Forwarded::Unavailable, unavailable("no gateway is active now").into_response());
            }
        }
    }

    /// The connections to that gateway.
    fn peer(&self, active: &ActiveGateway) -> Option<Arc<Peer>> {
        let mut known = self.peer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = known.as_ref().filter(|peer| peer.gateway == *active) {
            return Some(Arc::clone(peer));
        }
        let Some(peer) = Peer::new(active, self.scheme.clone(), self.wait) else {
            tracing::warn!(active = %active.name, "the address of the active gateway cannot be read");
            return None;
        };
        let peer = Arc::new(peer);
        *known = Some(Arc::clone(&peer));
        Some(peer)
    }

    /// One of its connections broke: if it has ended, so have the others, and each would cost a request. The
    /// next request opens a new one, and finds out before it is sent.
    fn forget(&self, peer: &Arc<Peer>) {
        let mut known = self.peer.lock().unwrap_or_else(PoisonError::into_inner);
        known.take_if(|known| Arc::ptr_eq(known, peer));
    }

    /// Sends the request once.
    async fn send(
        &self,
        job: &mut Job,
        peer: &Arc<Peer>,
        standing: &mut watch::Receiver<Standing>,
    ) -> Outcome {
        let Some(request) = job.outgoing(peer) else { return Outcome::NotSent };
        let forwarding = job.forwarding;
        let (tried, gone) = peer.send(request, self.gone(job, &peer.gateway, standing)).await;
        if matches!((&tried, &gone), (Tried::Broken, None)) {
            self.forget(peer);
        }
        match (tried, gone) {
            (Tried::Answered(answer), _) if is_not_active(&answer) => Outcome::NotSent,
            (Tried::Answered(answer), _) => {
                let until = self.until(forwarding, &peer.gateway);
                Outcome::Answered(job.answered(answer, until))
            }
            (_, Some(Gone::Stopping)) => Outcome::Stopping,
            (Tried::Broken, Some(Gone::Late)) => Outcome::Late,
            (Tried::Broken, _) => Outcome::Unknown,
            (Tried::NotSent, _) => Outcome::NotSent,
        }
    }

    /// Comes when an answer need not be waited for any more.
    async fn gone(
        &self,
        job: &Job,
        active: &ActiveGateway,
        standing: &mut watch::Receiver<Standing>,
    ) -> Gone {
        let late = async {
            match job.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = deposed(active, standing) => Gone::Deposed,
            () = late => Gone::Late,
            () = self.closing.cancelled(), if job.forwarding.endless => Gone::Stopping,
        }
    }

    /// What ends an answer that has begun.
    fn until(&self, forwarding: Forwarding, active: &ActiveGateway) -> Until {
        let (active, mut standing) = (active.clone(), self.standing.clone());
        if !forwarding.endless {
            let ends = Box::pin(async move {
                deposed(&active, &mut standing).await;
                tokio::time::sleep(GRACE).await;
            });
            return Until { ends, well: false };
        }
        let closing = self.closing.clone();
        let ends = Box::pin(async move {
            closing.run_until_cancelled(deposed(&active, &mut standing)).await;
        });
        Until { ends, well: true }
    }
}

/// The place of a request among those that wait.
struct Place {
    until: Instant,
    pause: Duration,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Waits for a new standing, or until the old one may be tried again. Returns whether there is time left.
    async fn wait(&mut self, standing: &mut watch::Receiver<Standing>) -> bool {
        let again = self.until.min(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        tokio::select! {
            Ok(()) = standing.changed() => true,
            () = sleep_until(again) => Instant::now() < self.until,
        }
    }
}

impl Job {
    /// The request as the active gateway gets it.
    fn outgoing(&self, peer: &Peer) -> Option<Request<body::Attempt>> {
        let on_demand = self.source.is_on_demand();
        let mut request = Request::new(self.source.attempt());
        *request.method_mut() = self.parts.method.clone();
        *request.uri_mut() = peer.uri(self.parts.uri.path_and_query())?;
        *request.version_mut() = Version::HTTP_11;
        let way = Way {
            host: &peer.host,
            request_id: &self.request_id,
            caller: self.caller,
            upgrades: self.forwarding.upgrades,
            on_demand,
        };
        *request.headers_mut() = head::outgoing(&self.parts, &way);
        if on_demand {
            let source = self.source.clone();
            hyper::ext::on_informational(&mut request, move |answer| {
                if answer.status() == StatusCode::CONTINUE {
                    source.open();
                }
            });
        }
        Some(request)
    }

    /// The answer as the caller gets it.
    fn answered(&mut self, answer: Response<Incoming>, until: Until) -> Response {
        let (mut parts, body) = answer.into_parts();
        let switches = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        head::strip(&mut parts.headers, switches);
        self.source.answered(!(switches || parts.status.is_success()));
        if switches {
            let (ours, theirs) =
                (self.parts.extensions.remove::<OnUpgrade>(), parts.extensions.remove::<OnUpgrade>());
            let Some((ours, theirs)) = ours.zip(theirs) else { return Problem::internal().into_response() };
            tunnel::dig(ours, theirs, self.parts.extensions.get::<Caller>().cloned(), until);
            let mut response = Response::new(Body::empty());
            *response.status_mut() = parts.status;
            *response.headers_mut() = parts.headers;
            response.extensions_mut().insert(FromActive);
            return response;
        }
        let of_head = self.parts.method == Method::HEAD;
        let mut response =
            Response::new(Body::new(Passed { body, source: self.source.clone(), until, of_head }));
        *response.status_mut() = parts.status;
        *response.headers_mut() = parts.headers;
        response.extensions_mut().insert(FromActive);
        response
    }

    fn only_reads(&self) -> bool {
        matches!(self.parts.method, Method::GET | Method::HEAD)
    }

    /// Whether it may be sent again though it may have been handled.
    fn may_be_repeated(&self) -> bool {
        let has_key = || self.forwarding.keyed && self.parts.headers.contains_key(IDEMPOTENCY_KEY);
        let may = self.only_reads() || self.parts.method == Method::POST && has_key();
        may && self.source.is_whole() && self.deadline.is_none_or(|deadline| Instant::now() < deadline)
    }

    fn unknown(&self) -> Problem {
        if self.only_reads() { Problem::late_read(None) } else { Problem::late_write(None) }
    }

    /// The request for a handler of this gateway.
    fn into_request(self) -> Request {
        Request::from_parts(self.parts, self.source.take())
    }
}

/// Comes when another gateway is active, or the same one in another term.
async fn deposed(active: &ActiveGateway, standing: &mut watch::Receiver<Standing>) {
    let is_other = |standing: &Standing| match standing {
        Standing::Active { .. } => true,
        Standing::Standby { active: None } => false,
        Standing::Standby { active: Some(other) } => (other.id, other.term) != (active.id, active.term),
    };
    if standing.wait_for(is_other).await.is_err() {
        // Nobody knows more than now.
        std::future::pending::<()>().await;
    }
}

fn unavailable(why: &str) -> Problem {
    Problem::new(Kind::Unavailable, format!("Nothing was done: {why}."))
}
