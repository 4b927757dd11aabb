//! Rules as rows of cases, and properties over many made-up histories.

mod build;
mod debts;
mod entitlements;
mod plans;
mod properties;
