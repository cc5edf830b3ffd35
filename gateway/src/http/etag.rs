//! Entity tags (RFC 9110, sections 8.8.3 and 13.1). A user's tag is its version: `"0190a5b27c3d0000"`, always strong.

use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use protocol::{Condition, Version};

use super::kind::Kind;
use super::problem::Problem;

/// More tags than this in one `If-Match` help nobody, and the list travels with the write.
const MAX_TAGS: usize = 256;

/// The `ETag` of a user.
pub(super) fn of(version: Version) -> HeaderValue {
    let mut tag = [b'"'; 18];
    tag[1..17].copy_from_slice(&hexadecimal(version.0));
    HeaderValue::from_bytes(&tag).expect("hexadecimal digits and quotes are visible ASCII")
}

/// Sixteen lower-case hexadecimal digits, without the allocation and the formatting machinery of `format!`: this runs
/// for every response.
pub(super) fn hexadecimal(number: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 16];
    for (place, digit) in text.iter_mut().enumerate() {
        *digit = DIGITS[(number >> (60 - 4 * place)) as usize & 0xf];
    }
    text
}

/// What `If-Match` asks for, to be decided where the data are. Weak tags and tags that are no version never match, so
/// they are left out.
///
/// # Errors
/// A list that cannot be read is a problem rather than a condition that never holds: its author, who may only have
/// forgotten the quotes, would take the answer for a changed user.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<Condition>, Problem> {
    if !headers.contains_key(IF_MATCH) {
        return Ok(None);
    }
    let malformed = |detail| Problem::new(Kind::MalformedCondition, format!("If-Match {detail}."));
    condition_of(parse(headers, &IF_MATCH)).map(Some).map_err(malformed)
}

/// The same for a text that says what the header would.
///
/// # Errors
/// What is wrong with it.
pub(super) fn condition(text: &str) -> Result<Condition, &'static str> {
    let line = text.as_bytes().trim_ascii();
    if line == b"*" {
        return Ok(Condition::Any);
    }
    let mut tags = Vec::new();
    let read = parse_line(line, &mut tags);
    condition_of(read.filter(|()| !tags.is_empty()).map(|()| Tags::List(tags)))
}

fn condition_of(tags: Option<Tags<'_>>) -> Result<Condition, &'static str> {
    match tags {
        Some(Tags::Any) => Ok(Condition::Any),
        Some(Tags::List(tags)) if tags.len() > MAX_TAGS => Err("lists more than 256 entity tags"),
        Some(Tags::List(tags)) => {
            let strong = tags.iter().filter(|tag| !tag.weak);
            Ok(Condition::Versions(strong.filter_map(Tag::version).collect()))
        }
        None => Err("is neither * nor a list of entity tags in double quotes"),
    }
}

/// Whether `If-None-Match` says that the caller has this version already. Compared weakly, as caches do. A list that
/// cannot be read is ignored: the caller gets the whole user, which is never wrong.
pub(super) fn is_known(headers: &HeaderMap, version: Version) -> bool {
    headers.contains_key(IF_NONE_MATCH)
        && match parse(headers, &IF_NONE_MATCH) {
            Some(Tags::Any) => true,
            Some(Tags::List(tags)) => tags.iter().any(|tag| tag.version() == Some(version)),
            None => false,
        }
}

#[derive(Debug, PartialEq)]
enum Tags<'a> {
    /// `*`
    Any,
    List(Vec<Tag<'a>>),
}

#[derive(Debug, PartialEq)]
struct Tag<'a> {
    weak: bool,
    /// What stands between the quotes.
    opaque: &'a [u8],
}

impl Tag<'_> {
    fn version(&self) -> Option<Version> {
        std::str::from_utf8(self.opaque).ok()?.parse().ok()
    }
}

/// All tags of a header that may be given in several lines; `None` where it cannot be read.
fn parse<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Tags<'a>> {
    let lines = || headers.get_all(name).iter().map(|line| line.as_bytes().trim_ascii());
    if lines().eq([b"*"]) {
        return Some(Tags::Any);
    }
    let mut tags = Vec::new();
    lines().try_for_each(|line| parse_line(line, &mut tags))?;
    (!tags.is_empty()).then_some(Tags::List(tags))
}

