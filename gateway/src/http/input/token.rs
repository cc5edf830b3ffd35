//! The tokens of the API: their roles, and which requests they admit.
//!
//! A token is known by its SHA-256 digest, and digests are compared in constant time. A plain digest
//! suffices, as a token is no password that a person has chosen, but made of random bytes.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Method};
use clap::ValueEnum;
use process::Secret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::http::kind::Kind;
use crate::http::problem::Problem;

/// The name of a token is no longer.
const LONGEST_NAME: usize = 64;

/// What a token allows. Each role allows what those before it do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Role {
    /// Read users, the feed, the state of the ring and its metrics.
    Read,
    /// Create, change and delete users, too.
    Write,
    /// Check, repair and promote partitions, too.
    Admin,
}

impl Role {
    /// As it stands in a list of tokens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = [Self::Read, Self::Write, Self::Admin];
        known.into_iter().find(|role| role.as_str() == text).ok_or("its role is not read, write or admin")
    }
}

/// The role that a route asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needed {
    /// Of GET and HEAD.
    look: Option<Role>,
    /// Of all other methods.
    change: Option<Role>,
}

impl Needed {
    /// By the template of the route.
    pub(crate) fn of(route: &str) -> Self {
        let (look, change) = match route {
            "/metrics" => (Role::Read, Role::Read),
            "/api/cluster" => (Role::Read, Role::Admin),
            "/api/user/{id}/erase" => (Role::Admin, Role::Admin),
            _ if route.starts_with("/api/user") => (Role::Read, Role::Write),
            // What is new is for an administrator until something else is said here.
            _ if is_api(route) => (Role::Admin, Role::Admin),
            _ => return Self { look: None, change: None },
        };
        Self { look: Some(look), change: Some(change) }
    }

    pub(crate) fn by(self, method: &Method) -> Option<Role> {
        if matches!(*method, Method::GET | Method::HEAD) { self.look } else { self.change }
    }
}

/// Whether a path is part of the API that tokens protect. The router compares paths as they came, undecoded,
/// and so does this: a route that matches cannot hide from it behind percent signs.
pub(crate) fn is_api(path: &str) -> bool {
    path.strip_prefix("/api").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A token that is known.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    name: Arc<str>,
    role: Role,
    digest: [u8; 32],
}

/// What is wrong with a list of tokens; it does not repeat them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("entry {entry}: {why}")]
pub struct BadTokens {
    /// From 1, comments and blank lines left out.
    entry: usize,
    why: &'static str,
}

impl Token {
    /// # Errors
    /// Where the name cannot stand in a list, or the secret in a header.
    pub fn new(name: &str, role: Role, secret: &str) -> Result<Self, &'static str> {
        if secret.is_empty() || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("its token is empty or has other characters than visible ASCII");
        }
        Self::with_digest(name, role, Sha256::digest(secret).into())
    }

    fn with_digest(name: &str, role: Role, digest: [u8; 32]) -> Result<Self, &'static str> {
        let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
        if !(1..=LONGEST_NAME).contains(&name.len()) || !name.bytes().all(is_fit) {
            return Err("its name is not 1 to 64 letters, digits, and -_.@");
        }
        Ok(Self { name: name.into(), role, digest })
    }

    /// What stands for it in a file: its digest.
    pub fn line(&self) -> String {
        let digest: String = self.digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}:{}:sha256:{digest}", self.name, self.role)
    }

    /// The tokens of `API_TOKENS`: `name:role:secret`, separated by commas or line ends.
    ///
    /// # Errors
    /// Where one of them is something else.
    pub fn of_list(list: &Secret) -> Result<Vec<Self>, BadTokens> {
        entries(list.expose(), |entry| {
            let (name, role, secret) = parts(entry).ok_or("it is not name:role:secret")?;
            Self::new(name, role?, secret)
        })
    }

    /// The tokens of `API_TOKENS_FILE`: `name:role:sha256:digest`, one a line.
    ///
    /// # Errors
    /// Where one of them is something else.
    pub fn of_file(text: &str) -> Result<Vec<Self>, BadTokens> {
        let why =
            "it is not name:role:sha256: with a digest of 64 hexadecimal digits; `corro token new` makes it";
        entries(text, |entry| {
            let (name, role, rest) = parts(entry).ok_or(why)?;
            let digest = rest.strip_prefix("sha256:").and_then(hexadecimal).ok_or(why)?;
            Self::with_digest(name, role?, digest)
        })
    }

    /// The tokens of `API_TOKEN`, separated by commas: without a name, and of the role admin.
    ///
    /// # Errors
    /// Where a token is empty, or cannot stand in a header.
    pub fn of_plain_list(list: &Secret) -> Result<Vec<Self>, BadTokens> {
        let token = |(index, text): (usize, &str)| {
            let why = |why| BadTokens { entry: index + 1, why };
            Self::new("API_TOKEN", Role::Admin, text.trim()).map_err(why)
        };
        list.expose().split(',').enumerate().map(token).collect()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:***", self.name, self.role)
    }
}

