//! The gRPC side: each call asks who is calling and hands over to [`crate::gateway`].

mod access;
mod integration;

use std::sync::Arc;

use contracts::access::v1::access_service_server::{self, AccessServiceServer};
use contracts::integration::v1::integration_service_server::{self, IntegrationServiceServer};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::gateway::Gateway;
use access::Access;
use integration::Integration;

/// Their full names.
pub const SERVICES: [&str; 2] = [
    access_service_server::SERVICE_NAME,
    integration_service_server::SERVICE_NAME,
];

/// Both services. Streams end at `shutdown`.
pub fn routes(gateway: Arc<Gateway>, shutdown: &CancellationToken) -> Routes {
    let access = Access {
        gateway: Arc::clone(&gateway),
        shutdown: shutdown.clone(),
    };
    let integration = Integration {
        gateway,
        shutdown: shutdown.clone(),
    };
    Routes::new(AccessServiceServer::new(access))
        .add_service(IntegrationServiceServer::new(integration))
}
