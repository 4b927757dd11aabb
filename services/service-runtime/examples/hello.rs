//! The smallest service: settings, health, one span a start, and an orderly end.
//!
//! `HEALTH_ADDR=127.0.0.1:8090 GREETING=hello cargo run -p service-runtime --example hello`

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use service_runtime::health::{Health, HealthSettings};
use service_runtime::http_server::ServeError;
use service_runtime::lifecycle::{LifecycleSettings, run_service};
use service_runtime::settings;
use service_runtime::telemetry::TelemetrySettings;
use tokio_util::sync::CancellationToken;

/// Says hello until it is told to stop.
#[derive(Debug, Clone, Parser)]
struct Config {
    /// What to say.
    #[arg(long, env = "GREETING")]
    greeting: String,
    /// How long the last greeting takes.
    #[arg(long, env = "LAST_GREETING_TAKES", default_value = "0s", value_parser = settings::duration)]
    last_greeting_takes: Duration,
    #[command(flatten)]
    telemetry: TelemetrySettings,
    #[command(flatten)]
    lifecycle: LifecycleSettings,
    #[command(flatten)]
    health: HealthSettings,
}

async fn run(config: Config, shutdown: CancellationToken) -> Result<(), ServeError> {
    let health = Health::new();
    let greeted = health.condition("greeted");
    health
        .serve(config.health.health_addr, shutdown.clone())
        .await?;
    tracing::info_span!("greeting").in_scope(|| tracing::info!("{}", config.greeting));
    greeted.set_ready();
    shutdown.cancelled().await;
    tokio::time::sleep(config.last_greeting_takes).await;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let config: Config = settings::from_env();
    let (telemetry, lifecycle) = (config.telemetry.clone(), config.lifecycle.clone());
    run_service("hello", &telemetry, &lifecycle, |shutdown| {
        run(config, shutdown)
    })
    .await
}
