#![doc = include_str!("../README.md")]

pub mod apply;
pub mod brake;
pub mod config;
pub mod desired;
pub mod directory;
pub mod error;
pub mod held;
pub mod intake;
pub mod integration_state;
mod look;
pub mod outbox;
pub mod ownership;
mod person;
pub mod record;
pub mod sealing;
pub mod shared;
pub mod snapshot;
pub mod steps;
pub mod store;
pub mod worker;
