//! A secret that no log and no error message shows, and which peers it lets connect.

use std::fmt;
use std::net::IpAddr;
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

    /// A blank secret would look like protection and be none: it is refused, where leaving it unset is a
    /// choice.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            Err("it must not be blank; leave it unset instead")
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

/// Whether a peer may connect: with a secret, one that knows it; without one, one on this machine.
///
/// # Errors
/// What the peer is answered.
pub fn may_connect(
    secret: Option<&Secret>,
    peer: Option<IpAddr>,
    offered: Option<&str>,
) -> Result<(), &'static str> {
    match (secret, offered) {
        (Some(secret), Some(offered)) if secret.matches(offered) => Ok(()),
        (Some(_), Some(_)) => Err("its CLUSTER_SECRET is another one"),
        (Some(_), None) => Err("it has no CLUSTER_SECRET, and one is required"),
        (None, _) if peer.is_some_and(|peer| peer.to_canonical().is_loopback()) => Ok(()),
        (None, _) => Err("without a CLUSTER_SECRET only processes of this machine may connect"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_a_secret_only_peers_that_know_it_may_connect_and_without_one_only_this_machine() {
        let secret: Secret = "sesame".parse().unwrap();
        let at = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        assert!(may_connect(Some(&secret), at("10.0.0.1"), Some("sesame")).is_ok());
        assert!(may_connect(Some(&secret), at("127.0.0.1"), Some("barley")).is_err());
        assert!(may_connect(Some(&secret), at("127.0.0.1"), None).is_err());
        for here in ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"] {
            assert!(may_connect(None, at(here), None).is_ok(), "{here}");
            assert!(may_connect(None, at(here), Some("sesame")).is_ok(), "{here}");
        }
        for elsewhere in ["10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1"] {
            assert!(may_connect(None, at(elsewhere), Some("sesame")).is_err(), "{elsewhere}");
        }
        assert!(may_connect(None, None, None).is_err());
    }

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
    fn is_not_blank() {
        for blank in ["", " ", "\r\n", "\u{3000}"] {
            assert!(blank.parse::<Secret>().is_err(), "{blank:?}");
        }
    }
}
