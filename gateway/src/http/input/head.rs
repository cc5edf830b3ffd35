//! What every request has in its head: where it goes, and how its body is framed.

use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::site::{self, Sites};
use crate::http::kind::Kind;
use crate::http::problem::Problem;

const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// The longest prefix that is used.
const MAX_PREFIX: usize = 256;

/// Returns the origin of the page that sends the request, where that is another one and may read the answer.
///
/// # Errors
/// 400 where `Host` is missing, repeated or malformed (RFC 9112, section 3.2); as [`Sites::admit`]; 501 for a
/// transfer coding other than `chunked` (section 6.1).
pub(crate) fn check(request: &Request, sites: &Sites) -> Result<Option<HeaderValue>, Problem> {
    let headers = request.headers();
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        // Older than what a browser sends. With an Origin it has no Host to compare that with.
        (None, _) if request.version() < Version::HTTP_11 && !headers.contains_key(ORIGIN) => None,
        (None, _) => return Err(malformed("The request has no Host header.")),
        (Some(_), Some(_)) => return Err(malformed("The request has more than one Host header.")),
        (Some(host), None) => match host.to_str() {
            Ok(host) if site::host_name(host).is_some() => Some(host),
            _ => {
                let detail = "The Host header is not the name or address of a host, with or without a port.";
                return Err(malformed(detail));
            }
        },
    };
    let origin = host.map_or(Ok(None), |host| sites.admit(request, host))?;
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        let detail = "A body may be sent as it is, or chunked: no other transfer coding is known here.";
        return Err(Problem::new(Kind::UnknownTransferCoding, detail));
    }
    Ok(origin)
}

fn malformed(detail: &'static str) -> Problem {
    Problem::new(Kind::MalformedHost, detail)
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
