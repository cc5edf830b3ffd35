//! Cursors: where the next page of a list begins, as a text that means nothing to callers.
//!
//! A cursor is the id of the last user that was listed, so it stays good whatever happens to the ring or to
//! that user: the next page begins with the first user beyond. With it goes a hash of the filter, because the
//! rest of one list is not the rest of another.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::UserId;
use protocol::message::query::Filter;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

/// First byte of every cursor. Cursors live in callers' hands: a new format gets a new number, and an old one
/// stays readable.
const FORMAT: u8 = 1;

/// Format, id, hash.
const LENGTH: usize = 1 + 16 + 8;

/// The cursor of a list with that filter after that user.
pub(crate) fn write(last: UserId, filter: &Filter) -> String {
    let mut bytes = [0; LENGTH];
    bytes[0] = FORMAT;
    bytes[1..17].copy_from_slice(last.as_bytes());
    bytes[17..].copy_from_slice(&check(last, filter));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// After which user a list with that filter goes on; `None` where the text is no cursor of such a list.
pub(crate) fn read(text: &str, filter: &Filter) -> Option<UserId> {
    let bytes: [u8; LENGTH] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    let last = Uuid::from_slice(&bytes[1..17]).ok()?;
    (bytes[0] == FORMAT && bytes[17..] == check(last, filter)).then_some(last)
}

/// Covers the id too, so that a text that was changed or cut on its way is noticed.
fn check(last: UserId, filter: &Filter) -> [u8; 8] {
    let mut bytes = last.as_bytes().to_vec();
    let (email, group) = email_and_group(filter);
    bytes.push(u8::from(group.is_some()));
    bytes.extend(group.unwrap_or_default().to_be_bytes());
    bytes.extend(email.unwrap_or_default().as_bytes());
    xxh3_64(&bytes).to_be_bytes()
}

pub(crate) fn email_and_group(filter: &Filter) -> (Option<&str>, Option<i32>) {
    match filter {
        Filter::All => (None, None),
        Filter::Group(group) => (None, Some(*group)),
        Filter::Email(email) => (Some(email), None),
        Filter::Both(email, group) => (Some(email), Some(*group)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST: UserId = Uuid::from_u128(0x0190_a5b2_7c3d_7e4f_8a1b_2c3d_4e5f_6071);

    fn filters() -> Vec<Filter> {
        let mut filters = vec![Filter::All];
        for group in [0, 1, -1] {
            filters.push(Filter::Group(group));
            filters.push(Filter::Both("a@b".to_owned(), group));
        }
        filters.extend(["a@b", "b@b"].map(|email| Filter::Email(email.to_owned())));
        filters
    }

    #[test]
    fn a_cursor_is_good_for_its_own_filter_only() {
        for mine in filters() {
            let cursor = write(LAST, &mine);
            for other in filters() {
                assert_eq!(read(&cursor, &other), (mine == other).then_some(LAST), "{mine:?} {other:?}");
            }
        }
    }

    #[test]
    fn other_texts_are_no_cursors() {
        let cursor = write(LAST, &Filter::All);
        for at in 0..cursor.len() {
            let mut changed = cursor.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert_eq!(read(&changed, &Filter::All), None, "{changed}");
            assert_eq!(read(&cursor[..at], &Filter::All), None);
        }
        for bad in [format!("{cursor}="), format!("{cursor}A"), cursor.replace('A', "%"), String::new()] {
            assert_eq!(read(&bad, &Filter::All), None, "{bad}");
        }
    }

    /// Callers keep cursors: what was given out stays good.
    #[test]
    fn the_format_is_pinned() {
        let pinned = "AQGQpbJ8PX5PihssPU5fYHEf8kdqfmb5zw";
        assert_eq!(write(LAST, &Filter::Both("ada@example.org".to_owned(), 7)), pinned);
    }
}
