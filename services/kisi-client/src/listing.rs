//! A whole list, read page by page, and how far it can be believed.
//!
//! None of Kisi's sort orders is unique, so rows can move between pages while they are read. A
//! pass is whole only if its distinct ids equal the total and the total stood still meanwhile.
//! What to do with a listing that is not whole is the caller's decision: it must never yield a
//! removal.

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
    /// The total differed between pages.
    pub total_changed: bool,
}
