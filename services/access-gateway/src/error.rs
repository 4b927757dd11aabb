//! Why the service does not start, or ends.

use event_bus::BusError;
use service_runtime::grpc::AddressError;
use service_runtime::http_server::ServeError;
use service_runtime::identity::{ServiceTokenError, VerifierError};

use crate::projection::follow::FollowError;

/// Why the service does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Tokens cannot be checked.
    #[error(transparent)]
    Identity(#[from] VerifierError),
    /// There is no token to present to the other services.
    #[error(transparent)]
    ServiceToken(#[from] ServiceTokenError),
    /// The address of another service is not one.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A listener does not serve.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The bus is not to be had.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A stream cannot be read.
    #[error(transparent)]
    Follow(#[from] FollowError),
}
