//! Bodies: from a stream to at most 64 KiB of bytes of a known type.
//!
//! A body that is refused may be left unread: what is left of it is the server's affair
//! (`process::server`).

use axum::body::{Body, HttpBody};
use axum::http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::{Instant, timeout_at};

use crate::http::kind::Kind;
use crate::http::problem::Problem;

/// The largest body that is read.
pub(crate) const MAX_BODY: usize = 64 << 10;

/// The media types that a call accepts.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) types: &'static str,
    /// In which a refusal lists them.
    pub(crate) header: HeaderName,
}

/// JSON.
pub(crate) static JSON: Accepted = Accepted { types: "application/json", header: ACCEPT };

/// What a PATCH accepts, which has a header of its own (RFC 5789).
pub(crate) static PATCH: Accepted = Accepted {
    types: "application/json, application/merge-patch+json",
    header: HeaderName::from_static("accept-patch"),
};

/// JSON, one value a line.
pub(crate) static LINES: Accepted = Accepted { types: "application/x-ndjson", header: ACCEPT };

/// The whole body, which is of a type that the call accepts.
///
/// # Errors
/// 415, 413, 408 where it did not arrive before the deadline, 400 where it broke off.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    accepted: &'static Accepted,
    deadline: Instant,
) -> Result<Bytes, Problem> {
    accepted.check(headers)?;
    let too_large = || Problem::new(Kind::BodyTooLarge, "A body may have at most 65536 bytes.");
    // Not even looked at: a caller that sends `Expect: 100-continue` would begin to send.
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_large());
    }
    match timeout_at(deadline, whole(Limited::new(body, MAX_BODY))).await {
        Ok(Ok(whole)) => Ok(whole),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(Kind::MalformedBody, "The body broke off, or its framing is wrong.")),
        Err(_) => {
            let detail = "Nothing was done: the deadline passed before the whole body was there.";
            Err(Problem::new(Kind::BodyTooSlow, detail))
        }
    }
}

/// All of a body in one piece. Most come as one; of many small ones each would cost more than its bytes.
async fn whole(mut body: Limited<Body>) -> Result<Bytes, <Limited<Body> as HttpBody>::Error> {
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// For a call that needs no body. Forms of other sites can send bodies of three types without asking (Fetch,
/// section 2.2.2), none of them JSON; with a token it is no such form.
///
/// # Errors
/// 415 for a body of another type than JSON.
pub(crate) fn refuse_forms(headers: &HeaderMap) -> Result<(), Problem> {
    let may_be_form = headers.contains_key(CONTENT_TYPE) && !headers.contains_key(AUTHORIZATION);
    if may_be_form { JSON.check(headers) } else { Ok(()) }
}

impl Accepted {
    /// Whether the body is of a type that the call accepts.
    ///
    /// # Errors
    /// 415.
    pub(crate) fn check(&'static self, headers: &HeaderMap) -> Result<(), Problem> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if headers.contains_key(CONTENT_ENCODING)
            && !text(CONTENT_ENCODING).is_some_and(|coding| coding.eq_ignore_ascii_case("identity"))
        {
            let detail = "A compressed body is not taken: send it without Content-Encoding.";
            let refused = Problem::new(Kind::UnsupportedMediaType, detail);
            return Err(refused.with_header(ACCEPT_ENCODING, "identity"));
        }
        let content_type = text(CONTENT_TYPE).unwrap_or_default();
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        if self.types.split(", ").any(|accepted| essence.eq_ignore_ascii_case(accepted)) {
            return Ok(());
        }
        let types = self.types.replace(", ", " or ");
        let refused =
            Problem::new(Kind::UnsupportedMediaType, format!("The Content-Type has to be {types}."));
        Err(refused.with_header(self.header.clone(), self.types))
    }
}