/// Each entry of a list, read. Blank ones and comments are left out.
fn entries(text: &str, read: impl Fn(&str) -> Result<Token, &'static str>) -> Result<Vec<Token>, BadTokens> {
    let entries = text.split(['\n', ',']).map(str::trim);
    let entries = entries.filter(|entry| !entry.is_empty() && !entry.starts_with('#'));
    (1..).zip(entries).map(|(entry, text)| read(text).map_err(|why| BadTokens { entry, why })).collect()
}

fn parts(entry: &str) -> Option<(&str, Result<Role, &'static str>, &str)> {
    let (name, rest) = entry.split_once(':')?;
    let (role, rest) = rest.split_once(':')?;
    Some((name, role.parse(), rest))
}

fn hexadecimal(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, place) in digest.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[place..place + 2], 16).ok()?;
    }
    Some(digest)
}

/// Which requests are admitted. All clones are one: a new list of tokens holds for each of them.
#[derive(Debug, Clone, Default)]
pub struct Access {
    tokens: Arc<RwLock<Vec<Token>>>,
    /// Whether a request without a token may do everything.
    anonymous: bool,
}

/// A request that is admitted: the name of its token, where it has one.
pub(crate) type Caller = Option<Arc<str>>;

impl Access {
    /// To those that show one of the tokens, and to all that show none where they may be `anonymous`.
    pub fn new(tokens: Vec<Token>, anonymous: bool) -> Self {
        Self { tokens: Arc::new(RwLock::new(tokens)), anonymous }
    }

    /// From now on other tokens count.
    pub fn replace(&self, tokens: Vec<Token>) {
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens;
    }

    /// What a start says of it.
    pub fn summary(&self) -> String {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        let count = |role| tokens.iter().filter(|token| token.role == role).count();
        let [read, write, admin] = [Role::Read, Role::Write, Role::Admin].map(count);
        let tokens = format!("tokens of the roles read: {read}, write: {write}, admin: {admin}");
        match (self.anonymous, read + write + admin) {
            (true, _) => format!(
                "ALLOW_ANONYMOUS: everything that reaches this port may read and change all users, and \
                 administer the ring ({tokens})"
            ),
            (false, 0) => "there are no tokens, so /api answers 401: set API_TOKENS_FILE (`corro token new` \
                           makes a token), or ALLOW_ANONYMOUS=true"
                .to_owned(),
            (false, _) => tokens,
        }
    }

