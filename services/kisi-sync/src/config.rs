//! Settings, from the environment or flags, checked once at start.
//!
//! Numbers of the brake are service settings on purpose: no call changes them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser};
use secrecy::SecretString;
use service_runtime::identity::IdentitySettings;
use service_runtime::lifecycle::LifecycleSettings;
use service_runtime::settings;
use service_runtime::telemetry::TelemetrySettings;

/// kisi-sync: makes Kisi match who is entitled.
#[derive(Debug, Clone, Parser)]
#[command(name = "kisi-sync", version)]
pub struct Config {
    #[command(flatten)]
    pub bus: event_bus::NatsSettings,
    /// The tables: sqlite://… (one replica) or postgres://… (several).
    #[arg(long, env = "DATABASE_URL", value_parser = settings::secret)]
    pub database_url: SecretString,
    /// Where gRPC is served.
    #[arg(long, env = "GRPC_ADDR", default_value = "127.0.0.1:8083")]
    pub grpc_addr: SocketAddr,
    /// This replica's gRPC address as the others reach it, such as http://10.0.0.7:8083. Without
    /// it: http:// and the bound address.
    #[arg(long, env = "ADVERTISE_ADDR", value_parser = settings::http_url)]
    pub advertise_addr: Option<String>,
    /// Where /livez, /readyz, /startupz and /metrics are served.
    #[arg(long, env = "HEALTH_ADDR", default_value = "127.0.0.1:9083")]
    pub health_addr: SocketAddr,
    /// gRPC of membership-events: names and e-mails, versions of a gym's members.
    #[arg(long, env = "MEMBERSHIP_EVENTS_URL", default_value = "http://127.0.0.1:8082", value_parser = settings::http_url)]
    pub membership_events_url: String,
    /// File with the token that this service presents to others.
    #[arg(long, env = "SERVICE_TOKEN_FILE")]
    pub service_token_file: PathBuf,
    /// `id:base64 of 32 bytes`, comma-separated, newest first. The newest seals, any opens.
    #[arg(long, env = "SEALING_KEYS", value_parser = settings::secret)]
    pub sealing_keys: SecretString,
    #[command(flatten)]
    pub kisi: KisiSettings,
    /// How often each gym is compared with Kisi as a whole, aligned to UTC.
    #[arg(long, env = "RECONCILE_EVERY", default_value = "15m", value_parser = settings::positive_duration)]
    pub reconcile_every: Duration,
    #[command(flatten)]
    pub lease: LeaseSettings,
    #[command(flatten)]
    pub brake: BrakeSettings,
    #[command(flatten)]
    pub identity: IdentitySettings,
    #[command(flatten)]
    pub telemetry: TelemetrySettings,
    #[command(flatten)]
    pub lifecycle: LifecycleSettings,
}

/// How Kisi is spoken to.
#[derive(Debug, Clone, Args)]
pub struct KisiSettings {
    /// Kisi's address, or a simulator's.
    #[arg(long, env = "KISI_BASE_URL", default_value = "https://api.kisi.io", value_parser = settings::http_url)]
    pub kisi_base_url: String,
    /// What Kisi allows each of its users, requests a second.
    #[arg(long, env = "KISI_REQUESTS_PER_SECOND", default_value = "5", value_parser = positive_rate)]
    pub kisi_requests_per_second: f64,
    /// The header X-Kisi-Integration-Identifier.
    #[arg(long, env = "KISI_INTEGRATION_NAME", default_value = "gymflow")]
    pub kisi_integration_name: String,
    /// The header X-Kisi-Integration-Contact, an e-mail address.
    #[arg(
        long,
        env = "KISI_INTEGRATION_CONTACT",
        default_value = "integrations@gymflow.example"
    )]
    pub kisi_integration_contact: String,
    /// Where Kisi reaches access-gateway from outside, such as https://access.example.com. With it an
    /// event webhook is registered at each gym's Kisi whose key allows it.
    #[arg(long, env = "KISI_EVENTS_URL", value_parser = settings::http_url)]
    pub kisi_events_url: Option<String>,
    /// From a request's turn to the last byte of its answer. Shorter than a lease lasts, so that a
    /// replica that lost its lease has nothing in flight.
    #[arg(long, env = "KISI_REQUEST_TIMEOUT", default_value = "5s", value_parser = settings::positive_duration)]
    pub kisi_request_timeout: Duration,
    /// For how long Kisi has not answered a gym's work before that is shown as its outage.
    #[arg(long, env = "KISI_OUTAGE_SHOWS_AFTER", default_value = "1m", value_parser = settings::positive_duration)]
    pub kisi_outage_shows_after: Duration,
}

/// Who works on a gym, for how long at a time.
#[derive(Debug, Clone, Args)]
pub struct LeaseSettings {
    /// How long a lease lasts without renewal; a replica that died is replaced after it.
    #[arg(long, env = "LEASE_TTL", default_value = "10s", value_parser = settings::positive_duration)]
    pub lease_ttl: Duration,
    /// How often leases are renewed and free ones taken.
    #[arg(long, env = "LEASE_RENEW_EVERY", default_value = "3s", value_parser = settings::positive_duration)]
    pub lease_renew_every: Duration,
}

/// Past these lines a plan is held for a person.
#[derive(Debug, Clone, Args)]
pub struct BrakeSettings {
    /// So many unexplained losses are always let through.
    #[arg(long, env = "BRAKE_UNEXPLAINED_MIN", default_value = "10")]
    pub brake_unexplained_min: u32,
    /// Unexplained losses in an hour, percent of the gym's grants.
    #[arg(long, env = "BRAKE_UNEXPLAINED_HOUR_PERCENT", default_value = "5")]
    pub brake_unexplained_hour_percent: u32,
    /// Unexplained losses in a day, percent of the gym's grants.
    #[arg(long, env = "BRAKE_UNEXPLAINED_DAY_PERCENT", default_value = "15")]
    pub brake_unexplained_day_percent: u32,
    /// So many explained losses are always let through.
    #[arg(long, env = "BRAKE_EXPLAINED_MIN", default_value = "100")]
    pub brake_explained_min: u32,
    /// Explained losses in an hour, percent of the gym's grants.
    #[arg(long, env = "BRAKE_EXPLAINED_HOUR_PERCENT", default_value = "30")]
    pub brake_explained_hour_percent: u32,
    /// So many members let in by a changed mapping need no confirmation.
    #[arg(long, env = "BRAKE_GRANTS_MIN", default_value = "50")]
    pub brake_grants_min: u32,
    /// Members let in by a changed mapping, percent of the gym's grants.
    #[arg(long, env = "BRAKE_GRANTS_PERCENT", default_value = "25")]
    pub brake_grants_percent: u32,
}

fn positive_rate(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("a number above 0 is expected".to_owned()),
    }
}
