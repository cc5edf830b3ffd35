//! What a name, an email and a group may be. Plain functions: a validation framework would have to be taught
//! both the normal form and the JSON Pointers, and would leave less here than it adds.

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::email::is_mailbox;

/// In characters (Unicode scalar values), counted in normal form.
const MAX_NAME: usize = 256;

/// In bytes: RFC 5321 gives a path 256, two of which are its angle brackets.
const MAX_EMAIL: usize = 254;

/// A whole number of 32 bits, out of a number of JSON. As JSON Schema has it, `1.0` and `1e2` are whole.
pub(crate) fn whole(text: &str) -> Option<i32> {
    text.parse().ok().or_else(|| {
        let number: f64 = text.parse().ok()?;
        // What is no such number becomes another one.
        let whole = number as i32;
        (f64::from(whole) == number).then_some(whole)
    })
}

/// The name in Unicode normal form C, so that one name has one spelling.
pub(crate) fn name(text: String) -> Result<String, &'static str> {
    let name = if text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        text
    } else {
        text.nfc().collect()
    };
    if name.is_empty() {
        Err("must not be empty")
    } else if name.len() > MAX_NAME && name.chars().count() > MAX_NAME {
        Err("must have at most 256 characters")
    } else if name.chars().any(char::is_control) {
        Err("must not contain control characters")
    } else {
        Ok(name)
    }
}

/// The email, as it was given: only its owner's mail server knows which spellings of the local part are the
/// same.
pub(crate) fn email(text: String) -> Result<String, &'static str> {
    if text.len() > MAX_EMAIL {
        Err("must have at most 254 bytes")
    } else if is_mailbox(&text) {
        Ok(text)
    } else {
        Err("must be an email address such as ada@example.org")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers() {
        for (text, number) in [
            ("0", 0),
            ("-0", 0),
            ("-0.0", 0),
            ("1.0", 1),
            ("1e2", 100),
            ("1.5E1", 15),
            ("2147483647.0", i32::MAX),
            ("-2.147483648e9", i32::MIN),
        ] {
            assert_eq!(whole(text), Some(number), "{text}");
        }
        for bad in [
            "1.5",
            "1e-1",
            "2147483648",
            "-2147483649.0",
            "1e999",
            "1e10",
            "\"1\"",
            "true",
            "null",
            "[1]",
            "",
        ] {
            assert_eq!(whole(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_are_counted_in_characters_of_normal_form() {
        for good in ["a", " ", "Ada Lovelace", "Ǆ", "李", "👩‍👩‍👧", "\u{2028}"] {
            assert_eq!(name(good.to_owned()), Ok(good.to_owned()));
        }
        assert_eq!(name("e\u{301}".to_owned()), Ok("\u{e9}".to_owned()), "composed");
        assert_eq!(
            name("\u{212b}".to_owned()),
            Ok("\u{c5}".to_owned()),
            "canonical, though it is one character already"
        );
        for unit in ["a", "é", "👩"] {
            assert!(name(unit.repeat(256)).is_ok());
            assert!(name(unit.repeat(257)).is_err());
        }
        assert!(name("e\u{301}".repeat(256)).is_ok(), "512 characters that are 256 in normal form");
        assert!(name("\u{958}".repeat(129)).is_err(), "129 characters that are 258 in normal form");
        for bad in ["", "a\0", "\u{1e}", "a\nb", "\u{7f}", "\u{85}"] {
            assert!(name(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_email_has_at_most_254_bytes() {
        let of_length = |length: usize| {
            let label = "d".repeat(60);
            let domain = format!("{label}.{label}.{label}");
            format!("{}@{domain}.{}", "l".repeat(60), "e".repeat(length - 60 - 1 - 182 - 1))
        };
        assert_eq!(of_length(254).len(), 254);
        assert_eq!(email(of_length(254)), Ok(of_length(254)));
        assert!(email(of_length(255)).is_err());
    }
}
