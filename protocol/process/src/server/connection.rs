//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::{CONNECTION, HOST, ORIGIN, STRICT_TRANSPORT_SECURITY, UPGRADE};
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use axum::response::IntoResponse;
use hyper::body::{Body as _, Incoming};
use hyper::rt::bounds::Http2ServerConnExec;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service;
use tracing::{debug, warn};

use super::activity::{Activity, Exchange};
use super::body::{self, Answered};
use super::room::Room;
use super::stream::Stream;
use crate::tls::{Tls, certifies};

/// What ALPN calls HTTP/2.
const HTTP2: &[u8] = b"h2";

/// With HTTP/2, so many bytes may be on the way to a handler: the least that there is for a connection.
const WINDOW: u32 = (1 << 16) - 1;

/// For a year, browsers use nothing but TLS.
const HTTPS_ONLY: HeaderValue = HeaderValue::from_static("max-age=31536000");

tokio::task_local! {
    /// Where the caller of a connection is.
    static ADDRESS: IpAddr;
}

/// The address of the caller whose request is handled by this task, where it came over a connection. Here
/// rather than in an extension, which would cost every request two allocations.
pub fn caller_address() -> Option<IpAddr> {
    ADDRESS.try_with(|address| *address).ok()
}

/// The connection of a request that asks for another protocol: an extension of the request.
#[derive(Debug, Clone)]
pub struct Caller {
    activity: Arc<Activity>,
    room: Arc<Room>,
    /// Its certificate, where it has to have one.
    certificate: Option<CertificateDer<'static>>,
}

impl Caller {
    /// Whether its certificate has this name, or it needs none.
    pub fn may_be(&self, process: &str) -> bool {
        self.certificate.as_ref().is_none_or(|certificate| certifies(certificate, process))
    }

    /// The caller has shown what it is: the connection keeps its place until it ends.
    pub fn admit(&self) {
        self.room.admit(&self.activity);
    }
}

/// Serves requests until the caller closes, the limits are reached, or `shutdown`, which ends it after the
/// answer.
pub(super) async fn run(
    (tcp, tls): (TcpStream, Option<Tls>),
    router: Router,
    activity: Arc<Activity>,
    room: Arc<Room>,
    shutdown: CancellationToken,
) {
    let stream = Stream::new(tcp, Arc::clone(&activity), Arc::clone(&room));
    // What says nothing costs as little as can be.
    let begun = timeout(room.policy().idle, stream.begun());
    match shutdown.run_until_cancelled(begun).await {
        Some(Ok(())) if !activity.is_closed() => {
            let address = activity.address.ip();
            let served = Served { router, activity, room, secure: tls.is_some(), certificate: None };
            match tls {
                Some(tls) => {
                    Box::pin(ADDRESS.scope(address, serve_tls(stream, tls, served, shutdown))).await;
                }
                None => Box::pin(ADDRESS.scope(address, serve_http1(stream, served, shutdown))).await,
            }
        }
        _ => debug!("a connection is closed: it was not used"),
    }
}

/// What the requests of a connection need.
#[derive(Clone)]
struct Served {
    router: Router,
    activity: Arc<Activity>,
    room: Arc<Room>,
    /// Whether it is TLS.
    secure: bool,
    /// That of the caller.
    certificate: Option<CertificateDer<'static>>,
}

/// Shakes hands, and serves the protocol that both sides prefer. Until then the caller is like one that does
/// not finish the head of a request: its bytes count, and its place may be taken.
async fn serve_tls(mut stream: Stream, tls: Tls, mut served: Served, shutdown: CancellationToken) {
    let policy = served.room.policy();
    let accepting = async {
        if !stream.is_tls().await {
            // It would take the alert of TLS for nonsense.
            refuse_plain(&mut stream).await?;
            return Err(io::ErrorKind::InvalidData.into());
        }
        let acceptor = TlsAcceptor::from(tls.config());
        acceptor.accept_with(stream, |session| session.set_buffer_limit(Some(policy.buffer))).await
    };
    let stream = match shutdown.run_until_cancelled(timeout(policy.handshake, accepting)).await {
        Some(Ok(Ok(stream))) => stream,
        Some(Ok(Err(error))) => return debug!(%error, "a connection ended: TLS failed"),
        _ => return debug!("a connection is closed: its handshake did not end"),
    };
    served.activity.complete();
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    served.certificate = certificates.first().map(|first| first.clone().into_owned());
    if stream.get_ref().1.alpn_protocol() == Some(HTTP2) {
        served.activity.set_multiplexed();
        Box::pin(serve_http2(stream, served, shutdown)).await;
    } else {
        Box::pin(serve_http1(stream, served, shutdown)).await;
    }
}

/// Tells a caller that speaks HTTP to a port of TLS what is wrong.
async fn refuse_plain(stream: &mut Stream) -> io::Result<()> {
    stream
        .write_all(
            b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n\
              content-length: 44\r\n\r\nThis port speaks TLS: use https:// instead.\n",
        )
        .await?;
    stream.shutdown().await
}

async fn serve_http1<S>(stream: S, served: Served, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Bytes that are read without a handler do not count as work: they belong to a head, which is given up
    // when it takes longer than a connection may be idle. hyper's own timer for heads would be set anew with
    // every request.
    let policy = served.room.policy();
    let handled = served.clone();
    let connection = http1::Builder::new()
        // A caller that has sent all may close that side, and read on: many lines may not have their
        // results yet. Where it may not, the end of a connection is seen while a handler is at work.
        .half_close(!policy.inner)
        .max_buf_size(policy.buffer)
        .max_header_size(policy.head)
        .serve_connection(TokioIo::new(stream), service_fn(move |request| handle(request, &handled)))
        .with_upgrades();
    drive(connection, &served, shutdown).await;
}

