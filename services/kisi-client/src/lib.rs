#![doc = include_str!("../README.md")]

pub mod error;
pub mod http;
pub mod listing;
pub mod measures;
pub mod model;
pub mod pacing;
pub mod read;
pub mod read_only;
pub mod write;

pub use error::KisiError;
pub use http::{ConnectionSettings, HttpKisi, KisiConnection};
pub use listing::Listing;
pub use pacing::{Lane, Pacer, PacerSettings, Slot, Turn};
pub use read::KisiRead;
pub use read_only::ReadOnly;
pub use write::{Deletion, KisiWrite};

/// Both ports at once, for callers that look and act.
pub trait Kisi: KisiRead + KisiWrite {}

impl<T: KisiRead + KisiWrite + ?Sized> Kisi for T {}
