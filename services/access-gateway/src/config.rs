//! Settings, checked once at start.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use event_bus::NatsSettings;
use service_runtime::identity::IdentitySettings;
use service_runtime::lifecycle::LifecycleSettings;
use service_runtime::settings::http_url;
use service_runtime::telemetry::TelemetrySettings;

/// Faces people and apps: access from memory, set-up through kisi-sync.
#[derive(Debug, Clone, Parser)]
#[command(name = "access-gateway", version)]
pub struct Config {
    /// Where the JSON routes are served.
    #[arg(long, env = "HTTP_ADDR", default_value = "127.0.0.1:8080")]
    pub http_addr: SocketAddr,
    /// Where gRPC is served.
    #[arg(long, env = "GRPC_ADDR", default_value = "127.0.0.1:8084")]
    pub grpc_addr: SocketAddr,
    /// Where /livez, /readyz, /startupz and /metrics are served.
    #[arg(long, env = "HEALTH_ADDR", default_value = "127.0.0.1:9080")]
    pub health_addr: SocketAddr,
    /// Address of membership-events; it may start later.
    #[arg(long, env = "MEMBERSHIP_EVENTS_URL", default_value = "http://127.0.0.1:8082", value_parser = http_url)]
    pub membership_events_url: String,
    /// Address of kisi-sync; it may start later.
    #[arg(long, env = "KISI_SYNC_URL", default_value = "http://127.0.0.1:8083", value_parser = http_url)]
    pub kisi_sync_url: String,
    /// File with the token (role service) presented to the other services; read again when it changes.
    #[arg(long, env = "SERVICE_TOKEN_FILE")]
    pub service_token_file: PathBuf,
    /// Whose tokens count.
    #[command(flatten)]
    pub identity: IdentitySettings,
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
