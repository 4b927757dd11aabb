//! What a gym means by access. Pure: no async, no socket, no database, no clock; `now` is an
//! argument.
//!
//! Read in this order: [`ids`], [`gym`] (rules, and when a day begins), [`membership`] (status at
//! an instant), [`billing`] (facts that join in any order), [`entitlement`] (the decision),
//! [`grant`] (desired and observed), [`plan`](mod@plan) (the difference, as a value), [`safety`]
//! (what may not happen at once).

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
