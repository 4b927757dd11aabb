//! Roster imports: the import itself, the rows staged for it, and what it reads and writes many of.
//!
//! An import in progress belongs to the process that holds its claim, a lease in a column as in the
//! outbox; every step it takes is conditional on that claim. Statements work on a page at a time,
//! because an import has hundreds of thousands of rows.

pub mod imports;
pub mod missing;
pub mod staged;

use sea_orm::Value;

/// Text values, for a list of ids.
fn texts<'a>(ids: impl IntoIterator<Item = &'a str>) -> impl Iterator<Item = Value> {
    ids.into_iter().map(Value::from)
}
