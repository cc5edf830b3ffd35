//! How both ends of a link prove that they know the secret of the ring, without sending it.
//!
//! It happens in HTTP, before the WebSocket is opened, so that strangers reach nothing but this module:
//!
//! 1. The client asks `GET /challenge` with its name and a nonce. The server answers with a nonce of its own,
//!    and with its proof: an HMAC with the secret over both nonces, the roles and the names.
//! 2. The client verifies that proof. A server that does not know the secret learns nothing here. Then the
//!    client opens the WebSocket with both nonces and its own proof in the head of the request.
//!
//! The two proofs differ in their direction, so a proof that is sent back proves nothing. The server keeps
//! nothing between the two requests: its nonce has the time in it, and a tag that only this process can make.
//! A nonce is good for one WebSocket, for [`LIFETIME`].
//!
//! - [`Credentials`], [`Hello`]: the client's side, without I/O
//! - [`Challenger`]: the server's side, without I/O and clock
//! - [`Admission`]: the server's side in front of a router
//!
//! What it does not do: it does not encrypt, and it does not protect what follows against a host in between
//! that can change packets; TLS or a private network does. Anybody who can reach the port can ask for a proof
//! and try secrets against it at home. So the secret has to be long and random.

mod admission;
mod challenger;
mod client;

pub use admission::Admission;
pub use challenger::{Challenge, Challenger, LIFETIME, Proven, Rejected};
pub use client::{Credentials, Hello, NotProven};

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::secret::Secret;

/// Where a client asks for a challenge.
pub const CHALLENGE_PATH: &str = "/challenge";

/// Headers of both requests and of the answer to the first one.
const ROLE: &str = "corro-role";
const NAME: &str = "corro-name";
const NONCE: &str = "corro-nonce";
const CHALLENGE: &str = "corro-challenge";
const PROOF: &str = "corro-proof";

/// Longest name of a process.
const LONGEST_NAME: usize = 64;

type HmacSha256 = Hmac<Sha256>;

/// The nonce of a client.
type Nonce = [u8; 32];

/// The two kinds of links, each of which has one kind of client and one kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// A db-process, as a member of the ring, to the gateway.
    Member,
    /// A db-process to the neighbour that it follows.
    Follower,
}

impl Link {
    /// What the client is.
    pub fn client(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Follower => "follower",
        }
    }

    /// What the server is.
    pub fn server(self) -> &'static str {
        match self {
            Self::Member => "gateway",
            Self::Follower => "neighbour",
        }
    }
}

/// The name by which every gateway proves itself.
pub const GATEWAY: &str = "gateway";

/// All that both proofs of one handshake are about.
struct Transcript<'a> {
    link: Link,
    client: &'a str,
    server: &'a str,
    nonce: &'a [u8],
    challenge: &'a [u8],
}

impl Transcript<'_> {
    fn of_server(&self, secret: &Secret) -> HmacSha256 {
        self.proof(secret, "from the server")
    }

    fn of_client(&self, secret: &Secret) -> HmacSha256 {
        self.proof(secret, "from the client")
    }

    fn proof(&self, secret: &Secret, direction: &str) -> HmacSha256 {
        let texts = [
            "corro handshake 1",
            direction,
            self.link.server(),
            self.link.client(),
            self.server,
            self.client,
        ];
        let parts = texts.iter().map(|text| text.as_bytes()).chain([self.nonce, self.challenge]);
        keyed(secret.expose().as_bytes(), parts)
    }
}

/// The HMAC of these parts; none of them can borrow from the one beside it.
fn keyed<'a>(key: &[u8], parts: impl Iterator<Item = &'a [u8]>) -> HmacSha256 {
    let mut hmac = HmacSha256::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        hmac.update(&(part.len() as u64).to_be_bytes());
        hmac.update(part);
    }
    hmac
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    bytes
}

fn to_text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn bytes<const N: usize>(headers: &HeaderMap, name: &str) -> Option<[u8; N]> {
    URL_SAFE_NO_PAD.decode(text(headers, name)?).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests;
