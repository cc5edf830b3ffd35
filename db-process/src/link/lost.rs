//! Why a connection is over, in words for a person.

use std::io;
use std::time::Duration;

use process::handshake::NotProven;
use thiserror::Error;
use url::Url;

/// Why a connection is over, or did not come about. Drop it and open another.
#[derive(Debug, Error)]
pub enum Lost {
    /// There is no such host, no listener, or it is no socket.io server.
    #[error("cannot connect to {url}: {reason}")]
    Unreachable {
        /// Where to.
        url: String,
        /// As the system or the library says.
        reason: String,
    },
    /// The server has not proven that it belongs to the ring, and got nothing.
    #[error("{url} is not trusted: {reason}")]
    NotTrusted {
        /// Where it is.
        url: String,
        /// What is wrong.
        reason: NotProven,
    },
    /// The server does not let this process in.
    #[error("turned away: {0}")]
    TurnedAway(String),
    /// The server, or something on the way, has ended it.
    #[error("the connection was closed: {0}")]
    Closed(String),
    /// Nothing could be sent for that long.
    #[error("the other side has not read for {0:?}")]
    Stuck(Duration),
}

pub(super) fn unreachable(url: &Url, reason: String) -> Lost {
    Lost::Unreachable { url: url.to_string(), reason }
}

/// An error of the library, whose own words leave out why.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Why the library could not connect: the innermost cause of its error, and what that most likely means.
pub(super) fn what_is_wrong(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = || std::iter::successors(Some(error), |error| error.source());
    let cause = chain().last().map(ToString::to_string).unwrap_or_default();
    let refused = |error: &(dyn std::error::Error + 'static)| {
        let io = error.downcast_ref::<io::Error>();
        io.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    if chain().any(refused) {
        return format!("{cause}: no process listens on that port");
    }
    if let Some(status) = cause.strip_prefix("HTTP error: ") {
        return other_port(status);
    }
    // As the library of WebSockets and that of HTTP have it.
    let is_tls = |text: String| text.starts_with("TLS error") || text.contains("SSL routines");
    if chain().any(|error| is_tls(error.to_string())) {
        return format!("{cause}: it does not speak TLS, or its certificate is not trusted");
    }
    format!("{cause}: it does not speak WebSocket, or only with TLS (wss)")
}

/// What it means that a server answers with that status.
pub(super) fn other_port(status: impl std::fmt::Display) -> String {
    format!(
        "it answers \"{status}\": this is another port than that for db-processes (REST_PORT, perhaps), the \
         path is wrong, or the program there is an older one"
    )
}
