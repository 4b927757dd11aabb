//! Why the service does not run.

use crate::endpoints::EndpointsError;

/// Ends the process.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("bad setting BILLING_ENDPOINTS_FILE")]
    Endpoints(#[from] EndpointsError),
    #[error(transparent)]
    Bus(#[from] event_bus::BusError),
    #[error(transparent)]
    Serve(#[from] service_runtime::http_server::ServeError),
}
