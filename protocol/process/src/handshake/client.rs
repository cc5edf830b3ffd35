//! The client's side of the handshake.

use axum::http::HeaderMap;
use hmac::Mac;

use super::{CHALLENGE, Link, NAME, NONCE, Nonce, PROOF, ROLE, Transcript, bytes, random, text, to_text};
use crate::secret::Secret;
use crate::tls::TlsFiles;

/// As which process a client connects, and to which one.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The secret of the ring.
    pub secret: Secret,
    /// What the two are to each other.
    pub link: Link,
    /// Name of the client.
    pub client: String,
    /// Name of the server that it wants.
    pub server: String,
    /// What both show to each other before, if they speak TLS.
    pub tls: Option<TlsFiles>,
}

/// Why a server is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotProven {
    /// It offers no proof.
    NoProof,
    /// It is another kind of server.
    OtherRole,
    /// It is another process than the one that is wanted.
    OtherName,
    /// Its proof is wrong.
    WrongProof,
    /// Its certificate lacks the name of the process that is wanted.
    OtherCertificate,
}

impl std::fmt::Display for NotProven {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoProof => {
                "it offers no proof of the CLUSTER_SECRET: this is another port than that for db-processes, \
                 or the program there is an older one"
            }
            Self::OtherRole => {
                "it serves another kind of link: SOCKET_PORT is for the gateway's db-processes, \
                 REPLICATION_PORT for neighbours"
            }
            Self::OtherName => "it is another process than the one that is expected there",
            Self::OtherCertificate => "its certificate lacks the name of the process that is expected there",
            Self::WrongProof => {
                "its CLUSTER_SECRET is another one than that of this process: set the same for all, here or \
                 there"
            }
        })
    }
}

impl std::error::Error for NotProven {}

/// The first request of a handshake, and what the client remembers of it.
pub struct Hello<'a> {
    credentials: &'a Credentials,
    pub(super) nonce: Nonce,
}

impl<'a> Hello<'a> {
    /// With a new nonce.
    pub fn new(credentials: &'a Credentials) -> Self {
        Self { credentials, nonce: random() }
    }

    /// Headers of the request for a challenge.
    pub fn headers(&self) -> [(&'static str, String); 3] {
        let Credentials { link, client, .. } = self.credentials;
        [(ROLE, link.client().to_owned()), (NAME, client.clone()), (NONCE, to_text(&self.nonce))]
    }

    /// Verifies the answer to that request. Returns the headers with which the WebSocket is opened.
    ///
    /// # Errors
    /// If the server is not the one that is wanted. It gets nothing then.
    pub fn answer(&self, answer: &HeaderMap) -> Result<Vec<(&'static str, String)>, NotProven> {
        let Credentials { secret, link, client, server, .. } = self.credentials;
        let (role, name) = (text(answer, ROLE), text(answer, NAME));
        let (Some(role), Some(name)) = (role, name) else { return Err(NotProven::NoProof) };
        if role != link.server() {
            return Err(NotProven::OtherRole);
        }
        if name != server {
            return Err(NotProven::OtherName);
        }
        let (challenge, proof) = (bytes(answer, CHALLENGE), bytes::<32>(answer, PROOF));
        let challenge: [u8; super::challenger::CHALLENGE_BYTES] = challenge.ok_or(NotProven::NoProof)?;
        let proof = proof.ok_or(NotProven::NoProof)?;
        let transcript =
            Transcript { link: *link, client, server, nonce: &self.nonce, challenge: &challenge };
        // In constant time, as `verify_slice` compares.
        transcript.of_server(secret).verify_slice(&proof).map_err(|_| NotProven::WrongProof)?;
        let proof = transcript.of_client(secret).finalize().into_bytes();
        let mut headers = Vec::from(self.headers());
        headers.extend([(CHALLENGE, to_text(&challenge)), (PROOF, to_text(&proof))]);
        Ok(headers)
    }
}
