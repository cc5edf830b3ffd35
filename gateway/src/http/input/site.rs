//! Which names this gateway answers to, and which pages of other servers may use it from a browser.
//!
//! A browser sends what any page asks it to, from wherever the browser is: to this machine, into a private
//! network. It says honestly, and no page can change it, which name the page asked for (`Host`) and where the
//! page is from (`Origin`, `Sec-Fetch-Site`). So two rules keep pages of strangers out, whatever they try:
//!
//! * The name has to be one of this gateway. A page whose own name leads to this address a moment later (DNS
//!   rebinding) counts for the browser as a page of this gateway, but it still says its own name. An address
//!   is no name, so it needs no list; `localhost` and the names below it never leave the machine.
//! * A page of another origin has to be allowed. It may then also read answers (CORS).
//!
//! What is no browser may say anything here, and gains nothing by it: tokens are for that.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::http::kind::Kind;
use crate::http::problem::Problem;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// What pages of other origins may send and read beside what is always allowed.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
const SENT: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, if-match, if-none-match, last-event-id, x-request-id",
);
const READ: HeaderValue = HeaderValue::from_static("etag, link, location, retry-after, x-request-id");

/// A browser need not ask again for so many seconds.
const ASKED_FOR: HeaderValue = HeaderValue::from_static("600");

/// One entry of `ALLOWED_HOSTS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedHost {
    /// Whatever a request says.
    Any,
    /// A host name, in lower case.
    Name(String),
}

/// Where other gateways find this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertised {
    /// Host name or address; IPv6 in brackets.
    host: String,
    /// `None`: the port on which it listens.
    port: Option<NonZeroU16>,
}

/// One entry of `ALLOWED_ORIGINS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigin {
    /// Every page.
    Any,
    /// Pages of this machine, of any port.
    Local,
    /// Scheme, host, and port unless it is that of the scheme; in lower case.
    Origin(String),
}

impl AllowedHost {
    /// Reads an entry.
    ///
    /// # Errors
    /// What is allowed.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        match host_name(text) {
            _ if text == "*" => Ok(Self::Any),
            Some(name) if name == text && !name.contains('*') => Ok(Self::Name(text.to_ascii_lowercase())),
            _ => Err("allowed: host names without a port, separated by commas; or *"),
        }
    }
}

impl Advertised {
    /// Host name or address.
    pub fn host(&self) -> String {
        self.host.clone()
    }

    /// Its port, where it is not the one on which it listens.
    pub fn port(&self) -> Option<u16> {
        self.port.map(NonZeroU16::get)
    }

    /// Reads `HOST[:PORT]`. An IPv6 address without brackets has no port.
    ///
    /// # Errors
    /// What is allowed.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let allowed = "allowed: a host name or an address, and a port: gateway-1.ring, [2001:db8::1]:3001";
        if let Ok(IpAddr::V6(address)) = text.parse() {
            return Ok(Self { host: format!("[{address}]"), port: None });
        }
        let host = host_name(text).filter(|host| host.starts_with('[') || is_plain(host)).ok_or(allowed)?;
        let port = match text[host.len()..].strip_prefix(':') {
            Some(port) => Some(port.parse().map_err(|_| allowed)?),
            None => None,
        };
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }

    /// Host and port, where this is the port on which it listens.
    pub fn authority(&self, listening: u16) -> String {
        Self { host: self.host.clone(), port: self.port.or(NonZeroU16::new(listening)) }.to_string()
    }

    /// The name by which requests of other gateways ask for this one.
    pub(crate) fn name(&self) -> AllowedHost {
        AllowedHost::Name(without_dot(&self.host).to_owned())
    }
}

impl fmt::Display for Advertised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