async fn serve_http2<S>(stream: S, served: Served, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let policy = served.room.policy();
    let handled = served.clone();
    let connection = http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(policy.streams)
        .max_header_list_size(u32::try_from(policy.head).unwrap_or(u32::MAX))
        // What is received and not read is little: of one stream, and of all.
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(policy.buffer)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| handle(as_http1(request), &handled)),
        );
    drive(connection, &served, shutdown).await;
}

/// A connection of HTTP of either version.
trait Connection: Future<Output = hyper::Result<()>> {
    /// Takes no more requests.
    fn finish(self: Pin<&mut Self>);
}

impl<I, S> Connection for http1::UpgradeableConnection<I, S>
where
    S: HttpService<Incoming, ResBody = Answered>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S, E> Connection for http2::Connection<I, S, E>
where
    S: HttpService<Incoming, ResBody = Answered>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    E: Http2ServerConnExec<S::Future, Answered>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Lets a connection work until it ends, or is idle.
async fn drive(connection: impl Connection, served: &Served, shutdown: CancellationToken) {
    let Served { activity, room, .. } = served;
    let mut connection = pin!(connection);
    let idle = room.policy().idle;
    let mut idle = interval_at(Instant::now() + idle, idle);
    // Two looks in a row, after a pause of the whole process, would take every connection for idle.
    idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut closing = false;
    loop {
        tokio::select! {
            biased;
            result = connection.as_mut() => {
                if let Err(error) = result {
                    debug!(%error, "a connection ended");
                }
                return;
            }
            _ = idle.tick() => {
                if activity.is_idle() {
                    debug!("a connection is closed: it is idle");
                    return;
                }
            }
            () = shutdown.cancelled(), if !closing => {
                closing = true;
                // One that is not used may be closed at once.
                activity.set_lingers(false);
                connection.as_mut().finish();
            }
        }
    }
}

/// HTTP/2 names the host in the target of a request. What comes after sees it where HTTP/1.1 has it.
fn as_http1(mut request: Request<Incoming>) -> Request<Incoming> {
    if let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(HOST, host);
    }
    if let Some(path) = request.uri().path_and_query() {
        *request.uri_mut() = path.clone().into();
    }
    request
}

/// Lets the router answer a request.
fn handle(
    mut request: Request<Incoming>,
    served: &Served,
) -> impl Future<Output = Result<Response<Answered>, Infallible>> + use<> {
    let Served { activity, room, secure, certificate, .. } = served;
    let mut router = served.router.clone();
    let exchange = Exchange::begin(activity);
    let inner = room.policy().inner;
    let refused = if inner { refusal(&request) } else { None };
    request.extensions_mut().insert(ConnectInfo(activity.address));
    // A browser that is told so at `localhost` would use TLS with every other port of its machine.
    let https_only = *secure && !inner && !is_localhost(request.headers());
    if inner || request.headers().contains_key(UPGRADE) {
        let (activity, room, certificate) = (Arc::clone(activity), Arc::clone(room), certificate.clone());
        request.extensions_mut().insert(Caller { activity, room, certificate });
    }
    let (request, remainder) = body::lend(request, activity);
    let response = match refused {
        None => Ok(router.call(request)),
        Some(status) => Err(status),
    };
    let (activity, room) = (Arc::clone(activity), Arc::clone(room));
    async move {
        let mut response: Response<Body> = match response {
            Ok(response) => response.await?,
            Err(status) => (status, [(CONNECTION, "close")]).into_response(),
        };
        if let Some(remainder) = remainder
            && !remainder.discard().await
        {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            activity.set_lingers(true);
        }
        if https_only {
            response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, HTTPS_ONLY);
        }
        exchange.answered();
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            if inner && !room.admit(&activity) {
                response = (StatusCode::SERVICE_UNAVAILABLE, [(CONNECTION, "close")]).into_response();
            } else {
                exchange.upgraded();
            }
        }
        Ok(response.map(|body| Answered { body, _exchange: exchange }))
    }
}

fn is_localhost(headers: &HeaderMap) -> bool {
    const LOCALHOST: &[u8] = b"localhost";
    let host = headers.get(HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    let host = host.split(|&byte| byte == b':').next().unwrap_or_default();
    let host = host.strip_suffix(b".").unwrap_or(host);
    host.len() >= LOCALHOST.len() && host[host.len() - LOCALHOST.len()..].eq_ignore_ascii_case(LOCALHOST)
}

/// What no process of the ring sends: what a browser sends of a page, and bodies.
fn refusal(request: &Request<Incoming>) -> Option<StatusCode> {
    if request.headers().contains_key(ORIGIN) {
        Some(StatusCode::FORBIDDEN)
    } else if !request.body().is_end_stream() {
        Some(StatusCode::PAYLOAD_TOO_LARGE)
    } else {
        None
    }
}

/// Frames go out at once: otherwise every exchange of small ones could wait 40 ms for a delayed
/// acknowledgement.
pub(super) fn without_delay(tcp: &TcpStream) {
    if let Err(error) = tcp.set_nodelay(true) {
        warn!(%error, "TCP_NODELAY could not be set on a connection");
    }
}
