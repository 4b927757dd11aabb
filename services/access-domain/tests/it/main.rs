//! Rules as rows of cases, and properties over many made-up histories.

mod build;
mod debts;
mod desk;
mod dunning;
mod entitlements;
mod model;
mod plans;
mod properties;
