//! The calls themselves, once for gRPC and HTTP: who may, what is asked, who answers.
//!
//! Checks of access are answered from the projection; set-up goes through to kisi-sync; people's
//! names and links to pay by come from membership-events when they are shown.

mod checks;
mod dead_letters;
mod devices;
mod explain;
mod integration;
mod listing;
mod members;
mod resume;

use std::sync::{Arc, OnceLock};

pub use integration::PolicyChange;
pub use resume::Resumed;

use event_bus::dead_letter::DeadLetters;
use service_runtime::clock::Clock;

use crate::permissions::PermissionReports;
use crate::projection::Projection;
use crate::refusal::Refusal;
use crate::upstream::Upstream;

/// Everything a call needs.
#[derive(Debug)]
pub struct Gateway {
    projection: Projection,
    upstream: Upstream,
    permissions: PermissionReports,
    /// Empty until the bus is there.
    dead_letters: OnceLock<DeadLetters>,
    clock: Arc<dyn Clock>,
}

impl Gateway {
    /// From its parts.
    pub fn new(projection: Projection, upstream: Upstream, clock: Arc<dyn Clock>) -> Self {
        Self {
            projection,
            upstream,
            permissions: PermissionReports::default(),
            dead_letters: OnceLock::new(),
            clock,
        }
    }

    /// The read model, for whoever watches it.
    pub fn projection(&self) -> &Projection {
        &self.projection
    }

    /// The present instant.
    pub fn now(&self) -> jiff::Timestamp {
        self.clock.now()
    }

    fn caught_up(&self) -> Result<(), Refusal> {
        if self.projection.is_caught_up() {
            Ok(())
        } else {
            Err(Refusal::NotCaughtUp)
        }
    }
}

fn unknown_member() -> Refusal {
    Refusal::NotFound("this member is not known here".to_owned())
}
