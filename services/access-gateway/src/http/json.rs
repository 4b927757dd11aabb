//! The JSON that people's and programs' code reads: snake_case, the words of the product, instants
//! as RFC 3339 strings, absent fields left out, ids of Kisi and versions as numbers.
//!
//! Separate from the messages of the bus, whose canonical proto3 JSON writes 64-bit numbers as
//! strings and leaves out what is false or zero.

pub mod access;
pub mod dead_letters;
pub mod devices;
pub mod history;
pub mod integration;
pub mod rights;
pub mod sync;

use contracts::wire;

/// RFC 3339, in UTC.
pub fn instant(at: Option<pbjson_types::Timestamp>) -> Option<String> {
    at.as_ref().and_then(wire::instant).map(|at| at.to_string())
}

/// Each item in its JSON shape.
fn list<A: Into<B>, B>(items: Vec<A>) -> Vec<B> {
    items.into_iter().map(Into::into).collect()
}