    /// Whether that has to be noticed.
    pub fn is_unusual(&self) -> bool {
        self.anonymous || self.tokens.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// # Errors
    /// 401 where the request shows none of the tokens, 403 where its token has too low a role.
    pub(crate) fn admit(&self, headers: &HeaderMap, needed: Role) -> Result<Caller, Problem> {
        let shown = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        self.admit_token(shown, needed)
    }

    /// # Errors
    /// As [`Self::admit`].
    pub(crate) fn admit_token(&self, shown: Option<&str>, needed: Role) -> Result<Caller, Problem> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        let Some(shown) = shown.filter(|_| !tokens.is_empty()) else {
            let detail = match (self.anonymous, tokens.is_empty()) {
                (true, _) => return Ok(None),
                (false, false) => "Send one of the tokens of this API as Authorization: Bearer.",
                (false, true) => "This gateway has no tokens yet, so it answers nothing; its log says more.",
            };
            return Err(Problem::new(Kind::Unauthorized, detail));
        };
        let digest: [u8; 32] = Sha256::digest(shown).into();
        // All are compared, whichever matches, so that the time does not tell which.
        let is_shown = |token: &Token| bool::from(token.digest.ct_eq(&digest));
        let known =
            tokens.iter().fold(None, |known, token| if is_shown(token) { Some(token) } else { known });
        let Some(token) = known else {
            return Err(Problem::new(Kind::Unauthorized, "The token is not one of this API."));
        };
        if token.role < needed {
            let role = token.role;
            let detail = format!("The role of the token is {role}; this needs the role {needed}.");
            return Err(Problem::new(Kind::Forbidden, detail));
        }
        Ok(Some(Arc::clone(&token.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        text.parse().expect("not blank")
    }

    fn status(access: &Access, value: Option<&str>, needed: Role) -> Result<Caller, u16> {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(AUTHORIZATION, value.parse().expect("a header value"));
        }
        access.admit(&headers, needed).map_err(|problem| problem.kind().status().as_u16())
    }

    #[test]
    fn any_of_the_tokens_admits_and_nothing_else() {
        let access = Access::new(Token::of_plain_list(&secret("one, two")).expect("two tokens"), false);
        let name = Ok(Some(Arc::from("API_TOKEN")));
        for good in ["Bearer one", "bearer two", "BEARER  one "] {
            assert_eq!(status(&access, Some(good), Role::Admin), name, "{good}");
        }
        for bad in
            ["", "one", "Bearer", "Bearer ", "Bearer on", "Bearer one,two", "Bearer one, two", "Basic one"]
        {
            assert_eq!(status(&access, Some(bad), Role::Read), Err(401), "{bad}");
        }
        assert_eq!(status(&access, None, Role::Read), Err(401));
    }

    #[test]
    fn a_role_allows_what_those_before_it_do() {
        let list = secret("r:read:one,w:write:two\n a:admin:three ");
        let access = Access::new(Token::of_list(&list).expect("three tokens"), false);
        let allowed = |token: &str| {
            [Role::Read, Role::Write, Role::Admin]
                .map(|needed| status(&access, Some(&format!("Bearer {token}")), needed).err().unwrap_or(200))
        };
        assert_eq!(allowed("one"), [200, 403, 403]);
        assert_eq!(allowed("two"), [200, 200, 403]);
        assert_eq!(allowed("three"), [200, 200, 200]);
        assert_eq!(allowed("four"), [401, 401, 401]);
        assert_eq!(status(&access, Some("Bearer two"), Role::Read), Ok(Some(Arc::from("w"))));
    }

    #[test]
    fn without_any_token_nothing_is_admitted_unless_that_is_allowed() {
        let none = Access::default();
        assert_eq!(status(&none, None, Role::Read), Err(401));
        assert_eq!(status(&none, Some("Bearer x"), Role::Read), Err(401));
        assert!(none.is_unusual() && none.summary().contains("401"), "{}", none.summary());
        let open = Access::new(Vec::new(), true);
        assert_eq!(status(&open, None, Role::Admin), Ok(None));
        assert_eq!(status(&open, Some("Bearer x"), Role::Admin), Ok(None));
        assert!(open.is_unusual() && open.summary().contains("ALLOW_ANONYMOUS"), "{}", open.summary());
        open.replace(Token::of_list(&secret("r:read:one")).expect("a token"));
        assert_eq!(status(&open, None, Role::Admin), Ok(None));
        assert_eq!(status(&open, Some("Bearer one"), Role::Admin), Err(403), "what is shown counts");
        assert_eq!(status(&open, Some("Bearer x"), Role::Admin), Err(401));
    }

    #[test]
    fn a_file_has_digests_and_can_be_replaced() {
        let token = Token::new("ci", Role::Write, "sesame").expect("a token");
        // As `printf sesame | sha256sum` says.
        let digest = "d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272";
        assert_eq!(token.line(), format!("ci:write:sha256:{digest}"));
        let text = format!(
            "# comment\n\n{}\r\n",
            token.line().to_uppercase().replace("CI:WRITE:SHA", "ci:write:sha")
        );
        assert_eq!(Token::of_file(&text), Ok(vec![token.clone()]));
        let access = Access::default();
        access.clone().replace(vec![token.clone()]);
        assert_eq!(status(&access, Some("Bearer sesame"), Role::Write), Ok(Some(Arc::from("ci"))));
        access.replace(Vec::new());
        assert_eq!(status(&access, Some("Bearer sesame"), Role::Read), Err(401));
        assert!(!format!("{token:?} {access:?}").contains(digest));
    }

    #[test]
    fn lists_with_a_token_that_cannot_be_used_are_refused_without_being_shown() {
        for bad in [",", "hush,", "hush,,b", "hush, ,b", "hush b", "hüsh"] {
            let error = Token::of_plain_list(&secret(bad)).expect_err(bad).to_string();
            assert!(error.starts_with("entry ") && !error.contains("hush"), "{bad}: {error}");
        }
        for bad in
            ["hush", "a:read", "a:read:", "a:reader:hush", ":read:hush", "a b:read:hush", "a:read:hush hush"]
        {
            let error = Token::of_list(&secret(bad)).expect_err(bad).to_string();
            assert!(error.starts_with("entry 1: ") && !error.contains("hush"), "{bad}: {error}");
        }
        let short = format!("a:read:sha256:{}", "0".repeat(63));
        for bad in ["a:read:hush", "a:read:sha256:hush", &short] {
            let error = Token::of_file(bad).expect_err(bad).to_string();
            assert!(error.contains("corro token new") && !error.contains("hush"), "{bad}: {error}");
        }
    }

    #[test]
    fn tokens_protect_the_api_and_nothing_else() {
        for path in ["/api", "/api/", "/api/user", "/api//x"] {
            assert!(is_api(path), "{path}");
        }
        for path in ["/", "/apix", "/health/live", "/API/user", "/x/api/"] {
            assert!(!is_api(path), "{path}");
        }
    }
}
