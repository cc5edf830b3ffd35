//! Through a gateway that is not active, while the active one refuses, breaks, hangs, or is not there.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use futures_util::FutureExt;
use gateway::http::{Access, HttpSettings, Token};
use gateway::standing::Standing;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tower::ServiceExt;

use crate::forward::{active_at, follower, head};
use crate::ring::{Answer, ID, PATIENCE, anonymous, call};
use crate::tcp::Server;

const USER: &str = r#"{"name":"Ada","email":"ada@example.org"}"#;
const NONE: Standing = Standing::Standby { active: None };

/// Settings with which a wait is over soon.
fn impatient() -> HttpSettings {
    HttpSettings { standing_wait: Duration::from_millis(60), ..anonymous() }
}

/// A gateway that does what the test says.
struct Fake {
    listener: TcpListener,
    address: SocketAddr,
}

impl Fake {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener");
        Self { listener, address }
    }

    /// The next connection, and the head of its request.
    async fn accept(&self) -> (String, BufReader<TcpStream>) {
        let accepted = timeout(PATIENCE, self.listener.accept()).await.expect("a connection");
        let mut stream = BufReader::new(accepted.expect("a connection").0);
        (head(&mut stream).await, stream)
    }

    /// The same with the body of a user.
    async fn accept_user(&self) -> BufReader<TcpStream> {
        let (_, mut stream) = self.accept().await;
        let mut body = vec![0; USER.len()];
        timeout(PATIENCE, stream.read_exact(&mut body)).await.expect("no hang").expect("a body");
        assert_eq!(body, USER.as_bytes());
        stream
    }
}

async fn say(stream: &mut BufReader<TcpStream>, status: &str, headers: &str) {
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n{headers}\r\n");
    stream.get_mut().write_all(answer.as_bytes()).await.expect("sent");
}

