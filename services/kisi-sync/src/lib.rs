#![doc = include_str!("../README.md")]

pub mod config;
pub mod error;

pub mod desired;
pub mod intake;

pub mod apply;
pub mod audit;
pub mod brake;
pub mod record;
pub mod sharing;
pub mod snapshot;
pub mod steps;
pub mod worker;

mod doors;
pub mod held;
pub mod observe;
mod rebuild;
pub mod reconcile;
pub mod rights;
pub mod schedule;

mod devices;
mod event_webhook;
pub mod grpc;
mod key_check;
mod kisi_events;
mod refusal;
pub mod setup;
mod timeline;
mod undone;
mod unlock;
mod unlock_words;

pub mod directory;
mod hints;
pub mod integration_state;
mod measures;
pub mod outbox;
pub mod ownership;
mod reseal;
pub mod sealing;
pub mod shared;
pub mod store;

use std::sync::Arc;
use std::time::Duration;

use contracts::kisi::v1::kisi_sync_service_server::KisiSyncServiceServer;
use event_bus::Bus;
use kisi_client::{ConnectionSettings, KisiConnection};
use service_runtime::clock::{Clock, SystemClock};
use service_runtime::grpc::{GrpcServer, service_channel};
use service_runtime::health::Health;
use service_runtime::identity::grpc::AuthLayer;
use service_runtime::identity::{ServiceToken, Verifier};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::config::Config;
use crate::directory::Directory;
use crate::error::RunError;
use crate::ownership::Leases;
use crate::schedule::Passes;
use crate::sealing::Sealer;
use crate::shared::{Pacers, Shared};
use crate::worker::Workers;

/// Time limit of a call to membership-events.
const DIRECTORY_WITHIN: Duration = Duration::from_secs(5);

/// Runs the service until `shutdown`, then lets running requests end and gives its gyms back.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    run_at(config, Arc::new(SystemClock), shutdown).await
}

/// The same by this clock. Callers' tokens are checked by the machine's.
pub async fn run_at(
    config: Config,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let sealer = Sealer::parse(&config.sealing_keys)?;
    if config.kisi.kisi_request_timeout >= config.lease.lease_ttl {
        return Err(RunError::TimeoutPastLease);
    }
    let base_url = config.kisi.kisi_base_url.parse();
    let connection = KisiConnection::new(ConnectionSettings {
        request_timeout: config.kisi.kisi_request_timeout,
        ..ConnectionSettings::new(
            base_url.map_err(RunError::KisiAddress)?,
            &config.kisi.kisi_integration_name,
            &config.kisi.kisi_integration_contact,
        )
    })?;
    let health = Health::new();
    let (bus_ready, store_ready) = (health.condition("bus"), health.condition("database"));
    health.serve(config.health_addr, shutdown.clone()).await?;
    kisi_client::measures::describe();
    measures::register();
    let server = GrpcServer::bind(config.grpc_addr).await?;
    let address = match &config.advertise_addr {
        Some(address) => address.clone(),
        None => format!("http://{}", server.local_addr()?),
    };
    let token = ServiceToken::from_file(&config.service_token_file)?;
    let verifier =
        Verifier::start(&config.identity, Arc::new(SystemClock), shutdown.clone()).await?;
    let membership_events = service_channel(
        "MEMBERSHIP_EVENTS_URL",
        &config.membership_events_url,
        DIRECTORY_WITHIN,
        token.clone(),
    )?;
    let db = store::open(&config.database_url).await?;
    store_ready.set_ready();
    let bus = Bus::start(&config.bus, "kisi-sync", &shutdown).await?;
    bus_ready.set_ready();

    let replica = uuid::Uuid::now_v7().simple().to_string();
    let shared = Arc::new(Shared {
        leases: Leases::new(db.clone(), replica, address, config.lease.lease_ttl),
        db,
        bus: bus.clone(),
        clock,
        sealer,
        kisi: connection,
        pacers: Pacers::new(config.kisi.kisi_requests_per_second),
        directory: Directory::new(membership_events),
        workers: Workers::default(),
        passes: Passes::new(),
        readings: Passes::new(),
        asked_for: reconcile::AskedFor::default(),
        outbox: tokio::sync::Notify::new(),
        limits: brake::limits(&config.brake),
        reconcile_every: config.reconcile_every,
        events_url: config.kisi.kisi_events_url,
        request_timeout: config.kisi.kisi_request_timeout,
        outage_shows_after: config.kisi.kisi_outage_shows_after,
    });
    rebuild::catch_up(&shared, &shutdown).await?;
    // Leases before messages: what arrives then finds its worker.
    worker::keep_in_step(&shared).await?;

    let relayed = CancellationToken::new();
    let relay = outbox::relay(Arc::clone(&shared), bus.publisher(), relayed.clone());
    let relay = tokio::spawn(relay);
    let supervisor = worker::supervise(
        Arc::clone(&shared),
        config.lease.lease_renew_every,
        shutdown.clone(),
    );
    let supervisor = tokio::spawn(supervisor);
    tokio::spawn(schedule::keep(Arc::clone(&shared), shutdown.clone()));
    tokio::spawn(reseal::keep(Arc::clone(&shared), shutdown.clone()));
    tokio::spawn(hints::listen(
        Arc::clone(&shared),
        config.database_url.clone(),
        shutdown.clone(),
    ));
    let receiver = Arc::clone(&shared);
    let consumer = intake::consumer(&bus).run(
        move |message, delivery| intake::receive(Arc::clone(&receiver), message, delivery),
        shutdown.clone(),
    );
    let service = grpc::KisiSync::new(Arc::clone(&shared), token);
    let routes = Routes::new(KisiSyncServiceServer::new(service));
    let serve = server.serve(
        routes,
        AuthLayer::services_only(verifier),
        &[contracts::DESCRIPTORS],
        &[contracts::kisi::v1::kisi_sync_service_server::SERVICE_NAME],
        &health,
        shutdown.clone(),
    );
    let consumer = async { consumer.await.map_err(|e| RunError::Consumer(Box::new(e))) };
    let serve = async { serve.await.map_err(RunError::from) };
    let ended = tokio::try_join!(consumer, serve);
    shutdown.cancel();
    let _ = supervisor.await;
    relayed.cancel();
    let _ = relay.await;
    bus.flush().await;
    ended.map(drop)
}
