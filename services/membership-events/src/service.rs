//! The service as a whole: its parts built top to bottom, then run until told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use contracts::DESCRIPTORS;
use contracts::membership::v1::membership_service_server::{self, MembershipServiceServer};
use event_bus::{Bus, BusError, OpenError};
use service_runtime::clock::{Clock, SystemClock};
use service_runtime::grpc::GrpcServer;
use service_runtime::health::{Condition, Health};
use service_runtime::http_server::ServeError;
use service_runtime::identity::grpc::AuthLayer;
use service_runtime::identity::{Verifier, VerifierError};
use service_runtime::metrics;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::config::Config;
use crate::grpc::Grpc;
use crate::outbox::{self, Outcomes, Relay};
use crate::roster::{self, Importer, RosterSettings};
use crate::store::{Store, StoreError};
use crate::timers::{self, Wake};
use crate::unit::Decisions;
use crate::{
    SERVICE, billing_intake, erasure, history, readiness, resume_requests, rule_changes, unmatched,
};

/// Why the service did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// `DATABASE_URL`.
    #[error("the database of DATABASE_URL cannot be used")]
    Store(#[source] StoreError),
    /// `NATS_URL`.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// `JWT_JWKS`.
    #[error(transparent)]
    Verifier(#[from] VerifierError),
    /// `GRPC_ADDR` or `HEALTH_ADDR`.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The consumer cannot be as it must be.
    #[error("BILLING cannot be consumed")]
    Consumer(#[source] OpenError),
}

/// Runs the service until `shutdown`.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    Service::start(config, Arc::new(SystemClock), shutdown)
        .await?
        .serve()
        .await
}

/// A service that is ready to serve.
pub struct Service {
    bus: Bus,
    store: Store,
    decisions: Decisions,
    roster: RosterSettings,
    relay: Relay,
    outcomes: Outcomes,
    wake: Wake,
    clock: Arc<dyn Clock>,
    verifier: Verifier,
    grpc: GrpcServer,
    grpc_addr: SocketAddr,
    health: Health,
    serving: Condition,
    has_bus: Condition,
    has_database: Condition,
    unmatched_billing_after: Duration,
    shutdown: CancellationToken,
}

impl Service {
    /// Opens everything the service needs. `clock` is what decisions go by.
    pub async fn start(
        config: Config,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> Result<Self, RunError> {
        register_metrics();
        let health = Health::new();
        let serving = health.condition("serving");
        let (has_bus, has_database) = (health.condition("bus"), health.condition("database"));
        health.serve(config.health_addr, shutdown.clone()).await?;
        let grpc = GrpcServer::bind(config.grpc_addr).await?;
        let grpc_addr = grpc.local_addr()?;
        let verifier =
            Verifier::start(&config.identity, Arc::new(SystemClock), shutdown.clone()).await?;
        let store = Store::open(&config.database)
            .await
            .map_err(RunError::Store)?;
        has_database.set_ready();
        let bus = Bus::start(&config.nats, SERVICE, &shutdown).await?;
        has_bus.set_ready();
        let (relay, outcomes) = Relay::new(bus.clone(), Arc::new(SystemClock));
        let wake = Wake::default();
        let decisions = Decisions::new(store.clone(), relay.clone(), wake.clone(), clock.clone());
        Ok(Self {
            bus,
            store,
            decisions,
            roster: config.roster,
            relay,
            outcomes,
            wake,
            clock,
            verifier,
            grpc,
            grpc_addr,
            health,
            serving,
            has_bus,
            has_database,
            unmatched_billing_after: config.unmatched_billing_after,
            shutdown,
        })
    }

    /// Where gRPC is served.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// Serves until the shutdown token is cancelled, then drains: intake and calls first, the
    /// relay last, so that what they committed still goes out.
    pub async fn serve(self) -> Result<(), RunError> {
        let shutdown = self.shutdown;
        let tasks = TaskTracker::new();
        let relay_shutdown = CancellationToken::new();
        let relaying = tokio::spawn(self.relay.clone().run(
            self.store.clone(),
            self.outcomes,
            relay_shutdown.clone(),
        ));
        tasks.spawn(readiness::watch(
            self.bus.clone(),
            self.has_bus,
            self.store.clone(),
            self.has_database,
            shutdown.clone(),
        ));
        tasks.spawn(outbox::listen(
            self.store.clone(),
            self.relay,
            shutdown.clone(),
        ));
        tasks.spawn(timers::run(
            self.decisions.clone(),
            self.wake,
            shutdown.clone(),
        ));
        tasks.spawn(history::run(
            self.store.clone(),
            self.clock,
            shutdown.clone(),
        ));
        tasks.spawn(erasure::run(
            self.decisions.clone(),
            self.bus.clone(),
            shutdown.clone(),
        ));
        tasks.spawn(resume_requests::run(
            self.decisions.clone(),
            self.bus.publisher(),
            shutdown.clone(),
        ));
        tasks.spawn(rule_changes::run(self.decisions.clone(), shutdown.clone()));
        tasks.spawn(unmatched::run(
            self.decisions.clone(),
            self.unmatched_billing_after,
            shutdown.clone(),
        ));
        let consumer = billing_intake::consumer(&self.bus);
        let intake = billing_intake::run(consumer, self.decisions.clone(), shutdown.clone());
        let importer = Importer::new(
            self.decisions.clone(),
            self.roster,
            Arc::new(SystemClock),
            tasks.clone(),
            shutdown.clone(),
        );
        importer.release_orphans().await;
        tasks.spawn(roster::run(importer.clone()));
        let grpc = Grpc::new(self.decisions, importer);
        let routes = Routes::new(MembershipServiceServer::new(grpc));
        let auth = AuthLayer::services_only(self.verifier);
        let calls = self.grpc.serve(
            routes,
            auth,
            &[DESCRIPTORS],
            &[membership_service_server::SERVICE_NAME],
            &self.health,
            shutdown.clone(),
        );
        self.serving.set_ready();
        let ended = tokio::try_join!(async { intake.await.map_err(RunError::Consumer) }, async {
            calls.await.map_err(RunError::Serve)
        },);
        shutdown.cancel();
        tasks.close();
        tasks.wait().await;
        relay_shutdown.cancel();
        // A panic in the relay is logged by the runtime; the rows are still there.
        let _ = relaying.await;
        self.bus.flush().await;
        ended.map(drop)
    }
}

fn register_metrics() {
    metrics::register_counter_by(
        billing_intake::EVENTS,
        "Billing events taken in, by what became of them.",
        "outcome",
        &billing_intake::OUTCOMES,
    );
    metrics::register_counter_by(
        roster::IMPORTS,
        "Roster imports, by what became of them.",
        "outcome",
        &roster::OUTCOMES,
    );
    metrics::register_counter(timers::FIRED, "Decisions that time alone changed.");
    metrics::register_counter(
        history::PRUNED,
        "Decisions removed because they were replaced more than 13 months ago.",
    );
    metrics::register_gauge(
        erasure::OPEN,
        "People who are to be forgotten and are not yet.",
    );
    metrics::register_gauge(erasure::AGE, "Seconds since the first of them asked.");
    metrics::register_gauge(
        unmatched::COUNT,
        "Billing events that no membership claims.",
    );
    metrics::register_gauge(
        unmatched::AGE,
        "Seconds since the oldest of them was parked.",
    );
    metrics::register_gauge(
        outbox::DEPTH,
        "Messages that were committed and are not acked yet.",
    );
    metrics::register_gauge(
        outbox::AGE,
        "Seconds since the oldest message that is not acked yet was written.",
    );
}
