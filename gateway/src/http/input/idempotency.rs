//! `Idempotency-Key` (the IETF draft of that name): a POST that may be sent twice creates once.
//!
//! The key decides the id of the user where the body names none, and travels with the create as a
//! fingerprint; whether a request is a repetition is decided where the data are (see
//! [`protocol::fingerprint`]). So this needs no memory here, and outlives a failover and a restart of the
//! gateway.

use axum::http::{HeaderMap, HeaderName};
use protocol::fingerprint::id_from_key;
use protocol::{Change, Fingerprint, UserId};
use uuid::Uuid;

use crate::http::kind::Kind;
use crate::http::problem::Problem;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest key that is taken, in bytes.
const MAX_KEY: usize = 255;

/// The id of the user to create: the one in the body, or the one that follows from the key, or a new one.
/// With a key, the change carries the fingerprint of the request from here on.
///
/// # Errors
/// 400 for a key that cannot be one.
pub(crate) fn identify(
    headers: &HeaderMap,
    chosen: Option<UserId>,
    change: &mut Change,
) -> Result<UserId, Problem> {
    let Some(key) = key(headers)? else {
        return Ok(chosen.unwrap_or_else(Uuid::now_v7));
    };
    let [name, email] = [&change.name, &change.email].map(|text| text.as_deref().unwrap_or_default());
    change.request = Some(Fingerprint::of(key, chosen, [name, email], change.group.unwrap_or_default()));
    Ok(chosen.unwrap_or_else(|| id_from_key(key)))
}

/// The key as it was sent. The draft has it in double quotes, most callers send it bare: these are different
/// keys.
fn key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let malformed = |detail| Problem::new(Kind::MalformedKey, detail);
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(malformed("There is more than one Idempotency-Key."));
    }
    match value.to_str() {
        Ok(key) if (1..=MAX_KEY).contains(&key.len()) => Ok(Some(key)),
        _ => Err(malformed("An Idempotency-Key is 1 to 255 visible ASCII characters.")),
    }
}
