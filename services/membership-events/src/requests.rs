//! The writes of `MembershipService` as values: parsed once, every fault named at once.
//!
//! What needs the tables to be known (does the gym exist, is a holder known) is asked in
//! [`crate::writes`].

mod membership;
mod people;
pub mod roster;
mod staff;

pub use membership::{
    CancelMembership, Cancelling, PauseMembership, PutMembership, Reference, ResumeMembership,
};
pub use people::{PutGym, PutMember, RequestResume};
pub use staff::{
    CLOCK_SKEW, ClearOverride, ForgiveInvoice, LinkBilling, OVERRIDE_AT_MOST, PutOverride,
    RecordPayment,
};
