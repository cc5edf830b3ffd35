//! The user as a caller of the API sees it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Identity of a user. Its sixteen bytes decide the partition (see [`crate::placement`]) and the order of
/// lists.
pub type UserId = Uuid;

/// One user, exactly as the API answers it: these four fields in this order and nothing else.
///
/// The fields are valid by construction at the gateway (lengths, characters, normal form); no other process
/// checks them again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Hyphenated lower case when written as JSON.
    pub id: UserId,
    /// 1 to 256 characters in Unicode normal form C, without control characters.
    pub name: String,
    /// At most 254 bytes, as RFC 5321 allows.
    pub email: String,
    /// Any 32-bit number; 0 where the caller gave none.
    pub group: i32,
}

/// An address as it is compared when users are looked for: two that differ only in upper and lower case are
/// the same. It is Unicode's lower case, character by character, of a text in normal form C.
pub fn fold_email(email: &str) -> String {
    email.to_lowercase()
}
