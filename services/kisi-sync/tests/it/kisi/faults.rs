//! Kisi in trouble: requests that fail, are lost, or are held back.

use kisi_simulator::faults::{Fault as SimulatorFault, FaultKind};

use super::Kisi;
use crate::harness::SOON;

/// What a request meets.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    Status(u16),
    Hang,
    ResetAfterApplying,
    /// Applied, and then no answer until the client gives up.
    HangAfterApplying,
    /// On its way until the faults are cleared.
    Wait,
    /// Its answer is on its way until the faults are cleared.
    WaitAfterApplying,
}

impl Kisi {
    /// The next `count` such requests fail.
    pub async fn fail(&self, method: &str, route: &str, count: u64, fault: Fault) {
        self.fail_after(0, method, route, count, fault).await;
    }

    /// The same, once `skip` of them went well.
    pub async fn fail_after(&self, skip: u64, method: &str, route: &str, count: u64, fault: Fault) {
        let kind = match fault {
            Fault::Status(403) => FaultKind::Forbidden,
            Fault::Status(404) => FaultKind::NotFound,
            Fault::Status(409) => FaultKind::Conflict,
            Fault::Status(429) => FaultKind::TooMany,
            Fault::Status(_) => FaultKind::Internal,
            Fault::Hang => FaultKind::Hang,
            Fault::ResetAfterApplying => FaultKind::ResetAfterApplying,
            Fault::HangAfterApplying => FaultKind::HangAfterApplying,
            Fault::Wait => FaultKind::Wait,
            Fault::WaitAfterApplying => FaultKind::WaitAfterApplying,
        };
        self.simulator.shared().lock().faults.add(SimulatorFault {
            method: Some(method.to_owned()),
            route: Some(route.to_owned()),
            kind,
            count: Some(count),
            skip,
        });
    }

    /// After so many listings of rights every other waits, until they are let go.
    pub fn hold_listings_back(&self, skip: u64) {
        self.simulator.shared().lock().faults.add(SimulatorFault {
            method: Some("GET".to_owned()),
            route: Some("/role_assignments".to_owned()),
            kind: FaultKind::Wait,
            count: None,
            skip,
        });
    }

    /// Waits until one more is held back than were before.
    pub async fn one_is_held_back(&self, before: u64) {
        testkit::eventually("a request is held back", SOON, async || {
            self.held_back() > before
        })
        .await;
    }

    /// Requests that were made to wait so far.
    pub fn held_back(&self) -> u64 {
        self.simulator.shared().lock().faults.held_back()
    }

    pub fn clear_faults(&self) {
        self.simulator.shared().lock().faults.clear();
    }
}
