//! Requests that may be sent twice: what is remembered of a create with an `Idempotency-Key`.
//!
//! A caller that got no answer sends the same request again, with the same key. The id of the user follows
//! from the key alone, so a repetition meets the user that the first one made, wherever that is stored. The
//! record keeps a [`Fingerprint`] of the request, which separates a repetition (answered as the first one
//! was) from another request under the same key (refused). It stays in the tombstone: a repetition that comes
//! after the user was deleted does not bring the user back.
//!
//! What it does not do: it keeps no keys and no bodies, and it does not end. A key is known for as long as
//! the record is.

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::user::UserId;

/// The namespace of ids that follow from keys (RFC 9562, section 5.5). Never to be changed: the ids of users
/// hang on it.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f1c_ae52_0b5d_4a6e_9d3c_7a54_2be8_90c1);

/// Enough of a request to know it again. Written as a pair: `[key, body]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64)", into = "(u64, u64)")]
pub struct Fingerprint {
    /// Hash of the key.
    pub key: u64,
    /// Hash of what the request asks for, as it is understood: two bodies that differ in white space or in
    /// the order of their fields are the same.
    pub body: u64,
}

impl Fingerprint {
    /// Of a create with that key. `chosen` is the id in the body, if there is one; `texts` are name and
    /// email.
    pub fn of(key: &str, chosen: Option<UserId>, texts: [&str; 2], group: i32) -> Self {
        let mut body = Xxh3::new();
        body.update(chosen.unwrap_or_default().as_bytes());
        for text in texts {
            body.update(&(text.len() as u64).to_le_bytes());
            body.update(text.as_bytes());
        }
        body.update(&group.to_le_bytes());
        Self { key: xxh3_64(key.as_bytes()), body: body.digest() }
    }
}

impl From<(u64, u64)> for Fingerprint {
    fn from((key, body): (u64, u64)) -> Self {
        Self { key, body }
    }
}

impl From<Fingerprint> for (u64, u64) {
    fn from(Fingerprint { key, body }: Fingerprint) -> Self {
        (key, body)
    }
}

/// The id of the user that a create with that key makes, where the body names none.
pub fn id_from_key(key: &str) -> UserId {
    Uuid::new_v5(&NAMESPACE, key.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Users in the world have these ids, and their records these numbers.
    #[test]
    fn ids_and_fingerprints_are_pinned() {
        let id = id_from_key("order-4711");
        assert_eq!(id.to_string(), "20f0d6cf-3cad-52ca-ad89-51090001281c");
        let fingerprint = Fingerprint::of("order-4711", None, ["Ada", "ada@example.org"], 7);
        let pinned = Fingerprint { key: 16_960_172_012_904_434_784, body: 1_317_040_840_050_087_153 };
        assert_eq!(fingerprint, pinned);
    }

    #[test]
    fn every_part_of_a_request_counts() {
        let known = Fingerprint::of("k", None, ["ab", "c"], 7);
        assert_eq!(known, Fingerprint::of("k", None, ["ab", "c"], 7));
        for other in [
            Fingerprint::of("l", None, ["ab", "c"], 7),
            Fingerprint::of("k", Some(Uuid::max()), ["ab", "c"], 7),
            Fingerprint::of("k", None, ["a", "bc"], 7),
            Fingerprint::of("k", None, ["ab", "d"], 7),
            Fingerprint::of("k", None, ["ab", "c"], 8),
        ] {
            assert_ne!(other, known);
        }
    }
}