impl AllowedOrigin {
    /// Reads an entry.
    ///
    /// # Errors
    /// What is allowed.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        let authority = text.split_once("://").map(|(_, authority)| authority);
        match text {
            "*" => Ok(Self::Any),
            "local" => Ok(Self::Local),
            _ if authority.is_some_and(|host| host_name(host).is_some() && !host.contains('*')) => {
                Ok(Self::Origin(text.to_ascii_lowercase()))
            }
            _ => Err("allowed: origins such as https://app.example.org, separated by commas; local; or *"),
        }
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Sites {
    hosts: Vec<AllowedHost>,
    origins: Vec<AllowedOrigin>,
    /// The names of this machine.
    machine: Vec<String>,
}

impl Default for Sites {
    /// This machine.
    fn default() -> Self {
        Self::new(Vec::new(), vec![AllowedOrigin::Local])
    }
}

impl Sites {
    /// With these hosts beside the names of this machine, and these origins beside the gateway's own.
    pub fn new(hosts: Vec<AllowedHost>, origins: Vec<AllowedOrigin>) -> Self {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = name.trim().to_ascii_lowercase();
        let short = name.split('.').next().unwrap_or_default().to_owned();
        let machine = [name, short].into_iter().filter(|name| !name.is_empty()).collect();
        Self { hosts, origins, machine }
    }

    /// Whether a request of this `Host` is meant for this gateway, and not sent by a page of a stranger.
    /// Returns the origin of the page where that is another one and may read the answer.
    ///
    /// # Errors
    /// 421 or 403.
    pub(crate) fn admit(&self, request: &Request, host: &str) -> Result<Option<HeaderValue>, Problem> {
        if !self.is_own(host) {
            let detail = "The gateway is not known under this name. ALLOWED_HOSTS lists those that it has.";
            return Err(Problem::new(Kind::UnknownHost, detail));
        }
        let headers = request.headers();
        match headers.get(ORIGIN) {
            Some(origin) if authority(origin).is_some_and(|page| page.eq_ignore_ascii_case(host)) => Ok(None),
            Some(origin) if self.allows(origin) => Ok(Some(origin.clone())),
            None if !is_foreign(request.method(), headers) => Ok(None),
            _ => {
                let detail = "Nothing was done: pages of this origin may not use the gateway. \
                              ALLOWED_ORIGINS lists those that may.";
                Err(Problem::new(Kind::ForeignOrigin, detail))
            }
        }
    }

    fn is_own(&self, host: &str) -> bool {
        let Some(name) = host_name(host) else { return false };
        let is_listed = |allowed: &AllowedHost| match allowed {
            AllowedHost::Any => true,
            AllowedHost::Name(known) => known.eq_ignore_ascii_case(without_dot(name)),
        };
        name.starts_with('[')
            || name.parse::<Ipv4Addr>().is_ok()
            || self.is_machine(name)
            || self.hosts.iter().any(is_listed)
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.origins.iter().any(|allowed| match allowed {
            AllowedOrigin::Any => true,
            AllowedOrigin::Origin(known) => origin.as_bytes().eq_ignore_ascii_case(known.as_bytes()),
            AllowedOrigin::Local => authority(origin).and_then(host_name).is_some_and(|name| {
                let address = name.trim_start_matches('[').trim_end_matches(']');
                self.is_machine(name)
                    || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
                    || address.parse::<Ipv6Addr>().is_ok_and(|address| address.to_canonical().is_loopback())
            }),
        })
    }

