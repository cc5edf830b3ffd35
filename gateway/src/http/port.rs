//! What callers of the REST port may cost.

use std::time::Duration;

use process::server::Policy;
use process::{Tls, TlsFiles};

use super::kind::Kind;
use super::problem::Problem;

/// How many connections there may be, where the process may open enough files.
pub const MAX_CONNECTIONS: usize = 16_384;

/// How the port speaks TLS with the certificate in these files.
///
/// # Errors
/// One line that names the variable and the file.
pub fn tls(files: TlsFiles) -> Result<Tls, String> {
    Tls::open(files, &["h2", "http/1.1"])
}

/// Of so many connections. An address may have half of them: a proxy is one address, and a flood from one
/// leaves the other half to others.
pub fn policy(connections: usize) -> Policy {
    Policy {
        port: "REST_PORT",
        connections,
        per_address: connections.div_ceil(2),
        members: None,
        idle: Duration::from_secs(60),
        handshake: Duration::from_secs(5),
        // The least that clients reckon with before they are told (RFC 9113, 6.5.2).
        streams: 100,
        unfinished: 16 << 20,
        head: 16 << 10,
        buffer: 16 << 10,
        inner: false,
        full: || {
            let detail = "Nothing was done: the gateway has as many connections as it takes.";
            Problem::new(Kind::Overloaded, detail).into_raw_response()
        },
    }
}
