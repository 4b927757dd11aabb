#![doc = include_str!("../README.md")]

pub mod billing;
pub mod entitlement;
pub mod grant;
pub mod gym;
pub mod ids;
pub mod membership;
pub mod plan;
pub mod safety;
mod words;

pub use words::UnknownWord;
