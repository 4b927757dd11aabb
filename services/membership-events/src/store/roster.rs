//! Roster imports: the import itself, the rows staged for it, and what it reads and writes many of.
//!
//! An import in progress belongs to the process that holds its claim, a lease in a column as in the
//! outbox; every step it takes is conditional on that claim. Statements work on a page at a time,
//! because an import has hundreds of thousands of rows.

pub mod bulk;
pub mod imports;
pub mod missing;
pub mod staged;

use sea_orm::Value;

/// `($1, $2), ($3, $4)`: placeholders of `rows` rows of `width` columns.
fn tuples(rows: usize, width: usize) -> String {
    let row = |n: usize| {
        let first = n * width + 1;
        format!("({})", super::placeholders(first, width))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// Text values, for a list of ids.
fn texts<'a>(ids: impl IntoIterator<Item = &'a str>) -> impl Iterator<Item = Value> {
    ids.into_iter().map(Value::from)
}
