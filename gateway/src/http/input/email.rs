//! The mailbox grammar of RFC 5321, section 4.1.2.
//!
//! Written out here because it is short, and because the libraries that there are answer another question:
//! they follow RFC 5322 (comments, display names), take `user@ex!ample.org` or `user@[anything]`, and copy
//! the text.
//!
//! What it does not do: internationalised addresses (RFC 6531) are not part of RFC 5321; their domains can be
//! given in the ASCII form.

use std::net::{Ipv4Addr, Ipv6Addr};

const MAX_LOCAL_PART: usize = 64;
const MAX_DOMAIN: usize = 255;
const MAX_LABEL: usize = 63;

/// Whether the text is `Local-part "@" ( Domain / address-literal )`.
pub(crate) fn is_mailbox(text: &str) -> bool {
    // The last @ separates: a quoted local part may contain one, a domain never does.
    let Some((local_part, domain)) = text.rsplit_once('@') else {
        return false;
    };
    let is_literal = || {
        let inner = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        inner.is_some_and(is_address)
    };
    local_part.len() <= MAX_LOCAL_PART
        && (is_dot_string(local_part) || is_quoted(local_part))
        && (is_domain(domain) || is_literal())
}

fn is_dot_string(text: &str) -> bool {
    let is_atom = |atom: &str| !atom.is_empty() && atom.bytes().all(is_atext);
    text.split('.').all(is_atom)
}

fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

fn is_quoted(text: &str) -> bool {
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let Some(inner) = inner else {
        return false;
    };
    let mut bytes = inner.bytes();
    while let Some(byte) = bytes.next() {
        let fits = match byte {
            b'"' => false,
            b'\\' => bytes.next().is_some_and(is_printable),
            other => is_printable(other),
        };
        if !fits {
            return false;
        }
    }
    true
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        (1..=MAX_LABEL).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
            && bytes[0] != b'-'
            && bytes[bytes.len() - 1] != b'-'
    };
    text.len() <= MAX_DOMAIN && text.split('.').all(is_label)
}

/// An address literal without its brackets. No tag but `IPv6` was ever registered.
fn is_address(text: &str) -> bool {
    match text.split_once(':') {
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6") => address.parse::<Ipv6Addr>().is_ok(),
        _ => text.parse::<Ipv4Addr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mailboxes() {
        let local = "l".repeat(64);
        let label = "d".repeat(63);
        for good in [
            "ada@example.org",
            "a@b",
            "a.b+c_d@sub.example.co.uk",
            "!#$%&'*+-/=?^_`{|}~@example.org",
            "1@2.3",
            "a@xn--bcher-kva.example",
            "a@b-c.d--e",
            r#""a b"@example.org"#,
            r#""a@b"@example.org"#,
            r#""a\"b\\c"@example.org"#,
            r#"""@example.org"#,
            "a@[127.0.0.1]",
            "a@[IPv6:::1]",
            "a@[ipv6:2001:db8::7]",
            &format!("{local}@{label}.org"),
        ] {
            assert!(is_mailbox(good), "{good}");
        }
        for bad in [
            "",
            "@",
            "a",
            "a@",
            "@b",
            "a@b@c",
            "a b@example.org",
            ".a@example.org",
            "a.@example.org",
            "a..b@example.org",
            "a@.org",
            "a@example.",
            "a@exa_mple.org",
            "a@ex!ample.org",
            "a@-example.org",
            "a@example-.org",
            " a@example.org",
            "a@example.org ",
            "a@example.org\n",
            "Ada <ada@example.org>",
            "<ada@example.org>",
            "ädä@example.org",
            "a@exämple.org",
            r#""@example.org"#,
            r#""a"b"@example.org"#,
            r#""a\"@example.org"#,
            "\"a\tb\"@example.org",
            r#""a".b@example.org"#,
            "a@[127.0.0.1",
            "a@[127.0.0.256]",
            "a@[IPv6:127.0.0.1]",
            "a@[::1]",
            "a@[anything]",
            "a@[]",
            "a(comment)@example.org",
            &format!("l{local}@example.org"),
            &format!("a@d{label}.org"),
        ] {
            assert!(!is_mailbox(bad), "{bad}");
        }
    }
}
