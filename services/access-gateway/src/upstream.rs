//! The two services behind this one. Both channels connect when first used, so that the gateway
//! starts, and answers from memory, while they are down.

use std::time::Duration;

use contracts::kisi::v1::kisi_sync_service_client::KisiSyncServiceClient;
use contracts::membership::v1::membership_service_client::MembershipServiceClient;
use service_runtime::grpc::{AddressError, ServiceChannel, on_behalf_of, service_channel};
use service_runtime::identity::{Caller, ServiceToken};
use tonic::Request;

use crate::refusal::Refusal;

/// Setting up asks Kisi, page by page and at its pace.
const KISI_SYNC_LIMIT: Duration = Duration::from_secs(120);
/// membership-events answers from its database.
const MEMBERSHIP_LIMIT: Duration = Duration::from_secs(10);
/// Names in an error.
pub const KISI_SYNC: &str = "kisi-sync";
/// Names in an error.
pub const MEMBERSHIP_EVENTS: &str = "membership-events";

/// Clients of both services. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Upstream {
    kisi: KisiSyncServiceClient<ServiceChannel>,
    membership: MembershipServiceClient<ServiceChannel>,
}

impl Upstream {
    /// Lazy channels to both, presenting `token`.
    pub fn new(
        kisi_sync_url: &str,
        membership_events_url: &str,
        token: &ServiceToken,
    ) -> Result<Self, AddressError> {
        let kisi = service_channel(
            "KISI_SYNC_URL",
            kisi_sync_url,
            KISI_SYNC_LIMIT,
            token.clone(),
        )?;
        let membership = service_channel(
            "MEMBERSHIP_EVENTS_URL",
            membership_events_url,
            MEMBERSHIP_LIMIT,
            token.clone(),
        )?;
        Ok(Self {
            kisi: KisiSyncServiceClient::new(kisi),
            membership: MembershipServiceClient::new(membership),
        })
    }

    /// kisi-sync.
    pub fn kisi(&self) -> KisiSyncServiceClient<ServiceChannel> {
        self.kisi.clone()
    }

    /// membership-events.
    pub fn membership(&self) -> MembershipServiceClient<ServiceChannel> {
        self.membership.clone()
    }
}

/// `message` on behalf of `caller`, given up after `limit`.
pub fn within<T>(limit: Duration, caller: &Caller, message: T) -> Request<T> {
    let mut request = on_behalf_of(caller, message);
    request.set_timeout(limit);
    request
}

/// kisi-sync's refusal.
pub fn kisi_refused(status: tonic::Status) -> Refusal {
    refused(KISI_SYNC, status)
}

/// membership-events' refusal.
pub fn membership_refused(status: tonic::Status) -> Refusal {
    refused(MEMBERSHIP_EVENTS, status)
}

fn refused(service: &'static str, status: tonic::Status) -> Refusal {
    use tonic::Code;
    match status.code() {
        // The caller's own doing: nothing for us to look at.
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::ResourceExhausted
        | Code::Unimplemented => {}
        code => tracing::warn!(
            upstream = service,
            grpc.code = ?code,
            "A call to {service} failed: {}",
            service_runtime::lifecycle::chain(&status)
        ),
    }
    Refusal::Upstream { service, status }
}
