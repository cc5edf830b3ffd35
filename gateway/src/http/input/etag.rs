//! Entity tags (RFC 9110, sections 8.8.3 and 13.1). A user's tag is its version: `"0190a5b27c3d0000"`, always
//! strong.

use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use protocol::{Condition, Version};

use crate::http::kind::Kind;
use crate::http::problem::Problem;

/// A condition has no use for more tags than this, and the list travels with the write.
const MAX_TAGS: usize = 256;

/// The `ETag` of a user.
pub(crate) fn of(version: Version) -> HeaderValue {
    let mut tag = [b'"'; 18];
    tag[1..17].copy_from_slice(&hexadecimal(version.0));
    HeaderValue::from_bytes(&tag).expect("hexadecimal digits and quotes are visible ASCII")
}

/// Sixteen lower-case hexadecimal digits, without the allocation and the formatting machinery of `format!`:
/// this runs for every response.
pub(crate) fn hexadecimal(number: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 16];
    for (place, digit) in text.iter_mut().enumerate() {
        *digit = DIGITS[(number >> (60 - 4 * place)) as usize & 0xf];
    }
    text
}

/// What the conditions of a write come to. They are decided where the data are.
#[derive(Debug, PartialEq)]
pub(crate) enum Precondition {
    /// `If-None-Match: *`: there is no such user yet.
    Absent,
    /// There is one, and if a condition is given, it holds.
    Present(Option<Condition>),
}

impl Precondition {
    /// The same for a write that cannot create: no user that is there fulfils [`Self::Absent`].
    pub(crate) fn for_existing_user(self) -> Option<Condition> {
        match self {
            Self::Absent => Some(Condition::Versions(Vec::new())),
            Self::Present(condition) => condition,
        }
    }
}

/// What `If-Match` and `If-None-Match` ask of a write (RFC 9110, section 13.2.2: both have to hold). Tags
/// that are no version match nothing, so they are left out; so are weak ones in `If-Match`, which compares
/// strongly.
///
/// # Errors
/// A list that cannot be read is a problem rather than a condition that never holds: the caller may only have
/// forgotten the quotes, and would take the answer for a changed user.
pub(crate) fn conditions(headers: &HeaderMap) -> Result<Precondition, Problem> {
    let condition = match (if_match(headers)?, tags(headers, &IF_NONE_MATCH)?) {
        (matches, None) => matches,
        (None, Some(Tags::Any)) => return Ok(Precondition::Absent),
        // A user cannot be there and not.
        (Some(_), Some(Tags::Any)) => Some(Condition::Versions(Vec::new())),
        (Some(Condition::Versions(mut allowed)), Some(Tags::List(refused))) => {
            allowed.retain(|version| refused.iter().all(|tag| tag.version != Some(*version)));
            Some(Condition::Versions(allowed))
        }
        (_, Some(Tags::List(refused))) => {
            Some(Condition::NoneOf(refused.iter().filter_map(|tag| tag.version).collect()))
        }
    };
    Ok(Precondition::Present(condition))
}

/// What `If-Match` asks for.
///
/// # Errors
/// 400 where it cannot be read.
pub(crate) fn if_match(headers: &HeaderMap) -> Result<Option<Condition>, Problem> {
    Ok(tags(headers, &IF_MATCH)?.map(Tags::matching))
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Problem> {
    if !headers.contains_key(name) {
        return Ok(None);
    }
    parse(lines(headers, name))
        .and_then(Tags::limited)
        .map(Some)
        .map_err(|detail| Problem::new(Kind::MalformedCondition, format!("{name} {detail}.")))
}

/// What a text asks for that says what `If-Match` would.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn condition(text: &str) -> Result<Condition, &'static str> {
    parse(std::iter::once(text.as_bytes())).and_then(Tags::limited).map(Tags::matching)
}