/// Commas may stand within a tag, so the line is read from left to right. Empty elements are allowed.
fn parse_line<'a>(mut rest: &'a [u8], tags: &mut Vec<Tag<'a>>) -> Option<()> {
    loop {
        rest = rest.trim_ascii_start();
        match rest {
            [] => return Some(()),
            [b',', after @ ..] => {
                rest = after;
                continue;
            }
            _ => {}
        }
        let (weak, quoted) = match rest.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, rest),
        };
        let from_first = quoted.strip_prefix(b"\"")?;
        let length = from_first.iter().position(|&byte| byte == b'"')?;
        let (opaque, after) = (&from_first[..length], &from_first[length + 1..]);
        let allowed = |byte: &u8| byte.is_ascii_graphic() || *byte >= 0x80;
        if !opaque.iter().all(allowed) {
            return None;
        }
        tags.push(Tag { weak, opaque });
        rest = after.trim_ascii_start();
        if !matches!(rest, [] | [b',', ..]) {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(&name, HeaderValue::from_bytes(line.as_bytes()).expect("a header value"));
        }
        headers
    }

    fn condition(lines: &[&str]) -> Option<Option<Condition>> {
        if_match(&headers(IF_MATCH, lines)).ok()
    }

    fn versions(numbers: &[u64]) -> Option<Option<Condition>> {
        Some(Some(Condition::Versions(numbers.iter().copied().map(Version).collect())))
    }

    #[test]
    fn every_version_has_a_tag_that_is_read_back() {
        let mut number = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..1_000 {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            for version in [Version(number), Version(number >> 40), Version(u64::MAX)] {
                let tag = of(version);
                let tag = tag.to_str().expect("ASCII");
                assert_eq!(tag, format!("\"{version}\""));
                assert_eq!(condition(&[tag]), versions(&[version.0]));
                let strong = headers(IF_NONE_MATCH, &[tag]);
                let weak = headers(IF_NONE_MATCH, &[&format!("W/{tag}")]);
                assert!(is_known(&strong, version) && is_known(&weak, version));
                assert!(!is_known(&strong, Version(version.0 ^ 1)));
            }
        }
    }

    #[test]
    fn lists_stars_and_tags_that_can_never_match() {
        let (one, two) = (r#""0000000000000001""#, r#""0000000000000002""#);
        assert_eq!(condition(&[]), Some(None));
        assert_eq!(condition(&["*"]), Some(Some(Condition::Any)));
        assert_eq!(condition(&[&format!("{one},{two}")]), versions(&[1, 2]));
        assert_eq!(condition(&[&format!(" ,{one} ,, {two},")]), versions(&[1, 2]));
        assert_eq!(condition(&[one, two]), versions(&[1, 2]), "several lines are one list");
        assert_eq!(condition(&[&format!("W/{one}, {two}")]), versions(&[2]));
        assert_eq!(condition(&[r#""a,b", "", "ü", "0000000000000001x""#]), versions(&[]));
        assert_eq!(condition(&[r#""000000000000000A""#]), versions(&[]));
        assert!(is_known(&headers(IF_NONE_MATCH, &["*"]), Version(1)));
        assert!(is_known(&headers(IF_NONE_MATCH, &["\"x\"", &format!("W/{one}")]), Version(1)));
    }

    #[test]
    fn what_cannot_be_read_is_a_problem_for_writes_and_ignored_for_reads() {
        for bad in [
            "",
            ",",
            "0000000000000001",
            "\"",
            "\"0000000000000001",
            "w/\"a\"",
            "W/ \"a\"",
            "\"a\" \"b\"",
            "\"a\"*",
            "*, \"a\"",
            "\"a b\"",
            "**",
        ] {
            assert_eq!(condition(&[bad]), None, "{bad}");
            assert!(!is_known(&headers(IF_NONE_MATCH, &[bad]), Version(1)), "{bad}");
        }
        assert_eq!(condition(&["*", "*"]), None);
        let many = r#""0000000000000001","#.repeat(MAX_TAGS + 1);
        assert_eq!(condition(&[&many]), None);
    }
}
