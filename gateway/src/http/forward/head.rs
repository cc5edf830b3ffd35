//! The heads of a request that is forwarded and of its answer.

use std::net::IpAddr;

use axum::http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, ORIGIN, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Marks a request that a gateway has forwarded: it is not forwarded again.
pub(super) const MARK: HeaderName = HeaderName::from_static("corro-forwarded");

/// Marks the answer of a gateway that is not active to such a request: nothing was done.
pub(super) const NOT_ACTIVE: HeaderName = HeaderName::from_static("corro-not-active");

pub(super) const YES: HeaderValue = HeaderValue::from_static("1");

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What is about one connection (RFC 9110, section 7.6.1), beside what `Connection` names.
const OF_CONNECTION: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
];

/// What a browser says of the page that sends a request. This gateway has judged it.
const OF_PAGE: [HeaderName; 4] = [
    ORIGIN,
    HeaderName::from_static("sec-fetch-site"),
    HeaderName::from_static("sec-fetch-mode"),
    HeaderName::from_static("sec-fetch-dest"),
];

/// What else goes with a request.
pub(super) struct Way<'a> {
    /// The name of the gateway that gets it.
    pub(super) host: &'a HeaderValue,
    pub(super) request_id: &'a HeaderValue,
    pub(super) caller: Option<IpAddr>,
    /// Whether it may ask for another protocol.
    pub(super) upgrades: bool,
    /// Whether its body waits for a 100 (Continue).
    pub(super) on_demand: bool,
}

/// The headers with which a request goes on.
pub(super) fn outgoing(parts: &Parts, way: &Way<'_>) -> HeaderMap {
    let mut headers = parts.headers.clone();
    let forwarded = forwarded(headers.get(HOST), way.caller);
    strip(&mut headers, way.upgrades);
    for name in OF_PAGE {
        headers.remove(name);
    }
    if !way.on_demand {
        headers.remove(EXPECT);
    }
    headers.insert(HOST, way.host.clone());
    headers.insert(REQUEST_ID, way.request_id.clone());
    headers.insert(MARK, YES);
    headers.append(FORWARDED, forwarded);
    headers
}

/// Removes what is about the connection on which the headers came. Both framings of a body at once would not
/// have come this far (RFC 9112, section 6.3), but the wrong one must never go on.
pub(super) fn strip(headers: &mut HeaderMap, upgrades: bool) {
    let upgrade = headers.remove(UPGRADE).filter(|_| upgrades);
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // RFC 9110 forbids to name these; a caller that does must not change what the request says.
        .filter(|name| ![CONTENT_LENGTH, HOST].contains(name))
        .collect();
    for name in OF_CONNECTION.iter().chain(&named) {
        headers.remove(name);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(UPGRADE, upgrade);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// From whom a request came, and by what name (RFC 7239).
fn forwarded(host: Option<&HeaderValue>, caller: Option<IpAddr>) -> HeaderValue {
    let caller = match caller.map(|address| address.to_canonical()) {
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => format!("\"[{address}]\""),
        None => "unknown".to_owned(),
    };
    // The host was checked: it has neither quotes nor backslashes.
    let host = host.and_then(|host| host.to_str().ok()).map(|host| format!(";host=\"{host}\""));
    let text = format!("for={caller}{};proto=http", host.unwrap_or_default());
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("for=unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_one_connection_ends_with_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "Keep-Alive, x-mine , content-length"),
            ("keep-alive", "timeout=5"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("content-length", "7"),
            ("authorization", "Bearer token"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let mut other = headers.clone();
        strip(&mut headers, false);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "content-length"]);
        strip(&mut other, true);
        assert_eq!(
            (&other[UPGRADE], &other[CONNECTION]),
            (&"websocket".parse().expect("a value"), &"upgrade".parse().expect("a value"))
        );
    }

    #[test]
    fn the_caller_is_named() {
        let host = HeaderValue::from_static("api.example.org:3001");
        for (address, name) in
            [("10.0.0.7", "10.0.0.7"), ("::ffff:10.0.0.7", "10.0.0.7"), ("::1", "\"[::1]\"")]
        {
            let caller = Some(address.parse().expect("an address"));
            let expected = format!("for={name};host=\"api.example.org:3001\";proto=http");
            assert_eq!(forwarded(Some(&host), caller), expected);
        }
        assert_eq!(forwarded(None, None), "for=unknown;proto=http");
    }
}
