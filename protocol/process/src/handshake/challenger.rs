//! The server's side of the handshake: what it answers, and which client it believes.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::HeaderMap;
use hmac::Mac;

use super::{
    CHALLENGE, LONGEST_NAME, Link, NAME, NONCE, Nonce, PROOF, ROLE, Transcript, bytes, keyed, random, text,
    to_text,
};
use crate::secret::Secret;

/// How long a client may take from the challenge to the WebSocket.
pub const LIFETIME: Duration = Duration::from_secs(5);

/// The time, a random number and the tag.
pub(super) const CHALLENGE_BYTES: usize = TIME + RANDOM + TAG;
const TIME: usize = 8;
const RANDOM: usize = 16;
const TAG: usize = 32;

/// Its first bytes are the time when it was made, so their order is that of time.
type ChallengeBytes = [u8; CHALLENGE_BYTES];

/// Who a client has proven to be; in the extensions of the request that opens its WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// Its name.
    pub name: String,
}

/// Why a client is not let in. It is also what it is answered, and tells nothing that helps to guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// Headers are missing or no such headers.
    NoProof,
    /// It is another kind of client.
    OtherRole,
    /// The challenge is too old, or of a process that ran here before, or it was for another client.
    BadChallenge,
    /// The challenge was answered before.
    Used,
    /// The proof is wrong.
    WrongProof,
    /// The name that it has proven is not in its certificate.
    OtherCertificate,
}

impl std::fmt::Display for Rejected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoProof => {
                "it offers no proof of the CLUSTER_SECRET: it is no process of a ring, or an older program"
            }
            Self::OtherRole => "it is another kind of client than this port is for",
            Self::BadChallenge => "its challenge has expired, or was for another client",
            Self::Used => "its challenge was used before",
            Self::WrongProof => "its CLUSTER_SECRET is another one",
            Self::OtherCertificate => "its certificate lacks its name",
        })
    }
}

/// What a server answers to a request for a challenge.
#[derive(Debug)]
pub struct Challenge {
    /// The headers of the answer.
    pub headers: Vec<(&'static str, String)>,
}

/// See the module. Time is an argument: it counts from the start of the process.
pub struct Challenger {
    secret: Secret,
    link: Link,
    /// Name of the server.
    name: String,
    /// Tags the challenges of this process.
    key: [u8; 32],
    /// Challenges that were answered with a right proof, until they expire. Only those who know the secret
    /// can add to them.
    used: BTreeSet<ChallengeBytes>,
}

impl Challenger {
    /// For the server of that name.
    pub fn new(secret: Secret, link: Link, name: &str) -> Self {
        Self { secret, link, name: name.to_owned(), key: random(), used: BTreeSet::new() }
    }

    /// Who this server is; part of every answer.
    pub fn introduction(&self) -> [(&'static str, String); 2] {
        [(ROLE, self.link.server().to_owned()), (NAME, self.name.clone())]
    }

    /// Answers a request for a challenge.
    ///
    /// # Errors
    /// If it is no such request.
    pub fn challenge(&self, now: Duration, request: &HeaderMap) -> Result<Challenge, Rejected> {
        let (client, nonce) = self.client(request)?;
        let mut challenge: ChallengeBytes = [0; CHALLENGE_BYTES];
        let (time, rest) = challenge.split_at_mut(TIME);
        let (number, tag) = rest.split_at_mut(RANDOM);
        time.copy_from_slice(&millis(now).to_be_bytes());
        number.copy_from_slice(&random::<RANDOM>());
        tag.copy_from_slice(&self.tag(time, number, client, &nonce).finalize().into_bytes());
        let proof = self.transcript(client, &nonce, &challenge).of_server(&self.secret);
        let mut headers = Vec::from(self.introduction());
        headers.extend([(CHALLENGE, to_text(&challenge)), (PROOF, to_text(&proof.finalize().into_bytes()))]);
        Ok(Challenge { headers })
    }

    /// Whether the client that sends this request may open its WebSocket.
    ///
    /// # Errors
    /// If it has not proven that it knows the secret.
    pub fn admit(&mut self, now: Duration, request: &HeaderMap) -> Result<Proven, Rejected> {
        let (client, nonce) = self.client(request)?;
        let challenge: Option<ChallengeBytes> = bytes(request, CHALLENGE);
        let proof: Option<[u8; 32]> = bytes(request, PROOF);
        let (Some(challenge), Some(proof)) = (challenge, proof) else { return Err(Rejected::NoProof) };
        let (time, rest) = challenge.split_at(TIME);
        let (number, tag) = rest.split_at(RANDOM);
        if self.tag(time, number, client, &nonce).verify_slice(tag).is_err() {
            return Err(Rejected::BadChallenge);
        }
        let made = u64::from_be_bytes(time.try_into().expect("that many bytes"));
        if millis(now).saturating_sub(made) > millis(LIFETIME) {
            return Err(Rejected::BadChallenge);
        }
        let expected = self.transcript(client, &nonce, &challenge).of_client(&self.secret);
        expected.verify_slice(&proof).map_err(|_| Rejected::WrongProof)?;
        self.forget_expired(now);
        if !self.used.insert(challenge) {
            return Err(Rejected::Used);
        }
        Ok(Proven { name: client.to_owned() })
    }

    /// Name and nonce of the client.
    fn client<'a>(&self, request: &'a HeaderMap) -> Result<(&'a str, Nonce), Rejected> {
        let (role, name, nonce) = (text(request, ROLE), text(request, NAME), bytes(request, NONCE));
        let (Some(role), Some(name), Some(nonce)) = (role, name, nonce) else {
            return Err(Rejected::NoProof);
        };
        if role != self.link.client() {
            return Err(Rejected::OtherRole);
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(allowed) {
            return Err(Rejected::NoProof);
        }
        Ok((name, nonce))
    }

    fn tag(&self, time: &[u8], number: &[u8], client: &str, nonce: &Nonce) -> super::HmacSha256 {
        keyed(&self.key, [time, number, client.as_bytes(), nonce].into_iter())
    }

    fn transcript<'a>(
        &'a self,
        client: &'a str,
        nonce: &'a Nonce,
        challenge: &'a ChallengeBytes,
    ) -> Transcript<'a> {
        Transcript { link: self.link, client, server: &self.name, nonce, challenge }
    }

    fn forget_expired(&mut self, now: Duration) {
        let mut oldest: ChallengeBytes = [0; CHALLENGE_BYTES];
        let since = millis(now).saturating_sub(millis(LIFETIME));
        oldest[..TIME].copy_from_slice(&since.to_be_bytes());
        self.used = self.used.split_off(&oldest);
    }

    /// How many challenges are remembered.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.used.len()
    }
}

/// Milliseconds; five hundred million years fit.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
