//! Settings, checked once at start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use event_bus::NatsSettings;
use service_runtime::lifecycle::LifecycleSettings;
use service_runtime::settings::positive_duration;
use service_runtime::telemetry::TelemetrySettings;

use crate::catchup::CatchUpSettings;

/// Takes payment providers' webhooks and answers when they are on disk.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "billing-webhook",
    version,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    #[command(flatten)]
    pub config: Config,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What it can do besides serving.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Checks a file of billing endpoints and names what is wrong by line and field.
    CheckEndpoints {
        /// The file.
        file: PathBuf,
    },
}

/// Settings of the service.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Where providers post to.
    #[arg(long, env = "HTTP_ADDR", default_value = "127.0.0.1:8081")]
    pub http_addr: SocketAddr,
    /// Where /livez, /readyz, /startupz and /metrics are served.
    #[arg(long, env = "HEALTH_ADDR", default_value = "127.0.0.1:9081")]
    pub health_addr: SocketAddr,
    /// YAML file of the endpoints and their secrets; read again when it changes.
    #[arg(
        long,
        env = "BILLING_ENDPOINTS_FILE",
        default_value = "billing-endpoints.yaml"
    )]
    pub billing_endpoints_file: PathBuf,
    /// How often the endpoints file is looked at.
    #[arg(long, env = "BILLING_ENDPOINTS_CHECK_EVERY", default_value = "1s", value_parser = positive_duration)]
    pub billing_endpoints_check_every: Duration,
    /// How long a sender waits for JetStream's acks before it is told to send again.
    #[arg(long, env = "PUBLISH_TIMEOUT", default_value = "2s", value_parser = positive_duration)]
    pub publish_timeout: Duration,
    /// How long a sender may take to send a request's head, and to begin the next request.
    #[arg(long, env = "HEAD_TIMEOUT", default_value = "5s", value_parser = positive_duration)]
    pub head_timeout: Duration,
    /// How long a sender may take to send its body.
    #[arg(long, env = "READ_TIMEOUT", default_value = "10s", value_parser = positive_duration)]
    pub read_timeout: Duration,
    /// Posts under way at once; more are told to send again.
    #[arg(long, env = "MAX_IN_FLIGHT", default_value_t = 512, value_parser = count)]
    pub max_in_flight: usize,
    /// Connections open at once; more wait until one ends.
    #[arg(long, env = "MAX_CONNECTIONS", default_value_t = 2048, value_parser = count)]
    pub max_connections: usize,
    /// How old a connection gets before it is closed.
    #[arg(long, env = "MAX_CONNECTION_AGE", default_value = "2m", value_parser = positive_duration)]
    pub max_connection_age: Duration,
    /// MiB that bodies under way may take together; more are told to send again.
    #[arg(long, env = "MAX_BODY_MEMORY_MIB", default_value_t = 64, value_parser = count)]
    pub max_body_memory_mib: usize,
    /// Whether events that wait together share a disk flush.
    #[arg(long, env = "GROUP_COMMIT", default_value_t = true, action = clap::ArgAction::Set)]
    pub group_commit: bool,
    /// Catching up on what a provider could not deliver.
    #[command(flatten)]
    pub catchup: CatchUpSettings,
    /// The bus.
    #[command(flatten)]
    pub nats: NatsSettings,
    /// Logs and traces.
    #[command(flatten)]
    pub telemetry: TelemetrySettings,
    /// How the process ends.
    #[command(flatten)]
    pub lifecycle: LifecycleSettings,
}

fn count(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(count @ 1..=1_000_000) => Ok(count),
        _ => Err("a number from 1 to 1000000 is expected".to_owned()),
    }
}
