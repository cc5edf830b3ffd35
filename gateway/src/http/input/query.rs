//! The part of a path behind the question mark: its parameters, each known, given once and readable, or a
//! problem that names the one that is not.
//!
//! A plus sign stands for itself here: an address such as `ada+news@example.org` may be written as it is. A
//! space is `%20`.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;

use crate::http::kind::Kind;
use crate::http::problem::Problem;

/// Parameters as they were given.
#[derive(Debug, Default)]
pub(crate) struct Parameters(Vec<(&'static str, String)>);

impl Parameters {
    /// Reads the parameters of a path that takes those with the names in `known`.
    pub(crate) fn parse(text: Option<&str>, known: &[&'static str]) -> Result<Self, Problem> {
        let mut given: Vec<(&'static str, String)> = Vec::new();
        for part in text.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let decoded = decode(name).ok_or_else(|| malformed("A query parameter's name is not UTF-8."))?;
            let Some(name) = known.iter().find(|known| **known == decoded) else {
                let shown: String = decoded.chars().take(MAX_SHOWN).collect();
                let known = if known.is_empty() { "none at all".to_owned() } else { known.join(", ") };
                let detail = format!("There is no query parameter {shown:?} here: it takes {known}.");
                return Err(malformed(detail));
            };
            let value = decode(value).ok_or_else(|| unfit(name, "must be UTF-8"))?;
            if given.iter().any(|(other, _)| other == name) {
                return Err(unfit(name, "must not be given more than once"));
            }
            given.push((name, value));
        }
        Ok(Self(given))
    }

    /// A text, read by `read`; `None` where it was not given, or is empty. See [`Self::get`].
    pub(crate) fn text<T>(
        &self,
        name: &'static str,
        must: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let read = |text: &str| if text.is_empty() { Some(None) } else { read(text).map(Some) };
        Ok(self.get(name, must, read)?.flatten())
    }

    /// A parameter, read by `read`; `None` where it was not given. `must` says what it has to be, to be read
    /// after its name.
    pub(crate) fn get<T>(
        &self,
        name: &'static str,
        must: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let given = self.0.iter().find(|(other, _)| *other == name);
        given.map(|(_, value)| read(value).ok_or_else(|| unfit(name, must))).transpose()
    }
}

/// Of a call that takes no parameters.
pub(crate) struct NoParameters;

impl<S: Sync> FromRequestParts<S> for NoParameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Parameters::parse(parts.uri.query(), &[]).map(|_| Self)
    }
}

/// A group as a parameter.
pub(crate) fn group(text: &str) -> Option<i32> {
    // What `parse` takes beyond a JSON number: a sign in front of a positive one.
    text.parse().ok().filter(|_| !text.starts_with('+'))
}

pub(crate) const GROUP: &str = "must be a whole number from -2147483648 to 2147483647";

/// So much of a name that is not known is repeated in the answer.
const MAX_SHOWN: usize = 64;

fn decode(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(Into::into)
}

fn unfit(name: &str, must: &str) -> Problem {
    malformed(format!("The query parameter {name} {must}."))
}

fn malformed(detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::new(Kind::MalformedQuery, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(text: &str, name: &'static str) -> Result<Option<String>, Problem> {
        Parameters::parse(Some(text), &["one", "two"])?.get(name, "", |text| Some(text.to_owned()))
    }

    #[test]
    fn parameters_are_decoded_and_a_plus_sign_stays() {
        for text in ["one=a%2Bb%20c&two=", "&&two&one=a+b%20c&", "%6Fne=a+b%20%63&two="] {
            assert_eq!(get(text, "one").expect("good"), Some("a+b c".to_owned()), "{text}");
            assert_eq!(get(text, "two").expect("good"), Some(String::new()), "{text}");
        }
        assert!(Parameters::parse(None, &[]).is_ok());
        assert_eq!(get("two=2", "one").expect("good"), None);
    }

    #[test]
    fn what_is_unknown_repeated_or_unreadable_is_named() {
        for (text, named) in [
            ("three=3", "three"),
            ("One=1", "One"),
            ("one=1&one=1", "one"),
            ("one=%ff", "one"),
            ("%ff=1", "name"),
            ("=", "no query parameter"),
        ] {
            let problem = format!("{:?}", get(text, "one").expect_err(text));
            assert!(problem.contains("MalformedQuery") && problem.contains(named), "{problem}");
        }
    }

    #[test]
    fn groups() {
        assert_eq!(group("-2147483648"), Some(i32::MIN));
        assert!(["", "+1", "1.0", "2147483648", " 1", "0x1"].iter().all(|bad| group(bad).is_none()));
    }
}
