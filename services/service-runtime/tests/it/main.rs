//! What every `main` relies on, over real sockets and processes' own edges.

mod grpc;
mod health;
mod http_server;
mod identity;
mod lifecycle;
mod settings;

use std::sync::Arc;

use service_runtime::clock::SystemClock;
use service_runtime::identity::{IdentitySettings, Verifier};
use testkit::TokenIssuer;
use tokio_util::sync::CancellationToken;

pub fn identity_settings(issuer: &TokenIssuer) -> IdentitySettings {
    IdentitySettings {
        jwt_jwks: issuer.jwks_path().display().to_string(),
        jwt_issuer: issuer.issuer().to_owned(),
        jwt_audience: issuer.audience().to_owned(),
    }
}

pub async fn verifier(issuer: &TokenIssuer) -> Verifier {
    Verifier::start(
        &identity_settings(issuer),
        Arc::new(SystemClock),
        CancellationToken::new(),
    )
    .await
    .unwrap()
}
