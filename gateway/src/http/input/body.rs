//! Bodies: from a stream to at most 64 KiB of bytes of a known type.

use axum::body::{Body, HttpBody};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::http::kind::Kind;
use crate::http::problem::Problem;

/// The largest body that is read.
pub(crate) const MAX_BODY: u64 = 64 << 10;

/// A body that is too large is still taken off the wire up to this size, and thrown away: a caller that is
/// busy sending would otherwise see a reset connection instead of the answer.
const MAX_DISCARDED: u64 = 8 << 20;

/// The media types that a call accepts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AcceptedMedia {
    Json,
    JsonOrMergePatch,
    /// JSON, one value a line.
    Lines,
}

/// The whole body, which is of a type that the call accepts. The body is read before anything is said about
/// it, so that the connection stays usable after a refusal.
///
/// # Errors
/// 413, 408 where it did not arrive before the deadline, 400 where it broke off, 415.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    accepted: AcceptedMedia,
    deadline: Instant,
) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(Kind::BodyTooLarge, "A body may have at most 65536 bytes.");
    let announced = body.size_hint().lower();
    // A caller that sends `Expect: 100-continue` gets the answer before it sends the body.
    if announced > MAX_DISCARDED || (announced > MAX_BODY && headers.contains_key(EXPECT)) {
        return Err(too_large());
    }
    let mut collected = Collected::default();
    let end = timeout_at(deadline, collected.fill(body)).await;
    let (kind, detail) = match end {
        _ if collected.received > MAX_BODY => return Err(too_large()),
        Ok(Ok(())) => {
            check_type(headers, accepted)?;
            return Ok(collected.into_bytes());
        }
        Ok(Err(_)) => (Kind::MalformedBody, "The body broke off, or its framing is wrong."),
        Err(_) => {
            (Kind::BodyTooSlow, "Nothing was done: the deadline passed before the whole body was there.")
        }
    };
    Err(Problem::new(kind, detail))
}

/// A body as far as it has come.
#[derive(Default)]
struct Collected {
    received: u64,
    /// Nearly always the body is one piece, and is not copied.
    first: Bytes,
    rest: BytesMut,
}

impl Collected {
    async fn fill(&mut self, mut body: Body) -> Result<(), axum::Error> {
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else {
                continue; // trailers
            };
            self.received += data.len() as u64;
            if self.received > MAX_DISCARDED {
                return Ok(());
            } else if self.received > MAX_BODY {
                self.first = Bytes::new();
                self.rest = BytesMut::new();
            } else if self.first.is_empty() {
                self.first = data;
            } else {
                self.rest.extend_from_slice(&data);
            }
        }
        Ok(())
    }

    fn into_bytes(self) -> Bytes {
        if self.rest.is_empty() {
            return self.first;
        }
        let mut whole = BytesMut::with_capacity(self.first.len() + self.rest.len());
        whole.extend_from_slice(&self.first);
        whole.extend_from_slice(&self.rest);
        whole.freeze()
    }
}

/// Whether the body is of a type that the call accepts.
///
/// # Errors
/// 415.
pub(crate) fn check_type(headers: &HeaderMap, accepted: AcceptedMedia) -> Result<(), Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let refused = |detail| Err(Problem::new(Kind::UnsupportedMediaType, detail));
    if headers.contains_key(CONTENT_ENCODING)
        && !text(CONTENT_ENCODING).is_some_and(|coding| coding.eq_ignore_ascii_case("identity"))
    {
        return refused("A compressed body is not taken: send it without Content-Encoding.");
    }
    let content_type = text(CONTENT_TYPE).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let is = |name: &str| essence.eq_ignore_ascii_case(name);
    match accepted {
        AcceptedMedia::Json if !is("application/json") => {
            refused("The Content-Type has to be application/json.")
        }
        AcceptedMedia::JsonOrMergePatch if !is("application/json") && !is("application/merge-patch+json") => {
            refused("The Content-Type has to be application/json or application/merge-patch+json.")
        }
        AcceptedMedia::Lines if !is("application/x-ndjson") => {
            refused("The Content-Type has to be application/x-ndjson: one JSON object a line.")
        }
        _ => Ok(()),
    }
}
