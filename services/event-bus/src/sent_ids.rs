//! Which message ids were sent from here of late, within a bound of memory.
//!
//! A hint and no truth: forgetting one costs a refused batch, and two ids that look alike cost a
//! message its place in one.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// Ids of one generation; two are kept, which takes a megabyte or so.
const GENERATION: usize = 32 * 1024;

/// The last 32 to 64 thousand ids.
#[derive(Debug, Default)]
pub(crate) struct SentIds {
    hashing: RandomState,
    younger: HashSet<u64>,
    older: HashSet<u64>,
}

impl SentIds {
    /// Remembers `id`; true when it was not known.
    pub(crate) fn insert(&mut self, id: &str) -> bool {
        let hash = self.hashing.hash_one(id);
        if self.younger.len() >= GENERATION {
            self.older = std::mem::take(&mut self.younger);
        }
        let is_new = !self.older.contains(&hash);
        self.younger.insert(hash) && is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ids_are_known_and_those_of_long_ago_are_not() {
        let mut sent = SentIds::default();
        for n in 0..3 * GENERATION {
            assert!(sent.insert(&format!("id_{n}")));
            assert!(!sent.insert(&format!("id_{n}")));
        }
        assert!(!sent.insert(&format!("id_{}", 2 * GENERATION)));
        assert!(sent.insert("id_0"));
        assert!(sent.younger.len() + sent.older.len() <= 2 * GENERATION);
    }
}