/// Waits until so many requests look at the standing.
async fn watched(standing: &watch::Sender<Standing>, receivers: usize) {
    let waiting = async {
        while standing.receiver_count() < receivers {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("requests begin");
}

async fn create(server: &Server, headers: &[(&str, &str)]) -> Answer {
    let mut request = call("POST", "/api/user").header("content-type", "application/json");
    request = request.header("content-length", USER.len());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    server.api.send(request.body(Body::from(USER)).expect("a request")).await
}

/// An address at which nothing listens.
async fn nowhere() -> SocketAddr {
    Fake::start().await.address
}

#[tokio::test]
async fn a_request_waits_until_another_gateway_is_active() {
    let active = Server::start().await;
    for first in [NONE, active_at(nowhere().await, 1)] {
        let (standby, standing) = follower(first, anonymous()).await;
        let watching = standing.receiver_count();
        let change = async {
            watched(&standing, watching + 1).await;
            standing.send_replace(active_at(active.address, 2));
        };
        let (answer, ()) = tokio::join!(create(&standby, &[]), change);
        assert_eq!(answer.status, 201);
    }
}

#[tokio::test]
async fn a_request_waits_until_this_gateway_is_active() {
    for first in [NONE, active_at(nowhere().await, 1)] {
        let (standby, standing) = follower(first, anonymous()).await;
        let watching = standing.receiver_count();
        let change = async {
            watched(&standing, watching + 1).await;
            standing.send_replace(Standing::Active { term: 2 });
        };
        let (answer, ()) = tokio::join!(create(&standby, &[]), change);
        assert_eq!(answer.status, 201);
        assert_eq!(standby.api.bare("GET", answer.header("location")).await.status, 200, "by its own ring");
    }
}

#[tokio::test]
async fn without_an_active_gateway_nothing_is_done_in_the_end() {
    for standing in [NONE, active_at(nowhere().await, 1)] {
        let (standby, _standing) = follower(standing, impatient()).await;
        let answer = create(&standby, &[]).await;
        answer.problem(503, "partition-unavailable");
        assert_eq!(answer.header("retry-after"), "1");
        let figures = String::from_utf8(standby.api.bare("GET", "/metrics").await.body).expect("text");
        assert!(figures.contains("corro_forwarded_requests_total{outcome=\"unavailable\"} 1\n"), "{figures}");
        assert_eq!(standby.api.bare("GET", "/health/live").await.status, 200);
    }
}

#[tokio::test]
async fn requests_go_in_no_circle() {
    let (standby, _standing) = follower(NONE, anonymous()).await;
    let request = call("GET", "/api/user/count").header("corro-forwarded", "1");
    let answer = standby.api.send(request.body(Body::empty()).expect("a request")).await;
    answer.problem(503, "partition-unavailable");
    assert_eq!((answer.header("corro-not-active"), answer.header("retry-after")), ("1", "1"));

    let (one, standing) = follower(NONE, impatient()).await;
    let (two, _standing) = follower(active_at(one.address, 1), impatient()).await;
    standing.send_replace(active_at(two.address, 2));
    for server in [&one, &two] {
        let answer = create(server, &[]).await;
        answer.problem(503, "partition-unavailable");
        assert_eq!(answer.header("corro-not-active"), "");
    }
}

/// The other gateway may learn last that it is active.
#[tokio::test]
async fn a_gateway_that_is_not_active_yet_is_asked_again() {
    let fake = Fake::start().await;
    let (standby, _standing) = follower(active_at(fake.address, 1), anonymous()).await;
    let serving = async {
        let mut stream = fake.accept_user().await;
        say(&mut stream, "503 Service Unavailable", "corro-not-active: 1\r\nconnection: close\r\n").await;
        let mut stream = fake.accept_user().await;
        say(&mut stream, "204 No Content", "").await;
        stream
    };
    let asking = standby.api.router.clone().oneshot(
        call("POST", "/api/user")
            .header("content-length", USER.len())
            .body(Body::from(USER))
            .expect("a request"),
    );
    let (answer, _stream) = tokio::join!(asking, serving);
    assert_eq!(answer.expect("a router answers everything").status(), 204);
}

#[tokio::test]
async fn what_only_reads_is_sent_again_when_its_connection_breaks() {
    let fake = Fake::start().await;
    let (standby, _standing) = follower(active_at(fake.address, 1), anonymous()).await;
    for method in ["GET", "HEAD"] {
        let serving = async {
            drop(fake.accept().await);
            let (_, mut stream) = fake.accept().await;
            say(&mut stream, "404 Not Found", "connection: close\r\n").await;
        };
        let request = call(method, "/api/user/count").body(Body::empty()).expect("a request");
        let (answer, ()) = tokio::join!(standby.api.router.clone().oneshot(request), serving);
        assert_eq!(answer.expect("a router answers everything").status(), 404);
    }
}

#[tokio::test]
async fn the_outcome_of_a_write_is_unknown_when_its_connection_breaks() {
    let fake = Fake::start().await;
    let (standby, _standing) = follower(active_at(fake.address, 1), anonymous()).await;
    let (answer, _) = tokio::join!(create(&standby, &[]), fake.accept_user());
    answer.problem(504, "outcome-unknown");
    // Only a create takes a key.
    let user = format!("/api/user/{ID}");
    let patch =
        call("PATCH", &user).header("idempotency-key", "k").header("content-type", "application/json");
    let patch = patch.body(Body::from("{}")).expect("a request");
    let (answer, _) = tokio::join!(standby.api.send(patch), fake.accept());
    answer.problem(504, "outcome-unknown");
    let figures = String::from_utf8(standby.api.bare("GET", "/metrics").await.body).expect("text");
    assert!(figures.contains("corro_forwarded_requests_total{outcome=\"unknown\"} 2\n"), "{figures}");
}

#[tokio::test]
async fn a_create_with_a_key_is_sent_again() {
    let fake = Fake::start().await;
    let (standby, standing) = follower(active_at(fake.address, 1), anonymous()).await;
    let active = Server::start().await;
    let serving = async {
        drop(fake.accept_user().await);
        drop(fake.accept_user().await);
        // It hangs, and another one becomes active.
        let stream = fake.accept_user().await;
        standing.send_replace(active_at(active.address, 2));
        stream
    };
    let (answer, _stream) = tokio::join!(create(&standby, &[("idempotency-key", "k")]), serving);
    assert_eq!(answer.status, 201);
}

#[tokio::test]
async fn another_term_ends_the_wait_for_an_answer() {
    let active = Server::start().await;
    let fake = Fake::start().await;
    let (standby, standing) = follower(active_at(fake.address, 1), anonymous()).await;
    let hanging = async {
        let (_, stream) = fake.accept().await;
        standing.send_replace(NONE);
        standing.send_replace(active_at(active.address, 2));
        stream
    };
    let (answer, _stream) = tokio::join!(standby.api.bare("GET", "/api/user/count"), hanging);
    assert_eq!(answer.status, 200);

    standing.send_replace(active_at(fake.address, 3));
    let hanging = async {
        let stream = fake.accept_user().await;
        standing.send_replace(Standing::Active { term: 4 });
        stream
    };
    let (answer, _stream) = tokio::join!(create(&standby, &[]), hanging);
    answer.problem(504, "outcome-unknown");
}

#[tokio::test]
async fn a_gateway_that_gives_no_answer_is_given_up() {
    let fake = Fake::start().await;
    let settings = HttpSettings { deadline: Duration::from_millis(50), ..impatient() };
    let (standby, _standing) = follower(active_at(fake.address, 1), settings).await;
    let hanging = async { (fake.accept().await, fake.accept().await) };
    let asking = async { tokio::join!(standby.api.bare("GET", "/api/user/count"), create(&standby, &[])) };
    let ((read, write), _streams) = tokio::join!(asking, hanging);
    read.problem(504, "no-answer");
    write.problem(504, "outcome-unknown");
}

#[tokio::test]
async fn so_many_requests_wait_and_no_more() {
    const MOST: usize = 1_024;
    let (standby, standing) = follower(NONE, anonymous()).await;
    let watching = standing.receiver_count();
    let request = || call("GET", "/api/user/count").body(Body::empty()).expect("a request");
    let waiting: Vec<_> =
        (0..MOST).map(|_| tokio::spawn(standby.api.router.clone().oneshot(request()))).collect();
    watched(&standing, watching + MOST).await;
    let answer = standby.api.bare("GET", "/api/user/count").await;
    let problem = answer.problem(503, "partition-unavailable");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("too many")), "{problem}");
    assert_eq!(answer.header("retry-after"), "1");
    standing.send_replace(Standing::Active { term: 1 });
    for waited in waiting {
        let answer = timeout(PATIENCE, waited).await.expect("an answer").expect("no panic");
        assert_eq!(answer.expect("a router answers everything").status(), 200);
    }
}

#[tokio::test]
async fn who_may_not_ask_is_refused_without_being_forwarded() {
    let fake = Fake::start().await;
    let tokens = Token::of_plain_list(&"token".parse().expect("not empty")).expect("tokens");
    let settings = HttpSettings { access: Access::new(tokens, false), ..HttpSettings::default() };
    let (standby, _standing) = follower(active_at(fake.address, 1), settings).await;
    standby.api.bare("GET", "/api/user/count").await.problem(401, "unauthorized");
    standby.api.bare("GET", "/api/nothing").await.problem(401, "unauthorized");
    create(&standby, &[]).await.problem(401, "unauthorized");
    let stranger = call("GET", "/api/user/count").header("origin", "http://other.example");
    let answer = standby.api.send(stranger.body(Body::empty()).expect("a request")).await;
    answer.problem(403, "foreign-origin");
    assert!(fake.listener.accept().now_or_never().is_none(), "nothing was forwarded");
}
