#![doc = include_str!("../README.md")]

pub mod cause;
pub mod config;
pub mod decide;
pub mod error;
pub mod fields;
pub mod requests;
pub mod rows;
pub mod store;
pub mod unit;

pub mod billing_intake;
pub mod by_hand;
pub mod desk;
pub mod erasure;
pub mod explain;
pub mod grpc;
pub mod history;
pub mod invoices;
pub mod lanes;
pub mod linking;
pub mod member_mask;
pub mod outbox;
pub mod paging;
pub mod pauses;
pub mod people;
pub mod readiness;
pub mod reads;
pub mod resume_requests;
pub mod roster;
pub mod rule_changes;
pub mod timers;
pub mod unmatched;
pub mod writes;

mod service;

pub use service::{RunError, Service, run};

/// The service's name: of its process, its consumer and its messages' source.
pub const SERVICE: &str = "membership-events";