    /// Whether it is `localhost`, a name below it, or one that the machine has given itself.
    fn is_machine(&self, name: &str) -> bool {
        const LOCALHOST: &[u8] = b"localhost";
        let name = without_dot(name);
        let end = name.len().checked_sub(LOCALHOST.len()).map(|start| name.as_bytes().split_at(start));
        end.is_some_and(|(begin, end)| {
            end.eq_ignore_ascii_case(LOCALHOST) && (begin.is_empty() || begin.ends_with(b"."))
        }) || self.machine.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// Whether a browser says of a request without `Origin` that a page of another site caused it, other than by
/// a link to here: a picture, a script, a form in an old browser.
fn is_foreign(method: &Method, headers: &HeaderMap) -> bool {
    headers.get(FETCH_SITE).is_some_and(|site| {
        let follows_link =
            method == Method::GET && headers.get(FETCH_MODE).is_some_and(|mode| mode == "navigate");
        site == "cross-site" && !follows_link
    })
}

/// Host and port of an origin.
fn authority(origin: &HeaderValue) -> Option<&str> {
    let origin = origin.to_str().ok()?;
    origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))
}

/// Whether it is a name or an IPv4 address as they are in use.
fn is_plain(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

/// A name may end with the dot of the root.
fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// The host in `uri-host [ ":" port ]`, where the text is that. Names are those of RFC 3986, which takes
/// nearly anything.
pub(crate) fn host_name(text: &str) -> Option<&str> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (text, ""),
    };
    let is_port = port.is_empty() || port.parse::<u16>().is_ok_and(|_| !port.starts_with('+'));
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(is_name),
    };
    (is_port && is_host).then_some(host)
}

