//! The tokens of the API, and which requests they admit.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use process::Secret;
use thiserror::Error;

use crate::http::kind::Kind;
use crate::http::problem::Problem;

/// The tokens of `API_TOKEN`. Several can be valid at once, so that one can be replaced without a gap; with
/// none, no request is admitted.
#[derive(Debug, Clone, Default)]
pub struct ApiTokens(Vec<Secret>);

/// What is wrong with a list of tokens; it does not repeat them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "one of the tokens is empty or has other characters than visible ASCII; allowed: tokens separated by \
     commas"
)]
pub struct BadTokens;

impl ApiTokens {
    /// Reads a comma-separated list; spaces around a token do not count.
    ///
    /// # Errors
    /// Where a token is empty, or cannot stand in a header.
    pub fn parse(list: &Secret) -> Result<Self, BadTokens> {
        let token = |text: &str| match text.trim().parse() {
            Ok(token) if text.trim().bytes().all(|byte| byte.is_ascii_graphic()) => Ok(token),
            _ => Err(BadTokens),
        };
        list.expose().split(',').map(token).collect::<Result<_, _>>().map(Self)
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Secret> {
        self.0.iter()
    }

    /// Whether this is one of them.
    pub(crate) fn knows(&self, shown: &str) -> bool {
        // All are compared, whichever matches, so that the time does not tell which.
        self.0.iter().fold(false, |known, token| known | token.matches(shown))
    }

    /// # Errors
    /// 401 where the request shows none of the tokens.
    pub(crate) fn admit(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let shown = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        let Some(shown) = shown else {
            let detail = "Send one of the tokens of this API as Authorization: Bearer.";
            return Err(Problem::new(Kind::Unauthorized, detail));
        };
        if self.knows(shown) {
            Ok(())
        } else {
            Err(Problem::new(Kind::Unauthorized, "The token is not one of this API."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(list: &str) -> Result<ApiTokens, BadTokens> {
        ApiTokens::parse(&list.parse().expect("not empty"))
    }

    #[test]
    fn any_of_the_tokens_admits_and_nothing_else() {
        let tokens = tokens("one, two").expect("two tokens");
        let admits = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().expect("a header value"));
            tokens.admit(&headers).is_ok()
        };
        for good in ["Bearer one", "bearer two", "BEARER  one "] {
            assert!(admits(good), "{good}");
        }
        for bad in
            ["", "one", "Bearer", "Bearer ", "Bearer on", "Bearer one,two", "Bearer one, two", "Basic one"]
        {
            assert!(!admits(bad), "{bad}");
        }
        assert!(tokens.admit(&HeaderMap::new()).is_err());
    }

    #[test]
    fn lists_with_a_token_that_no_header_can_carry_are_refused() {
        for bad in [",", "a,", "a,,b", "a, ,b", "a b", "ä"] {
            assert_eq!(tokens(bad).err(), Some(BadTokens), "{bad}");
        }
    }
}
