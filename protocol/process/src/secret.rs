//! A secret that no log and no error message shows.

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq;

/// A secret text. It cannot be printed by accident, and is compared in constant time.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Whether what was offered is this secret. The time that it takes tells at most the length.
    pub fn matches(&self, offered: &str) -> bool {
        self.0.as_bytes().ct_eq(offered.as_bytes()).into()
    }

    /// The secret itself, for handing it on.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = &'static str;

    /// An empty secret would look like protection and be none: it is refused, where leaving it unset is a
    /// choice.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            Err("it must not be empty; leave it unset instead")
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_itself_and_nothing_else() {
        let secret: Secret = "open sesame".parse().unwrap();
        assert!(secret.matches("open sesame"));
        for other in ["", "open sesam", "open sesame ", "Open sesame", "open sesamf"] {
            assert!(!secret.matches(other), "{other:?}");
        }
        assert_eq!(secret.expose(), "open sesame");
    }

    #[test]
    fn is_never_printed() {
        let secret: Secret = "open sesame".parse().unwrap();
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "*** Some(***)");
    }

    #[test]
    fn is_not_empty() {
        assert!("".parse::<Secret>().is_err());
    }
}
