//! Ids for rows that have none.
//!
//! The id follows from the name of the import, the content of the row, and how many rows of the same content
//! came before it. So the same file gives the same ids, also after rows were added to it, left out or moved,
//! and two equal rows are two users. A row that is edited is another user. It costs a few bytes of memory for
//! each such row.

use std::collections::HashMap;

use uuid::{Builder, Uuid};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Gives ids.
pub(super) struct Identity {
    name: String,
    /// How often each content came, by its hash.
    seen: HashMap<u64, u32>,
}

impl Identity {
    /// For the import of that name.
    pub(super) fn new(name: String) -> Self {
        Self { name, seen: HashMap::new() }
    }

    /// The id of the next row with that content (UUIDv8, RFC 9562).
    pub(super) fn next(&mut self, content: &[u8]) -> Uuid {
        let count = self.seen.entry(xxh3_64(content)).or_default();
        *count += 1;
        let mut hash = Xxh3::new();
        hash.update(&(self.name.len() as u64).to_le_bytes());
        hash.update(self.name.as_bytes());
        hash.update(&count.to_le_bytes());
        hash.update(content);
        Builder::from_custom_bytes(hash.digest128().to_be_bytes()).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_rows_get_the_same_ids_in_any_order() {
        let ids = |name: &str, rows: &[&str]| {
            let mut identity = Identity::new(name.to_owned());
            let mut ids: Vec<Uuid> = rows.iter().map(|row| identity.next(row.as_bytes())).collect();
            ids.sort_unstable();
            ids
        };
        let once = ids("", &["a", "b", "a"]);
        assert_eq!(once, ids("", &["b", "a", "a"]));
        assert!(once[0] != once[1] && once[1] != once[2], "equal rows are two users");
        assert_ne!(once, ids("other", &["a", "b", "a"]));
        // Pinned: another hash would create every user of a repeated import again.
        assert_eq!(ids("", &["a"])[0].to_string(), "010d3cba-321a-8937-8ce7-38dd56eefc69");
    }
}
