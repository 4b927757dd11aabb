#![doc = include_str!("../README.md")]

pub mod answer;
pub mod body;
pub mod catchup;
pub mod checked;
pub mod config;
pub mod endpoints;
pub mod error;
pub mod gocardless;
pub mod http;
pub mod intake;
pub mod measures;
pub mod provider;
pub mod standard;
pub mod stripe;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use event_bus::Bus;
use service_runtime::clock::SystemClock;
use service_runtime::health::{Condition, Health};
use service_runtime::http_server;
use service_runtime::http_server::Guards;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::body::Bodies;
use crate::catchup::CatchUp;
use crate::catchup::heard::Heard;
use crate::config::Config;
use crate::endpoints::watch::Current;
use crate::error::Error;
use crate::http::Entrance;
use crate::intake::Intake;

/// How often readiness looks at the bus.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Serves until `shutdown`, then lets open posts finish.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    measures::register();
    catchup::measures::register();
    let health = Health::new();
    let bus_ready = health.condition("bus");
    let every = config.billing_endpoints_check_every;
    let endpoints =
        endpoints::watch::watch(&config.billing_endpoints_file, every, shutdown.clone())?;
    let listener = http_server::bind("HTTP_ADDR", config.http_addr).await?;
    let health_addr = health.serve(config.health_addr, shutdown.clone()).await?;
    info!(
        http = %http_server::local_addr(&listener)?,
        health = %health_addr,
        "billing-webhook listens"
    );
    let intake = Arc::new(OnceLock::new());
    let heard = Arc::new(Heard::default());
    let entrance = Arc::new(Entrance {
        endpoints: endpoints.clone(),
        heard: Arc::clone(&heard),
        intake: Arc::clone(&intake),
        clock: Arc::new(SystemClock),
        bodies: Bodies::new(
            config.max_body_memory_mib,
            config.read_timeout,
            shutdown.clone(),
            // The rest of the drain is for its acks.
            config.lifecycle.drain_time / 2,
        ),
        in_flight: Semaphore::new(config.max_in_flight),
    });
    let guards = Guards {
        head_time: config.head_timeout,
        max_connections: config.max_connections,
        max_age: config.max_connection_age,
    };
    let router = http::router(entrance);
    let serving = http_server::serve_guarded(listener, router, guards, shutdown.clone());
    let starting = start_bus(&config, &intake, bus_ready, shutdown, endpoints, heard);
    tokio::try_join!(async { Ok(serving.await?) }, starting)?;
    Ok(())
}

/// Until the bus is there, posts are told to come again.
async fn start_bus(
    config: &Config,
    intake: &OnceLock<Intake>,
    ready: Condition,
    shutdown: CancellationToken,
    endpoints: Current,
    heard: Arc<Heard>,
) -> Result<(), Error> {
    let bus = match Bus::start(&config.nats, "billing-webhook", &shutdown).await {
        Err(event_bus::BusError::Stopped) => return Ok(()),
        started => started?,
    };
    let publisher = bus.publisher().with_time_limit(config.publish_timeout);
    let intake = intake.get_or_init(|| match config.group_commit {
        true => Intake::in_groups(publisher),
        false => Intake::new(publisher),
    });
    ready.set_ready();
    let settings = config.catchup.clone();
    let clock = Arc::new(SystemClock);
    let catch_up = CatchUp::new(settings, endpoints, clock, &bus, intake.clone(), heard);
    tokio::spawn(watch_bus(bus, ready, shutdown.clone()));
    // On a task of its own: whatever befalls it, posts are taken.
    if tokio::spawn(catch_up.run(shutdown)).await.is_err() {
        error!("Catching up broke down; it begins again when this replica starts");
    }
    Ok(())
}

/// Ready while JetStream answers: a post that cannot be kept is better taken by another replica.
async fn watch_bus(bus: Bus, ready: Condition, shutdown: CancellationToken) {
    loop {
        let pause = tokio::time::sleep(LOOK_EVERY);
        if shutdown.run_until_cancelled(pause).await.is_none() {
            return;
        }
        match bus.check().await {
            Ok(()) => ready.set_ready(),
            Err(_) => ready.set_not_ready("JetStream does not answer"),
        }
    }
}
