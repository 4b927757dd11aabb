//! A whole list, read page by page, and how far it can be believed.
//!
//! None of Kisi's sort orders is unique, so rows can move between pages while they are read. A
//! pass is whole only if its distinct ids equal the total and the total stood still meanwhile.
//! What to do with a listing that is not whole is the caller's decision: it must never yield a
//! removal.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::model::Identified;

/// The rows of every page, each id once.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing<T> {
    /// Distinct rows in the order Kisi gave them; of a repeated id the last reading is kept.
    pub items: Vec<T>,
    /// The total that the last page's `X-Collection-Range` named.
    pub total: u64,
    /// Distinct ids equal `total`, no id came twice, and `total` never changed.
    pub complete: bool,
    /// How many rows repeated an id of an earlier page.
    pub duplicates: u64,
    /// By how much the total differed from one page to the next, all in all.
    pub total_moved: u64,
}

/// Puts pages together.
#[derive(Debug)]
pub(crate) struct Collector<T> {
    items: Vec<T>,
    places: HashMap<i64, usize>,
    total: Option<u64>,
    /// Some page named no total, so nothing can be said for sure.
    unsure: bool,
    duplicates: u64,
    total_moved: u64,
}

impl<T: Identified> Collector<T> {
    pub(crate) fn new() -> Self {
        Self {
            items: Vec::new(),
            places: HashMap::new(),
            total: None,
            unsure: false,
            duplicates: 0,
            total_moved: 0,
        }
    }

    /// A page and the total that came with it.
    pub(crate) fn add(&mut self, page: Vec<T>, total: Option<u64>) {
        match total {
            Some(total) => {
                let before = self.total.replace(total);
                self.total_moved += before.map_or(0, |before| before.abs_diff(total));
            }
            None => self.unsure = true,
        }
        for item in page {
            match self.places.entry(item.id()) {
                Entry::Occupied(place) => {
                    self.duplicates += 1;
                    self.items[*place.get()] = item;
                }
                Entry::Vacant(place) => {
                    place.insert(self.items.len());
                    self.items.push(item);
                }
            }
        }
    }

    pub(crate) fn finish(self) -> Listing<T> {
        let distinct = self.items.len() as u64;
        let total = self.total.unwrap_or(distinct);
        Listing {
            complete: !self.unsure
                && self.total_moved == 0
                && self.duplicates == 0
                && distinct == total,
            items: self.items,
            total,
            duplicates: self.duplicates,
            total_moved: self.total_moved,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Identified for i64 {
        fn id(&self) -> i64 {
            *self
        }
    }

    fn listing(pages: &[(&[i64], Option<u64>)]) -> Listing<i64> {
        let mut rows = Collector::new();
        for (page, total) in pages {
            rows.add(page.to_vec(), *total);
        }
        rows.finish()
    }

    #[test]
    fn a_listing_is_complete_only_if_distinct_ids_equal_a_total_that_stood_still() {
        assert!(listing(&[(&[], Some(0))]).complete);
        assert!(listing(&[(&[1, 2], Some(3)), (&[3], Some(3))]).complete);

        let short = listing(&[(&[1, 2], Some(3)), (&[], Some(3))]);
        assert!(!short.complete && short.duplicates == 0);
        let moved = listing(&[(&[1, 2], Some(3)), (&[2], Some(3))]);
        assert!(!moved.complete && moved.duplicates == 1 && moved.items == [1, 2]);
        let grown = listing(&[(&[1, 2], Some(3)), (&[3, 4], Some(4))]);
        assert!(!grown.complete && grown.total_moved == 1 && grown.total == 4);
        // Even if a row that came twice makes the numbers meet again.
        let repeated = listing(&[(&[1, 2], Some(3)), (&[2, 3], Some(3))]);
        assert!(!repeated.complete && repeated.items == [1, 2, 3]);
        assert!(!listing(&[(&[1], None)]).complete);
    }
}
