//! membership-events