/// Whether a browser asks before it lets a page of another origin send a request.
pub(crate) fn is_question(request: &Request) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to that question: the page may. By hand, as is [`let_read`]: the layer of tower-http adds three
/// headers to every answer, also where no page asks.
pub(crate) fn let_send() -> Response {
    let headers = [
        (ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (ACCESS_CONTROL_ALLOW_HEADERS, SENT),
        (ACCESS_CONTROL_MAX_AGE, ASKED_FOR),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Lets a page of this origin read the answer.
pub(crate) fn let_read(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, READ);
    headers.append(VARY, HeaderValue::from_static("origin"));
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::header::HOST;

    use super::*;

    fn sites(hosts: &[&str], origins: &[&str]) -> Sites {
        let hosts = hosts.iter().map(|text| AllowedHost::parse(text).expect("a host")).collect();
        let origins = origins.iter().map(|text| AllowedOrigin::parse(text).expect("an origin")).collect();
        Sites {
            machine: vec!["desk.example.net".to_owned(), "desk".to_owned()],
            ..Sites::new(hosts, origins)
        }
    }

    /// What comes of a request, which begins with its method: the origin that may read, or a status.
    fn outcome(
        sites: &Sites,
        host: &str,
        method: &str,
        more: &[(&str, &str)],
    ) -> Result<Option<String>, u16> {
        let mut request = Request::builder().method(method).uri("/").header(HOST, host);
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        let admitted = sites.admit(&request.body(Body::empty()).expect("a request"), host);
        let text = |origin: HeaderValue| origin.to_str().expect("text").to_owned();
        admitted.map(|origin| origin.map(text)).map_err(|problem| problem.kind().status().as_u16())
    }

    #[test]
    fn hosts() {
        for good in
            ["a", "localhost:3001", "db-1.ring.", "127.0.0.1:0", "[::1]", "[::1]:3001", "a:", "a_b%20"]
        {
            assert!(host_name(good).is_some(), "{good}");
        }
        for bad in [
            "", ":80", "a b", "a/b", "a@b", "a:b", "a:65536", "a:+1", "a:1:2", "::1", "[::1", "[a]", "[]:1",
            "ä",
        ] {
            assert!(host_name(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_gateway_has_the_names_of_its_machine_all_addresses_and_those_that_are_set() {
        let sites = sites(&["gateway", "API.example.org"], &["local"]);
        for own in [
            "localhost",
            "LOCALHOST:3001",
            "localhost.",
            "a.localhost:1",
            "127.0.0.1:3001",
            "10.0.0.7",
            "[::1]:1",
            "[2001:db8::1]",
            "desk",
            "desk.example.net:3001",
            "Gateway:3001",
            "api.example.org.",
        ] {
            assert_eq!(outcome(&sites, own, "GET", &[]), Ok(None), "{own}");
        }
        for other in [
            "other.example",
            "notlocalhost",
            "localhost.other.example",
            "gateway.other.example",
            "127.0.0.1.nip.io",
            "0x7f000001",
            "2130706433",
            "127.1",
        ] {
            assert_eq!(outcome(&sites, other, "GET", &[]), Err(421), "{other}");
        }
        assert_eq!(outcome(&Sites::new(vec![AllowedHost::Any], vec![]), "any.example", "GET", &[]), Ok(None));
    }

    #[test]
    fn pages_of_other_origins_have_to_be_allowed() {
        let here = "localhost:3001";
        let said = |sites: &Sites, method, origin: &str| outcome(sites, here, method, &[("origin", origin)]);
        let local = sites(&[], &["local"]);
        for method in ["GET", "POST", "OPTIONS"] {
            assert_eq!(said(&local, method, "http://localhost:3001"), Ok(None), "its own");
            for page in ["http://localhost:5173", "https://127.0.0.1", "http://[::1]:8080", "http://desk:1"] {
                assert_eq!(said(&local, method, page), Ok(Some(page.to_owned())));
            }
            for page in [
                "https://other.example",
                "null",
                "",
                "http://10.0.0.7",
                "http://localhost.other.example",
                "http://other.example/localhost",
                "ftp://localhost",
                "file://",
            ] {
                assert_eq!(said(&local, method, page), Err(403), "{page}");
            }
        }
        let one = sites(&[], &["https://App.example.org"]);
        let page = "https://app.example.org";
        assert_eq!(said(&one, "PUT", page), Ok(Some(page.to_owned())));
        for page in ["http://app.example.org", "https://app.example.org:8443", "http://localhost:5173"] {
            assert_eq!(said(&one, "PUT", page), Err(403), "{page}");
        }
        assert_eq!(said(&one, "PUT", "http://localhost:3001"), Ok(None), "its own is always allowed");
        assert!(said(&sites(&[], &["*"]), "PUT", "null").is_ok());
    }

    #[test]
    fn a_browser_that_names_no_origin_says_whether_the_site_is_another() {
        let local = sites(&[], &["local"]);
        let said = |method, site, mode| {
            outcome(&local, "localhost", method, &[("sec-fetch-site", site), ("sec-fetch-mode", mode)])
        };
        assert_eq!(said("GET", "cross-site", "navigate"), Ok(None), "a link");
        assert_eq!(said("GET", "cross-site", "no-cors"), Err(403), "a picture");
        assert_eq!(said("POST", "cross-site", "navigate"), Err(403), "a form");
        for site in ["same-origin", "same-site", "none"] {
            assert_eq!(said("POST", site, "cors"), Ok(None), "{site}");
        }
    }

    #[test]
    fn addresses_for_other_gateways() {
        for (text, listening) in [
            ("gateway-1.ring", "gateway-1.ring:3001"),
            ("Gateway-1:80", "gateway-1:80"),
            ("10.0.0.7", "10.0.0.7:3001"),
            ("[2001:db8::1]:4001", "[2001:db8::1]:4001"),
            ("2001:db8::1", "[2001:db8::1]:3001"),
        ] {
            assert_eq!(Advertised::parse(text).map(|at| at.authority(3001)), Ok(listening.to_owned()));
        }
        for bad in ["", ":80", "a:0", "a:", "a:65536", "a b", "http://a", "a/b", "a@b", "*"] {
            assert!(Advertised::parse(bad).is_err(), "{bad}");
        }
        let own = Advertised::parse("Gateway-1.ring.:80").expect("an address").name();
        assert_eq!(outcome(&Sites::new(vec![own], vec![]), "gateway-1.ring:80", "GET", &[]), Ok(None));
    }

    #[test]
    fn entries() {
        assert_eq!(AllowedHost::parse(" Gateway "), Ok(AllowedHost::Name("gateway".to_owned())));
        for bad in ["", "a:80", "http://a", "a b", "*.a"] {
            assert!(AllowedHost::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(AllowedOrigin::parse("local"), Ok(AllowedOrigin::Local));
        for bad in ["", "a", "https://", "https://a/", "https://*.a", "http://a b"] {
            assert!(AllowedOrigin::parse(bad).is_err(), "{bad}");
        }
    }
}
