#![doc = include_str!("../README.md")]

mod access_wire;
pub mod config;
pub mod decide;
pub mod error;
pub mod facts;
pub mod gateway;
pub mod grpc;
pub mod http;
pub mod permissions;
pub mod permit;
pub mod projection;
pub mod refusal;
pub mod upstream;
pub mod words;

use std::sync::Arc;

use service_runtime::clock::SystemClock;
use service_runtime::grpc::GrpcServer;
use service_runtime::health::Health;
use service_runtime::identity::{ServiceToken, Verifier, grpc::AuthLayer};
use service_runtime::{http_server, tls};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::Config;
use crate::error::GatewayError;
use crate::gateway::Gateway;
use crate::projection::{Projection, follow::follow};
use crate::upstream::Upstream;

/// Serves until `shutdown`, then lets open requests finish.
///
/// Listeners open before the bus is there: until the projection has caught up, answers are
/// UNAVAILABLE rather than guesses, and set-up calls go through.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), GatewayError> {
    tls::install_crypto_provider();
    let health = Health::new();
    let caught_up = health.condition("projection");
    let token = ServiceToken::from_file(&config.service_token_file)?;
    let clock = Arc::new(SystemClock);
    let verifier = Verifier::start(&config.identity, clock.clone(), shutdown.clone()).await?;
    let upstream = Upstream::new(&config.kisi_sync_url, &config.membership_events_url, &token)?;
    let http_listener = http_server::bind("HTTP_ADDR", config.http_addr).await?;
    let grpc_server = GrpcServer::bind(config.grpc_addr).await?;
    let health_addr = health.serve(config.health_addr, shutdown.clone()).await?;
    let projection = Projection::new();
    let gateway = Arc::new(Gateway::new(projection.clone(), upstream, clock));
    info!(
        http = %http_server::local_addr(&http_listener)?,
        grpc = %grpc_server.local_addr()?,
        health = %health_addr,
        "access-gateway listens"
    );

    let http = http_server::serve(
        http_listener,
        http::router(Arc::clone(&gateway), verifier.clone()),
        shutdown.clone(),
    );
    let grpc = grpc_server.serve(
        grpc::routes(Arc::clone(&gateway), &shutdown),
        AuthLayer::any_role(verifier),
        &[contracts::DESCRIPTORS],
        &grpc::SERVICES,
        &health,
        shutdown.clone(),
    );
    let reading = async {
        let bus = match event_bus::Bus::start(&config.nats, "access-gateway", &shutdown).await {
            Err(event_bus::BusError::Stopped) => return Ok(()),
            started => started?,
        };
        gateway.offer_dead_letters(bus.dead_letters());
        follow(&bus, &projection, &caught_up, shutdown.clone())
            .await
            .map_err(GatewayError::from)
    };
    // One part that fails takes the others with it.
    tokio::try_join!(
        async { http.await.map_err(GatewayError::from) },
        async { grpc.await.map_err(GatewayError::from) },
        reading,
    )
    .map(drop)
}
