//! What every request has in its head: where it goes, and how its body is framed.

use std::net::Ipv6Addr;

use axum::extract::Request;
use axum::http::header::{HOST, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderName, Version};

use crate::http::kind::Kind;
use crate::http::problem::Problem;

const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// The longest prefix that is used.
const MAX_PREFIX: usize = 256;

/// # Errors
/// 400 where `Host` is missing, repeated or malformed (RFC 9112, section 3.2); 501 for a transfer coding
/// other than `chunked` (section 6.1).
pub(crate) fn check(request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    let mut hosts = headers.get_all(HOST).iter();
    let detail = match (hosts.next(), hosts.next()) {
        (None, _) if request.version() < Version::HTTP_11 => None,
        (None, _) => Some("The request has no Host header."),
        (Some(_), Some(_)) => Some("The request has more than one Host header."),
        (Some(host), None) => (!is_host(host.to_str().unwrap_or_default()))
            .then_some("The Host header is not the name or address of a host, with or without a port."),
    };
    if let Some(detail) = detail {
        return Err(Problem::new(Kind::MalformedHost, detail));
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        let detail = "A body may be sent as it is, or chunked: no other transfer coding is known here.";
        return Err(Problem::new(Kind::UnknownTransferCoding, detail));
    }
    Ok(())
}

/// Whether the text is `uri-host [ ":" port ]`. Names are those of RFC 3986, which takes nearly anything.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (text, ""),
    };
    let is_port = port.is_empty() || port.parse::<u16>().is_ok_and(|_| !port.starts_with('+'));
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
    is_port
        && match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.bytes().all(is_name),
        }
}

/// The path under which a proxy shows this server, where it says so in `X-Forwarded-Prefix`: the paths in
/// `Location` and `Link` begin with it. What could not be such a path is ignored.
pub(crate) fn prefix(headers: &HeaderMap) -> &str {
    let given = headers.get(FORWARDED_PREFIX).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let prefix = given.trim_end_matches('/');
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    // Two slashes would begin the name of another host.
    let fits = prefix.len() <= MAX_PREFIX
        && prefix.starts_with('/')
        && !prefix.contains("//")
        && prefix.bytes().all(is_plain);
    if fits { prefix } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for good in
            ["a", "localhost:3001", "db-1.ring.", "127.0.0.1:0", "[::1]", "[::1]:3001", "a:", "a_b%20"]
        {
            assert!(is_host(good), "{good}");
        }
        for bad in [
            "", ":80", "a b", "a/b", "a@b", "a:b", "a:65536", "a:+1", "a:1:2", "::1", "[::1", "[a]", "[]:1",
            "ä",
        ] {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn prefixes() {
        let prefix = |given: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(FORWARDED_PREFIX, given.parse().expect("a header value"));
            prefix(&headers).to_owned()
        };
        for (given, used) in [("/corro", "/corro"), ("/a/b-c.d/", "/a/b-c.d"), ("/", ""), ("", "")] {
            assert_eq!(prefix(given), used, "{given}");
        }
        for bad in
            ["corro", "//other.example", "/a//b", "/a?b", "/a>", "http://other.example", &"/a".repeat(200)]
        {
            assert_eq!(prefix(bad), "", "{bad}");
        }
    }
}
