//! Settings of membership-events, by flag or environment variable.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use event_bus::NatsSettings;
use service_runtime::identity::IdentitySettings;
use service_runtime::lifecycle::LifecycleSettings;
use service_runtime::settings;
use service_runtime::telemetry::TelemetrySettings;

use crate::roster::RosterSettings;
use crate::store::DatabaseSettings;

/// Gyms, members, memberships and billing facts; decides who is entitled to access.
#[derive(Debug, Clone, Parser)]
#[command(name = "membership-events", version)]
pub struct Config {
    /// Address of the gRPC service.
    #[arg(long, env = "GRPC_ADDR", default_value = "127.0.0.1:8082")]
    pub grpc_addr: SocketAddr,
    /// Address of /livez, /readyz, /startupz and /metrics.
    #[arg(long, env = "HEALTH_ADDR", default_value = "127.0.0.1:9082")]
    pub health_addr: SocketAddr,
    /// The bus.
    #[command(flatten)]
    pub nats: NatsSettings,
    /// The tables.
    #[command(flatten)]
    pub database: DatabaseSettings,
    /// When a roster import is held.
    #[command(flatten)]
    pub roster: RosterSettings,
    /// Whose tokens count.
    #[command(flatten)]
    pub identity: IdentitySettings,
    /// A billing event that no membership claims for this long is logged, once an hour.
    #[arg(long, env = "UNMATCHED_BILLING_AFTER", default_value = "1h",
        value_parser = settings::positive_duration)]
    pub unmatched_billing_after: Duration,
    /// How the process ends.
    #[command(flatten)]
    pub lifecycle: LifecycleSettings,
    /// Logs and traces.
    #[command(flatten)]
    pub telemetry: TelemetrySettings,
}

impl Config {
    /// Free ports, a test's own servers and a test's own keys.
    pub fn for_testing(nats: NatsSettings, database_url: &str, identity: IdentitySettings) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            grpc_addr: any,
            health_addr: any,
            nats,
            database: DatabaseSettings {
                database_url: database_url.to_owned(),
                database_pool_size: 5,
                database_statement_timeout: Duration::from_secs(5),
            },
            roster: RosterSettings::for_testing(),
            identity,
            unmatched_billing_after: Duration::from_secs(3_600),
            lifecycle: LifecycleSettings {
                drain_time: Duration::from_secs(5),
            },
            telemetry: TelemetrySettings::for_testing(),
        }
    }
}
