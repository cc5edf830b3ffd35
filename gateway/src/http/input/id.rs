//! Ids as callers write them. They are compared by value: hyphenated, simple and `urn:uuid:` form, in upper
//! or lower case, are one id.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use protocol::UserId;
use uuid::Uuid;

use crate::http::kind::Kind;
use crate::http::problem::Problem;

/// An id from a path or from a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id(pub(crate) UserId);

/// Length of the one form that `uuid` reads and this API does not: in braces.
const BRACED: usize = 38;

impl Id {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() == BRACED {
            return None;
        }
        Uuid::try_parse(text).ok().map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = Path::<String>::from_request_parts(parts, state).await.ok();
        text.and_then(|Path(text)| Self::parse(&text)).ok_or_else(|| {
            let detail = "An id is a UUID such as 0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071.";
            Problem::new(Kind::MalformedId, detail)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_id_is_that_id() {
        let mut number = 1_u128;
        for _ in 0..1_000 {
            number = number.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(1);
            let id = Uuid::from_u128(number);
            let forms = [id.hyphenated().to_string(), id.simple().to_string(), id.urn().to_string()];
            for form in forms.iter().flat_map(|form| [form.clone(), form.to_uppercase()]) {
                assert_eq!(Id::parse(&form), Some(Id(id)), "{form}");
                // No other text of nearly that form is an id.
                for at in 0..form.len() {
                    let shorter = format!("{}{}", &form[..at], &form[at + 1..]);
                    assert_eq!(Id::parse(&shorter), None, "{shorter}");
                    let longer = format!("{}0{}", &form[..at], &form[at..]);
                    assert_eq!(Id::parse(&longer), None, "{longer}");
                }
            }
        }
    }

    #[test]
    fn other_texts_are_no_ids() {
        for bad in [
            "",
            "count",
            "{0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071}",
            "0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f607g",
            "0190a5b27-c3d-7e4f-8a1b-2c3d4e5f6071",
            " 0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071",
            "urn:uuid:0190a5b27c3d7e4f8a1b2c3d4e5f6071",
            "urn:uuie:0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f6071",
            "0190a5b2-7c3d-7e4f-8a1b-2c3d4e5f\u{ff16}1",
        ] {
            assert_eq!(Id::parse(bad), None, "{bad}");
        }
    }
}