/// Whether `If-None-Match` says that the caller has this version already. Compared weakly, as caches do. A
/// list that cannot be read is ignored: the caller gets the whole user, which is never wrong.
pub(crate) fn is_known(headers: &HeaderMap, version: Version) -> bool {
    headers.contains_key(IF_NONE_MATCH)
        && match parse(lines(headers, &IF_NONE_MATCH)) {
            Ok(Tags::Any) => true,
            Ok(Tags::List(tags)) => tags.iter().any(|tag| tag.version == Some(version)),
            Err(_) => false,
        }
}

enum Tags {
    /// `*`
    Any,
    List(Vec<Tag>),
}

struct Tag {
    weak: bool,
    /// `None` where it is the tag of no user.
    version: Option<Version>,
}

impl Tags {
    fn limited(self) -> Result<Self, &'static str> {
        match self {
            Self::List(tags) if tags.len() > MAX_TAGS => Err("lists more than 256 entity tags"),
            tags => Ok(tags),
        }
    }

    /// `If-Match` compares strongly: weak tags match nothing.
    fn matching(self) -> Condition {
        match self {
            Self::Any => Condition::Any,
            Self::List(tags) => Condition::Versions(
                tags.iter().filter(|tag| !tag.weak).filter_map(|tag| tag.version).collect(),
            ),
        }
    }
}

/// A header may be given in several lines.
fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).into_iter().map(HeaderValue::as_bytes)
}

/// # Errors
/// What is wrong with the lines.
fn parse<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<Tags, &'static str> {
    let lines: Vec<_> = lines.map(<[u8]>::trim_ascii).collect();
    if lines == [b"*"] {
        return Ok(Tags::Any);
    }
    let mut tags = Vec::new();
    let read = lines.into_iter().try_for_each(|line| parse_line(line, &mut tags));
    let read = read.filter(|()| !tags.is_empty());
    read.map(|()| Tags::List(tags)).ok_or("is neither * nor a list of entity tags in double quotes")
}

/// Commas may stand within a tag, so the line is read from left to right. Empty elements are allowed.
fn parse_line(mut rest: &[u8], tags: &mut Vec<Tag>) -> Option<()> {
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
        let version = std::str::from_utf8(opaque).ok().and_then(|text| text.parse().ok());
        tags.push(Tag { weak, version });
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
        match conditions(&headers(IF_MATCH, lines)).ok()? {
            Precondition::Present(condition) => Some(condition),
            Precondition::Absent => panic!("If-Match never asks for absence"),
        }
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
    fn both_conditions_have_to_hold() {
        let (one, two) = (r#""0000000000000001""#, r#""0000000000000002""#);
        let list = |numbers: &[u64]| numbers.iter().copied().map(Version).collect::<Vec<_>>();
        let present = |condition| Precondition::Present(Some(condition));
        for (matches, none_match, wanted) in [
            (None, Some("*"), Precondition::Absent),
            (None, Some(one), present(Condition::NoneOf(list(&[1])))),
            (None, Some(r#"W/"0000000000000001", "x""#), present(Condition::NoneOf(list(&[1])))),
            (Some("*"), Some(one), present(Condition::NoneOf(list(&[1])))),
            (Some("*"), Some("*"), present(Condition::Versions(list(&[])))),
            (Some(one), Some("*"), present(Condition::Versions(list(&[])))),
            (Some(one), Some(two), present(Condition::Versions(list(&[1])))),
            (Some(one), Some(one), present(Condition::Versions(list(&[])))),
        ] {
            let mut both = HeaderMap::new();
            for (name, value) in [(IF_MATCH, matches), (IF_NONE_MATCH, none_match)] {
                if let Some(value) = value {
                    both.insert(name, value.parse().expect("a header value"));
                }
            }
            assert_eq!(conditions(&both).ok(), Some(wanted), "{both:?}");
        }
        assert_eq!(conditions(&headers(IF_NONE_MATCH, &["no quotes"])).ok(), None);
        assert_eq!(Precondition::Absent.for_existing_user(), Some(Condition::Versions(list(&[]))));
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
